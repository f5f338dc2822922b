//! Option codes and message types (RFC 2132 and as noted).

pub(crate) const PAD: u8 = 0;
pub(crate) const SUBNET_MASK: u8 = 1;
pub(crate) const ROUTER: u8 = 3;
pub(crate) const DNS: u8 = 6;
pub(crate) const HOSTNAME: u8 = 12;
pub(crate) const DOMAIN: u8 = 15;
pub(crate) const MTU: u8 = 26;
pub(crate) const BROADCAST: u8 = 28;
pub(crate) const NTP: u8 = 42;
pub(crate) const VENDOR_OPTIONS: u8 = 43;
pub(crate) const REQUESTED_ADDRESS: u8 = 50;
pub(crate) const LEASE_SECONDS: u8 = 51;
pub(crate) const OVERLOAD: u8 = 52;
pub(crate) const MESSAGE_TYPE: u8 = 53;
pub(crate) const SERVER_ID: u8 = 54;
pub(crate) const PARAMETER_LIST: u8 = 55;
pub(crate) const MESSAGE: u8 = 56;
pub(crate) const MAX_MESSAGE_BYTES: u8 = 57;
pub(crate) const RENEWAL_SECONDS: u8 = 58;
pub(crate) const REBINDING_SECONDS: u8 = 59;
pub(crate) const VENDOR_CLASS: u8 = 60;
pub(crate) const CLIENT_ID: u8 = 61;
pub(crate) const BOOT_SERVER: u8 = 66;
pub(crate) const BOOT_FILE: u8 = 67;
/// RFC 3004.
pub(crate) const USER_CLASS: u8 = 77;
/// RFC 4039.
pub(crate) const RAPID_COMMIT: u8 = 80;
/// RFC 3046.
pub(crate) const RELAY_AGENT: u8 = 82;
/// RFC 4578 §2.1.
pub(crate) const ARCHITECTURE: u8 = 93;
/// RFC 4578 §2.3.
pub(crate) const MACHINE_ID: u8 = 97;
/// RFC 3397.
pub(crate) const SEARCH: u8 = 119;
/// RFC 3442.
pub(crate) const ROUTES: u8 = 121;
/// RFC 3442's content under the code that older Windows asks for ([MS-DHCPE] §2.2.8).
pub(crate) const MICROSOFT_ROUTES: u8 = 249;
/// Options of iPXE, which nothing else sends (the registry's "Etherboot").
pub(crate) const IPXE: u8 = 175;
pub(crate) const END: u8 = 255;

/// Values of option 53.
pub(crate) const DISCOVER: u8 = 1;
pub(crate) const OFFER: u8 = 2;
pub(crate) const REQUEST: u8 = 3;
pub(crate) const DECLINE: u8 = 4;
pub(crate) const ACK: u8 = 5;
pub(crate) const NAK: u8 = 6;
pub(crate) const RELEASE: u8 = 7;
pub(crate) const INFORM: u8 = 8;
