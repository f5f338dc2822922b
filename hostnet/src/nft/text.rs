//! Tables, rules and commands in nft's own syntax, for plans that people read.

use std::fmt;

use super::{
    Base, Chain, ChainKind, Command, Direction, Element, ElementData, ElementKey, FibResult, Field, Hook, IpVersion,
    Limit, NatTarget, Policy, Reject, Rule, RuleFacts, Set, SetData, Statement, Table, Test, Transaction, UpdateSet,
    Value, ValueKind, Verdict, VerdictMap,
};
use crate::hex::hex;

/// Items with a separator between them.
struct Joined<'a, T>(&'a [T], &'static str);

impl<T: fmt::Display> fmt::Display for Joined<'_, T> {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, item) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(self.1)?;
            }
            write!(f, "{item}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Field {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iifname => "iifname",
            Self::Oifname => "oifname",
            Self::Iifgroup => "iifgroup",
            Self::L4proto => "meta l4proto",
            Self::Nfproto => "meta nfproto",
            Self::Protocol => "meta protocol",
            Self::Mark => "meta mark",
            Self::Pkttype => "meta pkttype",
            Self::EtherSaddr => "ether saddr",
            Self::EtherDaddr => "ether daddr",
            Self::EtherType => "ether type",
            Self::IpSaddr => "ip saddr",
            Self::IpDaddr => "ip daddr",
            Self::Ip6Saddr => "ip6 saddr",
            Self::Ip6Daddr => "ip6 daddr",
            Self::TcpSport => "tcp sport",
            Self::TcpDport => "tcp dport",
            Self::TcpFlags => "tcp flags",
            Self::UdpSport => "udp sport",
            Self::UdpDport => "udp dport",
            Self::ThSport => "th sport",
            Self::ThDport => "th dport",
            Self::IcmpType => "icmp type",
            Self::Icmpv6Type => "icmpv6 type",
            Self::NdTarget => "icmpv6 taddr",
            Self::ArpOperation => "arp operation",
            Self::ArpSenderEther => "arp saddr ether",
            Self::ArpSenderIp => "arp saddr ip",
            Self::ArpTargetIp => "arp daddr ip",
            Self::CtState => "ct state",
            Self::CtStatus => "ct status",
            Self::CtMark => "ct mark",
            Self::CtDirection => "ct direction",
            Self::CtOriginalIpDaddr => "ct original ip daddr",
            Self::CtOriginalIp6Daddr => "ct original ip6 daddr",
            Self::Random { modulus } => return write!(f, "numgen random mod {modulus}"),
            Self::RoundRobin { modulus } => return write!(f, "numgen inc mod {modulus}"),
            Self::Meta { key } => return write!(f, "meta {key}"),
            Self::Conntrack { key } => return write!(f, "ct {key}"),
            Self::Payload { base, offset, bytes } => return payload_text(f, *base, *offset, *bytes),
            Self::Fib { address, result } => {
                let address = if *address == Direction::Source { "saddr" } else { "daddr" };
                let result = if *result == FibResult::Oif { "oif" } else { "type" };
                return write!(f, "fib {address} {result}");
            }
        })
    }
}

/// A part of a packet by its place, in bits as nft has it.
#[cold]
fn payload_text(f: &mut fmt::Formatter<'_>, base: u32, offset: u32, bytes: u32) -> fmt::Result {
    let base = match base.cast_signed() {
        libc::NFT_PAYLOAD_LL_HEADER => "ll",
        libc::NFT_PAYLOAD_NETWORK_HEADER => "nh",
        libc::NFT_PAYLOAD_TRANSPORT_HEADER => "th",
        _ => "ih",
    };
    write!(f, "@{base},{},{}", u64::from(offset) * 8, u64::from(bytes) * 8)
}

