//! Links in rtnetlink's words.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoMacVlan, InfoVeth, InfoVlan, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, MacVlanMode, State,
};
use std::os::fd::RawFd;

use terms::{IfName, MacAddr};

use super::{Linux, bridge};
use crate::attributes::{attribute, text};
use crate::attributes::{attributes_of, number};
use crate::facts::{AddrGenMode, Ask, Link, LinkKind, MacvlanMode, OperState, Statistics, Tun, TunMode};
use crate::kernel::KernelError;
use crate::op::{LinkChange, Master, NewLink, NewLinkKind};

/// The message that makes a link, with what only creation can set (an ifb takes no MAC address later).
pub(super) fn creation(new: &NewLink, parent: Option<u32>, other_netns: Option<RawFd>) -> LinkMessage {
    let mut message = LinkMessage::default();
    let attributes = &mut message.attributes;
    attributes.push(LinkAttribute::IfName(new.name.to_string()));
    attributes.extend(new.set.mac.map(|mac| LinkAttribute::Address(mac.bytes().to_vec())));
    attributes.extend(new.set.mtu.map(|mtu| LinkAttribute::Mtu(mtu.value())));
    attributes.extend(new.set.group.map(LinkAttribute::Group));
    attributes.extend(parent.map(LinkAttribute::Link));
    let (kind, data) = match &new.kind {
        NewLinkKind::Veth { peer } => {
            let mut other = LinkMessage::default();
            other.attributes.push(LinkAttribute::IfName(peer.to_string()));
            (InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(other))))
        }
        NewLinkKind::VethAcross { peer, set } => {
            let mut other = LinkMessage::default();
            other.attributes.push(LinkAttribute::IfName(peer.to_string()));
            other.attributes.extend(other_netns.map(LinkAttribute::NetNsFd));
            other.attributes.extend(set.mac.map(|mac| LinkAttribute::Address(mac.bytes().to_vec())));
            other.attributes.extend(set.mtu.map(|mtu| LinkAttribute::Mtu(mtu.value())));
            (InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(other))))
        }
        NewLinkKind::Macvlan { mode, .. } => {
            (InfoKind::MacVlan, Some(InfoData::MacVlan(vec![InfoMacVlan::Mode(macvlan_mode(*mode))])))
        }
        NewLinkKind::Bridge => (InfoKind::Bridge, new.set.bridge.as_ref().map(bridge::settings)),
        NewLinkKind::Ifb => (InfoKind::Ifb, None),
        NewLinkKind::Vlan { id, .. } => (InfoKind::Vlan, Some(InfoData::Vlan(vec![InfoVlan::Id(id.value())]))),
        NewLinkKind::Dummy => (InfoKind::Dummy, None),
    };
    let info = std::iter::once(LinkInfo::Kind(kind)).chain(data.map(LinkInfo::Data)).collect();
    attributes.push(LinkAttribute::LinkInfo(info));
    message
}

/// What of a new link's settings creation leaves to a second message.
pub(super) fn after_creation(set: &LinkChange) -> Option<LinkChange> {
    let rest = LinkChange { mac: None, mtu: None, group: None, bridge: None, ..set.clone() };
    (!rest.is_empty()).then_some(rest)
}

/// The messages that change a link, known by index or else by name.
pub(super) fn changes(
    index: Option<u32>,
    name: &IfName,
    set: &LinkChange,
    master: Option<u32>,
) -> impl Iterator<Item = LinkMessage> {
    let mut first = target(index, name);
    let attributes = &mut first.attributes;
    attributes.extend(set.mac.map(|mac| LinkAttribute::Address(mac.bytes().to_vec())));
    attributes.extend(set.mtu.map(|mtu| LinkAttribute::Mtu(mtu.value())));
    attributes.extend(set.group.map(LinkAttribute::Group));
    attributes.extend(set.alias.clone().map(LinkAttribute::IfAlias));
    attributes.extend(master.map(LinkAttribute::Controller));
    attributes.extend(set.addr_gen_mode.map(|mode| {
        let inet6 = vec![AfSpecInet6::AddrGenMode(gen_mode(mode))];
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(inet6)])
    }));
    // The kernel raises a link before it looks at the address generation mode in the same message: then addresses would be
    // made that are not wanted. So raising is a message of its own in that case.
    let mut second = None;
    for (flag, on) in [
        (LinkFlags::Noarp, set.noarp),
        (LinkFlags::Allmulti, set.all_multicast),
        (LinkFlags::Promisc, set.promiscuous),
        (LinkFlags::Up, set.up),
    ] {
        let Some(on) = on else { continue };
        let message = if flag == LinkFlags::Up && set.addr_gen_mode.is_some() {
            second.insert(target(index, name))
        } else {
            &mut first
        };
        message.header.change_mask |= flag;
        message.header.flags.set(flag, on);
    }
    attributes_of_bridge(set, &mut first);
    let port = set.port.as_ref().map(|port| {
        // The kernel looks for the master before it sets one: a message of its own, after that.
        let mut message = target(index, name);
        message.attributes.push(LinkAttribute::LinkInfo(bridge::port_settings(port)));
        message
    });
    std::iter::once(first).chain(second).chain(port)
}

