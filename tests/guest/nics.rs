//! Several NICs in one VM, on networks of the reference plugins: each is served, one gives the default route.

use std::collections::BTreeSet;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tests::{Guest, KERNEL_ARGUMENTS, Outside, trial};

use crate::explain::assert_healthy;
use crate::manifest::{Vm, definition};
use crate::vm::{Host, url};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: NIC-4, EXPL-1
        trial("five NICs on ptp, bridge and macvlan in both bindings are reached", five),
        // spec: NIC-5
        trial("--network selects networks, and the default route is the pod's", named_on_the_command_line),
    ]
}

fn ranges(subnets: &[&str]) -> Value {
    let ranges: Vec<_> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    json!({"type": "host-local", "dataDir": "/run/test-ipam", "ranges": ranges})
}

/// On the uplink's own network.
fn on_the_uplink() -> Value {
    let range = json!({"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.200", "gateway": "192.0.2.1"});
    json!({"type": "host-local", "dataDir": "/run/test-ipam", "ranges": [[range]]})
}

fn definitions() -> String {
    let red = json!({"cniVersion": "1.0.0", "type": "ptp", "ipam": ranges(&["10.81.0.0/24", "fd81::/64"])});
    let blue = json!({"cniVersion": "1.0.0", "type": "bridge", "bridge": "br-blue", "isGateway": true,
        "ipam": ranges(&["10.82.0.0/24", "fd82::/64"])});
    let green = json!({"cniVersion": "1.0.0", "type": "macvlan", "master": Outside::UPLINK, "ipam": on_the_uplink()});
    let mut grey = blue.clone();
    (grey["bridge"], grey["ipam"]) = (json!("br-grey"), ranges(&["10.84.0.0/24", "fd84::/64"]));
    [("red", red), ("blue", blue), ("green", green), ("grey", grey)]
        .map(|(name, config)| definition(name, &config))
        .concat()
}

const REQUESTED: &str = "02:00:00:00:82:01";

fn five() {
    let host = Host::new();
    let vm = Vm::new("many", "masquerade")
        .on("red", json!({"masquerade": {}}))
        .on("blue", json!({"bridge": {}, "macAddress": REQUESTED}))
        .on("green", json!({"bridge": {}}))
        .on("grey", json!({"masquerade": {}}))
        // IPv6 networks behind a NIC that is not the default one are announced; a network manager obeys, the kernel
        // wants to be asked.
        .set(
            "/domain/firmware/kernelBoot",
            "kernelArgs",
            json!(format!("{KERNEL_ARGUMENTS} sysctl.net.ipv6.conf.default.accept_ra_rt_info_max_plen=128")),
        );
    host.world.write("/run/vms.yaml", definitions() + &vm.yaml());
    host.world.tapvisor(&["run", "--detach", "-f", "/run/vms.yaml"]).assert_ok();
    let many = host.guest("many");
    let leases = ["eth0", "eth1", "eth2", "eth3", "eth4"].map(|nic| many.lease4(nic));
    let given: Vec<_> = leases.iter().map(|lease| lease.address.as_str()).collect();
    assert_eq!(given[..2], ["10.0.2.2/24", "10.0.3.2/24"]);
    assert!(given[2].starts_with("10.82.0.") && given[3].starts_with("192.0.2.2"), "{given:?}");
    assert_eq!(given[4], "10.0.4.2/24");
    let leases6 = ["eth0", "eth1", "eth2", "eth4"].map(|nic| many.lease6(nic).ip().to_owned());
    assert_eq!(leases6[..2], ["fd10:0:2::2", "fd10:0:3::2"]);
    assert!(leases6[2].starts_with("fd82::"), "{leases6:?}");
    assert_eq!(many.mac("eth2", 1), REQUESTED);
    let macs: BTreeSet<_> = ["eth0", "eth1", "eth2", "eth3", "eth4"].iter().map(|nic| many.mac(nic, 1)).collect();
    assert_eq!(macs.len(), 5, "{macs:?}");

    for family in ["-4", "-6"] {
        let routes = many.ok(&format!("ip {family} route show default"));
        assert!(routes.lines().count() == 1 && routes.contains("dev eth0"), "one default route:\n{routes}");
        host.assert_reached(&many, family);
    }
    assert_reached_on_each(&host, &many);
    assert_healthy(&host, "many");
    host.assert_removed(&["many"]);
}