/// Names that nft has for numbers of a kind.
fn name_of(kind: ValueKind, field: Option<Field>, number: u64) -> Option<&'static str> {
    Some(match (kind, number) {
        (ValueKind::L4proto, 2) if field == Some(Field::Nfproto) => "ipv4",
        (ValueKind::L4proto, 10) if field == Some(Field::Nfproto) => "ipv6",
        (ValueKind::L4proto, _) if field.is_some_and(|field| field != Field::L4proto) => return None,
        (ValueKind::L4proto, 1) => "icmp",
        (ValueKind::L4proto, 6) => "tcp",
        (ValueKind::L4proto, 17) => "udp",
        (ValueKind::L4proto, 58) => "ipv6-icmp",
        (ValueKind::L4proto, 132) => "sctp",
        (ValueKind::EtherType, 0x0800) => "ip",
        (ValueKind::EtherType, 0x0806) => "arp",
        (ValueKind::EtherType, 0x86dd) => "ip6",
        (ValueKind::IcmpType, 0) => "echo-reply",
        (ValueKind::IcmpType, 8) => "echo-request",
        (ValueKind::Icmpv6Type, 128) => "echo-request",
        (ValueKind::Icmpv6Type, 129) => "echo-reply",
        (ValueKind::Icmpv6Type, 133) => "nd-router-solicit",
        (ValueKind::Icmpv6Type, 134) => "nd-router-advert",
        (ValueKind::Icmpv6Type, 135) => "nd-neighbor-solicit",
        (ValueKind::Icmpv6Type, 136) => "nd-neighbor-advert",
        (ValueKind::ArpOperation, 1) => "request",
        (ValueKind::ArpOperation, 2) => "reply",
        _ => return None,
    })
}

/// A value as the field or set shows it.
struct Shown<'a>(&'a Value, ValueKind, Option<Field>);

impl fmt::Display for Shown<'_> {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, kind, field) = self;
        match value {
            Value::Number(number) => match name_of(*kind, *field, *number) {
                Some(name) => f.write_str(name),
                None if *kind == ValueKind::Mark => write!(f, "{number:#010x}"),
                None => write!(f, "{number}"),
            },
            Value::Ip(address) => write!(f, "{address}"),
            Value::Mac(mac) => write!(f, "{mac}"),
            Value::GroupMac([a, b, c, d, e, g]) => write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"),
            Value::Device(name) => write!(f, "\"{name}\""),
            Value::Bytes(bytes) => write!(f, "0x{}", hex(bytes)),
        }
    }
}

fn shown(field: Field, value: &Value) -> Shown<'_> {
    Shown(value, field.kind(), Some(field))
}

/// Names of the bits of a field, joined; a number where there are none.
fn bits(field: Field, bits: u64, separator: &str) -> String {
    let names: &[(u64, &str)] = match field {
        Field::CtState => &[
            (super::CT_INVALID, "invalid"),
            (super::CT_ESTABLISHED, "established"),
            (super::CT_RELATED, "related"),
            (super::CT_NEW, "new"),
            (super::CT_UNTRACKED, "untracked"),
        ],
        Field::TcpFlags => &[(1, "fin"), (2, "syn"), (4, "rst"), (8, "psh"), (16, "ack"), (32, "urg")],
        _ => &[],
    };
    let known: u64 = names.iter().map(|(bit, _)| bit).sum();
    if bits & !known != 0 || bits == 0 {
        return format!("{bits:#x}");
    }
    names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect::<Vec<_>>().join(separator)
}

