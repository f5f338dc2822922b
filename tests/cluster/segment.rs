//! A layer-2 segment that our bridge plugin makes on each node and joins to the wire between them.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, trial, wait_for};

use crate::pods::{busybox, fetch_path, wait_running};
use crate::vmi::{delete_and_assert_gone, installed, wait_instance};
use crate::vmi_trouble::{apply, instance};

const MOMENT: Duration = Duration::from_secs(60);
/// The node's link that is free to be an uplink.
const UPLINK: &str = "eth2";
/// Serves its name.
const SERVE: &str = "mkdir /tmp/www; hostname >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: L2-UPLINK-3
        trial("a VM and a pod talk on one segment across their nodes' uplinks", across_nodes),
    ]
}

/// Each node has addresses of its own: a range of host-local knows nothing of another node's.
fn network(cluster: &Cluster, name: &str, first: u8) {
    let range = json!({"subnet": "203.0.113.0/24", "rangeStart": format!("203.0.113.{first}"),
        "rangeEnd": format!("203.0.113.{}", first + 9)});
    let config = json!({"cniVersion": "1.0.0", "name": name, "type": "tapvisor-bridge", "bridge": "br-wire", "uplink": UPLINK,
        "ipam": {"type": "host-local", "ranges": [[range]]}});
    apply(
        cluster,
        &json!({
            "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"namespace": "vms", "name": name}, "spec": {"config": config.to_string()},
        }),
    );
}

/// The bridge that the node's free link is a port of.
fn master(cluster: &Cluster, node: &str) -> Option<String> {
    let links = Ran::of(cluster.on_node(node, "ip").args(["-json", "link", "show", UPLINK])).json();
    links[0]["master"].as_str().map(str::to_owned)
}

fn across_nodes() {
    let cluster = installed();
    network(&cluster, "wire1", 10);
    network(&cluster, "wire2", 20);
    let mut vmi = instance("wired", "");
    let spec = &mut vmi["spec"];
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": "node1"});
    spec["networks"] = json!([{"name": "default", "pod": {}}, {"name": "wire", "multus": {"networkName": "wire1"}}]);
    spec["domain"]["devices"]["interfaces"] =
        json!([{"name": "default", "masquerade": {}}, {"name": "wire", "bridge": {}}]);
    apply(&cluster, &vmi);
    let mut pod = busybox("vms", "on-the-wire", "node2", SERVE);
    pod["metadata"]["annotations"] = json!({"k8s.v1.cni.cncf.io/networks": "wire2"});
    apply(&cluster, &pod);
    wait_running(&cluster, "vms", "on-the-wire");
    let address = |vmi: &Value| {
        let nics = vmi["status"]["interfaces"].as_array().into_iter().flatten();
        let mut wire = nics.filter(|nic| nic["name"] == "wire");
        wire.next().and_then(|nic| nic["ipAddress"].as_str().map(str::to_owned))
    };
    let running = wait_instance(&cluster, "wired", "to have an address on the wire", |vmi| address(vmi).is_some());
    let address = address(&running).expect("it was waited for");
    assert_eq!(address, "203.0.113.10");

    // The guest has its address from the launcher's DHCP; the pod has a route to it by that NIC alone.
    let answer = fetch_path(&cluster, "vms", "on-the-wire", &address, 80, "/");
    assert!(answer.contains("guest wired") && answer.contains("203.0.113.20"), "{answer}");
    for node in ["node1", "node2"] {
        assert_eq!(master(&cluster, node).as_deref(), Some("br-wire"), "{node}");
    }
    delete_and_assert_gone(&cluster, &running);
    cluster.kubectl(&["-n", "vms", "delete", "pod", "on-the-wire", "--timeout=60s"]).assert_ok();
    for node in ["node1", "node2"] {
        let is_free = || master(&cluster, node).is_none().then_some(());
        wait_for(&format!("{UPLINK} of {node} to be free again"), MOMENT, is_free);
    }
}
