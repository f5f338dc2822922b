//! A kernel in memory that keeps the rules which plans meet: names are unique, what is named must be there, and so on.
//!
//! It makes nothing by itself: no routes that come with addresses, no link-local addresses, no carrier.

mod links;
mod pair;
mod tables;

pub use pair::FakePair;

use crate::facts::{Ask, Facts, Route};
use crate::kernel::{Failure, Kernel, KernelError};
use crate::nft::{Table, TableFacts};
use crate::op::Op;
use crate::sysctl::Sysctl;

/// A namespace whose state is plain facts.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    facts: Facts,
    steps: usize,
    fault: Option<usize>,
}

impl Fake {
    /// A namespace in which all this is so.
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        Self { facts, steps: 0, fault: None }
    }

    /// The same, in which the operation after `steps` successful ones fails once, with EIO.
    #[must_use]
    pub fn failing_after(mut self, steps: usize) -> Self {
        self.fault = Some(steps);
        self
    }

    /// Everything as it is now.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How many operations succeeded.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    fn step(&mut self, op: &Op) -> Result<(), KernelError> {
        if self.fault == Some(self.steps) {
            self.fault = None;
            return Err(refused(libc::EIO));
        }
        // All or nothing, like the kernel's own steps.
        let mut facts = self.facts.clone();
        match op {
            Op::CreateTap(tap) => links::create_tap(&mut facts, tap)?,
            Op::CreateLink(link) => links::create(&mut facts, link)?,
            Op::DeleteLink { link } => links::delete(&mut facts, link)?,
            Op::DeleteGroup { group } => links::delete_group(&mut facts, *group)?,
            Op::SetLink { link, set } => links::change(&mut facts, link, set)?,
            Op::RenameLink { link, name } => links::rename(&mut facts, link, name)?,
            Op::MoveLink { .. } => return Err(KernelError::Invalid("this plan has no other namespace".to_owned())),
            Op::AddVlans(new) => {
                links::find_bridged(&mut facts, &new.link)?;
                // The real one lets the flags of a VLAN change; no plan relies on that.
                if facts.vlans.iter().any(|old| old.overlaps(new)) {
                    return Err(refused(libc::EEXIST));
                }
                facts.vlans.push(new.clone());
            }
            Op::DeleteVlans(old) => {
                links::find_bridged(&mut facts, &old.link)?;
                let is_it = |held: &crate::facts::PortVlans| {
                    held.link == old.link && held.first == old.first && held.last == old.last
                };
                remove(&mut facts.vlans, is_it, libc::ENOENT)?;
            }
            Op::AddAddress(new) => {
                links::find(&mut facts, &new.link)?;
                if facts.addresses_of(&new.link).any(|old| old.address == new.address) {
                    return Err(refused(libc::EEXIST));
                }
                let off = Sysctl::ipv6_conf(&new.link, "disable_ipv6");
                if !new.address.is_ipv4() && facts.sysctl(&off) == Some("1") {
                    return Err(refused(libc::EACCES));
                }
                facts.addresses.push(new.clone());
            }
            Op::DeleteAddress { link, address } => {
                links::find(&mut facts, link)?;
                let is_it = |old: &crate::facts::Address| old.link == *link && old.address == *address;
                remove(&mut facts.addresses, is_it, libc::EADDRNOTAVAIL)?;
            }
            Op::AddRoute(new) => {
                if facts.routes.iter().any(|old| old.is_same_entry(new)) {
                    return Err(refused(libc::EEXIST));
                }
                add_route(&mut facts, new)?;
            }
            Op::ReplaceRoute(new) => {
                facts.routes.retain(|old| !old.is_same_entry(new));
                add_route(&mut facts, new)?;
            }
            Op::DeleteRoute(gone) => remove(&mut facts.routes, |old| old.is_same_entry(gone), libc::ESRCH)?,
            Op::WriteSysctl { key, value } => write_sysctl(&mut facts, key, value)?,
            Op::Nft(transaction) => tables::commit(&mut facts, transaction)?,
            // There are no packets here, and so no connections.
            Op::DeleteConntrack(_) => {}
        }
        self.facts = facts;
        self.steps += 1;
        Ok(())
    }
}

