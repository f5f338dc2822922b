//! Links of the fake kernel.

use terms::{IfName, MacAddr};

use super::refused;
use crate::facts::{BridgePort, BridgeSettings, Facts, Link, LinkKind, TABLE_LOCAL, Tun, TunMode};
use crate::kernel::KernelError;
use crate::op::{LinkChange, Master, NewLink, NewLinkKind, NewTap};
use crate::sysctl::Sysctl;

/// IFALIASZ of `linux/if.h` without the closing NUL.
const ALIAS_BYTES: usize = 255;

/// RFC 8200 §5: the kernel takes IPv6 off a link that carries less.
const IPV6_LEAST_MTU: u32 = 1280;

pub(super) fn find<'a>(facts: &'a mut Facts, name: &IfName) -> Result<&'a mut Link, KernelError> {
    facts.links.iter_mut().find(|link| link.name == *name).ok_or_else(|| KernelError::NoLink(name.clone()))
}

pub(super) fn add(facts: &mut Facts, name: &IfName, kind: LinkKind) -> Result<u32, KernelError> {
    if facts.link(name).is_some() {
        return Err(refused(libc::EEXIST));
    }
    let index = facts.links.iter().map(|link| link.index).max().unwrap_or(0) + 1;
    let [a, b, c, d] = index.to_be_bytes();
    facts.links.push(Link { mac: Some(MacAddr::local([0xff, a, b, c, d])), ..Link::new(index, name.clone(), kind) });
    if let Some(default) = facts.sysctl(&Sysctl::net("ipv6/conf/default/disable_ipv6")).map(ToOwned::to_owned) {
        facts.sysctls.insert(Sysctl::ipv6_conf(name, "disable_ipv6"), Some(default));
    }
    Ok(index)
}

pub(super) fn create_tap(facts: &mut Facts, tap: &NewTap) -> Result<(), KernelError> {
    let kind = LinkKind::Tun(Tun {
        mode: TunMode::Tap,
        owner: Some(tap.owner),
        group: tap.group,
        multi_queue: tap.multi_queue,
        persist: true,
        vnet_hdr: true,
        packet_info: false,
    });
    add(facts, &tap.name, kind)?;
    change(facts, &tap.name, &tap.set)
}

pub(super) fn create(facts: &mut Facts, new: &NewLink) -> Result<(), KernelError> {
    let (kind, peer) = match &new.kind {
        NewLinkKind::Veth { peer } => (LinkKind::Veth, Some(peer)),
        NewLinkKind::VethAcross { .. } => {
            return Err(KernelError::Invalid("this plan has no other namespace".to_owned()));
        }
        NewLinkKind::Bridge => (LinkKind::Bridge, None),
        NewLinkKind::Ifb => (LinkKind::Ifb, None),
        NewLinkKind::Dummy => (LinkKind::Other("dummy".to_owned()), None),
        NewLinkKind::Vlan { parent, .. } => {
            find(facts, parent)?;
            (LinkKind::Other("vlan".to_owned()), None)
        }
        NewLinkKind::Macvlan { parent, mode } => {
            find(facts, parent)?;
            (LinkKind::Macvlan(*mode), None)
        }
    };
    let is_ifb = kind == LinkKind::Ifb;
    let index = add(facts, &new.name, kind)?;
    if let Some(peer) = peer {
        let other = add(facts, peer, LinkKind::Veth)?;
        find(facts, peer)?.peer_index = Some(index);
        find(facts, &new.name)?.peer_index = Some(other);
    }
    if new.kind == NewLinkKind::Bridge {
        // What the kernel makes a bridge with.
        let settings = BridgeSettings {
            vlan_filtering: Some(false),
            multicast_snooping: true,
            ageing_seconds: 300,
            ..BridgeSettings::default()
        };
        find(facts, &new.name)?.bridge = Some(settings);
    }
    if is_ifb {
        // Its MAC address can be given at creation and never again.
        let link = find(facts, &new.name)?;
        link.mac = new.set.mac.or(link.mac);
        return change(facts, &new.name, &LinkChange { mac: None, ..new.set.clone() });
    }
    change(facts, &new.name, &new.set)
}