impl fmt::Display for Statement {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Match { fields, test } => test_text(f, fields, test),
            Self::Counter => f.write_str("counter"),
            Self::Verdict(verdict) => write!(f, "{verdict}"),
            Self::VerdictMap { fields, map: VerdictMap::Named(name) } => {
                write!(f, "{} vmap @{name}", Joined(fields, " . "))
            }
            Self::VerdictMap { fields, map: VerdictMap::Inline(pairs) } => {
                let pairs: Vec<_> =
                    pairs.iter().map(|(key, verdict)| format!("{} : {verdict}", key_text(fields, key))).collect();
                write!(f, "{} vmap {{ {} }}", Joined(fields, " . "), pairs.join(", "))
            }
            Self::Set { field, value } => write!(f, "{field} set {}", shown(*field, value)),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Dnat { version, to } => nat_text(f, "dnat", *version, to),
            Self::Snat { version, to } => nat_text(f, "snat", *version, to),
            Self::Redirect { port: Some(port) } => write!(f, "redirect to :{port}"),
            Self::Redirect { port: None } => f.write_str("redirect"),
            Self::Forward { to } => write!(f, "fwd to \"{to}\""),
            Self::Duplicate { to } => write!(f, "dup to \"{to}\""),
            Self::Reject(Reject::PortUnreachable) => f.write_str("reject"),
            Self::Reject(Reject::AdminProhibited) => f.write_str("reject with icmpx admin-prohibited"),
            Self::Reject(Reject::TcpReset) => f.write_str("reject with tcp reset"),
            Self::Notrack => f.write_str("notrack"),
            Self::UpdateSet(update) => write!(f, "{update}"),
            Self::Limit(limit) => write!(f, "{limit}"),
            Self::Foreign { expression, extension: Some(extension) } => write!(f, "{expression} {extension}"),
            Self::Foreign { expression, extension: None } => f.write_str(expression),
        }
    }
}

impl fmt::Display for Limit {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let over = if self.over { "over " } else { "" };
        write!(f, "limit rate {over}{}/second burst {} packets", self.packets_per_second, self.burst_packets)
    }
}

impl fmt::Display for UpdateSet {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.refresh { "update" } else { "add" };
        write!(f, "{verb} @{} {{ {}", self.set, Joined(&self.fields, " . "))?;
        self.timeout_seconds.map_or(Ok(()), |seconds| write!(f, " timeout {seconds}s"))?;
        f.write_str(" }")
    }
}

#[cold]
fn key_text(fields: &[Field], key: &[Value]) -> String {
    let parts: Vec<_> = fields.iter().zip(key).map(|(field, value)| shown(*field, value).to_string()).collect();
    parts.join(" . ")
}

#[cold]
fn test_text(f: &mut fmt::Formatter<'_>, fields: &[Field], test: &Test) -> fmt::Result {
    write!(f, "{} ", Joined(fields, " . "))?;
    let Some(field) = fields.first().copied() else { return Ok(()) };
    let list =
        |values: &[Value]| values.iter().map(|value| shown(field, value).to_string()).collect::<Vec<_>>().join(", ");
    match test {
        Test::Is(value) => write!(f, "{}", shown(field, value)),
        Test::IsNot(value) => write!(f, "!= {}", shown(field, value)),
        Test::NameStart(start) => write!(f, "\"{start}*\""),
        Test::Within(network) => write!(f, "{network}"),
        Test::NotWithin(network) => write!(f, "!= {network}"),
        // A range with a name at one end reads worse than one of numbers.
        Test::Range(from, to) => {
            write!(f, "{}-{}", Shown(from, ValueKind::Number, None), Shown(to, ValueKind::Number, None))
        }
        Test::AnyBit(wanted) => f.write_str(&bits(field, *wanted, ",")),
        Test::NoBit(wanted) => write!(f, "& ({}) == 0", bits(field, *wanted, "|")),
        Test::Bits { mask, value } => write!(f, "& ({}) == {}", bits(field, *mask, "|"), bits(field, *value, "|")),
        Test::OneOf(values) => write!(f, "{{ {} }}", list(values)),
        Test::NoneOf(values) => write!(f, "!= {{ {} }}", list(values)),
        Test::InSet(set) => write!(f, "@{set}"),
        Test::NotInSet(set) => write!(f, "!= @{set}"),
    }
}

#[cold]
fn nat_text(f: &mut fmt::Formatter<'_>, verb: &str, version: IpVersion, to: &NatTarget) -> fmt::Result {
    let family = if version == IpVersion::V4 { "ip" } else { "ip6" };
    write!(f, "{verb} {family} ")?;
    match to {
        NatTarget::Fixed { address: Some(address), port: None } => write!(f, "to {address}"),
        NatTarget::Fixed { address: Some(address), port: Some(port) } => {
            write!(f, "to {}", std::net::SocketAddr::new(*address, *port))
        }
        NatTarget::Fixed { address: None, port } => write!(f, "to :{}", port.unwrap_or_default()),
        NatTarget::Map { fields, map, with_port } => {
            let port = if *with_port { "addr . port " } else { "" };
            write!(f, "{port}to {} map @{map}", Joined(fields, " . "))
        }
    }
}

