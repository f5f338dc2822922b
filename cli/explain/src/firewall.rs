//! Firewalls of other programs that drop by default what the host forwards: whose they are, and what they let through.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use hostnet::nft::{
    Base, ChainFacts, ElementData, Family, Hook, Policy, RuleFacts, Statement, TableFacts, TableId, Verdict, VerdictMap,
};
use hostnet::{KernelError, Linux};
use terms::IfName;

use super::condition::{is_condition, names_address, names_link};

/// The hooks that forwarded packets come by.
pub(super) const ON_THE_WAY: [Hook; 3] = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];

/// The tables that forwarded packets come by. Our own for Services has to do with Services alone, and may be large.
///
/// # Errors
/// When the kernel does not answer.
pub fn tables(kernel: &mut Linux) -> Result<Vec<TableId>, KernelError> {
    let mut tables = kernel.tables_at(&ON_THE_WAY)?;
    tables.retain(|id| *id != TableId::new(Family::Inet, wiring::SERVICES_TABLE));
    Ok(tables)
}

/// What the older iptables has loaded in the calling thread's namespace; its rules are not nf_tables' and cannot be read here.
pub fn older_tables() -> BTreeSet<String> {
    let lists = ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];
    let names = lists.iter().filter_map(|list| std::fs::read_to_string(list).ok());
    names.flat_map(|names| names.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// A chain that drops what none of its rules decided.
#[derive(Debug, Clone, Copy)]
pub struct Dropping<'a> {
    table: &'a TableFacts,
    chain: &'a ChainFacts,
}

/// The chains at the forward hook that drop by default.
pub fn dropping(tables: &[TableFacts]) -> Vec<Dropping<'_>> {
    let drops = |base: &Base| base.hook == Hook::Forward && base.policy == Policy::Drop;
    let chains = tables.iter().flat_map(|table| table.chains.iter().map(move |chain| Dropping { table, chain }));
    chains.filter(|dropping| dropping.chain.base.as_ref().is_some_and(drops)).collect()
}

impl Dropping<'_> {
    /// Whether it sees packets of an address' family.
    pub fn concerns(&self, address: IpAddr) -> bool {
        concerns(self.table.id.family, address)
    }

    /// Whether some rule that packets reach accepts everything, or accepts packets that a rule before it selects by the
    /// address, its network or the link. It does not simulate the firewall: a rule for these packets is enough.
    pub fn lets_through(&self, address: IpAddr, link: Option<&IfName>) -> bool {
        let names_ours = |statement: &Statement| {
            names_address(statement, address) || link.is_some_and(|link| names_link(statement, link))
        };
        let chains: BTreeMap<&str, &ChainFacts> = self.table.chains.iter().map(|chain| (&*chain.name, chain)).collect();
        let (mut ahead, mut seen) = (vec![(self.chain, Share::All)], BTreeSet::new());
        while let Some((chain, share)) = ahead.pop() {
            if !seen.insert((&chain.name, share)) {
                continue;
            }
            for rule in &chain.rules {
                let share = match share {
                    _ if rule.statements.iter().any(names_ours) => Share::Ours,
                    Share::All if rule.statements.iter().any(is_condition) => Share::Some,
                    share => share,
                };
                if accepts(rule) && share != Share::Some {
                    return true;
                }
                let next = self.targets(rule).into_iter().filter_map(|target| chains.get(target).copied());
                ahead.extend(next.map(|next| (next, share)));
            }
        }
        false
    }

    /// The chains that a rule may lead to: by its own verdict, or by those of a map.
    fn targets<'b>(&'b self, rule: &'b RuleFacts) -> Vec<&'b str> {
        let of_map = |name: &str| {
            let map = self.table.sets.iter().filter(|set| set.name == name).flat_map(|set| &set.elements);
            map.filter_map(
                |element| if let Some(ElementData::Verdict(verdict)) = &element.data { target(verdict) } else { None },
            )
            .collect::<Vec<_>>()
        };
        let of_statement = |statement: &'b Statement| match statement {
            Statement::Verdict(verdict) => target(verdict).into_iter().collect(),
            Statement::VerdictMap { map: VerdictMap::Named(name), .. } => of_map(name),
            Statement::VerdictMap { map: VerdictMap::Inline(pairs), .. } => {
                pairs.iter().filter_map(|(_, verdict)| target(verdict)).collect()
            }
            _ => Vec::new(),
        };
        rule.statements.iter().flat_map(of_statement).collect()
    }

    /// Whose it is, as far as its chains tell.
    pub fn owner(&self) -> Option<&'static str> {
        let has = |prefix: &str| self.table.chains.iter().any(|chain| chain.name.starts_with(prefix));
        match () {
            () if has("ufw-") || has("ufw6-") => Some("ufw"),
            () if has("DOCKER") => Some("Docker"),
            () if self.table.id.name == "firewalld" => Some("firewalld"),
            () => None,
        }
    }
}