fn attributes_of_bridge(set: &LinkChange, message: &mut LinkMessage) {
    let Some(change) = &set.bridge else { return };
    let info = vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(bridge::settings(change))];
    message.attributes.push(LinkAttribute::LinkInfo(info));
}

fn target(index: Option<u32>, name: &IfName) -> LinkMessage {
    match index {
        Some(index) => by_index(index),
        None => {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::IfName(name.to_string()));
            message
        }
    }
}

pub(super) fn renaming(index: u32, name: &IfName) -> LinkMessage {
    let mut message = by_index(index);
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message
}

/// The kernel takes the new name as soon as the link is in the other namespace.
pub(super) fn moving(index: u32, name: &IfName, other_netns: RawFd) -> LinkMessage {
    let mut message = renaming(index, name);
    message.attributes.push(LinkAttribute::NetNsFd(other_netns));
    message
}

pub(super) fn by_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

pub(super) fn by_group(group: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    message
}

impl Linux<'_> {
    /// The index that IFLA_MASTER wants: zero for "no master".
    pub(super) fn master_index(&mut self, set: &LinkChange) -> Result<Option<u32>, KernelError> {
        match &set.master {
            None => Ok(None),
            Some(Master::None) => Ok(Some(0)),
            Some(Master::Link(link)) => self.index(link).map(Some),
        }
    }

    pub(super) fn read_links(&mut self, ask: &Ask) -> Result<Vec<Link>, KernelError> {
        let mut request = LinkMessage::default();
        if !ask.statistics {
            request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        }
        let found = self
            .channel
            .dump_route(RouteNetlinkMessage::GetLink(request), libc::RTM_NEWLINK, |message| read_for(message, ask))?;
        let names: Vec<_> = found.iter().map(|(link, _)| (link.index, link.name.clone())).collect();
        let name_of = |index: u32| names.iter().find(|(at, _)| *at == index).map(|(_, name)| name.clone());
        Ok(found.into_iter().map(|(link, master)| Link { master: master.and_then(name_of), ..link }).collect())
    }
}

/// A link, and its master's index. Of a hundred attributes a dozen matter: only these are looked into.
///
/// `None` for one with a name that no [`IfName`] is: the kernel takes control characters, and what a pod calls its links must
/// not keep us from reading the others.
pub(super) fn read(message: &[u8], with_statistics: bool) -> Result<Option<(Link, Option<u32>)>, KernelError> {
    read_for(message, &Ask { statistics: with_statistics, ..Ask::default() })
}

