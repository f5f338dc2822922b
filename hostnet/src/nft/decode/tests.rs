//! Rules are read back as they were written, and differently once anything of them is different.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use terms::{IfName, MacAddr};

use super::super::compile::{TranslateContext, compile};
use super::super::element_bytes::{Encoded, encode_element};
use super::super::{
    Direction, FibResult, IpVersion, Limit, NatTarget, NftError, Reject, Rule, Set, UpdateSet, Value, Verdict,
    VerdictMap,
};
use super::*;
use crate::attributes::Writer;

struct Links(IfName);

impl LinkIndices for Links {
    fn index_of(&self, link: &IfName) -> Option<u32> {
        (*link == self.0).then_some(7)
    }

    fn link_at(&self, index: u32) -> Option<&IfName> {
        (index == 7).then_some(&self.0)
    }
}

struct Offline {
    links: Links,
    sets: Vec<Vec<Encoded>>,
}

impl TranslateContext for Offline {
    fn link_index(&mut self, link: &IfName) -> Result<u32, NftError> {
        self.links.index_of(link).ok_or_else(|| NftError::Other("no link".to_owned()))
    }

    fn unnamed_set(&mut self, set: Set) -> Result<u32, NftError> {
        let elements: Result<_, _> = set.elements.iter().map(|element| encode_element(&set, element)).collect();
        self.sets.push(elements?);
        Ok(u32::try_from(self.sets.len()).unwrap())
    }
}

impl Offline {
    fn new() -> Self {
        Self { links: Links(device()), sets: Vec::new() }
    }

    fn written(&mut self, family: Family, rule: &Rule) -> Vec<u8> {
        let mut writer = Writer::default();
        compile(&mut writer, family, rule, self).unwrap();
        writer.bytes
    }

    fn read(&self, family: Family, bytes: &[u8]) -> Vec<Statement> {
        let unnamed = |_: &str, number: Option<u32>| {
            let at = usize::try_from(number?).ok()?.checked_sub(1)?;
            self.sets.get(at).map(Vec::as_slice)
        };
        decode(bytes, &DecodeContext { family, links: &self.links, unnamed: &unnamed }).0
    }
}

