//! Two releases that follow each other: VMs run on while one takes the place of the other, in both directions.
//!
//! Only `make cluster-upgrade` runs this: it says where the release before lies.

use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, cache_file, dist_file, trial, wait_for, workspace};

use crate::cluster;
use crate::pods::{busybox, fetch, wait_running};
use crate::virtctl::virtctl;
use crate::vm::{delete_and_assert_gone, machine, uid};
use crate::vmi::{condition, object, wait_instance, wait_ready};
use crate::vmi_trouble::apply;

/// A replica that leads, agents whose streams are read, and a guest's answer, on a machine with other things to do.
const MOMENT: Duration = Duration::from_secs(180);
/// The tag of the images of the release before.
const BEFORE: &str = "before";

/// The folder with the manifest and the images of the release before: `tapvisor.yaml`, `images/`.
fn release_before() -> Option<PathBuf> {
    std::env::var_os("RELEASE_BEFORE").map(PathBuf::from)
}

pub(crate) fn trials() -> Vec<Trial> {
    let all = vec![
        // spec: OPS-9
        trial("VMs run on through an upgrade and a downgrade and leave nothing", both_ways),
    ];
    if release_before().is_some() { all } else { Vec::new() }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn both_ways() {
    let folder = release_before().expect("it is there when this trial is");
    let cluster = cluster();
    let before = read(&folder.join("tapvisor.yaml")).replace(":1\n", &format!(":{BEFORE}\n"));
    let now = read(&workspace().join("deploy/tapvisor.yaml"));
    cluster.import_release(&folder.join("images"), BEFORE);
    cluster.import_release(&dist_file("images"), "now");
    cluster.import(&cache_file("guest/images"));
    cluster.install(&before);
    let old = start(&cluster, "old");

    cluster.install(&now.replace(":1\n", ":now\n"));
    assert_unharmed(&cluster, &old, "old");
    let new = start(&cluster, "new");
    end(&cluster, &old, "old");

    cluster.install(&before);
    assert_unharmed(&cluster, &new, "new");
    end(&cluster, &new, "new");
}

/// VMs of both bindings, and a client; returns the VMs' launcher pods.
fn start(cluster: &Cluster, release: &str) -> [Value; 2] {
    let mut bridged = machine(&format!("{release}-bridge"), "Always", "");
    bridged["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"] = json!([{"name": "default", "bridge": {}}]);
    apply(cluster, &machine(&format!("{release}-masquerade"), "Always", ""));
    apply(cluster, &bridged);
    let instances =
        [format!("{release}-masquerade"), format!("{release}-bridge")].map(|name| wait_ready(cluster, &name));
    let client = format!("{release}-client");
    cluster.apply(&busybox("vms", &client, "node1", "exec sleep 100000").to_string()).assert_ok();
    wait_running(cluster, "vms", &client);
    instances.map(|vmi| launcher(cluster, &vmi))
}

fn launcher(cluster: &Cluster, vmi: &Value) -> Value {
    let label = format!("kubevirt.io/created-by={}", uid(vmi));
    let pods = cluster.kubectl(&["-n", "vms", "get", "pods", "-l", &label, "-o", "json"]).json();
    assert_eq!(pods["items"].as_array().map(Vec::len), Some(1), "{pods:#}");
    pods["items"][0].clone()
}

/// The same pods, whose guests answer; the other release's controller and agents can pause them.
fn assert_unharmed(cluster: &Cluster, launchers: &[Value; 2], release: &str) {
    for (pod, binding) in launchers.iter().zip(["masquerade", "bridge"]) {
        let name = format!("{release}-{binding}");
        let vmi = wait_ready(cluster, &name);
        assert_eq!(uid(&launcher(cluster, &vmi)), uid(pod), "{name} has another pod");
        let paused = |is_paused: bool| {
            wait_instance(cluster, &name, "to follow virtctl", |vmi| {
                condition(vmi, "Paused").is_some_and(|text| text.starts_with("True")) == is_paused
            })
        };
        // A replica that has just begun to lead reaches the agents a little later.
        let ask = |verb: &str| {
            wait_for(verb, MOMENT, || virtctl(cluster, &[verb, "vm", &name]).is_ok().then_some(()));
        };
        ask("pause");
        paused(true);
        ask("unpause");
        let vmi = paused(false);
        let address = vmi["status"]["interfaces"][0]["ipAddress"].as_str().expect("an address");
        assert!(fetch(cluster, "vms", &format!("{release}-client"), address, 80).contains(&name));
    }
}

/// The end of VMs that another release wired: their addresses are free again, and the node has no route to them any more.
fn end(cluster: &Cluster, launchers: &[Value; 2], release: &str) {
    cluster.kubectl(&["-n", "vms", "delete", "pod", &format!("{release}-client")]).assert_ok();
    for (pod, binding) in launchers.iter().zip(["masquerade", "bridge"]) {
        let (name, node) = (format!("{release}-{binding}"), pod["spec"]["nodeName"].as_str().expect("a node"));
        delete_and_assert_gone(cluster, &name);
        assert!(object(cluster, "vm", &name).is_none());
        let addresses = pod["status"]["podIPs"].as_array().expect("it ran");
        for address in addresses.iter().filter_map(|address| address["ip"].as_str()) {
            let is_free = || {
                let line = r#"case $0 in *:*) family=-6 ;; *) family=-4 ;; esac
                    [ ! -e "/var/lib/cni/networks/pods/$0" ] && [ -z "$(ip $family route show "$0")" ]"#;
                Ran::of(cluster.on_node(node, "bash").args(["-uc", line, address])).is_ok().then_some(())
            };
            wait_for(&format!("{address} to be free on {node}"), MOMENT, is_free);
        }
    }
}
