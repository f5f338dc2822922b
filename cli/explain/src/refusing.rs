//! Rules of others that refuse what the host forwards to or from a VM, whatever the policy of their chain.
//!
//! No simulation of a firewall: followed is only what all of a VM's packets, or all to or from its address or link, come to.

use std::fmt;
use std::net::IpAddr;

use hostnet::nft::{ChainFacts, RuleFacts, TableFacts};
use nix::libc;
use terms::IfName;

use super::firewall::{ON_THE_WAY, concerns};
use super::line::{Masked, datum, is_comment, verdict_code, verdict_target};

/// A rule that refuses.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    table: &'a TableFacts,
    chain: &'a ChainFacts,
    rule: &'a RuleFacts,
}

/// What a rule or a chain comes to.
enum Decision<'a> {
    Accepted,
    Refused(Refusal<'a>),
    /// The rest of the chain is left out.
    Returned,
}

/// Most chains that lead into one another (NFT_JUMP_STACK_SIZE of the kernel).
const DEEPEST: usize = 16;

/// The first rule that refuses, in each chain on the way of what is forwarded.
pub fn refusals<'a>(tables: &'a [TableFacts], address: IpAddr, link: Option<&IfName>) -> Vec<Refusal<'a>> {
    let is_met = |chain: &&ChainFacts| chain.base.as_ref().is_some_and(|base| ON_THE_WAY.contains(&base.hook));
    let concerned = tables.iter().filter(|table| concerns(table.id.family, address));
    let chains = concerned.flat_map(|table| table.chains.iter().filter(is_met).map(move |chain| (table, chain)));
    let decided = chains.map(|(table, chain)| Packets { table, address, link }.decide(chain, 0));
    decided
        .filter_map(|decision| if let Some(Decision::Refused(refusal)) = decision { Some(refusal) } else { None })
        .collect()
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {} of {} {}", self.rule.handle, self.table.id, self.chain.name)?;
        self.rule.counter.map_or(Ok(()), |counter| write!(f, " ({} packets so far)", counter.packets))
    }
}

impl Refusal<'_> {
    /// How it is got out of a link's way.
    pub fn remedy(&self, link: &str) -> String {
        if self.table.id.name == "firewalld" {
            return format!("`firewall-cmd --zone=trusted --add-interface={link}`");
        }
        format!("`nft delete rule {} {} handle {}`", self.table.id, self.chain.name, self.rule.handle)
    }
}

/// A VM's packets in a table.
#[derive(Clone, Copy)]
struct Packets<'a, 'b> {
    table: &'a TableFacts,
    address: IpAddr,
    link: Option<&'b IfName>,
}

