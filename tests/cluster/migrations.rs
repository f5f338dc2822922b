//! Migrations: a target pod on the other node, and why no guest moves into it; limits, quotas and cancellation.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, trial, wait_for};

use crate::pods::fetch;
use crate::virtctl::{available, virtctl};
use crate::vm::{machine, uid, wait_next};
use crate::vmi::{condition, delete_and_assert_gone, installed, object, wait_ready};
use crate::vmi_trouble::{apply, instance};

/// An agent says that a launcher waits once the kubelet has mounted its certificate, which may take three minutes.
const MOMENT: Duration = Duration::from_secs(300);
const KIND: &str = "virtualmachineinstancemigrations.kubevirt.io";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: MIG-1, MIG-5
        trial("a migration readies a pod on the other node and says why it fails", readies),
        // spec: MIG-2, MIG-4
        trial("virtctl migrate waits for a node, migrate-cancel removes its pod", cancelled),
        // spec: MIG-2, CTRL-37
        trial("a migration that a quota has no room for is told and held back", no_room),
    ]
}

fn migration(namespace: &str, name: &str, vmi: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration",
        "metadata": {"namespace": namespace, "name": name}, "spec": {"vmiName": vmi},
    })
}

/// The target pods of an instance's migrations.
fn targets(cluster: &Cluster, namespace: &str, vmi_uid: &str) -> Vec<Value> {
    let label = format!("kubevirt.io/created-by={vmi_uid},kubevirt.io/migrationJobUID");
    let list = cluster.kubectl(&["-n", namespace, "get", "pods", "-l", &label, "-o", "json"]).json();
    list["items"].as_array().expect("a list").clone()
}

fn wait_migration(cluster: &Cluster, namespace: &str, name: &str, judge: impl Fn(&Value) -> bool) -> Value {
    let ask = || {
        let ran = cluster.kubectl(&["-n", namespace, "get", KIND, name, "-o", "json"]);
        ran.is_ok().then(|| ran.json()).filter(&judge)
    };
    wait_for(&format!("migration {name}"), MOMENT, ask).0
}

fn readies() {
    let cluster = installed();
    apply(&cluster, &instance("mover", ""));
    let vmi = wait_ready(&cluster, "mover");
    let movable = condition(&vmi, "LiveMigratable").expect("it is told");
    assert!(movable.starts_with("Unknown NotMigratable"), "{movable}");
    cluster
        .apply(&migration("vms", "nowhere", "absent").to_string())
        .assert_fails(1, &["does not exist under the cluster"]);
    apply(&cluster, &migration("vms", "mover", "mover"));
    let ended = wait_migration(&cluster, "vms", "mover", |migration| migration["status"]["phase"] == "Failed");
    let state = &ended["status"]["migrationState"];
    assert!(state["failureReason"].as_str().is_some_and(|text| text.contains("the target pod was ready")), "{ended:#}");
    let nodes = (&state["sourceNode"], &state["targetNode"]);
    assert!(nodes.0 == &vmi["status"]["nodeName"] && nodes.0 != nodes.1 && nodes.1 != "", "{ended:#}");
    let phases = ended["status"]["phaseTransitionTimestamps"].as_array().expect("a list");
    let phases: Vec<_> = phases.iter().map(|one| one["phase"].as_str().unwrap_or_default()).collect();
    assert_eq!(phases, ["Pending", "Scheduling", "Scheduled", "Failed"]);
    assert_eq!(ended["metadata"]["labels"]["kubevirt.io/vmi-name"], "mover");
    let id = uid(&vmi);
    wait_for("the target pod to go", MOMENT, || targets(&cluster, "vms", &id).is_empty().then_some(()));
    let after = object(&cluster, "vmi", "mover").expect("it runs");
    assert_eq!(
        (&after["status"]["phase"], &after["status"]["nodeName"]),
        (&json!("Running"), &vmi["status"]["nodeName"])
    );
    assert_eq!(after["status"]["migrationState"]["migrationUid"], ended["metadata"]["uid"], "{after:#}");
    let address = after["status"]["interfaces"][0]["ipAddress"].as_str().expect("an address");
    assert!(fetch(&cluster, "vms", "client-node1", address, 80).contains("mover"));
    cluster.kubectl(&["-n", "vms", "delete", KIND, "mover", "--timeout=60s"]).assert_ok();
    delete_and_assert_gone(&cluster, &after);
}

