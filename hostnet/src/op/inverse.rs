//! What undoes an operation: derived from what was before and what is now, never from what was sent.

use terms::{IfName, Mtu};

use super::{BridgeChange, LinkChange, Master, Op, PortChange};
use crate::facts::{Ask, Facts, Link, Route};
use crate::nft::{Command, Transaction};

impl Op {
    /// The operation that undoes what this one changed, if it changed anything.
    ///
    /// `before` is the snapshot that the plan was made on, `now` a fresh one that covers at least [`Op::concerns`].
    #[must_use]
    #[cold]
    pub fn inverse(&self, before: &Facts, now: &Facts) -> Option<Self> {
        match self {
            Self::CreateTap(tap) => undo_creation(&tap.name, before, now),
            Self::CreateLink(link) => undo_creation(&link.name, before, now),
            Self::SetLink { link, set } => undo_change(link, set, before, now),
            Self::RenameLink { link, name } => {
                let is_renamed = before.link(link).is_some() && now.link(link).is_none() && now.link(name).is_some();
                is_renamed.then(|| Self::RenameLink { link: name.clone(), name: link.clone() })
            }
            Self::AddVlans(new) => {
                let held = |facts: &Facts| facts.vlans.iter().any(|old| old.overlaps(new));
                (held(now) && !held(before) && before.link(&new.link).is_some()).then(|| Self::DeleteVlans(new.clone()))
            }
            Self::DeleteVlans(old) => {
                let held = |facts: &Facts| facts.vlans.iter().find(|held| held.overlaps(old)).cloned();
                match (held(before), held(now)) {
                    (Some(old), None) if now.link(&old.link).is_some() => Some(Self::AddVlans(old)),
                    _ => None,
                }
            }
            Self::AddAddress(new) => {
                let held = |facts: &Facts| facts.addresses_of(&new.link).any(|old| old.address == new.address);
                // What hangs on a link that was not there goes with it.
                (held(now) && !held(before) && before.link(&new.link).is_some())
                    .then(|| Self::DeleteAddress { link: new.link.clone(), address: new.address })
            }
            Self::DeleteAddress { link, address } => {
                let held = |facts: &Facts| facts.addresses_of(link).find(|old| old.address == *address).cloned();
                match (held(before), held(now)) {
                    (Some(old), None) if now.link(link).is_some() => Some(Self::AddAddress(old)),
                    _ => None,
                }
            }
            Self::AddRoute(route) | Self::ReplaceRoute(route) | Self::DeleteRoute(route) => {
                match (entry(route, before), entry(route, now)) {
                    (None, Some(new)) => {
                        let stays = new.link.as_ref().is_none_or(|link| before.link(link).is_some());
                        stays.then(|| Self::DeleteRoute(new.clone()))
                    }
                    (Some(old), new) if new != Some(old) => Some(Self::ReplaceRoute(old.clone())),
                    _ => None,
                }
            }
            Self::WriteSysctl { key, .. } => {
                // A link that was not there takes its settings with it when it goes.
                let gone = key.link().is_some_and(|link| before.link(&link).is_none());
                let old = before.sysctl(key)?;
                (!gone && now.sysctl(key) != Some(old))
                    .then(|| Self::WriteSysctl { key: key.clone(), value: old.to_owned() })
            }
            Self::Nft(transaction) => undo_transaction(transaction, before, now),
            // Where a link went is seen in two namespaces: `pair` undoes that.
            Self::MoveLink { .. } => None,
            // A deleted link cannot be brought back with what hung on it, nor a connection; plans that delete are never undone.
            Self::DeleteLink { .. } | Self::DeleteGroup { .. } | Self::DeleteConntrack(_) => None,
        }
    }

    /// Adds to `ask` what a snapshot must hold for this operation's inverse.
    pub fn concerns(&self, ask: &mut Ask) {
        ask.links = true;
        match self {
            Self::AddVlans(_) | Self::DeleteVlans(_) => ask.vlans = true,
            Self::SetLink { set, .. } => ask.bridging |= set.bridge.is_some() || set.port.is_some(),
            Self::AddAddress(_) | Self::DeleteAddress { .. } => ask.addresses = true,
            Self::AddRoute(_) | Self::ReplaceRoute(_) | Self::DeleteRoute(_) => ask.routes = true,
            Self::WriteSysctl { key, .. } => ask.sysctls.push(key.clone()),
            Self::Nft(transaction) => {
                for command in &transaction.commands {
                    if !ask.tables.contains(command.table()) {
                        ask.tables.push(command.table().clone());
                    }
                }
            }
            _ => {}
        }
    }
}