impl fmt::Display for Dropping<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table.id, self.chain.name)?;
        self.owner().map_or(Ok(()), |owner| write!(f, " ({owner})"))
    }
}

/// Whether tables of a family see an address' packets.
pub(super) fn concerns(family: Family, address: IpAddr) -> bool {
    match family {
        Family::Ip => address.is_ipv4(),
        Family::Ip6 => address.is_ipv6(),
        Family::Inet => true,
        Family::Arp | Family::Bridge | Family::Netdev => false,
    }
}

/// The chain that a verdict leads to.
fn target(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
        _ => None,
    }
}

/// Which packets reach a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Share {
    /// All packets, whatever their addresses.
    All,
    /// Those of the VM, which a rule has selected.
    Ours,
    /// Those that some other condition has selected.
    Some,
}

fn accepts(rule: &RuleFacts) -> bool {
    rule.statements.last() == Some(&Statement::Verdict(Verdict::Accept))
}

#[cfg(test)]
mod tests {
    use hostnet::nft::{ChainKind, ElementFacts, ElementKey, Field, SetFacts, Test, Value};

    use super::*;

    fn ours() -> Statement {
        within("172.30.77.0/24")
    }

    fn within(network: &str) -> Statement {
        test(Field::IpSaddr, Test::Within(network.parse().unwrap()))
    }

    fn test(field: Field, test: Test) -> Statement {
        Statement::Match { fields: vec![field], test }
    }

    fn tcp() -> Statement {
        test(Field::L4proto, Test::Is(6u8.into()))
    }

    fn extension(name: &str) -> Statement {
        Statement::Foreign { expression: "match".to_owned(), extension: Some(name.to_owned()) }
    }

    fn rule(conditions: &[Statement]) -> RuleFacts {
        ending(conditions, Verdict::Accept)
    }

    fn ending(conditions: &[Statement], verdict: Verdict) -> RuleFacts {
        let end = [Statement::Counter, Statement::Verdict(verdict)];
        let statements = conditions.iter().cloned().chain(end).collect();
        RuleFacts { handle: 1, comment: None, counter: None, statements }
    }

    fn jump(conditions: &[Statement], to: &str) -> RuleFacts {
        ending(conditions, Verdict::Jump(to.to_owned()))
    }

