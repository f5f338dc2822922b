//! Pods that are alike to the last index, and calls of plugins on them.

use serde_json::{Value, json};
use tests::{Program, World};

/// The pod's network as a plugin before ours would have made it.
const NETWORK: &str = "link set lo up
link set eth0 address 0a:58:0a:f4:01:05 up
addr add 10.244.1.5/24 dev eth0
addr add fd00:10:244:1::5/64 dev eth0 nodad
route add default via 10.244.1.1
route add default via fd00:10:244:1::1";

/// Makes pods that have a dual-stack network already.
pub(crate) fn make(world: &World, names: &[&str]) {
    world
        .sh(&format!(
            "for pod in {}; do
                ip netns add $pod
                nsenter --net=/run/netns/$pod sh -c 'cd /proc/sys/net/ipv6/conf/default; echo 0 >accept_dad; echo 0 >accept_ra; echo 1 >addr_gen_mode'
                ip link add $pod type veth peer name eth0 netns $pod
                ip link set $pod up
                ip -n $pod -batch - <<'END'\n{NETWORK}\nEND
            done",
            names.join(" ")
        ))
        .assert_ok();
}

/// Makes pods without a network, in which IPv6 addresses are valid at once.
pub(crate) fn make_empty(world: &World, names: &[&str]) {
    let at_once = "nsenter --net=/run/netns/$pod sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'";
    let line = format!("do ip netns add $pod; ip -n $pod link set lo up; {at_once}; done");
    world.sh(&format!("for pod in {}; {line}", names.join(" "))).assert_ok();
}

/// Removes them with all that is in them.
pub(crate) fn remove(world: &World, names: &[&str]) {
    // A namespace is freed some time after its deletion, the name of its veth here at once.
    let line = "do [ ! -e /sys/class/net/$pod ] || ip link delete $pod; ip netns delete $pod; done";
    world.sh(&format!("for pod in {}; {line}", names.join(" "))).assert_ok();
}

/// What the plugins before ours answered for such a pod.
pub(crate) fn previous() -> Value {
    json!({"cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": "0a:58:0a:f4:01:05", "sandbox": "/run/netns/pod"}],
        "ips": [{"address": "10.244.1.5/24", "gateway": "10.244.1.1", "interface": 0},
                {"address": "fd00:10:244:1::5/64", "gateway": "fd00:10:244:1::1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}], "dns": {}})
}

/// The configuration of our plugin with a request for one NIC, or without a request.
pub(crate) fn tapvisor(binding: Option<&str>) -> Value {
    let mut conf = json!({"cniVersion": "1.0.0", "name": "bench", "type": "tapvisor"});
    if let Some(binding) = binding {
        conf["wiring"] = json!({"version": 1, "owner": {"uid": 107, "gid": 107},
            "interfaces": [{"name": "default", "podInterface": "eth0", "binding": binding}]});
    }
    conf
}

/// One verb of a plugin on a pod.
pub(crate) fn call(plugin: &std::path::Path, verb: &str, pod: &str, conf: &Value, previous: Option<&Value>) -> Program {
    let mut program = Program::new(plugin, &[]);
    program.environment = vec![
        ("CNI_COMMAND", verb.to_owned()),
        ("CNI_CONTAINERID", format!("cid-{pod}")),
        ("CNI_NETNS", format!("/run/netns/{pod}")),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni".to_owned()),
    ];
    let mut conf = conf.clone();
    if let Some(previous) = previous {
        conf["prevResult"] = previous.clone();
    }
    program.input = conf.to_string().into_bytes();
    program
}