/// The same, with as much of it as was asked for.
pub(super) fn read_for(message: &[u8], ask: &Ask) -> Result<Option<(Link, Option<u32>)>, KernelError> {
    /// `struct ifinfomsg`: family, padding, type (two bytes), index, flags, change mask.
    const HEADER_BYTES: usize = 16;
    let unnamed = |why: String| KernelError::Decode { what: "links", why };
    let (header, attributes) =
        message.split_at_checked(HEADER_BYTES).ok_or_else(|| unnamed("a message is cut off".to_owned()))?;
    let name = attribute(attributes, libc::IFLA_IFNAME).ok_or_else(|| unnamed("a link has no name".to_owned()))?;
    let Ok(name) = text(name).parse::<IfName>() else { return Ok(None) };
    let is_loopback = header.get(2..4) == Some(&libc::ARPHRD_LOOPBACK.to_ne_bytes()[..]);
    let kind = if is_loopback { LinkKind::Loopback } else { LinkKind::Physical };
    let mut link = Link::new(number(header, 4).unwrap_or(0), name, kind);
    let flags = LinkFlags::from_bits_retain(number(header, 8).unwrap_or(0));
    link.up = flags.contains(LinkFlags::Up);
    link.noarp = flags.contains(LinkFlags::Noarp);
    link.all_multicast = flags.contains(LinkFlags::Allmulti);
    link.promiscuous = flags.contains(LinkFlags::Promisc);
    link.addr_gen_mode = None;
    let mut master = None;
    for (kind, value) in attributes_of(attributes) {
        match kind {
            libc::IFLA_ADDRESS => link.mac = <[u8; 6]>::try_from(value).ok().and_then(MacAddr::new),
            libc::IFLA_MTU => link.mtu_bytes = number(value, 0).unwrap_or(0),
            libc::IFLA_CARRIER => link.carrier = value.first().is_some_and(|on| *on != 0),
            libc::IFLA_OPERSTATE => link.state = value.first().copied().map(State::from).map_or(link.state, oper_state),
            libc::IFLA_GROUP => link.group = number(value, 0).unwrap_or(0),
            libc::IFLA_IFALIAS => link.alias = Some(text(value)),
            libc::IFLA_MASTER => master = number(value, 0),
            libc::IFLA_LINK => link.peer_index = number(value, 0).filter(|index| *index != 0),
            libc::IFLA_LINK_NETNSID => link.peer_netns = number(value, 0).map(u32::cast_signed),
            libc::IFLA_LINKINFO => {
                link.kind = kind_of(value).unwrap_or(link.kind);
                if ask.bridging {
                    (link.bridge, link.port) = (bridge::read_settings(value), bridge::read_port(value));
                }
            }
            libc::IFLA_STATS64 if ask.statistics => link.statistics = statistics(value),
            libc::IFLA_AF_SPEC => link.addr_gen_mode = addr_gen_mode(value),
            _ => {}
        }
    }
    Ok(Some((link, master)))
}

/// By IFLA_INFO_KIND and IFLA_INFO_DATA.
fn kind_of(info: &[u8]) -> Option<LinkKind> {
    /// IFLA_MACVLAN_MODE of `linux/if_link.h`.
    const MODE: u16 = 1;
    let kind = attribute(info, libc::IFLA_INFO_KIND)?;
    let data = attribute(info, libc::IFLA_INFO_DATA).unwrap_or_default();
    let mode = || mode_of(attribute(data, MODE).and_then(|mode| number(mode, 0)).map(MacVlanMode::from));
    Some(match kind.strip_suffix(b"\0").unwrap_or(kind) {
        b"tun" => LinkKind::Tun(tun(data)),
        b"macvlan" => LinkKind::Macvlan(mode()),
        b"macvtap" => LinkKind::Macvtap(mode()),
        b"veth" => LinkKind::Veth,
        b"bridge" => LinkKind::Bridge,
        b"ifb" => LinkKind::Ifb,
        other => LinkKind::Other(text(other)),
    })
}

/// IFLA_TUN_* of `linux/if_link.h`.
fn tun(attributes: &[u8]) -> Tun {
    const OWNER: u16 = 1;
    const GROUP: u16 = 2;
    const TYPE: u16 = 3;
    const PI: u16 = 4;
    const VNET_HDR: u16 = 5;
    const PERSIST: u16 = 6;
    const MULTI_QUEUE: u16 = 7;
    let mut tun = Tun::default();
    for (kind, value) in attributes_of(attributes) {
        let on = value.first() == Some(&1);
        match kind {
            OWNER => tun.owner = number(value, 0),
            GROUP => tun.group = number(value, 0),
            TYPE if value.first().copied().map(i32::from) == Some(libc::IFF_TUN) => tun.mode = TunMode::Tun,
            PI => tun.packet_info = on,
            VNET_HDR => tun.vnet_hdr = on,
            PERSIST => tun.persist = on,
            MULTI_QUEUE => tun.multi_queue = on,
            _ => {}
        }
    }
    tun
}