    fn table(names: &[&str], rules: Vec<RuleFacts>) -> TableFacts {
        let base =
            Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0, device: None, policy: Policy::Drop };
        let mut chains = vec![ChainFacts { name: "FORWARD".to_owned(), base: Some(base), rules }];
        chains.extend(names.iter().map(|name| ChainFacts { name: (*name).to_owned(), base: None, rules: Vec::new() }));
        TableFacts { id: TableId::new(Family::Ip, "filter"), chains, sets: Vec::new() }
    }

    #[test]
    fn the_owner_of_a_dropping_chain_is_named() {
        for (chain, name) in
            [("DOCKER-USER", "ip filter FORWARD (Docker)"), ("ufw-user-forward", "ip filter FORWARD (ufw)")]
        {
            let tables = [table(&[chain], Vec::new())];
            assert_eq!(dropping(&tables)[0].to_string(), name);
        }
        let tables = [table(&[], Vec::new())];
        assert_eq!(dropping(&tables)[0].to_string(), "ip filter FORWARD");
        assert!(!dropping(&tables)[0].concerns("fd00::1".parse().unwrap()));
    }

    // spec: EXPL-8
    #[test]
    fn only_rules_that_packets_reach_count() {
        let lets_through = |forward, rules_of_u: Vec<RuleFacts>, sets| {
            let mut table = TableFacts { sets, ..table(&["u"], forward) };
            table.chains[1].rules = rules_of_u;
            dropping(&[table])[0].lets_through("172.30.77.5".parse().unwrap(), None)
        };
        let all = rule(&[]);
        assert!(!lets_through(vec![], vec![all.clone()], vec![]), "no rule jumps there");
        assert!(lets_through(vec![jump(&[], "u")], vec![all.clone()], vec![]));
        assert!(lets_through(vec![jump(&[ours()], "u")], vec![all.clone()], vec![]), "the jump names the network");
        assert!(!lets_through(vec![jump(&[tcp()], "u")], vec![all.clone()], vec![]), "others jump there");
        assert!(lets_through(vec![jump(&[tcp()], "u")], vec![rule(&[ours()])], vec![]));
        assert!(!lets_through(vec![jump(&[], "u")], vec![jump(&[], "u")], vec![]), "a ring ends");
        let by_map = |map| {
            let statement = Statement::VerdictMap { fields: vec![Field::Iifname], map };
            vec![RuleFacts { statements: vec![statement], ..all.clone() }]
        };
        let goto = || Verdict::Goto("u".to_owned());
        let element = ElementFacts {
            key: vec![ElementKey::Is(Value::Bytes(vec![1]))],
            data: Some(ElementData::Verdict(goto())),
            expires_milliseconds: None,
        };
        let map = SetFacts { name: "ways".into(), dynamic: false, elements: vec![element] };
        let inline = vec![(vec![Value::Bytes(vec![0])], Verdict::Accept), (vec![Value::Bytes(vec![1])], goto())];
        for by in [VerdictMap::Inline(inline), VerdictMap::Named("ways".to_owned())] {
            assert!(lets_through(by_map(by.clone()), vec![rule(&[ours()])], vec![map.clone()]), "{by:?}");
            assert!(!lets_through(by_map(by.clone()), vec![all.clone()], vec![map.clone()]), "{by:?}");
        }
    }

    // spec: EXPL-8
    #[test]
    fn accepting_the_address_its_network_its_link_or_all_lets_through() {
        let address: IpAddr = "172.30.77.5".parse().unwrap();
        let link: IfName = "veth1".parse().unwrap();
        let lets_through = |rules| dropping(&[table(&[], rules)])[0].lets_through(address, Some(&link));
        assert!(!lets_through(Vec::new()));
        assert!(lets_through(vec![rule(&[])]), "everything");
        assert!(lets_through(vec![rule(&[extension("comment")])]), "everything, with a comment");
        assert!(!lets_through(vec![rule(&[extension("conntrack")])]), "what belongs to a connection");
        assert!(lets_through(vec![rule(&[ours()])]));
        assert!(!lets_through(vec![rule(&[within("172.30.78.0/24")])]));
        assert!(lets_through(vec![rule(&[within("172.16.0.0/12")])]));
        let not_ours = test(Field::IpSaddr, Test::NotWithin("172.30.77.0/24".parse().unwrap()));
        assert!(!lets_through(vec![rule(&[not_ours])]));
        let listed = test(Field::IpDaddr, Test::OneOf(vec![address.into()]));
        assert!(lets_through(vec![rule(&[listed])]));
        let by_link = |name: Test| vec![rule(&[test(Field::Iifname, name)])];
        assert!(lets_through(by_link(Test::Is(Value::from(&link)))));
        assert!(lets_through(by_link(Test::NameStart("veth".to_owned()))));
        assert!(!lets_through(by_link(Test::NameStart("br".to_owned()))));
        assert!(!lets_through(by_link(Test::IsNot(Value::from(&link)))));
    }
}
