//! What a client can ask for in its option request.

use std::net::{IpAddr, Ipv6Addr};

use super::codes;
use super::message::{Writer, push_option};
use crate::config::{Config, V6Config};
use crate::names;

/// Sent to a client that names no wishes.
const UNASKED: [u16; 3] = [codes::DNS, codes::SEARCH, codes::NTP];
/// How long parameters without a lease hold: a day, the default of RFC 8415 §7.6 (IRT_DEFAULT).
const REFRESH: u32 = 86_400;

/// Adds the options for these wishes. `is_stateless` is an Information-request, whose answer says when to ask again.
pub(super) fn add(writer: &mut Writer, config: &Config, v6: &V6Config, wishes: Option<Vec<u16>>, is_stateless: bool) {
    let wishes = wishes.unwrap_or_else(|| UNASKED.to_vec());
    let known = [codes::DNS, codes::SEARCH, codes::NTP, codes::SNTP, codes::BOOT_FILE_URL, codes::REFRESH_SECONDS];
    for code in known.into_iter().filter(|code| wishes.contains(code)) {
        let value = match code {
            codes::DNS => addresses(&config.dns).flatten().collect(),
            codes::SEARCH => names::plain(&config.search, writer.left()),
            codes::NTP => ntp(config),
            codes::SNTP => addresses(&config.ntp).flatten().collect(),
            codes::BOOT_FILE_URL => v6.boot_file_url.as_ref().map(|url| url.as_bytes().to_vec()).unwrap_or_default(),
            _ if is_stateless => REFRESH.to_be_bytes().to_vec(),
            _ => Vec::new(),
        };
        if !value.is_empty() {
            writer.option(code, &value);
        }
    }
}

fn ntp(config: &Config) -> Vec<u8> {
    let mut servers = Vec::new();
    addresses(&config.ntp).for_each(|server| push_option(&mut servers, codes::NTP_ADDRESS, &server));
    servers
}

fn addresses(of_both_families: &[IpAddr]) -> impl Iterator<Item = [u8; 16]> {
    of_both_families.iter().filter_map(|address| match address {
        IpAddr::V6(address) => Some(Ipv6Addr::octets(address)),
        IpAddr::V4(_) => None,
    })
}
