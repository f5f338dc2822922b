//! The host's network before the first VM, and the plan that restores it.

use std::collections::{BTreeMap, BTreeSet};

use hostnet::facts::{Facts, Link, LinkKind, RouteProtocol};
use hostnet::nft::{Command, Family, TableFacts, TableId, Transaction};
use hostnet::{Ask, Op, Plan, sysctl::Sysctl};
use serde::{Deserialize, Serialize};
use terms::IfName;

/// A host's network before the first VM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Baseline {
    /// Names of the links that there were.
    pub links: BTreeSet<IfName>,
    /// Settings that plugins, or we, may change.
    pub sysctls: Settings,
    /// The tables there were of those that plugins use, with their chains.
    pub nat: BTreeMap<String, BTreeSet<String>>,
}

/// Settings by their value at a moment.
pub type Settings = BTreeMap<Sysctl, String>;

/// Settings that this program, or plugins that it ran, have changed. Other programs made all other changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OurChanges(BTreeMap<Sysctl, Change>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    from: String,
    to: String,
}

impl OurChanges {
    /// Records what changed between two snapshots while plugins ran.
    pub fn note(&mut self, before: &Settings, after: &Settings) {
        for (key, from) in before {
            if let Some(to) = after.get(key).filter(|to| *to != from) {
                self.note_one(key, from, to);
            }
        }
    }

    /// Records what a plan writes over `before`.
    pub fn note_plan(&mut self, before: &Settings, ops: &[Op]) {
        for op in ops {
            if let Op::WriteSysctl { key, value } = op
                && let Some(from) = before.get(key).filter(|from| *from != value)
            {
                self.note_one(key, from, value);
            }
        }
    }

    /// A change on top of a recorded one keeps that one's first value; one on top of a foreign change keeps the foreign value.
    fn note_one(&mut self, key: &Sysctl, from: &str, to: &str) {
        let began = self.0.get(key).filter(|earlier| earlier.to == from).map(|earlier| earlier.from.clone());
        let from = began.unwrap_or_else(|| from.to_owned());
        self.0.insert(key.clone(), Change { from, to: to.to_owned() });
    }

    /// The values to restore: recorded changes get their first value, unless another program changed them later; all other
    /// settings keep their value. They are listed as well, because restoring a host-wide setting overwrites those of links.
    fn undone(&self, now: &Settings) -> Settings {
        let target = |(key, now): (&Sysctl, &String)| {
            let undone = self.0.get(key).filter(|change| change.to == *now).map(|change| change.from.clone());
            (key.clone(), undone.unwrap_or_else(|| now.clone()))
        };
        now.iter().map(target).collect()
    }
}

/// The settings among facts that the kernel has.
#[must_use]
pub fn settings(facts: &Facts) -> Settings {
    facts.sysctls.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect()
}

/// Settings of the whole host that also write those of every link.
const GLOBAL: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];

/// The facts to read of a host with these links.
#[must_use]
pub fn questions(links: &[Link]) -> Ask {
    let names = links.iter().map(|link| link.name.to_string());
    let settings = |name: String| {
        [
            ("ipv4", "forwarding"),
            ("ipv4", "accept_redirects"),
            ("ipv4", "route_localnet"),
            ("ipv6", "forwarding"),
            ("ipv6", "accept_ra"),
        ]
        .map(|(family, setting)| format!("net/{family}/conf/{name}/{setting}").parse())
    };
    let per_link = ["all", "default"].map(str::to_owned).into_iter().chain(names).flat_map(settings);
    let global = GLOBAL.into_iter().map(str::parse);
    Ask::network()
        .with_sysctls(global.chain(per_link).flatten())
        .with_tables(nat_tables().into_iter().chain(bridge::table_ids()))
}

impl Baseline {
    /// Takes the baseline of a host.
    #[must_use]
    pub fn of(facts: &Facts) -> Self {
        let chains = |table: &TableFacts| table.chains.iter().map(|chain| chain.name.clone()).collect();
        Self {
            links: facts.links.iter().map(|link| link.name.clone()).collect(),
            sysctls: settings(facts),
            nat: facts.tables.iter().map(|table| (table.id.to_string(), chains(table))).collect(),
        }
    }
}

