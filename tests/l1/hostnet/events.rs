//! What the kernel announces while `ip` changes a namespace, and which tables stand at a hook.

use std::time::Duration;

use hostnet::facts::NeighbourState;
use hostnet::nft::{Family, Hook, TableId};
use hostnet::{Event, Events, Linux};
use libtest_mimic::Trial;
use tests::{Ran, World, wait_for};

use super::{name, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("what changes in a namespace is announced, and nothing of another one", announced),
        // spec: EXPL-11
        trial("a listener that was too slow is told that it missed something", missed),
        trial("the tables at a hook are found, of any owner and family", tables_at_hook),
    ]
}

/// Takes announcements until one is as wanted.
fn wait_event(events: &mut Events, what: &str, is_it: impl Fn(&Event) -> bool) -> Event {
    let taken = || events.take().unwrap().into_iter().find(&is_it);
    wait_for(what, Duration::from_secs(60), taken).0
}

fn announced() {
    let world = World::bare();
    let (ns, other) = (world.ns("pod"), world.ns("other"));
    let mut events = ns.enter(|| Events::here().unwrap());
    other.run(&["ip", "link", "add", "br-other", "type", "bridge"]).assert_ok();
    ns.run(&["ip", "link", "add", "br0", "mtu", "1400", "type", "bridge"]).assert_ok();
    let made =
        wait_event(&mut events, "a link", |event| matches!(event, Event::Link(link) if link.name == name("br0")));
    assert_eq!(made.to_string(), "link br0 is down, MTU 1400");
    ns.sh("ip link add v0 type veth peer name v1; ip link set v1 up; ip link set v0 up master br0").assert_ok();
    let is_port =
        |event: &Event| matches!(event, Event::Link(link) if link.master == Some(name("br0")) && link.carrier);
    let _ = wait_event(&mut events, "a port with a carrier", is_port);
    ns.run(&["ip", "addr", "add", "192.0.2.1/24", "dev", "v1"]).assert_ok();
    let address = wait_event(
        &mut events,
        "an address",
        |event| matches!(event, Event::Address(held) if held.link == name("v1") && held.address.is_ipv4()),
    );
    assert_eq!(address.to_string(), "address 192.0.2.1/24 on v1");
    ns.run(&["ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.9"]).assert_ok();
    let is_route = |event: &Event| event.to_string() == "route 198.51.100.0/24 via 192.0.2.9 dev v1";
    let _ = wait_event(&mut events, "a route", is_route);
    let _ = ns.run(&["ping", "-c", "1", "-W", "1", "192.0.2.77"]);
    let _ = wait_event(
        &mut events,
        "a neighbour that does not exist",
        |event| matches!(event, Event::Neighbour(one) if one.state == NeighbourState::Failed && one.address.to_string() == "192.0.2.77"),
    );
    ns.run(&["ip", "route", "del", "198.51.100.0/24"]).assert_ok();
    let _ = wait_event(&mut events, "the route's end", |event| matches!(event, Event::RouteGone(_)));
    ns.run(&["ip", "link", "del", "v0"]).assert_ok();
    let mut seen = Vec::new();
    wait_for("the links' end", Duration::from_secs(60), || {
        seen.extend(events.take().unwrap());
        let gone =
            |wanted: &str| seen.iter().any(|event| matches!(event, Event::LinkGone(link) if link.name == name(wanted)));
        (gone("v0") && gone("v1")).then_some(())
    });
    assert!(!seen.iter().any(|event| event.to_string().contains("br-other")), "{seen:?}");
}

fn missed() {
    let world = World::bare();
    let ns = world.ns("pod");
    let mut events = ns.enter(|| Events::here().unwrap());
    ns.sh("ip link add old type bridge; for i in {1..2000}; do echo link set lo mtu $((1500 + i)); done | ip -batch -
        ip link set old name new; ip link add later type bridge")
        .assert_ok();
    assert!(events.take().unwrap().contains(&Event::Missed));
    // Links that were renamed or made in the gap are known by the names they have.
    ns.run(&["ip", "addr", "add", "192.0.2.1/24", "dev", "new"]).assert_ok();
    let named = |event: &Event| matches!(event, Event::Address(held) if held.link == name("new"));
    let _ = wait_event(&mut events, "an address on a link renamed in the gap", named);
    ns.run(&["ip", "addr", "add", "192.0.2.2/24", "dev", "later"]).assert_ok();
    let named = |event: &Event| matches!(event, Event::Address(held) if held.link == name("later"));
    let _ = wait_event(&mut events, "an address on a link made in the gap", named);
    ns.run(&["ip", "link", "set", "lo", "mtu", "9000"]).assert_ok();
    let _ = wait_event(
        &mut events,
        "news after that",
        |event| matches!(event, Event::Link(link) if link.mtu_bytes == 9000),
    );
}

fn tables_at_hook() {
    let world = World::bare();
    let ns = world.ns("pod");
    let at = |hooks: &[Hook]| ns.enter(|| Linux::here().tables_at(hooks).unwrap());
    let find = || at(&[Hook::Forward]);
    assert_eq!(find(), []);
    let tables = "table inet mine { chain any { type filter hook forward priority 0; policy drop; }; }
        table ip other { chain input { type filter hook input priority 0; }; }
        table netdev dev { chain lo { type filter hook ingress device lo priority 0; }; }\n";
    Ran::with_input(ns.command("nft").args(["-f", "-"]), tables.as_bytes()).assert_ok();
    ns.sh("iptables -P FORWARD DROP; ip6tables -A FORWARD -j ACCEPT").assert_ok();
    let wanted = [(Family::Inet, "mine"), (Family::Ip, "filter"), (Family::Ip6, "filter")];
    assert_eq!(find(), wanted.map(|(family, name)| TableId::new(family, name)));
    let input = TableId::new(Family::Ip, "other");
    assert_eq!(at(&[Hook::Input]), std::slice::from_ref(&input));
    assert_eq!(at(&[Hook::Forward, Hook::Input]).len(), wanted.len() + 1);
}