impl fmt::Display for Verdict {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Continue => f.write_str("continue"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl fmt::Display for Rule {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Joined(&self.statements, " "))?;
        match &self.comment {
            Some(comment) => write!(f, " comment \"{comment}\""),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RuleFacts {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Joined(&self.statements, " "))
    }
}

impl fmt::Display for Base {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        };
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        };
        let policy = if self.policy == Policy::Accept { "accept" } else { "drop" };
        write!(f, "type {kind} hook {hook}")?;
        if let Some(device) = &self.device {
            write!(f, " device \"{device}\"")?;
        }
        write!(f, " priority {}; policy {policy};", self.priority)
    }
}

/// The body of a chain, between its braces, each line after `indent`.
#[cold]
fn chain_text(f: &mut fmt::Formatter<'_>, chain: &Chain, indent: &str) -> fmt::Result {
    if let Some(base) = &chain.base {
        writeln!(f, "{indent}{base}")?;
    }
    chain.rules.iter().try_for_each(|rule| writeln!(f, "{indent}{rule}"))
}

impl ValueKind {
    /// nft's name for the type.
    fn type_name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Ether => "ether_addr",
            Self::L4proto => "inet_proto",
            Self::Port => "inet_service",
            Self::Ifname => "ifname",
            Self::Mark => "mark",
            Self::EtherType => "ether_type",
            Self::IcmpType => "icmp_type",
            Self::Icmpv6Type => "icmpv6_type",
            Self::ArpOperation => "arp_op",
            Self::Number => "integer",
        }
    }
}

fn types(kinds: &[ValueKind]) -> String {
    kinds.iter().map(|kind| kind.type_name()).collect::<Vec<_>>().join(" . ")
}

#[cold]
fn element_text(set: &Set, element: &Element) -> String {
    let part = |(kind, part): (&ValueKind, &ElementKey)| match part {
        ElementKey::Is(value) => Shown(value, *kind, None).to_string(),
        ElementKey::Range(from, to) => format!("{}-{}", Shown(from, *kind, None), Shown(to, *kind, None)),
    };
    let mut text = set.key.iter().zip(&element.key).map(part).collect::<Vec<_>>().join(" . ");
    if let Some(comment) = &element.comment {
        text.push_str(&format!(" comment \"{comment}\""));
    }
    match (&element.data, &set.data) {
        (Some(ElementData::Verdict(verdict)), _) => format!("{text} : {verdict}"),
        (Some(ElementData::Values(values)), Some(SetData::Values(kinds))) => {
            let values = values.iter().zip(kinds).map(|(value, kind)| Shown(value, *kind, None).to_string());
            format!("{text} : {}", values.collect::<Vec<_>>().join(" . "))
        }
        _ => text,
    }
}

#[cold]
fn elements_text(set: &Set) -> String {
    let elements: Vec<_> = set.elements.iter().map(|element| element_text(set, element)).collect();
    format!("{{ {} }}", elements.join(", "))
}

/// The body of a set, between its braces, each line after `indent`.
#[cold]
fn set_text(f: &mut fmt::Formatter<'_>, set: &Set, indent: &str) -> fmt::Result {
    let data = match &set.data {
        None => String::new(),
        Some(SetData::Verdict) => " : verdict".to_owned(),
        Some(SetData::Values(kinds)) => format!(" : {}", types(kinds)),
    };
    writeln!(f, "{indent}type {}{data}", types(&set.key))?;
    let flags =
        [(set.flags.interval, "interval"), (set.flags.dynamic, "dynamic"), (set.timeout_seconds.is_some(), "timeout")];
    let flags: Vec<_> = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    if !flags.is_empty() {
        writeln!(f, "{indent}flags {}", flags.join(","))?;
    }
    set.timeout_seconds.map_or(Ok(()), |seconds| writeln!(f, "{indent}timeout {seconds}s"))?;
    set.size.map_or(Ok(()), |size| writeln!(f, "{indent}size {size}"))?;
    if set.elements.is_empty() { Ok(()) } else { writeln!(f, "{indent}elements = {}", elements_text(set)) }
}

