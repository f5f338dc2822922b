//! Links in rtnetlink's words.

use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoMacVlan, InfoMacVtap, InfoTun, InfoVeth,
    InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, MacVlanMode, State,
    Stats64,
};
use terms::{IfName, MacAddr};

use super::steps::Steps;
use super::{Linux, frame};
use crate::facts::{AddrGenMode, Link, LinkKind, MacvlanMode, OperState, Statistics, Tun, TunMode};
use crate::kernel::KernelError;
use crate::op::{LinkChange, Master, NewLink, NewLinkKind};

/// The message that makes a link, with what only creation can set (an ifb takes no MAC address later).
pub(super) fn creation(new: &NewLink, parent: Option<u32>) -> LinkMessage {
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
        NewLinkKind::Macvlan { mode, .. } => {
            (InfoKind::MacVlan, Some(InfoData::MacVlan(vec![InfoMacVlan::Mode(macvlan_mode(*mode))])))
        }
        NewLinkKind::Bridge => (InfoKind::Bridge, None),
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
    let rest = LinkChange { mac: None, mtu: None, group: None, ..set.clone() };
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
    // made that nobody wants. So raising is a message of its own in that case.
    let mut second = None;
    for (flag, on) in [(LinkFlags::Noarp, set.noarp), (LinkFlags::Up, set.up)] {
        let Some(on) = on else { continue };
        let message = if flag == LinkFlags::Up && set.addr_gen_mode.is_some() {
            second.insert(target(index, name))
        } else {
            &mut first
        };
        message.header.change_mask |= flag;
        message.header.flags.set(flag, on);
    }
    std::iter::once(first).chain(second)
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

impl<S: Steps> Linux<S> {
    /// The index that IFLA_MASTER wants: zero for "no master".
    pub(super) fn master_index(&mut self, set: &LinkChange) -> Result<Option<u32>, KernelError> {
        match &set.master {
            None => Ok(None),
            Some(Master::None) => Ok(Some(0)),
            Some(Master::Link(link)) => self.index(link).map(Some),
        }
    }

    pub(super) fn read_links(&mut self, statistics: bool) -> Result<Vec<Link>, KernelError> {
        let mut request = LinkMessage::default();
        if !statistics {
            request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        }
        let found =
            self.channel.dump_route(RouteNetlinkMessage::GetLink(request), "links", |message| match message {
                RouteNetlinkMessage::NewLink(message) => read(message, statistics).map(Some),
                _ => Ok(None),
            })?;
        let names: Vec<_> = found.iter().map(|(link, _)| (link.index, link.name.clone())).collect();
        let name_of = |index: u32| names.iter().find(|(at, _)| *at == index).map(|(_, name)| name.clone());
        Ok(found.into_iter().map(|(link, master)| Link { master: master.and_then(name_of), ..link }).collect())
    }
}

/// A link, and its master's index.
pub(super) fn read(message: LinkMessage, with_statistics: bool) -> Result<(Link, Option<u32>), KernelError> {
    let unnamed = |why: String| KernelError::Decode { what: "links", why };
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.parse::<IfName>()),
        _ => None,
    });
    let name =
        name.ok_or_else(|| unnamed("a link has no name".to_owned()))?.map_err(|error| unnamed(error.to_string()))?;
    let flags = message.header.flags;
    let kind = match message.header.link_layer_type {
        LinkLayerType::Loopback => LinkKind::Loopback,
        _ => LinkKind::Physical,
    };
    let mut link = Link::new(message.header.index, name, kind);
    link.up = flags.contains(LinkFlags::Up);
    link.noarp = flags.contains(LinkFlags::Noarp);
    link.addr_gen_mode = None;
    let mut master = None;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => link.mac = <[u8; 6]>::try_from(bytes).ok().and_then(MacAddr::new),
            LinkAttribute::Mtu(bytes) => link.mtu_bytes = bytes,
            LinkAttribute::Carrier(carrier) => link.carrier = carrier != 0,
            LinkAttribute::OperState(state) => link.state = oper_state(state),
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Controller(index) => master = Some(index),
            LinkAttribute::Link(index) => link.peer_index = Some(index).filter(|index| *index != 0),
            LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(id),
            LinkAttribute::LinkInfo(infos) => link.kind = kind_of(&infos).unwrap_or(link.kind),
            LinkAttribute::Stats64(stats) if with_statistics => link.statistics = Some(statistics(&stats)),
            LinkAttribute::AfSpecUnspec(specs) => link.addr_gen_mode = addr_gen_mode(&specs),
            _ => {}
        }
    }
    Ok((link, master))
}

