//! Option codes and message types (RFC 2132 and as noted).

pub(super) const PAD: u8 = 0;
pub(super) const SUBNET_MASK: u8 = 1;
pub(super) const ROUTER: u8 = 3;
pub(super) const DNS: u8 = 6;
pub(super) const HOSTNAME: u8 = 12;
pub(super) const DOMAIN: u8 = 15;
pub(super) const MTU: u8 = 26;
pub(super) const BROADCAST: u8 = 28;
pub(super) const NTP: u8 = 42;
pub(super) const REQUESTED_ADDRESS: u8 = 50;
pub(super) const LEASE_SECONDS: u8 = 51;
pub(super) const OVERLOAD: u8 = 52;
pub(super) const MESSAGE_TYPE: u8 = 53;
pub(super) const SERVER_ID: u8 = 54;
pub(super) const PARAMETER_LIST: u8 = 55;
pub(super) const MESSAGE: u8 = 56;
pub(super) const MAX_MESSAGE_BYTES: u8 = 57;
pub(super) const RENEWAL_SECONDS: u8 = 58;
pub(super) const REBINDING_SECONDS: u8 = 59;
pub(super) const VENDOR_CLASS: u8 = 60;
pub(super) const CLIENT_ID: u8 = 61;
pub(super) const BOOT_SERVER: u8 = 66;
pub(super) const BOOT_FILE: u8 = 67;
/// RFC 4039.
pub(super) const RAPID_COMMIT: u8 = 80;
/// RFC 3397.
pub(super) const SEARCH: u8 = 119;
/// RFC 3442.
pub(super) const ROUTES: u8 = 121;
/// RFC 3442's content under the code that older Windows asks for ([MS-DHCPE] §2.2.8).
pub(super) const MICROSOFT_ROUTES: u8 = 249;
pub(super) const END: u8 = 255;

/// Values of option 53.
pub(super) const DISCOVER: u8 = 1;
pub(super) const OFFER: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const DECLINE: u8 = 4;
pub(super) const ACK: u8 = 5;
pub(super) const NAK: u8 = 6;
pub(super) const RELEASE: u8 = 7;
pub(super) const INFORM: u8 = 8;
