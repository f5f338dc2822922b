//! Firewalls of others that drop by default what the host forwards: who they are, and whom they let through.

use std::fmt;
use std::net::IpAddr;

use hostnet::nft::{Base, ChainFacts, Family, Hook, Policy, RuleFacts, TableFacts};
use terms::IfName;

/// A chain that drops what none of its rules decided.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropping<'a> {
    table: &'a TableFacts,
    chain: &'a ChainFacts,
}

/// The chains at the forward hook that drop by default.
pub(crate) fn dropping(tables: &[TableFacts]) -> Vec<Dropping<'_>> {
    let drops = |base: &Base| base.hook == Hook::Forward && base.policy == Policy::Drop;
    let chains = tables.iter().flat_map(|table| table.chains.iter().map(move |chain| Dropping { table, chain }));
    chains.filter(|dropping| dropping.chain.base.as_ref().is_some_and(drops)).collect()
}

impl Dropping<'_> {
    /// Whether it sees packets of an address' family.
    pub(crate) fn concerns(&self, address: IpAddr) -> bool {
        match self.table.id.family {
            Family::Ip => address.is_ipv4(),
            Family::Ip6 => address.is_ipv6(),
            Family::Inet => true,
            Family::Arp | Family::Bridge | Family::Netdev => false,
        }
    }

    /// Whether some rule of the table accepts everything, or names the address, its network or the link as what it accepts.
    /// No simulation of the firewall: it is enough to see that somebody has thought of these packets.
    pub(crate) fn lets_through(&self, address: IpAddr, link: Option<&IfName>) -> bool {
        let rules = self.table.chains.iter().flat_map(|chain| &chain.rules);
        rules.filter(|rule| accepts(rule)).any(|rule| {
            let conditions: Vec<_> = rule.body.iter().filter(|line| is_condition(line)).collect();
            conditions.is_empty() || names_address(rule, address) || link.is_some_and(|link| names_link(rule, link))
        })
    }

    /// Whose it is, as far as its chains tell.
    pub(crate) fn owner(&self) -> Option<&'static str> {
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

/// `immediate` into the verdict register (NFTA_IMMEDIATE_DREG is absent, being zero) with code NF_ACCEPT.
fn accepts(rule: &RuleFacts) -> bool {
    rule.body.last().is_some_and(|line| line.starts_with("immediate 2=") && line.ends_with("00000001"))
}

fn is_condition(line: &str) -> bool {
    // iptables' `-m comment`, by its name in NFTA_MATCH_NAME.
    const COMMENT: &str = "match 1=636f6d6d656e74";
    !line.starts_with("counter") && !line.starts_with("immediate") && !line.starts_with(COMMENT)
}

/// Whether it compares something with the address, or with a network that the address is in.
fn names_address(rule: &RuleFacts, address: IpAddr) -> bool {
    const FEWEST_BYTES: usize = 1;
    let address = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut mask: Option<Vec<u8>> = None;
    rule.body.iter().any(|line| {
        if line.starts_with("bitwise ") {
            // NFTA_BITWISE_MASK.
            mask = datum(line, "4=");
            return false;
        }
        let mask = mask.take();
        // NFTA_CMP_DATA; the operation is absent where it is NFT_CMP_EQ.
        let is_equality = line.starts_with("cmp ") && !line.contains(" 2=");
        let Some(value) = datum(line, "3=").filter(|value| is_equality && value.len() > FEWEST_BYTES) else {
            return false;
        };
        let masked: Vec<_> = match mask {
            Some(mask) => address.iter().zip(mask).map(|(byte, mask)| byte & mask).collect(),
            None => address.clone(),
        };
        masked.get(..value.len()) == Some(&value)
    })
}

fn names_link(rule: &RuleFacts, link: &IfName) -> bool {
    let is_it = |value: Vec<u8>| value.split(|byte| *byte == 0).next() == Some(link.as_str().as_bytes());
    rule.body.iter().any(|line| line.starts_with("cmp ") && datum(line, "3=").is_some_and(is_it))
}

/// The bytes of an attribute that holds NFTA_DATA_VALUE: behind that attribute's header, as long as it says.
fn datum(line: &str, key: &str) -> Option<Vec<u8>> {
    let hex = line.split(' ').find_map(|word| word.strip_prefix(key))?;
    let byte = |at: usize| u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok();
    let length = usize::from(u16::from_ne_bytes([byte(0)?, byte(1)?]));
    (4..length).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use hostnet::nft::{ChainKind, TableId};

    use super::*;

    const ACCEPT: &str = "immediate 2=0c00028008000100";

    fn rule(conditions: &[&str]) -> RuleFacts {
        let accept = format!("{ACCEPT}00000001");
        let body = conditions.iter().map(|line| (*line).to_owned()).chain(["counter".to_owned(), accept]).collect();
        RuleFacts { handle: 1, comment: None, counter: None, body }
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
        assert!(lets_through(vec![rule(&[
            "meta 1=06",
            "cmp 1=00000001 3=140001007665746831000000000000000000000000"
        ])]));
    }
}