impl Op {
    /// Adds to `ask` what a snapshot of the other namespace must hold for this operation's inverse.
    pub(crate) fn concerns_away(&self, ask: &mut Ask) {
        ask.links |= matches!(self, Self::MoveLink { .. });
    }
}

fn undo_creation(name: &IfName, before: &Facts, now: &Facts) -> Option<Op> {
    (before.link(name).is_none() && now.link(name).is_some()).then(|| Op::DeleteLink { link: name.clone() })
}

fn undo_change(name: &IfName, set: &LinkChange, before: &Facts, now: &Facts) -> Option<Op> {
    let (old, new) = (before.link(name)?, now.link(name)?);
    fn back<T: PartialEq, V>(asked: &Option<V>, old: T, new: &T) -> Option<T> {
        (asked.is_some() && old != *new).then_some(old)
    }
    let alias = |link: &Link| link.alias.clone().unwrap_or_default();
    let master = |link: &Link| link.master.clone().map_or(Master::None, Master::Link);
    let undo = LinkChange {
        up: back(&set.up, old.up, &new.up),
        mtu: back(&set.mtu, old.mtu_bytes, &new.mtu_bytes).and_then(|bytes| Mtu::try_from(u64::from(bytes)).ok()),
        mac: back(&set.mac, old.mac, &new.mac).flatten(),
        alias: back(&set.alias, alias(old), &alias(new)),
        addr_gen_mode: back(&set.addr_gen_mode, old.addr_gen_mode, &new.addr_gen_mode).flatten(),
        group: back(&set.group, old.group, &new.group),
        noarp: back(&set.noarp, old.noarp, &new.noarp),
        all_multicast: back(&set.all_multicast, old.all_multicast, &new.all_multicast),
        promiscuous: back(&set.promiscuous, old.promiscuous, &new.promiscuous),
        master: back(&set.master, master(old), &master(new)),
        bridge: undo_bridge(set, old, new),
        // A port that is put back in its bridge has the settings of a new one.
        port: set.port.as_ref().and_then(|_| Some((old.port?, new.port))).and_then(|(old, new)| {
            let undo = PortChange { hairpin: Some(old.hairpin), isolated: Some(old.isolated) };
            (new != Some(old)).then_some(undo)
        }),
    };
    (!undo.is_empty()).then(|| Op::SetLink { link: name.clone(), set: undo })
}

fn undo_bridge(set: &LinkChange, old: &Link, new: &Link) -> Option<BridgeChange> {
    let (_, old, new) = (set.bridge.as_ref()?, old.bridge?, new.bridge?);
    let undo = BridgeChange {
        vlan_filtering: old.vlan_filtering.filter(|_| old.vlan_filtering != new.vlan_filtering),
        multicast_snooping: (old.multicast_snooping != new.multicast_snooping).then_some(old.multicast_snooping),
        multicast_querier: (old.multicast_querier != new.multicast_querier).then_some(old.multicast_querier),
        group_fwd_mask: (old.group_fwd_mask != new.group_fwd_mask).then_some(old.group_fwd_mask),
        ageing_seconds: (old.ageing_seconds != new.ageing_seconds).then_some(old.ageing_seconds),
    };
    (undo != BridgeChange::default()).then_some(undo)
}

fn entry<'a>(route: &Route, facts: &'a Facts) -> Option<&'a Route> {
    facts.routes.iter().find(|other| other.is_same_entry(route))
}

/// Only whole tables that are new are taken back: a transaction is atomic, so one that failed left nothing, and one that
/// changes tables that were there is the last to fail in its plan.
fn undo_transaction(transaction: &Transaction, before: &Facts, now: &Facts) -> Option<Op> {
    let mut commands: Vec<Command> = Vec::new();
    for command in &transaction.commands {
        let undo = match command {
            Command::AddTable(table) | Command::ReplaceTable(table)
                if !before.has_table(&table.id) && now.table(&table.id).is_some() =>
            {
                Command::DeleteTable(table.id.clone())
            }
            Command::AddElements { table, set } if before.table(table).is_some() => {
                Command::DeleteElements { table: table.clone(), set: set.clone() }
            }
            Command::DeleteElements { table, set } if before.table(table).is_some() => {
                Command::AddElements { table: table.clone(), set: set.clone() }
            }
            _ => continue,
        };
        commands.insert(0, undo);
    }
    (!commands.is_empty()).then_some(Op::Nft(Transaction { commands }))
}
