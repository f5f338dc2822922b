//! What every kernel must do, the fake one (here) and the real one (in the rung of namespaces).

mod bridges;
mod pairs;

use hostnet::facts::{AddrGenMode, Address, Ask, Facts, Route, TABLE_MAIN};
use hostnet::nft::{Chain, Command, Family, Hook, Rule, Set, Table, TableId, Transaction, ValueKind, priority};
use hostnet::op::{LinkChange, Master, NewLink, NewLinkKind, NewTap};
use hostnet::sysctl::Sysctl;
use hostnet::{Kernel, Op, Plan, apply, tear_down};

/// A sentence and what shows it, in a namespace that has a loopback, `net/ipv4/ip_forward` at 0 and nothing else.
pub(crate) type Case = (&'static str, fn(&mut dyn Kernel));

pub(crate) use bridges::CASES as BRIDGE_CASES;
pub(crate) use pairs::PAIR_CASES;

pub(crate) const CASES: &[Case] = &[
    ("names are unique among links of every kind", names_are_unique),
    ("what is not there cannot be changed or removed", absent_things),
    ("an address or route that is there cannot be added again", duplicates),
    ("a gateway must be reachable", gateways),
    ("a veth's ends go together and take what hangs on them", veth_ends),
    ("a group of links goes at once", groups),
    ("a transaction is all or nothing", transactions),
    ("a plan that succeeds is seen in the facts", success),
    ("a plan that fails leaves the facts as they were", failure),
    ("tearing down goes on past failures and reports them", tear_downs),
];

fn name(text: &str) -> terms::IfName {
    text.parse().unwrap()
}

fn tap(text: &str) -> Op {
    let set = LinkChange { addr_gen_mode: Some(AddrGenMode::None), ..LinkChange::up() };
    Op::CreateTap(NewTap { name: name(text), owner: 107, group: None, multi_queue: false, set })
}

fn veth(one: &str, other: &str) -> Op {
    Op::CreateLink(NewLink { name: name(one), kind: NewLinkKind::Veth { peer: name(other) }, set: LinkChange::up() })
}

fn address(link: &str, text: &str) -> Op {
    Op::AddAddress(Address::permanent(name(link), text.parse().unwrap()))
}

fn up(link: &str) -> Op {
    Op::SetLink { link: name(link), set: LinkChange::up() }
}

fn forwarding() -> Sysctl {
    Sysctl::net("ipv4/ip_forward")
}

fn table_id() -> TableId {
    TableId::new(Family::Inet, "tapvisor")
}

fn table() -> Table {
    let guard = Rule::named("guard").iifname(&name("tap0")).counter().drop();
    Table::new(Family::Inet, "tapvisor")
        .set(Set::new("ports", [ValueKind::Port]))
        .chain(Chain::filter("guard", Hook::Prerouting, priority::RAW).rule(guard))
}

fn gather(kernel: &mut dyn Kernel) -> Facts {
    kernel.gather(&Ask::network().with_sysctls([forwarding()]).with_tables([table_id()])).unwrap()
}

/// The facts without what the kernel makes by itself: numbers, and routes and addresses that were not requested.
fn essence(facts: &Facts) -> (Vec<String>, Vec<String>, Option<String>, usize) {
    let links = facts.links.iter().map(|link| format!("{} {} {:?}", link.name, link.up, link.alias)).collect();
    let addresses = facts.addresses.iter().map(|held| format!("{} {}", held.link, held.address));
    let addresses = addresses.filter(|words| !words.contains("fe80::")).collect();
    (links, addresses, facts.sysctl(&forwarding()).map(str::to_owned), facts.tables.len())
}

fn fails(kernel: &mut dyn Kernel, op: Op, errno: i32) {
    let failure = kernel.execute(std::slice::from_ref(&op)).unwrap_err();
    assert_eq!(failure.error.errno(), Some(errno), "{failure}: {}", failure.error);
    assert_eq!(failure.what, op.to_string());
}

fn names_are_unique(kernel: &mut dyn Kernel) {
    kernel.execute(&[tap("tap0"), veth("v0", "v1")]).unwrap();
    fails(kernel, tap("tap0"), libc::EEXIST);
    fails(kernel, veth("tap0", "v2"), libc::EEXIST);
    fails(kernel, veth("v2", "v1"), libc::EEXIST);
    let facts = gather(kernel);
    let mut names: Vec<_> = facts.links.iter().map(|link| link.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["lo", "tap0", "v0", "v1"]);
}

fn absent_things(kernel: &mut dyn Kernel) {
    let absent = [
        Op::DeleteLink { link: name("nope") },
        up("nope"),
        address("nope", "10.0.0.1/24"),
        Op::SetLink {
            link: name("lo"),
            set: LinkChange { master: Some(Master::Link(name("nope"))), ..LinkChange::default() },
        },
        Op::DeleteGroup { group: 77 },
        Op::DeleteAddress { link: name("lo"), address: "10.0.0.1/24".parse().unwrap() },
        Op::DeleteRoute(Route::by(name("lo"), "10.9.0.0/16".parse().unwrap())),
    ];
    for op in absent {
        let failure = kernel.execute(std::slice::from_ref(&op)).unwrap_err();
        assert!(failure.error.is_absent(), "{failure}: {}", failure.error);
    }
    fails(kernel, Op::WriteSysctl { key: Sysctl::net("ipv4/no_such_setting"), value: "1".to_owned() }, libc::ENOENT);
    kernel.execute(&[Op::Nft(Transaction::delete([table_id()]))]).unwrap();
}

fn duplicates(kernel: &mut dyn Kernel) {
    let route = Route::via(name("v0"), "10.9.0.0/16".parse().unwrap(), "10.0.0.2".parse().unwrap());
    kernel.execute(&[veth("v0", "v1"), up("v1"), address("v0", "10.0.0.1/24"), Op::AddRoute(route.clone())]).unwrap();
    fails(kernel, address("v0", "10.0.0.1/24"), libc::EEXIST);
    fails(kernel, Op::AddRoute(route.clone()), libc::EEXIST);
    kernel.execute(&[Op::ReplaceRoute(route.clone())]).unwrap();
    assert_eq!(gather(kernel).routes.iter().filter(|other| other.is_same_entry(&route)).count(), 1);
}

fn gateways(kernel: &mut dyn Kernel) {
    let via = |gateway: &str| Route::via(name("v0"), "10.9.0.0/16".parse().unwrap(), gateway.parse().unwrap());
    kernel.execute(&[veth("v0", "v1"), up("v1"), address("v0", "10.0.0.1/24")]).unwrap();
    fails(kernel, Op::AddRoute(via("192.0.2.1")), libc::ENETUNREACH);
    kernel.execute(&[Op::AddRoute(Route { onlink: true, ..via("192.0.2.1") })]).unwrap();
    kernel
        .execute(&[Op::SetLink { link: name("v0"), set: LinkChange { up: Some(false), ..LinkChange::default() } }])
        .unwrap();
    let facts = gather(kernel);
    assert_eq!(facts.routes_of(&name("v0")).filter(|route| route.table == TABLE_MAIN).count(), 0);
    fails(kernel, Op::AddRoute(Route::by(name("v0"), "10.8.0.0/16".parse().unwrap())), libc::ENETDOWN);
}

fn veth_ends(kernel: &mut dyn Kernel) {
    kernel.execute(&[veth("v0", "v1"), address("v1", "10.0.0.1/24")]).unwrap();
    kernel.execute(&[Op::DeleteLink { link: name("v0") }]).unwrap();
    let facts = gather(kernel);
    assert!(facts.link(&name("v1")).is_none());
    assert_eq!(facts.addresses_of(&name("v1")).count(), 0);
}

fn groups(kernel: &mut dyn Kernel) {
    let grouped =
        |link: &str| Op::SetLink { link: name(link), set: LinkChange { group: Some(7), ..LinkChange::default() } };
    kernel.execute(&[tap("tap0"), tap("svc0"), tap("other"), grouped("tap0"), grouped("svc0")]).unwrap();
    kernel.execute(&[Op::DeleteGroup { group: 7 }]).unwrap();
    let left = gather(kernel).links;
    assert_eq!(left.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["lo", "other"]);
}

fn transactions(kernel: &mut dyn Kernel) {
    let nowhere = Table::new(Family::Inet, "nowhere").chain(Chain::regular("a").rule(Rule::default().jump("b")));
    fails(kernel, Op::Nft(Transaction::add([table(), nowhere])), libc::ENOENT);
    assert!(gather(kernel).tables.is_empty());
    kernel.execute(&[Op::Nft(Transaction::add([table()]))]).unwrap();
    fails(kernel, Op::Nft(Transaction::add([table()])), libc::EEXIST);
    let rule = Command::AddRule { table: table_id(), chain: "guard".to_owned(), rule: Rule::named("more").accept() };
    kernel.execute(&[Op::Nft(Transaction { commands: vec![rule] })]).unwrap();
    let facts = gather(kernel);
    let rules = &facts.tables[0].chains[0].rules;
    assert_eq!(rules.len(), 2);
    let delete = Command::DeleteRule { table: table_id(), chain: "guard".to_owned(), handle: rules[0].handle };
    kernel.execute(&[Op::Nft(Transaction { commands: vec![delete] })]).unwrap();
    assert_eq!(gather(kernel).tables[0].chains[0].rules[0].comment.as_deref(), Some("more"));
    kernel.execute(&[Op::Nft(Transaction::replace([table()]))]).unwrap();
    assert_eq!(gather(kernel).tables[0].chains[0].rules[0].comment.as_deref(), Some("guard"));
}

fn plan(last: Op) -> Plan {
    let mark = Op::SetLink { link: name("tap0"), set: LinkChange::alias("mark") };
    let ops = vec![
        Op::WriteSysctl { key: forwarding(), value: "1".to_owned() },
        tap("tap0"),
        address("tap0", "10.0.2.1/24"),
        address("tap0", "fd10:0:2::1/120"),
        Op::SetLink {
            link: name("eth0"),
            set: LinkChange { mac: Some("02:00:00:00:00:07".parse().unwrap()), ..LinkChange::alias("ours") },
        },
        address("eth0", "10.244.0.9/32"),
        Op::Nft(Transaction::add([table()])),
        last,
        mark,
    ];
    Plan { ops }
}

fn pod(kernel: &mut dyn Kernel) -> Facts {
    kernel.execute(&[veth("eth0", "far"), up("far"), address("eth0", "10.244.0.5/24")]).unwrap();
    gather(kernel)
}

fn success(kernel: &mut dyn Kernel) {
    let before = pod(kernel);
    let plan = plan(Op::SetLink { link: name("eth0"), set: LinkChange { noarp: Some(true), ..LinkChange::default() } });
    apply(kernel, &before, &plan).unwrap();
    let after = gather(kernel);
    let tap = after.link(&name("tap0")).unwrap();
    assert_eq!((tap.alias.as_deref(), tap.up), (Some("mark"), true));
    assert_eq!(after.addresses_of(&tap.name).count(), 2);
    assert!(after.link(&name("eth0")).unwrap().noarp);
    assert_eq!(after.sysctl(&forwarding()), Some("1"));
    let expected = hostnet::nft::TableFacts::expected(&table(), &after).unwrap();
    assert_eq!(expected.differences(after.table(&table_id())), Vec::new());
}

fn failure(kernel: &mut dyn Kernel) {
    let before = pod(kernel);
    let error = apply(kernel, &before, &plan(address("eth0", "10.244.0.5/24"))).unwrap_err();
    assert_eq!(error.cause.what, "add address 10.244.0.5/24 to eth0");
    assert!(error.left.is_empty(), "{error}");
    let after = gather(kernel);
    assert_eq!(essence(&after), essence(&before));
    assert_eq!(after.link(&name("eth0")).unwrap().mac, before.link(&name("eth0")).unwrap().mac);
}

fn tear_downs(kernel: &mut dyn Kernel) {
    kernel.execute(&[tap("tap0")]).unwrap();
    let ops = [
        Op::DeleteLink { link: name("gone") },
        Op::WriteSysctl { key: Sysctl::net("ipv4/no_such_setting"), value: "0".to_owned() },
        Op::DeleteLink { link: name("tap0") },
    ];
    let failures = tear_down(kernel, &ops);
    assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [1]);
    assert!(gather(kernel).link(&name("tap0")).is_none());
}