impl Kernel for Fake {
    fn gather(&mut self, ask: &Ask) -> Result<Facts, KernelError> {
        let mut facts = Facts::default();
        if !ask.links_named.is_empty() {
            let named = ask.links_named.iter().filter_map(|name| self.facts.link(name));
            facts.links = named.cloned().collect();
        } else if ask.needs_links() {
            facts.links.clone_from(&self.facts.links);
        }
        if !ask.bridging {
            facts.links.iter_mut().for_each(|link| (link.bridge, link.port) = (None, None));
        }
        if ask.vlans {
            facts.vlans.clone_from(&self.facts.vlans);
        }
        if ask.forwarding {
            facts.forwarding.clone_from(&self.facts.forwarding);
        }
        if ask.addresses {
            facts.addresses.clone_from(&self.facts.addresses);
            if !ask.links_named.is_empty() {
                facts.addresses.retain(|address| ask.links_named.contains(&address.link));
            }
        }
        if ask.routes {
            facts.routes.clone_from(&self.facts.routes);
        }
        if ask.neighbours {
            facts.neighbours.clone_from(&self.facts.neighbours);
        }
        for key in &ask.sysctls {
            facts.sysctls.insert(key.clone(), self.facts.sysctl(key).map(ToOwned::to_owned));
        }
        facts.tables = ask.tables.iter().filter_map(|id| self.facts.table(id).cloned()).collect();
        if ask.table_ids {
            facts.table_ids = self.facts.tables.iter().map(|table| table.id.clone()).collect();
        }
        Ok(facts)
    }

    fn holds(&mut self, tables: &[Table], facts: &Facts) -> Result<bool, KernelError> {
        let is_whole = |table: &Table| {
            let expected = TableFacts::expected(table, facts);
            expected.is_ok_and(|expected| expected.differences(self.facts.table(&table.id)).is_empty())
        };
        Ok(tables.iter().all(is_whole))
    }

    fn execute(&mut self, ops: &[Op]) -> Result<(), Failure> {
        ops.iter()
            .enumerate()
            .try_for_each(|(index, op)| self.step(op).map_err(|error| Failure { index, what: op.to_string(), error }))
    }
}

fn refused(errno: i32) -> KernelError {
    KernelError::refused(errno)
}

fn remove<T>(all: &mut Vec<T>, is_it: impl Fn(&T) -> bool, errno: i32) -> Result<(), KernelError> {
    let at = all.iter().position(is_it).ok_or_else(|| refused(errno))?;
    all.remove(at);
    Ok(())
}

fn add_route(facts: &mut Facts, new: &Route) -> Result<(), KernelError> {
    if let Some(name) = &new.link {
        let up = links::find(facts, name)?.up;
        if !up {
            return Err(refused(libc::ENETDOWN));
        }
        let reaches = |gateway: std::net::IpAddr| {
            let link_local = matches!(gateway, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local());
            let connected = facts.addresses_of(name).any(|held| held.address.contains(gateway));
            let routed =
                facts.routes_of(name).any(|route| route.gateway.is_none() && route.destination.contains(gateway));
            new.onlink || link_local || connected || routed
        };
        if !new.gateway.is_none_or(reaches) {
            return Err(refused(if new.destination.is_ipv4() { libc::ENETUNREACH } else { libc::EHOSTUNREACH }));
        }
    }
    facts.routes.push(new.clone());
    Ok(())
}

fn write_sysctl(facts: &mut Facts, key: &Sysctl, value: &str) -> Result<(), KernelError> {
    let of_link = key.link().is_some_and(|link| facts.link(&link).is_some());
    if facts.sysctl(key).is_none() && !of_link {
        return Err(KernelError::File {
            action: "write",
            path: format!("/proc/sys/{key}"),
            hint: "this kernel has no such setting, or the link is not there".to_owned(),
            source: std::io::Error::from_raw_os_error(libc::ENOENT),
        });
    }
    facts.sysctls.insert(key.clone(), Some(value.to_owned()));
    Ok(())
}
