//! What a client can ask for in its option request.

use std::net::{IpAddr, Ipv6Addr};

use super::codes;
use super::message::{Writer, push_option};
use crate::config::{Config, V6Config};
use crate::names;

/// Sent to a client without an Option Request option.
const UNASKED: [u16; 3] = [codes::DNS, codes::SEARCH, codes::NTP];
/// How long parameters without a lease hold: a day, the default of RFC 8415 §7.6 (IRT_DEFAULT).
const REFRESH: u32 = 86_400;

/// Adds the requested options. `is_stateless` is an Information-request, whose answer says when to ask again. The search list
/// is last and takes the room that is left; returns how many of its names do not fit, if the client asks for it.
pub(super) fn add(
    writer: &mut Writer,
    config: &Config,
    v6: &V6Config,
    option_request: Option<Vec<u16>>,
    is_stateless: bool,
) -> Option<usize> {
    let requested = option_request.unwrap_or_else(|| UNASKED.to_vec());
    let known = [codes::DNS, codes::NTP, codes::SNTP, codes::BOOT_FILE_URL, codes::REFRESH_SECONDS];
    for code in known.into_iter().filter(|code| requested.contains(code)) {
        let value = match code {
            codes::DNS => addresses(&config.dns).flatten().collect(),
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
    if !requested.contains(&codes::SEARCH) || config.search.is_empty() {
        return None;
    }
    let (search, left_out) = names::plain(&config.search, writer.left());
    if !search.is_empty() {
        writer.option(codes::SEARCH, &search);
    }
    Some(left_out)
}

/// The guest's name by RFC 4704 §4 and §6, for a client that asks for it or tells its own. We update no DNS server (N), and
/// say so where the client wanted it done (O). Without a domain the name is partial: it has no closing root.
pub(super) fn full_name(config: &Config, sent: Option<&[u8]>) -> Option<Vec<u8>> {
    const SERVER_UPDATES: u8 = 1;
    const OVERRIDDEN: u8 = 2;
    const NO_UPDATES: u8 = 4;
    let hostname = config.hostname.as_deref()?;
    let full = config.domain().and_then(|domain| format!("{hostname}.{}", domain.as_str()).parse().ok());
    let is_partial = full.is_none();
    let name = full.or_else(|| hostname.parse().ok())?;
    let mut encoded = names::plain(&[name], usize::from(u8::MAX)).0;
    if is_partial {
        encoded.pop();
    }
    let wanted_updates = sent.and_then(<[u8]>::first).is_some_and(|flags| flags & SERVER_UPDATES != 0);
    let flags = NO_UPDATES | if wanted_updates { OVERRIDDEN } else { 0 };
    Some([&[flags][..], &encoded].concat())
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
