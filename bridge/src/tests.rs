//! The whole of ADD and CHECK over two fake namespaces, broken at every step.

use std::collections::BTreeMap;

use cni_protocol::plugin::{Args, NetConf};
use cni_protocol::spec::{CniResult, Version};
use hostnet::facts::{Facts, Link, LinkKind};
use hostnet::sysctl::Sysctl;
use hostnet::{Both, FakePair, KernelPair as _, Op, PairFacts, Step};
use serde_json::{Value, json};
use terms::{IfName, MacAddr};

use super::conf::Conf;
use super::desired::{Desired, Ends};
use super::error::BridgeError;
use super::plan::NewMacs;
use super::verbs;

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn conf(own: &Value) -> Conf {
    let mut conf = json!({"cniVersion": "1.0.0", "name": "net"});
    if own.get("pointToPoint").is_none() {
        conf["bridge"] = "br0".into();
    }
    conf.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    let mut version = Version::NEWEST;
    let conf = NetConf::parse(conf.to_string().into_bytes(), &mut version).unwrap();
    Conf::read(&conf, &Args::default()).unwrap()
}

fn namespace() -> Facts {
    let lo = Link::new(1, name("lo"), LinkKind::Loopback);
    let settings = ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/default/disable_ipv6"];
    let sysctls = settings.map(|setting| (Sysctl::net(setting), Some("0".to_owned())));
    Facts { links: vec![lo], sysctls: BTreeMap::from(sysctls), ..Facts::default() }
}

fn empty() -> PairFacts {
    Both { host: namespace(), pod: namespace() }
}

fn macs() -> NewMacs {
    let mac = |last| MacAddr::local([0, 0, 0, 0, last]);
    NewMacs { bridge: mac(1), host_end: mac(2), gateway: mac(3) }
}

fn addresses() -> CniResult {
    let document = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.77.0.5/24"}, {"address": "fd77::5/64"}]});
    CniResult::from_document(&document, Version::V1_0_0).unwrap()
}

fn ends(number: u8) -> Ends {
    let pod_mac = MacAddr::local([0, 0, 0, 9, number]);
    Ends { host_end: name(&format!("veth{number}")), pod_end: name(&format!("eth{number}")), pod_mac }
}

/// ADD of one more attachment; gives what CHECK is given.
fn add(kernels: &mut FakePair, conf: &Conf, number: u8, mut ipam: CniResult) -> Result<CniResult, BridgeError> {
    let desired = Desired::of(conf, ends(number), &mut ipam)?;
    verbs::refuse_occupied(kernels, &desired.pod_end)?;
    verbs::add(kernels, &desired, ipam, ("/run/netns/pod", &macs()), |_| Ok(()))
}

/// Makes what is shared alone.
fn make_shared(kernels: &mut FakePair, conf: &Conf) -> Result<(), BridgeError> {
    let mut ipam = addresses();
    verbs::make_shared(kernels, &Desired::of(conf, ends(0), &mut ipam)?, &macs())
}

fn check(kernels: &mut FakePair, conf: &Conf, number: u8, mut made: CniResult) -> Result<(), BridgeError> {
    let desired = Desired::of(conf, ends(number), &mut made)?;
    verbs::check(kernels, &desired)
}

fn everything() -> Conf {
    conf(
        &json!({"isDefaultGateway": true, "ipMasq": true, "macspoofchk": true, "hairpinMode": true, "portIsolation": true,
        "mtu": 1400, "vlan": 7, "vlanTrunk": [{"minID": 100, "maxID": 110}], "preserveDefaultVlan": true,
        "multicastQuerier": true, "ageingTimeSeconds": 60}),
    )
}

fn cable() -> Conf {
    conf(&json!({"pointToPoint": true, "isDefaultGateway": true, "ipMasq": true, "ipam": {"type": "host-local"}}))
}

