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
    let mut conf = json!({"cniVersion": "1.0.0", "name": "net", "bridge": "br0"});
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
    verbs::add(kernels, &desired, ipam, ("/run/netns/pod", &macs()), || Ok(()))
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

// spec: L2-PLAN
#[test]
fn an_add_that_is_broken_at_any_step_leaves_at_most_what_is_shared() {
    for conf in [conf(&json!({})), conf(&json!({"isGateway": true, "ipMasq": true})), everything()] {
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