fn device() -> IfName {
    "k6t-eth0".parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn values<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Vec<Value> {
    values.into_iter().map(Into::into).collect()
}

fn is_from(rule: Rule, field: Field, network: &str) -> Rule {
    rule.when(field, Test::Within(network.parse().unwrap()))
}

fn rules() -> Vec<(Family, Rule)> {
    let rule = Rule::default;
    let mac: MacAddr = "02:00:00:00:00:07".parse().unwrap();
    let update = |refresh, timeout_seconds| {
        Statement::UpdateSet(UpdateSet { set: "s".to_owned(), fields: vec![Field::Ip6Saddr], refresh, timeout_seconds })
    };
    let map = |fields: &[Field], with_port| NatTarget::Map { fields: fields.to_vec(), map: "m".to_owned(), with_port };
    let service = [Field::IpDaddr, Field::L4proto, Field::ThDport];
    let draw = [(values([0u32]), Verdict::Goto("a".to_owned())), (values([1u32]), Verdict::Jump("b".to_owned()))];
    let set = |field, value: Value| Statement::Set { field, value };
    let fixed = |address, port| NatTarget::Fixed { address, port };
    let limit = |over| Statement::Limit(Limit { packets_per_second: 50, burst_packets: 100, over });
    let inet = [
        rule().iifname(&device()).is_not(Field::IpSaddr, Ipv4Addr::LOCALHOST).counter().drop(),
        rule().is_not(Field::Oifname, &device()).saddr(ip("fd00::1")).masquerade(),
        is_from(rule(), Field::IpDaddr, "127.0.0.0/8").accept(),
        is_from(rule(), Field::Ip6Daddr, "fe80::/10").is_not(Field::Ip6Daddr, Ipv6Addr::LOCALHOST).ret(),
        rule().when(Field::Ip6Saddr, Test::NotWithin("fe80::/10".parse().unwrap())).jump("c"),
        rule().when(Field::Iifname, Test::NameStart("veth".to_owned())).goto("c"),
        rule().when(Field::CtState, Test::AnyBit(6)).with(Statement::Notrack),
        rule().when(Field::CtState, Test::NoBit(6)).is(Field::CtDirection, 0u8),
        rule().when(Field::TcpFlags, Test::Bits { mask: 0x17, value: 2 }).reject(Reject::TcpReset),
        rule().is(Field::Icmpv6Type, 135u8).is(Field::NdTarget, Ipv6Addr::LOCALHOST),
        rule().is(Field::IcmpType, 8u8).dnat(ip("10.0.2.2")),
        rule().dport(terms::Protocol::Sctp, 80).dnat_to(ip("10.0.2.2"), 8080),
        rule().dport(terms::Protocol::Udp, 53).dnat_to(ip("fd00::2"), 5353),
        rule().is(Field::TcpDport, 22u16).snat(ip("10.0.2.1")),
        rule().is(Field::L4proto, 6u8).with(Statement::Dnat { version: IpVersion::V4, to: fixed(None, Some(80)) }),
        rule().with(Statement::Dnat { version: IpVersion::V4, to: map(&service, true) }),
        rule().with(Statement::Dnat { version: IpVersion::V6, to: map(&[Field::Ip6Daddr], false) }),
        rule().is(Field::TcpDport, 8443u16).with(Statement::Redirect { port: Some(443) }),
        rule().with(Statement::Redirect { port: None }),
        rule().when(Field::TcpDport, Test::Range(1024u16.into(), 2047u16.into())).above(50, 100),
        rule().when(Field::UdpDport, Test::OneOf(values([67u16, 547]))).with(limit(false)),
        rule().when(Field::IpSaddr, Test::NoneOf(values([ip("10.0.0.1"), ip("10.0.0.2")]))).drop(),
        rule().in_set([Field::L4proto, Field::ThDport], "ports").accept(),
        rule().not_in_set([Field::Ip6Saddr], "s").drop(),
        rule().with(update(true, None)),
        rule().with(update(false, Some(60))),
        rule().with(Statement::VerdictMap {
            fields: vec![Field::L4proto, Field::ThDport],
            map: VerdictMap::Named("v".to_owned()),
        }),
        rule().with(Statement::VerdictMap {
            fields: vec![Field::Random { modulus: 2 }],
            map: VerdictMap::Inline(draw.to_vec()),
        }),
        rule().is(Field::RoundRobin { modulus: 3 }, 2u32).mark(7).with(set(Field::CtMark, 9u32.into())),
        rule().is(Field::Fib { address: Direction::Destination, result: FibResult::AddressKind }, 2u32),
        rule()
            .is(Field::Fib { address: Direction::Source, result: FibResult::Oif }, 3u32)
            .reject(Reject::AdminProhibited),
        rule().is(Field::Mark, 7u32).is(Field::Iifgroup, 4u32).is(Field::Pkttype, 1u8).is(Field::Nfproto, 2u8),
        rule().is(Field::CtStatus, 1u32).is(Field::CtMark, 1u32).is(Field::CtOriginalIpDaddr, ip("10.0.0.1")),
        rule()
            .is(Field::EtherSaddr, mac)
            .is(Field::EtherDaddr, Value::GroupMac([0xff; 6]))
            .reject(Reject::PortUnreachable),
        rule().when(Field::Meta { key: 30 }, Test::Is(Value::Bytes(vec![1, 2, 3, 4]))),
        rule().when(Field::Conntrack { key: 4 }, Test::Is(Value::Bytes(vec![1, 2, 3, 4]))),
        rule().when(Field::Payload { base: 1, offset: 9, bytes: 1 }, Test::IsNot(Value::Bytes(vec![6]))),
    ];
    let framed = [
        rule().is(Field::EtherType, 0x0800u16).is(Field::UdpSport, 68u16).counter().forward(&device()),
        rule().is(Field::ArpTargetIp, ip("10.0.2.1")).with(Statement::Duplicate { to: device() }),
        rule().is(Field::ArpOperation, 1u16).is(Field::ArpSenderEther, mac).is(Field::ArpSenderIp, ip("10.0.2.1")),
        rule().is(Field::IpDaddr, ip("10.0.0.1")).with(set(Field::IpDaddr, ip("10.0.0.2").into())),
        rule().with(set(Field::Ip6Saddr, ip("fd00::1").into())).with(set(Field::EtherDaddr, mac.into())),
        rule().is(Field::Protocol, 0x86ddu16).is(Field::ThSport, 1u16),
    ];
    let all = inet.map(|rule| (Family::Inet, rule)).into_iter();
    all.chain(framed.map(|rule| (Family::Netdev, rule))).collect()
}

#[test]
fn every_statement_is_read_back_as_it_was_written() {
    for (family, rule) in rules() {
        let mut offline = Offline::new();
        let bytes = offline.written(family, &rule);
        assert_eq!(offline.read(family, &bytes), rule.statements, "{rule}");
    }
}

/// Where the values of attributes are that hold no further attributes.
fn leaves(bytes: &[u8], start: usize, found: &mut Vec<usize>) {
    let parts: Vec<_> = attributes_of(bytes).collect();
    let covered: usize = parts.iter().map(|(_, value)| (value.len() + 4).next_multiple_of(4)).sum();
    if parts.is_empty() || covered != bytes.len() || parts.iter().any(|(kind, _)| *kind == 0) {
        return found.extend(start..start + bytes.len());
    }
    let mut at = start;
    for (_, value) in parts {
        leaves(value, at + 4, found);
        at += (value.len() + 4).next_multiple_of(4);
    }
}

/// Whether a byte belongs to the name of a set without a name: only its number in the transaction counts.
fn is_set_name(bytes: &[u8], at: usize) -> bool {
    let starts_name = |from: usize| bytes.get(from..from + 5).is_some_and(|name| name == b"__set" || name == b"__map");
    (at.saturating_sub(7)..=at).any(starts_name)
}

#[test]
fn a_rule_with_any_other_bit_is_read_differently() {
    let mut told = 0;
    for (family, rule) in rules() {
        // What a counter has seen is no part of the rule.
        let statements: Vec<_> = rule.statements.into_iter().filter(|one| *one != Statement::Counter).collect();
        let rule = Rule { statements, comment: None };
        let mut offline = Offline::new();
        let bytes = offline.written(family, &rule);
        let mut places = Vec::new();
        leaves(&bytes, 0, &mut places);
        for at in places.into_iter().filter(|at| !is_set_name(&bytes, *at)) {
            for bit in [1, 0x10] {
                let mut other = bytes.clone();
                other[at] ^= bit;
                // An upper end that is zero is absent, and the lower end again.
                if other.get(at - 3..=at) == Some(&[0; 4])
                    && ["nat ip", "redirect"].iter().any(|verb| rule.to_string().contains(verb))
                {
                    continue;
                }
                let read = offline.read(family, &other);
                assert_ne!(read, rule.statements, "{rule}: byte {at} of {} in {bytes:02x?}", bytes.len());
                told += 1;
            }
        }
    }
    assert!(told > 5000, "{told}");
}

#[test]
fn rules_of_other_programs_keep_what_is_known_of_them() {
    let offline = Offline::new();
    let mut writer = Writer::default();
    let expression = |writer: &mut Writer, name: &str, fill: &dyn Fn(&mut Writer)| {
        writer.nest(list::ELEM, |writer| {
            writer.text(expr::NAME, name);
            writer.nest(expr::DATA, fill);
        });
    };
    expression(&mut writer, "match", &|writer| {
        writer.text(1, "comment");
        writer.raw(3, b"ok\0");
    });
    // `ip saddr 172.30.77.0/24` as nft loads it, and a name as iptables compares it.
    load_and_compare(&mut writer, Field::Payload { base: 1, offset: 12, bytes: 3 }, &[172, 30, 77]);
    load_and_compare(&mut writer, Field::Oifname, b"veth1\0");
    expression(&mut writer, "target", &|writer| writer.text(1, "REJECT"));
    let foreign =
        |kind: &str, name: &str| Statement::Foreign { expression: kind.to_owned(), extension: Some(name.to_owned()) };
    let test = |field, test| Statement::Match { fields: vec![field], test };
    let expected = [
        foreign("match", "comment"),
        test(Field::IpSaddr, Test::Within("172.30.77.0/24".parse().unwrap())),
        test(Field::Oifname, Test::Is(Value::Device("veth1".parse().unwrap()))),
        foreign("target", "REJECT"),
    ];
    assert_eq!(offline.read(Family::Ip, &writer.bytes), expected);
    for end in 0..writer.bytes.len() {
        offline.read(Family::Ip, &writer.bytes[..end]);
    }
}

fn load_and_compare(writer: &mut Writer, field: Field, bytes: &[u8]) {
    super::super::expression::load(writer, field, 0);
    super::super::expression::compare(writer, 0, libc::NFT_CMP_EQ, bytes);
}
