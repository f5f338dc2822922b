//! Option codes, message types and status codes (RFC 8415 §7.3, §21 and as noted).

pub(super) const CLIENT_ID: u16 = 1;
pub(super) const SERVER_ID: u16 = 2;
pub(super) const IA_NA: u16 = 3;
pub(super) const IA_TA: u16 = 4;
pub(super) const IA_ADDRESS: u16 = 5;
pub(super) const OPTION_REQUEST: u16 = 6;
pub(super) const PREFERENCE: u16 = 7;
pub(super) const STATUS: u16 = 13;
pub(super) const RAPID_COMMIT: u16 = 14;
pub(super) const VENDOR_CLASS: u16 = 16;
/// RFC 3646.
pub(super) const DNS: u16 = 23;
pub(super) const SEARCH: u16 = 24;
pub(super) const IA_PD: u16 = 25;
/// RFC 4075; obsolete, and all that some clients ask for.
pub(super) const SNTP: u16 = 31;
/// RFC 8415 §21.23.
pub(super) const REFRESH_SECONDS: u16 = 32;
/// RFC 4704.
pub(super) const CLIENT_FQDN: u16 = 39;
/// RFC 5908, with its suboption for a server's address.
pub(super) const NTP: u16 = 56;
pub(super) const NTP_ADDRESS: u16 = 1;
/// RFC 5970.
pub(super) const BOOT_FILE_URL: u16 = 59;

/// Message types.
pub(super) const SOLICIT: u8 = 1;
pub(super) const ADVERTISE: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const CONFIRM: u8 = 4;
pub(super) const RENEW: u8 = 5;
pub(super) const REBIND: u8 = 6;
pub(super) const REPLY: u8 = 7;
pub(super) const RELEASE: u8 = 8;
pub(super) const DECLINE: u8 = 9;
pub(super) const INFORMATION_REQUEST: u8 = 11;

/// Status codes.
pub(super) const SUCCESS: u16 = 0;
pub(super) const NO_ADDRESSES: u16 = 2;
pub(super) const NO_BINDING: u16 = 3;
pub(super) const NOT_ON_LINK: u16 = 4;
pub(super) const NO_PREFIX: u16 = 6;
