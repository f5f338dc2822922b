//! Rules of other programs that refuse what the host forwards to or from a VM, whatever the policy of their chain.
//!
//! It does not simulate a firewall: it follows only rules that all packets of a VM, or all to or from its address or link, reach.

use std::fmt;
use std::net::IpAddr;

use hostnet::nft::{ChainFacts, Field, RuleFacts, Statement, TableFacts, Test, Value, Verdict};
use terms::IfName;

use super::condition::{is_comment, is_extension, is_foreign, lone_test, names_address, names_link};
use super::firewall::{ON_THE_WAY, concerns};

/// A rule of the host that drops or rejects the VM's packets.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    table: &'a TableFacts,
    chain: &'a ChainFacts,
    rule: &'a RuleFacts,
}

/// What a rule or a chain decides.
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
    /// The command that makes the firewall let a link's packets through.
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
        let refused = || Some(Decision::Refused(Refusal { table: self.table, chain, rule }));
        for statement in &rule.statements {
            if refuses(statement) {
                return refused();
            }
            let Statement::Verdict(verdict) = statement else { continue };
            match verdict {
                Verdict::Accept => return Some(Decision::Accepted),
                Verdict::Drop => return refused(),
                Verdict::Return => return Some(Decision::Returned),
                Verdict::Jump(name) | Verdict::Goto(name) => {
                    let next = self.table.chains.iter().find(|chain| chain.name == *name)?;
                    let decision = self.decide(next, depth + 1);
                    // After a goto the rest of the chain is left out.
                    let is_goto = matches!(verdict, Verdict::Goto(_));
                    return if is_goto { decision.or(Some(Decision::Returned)) } else { decision };
                }
                Verdict::Continue => {}
            }
        }
        None
    }

    /// Whether a rule asks for nothing but the VM's address or link.
    fn all_come_to(self, rule: &RuleFacts) -> bool {
        rule.statements.iter().all(|statement| match statement {
            Statement::Match { .. } => {
                names_address(statement, self.address)
                    || self.link.is_some_and(|link| names_link(statement, link))
                    || self.is_family(statement)
            }
            Statement::Counter | Statement::Verdict(_) | Statement::Reject(_) | Statement::Set { .. } => true,
            Statement::Foreign { .. } => {
                is_comment(statement) || ["reject", "log", "target"].iter().any(|kind| is_foreign(statement, kind))
            }
            _ => false,
        })
    }

    /// Whether it asks for the address' family, as rules of tables of both families do.
    fn is_family(self, statement: &Statement) -> bool {
        // NFPROTO_* of `linux/netfilter.h`.
        let wanted: u8 = if self.address.is_ipv4() { 2 } else { 10 };
        lone_test(statement) == Some((Field::Nfproto, &Test::Is(Value::from(wanted))))
    }
}

/// Whether it refuses and answers: `reject` of any kind, or REJECT of iptables.
fn refuses(statement: &Statement) -> bool {
    matches!(statement, Statement::Reject(_))
        || is_foreign(statement, "reject")
        || is_extension(statement, "target", "REJECT")
}

#[cfg(test)]
mod tests {
    use hostnet::nft::{Base, ChainKind, Counter, Family, Hook, Policy, Reject, TableId};

    use super::*;

    const DROP: Statement = Statement::Verdict(Verdict::Drop);
    const ACCEPT: Statement = Statement::Verdict(Verdict::Accept);
    const RETURN: Statement = Statement::Verdict(Verdict::Return);

    fn to_u() -> Statement {
        Statement::Verdict(Verdict::Jump("u".to_owned()))
    }

    fn on_to_u() -> Statement {
        Statement::Verdict(Verdict::Goto("u".to_owned()))
    }

    fn test(field: Field, value: Value) -> Statement {
        Statement::Match { fields: vec![field], test: Test::Is(value) }
    }

    fn saddr(address: &str) -> Statement {
        test(Field::IpSaddr, Value::Ip(address.parse().unwrap()))
    }

