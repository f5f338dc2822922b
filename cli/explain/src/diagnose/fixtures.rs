//! Evidence of VMs with which nothing is wrong, for tests to break.

use hostnet::facts::{Address, Link, LinkKind, Route, Statistics};
use hostnet::sysctl::Sysctl;
use hostnet::{Facts, Fake, Kernel as _};
use serde_json::{Value, json};
use terms::IfName;
use wiring::{Binding, Request};

use crate::evidence::{Evidence, From, Outcome, Probe};
use crate::launcher::Status;
use crate::record::{Kind, Network, Phase, Place, VmStatus};

/// The link group of the taps.
const GROUP: u32 = 1 << 30;

/// A request, and a namespace before ADD, as the binding plugin's own golden files have them.
macro_rules! golden {
    ($case:literal) => {
        [
            include_str!(concat!("../../../../cni/binding/tests/golden/", $case, "/conf.json")),
            include_str!(concat!("../../../../cni/binding/tests/golden/", $case, "/facts.json")),
        ]
    };
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

/// A masquerade VM with both families on a routed network.
pub(crate) fn masquerade() -> Evidence {
    healthy(golden!("masquerade-dual-stack"))
}

/// The same with declared ports and IPv4 alone.
pub(crate) fn declared_ports() -> Evidence {
    let mut evidence = healthy(golden!("masquerade-ipv4-declared-ports"));
    let probe = |from, address: &str| Probe {
        pod_interface: name("eth0"),
        from,
        address: address.parse().unwrap(),
        port: 80,
        outcome: Outcome::Answered,
    };
    evidence.probes = vec![probe(From::Pod, "10.0.2.2"), probe(From::Host, "10.244.1.5")];
    evidence
}

/// A bridge-bound VM with both families on a routed network.
pub(crate) fn bridge() -> Evidence {
    healthy(golden!("bridge-dual-stack-global-gateway"))
}

fn healthy([conf, facts]: [&str; 2]) -> Evidence {
    let conf: Value = serde_json::from_str(conf).unwrap();
    let request = Request::from_value(&conf["request"]).unwrap();
    let pod = wired(serde_json::from_str(facts).unwrap(), &request);
    let host = host(&pod);
    let running = Some(1_700_000_005);
    let status = VmStatus {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        place: Place::Machine {
            argument: "web".to_owned(),
            log: "/run/tapvisor/vms/default.web/supervisor.log".into(),
        },
        kind: Kind::VirtualMachine,
        phase: Phase::Running,
        reason: None,
        is_on_host: true,
        netns: "/run/netns/tv-000000000000".into(),
        addresses: global(&pod).map(|held| held.address.ip()).collect(),
        running_since_unix_seconds: running,
        restarts: 0,
    };
    Evidence {
        status,
        launcher: Ok(launcher(&request, &pod)),
        request,
        networks: vec![Network {
            ifname: name("eth0"),
            config: json!({"name": "pods", "plugins": [{"ipam": {"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}]}),
        }],
        has_older_nat: false,
        host,
        pod: Ok(pod),
        pod_reverse_path_drops: 0,
        host_reverse_path_drops: 0,
        wired_unix_seconds: 1_700_000_003,
        probes: Vec::new(),
        ways: Vec::new(),
        wanted_ports: Vec::new(),
        now_unix_seconds: 1_700_000_065,
    }
}

fn wired(facts: Facts, request: &Request) -> Facts {
    let plan = binding::plan(request, GROUP, &facts).unwrap();
    let mut kernel = Fake::new(facts);
    kernel.execute(&plan.ops).unwrap();
    let mut facts = kernel.facts().clone();
    // The fake keeps no prefix routes.
    let of_taps: Vec<_> =
        facts.addresses.iter().filter(|held| held.link.as_str().starts_with("k6t-")).cloned().collect();
    facts.routes.extend(of_taps.into_iter().map(|held| {
        let network = terms::IpNetwork::new(held.address.network(), held.address.prefix()).unwrap();
        Route::by(held.link, network)
    }));
    for link in facts.links.iter_mut().filter(|link| link.name != name("lo")) {
        (link.carrier, link.statistics) = (true, Some(Statistics::default()));
        if link.name == name("eth0") {
            link.peer_index = Some(7);
        }
    }
    facts
}

fn global(pod: &Facts) -> impl Iterator<Item = &Address> {
    pod.addresses.iter().filter(|held| held.link == name("eth0") && !held.address.to_string().starts_with("fe80"))
}

/// A host that is the pod's gateway over a cable, with an uplink beyond.
fn host(pod: &Facts) -> Facts {
    let link = |index, text| Link { up: true, carrier: true, ..Link::new(index, name(text), LinkKind::Veth) };
    let eth0 = pod.link(&name("eth0")).unwrap();
    let end = Link { peer_index: Some(eth0.index), mtu_bytes: eth0.mtu_bytes, ..link(7, "veth7") };
    let end = Link { statistics: Some(Statistics { tx_packets: 3, tx_bytes: 1234, ..Statistics::default() }), ..end };
    let gateways = pod.routes.iter().filter_map(|route| route.gateway);
    let prefix = |ip: std::net::IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let gateways = gateways.map(|ip| Address::permanent(name("veth7"), terms::IpNetwork::new(ip, prefix(ip)).unwrap()));
    let to_pod = global(pod).map(|held| {
        let ip = held.address.ip();
        Route::by(name("veth7"), terms::IpNetwork::new(ip, prefix(ip)).unwrap())
    });
    let by_uplink = ["0.0.0.0/0", "::/0"].map(|to| Route::by(name("uplink0"), to.parse().unwrap()));
    let on = |setting| (Sysctl::net(setting), Some("1".to_owned()));
    Facts {
        links: vec![link(2, "uplink0"), end],
        addresses: gateways.collect(),
        routes: to_pod.chain(by_uplink).collect(),
        sysctls: [on("ipv4/ip_forward"), on("ipv6/conf/all/forwarding")].into(),
        ..Facts::default()
    }
}

fn launcher(request: &Request, pod: &Facts) -> Status {
    let has = |is_ipv4: bool| global(pod).any(|held| held.address.is_ipv4() == is_ipv4);
    let bridged =
        |is_ipv4: bool| global(pod).find(|held| held.address.is_ipv4() == is_ipv4).map(|held| held.address.ip());
    let interface = &request.interfaces()[0];
    let masqueraded = interface.binding == Binding::Masquerade;
    let lease = |is_ipv4: bool, inner: &str| {
        let address = if masqueraded { Some(inner.parse().unwrap()) } else { bridged(is_ipv4) };
        address.filter(|_| has(is_ipv4)).map(|address: std::net::IpAddr| {
            json!({"address": address, "asked": 2, "answered": 2, "leased": true, "grants": 1})
        })
    };
    let service =
        json!({"ipv4": lease(true, "10.0.2.2"), "ipv6": lease(false, "fd10:0:2::2"), "routerAdvertisements": 1});
    let nic = json!({"name": interface.name, "mac": "02:00:00:00:00:01", "service": service});
    serde_json::from_value(json!({"state": "running", "nics": [nic]})).unwrap()
}
