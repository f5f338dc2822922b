//! Addresses in rtnetlink's words.

use std::net::IpAddr;

use netlink_packet_route::address::{
    AddressAttribute, AddressFlags as Flags, AddressMessage, AddressScope as Scope, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use terms::IpNetwork;

use super::Linux;
use super::steps::Steps;
use crate::facts::{Address, AddressFlags, AddressScope, Link};
use crate::kernel::KernelError;

/// "For ever" in `struct ifa_cacheinfo` (INFINITY_LIFE_TIME of the kernel's `net/addrconf.h`).
const FOREVER: u32 = u32::MAX;

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

pub(super) fn deletion(index: u32, address: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip());
    message.header.prefix_len = address.prefix();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.ip()));
    message
}

pub(super) fn message(index: u32, new: &Address) -> AddressMessage {
    let mut message = deletion(index, new.address);
    message.header.scope = match new.scope {
        AddressScope::Global => Scope::Universe,
        AddressScope::Site => Scope::Site,
        AddressScope::Link => Scope::Link,
        AddressScope::Host => Scope::Host,
        AddressScope::Other(number) => Scope::Other(number),
    };
    message.attributes.push(AddressAttribute::Address(new.peer.unwrap_or(new.address.ip())));
    let mut flags = Flags::empty();
    flags.set(Flags::Nodad, new.flags.nodad);
    flags.set(Flags::Noprefixroute, new.flags.no_prefix_route);
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    if new.preferred_seconds.is_some() || new.valid_seconds.is_some() {
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_preferred = new.preferred_seconds.unwrap_or(FOREVER);
        lifetimes.ifa_valid = new.valid_seconds.unwrap_or(FOREVER);
        message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
    }
    message
}

impl<S: Steps> Linux<S> {
    pub(super) fn read_addresses(&mut self, links: &[Link]) -> Result<Vec<Address>, KernelError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.channel.dump_route(request, "addresses", |message| match message {
            RouteNetlinkMessage::NewAddress(message) => Ok(read(&message, links)),
            _ => Ok(None),
        })
    }
}

/// `None` for an address whose link vanished since the links were read, or that is of no IP family.
pub(super) fn read(message: &AddressMessage, links: &[Link]) -> Option<Address> {
    let link = links.iter().find(|link| link.index == message.header.index)?.name.clone();
    let (mut local, mut other, mut flags, mut lifetimes) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => other = Some(*ip),
            AddressAttribute::Flags(bits) => flags = Some(*bits),
            AddressAttribute::CacheInfo(info) => lifetimes = Some((info.ifa_preferred, info.ifa_valid)),
            _ => {}
        }
    }
    // IFA_LOCAL is missing for IPv6 without a peer (`inet6_fill_ifaddr` in the kernel's `net/ipv6/addrconf.c`).
    let ip = local.or(other)?;
    let flags = flags.unwrap_or_else(|| Flags::from_bits_retain(message.header.flags.bits().into()));
    let finite = |seconds: u32| Some(seconds).filter(|seconds| *seconds != FOREVER);
    Some(Address {
        link,
        address: IpNetwork::new(ip, message.header.prefix_len).ok()?,
        peer: other.filter(|other| *other != ip),
        scope: match message.header.scope {
            Scope::Universe => AddressScope::Global,
            Scope::Site => AddressScope::Site,
            Scope::Link => AddressScope::Link,
            Scope::Host => AddressScope::Host,
            other => AddressScope::Other(other.into()),
        },
        flags: AddressFlags {
            nodad: flags.contains(Flags::Nodad),
            tentative: flags.contains(Flags::Tentative),
            dad_failed: flags.contains(Flags::Dadfailed),
            permanent: flags.contains(Flags::Permanent),
            secondary: flags.contains(Flags::Secondary),
            deprecated: flags.contains(Flags::Deprecated),
            no_prefix_route: flags.contains(Flags::Noprefixroute),
        },
        preferred_seconds: lifetimes.and_then(|(preferred, _)| finite(preferred)),
        valid_seconds: lifetimes.and_then(|(_, valid)| finite(valid)),
    })
}