impl<'a> Packets<'a, '_> {
    fn decide(self, chain: &'a ChainFacts, depth: usize) -> Option<Decision<'a>> {
        if depth == DEEPEST {
            return None;
        }
        for rule in chain.rules.iter().filter(|rule| self.all_come_to(rule)) {
            match self.act(chain, rule, depth) {
                Some(Decision::Returned) => return None,
                Some(decision) => return Some(decision),
                None => {}
            }
        }
        None
    }

    fn act(self, chain: &'a ChainFacts, rule: &'a RuleFacts, depth: usize) -> Option<Decision<'a>> {
        /// iptables' REJECT, by its name in NFTA_TARGET_NAME.
        const REJECT: &str = "target 1=52454a454354";
        let refused = || Some(Decision::Refused(Refusal { table: self.table, chain, rule }));
        for line in &rule.body {
            if line.starts_with("reject") || line.starts_with(REJECT) {
                return refused();
            }
            match verdict_code(line) {
                Some(libc::NF_ACCEPT) => return Some(Decision::Accepted),
                Some(libc::NF_DROP) => return refused(),
                Some(libc::NFT_RETURN) => return Some(Decision::Returned),
                Some(code @ (libc::NFT_JUMP | libc::NFT_GOTO)) => {
                    let name = verdict_target(line)?;
                    let next = self.table.chains.iter().find(|chain| chain.name == name)?;
                    let decision = self.decide(next, depth + 1);
                    // From where a goto leads nobody comes back.
                    return if code == libc::NFT_GOTO { decision.or(Some(Decision::Returned)) } else { decision };
                }
                _ => {}
            }
        }
        None
    }

    /// Whether a rule asks for nothing but the VM's address or link.
    fn all_come_to(self, rule: &RuleFacts) -> bool {
        const ACTIONS: [&str; 5] = ["counter", "immediate", "reject", "log", "target"];
        const LOADS: [&str; 2] = ["meta", "payload"];
        let (mut loaded, mut masked) = ("", Masked::default());
        rule.body.iter().all(|line| {
            let word = line.split(' ').next().unwrap_or_default();
            match word {
                _ if LOADS.contains(&word) => {
                    loaded = line;
                    true
                }
                "bitwise" => {
                    masked.load(line);
                    true
                }
                "cmp" => masked.compares(line, self.address, self.link) || self.is_family(loaded, line),
                _ => ACTIONS.contains(&word) || is_comment(line),
            }
        })
    }

    /// Whether a comparison picks the address' family, as nft puts it before addresses in tables of both.
    fn is_family(self, loaded: &str, line: &str) -> bool {
        // NFTA_META_KEY with NFT_META_NFPROTO.
        let of_packet = loaded.starts_with("meta ") && loaded.ends_with(" 2=0000000f");
        let wanted = if self.address.is_ipv4() { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
        // NFTA_CMP_OP is absent where it is NFT_CMP_EQ.
        of_packet && !line.contains(" 2=") && datum(line, "3=") == Some(wanted.to_le_bytes()[..1].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use hostnet::nft::{Base, ChainKind, Counter, Family, Hook, Policy, TableId};

    use super::*;

    const DROP: &str = "immediate 2=0c0002800800010000000000";
    const ACCEPT: &str = "immediate 2=0c0002800800010000000001";
    const RETURN: &str = "immediate 2=0c00028008000100fffffffb";
    const TO_U: &str = "immediate 2=1400028008000100fffffffd0600020075000000";
    const ON_TO_U: &str = "immediate 2=1400028008000100fffffffc0600020075000000";
    /// `ip saddr 172.30.77.5`.
    const OURS: [&str; 2] =
        ["payload 1=00000001 2=00000001 3=0000000c 4=00000004", "cmp 1=00000001 3=08000100ac1e4d05"];
    const OTHERS: [&str; 2] = [OURS[0], "cmp 1=00000001 3=08000100ac1e4d06"];

    fn rule(handle: u64, conditions: &[&str], act: &str) -> RuleFacts {
        let body = conditions.iter().chain([&"counter", &act]).map(|line| (*line).to_owned()).collect();
        RuleFacts { handle, comment: None, counter: Some(Counter { packets: 3, bytes: 9 }), body }
    }

    /// The handle of the rule that refuses.
    fn refused(family: Family, forward: Vec<RuleFacts>, u: Vec<RuleFacts>) -> Option<u64> {
        let base =
            Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0, device: None, policy: Policy::Accept };
        let chains = vec![
            ChainFacts { name: "FORWARD".to_owned(), base: Some(base), rules: forward },
            ChainFacts { name: "u".to_owned(), base: None, rules: u },
        ];
        let tables = [TableFacts { id: TableId::new(family, "filter"), chains, sets: Vec::new() }];
        let found = refusals(&tables, "172.30.77.5".parse().unwrap(), Some(&"veth1".parse().unwrap()));
        found.first().map(|refusal| refusal.rule.handle)
    }

    #[test]
    fn a_rule_that_refuses_all_or_what_is_ours_is_found() {
        let first = |rules| refused(Family::Ip, rules, vec![]);
        assert_eq!(first(vec![]), None);
        for act in [DROP, "reject 1=00000003", "target 1=52454a45435400 2=01"] {
            assert_eq!(first(vec![rule(4, &OURS, act)]), Some(4), "{act}");
            assert_eq!(first(vec![rule(4, &[], act)]), Some(4), "{act}");
            assert_eq!(first(vec![rule(4, &OTHERS, act)]), None, "{act}");
        }
        let by_link = ["meta 1=00000001 2=00000006", "cmp 1=00000001 3=140001007665746831000000000000000000000000"];
        assert_eq!(first(vec![rule(4, &by_link, DROP)]), Some(4));
        assert_eq!(first(vec![rule(4, &[OURS[0], OURS[1], "ct 1=01"], DROP)]), None, "of some connections only");
        assert_eq!(first(vec![rule(4, &[OURS[0], OURS[1], "cmp 1=00000001 3=060001000050"], DROP)]), None, "one port");
        assert_eq!(first(vec![rule(3, &OURS, ACCEPT), rule(4, &[], DROP)]), None, "accepted before");
        assert_eq!(first(vec![rule(3, &OTHERS, ACCEPT), rule(4, &[], DROP)]), Some(4));
    }

    #[test]
    fn jumps_gotos_and_returns_are_followed() {
        let last = || rule(9, &[], DROP);
        let refuse = || vec![rule(5, &OURS, DROP)];
        assert_eq!(refused(Family::Ip, vec![rule(1, &[], TO_U)], refuse()), Some(5));
        assert_eq!(refused(Family::Ip, vec![rule(1, &OTHERS, TO_U)], refuse()), None, "others jump there");
        let back = || vec![rule(5, &[], RETURN), rule(6, &[], DROP)];
        assert_eq!(refused(Family::Ip, vec![rule(1, &[], TO_U), last()], back()), Some(9));
        assert_eq!(refused(Family::Ip, vec![rule(1, &[], ON_TO_U), last()], back()), None, "a goto does not come back");
        assert_eq!(refused(Family::Ip, vec![rule(1, &[], TO_U)], vec![rule(2, &[], TO_U)]), None, "a ring ends");
    }

    #[test]
    fn only_rules_for_the_family_count() {
        let of = |family: &str| ["meta 1=00000001 2=0000000f".to_owned(), format!("cmp 1=00000001 3=05000100{family}")];
        let (v4, v6) = (of("02"), of("0a"));
        let drop_all = |family: &[String; 2]| vec![rule(4, &[&family[0], &family[1]], DROP)];
        assert_eq!(refused(Family::Inet, drop_all(&v4), vec![]), Some(4));
        assert_eq!(refused(Family::Inet, drop_all(&v6), vec![]), None);
        assert_eq!(refused(Family::Ip6, vec![rule(4, &[], DROP)], vec![]), None);
    }
}
