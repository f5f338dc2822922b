//! The host's nft tables, one of each family for all networks; an attachment adds elements to their sets.

use std::net::IpAddr;

use hostnet::nft::{
    Chain, Command, Element, ElementKey, Family, Field, Hook, Rule, Set, Table, TableId, Test, Transaction, Value,
    ValueKind, priority,
};
use hostnet::{Facts, Op};
use terms::{IfName, IpNetwork, Ipv4Network, Ipv6Network, MacAddr};

const NAME: &str = "tapvisor-bridge";
/// Group of the host ends whose pods may send with their own address alone.
pub(crate) const CHECKED_GROUP: u32 = 0x7461_7076;
/// Those host ends, each with the address of its pod.
const OWNERS: &str = "owners";
/// Bridges with the addresses behind them that are masqueraded.
const MASQUERADED: [&str; 2] = ["masqueraded4", "masqueraded6"];

/// Groups are not translated (RFC 5771, RFC 4291 §2.7).
const GROUPS: [IpNetwork; 2] = [
    IpNetwork::V4(Ipv4Network::new_checked(std::net::Ipv4Addr::new(224, 0, 0, 0), 4).unwrap()),
    IpNetwork::V6(Ipv6Network::new_checked(std::net::Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8).unwrap()),
];

/// What an attachment has in the tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Elements {
    /// The host end and the only address that may come from there.
    pub(crate) owner: Option<(IfName, MacAddr)>,
    /// The link that packets of the pod come in by, and the address, of each that is masqueraded.
    pub(crate) masqueraded: Vec<(IfName, IpAddr)>,
}

/// The plugin's tables on the host.
pub fn table_ids() -> [TableId; 2] {
    [TableId::new(Family::Bridge, NAME), TableId::new(Family::Inet, NAME)]
}

impl Elements {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// One transaction that makes the tables that are not there yet, without elements.
    pub(crate) fn missing_tables(&self, host: &Facts) -> Option<Op> {
        let missing = self.tables().into_iter().filter(|table| !host.has_table(&table.id));
        let commands: Vec<_> = missing
            .map(|mut table| {
                table.sets.iter_mut().for_each(|set| set.elements.clear());
                Command::AddTable(table)
            })
            .collect();
        (!commands.is_empty()).then_some(Op::Nft(Transaction { commands }))
    }

    /// One transaction that adds them to the tables.
    pub(crate) fn addition(&self) -> Option<Op> {
        let mut commands = Vec::new();
        for table in self.tables() {
            let filled = table.sets.into_iter().filter(|set| !set.elements.is_empty());
            commands.extend(filled.map(|set| Command::AddElements { table: table.id.clone(), set }));
        }
        (!commands.is_empty()).then_some(Op::Nft(Transaction { commands }))
    }

    /// Transactions that remove them one by one: those that are gone keep no other.
    pub(crate) fn removals(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        for table in self.tables() {
            for set in table.sets {
                for element in &set.elements {
                    let set = Set { elements: vec![element.clone()], ..set.clone() };
                    let command = Command::DeleteElements { table: table.id.clone(), set };
                    ops.push(Op::Nft(Transaction { commands: vec![command] }));
                }
            }
        }
        ops
    }

    /// Which of them the tables do not hold, in words.
    pub(crate) fn missing(&self, facts: &Facts) -> Vec<String> {
        let mut missing = Vec::new();
        for table in self.tables() {
            let Some(found) = facts.table(&table.id) else {
                missing.push(format!("nft table {} is not there", table.id));
                continue;
            };
            for chain in &table.chains {
                let rules = found.chains.iter().find(|other| other.name == chain.name).map(|other| other.rules.len());
                if rules != Some(chain.rules.len()) {
                    missing.push(format!("nft chain {} {} is not as it was made", table.id, chain.name));
                }
            }
            for set in &table.sets {
                let holds = |element: &Element| {
                    let set = found.sets.iter().find(|other| other.name == set.name);
                    set.is_some_and(|set| set.elements.iter().any(|other| other.key == element.key))
                };
                let lost = set.elements.iter().filter(|element| !holds(element));
                missing.extend(lost.map(|element| {
                    let key: Vec<_> = element.key.iter().map(shown).collect();
                    format!("nft set {} {} lacks {}", table.id, set.name, key.join(" . "))
                }));
            }
        }
        missing
    }

    /// The tables that hold them.
    pub(crate) fn tables(&self) -> Vec<Table> {
        let mut tables = Vec::new();
        if let Some((host_end, mac)) = &self.owner {
            let mut table = spoof_check();
            let element = Element::of([Value::from(host_end), Value::from(*mac)]);
            table.sets.iter_mut().for_each(|set| set.elements.push(element.clone()));
            tables.push(table);
        }
        if !self.masqueraded.is_empty() {
            let mut table = masquerading();
            for (link, address) in &self.masqueraded {
                let at = usize::from(address.is_ipv6());
                let element = Element::of([Value::from(link), Value::from(*address)]);
                table.sets.iter_mut().skip(at).take(1).for_each(|set| set.elements.push(element.clone()));
            }
            tables.push(table);
        }
        tables
    }
}

fn shown(key: &ElementKey) -> String {
    match key {
        ElementKey::Is(Value::Device(link)) => link.to_string(),
        ElementKey::Is(Value::Ip(address)) => address.to_string(),
        ElementKey::Is(Value::Mac(mac)) => mac.to_string(),
        other => format!("{other:?}"),
    }
}

/// Drops, before the bridge learns from it, what a checked pod sends with an address that is not its own.
fn spoof_check() -> Table {
    /// NF_BR_PRI_BRNF of `linux/netfilter_bridge.h` is 0; connection tracking of bridges comes at -200.
    const FIRST: i32 = -300;
    let rule = Rule::named("foreign source")
        .is(Field::Iifgroup, CHECKED_GROUP)
        .not_in_set([Field::Iifname, Field::EtherSaddr], OWNERS)
        .counter()
        .drop();
    Table::new(Family::Bridge, NAME)
        .set(Set::new(OWNERS, [ValueKind::Ifname, ValueKind::Ether]))
        .chain(Chain::filter("spoof-check", Hook::Prerouting, FIRST).rule(rule))
}

/// Translates what comes from a pod and leaves by another link than its bridge, but not to another such pod: both are of this
/// host, and without a bridge they may be of one network.
fn masquerading() -> Table {
    let families =
        [(ValueKind::Ipv4, Field::IpSaddr, Field::IpDaddr), (ValueKind::Ipv6, Field::Ip6Saddr, Field::Ip6Daddr)];
    let mut table = Table::new(Family::Inet, NAME);
    let mut chain = Chain::nat("leaving", Hook::Postrouting, priority::SRCNAT);
    for ((kind, source, destination), (set, groups)) in families.into_iter().zip(MASQUERADED.into_iter().zip(GROUPS)) {
        table = table.set(Set::new(set, [ValueKind::Ifname, kind]));
        let rule = Rule::named("beyond the network")
            .in_set([Field::Iifname, source], set)
            .not_in_set([Field::Oifname, source], set)
            .not_in_set([Field::Oifname, destination], set)
            .when(destination, Test::NotWithin(groups))
            .masquerade();
        chain = chain.rule(rule);
    }
    table.chain(chain)
}