fn set_word(set: &Set) -> &'static str {
    if set.data.is_some() { "map" } else { "set" }
}

impl fmt::Display for Table {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {{", self.id)?;
        for set in &self.sets {
            writeln!(f, "\t{} {} {{", set_word(set), set.name)?;
            set_text(f, set, "\t\t")?;
            writeln!(f, "\t}}")?;
        }
        for chain in &self.chains {
            writeln!(f, "\tchain {} {{", chain.name)?;
            chain_text(f, chain, "\t\t")?;
            writeln!(f, "\t}}")?;
        }
        f.write_str("}")
    }
}

/// The whole of a command, as a file for `nft -f` has it.
struct Whole<'a>(&'a Command);

impl fmt::Display for Whole<'_> {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Command::AddTable(table) => write!(f, "{table}"),
            Command::ReplaceTable(table) => write!(f, "table {id}\ndelete table {id}\n{table}", id = table.id),
            Command::AddSet { table, set } => {
                writeln!(f, "add {} {table} {} {{", set_word(set), set.name)?;
                set_text(f, set, "\t")?;
                f.write_str("}")
            }
            Command::AddChain { table, chain } => {
                writeln!(f, "add chain {table} {} {{", chain.name)?;
                chain_text(f, chain, "\t")?;
                f.write_str("}")
            }
            Command::AddRule { table, chain, rule } => write!(f, "add rule {table} {chain} {rule}"),
            Command::AddElements { table, set } => write!(f, "add element {table} {} {}", set.name, elements_text(set)),
            Command::DeleteElements { table, set } => {
                write!(f, "delete element {table} {} {}", set.name, elements_text(set))
            }
            short => write!(f, "{short}"),
        }
    }
}

impl fmt::Display for Transaction {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.commands.iter().try_for_each(|command| writeln!(f, "{}", Whole(command)))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::{CT_INVALID, Family, priority};
    use super::*;

    #[test]
    fn a_table_reads_as_nft_lists_it() {
        let device = "k6t-eth0".parse().unwrap();
        let ports = Set::new("ports", [ValueKind::L4proto, ValueKind::Port]).element(Element::of([6u16, 80]));
        let guard = Chain::filter("guard", Hook::Prerouting, priority::RAW)
            .rule(
                Rule::named("spoofed")
                    .iifname(&device)
                    .is_not(Field::IpSaddr, Ipv4Addr::new(10, 0, 2, 2))
                    .counter()
                    .drop(),
            )
            .rule(Rule::default().when(Field::CtState, Test::AnyBit(CT_INVALID)).drop());
        let nat = Chain::nat("prerouting", Hook::Prerouting, priority::DSTNAT).rule(
            Rule::default().in_set([Field::L4proto, Field::ThDport], "ports").dnat(Ipv4Addr::new(10, 0, 2, 2).into()),
        );
        let table = Table::new(Family::Inet, "t").set(ports).chain(guard).chain(nat);
        let expected = "table inet t {
\tset ports {
\t\ttype inet_proto . inet_service
\t\telements = { tcp . 80 }
\t}
\tchain guard {
\t\ttype filter hook prerouting priority -300; policy accept;
\t\tiifname \"k6t-eth0\" ip saddr != 10.0.2.2 counter drop comment \"spoofed\"
\t\tct state invalid drop
\t}
\tchain prerouting {
\t\ttype nat hook prerouting priority -100; policy accept;
\t\tmeta l4proto . th dport @ports dnat ip to 10.0.2.2
\t}
}";
        assert_eq!(table.to_string(), expected);
    }
}
