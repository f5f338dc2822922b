//! Addresses in rtnetlink's words.

use std::net::IpAddr;

use netlink_packet_route::address::{
    AddressAttribute, AddressFlags as Flags, AddressMessage, AddressScope as Scope, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use terms::IpNetwork;

use super::Linux;
use crate::attributes::{attributes_of, number};
use crate::facts::{Address, AddressFlags, AddressScope, Link};
use crate::kernel::KernelError;

/// "For ever" in `struct ifa_cacheinfo` (INFINITY_LIFE_TIME of the kernel's `net/addrconf.h`).
const FOREVER: u32 = u32::MAX;

/// IFA_FLAGS of `linux/if_addr.h`.
const FLAGS: u16 = 8;

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

impl Linux<'_> {
    /// The addresses of these links. A kernel before 4.20 does not look at the index and lists all.
    pub(super) fn read_addresses_of(&mut self, links: &[Link]) -> Result<Vec<Address>, KernelError> {
        let mut all = Vec::new();
        for link in links {
            all.extend(self.read_addresses(std::slice::from_ref(link), Some(link.index))?);
        }
        Ok(all)
    }

    pub(super) fn read_addresses(&mut self, links: &[Link], index: Option<u32>) -> Result<Vec<Address>, KernelError> {
        let mut message = AddressMessage::default();
        message.header.index = index.unwrap_or(0);
        let request = RouteNetlinkMessage::GetAddress(message);
        self.channel.dump_route(request, libc::RTM_NEWADDR, |message| Ok(read(message, links)))
    }
}

/// `None` for an address whose link vanished since the links were read, or that is of no IP family.
pub(super) fn read(message: &[u8], links: &[Link]) -> Option<Address> {
    // `struct ifaddrmsg`: family, prefix length, flags, scope, index.
    let ([_, prefix, flags, scope, ..], attributes) = message.split_first_chunk::<8>()?;
    let index = number(message, 4)?;
    let link = links.iter().find(|link| link.index == index)?.name.clone();
    let (mut local, mut other, mut flags, mut lifetimes) = (None, None, u32::from(*flags), None);
    for (kind, value) in attributes_of(attributes) {
        match kind {
            libc::IFA_LOCAL => local = ip(value),
            libc::IFA_ADDRESS => other = ip(value),
            // The header has room for eight of them only.
            FLAGS => flags = number(value, 0)?,
            libc::IFA_CACHEINFO => lifetimes = number(value, 0).zip(number(value, 4)),
            _ => {}
        }
    }
    // IFA_LOCAL is missing for IPv6 without a peer (`inet6_fill_ifaddr` in the kernel's `net/ipv6/addrconf.c`).
    let ip = local.or(other)?;
    let has = |flag: Flags| flags & flag.bits() != 0;
    let finite = |seconds: u32| Some(seconds).filter(|seconds| *seconds != FOREVER);
    Some(Address {
        link,
        address: IpNetwork::new(ip, *prefix).ok()?,
        peer: other.filter(|other| *other != ip),
        scope: match Scope::from(*scope) {
            Scope::Universe => AddressScope::Global,
            Scope::Site => AddressScope::Site,
            Scope::Link => AddressScope::Link,
            Scope::Host => AddressScope::Host,
            other => AddressScope::Other(other.into()),
        },
        flags: AddressFlags {
            nodad: has(Flags::Nodad),
            tentative: has(Flags::Tentative),
            dad_failed: has(Flags::Dadfailed),
            permanent: has(Flags::Permanent),
            secondary: has(Flags::Secondary),
            deprecated: has(Flags::Deprecated),
            no_prefix_route: has(Flags::Noprefixroute),
        },
        preferred_seconds: lifetimes.and_then(|(preferred, _)| finite(preferred)),
        valid_seconds: lifetimes.and_then(|(_, valid)| finite(valid)),
    })
}

/// An address by its length.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
