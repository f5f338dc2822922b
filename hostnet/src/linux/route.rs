//! Routes in rtnetlink's words.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteProtocol as Protocol,
    RouteScope as Scope, RouteType, RouteVia,
};
use terms::IpNetwork;

use super::Linux;
use super::address::{self, ip};
use crate::attributes::attribute;
use crate::attributes::{attributes_of, number};
use crate::facts::{Link, NextHop, Route, RouteKind, RouteProtocol, RouteScope};
use crate::kernel::KernelError;

/// RTNH_F_ONLINK of `linux/rtnetlink.h`, which the crate knows for hops of multipath routes only.
const ONLINK: u32 = 4;

/// RTAX_MTU and RTAX_ADVMSS of `linux/rtnetlink.h`.
const MTU_METRIC: u16 = 2;
const ADVMSS_METRIC: u16 = 8;

/// RTA_VIA of the same header, which libc lacks for musl.
const VIA: u16 = 18;

impl Linux<'_> {
    pub(super) fn route(&mut self, route: &Route) -> Result<RouteMessage, KernelError> {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = address::family(route.destination.ip());
        header.destination_prefix_length = route.destination.prefix();
        header.protocol = protocol(route.protocol);
        header.scope = scope(route.scope);
        header.kind = kind(route.kind);
        // Tables beyond a byte travel in an attribute; the header then says "unspecified".
        header.table = u8::try_from(route.table).unwrap_or(0);
        if route.onlink {
            header.flags = RouteFlags::from_bits_retain(ONLINK);
        }
        let attributes = &mut message.attributes;
        if route.table > u32::from(u8::MAX) {
            attributes.push(RouteAttribute::Table(route.table));
        }
        if route.destination.prefix() > 0 {
            attributes.push(RouteAttribute::Destination(route.destination.ip().into()));
        }
        attributes.extend(route.prefer_source.map(|ip| RouteAttribute::PrefSource(ip.into())));
        attributes.extend(route.metric.map(RouteAttribute::Priority));
        let advmss = route.advmss_bytes.map(RouteMetric::Advmss);
        let metrics: Vec<_> = route.mtu_bytes.map(RouteMetric::Mtu).into_iter().chain(advmss).collect();
        attributes.extend((!metrics.is_empty()).then_some(RouteAttribute::Metrics(metrics)));
        let first = NextHop { link: route.link.clone(), gateway: route.gateway };
        if route.more_hops.is_empty() {
            let (index, gateway) = self.hop(route.destination, &first)?;
            attributes.extend(index.map(RouteAttribute::Oif));
            attributes.extend(gateway);
        } else {
            let hops = std::iter::once(&first).chain(&route.more_hops);
            let hops = hops.map(|hop| {
                let (index, gateway) = self.hop(route.destination, hop)?;
                let mut next = RouteNextHop::default();
                next.interface_index = index.unwrap_or(0);
                next.attributes.extend(gateway);
                Ok(next)
            });
            attributes.push(RouteAttribute::MultiPath(hops.collect::<Result<_, KernelError>>()?));
        }
        Ok(message)
    }

    fn hop(&mut self, to: IpNetwork, hop: &NextHop) -> Result<(Option<u32>, Option<RouteAttribute>), KernelError> {
        let index = hop.link.as_ref().map(|link| self.index(link)).transpose()?;
        let gateway = hop.gateway.map(|gateway| match gateway {
            gateway if gateway.is_ipv4() == to.is_ipv4() => RouteAttribute::Gateway(gateway.into()),
            IpAddr::V4(gateway) => RouteAttribute::Via(RouteVia::Inet(gateway)),
            IpAddr::V6(gateway) => RouteAttribute::Via(RouteVia::Inet6(gateway)),
        });
        Ok((index, gateway))
    }

    pub(super) fn read_routes(&mut self, links: &[Link]) -> Result<Vec<Route>, KernelError> {
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        self.channel.dump_route(request, libc::RTM_NEWROUTE, |message| Ok(read(message, links)))
    }
}

/// A removal matches whatever scope and origin the entry has (RT_SCOPE_NOWHERE, RTPROT_UNSPEC).
pub(super) fn deletion(mut message: RouteMessage) -> RouteMessage {
    message.header.scope = Scope::NoWhere;
    message.header.protocol = Protocol::Unspec;
    message
}

