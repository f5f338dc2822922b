//! From the Services that the kernel serves to those it shall serve, in one transaction.

use std::collections::BTreeMap;

use hostnet::nft::{Chain, Command, Set, Transaction};
use wiring::Family;

use super::frontend::Frontend;
use super::table::Services;

impl Services {
    /// The transaction that makes a table of `installed` one of `self`; its size is that of the change.
    ///
    /// With nothing installed the whole table is put in place.
    #[must_use]
    pub fn update(&self, installed: Option<&Self>) -> Transaction {
        match installed {
            Some(installed)
                if installed.ranges == self.ranges && installed.refuses_loopback_v6 == self.refuses_loopback_v6 =>
            {
                Transaction { commands: self.changes(installed) }
            }
            _ => Transaction::replace([self.table()]),
        }
    }

    /// New sets and chains first, then the lookups that lead to them, then what nothing leads to any more.
    fn changes(&self, installed: &Self) -> Vec<Command> {
        let (gone, come) = (installed.without(self), self.without(installed));
        let (old, new) = (gone.parts(), come.parts());
        let mut commands = Vec::new();
        commands.extend(only_in(&new.sets, &old.sets).map(add_set));
        commands.extend(callees_first(only_in(&new.chains, &old.chains)).into_iter().map(add_chain));
        commands.extend(filled(gone.lookups()).map(|set| Command::DeleteElements { table: Self::table_id(), set }));
        commands.extend(filled(come.lookups()).map(|set| Command::AddElements { table: Self::table_id(), set }));
        commands.extend(callees_first(only_in(&old.chains, &new.chains)).into_iter().rev().map(delete_chain));
        commands.extend(only_in(&old.sets, &new.sets).map(delete_set));
        commands
    }

    /// What of this is not, or not the same, in `other`.
    pub(super) fn without(&self, other: &Self) -> Self {
        let key = |frontend: &&Frontend| (frontend.name.clone(), frontend.family);
        let others: BTreeMap<(String, Family), &Frontend> = other.frontends.iter().map(|f| (key(&f), f)).collect();
        let differs = |frontend: &&Frontend| others.get(&key(frontend)) != Some(frontend);
        Self {
            frontends: self.frontends.iter().filter(differs).cloned().collect(),
            vms: self.vms.difference(&other.vms).copied().collect(),
            ranges: Vec::new(),
            refuses_loopback_v6: self.refuses_loopback_v6,
        }
    }
}

fn filled(lookups: BTreeMap<String, Set>) -> impl Iterator<Item = Set> {
    lookups.into_values().filter(|set| !set.elements.is_empty())
}

fn only_in<'a, T: PartialEq>(
    these: &'a BTreeMap<String, T>,
    those: &BTreeMap<String, T>,
) -> impl Iterator<Item = &'a T> {
    these.iter().filter(|(name, _)| !those.contains_key(*name)).map(|(_, item)| item)
}

/// Chains that Services' chains go to (`backend-…`) before those that go there (`service-…`), which the alphabet does.
fn callees_first<'a>(chains: impl Iterator<Item = &'a Chain>) -> Vec<&'a Chain> {
    let mut chains = Vec::from_iter(chains);
    chains.sort_by(|a, b| a.name.cmp(&b.name));
    chains
}

fn add_set(set: &Set) -> Command {
    Command::AddSet { table: Services::table_id(), set: set.clone() }
}

fn delete_set(set: &Set) -> Command {
    Command::DeleteSet { table: Services::table_id(), set: set.name.clone() }
}

fn add_chain(chain: &Chain) -> Command {
    Command::AddChain { table: Services::table_id(), chain: chain.clone() }
}

fn delete_chain(chain: &Chain) -> Command {
    Command::DeleteChain { table: Services::table_id(), chain: chain.name.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use terms::Protocol;

    use super::*;

    fn web(backends: &[&str]) -> Frontend {
        Frontend {
            name: "default/web/http".into(),
            family: Family::V4,
            protocol: Protocol::Tcp,
            addresses: BTreeSet::from(["172.30.78.10".parse().unwrap()]),
            port: 80,
            node_port: Some(30080),
            affinity_seconds: None,
            backends: backends.iter().map(|backend| backend.parse().unwrap()).collect(),
        }
    }

    fn services(frontends: impl IntoIterator<Item = Frontend>) -> Services {
        let ranges = vec!["172.30.78.0/24".parse().unwrap()];
        Services {
            frontends: frontends.into_iter().collect(),
            vms: BTreeSet::new(),
            ranges,
            refuses_loopback_v6: false,
        }
    }

    fn words(transaction: &Transaction) -> Vec<String> {
        let verb = |command: &Command| command.to_string().split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        transaction.commands.iter().map(verb).collect()
    }

    #[test]
    fn nothing_changed_is_an_empty_transaction() {
        let same = services([web(&["172.30.77.2:8080"])]);
        assert_eq!(same.update(Some(&same)).commands, []);
    }

    #[test]
    fn the_first_installation_is_the_whole_table() {
        assert_eq!(words(&services([]).update(None)), ["replace table"]);
    }

    #[test]
    fn a_second_vm_changes_one_chain_and_two_lookups_with_any_services() {
        let others = (0..500).map(|n| Frontend { name: format!("default/s{n}/p"), ..web(&["172.30.77.9:1"]) });
        let (before, after) = (web(&["172.30.77.2:80"]), web(&["172.30.77.2:80", "172.30.77.3:80"]));
        let installed = services(others.clone().chain([before]));
        let update = services(others.chain([after])).update(Some(&installed));
        let expected = ["add set", "add chain", "delete 1", "delete 1", "add 1", "add 1", "delete chain"];
        assert_eq!(words(&update), expected);
    }

    #[test]
    fn a_service_that_loses_its_last_vm_is_refused_instead() {
        let update = services([web(&[])]).update(Some(&services([web(&["172.30.77.2:80"])])));
        let sets: Vec<String> = update.commands.iter().map(ToString::to_string).collect();
        assert!(
            sets.iter().any(|command| command.contains("add 1 elements to") && command.ends_with("refused4")),
            "{sets:?}"
        );
        assert!(
            sets.iter().any(|command| command.contains("delete 1 elements of") && command.ends_with("services4")),
            "{sets:?}"
        );
    }

    #[test]
    fn clients_of_a_backend_that_stays_are_remembered() {
        let sticky = |backends: &[&str]| Frontend { affinity_seconds: Some(10_800), ..web(backends) };
        let update = services([sticky(&["172.30.77.2:80", "172.30.77.3:80"])])
            .update(Some(&services([sticky(&["172.30.77.2:80"])])));
        let words = words(&update);
        assert_eq!(words.iter().filter(|word| *word == "add set").count(), 1);
        assert!(!words.contains(&"delete set".to_owned()));
    }
}