impl Baseline {
    /// The baseline without the settings that other programs have changed since.
    #[must_use]
    pub fn undoing(self, ours: &OurChanges, now: &Facts) -> Self {
        Self { sysctls: ours.undone(&settings(now)), ..self }
    }
}

/// The settings that a host needs before a plugin switches forwarding on: a link that has routes from router advertisements keeps
/// them only if it accepts advertisements while forwarding (`accept_ra` 2); with 1 the kernel deletes them at once.
#[must_use]
pub fn prepare(facts: &Facts) -> Plan {
    let learnt = |protocol| protocol == RouteProtocol::RouterAdvertisement;
    let links: BTreeSet<_> =
        facts.routes.iter().filter(|route| learnt(route.protocol)).filter_map(|route| route.link.clone()).collect();
    let write = |link: IfName| {
        let key = Sysctl::ipv6_conf(&link, "accept_ra");
        (facts.sysctl(&key) == Some("1")).then(|| Op::WriteSysctl { key, value: "2".to_owned() })
    };
    Plan { ops: links.into_iter().filter_map(write).collect() }
}

/// The plan that restores the baseline. Host-wide settings come first and alone, because they overwrite those of every link:
/// apply the plan, read facts again, and call again until the plan is empty.
///
/// `made` are the host-side links that plugins reported. A bridge among them is removed when it has no ports.
#[must_use]
pub fn restore(before: &Baseline, now: &Facts, made: &BTreeSet<IfName>) -> Plan {
    let changed = |(key, value): (&Sysctl, &String)| {
        let differs = now.sysctl(key).is_some_and(|now| now != value);
        differs.then(|| Op::WriteSysctl { key: key.clone(), value: value.clone() })
    };
    let is_global = |key: &Sysctl| GLOBAL.contains(&key.path());
    let global: Vec<_> = before.sysctls.iter().filter(|(key, _)| is_global(key)).filter_map(changed).collect();
    if !global.is_empty() {
        return Plan { ops: global };
    }
    let links = now.links.iter().filter(|link| is_left_over(link, before, now, made));
    let links = links.map(|link| Op::DeleteLink { link: link.name.clone() });
    let mut ops: Vec<_> = before.sysctls.iter().filter_map(changed).chain(links).collect();
    // Those of `tapvisor-bridge` are that plugin's to remove.
    let nat = now.tables.iter().filter(|table| nat_tables().contains(&table.id));
    let commands: Vec<_> = nat.flat_map(|table| emptied(table, before)).collect();
    if !commands.is_empty() {
        ops.push(Op::Nft(Transaction { commands }));
    }
    Plan { ops }
}

fn is_left_over(link: &Link, before: &Baseline, now: &Facts, made: &BTreeSet<IfName>) -> bool {
    let has_ports = now.links.iter().any(|port| port.master.as_ref() == Some(&link.name));
    made.contains(&link.name) && !before.links.contains(&link.name) && link.kind == LinkKind::Bridge && !has_ports
}

/// A nat table, or chains of one, that were not there before and hold nothing.
fn emptied(table: &TableFacts, before: &Baseline) -> Vec<Command> {
    let is_empty = table.sets.is_empty() && table.chains.iter().all(|chain| chain.rules.is_empty());
    let Some(chains) = before.nat.get(&table.id.to_string()) else {
        return if is_empty { vec![Command::DeleteTable(table.id.clone())] } else { Vec::new() };
    };
    let new = table.chains.iter().filter(|chain| chain.rules.is_empty() && !chains.contains(&chain.name));
    new.map(|chain| Command::DeleteChain { table: table.id.clone(), chain: chain.name.clone() }).collect()
}

/// Where plugins that call iptables put their rules.
fn nat_tables() -> [TableId; 2] {
    [TableId::new(Family::Ip, "nat"), TableId::new(Family::Ip6, "nat")]
}