fn mode_of(mode: Option<MacVlanMode>) -> MacvlanMode {
    match mode {
        Some(MacVlanMode::Private) => MacvlanMode::Private,
        Some(MacVlanMode::Vepa) => MacvlanMode::Vepa,
        Some(MacVlanMode::Bridge) => MacvlanMode::Bridge,
        Some(MacVlanMode::Passthrough) => MacvlanMode::Passthru,
        Some(MacVlanMode::Source) => MacvlanMode::Source,
        _ => MacvlanMode::Unknown,
    }
}

fn macvlan_mode(mode: MacvlanMode) -> MacVlanMode {
    match mode {
        MacvlanMode::Private => MacVlanMode::Private,
        MacvlanMode::Vepa => MacVlanMode::Vepa,
        MacvlanMode::Passthru => MacVlanMode::Passthrough,
        MacvlanMode::Source => MacVlanMode::Source,
        MacvlanMode::Bridge | MacvlanMode::Unknown => MacVlanMode::Bridge,
    }
}

fn oper_state(state: State) -> OperState {
    match state {
        State::NotPresent => OperState::NotPresent,
        State::Down => OperState::Down,
        State::LowerLayerDown => OperState::LowerLayerDown,
        State::Testing => OperState::Testing,
        State::Dormant => OperState::Dormant,
        State::Up => OperState::Up,
        _ => OperState::Unknown,
    }
}

/// IFLA_INET6_ADDR_GEN_MODE of `linux/if_link.h`, among what IPv6 has to say of a link.
fn addr_gen_mode(families: &[u8]) -> Option<AddrGenMode> {
    const MODE: u16 = 8;
    let inet6 = u16::try_from(libc::AF_INET6).ok()?;
    let mode = *attribute(attribute(families, inet6)?, MODE)?.first()?;
    match In6AddrGenMode::from(mode) {
        In6AddrGenMode::Eui64 => Some(AddrGenMode::Eui64),
        In6AddrGenMode::None => Some(AddrGenMode::None),
        In6AddrGenMode::StablePrivacy => Some(AddrGenMode::StablePrivacy),
        In6AddrGenMode::Random => Some(AddrGenMode::Random),
        _ => None,
    }
}

fn gen_mode(mode: AddrGenMode) -> In6AddrGenMode {
    match mode {
        AddrGenMode::Eui64 => In6AddrGenMode::Eui64,
        AddrGenMode::None => In6AddrGenMode::None,
        AddrGenMode::StablePrivacy => In6AddrGenMode::StablePrivacy,
        AddrGenMode::Random => In6AddrGenMode::Random,
    }
}

/// The first counters of `struct rtnl_link_stats64`.
fn statistics(bytes: &[u8]) -> Option<Statistics> {
    let mut counters = bytes.as_chunks::<8>().0.iter().copied().map(u64::from_ne_bytes);
    let mut next = || counters.next();
    // In the kernel's order.
    let [rx_packets, tx_packets, rx_bytes, tx_bytes] = [next()?, next()?, next()?, next()?];
    let [rx_errors, tx_errors, rx_dropped, tx_dropped] = [next()?, next()?, next()?, next()?];
    Some(Statistics { rx_packets, rx_bytes, rx_errors, rx_dropped, tx_packets, tx_bytes, tx_errors, tx_dropped })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link's `struct ifinfomsg` and its name.
    fn message(name: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + name.len()).unwrap();
        let mut bytes = vec![0; 16];
        bytes.extend(length.to_ne_bytes());
        bytes.extend(libc::IFLA_IFNAME.to_ne_bytes());
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_link_whose_name_is_none_is_passed_over_and_one_without_a_name_is_not() {
        let named = |name: &[u8]| read(&message(name), false).unwrap().map(|(link, _)| link.name.to_string());
        assert_eq!(named(b"eth0\0").as_deref(), Some("eth0"));
        for strange in [&b"bad\x01\0"[..], b"\x7f\0", b"\xc2\x85\0"] {
            assert_eq!(named(strange), None, "{strange:?}");
        }
        assert!(read(&[0; 16], false).is_err() && read(&[0; 3], false).is_err());
    }
}