// spec: L2-CABLE
#[test]
fn without_a_bridge_the_host_routes_to_each_pod_by_its_own_cable() {
    let conf = cable();
    let mut kernels = FakePair::new(empty());
    let made = add(&mut kernels, &conf, 0, addresses()).unwrap();
    let facts = kernels.facts();
    let words = |facts: &Facts| {
        let addresses = facts.addresses.iter().map(|held| format!("{} {}", held.link, held.address));
        addresses.chain(facts.routes.iter().map(ToString::to_string)).collect::<Vec<_>>()
    };
    assert_eq!(
        words(&facts.host),
        ["veth0 10.77.0.1/32", "veth0 fd77::1/128", "route 10.77.0.5/32 dev veth0", "route fd77::5/128 dev veth0",]
    );
    assert_eq!(
        words(&facts.pod),
        [
            "eth0 10.77.0.5/24",
            "eth0 fd77::5/64",
            "route 10.77.0.1/32 dev eth0",
            "route 10.77.0.0/24 via 10.77.0.1 dev eth0",
            "route fd77::1/128 dev eth0",
            "route fd77::/64 via fd77::1 dev eth0",
            "route 0.0.0.0/0 via 10.77.0.1 dev eth0",
            "route ::/0 via fd77::1 dev eth0",
        ]
    );
    let names: Vec<_> = made.interfaces.iter().map(|link| link.name.as_str()).collect();
    assert_eq!((names, made.ips[1].interface), (vec!["veth0", "eth0"], Some(1)));
    check(&mut kernels, &conf, 0, made.clone()).unwrap();
    for (op, expected) in [
        (Op::DeleteRoute(facts.host.routes[1].clone()), "the host has no route fd77::5/128"),
        (
            Op::DeleteAddress { link: name("veth0"), address: "10.77.0.1/32".parse().unwrap() },
            "the host's end veth0 has no address 10.77.0.1/32",
        ),
    ] {
        let mut broken = kernels.clone();
        broken.execute(&[Step::host(op)]).unwrap();
        let error = check(&mut broken, &conf, 0, made.clone()).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

// spec: L2-PLAN
#[test]
fn an_add_that_is_broken_at_any_step_leaves_at_most_what_is_shared() {
    for conf in [conf(&json!({})), conf(&json!({"isGateway": true, "ipMasq": true})), everything(), cable()] {
        let steps = {
            let mut kernels = FakePair::new(empty());
            add(&mut kernels, &conf, 0, addresses()).unwrap();
            kernels.steps()
        };
        let mut shared = FakePair::new(empty());
        make_shared(&mut shared, &conf).unwrap();
        assert!(shared.steps() > 0 && steps > shared.steps() + 4, "{steps}");
        for step in 0..steps {
            let mut kernels = FakePair::new(empty()).failing_after(step);
            let error = add(&mut kernels, &conf, 0, addresses()).unwrap_err();
            assert!(matches!(&error, BridgeError::Apply(error) if error.left.is_empty()), "step {step}: {error}");
            let before = if step < shared.steps() { empty() } else { shared.facts() };
            assert_eq!(kernels.facts(), before, "step {step}");
        }
    }
}

/// A pair of namespaces in which another program joins the bridge just before the step that fails.
struct Joined(FakePair, usize);

impl hostnet::KernelPair for Joined {
    fn gather(&mut self, ask: &Both<hostnet::Ask>) -> Result<PairFacts, hostnet::KernelError> {
        self.0.gather(ask)
    }

    fn execute(&mut self, steps: &[Step]) -> Result<(), hostnet::Failure> {
        let outcome = self.0.execute(steps);
        if outcome.is_err() && self.1 == 0 {
            let join = hostnet::op::LinkChange {
                master: Some(hostnet::op::Master::Link(name("br0"))),
                ..hostnet::op::LinkChange::up()
            };
            let kind = hostnet::op::NewLinkKind::Veth { peer: name("far") };
            let port = hostnet::op::NewLink { name: name("other"), kind, set: join };
            self.0.execute(&[Step::host(Op::CreateLink(port))]).unwrap();
            self.1 = 1;
        }
        outcome
    }
}

// spec: L2-SHARED-1
#[test]
fn a_bridge_that_another_joined_stays_when_its_add_fails() {
    for conf in [conf(&json!({"isGateway": true, "ipMasq": true})), everything()] {
        let mut shared = FakePair::new(empty());
        make_shared(&mut shared, &conf).unwrap();
        // With the first step the bridge is there.
        for step in 1..shared.steps() {
            let mut kernels = Joined(FakePair::new(empty()).failing_after(step), 0);
            let mut ipam = addresses();
            let desired = Desired::of(&conf, ends(0), &mut ipam).unwrap();
            let error = verbs::make_shared(&mut kernels, &desired, &macs()).unwrap_err();
            let BridgeError::Apply(error) = error else { panic!("step {step}: {error}") };
            assert_eq!(error.left, ["br0 stays: other joined it meanwhile"], "step {step}");
            let facts = kernels.0.facts().host;
            assert_eq!(facts.link(&name("other")).unwrap().master, Some(name("br0")), "step {step}");
            // The next call makes what is missing.
            let made = add(&mut kernels.0, &conf, 0, addresses()).unwrap();
            check(&mut kernels.0, &conf, 0, made).unwrap();
        }
    }
}

// spec: L2-SHARED-2
#[test]
fn what_a_killed_add_left_of_the_shared_part_is_completed() {
    for conf in [conf(&json!({})), conf(&json!({"isGateway": true, "ipMasq": true})), everything()] {
        let mut whole = FakePair::new(empty());
        add(&mut whole, &conf, 0, addresses()).unwrap();
        let mut shared = FakePair::new(empty());
        make_shared(&mut shared, &conf).unwrap();
        let mut ipam = addresses();
        let desired = Desired::of(&conf, ends(0), &mut ipam).unwrap();
        let ops = super::plan::shared(&desired, &empty().host, &macs()).unwrap();
        let steps: Vec<_> = ops.into_iter().map(Step::host).collect();
        assert_eq!(steps.len(), shared.steps());
        for killed_after in 1..steps.len() {
            let mut kernels = FakePair::new(empty());
            kernels.execute(&steps[..killed_after]).unwrap();
            add(&mut kernels, &conf, 0, addresses()).unwrap();
            assert_eq!(kernels.facts(), whole.facts(), "killed after step {killed_after}");
        }
    }
}

// spec: L2-SHARED-1
#[test]
fn one_call_makes_what_is_shared_while_no_other_builds_on_it() {
    let conf = everything();
    let mut kernels = FakePair::new(empty());
    for (number, expected) in [(0, "Shared Exclusive Shared"), (1, "Shared")] {
        let mut ipam = addresses();
        let desired = Desired::of(&conf, ends(number), &mut ipam).unwrap();
        let held = std::cell::RefCell::new(Vec::new());
        let hold = |kind| {
            held.borrow_mut().push(format!("{kind:?}"));
            Ok(())
        };
        let added = verbs::add(&mut kernels, &desired, CniResult::default(), ("/run/netns/pod", &macs()), hold);
        added.unwrap();
        assert_eq!(held.take().join(" "), expected);
    }
}

// spec: L2-CHECK
#[test]
fn check_passes_after_add_and_names_what_is_not_as_it_was_made() {
    let conf = everything();
    let mut kernels = FakePair::new(empty());
    let made = add(&mut kernels, &conf, 0, addresses()).unwrap();
    check(&mut kernels, &conf, 0, made.clone()).unwrap();
    let down = hostnet::op::LinkChange { up: Some(false), ..Default::default() };
    let off = hostnet::op::PortChange { isolated: Some(false), ..Default::default() };
    let off = hostnet::op::LinkChange { port: Some(off), ..Default::default() };
    let breakages = [
        (Step::pod(Op::DeleteLink { link: name("eth0") }), "eth0 is not in the pod"),
        (Step::pod(Op::SetLink { link: name("eth0"), set: down }), "eth0 is down"),
        (Step::host(Op::SetLink { link: name("veth0"), set: off }), "isolated of the host's end veth0"),
        (Step::host(Op::DeleteLink { link: name("br0") }), "bridge br0 is not there"),
        (Step::host(Op::DeleteLink { link: name("br0.7") }), "br0.7 has no address 10.77.0.1/24"),
        (
            Step::pod(Op::DeleteAddress { link: name("eth0"), address: "10.77.0.5/24".parse().unwrap() }),
            "eth0 has no address 10.77.0.5/24",
        ),
    ];
    for (step, expected) in breakages {
        let mut broken = kernels.clone();
        broken.execute(&[step]).unwrap();
        let error = check(&mut broken, &conf, 0, made.clone()).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn the_second_attachment_changes_nothing_that_both_share() {
    let conf = everything();
    let mut kernels = FakePair::new(empty());
    add(&mut kernels, &conf, 0, addresses()).unwrap();
    let bridge = kernels.facts().host.link(&name("br0")).cloned();
    let mut other = addresses();
    other.ips[0].address = "10.77.0.6/24".parse().unwrap();
    other.ips[1].address = "fd77::6/64".parse().unwrap();
    let result = add(&mut kernels, &conf, 1, other).unwrap();
    assert_eq!(kernels.facts().host.link(&name("br0")).cloned(), bridge);
    assert_eq!(result.interfaces[0].mac, macs().bridge.to_string());
    assert_eq!(kernels.facts().host.addresses_of(&name("br0.7")).count(), 2);
    let error = add(&mut kernels, &conf, 1, addresses()).unwrap_err().to_string();
    assert_eq!(error, "eth1 is in the pod already: it was not made by this call");
}

// spec: L2-GATEWAY
#[test]
fn another_address_of_the_bridge_stops_add_or_is_replaced() {
    let mut kernels = FakePair::new(empty());
    add(&mut kernels, &conf(&json!({"isGateway": true})), 0, addresses()).unwrap();
    let mut other = addresses();
    other.ips.truncate(1);
    other.ips[0].address = "10.88.0.5/24".parse().unwrap();
    let refused = add(&mut kernels, &conf(&json!({"isGateway": true})), 1, other.clone()).unwrap_err().to_string();
    assert!(refused.contains("10.77.0.1/24 instead of the gateway's 10.88.0.1/24"), "{refused}");
    add(&mut kernels, &conf(&json!({"isGateway": true, "forceAddress": true})), 1, other).unwrap();
    let held: Vec<_> = kernels.facts().host.addresses.iter().map(|held| held.address.to_string()).collect();
    assert_eq!(held, ["fd77::1/64", "10.88.0.1/24"]);
}

#[test]
fn what_no_plan_can_make_is_refused_by_name() {
    let mut kernels = FakePair::new(empty());
    let link =
        hostnet::op::NewLink { name: name("br0"), kind: hostnet::op::NewLinkKind::Dummy, set: Default::default() };
    kernels.execute(&[Step::host(Op::CreateLink(link))]).unwrap();
    let error = add(&mut kernels, &conf(&json!({})), 0, addresses()).unwrap_err().to_string();
    assert_eq!(error, "br0 is on the host already, but is no bridge");
    let small = conf(&json!({"mtu": 1000}));
    let error = add(&mut FakePair::new(empty()), &small, 0, addresses()).unwrap_err().to_string();
    assert_eq!(error, "mtu 1000: the pod has IPv6 addresses, which need at least 1280");
    let mut plain = FakePair::new(empty());
    add(&mut plain, &conf(&json!({})), 0, CniResult::default()).unwrap();
    let error = add(&mut plain, &conf(&json!({"vlan": 7})), 1, CniResult::default()).unwrap_err().to_string();
    assert!(error.starts_with("bridge br0 has no VLAN filtering"), "{error}");
}

#[test]
fn forwarding_keeps_routes_of_router_advertisements() {
    let mut facts = empty();
    let uplink = Link { up: true, ..Link::new(2, name("uplink0"), LinkKind::Physical) };
    facts.host.links.push(uplink);
    let route = hostnet::facts::Route {
        protocol: hostnet::facts::RouteProtocol::RouterAdvertisement,
        ..hostnet::facts::Route::via(name("uplink0"), "::/0".parse().unwrap(), "fe80::1".parse().unwrap())
    };
    facts.host.routes.push(route);
    let key = Sysctl::ipv6_conf(&name("uplink0"), "accept_ra");
    facts.host.sysctls.insert(key.clone(), Some("1".to_owned()));
    let mut kernels = FakePair::new(facts.clone());
    add(&mut kernels, &conf(&json!({"isGateway": true})), 0, addresses()).unwrap();
    assert_eq!(kernels.facts().host.sysctl(&key), Some("2"));
    let mut shared = FakePair::new(facts.clone());
    make_shared(&mut shared, &conf(&json!({"isGateway": true}))).unwrap();
    let mut broken = FakePair::new(facts.clone()).failing_after(shared.steps() - 1);
    make_shared(&mut broken, &conf(&json!({"isGateway": true}))).unwrap_err();
    assert_eq!(broken.facts().host, facts.host);
}

#[test]
fn a_pod_without_addresses_is_joined_and_may_stay_down() {
    let mut kernels = FakePair::new(empty());
    let plain = conf(&json!({}));
    let made = add(&mut kernels, &plain, 0, CniResult::default()).unwrap();
    check(&mut kernels, &plain, 0, made).unwrap();
    let down = conf(&json!({"disableContainerInterface": true}));
    let made = add(&mut kernels, &down, 1, CniResult::default()).unwrap();
    assert!(kernels.facts().pod.link(&name("eth0")).unwrap().up);
    assert!(!kernels.facts().pod.link(&name("eth1")).unwrap().up);
    check(&mut kernels, &down, 1, made).unwrap();
}

/// A host with a link that no program uses.
fn with_uplink() -> PairFacts {
    let mut facts = empty();
    facts.host.links.push(Link::new(7, name("lan0"), LinkKind::Physical));
    facts
}

// spec: L2-UPLINK-1
#[test]
fn an_uplink_joins_the_bridge_in_the_vlans_of_its_attachments() {
    let plain = conf(&json!({"uplink": "lan0"}));
    let mut kernels = FakePair::new(with_uplink());
    let made = add(&mut kernels, &plain, 0, addresses()).unwrap();
    let link = kernels.facts().host.link(&name("lan0")).cloned().unwrap();
    assert_eq!((link.master, link.up), (Some(name("br0")), true));
    check(&mut kernels, &plain, 0, made.clone()).unwrap();
    let out = hostnet::op::LinkChange { master: Some(hostnet::op::Master::None), ..Default::default() };
    for (op, expected) in [
        (Op::SetLink { link: name("lan0"), set: out }, "uplink lan0 is not in bridge br0"),
        (Op::DeleteLink { link: name("lan0") }, "uplink lan0 is not there"),
    ] {
        let mut broken = kernels.clone();
        broken.execute(&[Step::host(op)]).unwrap();
        let error = check(&mut broken, &plain, 0, made.clone()).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let tagged = json!({"uplink": "lan0", "vlan": 105, "vlanTrunk": [{"minID": 100, "maxID": 110}]});
    let tagged = conf(&tagged);
    let mut kernels = FakePair::new(with_uplink());
    let made = add(&mut kernels, &tagged, 0, CniResult::default()).unwrap();
    let held: Vec<_> = kernels.facts().host.vlans_of(&name("lan0")).map(ToString::to_string).collect();
    let holds = |id: u64| kernels.facts().host.vlans_of(&name("lan0")).any(|held| held.holds(id.try_into().unwrap()));
    assert!((100..=110).all(holds) && !holds(99) && !holds(111), "{held:?}");
    check(&mut kernels, &tagged, 0, made).unwrap();
}

// spec: L2-UPLINK-1
#[test]
fn an_add_with_an_uplink_that_is_broken_leaves_the_uplink_as_it_was() {
    let conf = conf(&json!({"uplink": "lan0", "vlan": 7}));
    let mut whole = FakePair::new(with_uplink());
    make_shared(&mut whole, &conf).unwrap();
    for broken_at in 0..whole.steps() {
        let mut kernels = FakePair::new(with_uplink()).failing_after(broken_at);
        make_shared(&mut kernels, &conf).unwrap_err();
        assert_eq!(kernels.facts(), with_uplink(), "step {broken_at}");
    }
}

// spec: L2-UPLINK-2
#[test]
fn an_uplink_that_cannot_be_joined_safely_is_refused_by_name() {
    let refused = |own: Value, facts: PairFacts| {
        let error = add(&mut FakePair::new(facts.clone()), &conf(&own), 0, CniResult::default()).unwrap_err();
        error.to_string()
    };
    let plain = || json!({"uplink": "lan0"});
    assert_eq!(refused(plain(), empty()), "uplink lan0 is not on the host");
    let large = json!({"uplink": "lan0", "mtu": 9000});
    assert!(refused(large, with_uplink()).starts_with("mtu 9000: uplink lan0 passes at most 1500 bytes"));
    let mut facts = with_uplink();
    let address = hostnet::facts::Address::permanent(name("lan0"), "192.0.2.2/24".parse().unwrap());
    facts.host.addresses.push(address);
    assert!(
        refused(plain(), facts).starts_with("uplink lan0 has address 192.0.2.2/24, which nothing would answer for")
    );
    let mut facts = with_uplink();
    facts.host.routes.push(hostnet::facts::Route::by(name("lan0"), "198.51.100.0/24".parse().unwrap()));
    assert!(refused(plain(), facts).starts_with("uplink lan0 has route 198.51.100.0/24"));
    let mut facts = with_uplink();
    facts.host.links.push(Link::new(8, name("br8"), LinkKind::Bridge));
    facts.host.links[1].master = Some(name("br8"));
    assert!(refused(plain(), facts.clone()).starts_with("uplink lan0 is in br8 already"));
    assert!(refused(json!({"uplink": "br8"}), facts).starts_with("uplink br8 is a bridge"));
}
