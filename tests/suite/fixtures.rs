//! What the suite looks up by KubeVirt's names before and during its specs.

use std::time::Duration;

use serde_json::json;
use tests::cluster::Cluster;
use tests::{Ran, cache_file, dist_file, wait_for, workspace};

const MOMENT: Duration = Duration::from_secs(300);

/// What guests reach as the world outside: addresses of the host that the control plane runs on, and a name for it.
pub(crate) const OUTSIDE: [&str; 6] = [
    "-conn-check-ipv4-address",
    "192.0.2.1",
    "-conn-check-ipv6-address",
    "2001:db8::1",
    "-conn-check-dns",
    "outside.default.svc.cluster.local",
];

/// Imports the guests and the launcher with tools, and makes what has KubeVirt's names: a Deployment `virt-operator` with a
/// ready replica, a label on the agents' pods. No spec is told anything else than what the product says.
pub(crate) fn install(cluster: &Cluster) {
    ["node1", "node2"].into_iter().for_each(|node| separate_vlans(cluster, node));
    cluster.import(&cache_file("suite/guests"));
    cluster.import(&dist_file("images").join("launcher-tools.tar"));
    let operator = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "tapvisor", "name": "virt-operator"},
        "spec": {
            "selector": {"matchLabels": {"app": "virt-operator"}},
            "template": {
                "metadata": {"labels": {"app": "virt-operator"}},
                "spec": {"containers": [{"name": "pause", "image": "localhost/pause:1", "imagePullPolicy": "Never"}]},
            },
        },
    });
    // A name of the host that answers pings, which a Service's own address does not.
    let outside = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": "outside"},
        "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    let host = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "default", "name": "outside", "labels": {"kubernetes.io/service-name": "outside"}},
        "endpoints": [{"addresses": ["192.0.2.1"]}], "ports": [{"port": 80}]});
    for object in [operator, outside, host] {
        cluster.apply(&object.to_string()).assert_ok();
    }
    let label = json!({"spec": {"template": {"metadata": {"labels": {"kubevirt.io": "virt-handler"}}}}});
    cluster
        .kubectl(&["-n", "tapvisor", "patch", "daemonset", "tapvisor-node", "--patch", &label.to_string()])
        .assert_ok();
    let tools = json!([{"op": "add", "path": "/metadata/annotations", "value": {}},
        {"op": "add", "path": "/metadata/annotations/tapvisor.io~1launcher-tools", "value": "true"}]);
    cluster
        .kubectl(&["-n", "tapvisor", "patch", "kubevirt", "kubevirt", "--type=json", "--patch", &tools.to_string()])
        .assert_ok();
    for workload in ["deployment/virt-operator", "daemonset/tapvisor-node"] {
        let rollout = || cluster.kubectl(&["-n", "tapvisor", "rollout", "status", workload, "--timeout=20s"]);
        wait_for(&format!("{workload} to be ready"), MOMENT, || rollout().is_ok().then_some(()));
    }
}

/// Puts `bridge-per-vlan` in the place of the reference plugin `bridge`: the machine's kernel has no VLANs on bridges.
fn separate_vlans(cluster: &Cluster, node: &str) {
    let script = workspace().join("tests/suite/bridge-per-vlan");
    let place = "cd /opt/cni/bin && mv bridge bridge-reference && install -m 0755 \"$0\" bridge";
    Ran::of(cluster.on_node(node, "bash").args(["-ec", place]).arg(script)).assert_ok();
}
