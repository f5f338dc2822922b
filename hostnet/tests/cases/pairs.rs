//! Plans over two namespaces.

use hostnet::facts::{Address, Ask, Route};
use hostnet::op::{LinkChange, Master, NewLink, NewLinkKind, PeerSettings, PortChange};
use hostnet::pair::{apply, tear_down, undo};
use hostnet::sysctl::Sysctl;
use hostnet::{Both, KernelPair, Op, PairFacts, PairPlan, Place, Step};

use super::name;

/// A sentence and what shows it, between two namespaces that have a loopback and `net/ipv4/ip_forward` at 0.
pub(crate) type PairCase = (&'static str, fn(&mut dyn KernelPair));
pub(crate) const PAIR_CASES: &[PairCase] = &[
    ("a cable across is seen from both sides and goes from either", cable),
    ("a link moves under a new name, down and bare, and back", moved),
    ("a name that is taken stops a move and a cable", taken),
    ("a plan over both that fails leaves both as they were", failure),
    ("a bridge that another link joined stays when its plan is undone", joined),
    ("tearing down goes on past failures in both", tear_downs),
];

fn across(own: &str, peer: &str, set: LinkChange) -> Op {
    let mac = Some("02:00:00:00:00:09".parse().unwrap());
    let peer =
        NewLinkKind::VethAcross { peer: name(peer), set: PeerSettings { mac, mtu: Some(1400.try_into().unwrap()) } };
    Op::CreateLink(NewLink { name: name(own), kind: peer, set })
}

fn bridge() -> Op {
    Op::CreateLink(NewLink { name: name("br0"), kind: NewLinkKind::Bridge, set: LinkChange::up() })
}

fn port() -> LinkChange {
    LinkChange {
        master: Some(Master::Link(name("br0"))),
        port: Some(PortChange { hairpin: Some(true), isolated: None }),
        ..LinkChange::up()
    }
}

fn up(link: &str) -> Op {
    Op::SetLink { link: name(link), set: LinkChange::up() }
}

fn address(link: &str, text: &str) -> Op {
    Op::AddAddress(Address::permanent(name(link), text.parse().unwrap()))
}

fn forwarding() -> Sysctl {
    Sysctl::net("ipv4/ip_forward")
}

fn gather(kernels: &mut dyn KernelPair) -> PairFacts {
    let ask = || Ask { bridging: true, ..Ask::network().with_sysctls([forwarding()]) };
    kernels.gather(&Both { host: ask(), pod: ask() }).unwrap()
}

/// Names of links, addresses and the setting of each place, without what the kernel makes by itself.
fn essence(facts: &PairFacts) -> Vec<String> {
    let mut all = Vec::new();
    for place in [Place::Host, Place::Pod] {
        let facts = facts.at(place);
        all.extend(facts.links.iter().map(|link| format!("{place} {} {} {:?}", link.name, link.up, link.master)));
        let addresses = facts.addresses.iter().map(|held| format!("{place} {} {}", held.link, held.address));
        all.extend(addresses.filter(|words| !words.contains("fe80::")));
        let routes = facts.routes.iter().filter(|route| route.gateway.is_some());
        all.extend(routes.map(|route| format!("{place} {} {:?}", route.destination, route.gateway)));
        all.extend(facts.sysctl(&forwarding()).map(str::to_owned));
    }
    all.sort();
    all
}

fn cable(kernels: &mut dyn KernelPair) {
    let steps = [Step::host(bridge()), Step::host(across("v0", "eth0", port())), Step::pod(up("eth0"))];
    kernels.execute(&steps).unwrap();
    let facts = gather(kernels);
    let (near, far) = (facts.host.link(&name("v0")).unwrap(), facts.pod.link(&name("eth0")).unwrap());
    assert_eq!((near.peer_index, far.peer_index), (Some(far.index), Some(near.index)));
    assert!(near.peer_netns.is_some() && far.peer_netns.is_some());
    assert_eq!((far.mac, far.mtu_bytes, far.up), (Some("02:00:00:00:00:09".parse().unwrap()), 1400, true));
    assert_eq!((near.master.clone(), near.port.unwrap().hairpin), (Some(name("br0")), true));
    kernels.execute(&[Step::pod(Op::DeleteLink { link: name("eth0") })]).unwrap();
    assert!(gather(kernels).host.link(&name("v0")).is_none());
    kernels.execute(&[Step::host(across("v0", "eth0", port()))]).unwrap();
    kernels.execute(&[Step::host(Op::DeleteLink { link: name("v0") })]).unwrap();
    assert!(gather(kernels).pod.link(&name("eth0")).is_none());
}

fn moved(kernels: &mut dyn KernelPair) {
    let veth = |own: &str, peer: &str| {
        Op::CreateLink(NewLink { name: name(own), kind: NewLinkKind::Veth { peer: name(peer) }, set: LinkChange::up() })
    };
    kernels.execute(&[Step::host(veth("v0", "v1")), Step::host(address("v0", "10.0.0.1/24"))]).unwrap();
    kernels.execute(&[Step::host(Op::MoveLink { link: name("v0"), name: name("net1") })]).unwrap();
    let facts = gather(kernels);
    assert!(facts.host.link(&name("v0")).is_none());
    let link = facts.pod.link(&name("net1")).unwrap();
    assert_eq!((link.up, link.master.clone(), facts.pod.addresses_of(&name("net1")).count()), (false, None, 0));
    assert_eq!(link.peer_index, facts.host.link(&name("v1")).map(|peer| peer.index));
    kernels.execute(&[Step::pod(Op::MoveLink { link: name("net1"), name: name("v0") })]).unwrap();
    let facts = gather(kernels);
    assert!(facts.host.link(&name("v0")).unwrap().peer_netns.is_none());
    kernels.execute(&[Step::host(Op::DeleteLink { link: name("v0") })]).unwrap();
    assert!(gather(kernels).host.link(&name("v1")).is_none());
}

fn taken(kernels: &mut dyn KernelPair) {
    kernels.execute(&[Step::host(across("v0", "eth0", LinkChange::up()))]).unwrap();
    kernels.execute(&[Step::host(bridge())]).unwrap();
    let attempts = [across("v9", "eth0", LinkChange::up()), across("v0", "eth9", LinkChange::up())];
    for op in attempts {
        let failure = kernels.execute(&[Step::host(op)]).unwrap_err();
        assert_eq!(failure.error.errno(), Some(libc::EEXIST), "{failure}");
    }
    kernels.execute(&[Step::host(across("v1", "eth1", LinkChange::up()))]).unwrap();
    let failure = kernels.execute(&[Step::host(Op::MoveLink { link: name("v1"), name: name("eth0") })]).unwrap_err();
    assert_eq!(failure.error.errno(), Some(libc::EEXIST), "{failure}");
    let bridge = kernels.execute(&[Step::host(Op::MoveLink { link: name("br0"), name: name("br0") })]).unwrap_err();
    assert_eq!(bridge.error.errno(), Some(libc::EINVAL), "{bridge}");
}

fn failure(kernels: &mut dyn KernelPair) {
    let nic = NewLink { name: name("nic"), kind: NewLinkKind::Veth { peer: name("wire") }, set: LinkChange::up() };
    let route = Route::via(name("nic"), "10.9.0.0/16".parse().unwrap(), "192.0.2.1".parse().unwrap());
    let before = [bridge(), Op::CreateLink(nic), up("wire"), address("nic", "192.0.2.2/24"), Op::AddRoute(route)];
    kernels.execute(&before.map(Step::host)).unwrap();
    let before = gather(kernels);
    let steps = vec![
        Step::host(Op::WriteSysctl { key: forwarding(), value: "1".to_owned() }),
        Step::host(across("v0", "eth0", port())),
        Step::host(address("br0", "10.77.0.1/24")),
        Step::pod(up("eth0")),
        Step::pod(address("eth0", "10.77.0.5/24")),
        Step::host(Op::MoveLink { link: name("nic"), name: name("net1") }),
        Step::pod(up("net1")),
        Step::pod(up("nope")),
        Step::host(up("wire")),
    ];
    let error = apply(kernels, &before, &PairPlan { steps }).unwrap_err();
    assert_eq!((error.cause.index, error.cause.what.as_str()), (7, "set up of link nope in the pod"));
    assert!(error.left.is_empty(), "{error}");
    assert_eq!(essence(&gather(kernels)), essence(&before));
}

fn joined(kernels: &mut dyn KernelPair) {
    let veth = |own: &str, peer: &str, set: LinkChange| {
        Op::CreateLink(NewLink { name: name(own), kind: NewLinkKind::Veth { peer: name(peer) }, set })
    };
    let before = gather(kernels);
    let steps = vec![
        Step::host(bridge()),
        Step::host(veth("g0", "g1", LinkChange::up())),
        Step::host(Op::SetLink { link: name("g1"), set: port() }),
        Step::host(across("v0", "eth0", port())),
        Step::host(address("br0", "10.77.0.1/24")),
    ];
    let plan = PairPlan { steps };
    // The plan's own ports keep no bridge.
    kernels.execute(&plan.steps).unwrap();
    assert_eq!(undo(kernels, &before, &plan).unwrap(), Vec::<String>::new());
    assert_eq!(essence(&gather(kernels)), essence(&before));
    kernels.execute(&plan.steps).unwrap();
    kernels.execute(&[Step::host(veth("w0", "w1", port()))]).unwrap();
    assert_eq!(undo(kernels, &before, &plan).unwrap(), ["br0 stays: w0 joined it meanwhile"]);
    let facts = gather(kernels).host;
    let mut names: Vec<_> = facts.links.iter().map(|link| link.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["br0", "lo", "w0", "w1"]);
    assert_eq!(facts.link(&name("w0")).unwrap().master, Some(name("br0")));
    assert!(facts.addresses_of(&name("br0")).any(|held| held.address.to_string() == "10.77.0.1/24"));
}

fn tear_downs(kernels: &mut dyn KernelPair) {
    kernels.execute(&[Step::host(across("v0", "eth0", LinkChange::up()))]).unwrap();
    let steps = [
        Step::pod(Op::DeleteLink { link: name("gone") }),
        Step::host(Op::WriteSysctl { key: Sysctl::net("ipv4/no_such_setting"), value: "0".to_owned() }),
        Step::pod(Op::DeleteLink { link: name("eth0") }),
        Step::host(Op::DeleteLink { link: name("v0") }),
    ];
    let failures = tear_down(kernels, &steps);
    assert_eq!(failures.iter().map(|failure| failure.index).collect::<Vec<_>>(), [1]);
}
