//! Bridges, their ports and VLANs in rtnetlink's words.

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoBridgePort, InfoData, InfoPortData,
    InfoPortKind, LinkAttribute, LinkInfo, LinkMessage,
};
use terms::VlanId;

use crate::attributes::{attribute, attributes_of, number};
use crate::facts::{BridgePort, BridgeSettings, PortVlans};
use crate::kernel::{Failure, KernelError};
use crate::op::{BridgeChange, LinkChange, Op, PortChange};

/// Times of a bridge are in hundredths of a second (USER_HZ of every architecture but alpha).
const TICKS_PER_SECOND: u32 = 100;

pub(super) fn settings(change: &BridgeChange) -> InfoData {
    let ageing = change.ageing_seconds.map(|seconds| seconds.saturating_mul(TICKS_PER_SECOND));
    let all = [
        change.vlan_filtering.map(InfoBridge::VlanFiltering),
        change.multicast_snooping.map(InfoBridge::MulticastSnooping),
        change.multicast_querier.map(InfoBridge::MulticastQuerier),
        change.group_fwd_mask.map(InfoBridge::GroupFwdMask),
        ageing.map(InfoBridge::AgeingTime),
    ];
    InfoData::Bridge(all.into_iter().flatten().collect())
}

pub(super) fn port_settings(change: &PortChange) -> Vec<LinkInfo> {
    let all = [change.hairpin.map(InfoBridgePort::HairpinMode), change.isolated.map(InfoBridgePort::Isolated)];
    let data = InfoPortData::BridgePort(all.into_iter().flatten().collect());
    vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(data)]
}

/// IFLA_BR_* of `linux/if_link.h`; `None` for a link of another kind.
pub(super) fn read_settings(info: &[u8]) -> Option<BridgeSettings> {
    const AGEING_TIME: u16 = 4;
    const VLAN_FILTERING: u16 = 7;
    const GROUP_FWD_MASK: u16 = 9;
    const MCAST_SNOOPING: u16 = 23;
    const MCAST_QUERIER: u16 = 25;
    /// Unlike VLAN_FILTERING itself, not there in a kernel without VLANs on bridges.
    const VLAN_DEFAULT_PVID: u16 = 39;
    if attribute(info, libc::IFLA_INFO_KIND)?.strip_suffix(b"\0") != Some(b"bridge") {
        return None;
    }
    let mut settings = BridgeSettings::default();
    let data = attribute(info, libc::IFLA_INFO_DATA)?;
    let has_vlans = attribute(data, VLAN_DEFAULT_PVID).is_some();
    for (kind, value) in attributes_of(data) {
        let on = value.first().is_some_and(|on| *on != 0);
        match kind {
            AGEING_TIME => settings.ageing_seconds = number(value, 0).unwrap_or(0) / TICKS_PER_SECOND,
            VLAN_FILTERING => settings.vlan_filtering = Some(on).filter(|_| has_vlans),
            GROUP_FWD_MASK => settings.group_fwd_mask = value.first_chunk().copied().map_or(0, u16::from_ne_bytes),
            MCAST_SNOOPING => settings.multicast_snooping = on,
            MCAST_QUERIER => settings.multicast_querier = on,
            _ => {}
        }
    }
    Some(settings)
}

/// IFLA_BRPORT_* of `linux/if_link.h`; `None` for a link that is no port of a bridge.
pub(super) fn read_port(info: &[u8]) -> Option<BridgePort> {
    const SLAVE_KIND: u16 = 4;
    const SLAVE_DATA: u16 = 5;
    const MODE: u16 = 4;
    const ISOLATED: u16 = 33;
    if attribute(info, SLAVE_KIND)?.strip_suffix(b"\0") != Some(b"bridge") {
        return None;
    }
    let data = attribute(info, SLAVE_DATA)?;
    let is_on = |kind| attribute(data, kind).and_then(<[u8]>::first).is_some_and(|on| *on != 0);
    Some(BridgePort { hairpin: is_on(MODE), isolated: is_on(ISOLATED) })
}

/// What RTM_SETLINK and RTM_DELLINK say of VLANs.
pub(super) fn vlans(index: u32, vlans: &PortVlans) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.interface_family = AddressFamily::Bridge;
    let mut flags = BridgeVlanInfoFlags::empty();
    flags.set(BridgeVlanInfoFlags::Pvid, vlans.pvid);
    flags.set(BridgeVlanInfoFlags::Untagged, vlans.untagged);
    let info = |vlan: VlanId, more| AfSpecBridge::VlanInfo(BridgeVlanInfo { flags: flags | more, vid: vlan.value() });
    let mut about: Vec<_> = vlans.of_bridge.then_some(AfSpecBridge::Flags(BridgeFlag::LowerDev)).into_iter().collect();
    if vlans.first == vlans.last {
        about.push(info(vlans.first, BridgeVlanInfoFlags::empty()));
    } else {
        about.push(info(vlans.first, BridgeVlanInfoFlags::RangeBegin));
        about.push(info(vlans.last, BridgeVlanInfoFlags::RangeEnd));
    }
    message.attributes.push(LinkAttribute::AfSpecBridge(about));
    message
}

/// A failure in words; one of an operation on VLANs says what the kernel lacks.
#[cold]
pub(super) fn failure(index: usize, op: Option<&Op>, error: KernelError) -> Failure {
    let filters = |set: &LinkChange| set.bridge.as_ref().is_some_and(|bridge| bridge.vlan_filtering == Some(true));
    let needs_vlans = op.is_some_and(|op| match op {
        Op::AddVlans(_) | Op::DeleteVlans(_) => true,
        Op::CreateLink(link) => filters(&link.set),
        Op::SetLink { set, .. } => filters(set),
        _ => false,
    });
    let error = match error {
        KernelError::Refused { errno: errno @ libc::EOPNOTSUPP, said, .. } if needs_vlans => {
            let meaning = "this kernel has no VLANs on bridges: CONFIG_BRIDGE_VLAN_FILTERING is needed".to_owned();
            KernelError::Refused { errno, meaning, said }
        }
        other => other,
    };
    Failure { index, what: op.map(ToString::to_string).unwrap_or_default(), error }
}