/// `None` for what is no IP route: multicast routing's and exceptions in the cache.
pub(super) fn read(message: &[u8], links: &[Link]) -> Option<Route> {
    // `struct rtmsg`: family, lengths of destination and source, tos, table, protocol, scope, type, flags.
    let ([family, prefix, _, _, table, protocol, scope, kind, flags @ ..], attributes) =
        message.split_first_chunk::<12>()?;
    let flags = u32::from_ne_bytes(*flags);
    if flags & libc::RTM_F_CLONED != 0 {
        return None;
    }
    let unspecified = match i32::from(*family) {
        libc::AF_INET => IpAddr::from([0; 4]),
        libc::AF_INET6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    let mut route = Route {
        kind: read_kind((*kind).into()),
        table: (*table).into(),
        protocol: read_protocol((*protocol).into()),
        scope: read_scope((*scope).into()),
        onlink: flags & ONLINK != 0,
        ..Route::to(IpNetwork::new(unspecified, *prefix).ok()?)
    };
    for (kind, value) in attributes_of(attributes) {
        match kind {
            libc::RTA_DST => route.destination = IpNetwork::new(ip(value)?, *prefix).ok()?,
            libc::RTA_OIF => route.link = number(value, 0).and_then(name),
            libc::RTA_TABLE => route.table = number(value, 0).unwrap_or(route.table),
            libc::RTA_PREFSRC => route.prefer_source = ip(value),
            libc::RTA_PRIORITY => route.metric = number(value, 0),
            libc::RTA_METRICS => {
                let metric = |kind| attribute(value, kind).and_then(|bytes| number(bytes, 0));
                (route.mtu_bytes, route.advmss_bytes) = (metric(MTU_METRIC), metric(ADVMSS_METRIC));
            }
            libc::RTA_MULTIPATH => {
                let mut hops =
                    hops(value).map(|(index, attributes)| NextHop { link: name(index), gateway: gateway(attributes) });
                let first = hops.next();
                route.more_hops = hops.collect();
                route.link = first.as_ref().and_then(|hop| hop.link.clone());
                route.gateway = first.and_then(|hop| hop.gateway);
            }
            libc::RTA_GATEWAY => route.gateway = ip(value),
            VIA => route.gateway = via(value),
            _ => {}
        }
    }
    Some(route)
}

/// The hops of a multipath route (`struct rtnexthop`: length, flags, weight, index), each with its attributes.
fn hops(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let ([low, high, ..], _) = bytes.split_first_chunk::<8>()?;
        let length = usize::from(u16::from_ne_bytes([*low, *high]));
        let (index, attributes) = (number(bytes, 4)?, bytes.get(8..length)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((index, attributes))
    })
}

fn gateway(attributes: &[u8]) -> Option<IpAddr> {
    attribute(attributes, libc::RTA_GATEWAY).and_then(ip).or_else(|| attribute(attributes, VIA).and_then(via))
}

/// `struct rtvia`: a family and an address of it.
fn via(bytes: &[u8]) -> Option<IpAddr> {
    ip(bytes.get(2..)?)
}

fn kind(kind: RouteKind) -> RouteType {
    match kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Local => RouteType::Local,
        RouteKind::Broadcast => RouteType::Broadcast,
        RouteKind::Anycast => RouteType::Anycast,
        RouteKind::Multicast => RouteType::Multicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Prohibit => RouteType::Prohibit,
        RouteKind::Throw => RouteType::Throw,
        RouteKind::Other(number) => RouteType::Other(number),
    }
}

fn read_kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::Broadcast => RouteKind::Broadcast,
        RouteType::Anycast => RouteKind::Anycast,
        RouteType::Multicast => RouteKind::Multicast,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        other => RouteKind::Other(other.into()),
    }
}

fn protocol(protocol: RouteProtocol) -> Protocol {
    match protocol {
        RouteProtocol::Unspecified => Protocol::Unspec,
        RouteProtocol::Kernel => Protocol::Kernel,
        RouteProtocol::Boot => Protocol::Boot,
        RouteProtocol::Static => Protocol::Static,
        RouteProtocol::RouterAdvertisement => Protocol::Ra,
        RouteProtocol::Dhcp => Protocol::Dhcp,
        RouteProtocol::Other(number) => Protocol::Other(number),
    }
}

fn read_protocol(protocol: Protocol) -> RouteProtocol {
    match protocol {
        Protocol::Unspec => RouteProtocol::Unspecified,
        Protocol::Kernel => RouteProtocol::Kernel,
        Protocol::Boot => RouteProtocol::Boot,
        Protocol::Static => RouteProtocol::Static,
        Protocol::Ra => RouteProtocol::RouterAdvertisement,
        Protocol::Dhcp => RouteProtocol::Dhcp,
        other => RouteProtocol::Other(other.into()),
    }
}

fn scope(scope: RouteScope) -> Scope {
    match scope {
        RouteScope::Global => Scope::Universe,
        RouteScope::Site => Scope::Site,
        RouteScope::Link => Scope::Link,
        RouteScope::Host => Scope::Host,
        RouteScope::Nowhere => Scope::NoWhere,
        RouteScope::Other(number) => Scope::Other(number),
    }
}

fn read_scope(scope: Scope) -> RouteScope {
    match scope {
        Scope::Universe => RouteScope::Global,
        Scope::Site => RouteScope::Site,
        Scope::Link => RouteScope::Link,
        Scope::Host => RouteScope::Host,
        Scope::NoWhere => RouteScope::Nowhere,
        other => RouteScope::Other(other.into()),
    }
}
