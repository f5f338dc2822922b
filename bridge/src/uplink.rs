//! The link of the host by which a bridge reaches the outside: a port from the first attachment to the last.
//!
//! Flow: what the link was like is recorded → it joins the bridge, with what attachments share → the DEL of the last attachment
//! that names it takes it out, as recorded, and removes the record.
//! Guarantees: a link that was in the bridge before is not taken out. A link with addresses or routes is refused: nothing would
//! answer for them while it is a port.

use hostnet::facts::{AddressScope, Link, LinkKind, PortVlans, Route, RouteProtocol};
use hostnet::op::{LinkChange, Master};
use hostnet::{Ask, Facts, Kernel, LockKind, Locks, Op, Records};
use serde::{Deserialize, Serialize};
use terms::{IfName, NetworkName, VlanId};

use super::desired::Desired;
use super::error::{BridgeError, Refusal};
use super::names::Key;
use super::record::{PATIENCE, Record, records};

/// On tmpfs, like the records of attachments.
const FOLDER: &str = "/run/tapvisor/uplinks";

/// The MTU of a network that names none: that of a new cable.
const DEFAULT_MTU: u32 = 1500;

/// What an uplink was like. Written before it is a port, removed when it is none any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Baseline {
    bridge: IfName,
    was_up: bool,
}

/// The records of uplinks, and what they are filed under.
#[cold]
fn uplinks() -> Result<(Records, NetworkName), Refusal> {
    Ok((Records::new(FOLDER, Locks::default()), "uplink".parse()?))
}

/// The uplink, if one is configured and can be used.
#[cold]
fn usable<'f>(desired: &Desired<'_>, host: &'f Facts) -> Result<Option<&'f Link>, Refusal> {
    let Some(name) = &desired.conf.uplink else { return Ok(None) };
    let link = host.link(name).ok_or_else(|| Refusal::NoUplink(name.clone()))?;
    let mtu = desired.conf.mtu.map_or(DEFAULT_MTU, terms::Mtu::value);
    if mtu > link.mtu_bytes {
        return Err(Refusal::UplinkMtu { mtu, uplink: name.clone(), most: link.mtu_bytes });
    }
    if is_joined(desired, link) {
        return Ok(Some(link));
    }
    if matches!(link.kind, LinkKind::Bridge | LinkKind::Loopback) {
        return Err(Refusal::UplinkKind(name.clone()));
    }
    if let Some(master) = &link.master {
        return Err(Refusal::UplinkTaken { uplink: name.clone(), master: master.clone() });
    }
    let bridge = desired.conf.bridge.clone();
    let is_lost = |held: &&hostnet::facts::Address| held.address.is_ipv4() || held.scope != AddressScope::Link;
    if let Some(held) = host.addresses_of(name).find(is_lost) {
        return Err(Refusal::UplinkUsed { uplink: name.clone(), what: format!("address {}", held.address), bridge });
    }
    let leads_there = |route: &&Route| route.link.as_ref() == Some(name) && route.protocol != RouteProtocol::Kernel;
    match host.routes.iter().find(leads_there) {
        Some(route) => Err(Refusal::UplinkUsed { uplink: name.clone(), what: route.to_string(), bridge }),
        None => Ok(Some(link)),
    }
}

fn is_joined(desired: &Desired<'_>, link: &Link) -> bool {
    link.master.as_ref() == Some(&desired.conf.bridge)
}

/// Whether more must be known of the host, because the uplink is no port yet.
pub(crate) fn is_to_join(desired: &Desired<'_>, host: &Facts) -> bool {
    desired.conf.uplink.as_ref().and_then(|name| host.link(name)).is_some_and(|link| !is_joined(desired, link))
}

/// What makes it a port of the bridge, in the attachment's VLANs.
pub(crate) fn joining(desired: &Desired<'_>, host: &Facts) -> Result<Vec<Op>, Refusal> {
    if desired.conf.uplink.is_none() { Ok(Vec::new()) } else { join(desired, host) }
}

#[cold]
fn join(desired: &Desired<'_>, host: &Facts) -> Result<Vec<Op>, Refusal> {
    let Some(link) = usable(desired, host)? else { return Ok(Vec::new()) };
    let mut ops = Vec::new();
    if !is_joined(desired, link) || !link.up {
        let set = LinkChange { master: Some(Master::Link(desired.conf.bridge.clone())), ..LinkChange::up() };
        ops.push(Op::SetLink { link: link.name.clone(), set });
    }
    ops.extend(missing_vlans(desired, link, host).into_iter().map(Op::AddVlans));
    Ok(ops)
}

