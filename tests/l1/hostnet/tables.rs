//! A table with one of nearly everything.

use hostnet::nft::{
    CT_ESTABLISHED, CT_NEW, CT_RELATED, Chain, Direction, Element, ElementKey, Family, FibResult, Field, Hook,
    IpVersion, NatTarget, Reject, Rule, Set, SetFlags, Statement, Table, Test, UpdateSet, Value, ValueKind, Verdict,
    VerdictMap, priority,
};

use super::name;

pub(super) fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

pub(super) fn inet() -> Table {
    let leaf = |chain: &str, to: &str| Chain::regular(chain).rule(Rule::default().dnat(ip(to)));
    let table = sets().into_iter().fold(Table::new(Family::Inet, "tapvisor"), Table::set);
    table
        .chain(guard())
        .chain(prerouting())
        .chain(service())
        .chain(leaf("first", "10.0.2.4"))
        .chain(leaf("second", "10.0.2.5"))
        .chain(Chain::regular("service2").rule(Rule::default().ret()))
        .chain(forward())
        .chain(postrouting())
}

fn sets() -> Vec<Set> {
    let key = [ValueKind::Ipv4, ValueKind::L4proto, ValueKind::Port];
    let services = Set::map("services", key, [ValueKind::Ipv4, ValueKind::Port]).element(
        Element::of([Value::from(ip("172.30.78.1")), Value::from(6u8), Value::from(80u16)])
            .to([Value::from(ip("10.0.2.2")), Value::from(8080u16)]),
    );
    let verdicts = Set::verdict_map("nodeports", [ValueKind::L4proto, ValueKind::Port])
        .element(Element::of([Value::from(17u8), Value::from(30053u16)]).verdict(Verdict::Goto("service".to_owned())));
    let ports = Set::new("ports", [ValueKind::Port])
        .of_ranges()
        .element(Element::range(80u16, 81u16))
        .element(Element::of([443u16]))
        .element(Element::range(60000u16, 65535u16));
    let flags = SetFlags { interval: true, dynamic: false };
    let range = ElementKey::Range(ip("10.0.0.0").into(), ip("10.0.0.255").into());
    let pairs = Set { flags, ..Set::new("pairs", [ValueKind::Ipv4, ValueKind::Port]) }.element(Element {
        key: vec![range, ElementKey::Is(80u16.into())],
        data: None,
        comment: None,
    });
    let affinity = Set::new("affinity", [ValueKind::Ipv4]).dynamic(10_800, 65_535);
    vec![services, verdicts, ports, pairs, affinity]
}

fn guard() -> Chain {
    let tap = name("k6t-eth0");
    let own = Test::NoneOf(vec![ip("10.0.2.2").into(), ip("0.0.0.0").into()]);
    let loopback = Test::Within("127.0.0.0/8".parse().unwrap());
    let link_local = Test::NotWithin("fe80::/10".parse().unwrap());
    Chain::filter("guard", Hook::Prerouting, priority::RAW)
        .rule(Rule::named("spoofed source").iifname(&tap).when(Field::IpSaddr, own).counter().drop())
        .rule(Rule::named("loopback").iifname(&tap).when(Field::IpDaddr, loopback).drop())
        .rule(Rule::named("v6").iifname(&tap).when(Field::Ip6Saddr, link_local).drop())
        .rule(Rule::named("no tracking").is(Field::Mark, 7u32).with(Statement::Notrack))
}

fn prerouting() -> Chain {
    let key = vec![Field::IpDaddr, Field::L4proto, Field::ThDport];
    let to = NatTarget::Map { fields: key, map: "services".to_owned(), with_port: true };
    let local = Field::Fib { address: Direction::Destination, result: FibResult::AddressKind };
    Chain::nat("prerouting", Hook::Prerouting, priority::DSTNAT)
        .rule(Rule::named("map").with(Statement::Dnat { version: IpVersion::V4, to }))
        .rule(Rule::named("node ports").is(local, 2u32).with(Statement::VerdictMap {
            fields: vec![Field::L4proto, Field::ThDport],
            map: VerdictMap::Named("nodeports".to_owned()),
        }))
        .rule(Rule::named("fixed").is(Field::TcpDport, 22u16).dnat(ip("10.0.2.2")))
        .rule(Rule::named("fixed with port").is(Field::UdpDport, 53u16).dnat_to(ip("fd10:0:2::2"), 5353))
        .rule(Rule::named("redirected").is(Field::TcpDport, 8443u16).with(Statement::Redirect { port: Some(443) }))
}

fn service() -> Chain {
    let remember =
        UpdateSet { set: "affinity".to_owned(), fields: vec![Field::IpSaddr], refresh: true, timeout_seconds: None };
    let goto = |number: u32, chain: &str| (vec![number.into()], Verdict::Goto(chain.to_owned()));
    Chain::regular("service")
        .rule(Rule::named("sticky").in_set([Field::IpSaddr], "affinity").dnat(ip("10.0.2.3")))
        .rule(Rule::named("remember").with(Statement::UpdateSet(remember)))
        .rule(Rule::named("pick").with(Statement::VerdictMap {
            fields: vec![Field::Random { modulus: 2 }],
            map: VerdictMap::Inline(vec![goto(0, "first"), goto(1, "second")]),
        }))
}

fn forward() -> Chain {
    let state = |bits| Test::AnyBit(bits);
    let marked = Statement::Set { field: Field::CtMark, value: 1u32.into() };
    Chain::filter("forward", Hook::Forward, priority::FILTER)
        .dropping()
        .rule(Rule::named("known").when(Field::CtState, state(CT_ESTABLISHED | CT_RELATED)).accept())
        .rule(
            Rule::named("open ports")
                .when(Field::CtState, state(CT_NEW))
                .in_set([Field::TcpDport], "ports")
                .counter()
                .accept(),
        )
        .rule(Rule::named("pairs").is(Field::L4proto, 6u8).in_set([Field::IpSaddr, Field::ThDport], "pairs").accept())
        .rule(Rule::named("range").when(Field::TcpDport, Test::Range(1024u16.into(), 2047u16.into())).jump("service2"))
        .rule(Rule::named("told").is(Field::L4proto, 17u8).reject(Reject::PortUnreachable))
        .rule(Rule::named("reset").is(Field::TcpDport, 25u16).reject(Reject::TcpReset))
        .rule(Rule::named("solicitation").is(Field::Icmpv6Type, 135u8).is(Field::NdTarget, ip("fe80::1")).drop())
        .rule(Rule::named("marks").mark(0x4000).with(marked))
}

fn postrouting() -> Chain {
    let tap = name("k6t-eth0");
    let marked = Test::Bits { mask: 0x4000, value: 0x4000 };
    Chain::nat("postrouting", Hook::Postrouting, priority::SRCNAT)
        .rule(Rule::named("marked").when(Field::Mark, marked).oifname(&tap).masquerade())
        .rule(Rule::named("as gateway").oifname(&tap).saddr(ip("127.0.0.1")).snat(ip("10.0.2.1")))
}