fn assert_reached_on_each(host: &Host, many: &Guest<'_>) {
    let pod = many.pod();
    let links = pod.run(&["ip", "-j", "addr", "show", "scope", "global"]).json();
    let on = |network: &str| {
        let held = links.as_array().unwrap().iter().flat_map(|link| link["addr_info"].as_array().unwrap());
        let held = held.filter_map(|held| held["local"].as_str()).filter(|held| held.starts_with(network));
        held.map(str::to_owned).collect::<Vec<_>>()
    };
    let of_host = ["10.81.0.", "fd81::", "10.82.0.", "fd82::", "10.84.0.", "fd84::"].map(on).concat();
    let green = on("192.0.2.");
    assert_eq!((of_host.len(), green.len()), (6, 1), "{links}");
    for address in &of_host {
        let page = host.world.run(&["timeout", "60", "busybox", "wget", "-qO-", &url(address)]);
        assert!(page.stdout().starts_with("guest many\n"), "{address}: {}", page.account());
    }
    // The host cannot talk to a macvlan that sits on its own link; the outside is on that link too.
    let outside = host.world.named("outside");
    let page = outside.run(&["timeout", "60", "busybox", "wget", "-qO-", &url(&green[0])]).text();
    assert!(page.starts_with("guest many\n"), "{page}");
    for gateway in ["10.81.0.1", "10.82.0.1", "10.84.0.1", "192.0.2.1", "fd81::1", "fd82::1", "fd84::1"] {
        let _ = many.ok(&format!("ping -c 1 -W 5 {gateway}"));
    }
}

/// The pod interface of a secondary network, by the rule that KubeVirt's has.
fn pod_interface(network: &str) -> String {
    let digest = Sha256::digest(network);
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("pod{}", &digits[..11])
}

fn named_on_the_command_line() {
    let host = Host::new();
    let network = |name: &str, subnet: &str| {
        let mut ipam = ranges(&[subnet]);
        ipam["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        let plugin = json!({"type": "ptp", "ipMasq": true, "ipam": ipam});
        json!({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}).to_string()
    };
    host.world.write("/run/red.conflist", network("red", "10.81.0.0/24"));
    host.world.write("/etc/tapvisor/net.d/blue.conflist", network("blue", "10.82.0.0/24"));
    host.world.write("/run/pods.conflist", network("pods", "10.83.0.0/24"));
    let vm = Vm::new("many", "bridge").on("red", json!({"bridge": {}})).on("blue", json!({"masquerade": {}}));
    host.world.write("/run/vms.yaml", vm.yaml());
    let line = ["run", "--detach", "-f", "/run/vms.yaml", "--network", "/run/red.conflist"];
    host.world.tapvisor(&[&line[..], &["--network", "/run/pods.conflist", "--network", "blue"]].concat()).assert_ok();
    let many = host.guest("many");
    assert!(many.lease4("eth0").address.starts_with("10.83.0."));
    assert!(many.lease4("eth1").address.starts_with("10.81.0."));
    assert_eq!(many.lease4("eth2").address, "10.0.2.2/24");
    // Each network gives a default route; the pod's kernel has chosen one, and the guest has that one alone.
    let chosen =
        many.pod().run(&["ip", "-j", "route", "get", Outside::V4]).json()[0]["dev"].as_str().unwrap().to_owned();
    let pod_interfaces = ["eth0".to_owned(), pod_interface("red"), pod_interface("blue")];
    let nic = pod_interfaces.iter().position(|link| *link == chosen).unwrap();
    let routes = many.ok("ip -4 route show default");
    assert!(
        routes.lines().count() == 1 && routes.contains(&format!("dev eth{nic}")),
        "the pod's is {chosen}:\n{routes}"
    );
    let page = many.ok(&format!("timeout 60 wget -qO- {}", url(Outside::V4)));
    assert!(page.contains("outside sees 192.0.2.2"), "{page}");
    let status = host.world.tapvisor(&["ps", "-o", "json"]).json();
    assert_eq!(status["items"][0]["network"], "pods", "{status}");
    host.assert_removed(&["many"]);
}