fn cancelled() {
    let cluster = available();
    apply(&cluster, &machine("stays", "Always", ""));
    let vmi = wait_next(&cluster, "stays", "");
    virtctl(&cluster, &["migrate", "stays", "--addedNodeSelector", "no=node"]).assert_ok();
    let label = "kubevirt.io/vmi-name=stays";
    let list = || {
        let list = cluster.kubectl(&["-n", "vms", "get", KIND, "-l", label, "-o", "json"]).json();
        list["items"].as_array().expect("a list").clone()
    };
    let (found, _) = wait_for("the migration", MOMENT, || {
        list().into_iter().find(|migration| migration["status"]["phase"] == "Scheduling")
    });
    let name = found["metadata"]["name"].as_str().expect("a name");
    let field = format!("involvedObject.name={name},reason=migrationTargetPodUnschedulable,type=Warning");
    let event = || cluster.kubectl(&["-n", "vms", "get", "events", "--field-selector", &field, "-o", "name"]).text();
    wait_for("an event that says so", MOMENT, || (!event().is_empty()).then_some(()));
    virtctl(&cluster, &["migrate", "stays"]).assert_fails(1, &["in-flight migration detected"]);
    let id = uid(&vmi);
    assert_eq!(targets(&cluster, "vms", &id).len(), 1);
    virtctl(&cluster, &["migrate-cancel", "stays"]).assert_ok();
    wait_for("the migration to go", MOMENT, || list().is_empty().then_some(()));
    wait_for("the target pod to go", MOMENT, || targets(&cluster, "vms", &id).is_empty().then_some(()));
    virtctl(&cluster, &["migrate-cancel", "stays"]).assert_fails(1, &["no migration to cancel"]);
    crate::vm::delete_and_assert_gone(&cluster, "stays");
}

fn no_room() {
    let cluster = installed();
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "narrow", "name": "memory"},
        "spec": {"hard": {"requests.memory": "600Mi"}},
    });
    apply(&cluster, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "narrow"}}));
    apply(&cluster, &quota);
    let mut vmi = instance("wide", "");
    vmi["metadata"]["namespace"] = json!("narrow");
    vmi["spec"]["domain"]["memory"]["guest"] = json!("1Gi");
    apply(&cluster, &vmi);
    wait_for("the quota to be told", MOMENT, || {
        let vmi = cluster.kubectl(&["-n", "narrow", "get", "vmi", "wide", "-o", "json"]).json();
        condition(&vmi, "Synchronized")
            .filter(|text| text.starts_with("False FailedCreate") && text.contains("exceeded quota"))
    });
    cluster.kubectl(&["-n", "narrow", "delete", "vmi", "wide", "--timeout=60s"]).assert_ok();
    vmi["metadata"]["name"] = json!("narrow");
    vmi["spec"]["domain"]["memory"]["guest"] = json!("128Mi");
    apply(&cluster, &vmi);
    let get = || cluster.kubectl(&["-n", "narrow", "get", "vmi", "narrow", "-o", "json"]);
    wait_for("the instance to run", MOMENT, || (get().json()["status"]["phase"] == "Running").then_some(()));
    apply(&cluster, &migration("narrow", "narrow", "narrow"));
    let is_told = |migration: &Value| {
        condition(migration, "migrationRejectedByResourceQuota").is_some_and(|text| text.contains("exceeded quota"))
    };
    let held = wait_migration(&cluster, "narrow", "narrow", is_told);
    assert_eq!(held["status"]["phase"], "Pending", "{held:#}");
    cluster.kubectl(&["-n", "narrow", "delete", "quota", "memory"]).assert_ok();
    let ended = wait_migration(&cluster, "narrow", "narrow", |migration| migration["status"]["phase"] == "Failed");
    assert!(condition(&ended, "migrationRejectedByResourceQuota").is_none(), "{ended:#}");
    cluster.kubectl(&["delete", "namespace", "narrow", "--timeout=170s"]).assert_ok();
}