/// The attachment's VLANs that the uplink does not take part in, with their tags.
#[cold]
fn missing_vlans(desired: &Desired<'_>, link: &Link, host: &Facts) -> Vec<PortVlans> {
    let holds = |vlan: VlanId| {
        let default = !is_joined(desired, link) && u64::from(vlan.value()) == super::desired::DEFAULT_VLAN;
        default || host.vlans_of(&link.name).any(|held| held.holds(vlan))
    };
    let mut missing: Vec<PortVlans> = Vec::new();
    for wanted in desired.vlans() {
        let all = (wanted.first.value()..=wanted.last.value()).filter_map(|id| VlanId::try_from(u64::from(id)).ok());
        for vlan in all.filter(|vlan| !holds(*vlan)) {
            match missing.last_mut() {
                Some(range) if range.last.value() + 1 == vlan.value() => range.last = vlan,
                _ => missing.push(PortVlans::tagged(link.name.clone(), (vlan, vlan))),
            }
        }
    }
    missing
}

/// What of it is not as ADD made it, in words.
pub(crate) fn differences(desired: &Desired<'_>, host: &Facts) -> Vec<String> {
    desired.conf.uplink.as_ref().map(|name| differences_of(desired, name, host)).unwrap_or_default()
}

#[cold]
fn differences_of(desired: &Desired<'_>, name: &IfName, host: &Facts) -> Vec<String> {
    let Some(link) = host.link(name) else { return vec![format!("uplink {name} is not there")] };
    if !is_joined(desired, link) {
        return vec![format!("uplink {name} is not in bridge {}", desired.conf.bridge)];
    }
    let mut found: Vec<_> =
        missing_vlans(desired, link, host).iter().map(|vlans| format!("uplink {name} is not in {vlans}")).collect();
    found.extend((!link.up).then(|| format!("uplink {name} is down")));
    found
}

/// Whether it is a port of the bridge already; refuses one that cannot be.
#[cold]
pub(crate) fn is_port(desired: &Desired<'_>, host: &Facts) -> Result<bool, Refusal> {
    Ok(usable(desired, host)?.is_some_and(|link| is_joined(desired, link)))
}

/// Records what it is like, once.
#[cold]
pub(crate) fn record(desired: &Desired<'_>, host: &Facts) -> Result<(), BridgeError> {
    let Some(link) = usable(desired, host)? else { return Ok(()) };
    let baseline = Baseline { bridge: desired.conf.bridge.clone(), was_up: link.up };
    let (records, of) = uplinks()?;
    if read(&records, &of, &link.name)?.is_none() {
        // One that was cut off is of a call that was killed before it changed the link.
        records.remove(&of, link.name.as_str())?;
        // A struct of text always has a JSON form.
        records.create(&of, link.name.as_str(), &serde_json::to_vec(&baseline).unwrap_or_default())?;
    }
    Ok(())
}

#[cold]
fn read(records: &Records, of: &NetworkName, name: &IfName) -> Result<Option<Baseline>, BridgeError> {
    let bytes = records.read(of, name.as_str())?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Removes an attachment's record, after the last of them has taken the uplink out that it names.
pub(crate) fn forget(
    kernel: &mut impl Kernel,
    network: &NetworkName,
    key: &Key,
    record: Option<&Record>,
) -> Result<(), BridgeError> {
    let records = records();
    match record.and_then(|record| record.uplink.as_ref()) {
        Some(name) => forget_with(kernel, network, key, (&records, name)),
        None => Ok(records.remove(network, key.as_str())?),
    }
}

#[cold]
fn forget_with(
    kernel: &mut impl Kernel,
    network: &NetworkName,
    key: &Key,
    (records, name): (&Records, &IfName),
) -> Result<(), BridgeError> {
    let _alone = records.hold(LockKind::Exclusive, PATIENCE)?;
    let mut is_last = true;
    for (other, of) in records.all()? {
        let bytes = if other == *network && of == key.as_str() { None } else { records.read(&other, &of)? };
        let other = bytes.and_then(|bytes| Record::from_bytes(&bytes));
        is_last &= other.is_none_or(|other| other.uplink.as_ref() != Some(name));
    }
    if is_last {
        put_back(kernel, name)?;
    }
    Ok(records.remove(network, key.as_str())?)
}

/// Makes the uplink what it was, if it was made a port and is no other bridge's by now.
#[cold]
fn put_back(kernel: &mut impl Kernel, name: &IfName) -> Result<(), BridgeError> {
    let (records, of) = uplinks()?;
    if let Some(before) = read(&records, &of, name)? {
        let facts = kernel.gather(&Ask::of_links([name.clone(), before.bridge.clone()]))?;
        let is_ours = |link: &&Link| link.port.is_none() || link.master.as_ref() == Some(&before.bridge);
        if facts.link(name).filter(is_ours).is_some() {
            let up = (!before.was_up).then_some(false);
            let set = LinkChange { master: Some(Master::None), up, ..LinkChange::default() };
            let put = kernel.execute(&[Op::SetLink { link: name.clone(), set }]);
            put.map_err(|failure| BridgeError::from(failure.error))?;
        }
    }
    Ok(records.remove(&of, name.as_str())?)
}
