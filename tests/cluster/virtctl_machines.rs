//! VirtualMachines by the official virtctl: started, restarted, stopped, expanded, exposed, created.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, trial, wait_for};

use crate::virtctl::{available, virtctl};
use crate::vmi::{object, wait_ready};
use crate::vmi_trouble::instance;

/// A guest under emulation that starts or powers off.
const GUEST: Duration = Duration::from_secs(180);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: SUB-6
        trial("virtctl starts, restarts and stops a VM that is run by hand", by_hand),
        // spec: SUB-6
        trial("virtctl starts a halted VM, stops it by force, and expands it", halted),
        // spec: SUB-6
        trial("virtctl expand puts an instancetype into the template", expanded),
        // spec: SUB-7
        trial("virtctl create vm makes manifests that the server accepts", created),
    ]
}

/// A VM of the tests' guest.
fn machine(name: &str, strategy: &str) -> Value {
    let spec = instance(name, "")["spec"].clone();
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"namespace": "vms", "name": name},
        "spec": {"runStrategy": strategy, "template": {"metadata": {"labels": {"app": name}}, "spec": spec}},
    })
}

fn scheduled(ran: &Ran, what: &str) {
    assert!(ran.is_ok() && ran.stdout().contains(&format!("was scheduled to {what}")), "{}", ran.account());
}

fn uid(vmi: &Value) -> String {
    vmi["metadata"]["uid"].as_str().expect("a UID").to_owned()
}

fn wait_no_instance(cluster: &Cluster, name: &str) {
    wait_for(&format!("instance {name} to be gone"), GUEST, || object(cluster, "vmi", name).is_none().then_some(()));
}

fn by_hand() {
    let cluster = available();
    let run = |arguments: &[&str]| virtctl(&cluster, arguments);
    cluster.apply(&machine("manual", "Manual").to_string()).assert_ok();
    run(&["stop", "manual"]).assert_fails(1, &["VM is not running"]);
    run(&["restart", "manual"]).assert_fails(1, &["VM is not running: Halted"]);
    scheduled(&run(&["start", "manual", "--dry-run"]), "start");
    scheduled(&run(&["start", "manual"]), "start");
    let first = uid(&wait_ready(&cluster, "manual"));
    run(&["start", "manual"]).assert_fails(1, &["VM is already running"]);
    scheduled(&run(&["restart", "manual"]), "restart");
    wait_for("another instance", GUEST, || {
        object(&cluster, "vmi", "manual").filter(|vmi| uid(vmi) != first && vmi["status"]["phase"] == "Running")
    });
    scheduled(&run(&["stop", "manual"]), "stop");
    wait_for("the instance to end", GUEST, || {
        let vmi = object(&cluster, "vmi", "manual");
        vmi.is_none_or(|vmi| vmi["status"]["phase"] == "Succeeded").then_some(())
    });
    cluster.kubectl(&["-n", "vms", "delete", "vm", "manual", "--timeout=170s"]).assert_ok();
    wait_no_instance(&cluster, "manual");
}

fn halted() {
    let cluster = available();
    let run = |arguments: &[&str]| virtctl(&cluster, arguments);
    cluster.apply(&machine("halted", "Halted").to_string()).assert_ok();
    run(&["restart", "halted"]).assert_fails(1, &["RunStategy Halted does not support manual restart requests"]);
    let expanded = run(&["expand", "--vm", "halted", "-o", "json"]);
    assert_eq!(expanded.json()["spec"]["template"]["spec"]["domain"]["memory"]["guest"], "128Mi");
    run(&["migrate", "halted"]).assert_fails(1, &["virtualmachineinstance.kubevirt.io \"halted\" not found"]);
    scheduled(&run(&["start", "halted"]), "start");
    let vm = object(&cluster, "vm", "halted").expect("it exists");
    assert_eq!(vm["spec"]["runStrategy"], "Always");
    wait_ready(&cluster, "halted");
    let forced = run(&["stop", "halted", "--grace-period=0", "--force"]);
    scheduled(&forced, "stop");
    wait_no_instance(&cluster, "halted");
    let vm = object(&cluster, "vm", "halted").expect("it exists");
    assert_eq!(vm["spec"]["runStrategy"], "Halted");
    cluster.kubectl(&["-n", "vms", "delete", "vm", "halted", "--timeout=170s"]).assert_ok();
}

fn expanded() {
    let cluster = available();
    let size = json!({"apiVersion": "instancetype.kubevirt.io/v1beta1", "kind": "VirtualMachineInstancetype",
        "metadata": {"namespace": "vms", "name": "tiny"}, "spec": {"cpu": {"guest": 2}, "memory": {"guest": "96Mi"}}});
    cluster.apply(&size.to_string()).assert_ok();
    let mut vm = machine("expanded", "Halted");
    vm["spec"]["template"]["spec"]["domain"]["memory"].take();
    vm["spec"]["instancetype"] = json!({"kind": "VirtualMachineInstancetype", "name": "tiny"});
    cluster.apply(&vm.to_string()).assert_ok();
    let sized = virtctl(&cluster, &["expand", "--vm", "expanded", "-o", "json"]);
    let spec = &sized.json()["spec"];
    assert_eq!(spec["template"]["spec"]["domain"]["memory"]["guest"], "96Mi", "{}", sized.account());
    assert!(spec["instancetype"].is_null(), "{spec:#}");
    vm["spec"]["instancetype"]["name"] = json!("none");
    let file = "/run/expanded.json";
    std::fs::write(cluster.world().path(file), vm.to_string()).expect("the world has a /run");
    virtctl(&cluster, &["expand", "--file", file]).assert_fails(1, &["none"]);
    cluster.kubectl(&["-n", "vms", "delete", "vm/expanded", "virtualmachineinstancetype/tiny"]).assert_ok();
}

fn created() {
    let cluster = available();
    let made = virtctl(
        &cluster,
        &[
            "create",
            "vm",
            "--name=created",
            "--memory=128Mi",
            "--run-strategy=Halted",
            "--volume-containerdisk=src:localhost/tapvisor/guest-disk:1",
        ],
    );
    assert!(made.is_ok(), "{}", made.account());
    cluster.apply(&format!("{}\n", made.stdout())).assert_ok();
    let manifest = cluster.kubectl(&["-n", "vms", "get", "vm", "created", "-o", "name"]);
    assert!(manifest.is_ok(), "{}", manifest.account());
    cluster.kubectl(&["-n", "vms", "delete", "vm", "created"]).assert_ok();
}
