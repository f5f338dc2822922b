//! Firewalls of others that drop by default what the host forwards: who they are, and whom they let through.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use hostnet::nft::{Base, ChainFacts, Family, Hook, Policy, RuleFacts, TableFacts, TableId};
use hostnet::{KernelError, Linux};
use nix::libc;
use terms::IfName;

use super::line::{Masked, is_comment, is_link, verdict_code, verdict_target};
use services::Services;

/// The hooks that forwarded packets come by.
pub(super) const ON_THE_WAY: [Hook; 3] = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];

/// The tables that forwarded packets come by. Our own for Services has to do with Services alone, and may be large.
///
/// # Errors
/// When the kernel does not answer.
pub fn tables(kernel: &mut Linux) -> Result<Vec<TableId>, KernelError> {
    let mut tables = kernel.tables_at(&ON_THE_WAY)?;
    tables.retain(|id| *id != Services::table_id());
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

    /// Whether some rule that packets come to accepts everything, or what a rule on the way there tells by the address, its
    /// network or the link. No simulation of the firewall: it is enough to see that somebody has thought of these packets.
    pub fn lets_through(&self, address: IpAddr, link: Option<&IfName>) -> bool {
        let names_ours =
            |rule: &RuleFacts| names_address(rule, address) || link.is_some_and(|link| names_link(rule, link));
        let chains: BTreeMap<&str, &ChainFacts> = self.table.chains.iter().map(|chain| (&*chain.name, chain)).collect();
        let (mut ways, mut gone) = (vec![(self.chain, Share::All)], BTreeSet::new());
        while let Some((chain, share)) = ways.pop() {
            if !gone.insert((&chain.name, share)) {
                continue;
            }
            for rule in &chain.rules {
                let share = match share {
                    _ if names_ours(rule) => Share::Ours,
                    Share::All if rule.body.iter().any(|line| is_condition(line)) => Share::Some,
                    share => share,
                };
                if accepts(rule) && share != Share::Some {
                    return true;
                }
                let next = self.verdicts(rule).into_iter().filter_map(|verdict| chains.get(target(&verdict)?).copied());
                ways.extend(next.map(|next| (next, share)));
            }
        }
        false
    }

    /// Where a rule may lead: its own verdict, or those of a map, with a name or made on the fly.
    fn verdicts(&self, rule: &RuleFacts) -> Vec<String> {
        let of_map = |name: &str| {
            let map = self.table.sets.iter().filter(|set| set.name == name);
            map.flat_map(|map| &map.elements).filter_map(|element| element.data.clone()).collect()
        };
        let of_line = |line: &String| match line.split_once(' ') {
            Some(("immediate", _)) => verdict(line).into_iter().collect(),
            Some(("lookup", rest)) => match rest.strip_prefix('@') {
                Some(named) => of_map(named.split(' ').next().unwrap_or_default()),
                None => rest
                    .split(['{', ',', '}'])
                    .filter_map(|element| element.split(':').nth(1))
                    .map(str::to_owned)
                    .collect(),
            },
            _ => Vec::new(),
        };
        rule.body.iter().flat_map(of_line).collect()
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
fn target(verdict: &str) -> Option<&str> {
    let (word, chain) = verdict.split_once(' ')?;
    matches!(word, "jump" | "goto").then_some(chain)
}

/// Which packets come to a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Share {
    /// All.
    All,
    /// Those that a rule has told by what is ours.
    Ours,
    /// Those that some other condition has picked.
    Some,
}

fn accepts(rule: &RuleFacts) -> bool {
    rule.body.last().is_some_and(|line| verdict_code(line) == Some(libc::NF_ACCEPT))
}

/// A jump or a goto in an `immediate`.
fn verdict(line: &str) -> Option<String> {
    let word = match verdict_code(line)? {
        libc::NFT_JUMP => "jump",
        libc::NFT_GOTO => "goto",
        _ => return None,
    };
    Some(format!("{word} {}", verdict_target(line)?))
}

fn is_condition(line: &str) -> bool {
    !line.starts_with("counter") && !line.starts_with("immediate") && !is_comment(line)
}

/// Whether it compares something with the address, or with a network that the address is in.
pub(super) fn names_address(rule: &RuleFacts, address: IpAddr) -> bool {
    let mut masked = Masked::default();
    rule.body.iter().any(|line| {
        masked.load(line);
        masked.compares(line, address, None)
    })
}

fn names_link(rule: &RuleFacts, link: &IfName) -> bool {
    rule.body.iter().any(|line| is_link(line, link))
}

#[cfg(test)]
mod tests {
    use hostnet::nft::{ChainKind, ElementFacts, SetFacts, TableId};

    use super::*;

    const ACCEPT: &str = "immediate 2=0c00028008000100";

    fn rule(conditions: &[&str]) -> RuleFacts {
        let accept = format!("{ACCEPT}00000001");
        let body = conditions.iter().map(|line| (*line).to_owned()).chain(["counter".to_owned(), accept]).collect();
        RuleFacts { handle: 1, comment: None, counter: None, body }
    }

    /// A rule that jumps to a chain with a name of one letter.
    fn jump(conditions: &[&str], to: u8) -> RuleFacts {
        let mut jump = rule(conditions);
        jump.body.pop();
        jump.body.push(format!("immediate 2=1400028008000100fffffffd06000200{to:02x}000000"));
        jump
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

    #[test]
    fn only_rules_that_packets_come_to_count() {
        let lets_through = |forward, rules_of_u: Vec<RuleFacts>, sets| {
            let mut table = TableFacts { sets, ..table(&["u"], forward) };
            table.chains[1].rules = rules_of_u;
            dropping(&[table])[0].lets_through("172.30.77.5".parse().unwrap(), None)
        };
        let (all, ours) = (rule(&[]), "cmp 1=00000001 3=07000100ac1e4d00");
        assert!(!lets_through(vec![], vec![all.clone()], vec![]), "nobody jumps there");
        assert!(lets_through(vec![jump(&[], b'u')], vec![all.clone()], vec![]));
        assert!(lets_through(vec![jump(&[ours], b'u')], vec![all.clone()], vec![]), "the jump names the network");
        assert!(!lets_through(vec![jump(&["meta 1=06"], b'u')], vec![all.clone()], vec![]), "others jump there");
        assert!(lets_through(vec![jump(&["meta 1=06"], b'u')], vec![rule(&[ours])], vec![]));
        assert!(!lets_through(vec![jump(&[], b'u')], vec![jump(&[], b'u')], vec![]), "a ring ends");
        let by_map =
            |line: &str| vec![RuleFacts { body: vec!["meta 1=06".to_owned(), line.to_owned()], ..all.clone() }];
        let element =
            ElementFacts { key: "01".into(), key_end: None, data: Some("goto u".into()), expires_milliseconds: None };
        let map = SetFacts { name: "ways".into(), dynamic: false, elements: vec![element] };
        for line in ["lookup {00:accept,01:jump u} 2=00000001", "lookup @ways 2=00000001"] {
            assert!(lets_through(by_map(line), vec![rule(&[ours])], vec![map.clone()]), "{line}");
            assert!(!lets_through(by_map(line), vec![all.clone()], vec![map.clone()]), "{line}");
        }
    }

    #[test]
    fn a_rule_that_accepts_the_address_its_network_its_link_or_all_lets_through() {
        let address: IpAddr = "172.30.77.5".parse().unwrap();
        let link = "veth1".parse().unwrap();
        let lets_through = |rules| dropping(&[table(&[], rules)])[0].lets_through(address, Some(&link));
        assert!(!lets_through(Vec::new()));
        assert!(lets_through(vec![rule(&[])]), "everything");
        assert!(lets_through(vec![rule(&["match 1=636f6d6d656e7400 3=6f6b00"])]), "everything, with a comment");
        assert!(!lets_through(vec![rule(&["match 1=636f6e6e747261636b00"])]), "what belongs to a connection");
        assert!(lets_through(vec![rule(&["payload 1=00", "cmp 1=00000001 3=07000100ac1e4d00"])]), "172.30.77.0/24");
        assert!(!lets_through(vec![rule(&["cmp 1=00000001 3=07000100ac1e4e00"])]), "172.30.78.0/24");
        assert!(!lets_through(vec![rule(&["cmp 1=00000001 2=00000001 3=07000100ac1e4d00"])]), "not that network");
        let masked = ["bitwise 3=00000004 4=08000100fff00000", "cmp 1=00000001 3=08000100ac100000"];
        assert!(lets_through(vec![rule(&masked)]), "172.16.0.0/12");
        for (bytes, by_link) in [
            ("140001007665746831000000000000000000000000", true),
            ("0800010076657468", true),
            ("0a000100766574683100", true),
            ("0800010062720000", false),
        ] {
            let line = format!("cmp 1=00000001 3={bytes}");
            assert_eq!(lets_through(vec![rule(&["meta 1=06", &line])]), by_link, "{line}");
        }
    }
}
