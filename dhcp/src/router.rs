//! Router advertisements (RFC 4861 §6.2, RFC 4191, RFC 8106): answers to solicitations, and unsolicited advertisements that keep the route alive.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use terms::Ipv6Network;

use crate::Frame;
use crate::bytes::Bytes;
use crate::config::{Config, Prefix, Router, V6Config};
use crate::frame::{Icmp6, Link, multicast_mac};
use crate::names;

/// ICMPv6 types.
pub(crate) const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// Neighbour discovery options.
const SOURCE_LINK_LAYER: u8 = 1;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const ROUTE: u8 = 24;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;
/// Managed addresses and other configuration: both by DHCPv6.
const MANAGED_AND_OTHER: u8 = 0xc0;
const ON_LINK: u8 = 0x80;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Smallest MTU that IPv6 knows (RFC 8200 §5); less cannot be announced.
const LEAST_MTU: u32 = 1280;
/// Lifetime of what an advertisement without default route says: AdvDefaultLifetime of RFC 4861 §6.2.1.
const PLAIN_LIFETIME: u16 = 1800;

/// When the next unsolicited advertisement is due; never before the first frame of the guest.
#[derive(Debug, Default)]
pub(crate) struct AdvertisementTimer(Option<Duration>);

impl AdvertisementTimer {
    pub(crate) fn due(&self) -> Option<Duration> {
        self.0
    }

    /// Sets the timer to a third of the lifetime, after an advertisement or the guest's first frame.
    pub(crate) fn restart(&mut self, now: Duration, v6: &V6Config) {
        let third = u64::from(lifetime(v6) / 3).clamp(4, 600);
        self.0 = now.checked_add(Duration::from_secs(third));
    }

    /// Starts the timer with the guest's first frame.
    pub(crate) fn start(&mut self, now: Duration, v6: &V6Config) {
        if self.0.is_none() {
            self.restart(now, v6);
        }
    }
}

/// Whether a solicitation is one (RFC 4861 §6.1.1).
pub(crate) fn is_valid(solicitation: &Icmp6<'_>) -> bool {
    let mut body = Bytes::new(solicitation.body);
    let source = solicitation.source;
    solicitation.hop_limit == 255
        && solicitation.code == 0
        && (source.is_unspecified() || source.is_unicast_link_local())
        && body.u32().is_some()
        && options_are_whole(body)
}

fn options_are_whole(mut options: Bytes<'_>) -> bool {
    while !options.is_empty() {
        let rest = options.rest();
        let length = rest.get(1).map_or(0, |units| usize::from(*units) * 8);
        if length == 0 || options.take(length).is_none() {
            return false;
        }
    }
    true
}

/// The advertisement. It goes to all nodes of a link on which the guest is alone, so no address of the guest is needed.
pub(crate) fn advertisement(config: &Config, v6: &V6Config) -> Frame {
    let (source, router_lifetime) = match v6.router {
        Router::Gateway { link_local, .. } | Router::Virtual { link_local, .. } => {
            (link_local, v6.router_lifetime_seconds)
        }
        Router::None => (config.service_link_local, 0),
    };
    let mut body = vec![64, MANAGED_AND_OTHER];
    body.extend(router_lifetime.to_be_bytes());
    // Reachable and retransmission time: unspecified.
    body.extend([0; 8]);
    let mut options = Options { body, room: config.ipv6_payload_bytes() - 4 };
    // A virtual router never tells its Ethernet address here: the guest asks, and asks again when the gateway moves.
    if let Router::Gateway { link_layer: Some(mac), .. } = v6.router {
        options.push(SOURCE_LINK_LAYER, &mac.bytes());
    }
    if let Some(mtu) = config.mtu.map(terms::Mtu::value).filter(|mtu| *mtu >= LEAST_MTU) {
        options.push(MTU, &[&[0; 2][..], &mtu.to_be_bytes()].concat());
    }
    v6.prefixes.iter().for_each(|prefix| options.push(PREFIX, &prefix_information(*prefix, v6)));
    if v6.router != Router::None {
        v6.routes.iter().for_each(|to| options.push(ROUTE, &route_information(*to, v6)));
    }
    add_names(&mut options, config, v6);
    let destination = if config.any_client { multicast_mac(ALL_NODES) } else { config.guest_mac.bytes() };
    let link = Link { source: config.service_mac, destination };
    link.icmp6(source, ALL_NODES, ADVERTISEMENT, &options.body)
}

fn lifetime(v6: &V6Config) -> u16 {
    let announces_route = v6.router != Router::None && v6.router_lifetime_seconds > 0;
    if announces_route { v6.router_lifetime_seconds } else { PLAIN_LIFETIME }
}

/// Never for autonomous configuration: the guest's one address comes by DHCPv6.
fn prefix_information(prefix: Prefix, v6: &V6Config) -> Vec<u8> {
    let mut value = vec![prefix.network.prefix(), if prefix.on_link { ON_LINK } else { 0 }];
    value.extend(v6.valid.wire().to_be_bytes());
    value.extend(v6.preferred.wire().to_be_bytes());
    value.extend([0; 4]);
    value.extend(prefix.network.network().octets());
    value
}

/// Of medium preference (RFC 4191 §2.3): no bits. Only as much of the prefix as counts.
fn route_information(to: Ipv6Network, v6: &V6Config) -> Vec<u8> {
    let bytes = match to.prefix() {
        0 => 0,
        1..=64 => 8,
        _ => 16,
    };
    let mut value = vec![to.prefix(), 0];
    value.extend(u32::from(lifetime(v6)).to_be_bytes());
    value.extend(to.network().octets().into_iter().take(bytes));
    value
}

fn add_names(options: &mut Options, config: &Config, v6: &V6Config) {
    let head = [&[0; 2][..], &u32::from(lifetime(v6)).to_be_bytes()].concat();
    let servers = config.dns.iter().filter_map(|server| match server {
        IpAddr::V6(server) => Some(server.octets()),
        IpAddr::V4(_) => None,
    });
    let servers: Vec<u8> = servers.flatten().collect();
    if !servers.is_empty() {
        options.push(RDNSS, &[&head[..], &servers].concat());
    }
    let search = names::plain(&config.search, options.left().saturating_sub(head.len())).0;
    if !search.is_empty() {
        options.push(DNSSL, &[&head[..], &search].concat());
    }
}

/// The body under construction; an option that does not fit is left out.
struct Options {
    body: Vec<u8>,
    room: usize,
}

impl Options {
    /// Pads to units of eight bytes (RFC 4861 §4.6).
    fn push(&mut self, kind: u8, value: &[u8]) {
        let units = (value.len() + 2).div_ceil(8);
        let Ok(length) = u8::try_from(units) else { return };
        if self.body.len() + units * 8 <= self.room {
            let end = self.body.len() + units * 8;
            self.body.extend([kind, length]);
            self.body.extend(value);
            self.body.resize(end, 0);
        }
    }

    /// Bytes a value may still have.
    fn left(&self) -> usize {
        (self.room.saturating_sub(self.body.len()) / 8 * 8).saturating_sub(2)
    }
}