#[cfg(test)]
mod tests {
    use hostnet::facts::{Route, RouteProtocol};
    use hostnet::nft::{ChainFacts, RuleFacts};

    use super::*;

    fn link(name: &str, kind: LinkKind) -> Link {
        Link::new(1, name.parse().unwrap(), kind)
    }

    fn facts(sysctls: &[(&str, &str)], links: Vec<Link>) -> Facts {
        let sysctls = sysctls.iter().map(|(key, value)| (key.parse().unwrap(), Some((*value).to_owned()))).collect();
        Facts { sysctls, links, ..Facts::default() }
    }

    fn chain(name: &str, rules: usize) -> ChainFacts {
        let rule = RuleFacts { handle: 1, comment: None, counter: None, statements: Vec::new() };
        ChainFacts { name: name.to_owned(), base: None, rules: vec![rule; rules] }
    }

    fn nat(chains: Vec<ChainFacts>) -> TableFacts {
        TableFacts { id: TableId::new(Family::Ip, "nat"), chains, sets: Vec::new() }
    }

    fn words(plan: &Plan) -> Vec<String> {
        plan.ops.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn links_that_learn_routes_go_on_learning_them_while_forwarding() {
        let mut host = facts(
            &[("net/ipv6/conf/wlan0/accept_ra", "1"), ("net/ipv6/conf/eth0/accept_ra", "2")],
            vec![link("wlan0", LinkKind::Physical), link("eth0", LinkKind::Physical)],
        );
        for name in ["wlan0", "eth0"] {
            let route = Route::by(name.parse().unwrap(), "::/0".parse().unwrap());
            host.routes.push(Route { protocol: RouteProtocol::RouterAdvertisement, ..route });
        }
        assert_eq!(words(&prepare(&host)), ["write 2 to sysctl net/ipv6/conf/wlan0/accept_ra"]);
    }

    #[test]
    fn global_settings_are_restored_before_those_of_links() {
        let before = Baseline::of(&facts(
            &[
                ("net/ipv4/ip_forward", "0"),
                ("net/ipv4/conf/eth0/forwarding", "1"),
                ("net/ipv6/conf/eth0/accept_ra", "1"),
            ],
            Vec::new(),
        ));
        let mut now = facts(
            &[
                ("net/ipv4/ip_forward", "1"),
                ("net/ipv4/conf/eth0/forwarding", "1"),
                ("net/ipv6/conf/eth0/accept_ra", "2"),
            ],
            Vec::new(),
        );
        assert_eq!(words(&restore(&before, &now, &BTreeSet::new())), ["write 0 to sysctl net/ipv4/ip_forward"]);
        // The kernel has now switched off forwarding on every link.
        for key in ["net/ipv4/ip_forward", "net/ipv4/conf/eth0/forwarding"] {
            now.sysctls.insert(key.parse().unwrap(), Some("0".to_owned()));
        }
        let expected =
            ["write 1 to sysctl net/ipv4/conf/eth0/forwarding", "write 1 to sysctl net/ipv6/conf/eth0/accept_ra"];
        assert_eq!(words(&restore(&before, &now, &BTreeSet::new())), expected);
    }

    // spec: NET-6
    #[test]
    fn what_other_programs_changed_meanwhile_stays() {
        let at = |values: &[(&str, &str)]| facts(values, Vec::new());
        let (forward, link, accept) =
            ("net/ipv4/ip_forward", "net/ipv4/conf/eth0/forwarding", "net/ipv6/conf/eth0/accept_ra");
        let first = at(&[(forward, "0"), (link, "0"), (accept, "1")]);
        let mut ours = OurChanges::default();
        let theirs = at(&[(forward, "1"), (link, "1"), (accept, "1")]);
        // Not while plugins ran.
        let by_us = [Op::WriteSysctl { key: accept.parse().unwrap(), value: "2".to_owned() }];
        ours.note_plan(&settings(&theirs), &by_us);
        let now = at(&[(forward, "1"), (link, "1"), (accept, "2")]);
        let plan = restore(&Baseline::of(&first).undoing(&ours, &now), &now, &BTreeSet::new());
        assert_eq!(words(&plan), ["write 1 to sysctl net/ipv6/conf/eth0/accept_ra"]);
        // While they were: it is undone, but not where another program changed it later.
        ours.note(&settings(&first), &settings(&theirs));
        let now = at(&[(forward, "1"), (link, "0"), (accept, "0")]);
        let target = Baseline::of(&first).undoing(&ours, &now);
        assert_eq!(words(&restore(&target, &now, &BTreeSet::new())), ["write 0 to sysctl net/ipv4/ip_forward"]);
        let after = at(&[(forward, "0"), (link, "0"), (accept, "0")]);
        assert_eq!(restore(&target, &after, &BTreeSet::new()), Plan::default());
    }

    #[test]
    fn changes_on_top_of_each_other_lead_back_to_the_first() {
        let value = |value: &str| settings(&facts(&[("net/ipv4/ip_forward", value)], Vec::new()));
        let mut ours = OurChanges::default();
        ours.note(&value("0"), &value("1"));
        ours.note(&value("1"), &value("2"));
        assert_eq!(ours.undone(&value("2")), value("0"));
        assert_eq!(ours.undone(&value("1")), value("1"), "another program has written it since");
        ours.note(&value("5"), &value("6"));
        assert_eq!(ours.undone(&value("6")), value("5"));
    }

    #[test]
    fn settings_of_links_that_are_gone_are_forgotten() {
        let before = Baseline::of(&facts(&[("net/ipv4/conf/wg0/forwarding", "0")], Vec::new()));
        assert_eq!(restore(&before, &Facts::default(), &BTreeSet::new()), Plan::default());
    }

    #[test]
    fn only_bridges_without_ports_that_plugins_made_are_removed() {
        let made: BTreeSet<IfName> =
            ["cni0", "cni1", "br0", "veth1"].into_iter().map(|name| name.parse().unwrap()).collect();
        let before = Baseline::of(&facts(&[], vec![link("br0", LinkKind::Bridge)]));
        let mut port = link("tap7", LinkKind::Veth);
        port.master = Some("cni1".parse().unwrap());
        let bridges = ["cni0", "cni1", "br0", "docker0"].map(|name| link(name, LinkKind::Bridge));
        let now = facts(&[], bridges.into_iter().chain([port, link("veth1", LinkKind::Veth)]).collect());
        assert_eq!(words(&restore(&before, &now, &made)), ["delete link cni0"]);
    }

    #[test]
    fn nat_tables_go_only_if_new_and_empty() {
        let now = |chains| Facts { tables: vec![nat(chains)], ..Facts::default() };
        let none = BTreeSet::new();
        let new = Baseline::default();
        assert_eq!(restore(&new, &now(vec![chain("POSTROUTING", 1)]), &none), Plan::default());
        assert_eq!(restore(&new, &now(vec![chain("POSTROUTING", 0)]), &none).ops.len(), 1);
        let old = Baseline::of(&now(vec![chain("DOCKER", 0)]));
        let plan = restore(&old, &now(vec![chain("DOCKER", 0), chain("POSTROUTING", 0)]), &none);
        let [Op::Nft(transaction)] = plan.ops.as_slice() else { panic!("{plan:?}") };
        let table = TableId::new(Family::Ip, "nat");
        assert_eq!(transaction.commands, [Command::DeleteChain { table, chain: "POSTROUTING".to_owned() }]);
    }

    #[test]
    fn every_link_and_both_pseudo_links_are_asked_about() {
        let ask = questions(&[link("eth0.5", LinkKind::Physical)]);
        assert_eq!(ask.sysctls.len(), 2 + 3 * 5);
        assert_eq!(ask.tables.len(), 2 + 2);
        assert!(ask.sysctls.iter().any(|key| key.path() == "net/ipv6/conf/eth0.5/accept_ra"));
    }
}