fn kind_of(infos: &[LinkInfo]) -> Option<LinkKind> {
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })?;
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(data) => Some(data),
        _ => None,
    });
    Some(match (kind, data) {
        (InfoKind::Tun, Some(InfoData::Tun(attributes))) => LinkKind::Tun(tun(attributes)),
        (InfoKind::Tun, _) => LinkKind::Tun(Tun::default()),
        (InfoKind::MacVlan, Some(InfoData::MacVlan(attributes))) => {
            LinkKind::Macvlan(mode_of(attributes.iter().find_map(|attribute| match attribute {
                InfoMacVlan::Mode(mode) => Some(*mode),
                _ => None,
            })))
        }
        (InfoKind::MacVtap, Some(InfoData::MacVtap(attributes))) => {
            LinkKind::Macvtap(mode_of(attributes.iter().find_map(|attribute| match attribute {
                InfoMacVtap::Mode(mode) => Some(*mode),
                _ => None,
            })))
        }
        (InfoKind::Veth, _) => LinkKind::Veth,
        (InfoKind::Bridge, _) => LinkKind::Bridge,
        (InfoKind::Ifb, _) => LinkKind::Ifb,
        (other, _) => LinkKind::Other(other.to_string()),
    })
}

/// IFLA_TUN_* of `linux/if_link.h`, which the crate leaves undecoded.
fn tun(attributes: &[InfoTun]) -> Tun {
    const OWNER: u16 = 1;
    const GROUP: u16 = 2;
    const TYPE: u16 = 3;
    const PI: u16 = 4;
    const VNET_HDR: u16 = 5;
    const PERSIST: u16 = 6;
    const MULTI_QUEUE: u16 = 7;
    let mut tun = Tun::default();
    for attribute in attributes {
        let InfoTun::Other(attribute) = attribute else { continue };
        let (kind, value) = plain(attribute);
        let on = value.first() == Some(&1);
        match kind {
            OWNER => tun.owner = frame::number(&value, 0),
            GROUP => tun.group = frame::number(&value, 0),
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

fn plain(attribute: &DefaultNla) -> (u16, Vec<u8>) {
    use netlink_packet_core::Nla;
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    (attribute.kind(), value)
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

fn addr_gen_mode(specs: &[AfSpecUnspec]) -> Option<AddrGenMode> {
    specs.iter().find_map(|spec| match spec {
        AfSpecUnspec::Inet6(attributes) => attributes.iter().find_map(|attribute| match attribute {
            AfSpecInet6::AddrGenMode(In6AddrGenMode::Eui64) => Some(AddrGenMode::Eui64),
            AfSpecInet6::AddrGenMode(In6AddrGenMode::None) => Some(AddrGenMode::None),
            AfSpecInet6::AddrGenMode(In6AddrGenMode::StablePrivacy) => Some(AddrGenMode::StablePrivacy),
            AfSpecInet6::AddrGenMode(In6AddrGenMode::Random) => Some(AddrGenMode::Random),
            _ => None,
        }),
        _ => None,
    })
}

fn gen_mode(mode: AddrGenMode) -> In6AddrGenMode {
    match mode {
        AddrGenMode::Eui64 => In6AddrGenMode::Eui64,
        AddrGenMode::None => In6AddrGenMode::None,
        AddrGenMode::StablePrivacy => In6AddrGenMode::StablePrivacy,
        AddrGenMode::Random => In6AddrGenMode::Random,
    }
}

fn statistics(stats: &Stats64) -> Statistics {
    Statistics {
        rx_packets: stats.rx_packets,
        rx_bytes: stats.rx_bytes,
        rx_errors: stats.rx_errors,
        rx_dropped: stats.rx_dropped,
        tx_packets: stats.tx_packets,
        tx_bytes: stats.tx_bytes,
        tx_errors: stats.tx_errors,
        tx_dropped: stats.tx_dropped,
    }
}