pub(super) fn change(facts: &mut Facts, name: &IfName, set: &LinkChange) -> Result<(), KernelError> {
    let joins_bridge = match &set.master {
        Some(Master::Link(master)) => find(facts, master)?.kind == LinkKind::Bridge,
        _ => false,
    };
    let link = find(facts, name)?;
    if set.alias.as_ref().is_some_and(|alias| alias.len() > ALIAS_BYTES) {
        return Err(refused(libc::EINVAL));
    }
    if set.mac.is_some() && link.kind == LinkKind::Ifb {
        return Err(refused(libc::EOPNOTSUPP));
    }
    link.mtu_bytes = set.mtu.map_or(link.mtu_bytes, terms::Mtu::value);
    if link.mtu_bytes < IPV6_LEAST_MTU {
        link.addr_gen_mode = None;
        if set.addr_gen_mode.is_some() {
            return Err(refused(libc::EAFNOSUPPORT));
        }
    }
    link.mac = set.mac.or(link.mac);
    link.addr_gen_mode = set.addr_gen_mode.or(link.addr_gen_mode);
    link.group = set.group.unwrap_or(link.group);
    link.noarp = set.noarp.unwrap_or(link.noarp);
    link.all_multicast = set.all_multicast.unwrap_or(link.all_multicast);
    if let Some(alias) = &set.alias {
        link.alias = Some(alias.clone()).filter(|alias| !alias.is_empty());
    }
    link.promiscuous = set.promiscuous.unwrap_or(link.promiscuous);
    change_master(link, set, joins_bridge);
    if let Some(change) = &set.bridge {
        let bridge = link.bridge.as_mut().ok_or_else(|| refused(libc::EOPNOTSUPP))?;
        bridge.vlan_filtering = change.vlan_filtering.or(bridge.vlan_filtering);
        bridge.multicast_snooping = change.multicast_snooping.unwrap_or(bridge.multicast_snooping);
        bridge.multicast_querier = change.multicast_querier.unwrap_or(bridge.multicast_querier);
        bridge.group_fwd_mask = change.group_fwd_mask.unwrap_or(bridge.group_fwd_mask);
        bridge.ageing_seconds = change.ageing_seconds.unwrap_or(bridge.ageing_seconds);
    }
    if let Some(change) = &set.port {
        let port = link.port.as_mut().ok_or_else(|| refused(libc::EINVAL))?;
        port.hairpin = change.hairpin.unwrap_or(port.hairpin);
        port.isolated = change.isolated.unwrap_or(port.isolated);
    }
    let falls = link.up && set.up == Some(false);
    link.up = set.up.unwrap_or(link.up);
    if falls {
        // A link that goes down loses its routes, but for those to its own IPv4 addresses, and its IPv6 addresses.
        facts.routes.retain(|route| {
            route.link.as_ref() != Some(name) || (route.table == TABLE_LOCAL && route.destination.is_ipv4())
        });
        facts.addresses.retain(|address| address.link != *name || address.address.is_ipv4());
    }
    Ok(())
}

/// A port that leaves its bridge, or goes to another, loses its settings.
fn change_master(link: &mut Link, set: &LinkChange, joins_bridge: bool) {
    let Some(master) = &set.master else { return };
    let new = match master {
        Master::None => None,
        Master::Link(master) => Some(master.clone()),
    };
    if new != link.master {
        link.port = joins_bridge.then(BridgePort::default);
        link.master = new;
    }
}

pub(super) fn rename(facts: &mut Facts, name: &IfName, new: &IfName) -> Result<(), KernelError> {
    let taken = facts.link(new).is_some();
    let link = find(facts, name)?;
    if taken {
        return Err(refused(libc::EEXIST));
    }
    if link.up {
        // Kernels before 6.2 refuse it.
        return Err(refused(libc::EBUSY));
    }
    link.name = new.clone();
    let is_it = |held: &IfName| held == name;
    facts
        .links
        .iter_mut()
        .filter_map(|link| link.master.as_mut())
        .filter(|held| is_it(held))
        .for_each(|held| *held = new.clone());
    facts.addresses.iter_mut().filter(|held| is_it(&held.link)).for_each(|held| held.link = new.clone());
    facts.vlans.iter_mut().filter(|held| is_it(&held.link)).for_each(|held| held.link = new.clone());
    Ok(())
}

/// A bridge or a port of one.
pub(super) fn find_bridged<'a>(facts: &'a mut Facts, name: &IfName) -> Result<&'a mut Link, KernelError> {
    let link = find(facts, name)?;
    if link.bridge.is_none() && link.port.is_none() { Err(refused(libc::EOPNOTSUPP)) } else { Ok(link) }
}

pub(super) fn delete(facts: &mut Facts, name: &IfName) -> Result<(), KernelError> {
    let link = find(facts, name)?;
    let (index, peer) =
        (link.index, link.peer_index.filter(|_| link.kind == LinkKind::Veth && link.peer_netns.is_none()));
    let gone: Vec<IfName> = facts
        .links
        .iter()
        .filter(|other| other.index == index || Some(other.index) == peer)
        .map(|link| link.name.clone())
        .collect();
    let is_gone = |name: Option<&IfName>| name.is_some_and(|name| gone.contains(name));
    facts.links.retain(|link| !gone.contains(&link.name));
    facts.addresses.retain(|address| !gone.contains(&address.link));
    facts.routes.retain(|route| !is_gone(route.link.as_ref()));
    facts.neighbours.retain(|neighbour| !gone.contains(&neighbour.link));
    facts.sysctls.retain(|key, _| !is_gone(key.link().as_ref()));
    facts.vlans.retain(|vlans| !gone.contains(&vlans.link));
    for link in facts.links.iter_mut().filter(|link| is_gone(link.master.as_ref())) {
        (link.master, link.port) = (None, None);
    }
    for table in &mut facts.tables {
        // Chains of a netdev table go with their device.
        table.chains.retain(|chain| !is_gone(chain.base.as_ref().and_then(|base| base.device.as_ref())));
    }
    Ok(())
}

pub(super) fn delete_group(facts: &mut Facts, group: u32) -> Result<(), KernelError> {
    if group == 0 {
        return Err(KernelError::Invalid("group 0 is every link's: it cannot be deleted".to_owned()));
    }
    let members: Vec<_> = facts.links.iter().filter(|link| link.group == group).map(|link| link.name.clone()).collect();
    if members.is_empty() {
        return Err(refused(libc::ENODEV));
    }
    members.iter().try_for_each(|name| match delete(facts, name) {
        // The other end of a cable that went already.
        Err(KernelError::NoLink(_)) => Ok(()),
        other => other,
    })
}