    fn ours() -> Statement {
        saddr("172.30.77.5")
    }

    fn others() -> Statement {
        saddr("172.30.77.6")
    }

    fn foreign(expression: &str, extension: Option<&str>) -> Statement {
        Statement::Foreign { expression: expression.to_owned(), extension: extension.map(str::to_owned) }
    }

    fn rule(handle: u64, conditions: &[Statement], act: Statement) -> RuleFacts {
        let statements = conditions.iter().cloned().chain([Statement::Counter, act]).collect();
        RuleFacts { handle, comment: None, counter: Some(Counter { packets: 3, bytes: 9 }), statements }
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

    // spec: EXPL-5
    #[test]
    fn a_rule_that_refuses_all_or_what_is_ours_is_found() {
        let first = |rules| refused(Family::Ip, rules, vec![]);
        assert_eq!(first(vec![]), None);
        let acts = [
            DROP,
            Statement::Reject(Reject::PortUnreachable),
            foreign("reject", None),
            foreign("target", Some("REJECT")),
        ];
        for act in acts {
            assert_eq!(first(vec![rule(4, &[ours()], act.clone())]), Some(4), "{act:?}");
            assert_eq!(first(vec![rule(4, &[], act.clone())]), Some(4), "{act:?}");
            assert_eq!(first(vec![rule(4, &[others()], act.clone())]), None, "{act:?}");
        }
        let by_link = test(Field::Oifname, Value::Device("veth1".parse().unwrap()));
        assert_eq!(first(vec![rule(4, &[by_link], DROP)]), Some(4));
        let established = Statement::Match { fields: vec![Field::CtState], test: Test::AnyBit(2) };
        assert_eq!(first(vec![rule(4, &[ours(), established], DROP)]), None, "of some connections only");
        assert_eq!(first(vec![rule(4, &[ours(), test(Field::TcpDport, 80u16.into())], DROP)]), None, "one port");
        assert_eq!(first(vec![rule(4, &[foreign("match", Some("comment"))], DROP)]), Some(4), "with a comment");
        assert_eq!(first(vec![rule(4, &[foreign("match", Some("conntrack"))], DROP)]), None);
        assert_eq!(first(vec![rule(3, &[ours()], ACCEPT), rule(4, &[], DROP)]), None, "accepted before");
        assert_eq!(first(vec![rule(3, &[others()], ACCEPT), rule(4, &[], DROP)]), Some(4));
    }

    // spec: EXPL-5
    #[test]
    fn jumps_gotos_and_returns_are_followed() {
        let last = || rule(9, &[], DROP);
        let refuse = || vec![rule(5, &[ours()], DROP)];
        assert_eq!(refused(Family::Ip, vec![rule(1, &[], to_u())], refuse()), Some(5));
        assert_eq!(refused(Family::Ip, vec![rule(1, &[others()], to_u())], refuse()), None, "others jump there");
        let back = || vec![rule(5, &[], RETURN), rule(6, &[], DROP)];
        assert_eq!(refused(Family::Ip, vec![rule(1, &[], to_u()), last()], back()), Some(9));
        assert_eq!(
            refused(Family::Ip, vec![rule(1, &[], on_to_u()), last()], back()),
            None,
            "a goto does not come back"
        );
        assert_eq!(refused(Family::Ip, vec![rule(1, &[], to_u())], vec![rule(2, &[], to_u())]), None, "a ring ends");
    }

    // spec: EXPL-5
    #[test]
    fn only_rules_for_the_family_count() {
        let drop_all = |family: u8| vec![rule(4, &[test(Field::Nfproto, family.into())], DROP)];
        assert_eq!(refused(Family::Inet, drop_all(2), vec![]), Some(4));
        assert_eq!(refused(Family::Inet, drop_all(10), vec![]), None);
        assert_eq!(refused(Family::Ip6, vec![rule(4, &[], DROP)], vec![]), None);
    }
}
