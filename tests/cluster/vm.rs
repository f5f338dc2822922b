//! VirtualMachines: run strategies, requests to start and stop, statuses, and what is left at the end.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, trial, wait_for};

use crate::vmi::{condition, installed, object, writes};
use crate::vmi_trouble::{apply, instance, on_launcher};

/// A launcher pod and its guest, on two processors that run a cluster too.
pub(crate) const START: Duration = Duration::from_secs(240);
const MOMENT: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: VM-9
        trial("a VM that runs always comes back after its guest powers off", always),
        // spec: VM-9
        trial("a VM that reruns on failure comes back after a kill, not a power-off", rerun_on_failure),
        // spec: VM-9
        trial("a VM that is run by hand follows start, restart and stop requests", by_hand),
        // spec: VM-10
        trial("a VM deleted with orphans leaves its instance, the next takes it over", orphan),
        // spec: VM-8
        trial("admission names every wrong field of a VM by its path", admission),
        // spec: VM-16, VM-30
        trial("a VM keeps the size and preference of its first start", sized),
    ]
}

/// A machine of namespace `vms` that boots the tests' guest with words on its kernel's command line.
pub(crate) fn machine(name: &str, strategy: &str, words: &str) -> Value {
    let mut spec = instance(name, words)["spec"].take();
    spec["terminationGracePeriodSeconds"] = 5.into();
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"namespace": "vms", "name": name},
        "spec": {"runStrategy": strategy, "template": {"metadata": {"labels": {"app": name}}, "spec": spec}},
    })
}

pub(crate) fn word(vm: &Value) -> &str {
    vm["status"]["printableStatus"].as_str().unwrap_or_default()
}

pub(crate) fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().expect("a UID").to_owned()
}

/// Waits until a machine is as `judge` demands.
pub(crate) fn wait_vm(cluster: &Cluster, name: &str, what: &str, judge: impl Fn(&Value) -> bool) -> Value {
    let ask = || object(cluster, "vm", name).filter(&judge);
    wait_for(&format!("virtual machine {name} {what}"), START, ask).0
}

/// Waits until a machine is ready with another instance than the one with this UID; returns the instance.
pub(crate) fn wait_next(cluster: &Cluster, name: &str, earlier: &str) -> Value {
    let is_next = || {
        let vm = object(cluster, "vm", name).filter(|vm| word(vm) == "Running" && vm["status"]["ready"] == true)?;
        let vmi = object(cluster, "vmi", name).filter(|vmi| uid(vmi) != earlier)?;
        (vm["status"]["created"] == true && condition(&vm, "Ready").as_deref() == Some("True")).then_some(vmi)
    };
    wait_for(&format!("virtual machine {name} to be ready"), START, is_next).0
}

pub(crate) fn patch(cluster: &Cluster, name: &str, change: &Value) -> Ran {
    cluster.kubectl(&["-n", "vms", "patch", "vm", name, "--type=merge", "-p", &change.to_string()])
}

/// Asks for starts and stops as KubeVirt's API server does.
pub(crate) fn request(cluster: &Cluster, name: &str, requests: &Value) {
    let change = json!({"status": {"stateChangeRequests": requests}}).to_string();
    let command = ["-n", "vms", "patch", "vm", name, "--subresource=status", "--type=merge", "-p", &change];
    cluster.kubectl(&command).assert_ok();
}

fn wait_stopped(cluster: &Cluster, name: &str) -> Value {
    let stopped =
        wait_vm(cluster, name, "to be stopped", |vm| word(vm) == "Stopped" && vm["status"]["created"] == false);
    assert!(object(cluster, "vmi", name).is_none(), "{stopped:#}");
    assert_eq!(condition(&stopped, "Ready").as_deref(), Some("False VMINotExists VMI does not exist"));
    stopped
}

/// Deletes a machine and demands that nothing of it is left.
pub(crate) fn delete_and_assert_gone(cluster: &Cluster, name: &str) {
    cluster.kubectl(&["-n", "vms", "delete", "vm", name, "--timeout=170s"]).assert_ok();
    assert!(object(cluster, "vmi", name).is_none(), "the instance is left");
    let left = || {
        let kinds = "pods,secrets,controllerrevisions.apps";
        let ran = cluster.kubectl(&["-n", "vms", "get", kinds, "-o", "json"]);
        let items = ran.json()["items"].as_array().cloned().unwrap_or_default();
        let is_of = |item: &&Value| {
            item["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|owner| owner["name"] == name)
        };
        items.iter().filter(is_of).count()
    };
    wait_for(&format!("what {name} owned to be collected"), START, || (left() == 0).then_some(()));
}

fn always() {
    let cluster = installed();
    apply(&cluster, &machine("always", "Always", "guest.run=sleep+25;poweroff+-f"));
    let first = wait_next(&cluster, "always", "");
    assert_start(&cluster, &first);
    let second = wait_next(&cluster, "always", &uid(&first));
    let mac = |vmi: &Value| vmi["status"]["interfaces"][0]["mac"].as_str().expect("an address").to_owned();
    assert_eq!(mac(&first), mac(&second));
    patch(&cluster, "always", &json!({"spec": {"runStrategy": "Halted"}})).assert_ok();
    let stopped = wait_stopped(&cluster, "always");
    assert_eq!(stopped["metadata"]["generation"], 2, "the controller has written the spec: {stopped:#}");
    delete_and_assert_gone(&cluster, "always");
}

/// The first start of a machine made a revision and cost no more than it may.
fn assert_start(cluster: &Cluster, vmi: &Value) {
    let vm = object(cluster, "vm", "always").expect("it exists");
    let (name, generation) = (format!("revision-start-vm-{}-1", uid(&vm)), &vm["status"]["observedGeneration"]);
    let revision = object(cluster, "controllerrevisions.apps", &name).expect("the start has a revision");
    assert_eq!(
        (&revision["data"]["spec"], generation, &vm["status"]["desiredGeneration"]),
        (&vm["spec"], &json!(1), &json!(1))
    );
    assert_eq!(vmi["status"]["virtualMachineRevisionName"], name.as_str());
    let all = [writes(cluster, "always"), writes(cluster, &uid(&vm))].concat();
    let count = |start: &str| all.iter().filter(|write| write.starts_with(start)).count();
    let found =
        (count("create virtualmachineinstances"), count("create controllerrevisions"), count("patch virtualmachines"));
    assert!(found == (1, 1, 1) && count("update virtualmachines") <= 2, "{all:#?}");
}

fn rerun_on_failure() {
    let cluster = installed();
    apply(&cluster, &machine("ends", "RerunOnFailure", "guest.run=poweroff+-f"));
    apply(&cluster, &machine("fails", "RerunOnFailure", ""));
    let first = wait_next(&cluster, "fails", "");
    on_launcher(&cluster, &first, "ctr --namespace k8s.io tasks kill --signal SIGKILL \"$id\"").assert_ok();
    let second = wait_next(&cluster, "fails", &uid(&first));
    request(&cluster, "fails", &json!([{"action": "Stop", "uid": uid(&second)}]));
    wait_stopped(&cluster, "fails");
    let ended = wait_stopped(&cluster, "ends");
    assert_eq!(ended["status"]["runStrategy"], "RerunOnFailure");
    for name in ["ends", "fails"] {
        delete_and_assert_gone(&cluster, name);
    }
}

fn by_hand() {
    let cluster = installed();
    apply(&cluster, &machine("by-hand", "Manual", ""));
    wait_stopped(&cluster, "by-hand");
    request(&cluster, "by-hand", &json!([{"action": "Start"}]));
    let first = wait_next(&cluster, "by-hand", "");
    request(&cluster, "by-hand", &json!([{"action": "Stop", "uid": uid(&first)}, {"action": "Start"}]));
    let second = wait_next(&cluster, "by-hand", &uid(&first));
    patch(&cluster, "by-hand", &json!({"spec": {"template": {"spec": {"hostname": "other"}}}})).assert_ok();
    wait_vm(&cluster, "by-hand", "to need a restart", |vm| {
        condition(vm, "RestartRequired").is_some_and(|text| text.starts_with("True"))
    });
    request(&cluster, "by-hand", &json!([{"action": "Stop", "uid": uid(&second)}]));
    let stopped = wait_stopped(&cluster, "by-hand");
    let left = (condition(&stopped, "RestartRequired"), &stopped["status"]["stateChangeRequests"]);
    assert_eq!(left, (None, &Value::Null), "{stopped:#}");
    delete_and_assert_gone(&cluster, "by-hand");
}

fn orphan() {
    let cluster = installed();
    apply(&cluster, &machine("orphan", "Always", ""));
    let first = wait_next(&cluster, "orphan", "");
    cluster.kubectl(&["-n", "vms", "delete", "vm", "orphan", "--cascade=orphan", "--timeout=60s"]).assert_ok();
    let left = object(&cluster, "vmi", "orphan").expect("it is left");
    assert_eq!(
        (&left["metadata"]["ownerReferences"], &left["metadata"]["deletionTimestamp"]),
        (&Value::Null, &Value::Null),
        "{left:#}"
    );
    apply(&cluster, &machine("orphan", "Always", ""));
    let owned = |vmi: &Value| vmi["metadata"]["ownerReferences"][0]["kind"] == "VirtualMachine";
    let (taken, _) =
        wait_for("the instance to be taken over", MOMENT, || object(&cluster, "vmi", "orphan").filter(owned));
    assert_eq!(uid(&taken), uid(&first));
    wait_vm(&cluster, "orphan", "to run", |vm| word(vm) == "Running");
    delete_and_assert_gone(&cluster, "orphan");
}

fn admission() {
    let cluster = installed();
    let mut refused = machine("refused", "Sometimes", "");
    let spec = &mut refused["spec"]["template"]["spec"];
    spec["domain"]["devices"]["tpm"] = json!({});
    spec["domain"]["typo"] = json!(1);
    let paths = [
        "spec.runStrategy: ",
        "spec.template.spec.domain.devices.tpm: not supported",
        "spec.template.spec.domain.typo: unknown field",
    ];
    cluster.apply(&refused.to_string()).assert_fails(1, &paths);
    apply(&cluster, &machine("accepted", "Halted", ""));
    let change = json!({"spec": {"template": {"spec": {"domain": {"typo": 1}}}}});
    patch(&cluster, "accepted", &change).assert_fails(1, &["spec.template.spec.domain.typo: unknown field"]);
    patch(&cluster, "accepted", &json!({"metadata": {"labels": {"note": "mine"}}})).assert_ok();
    delete_and_assert_gone(&cluster, "accepted");
}

fn sized() {
    let cluster = installed();
    let instancetype = |name: &str, memory: &str| {
        json!({"apiVersion": "instancetype.kubevirt.io/v1beta1", "kind": "VirtualMachineInstancetype",
            "metadata": {"namespace": "vms", "name": name}, "spec": {"cpu": {"guest": 1}, "memory": {"guest": memory}}})
    };
    let preference = json!({"apiVersion": "instancetype.kubevirt.io/v1beta1", "kind": "VirtualMachineClusterPreference",
        "metadata": {"name": "linux"}, "spec": {"preferredTerminationGracePeriodSeconds": 4}});
    let mut vm = machine("sized", "Manual", "");
    let spec = &mut vm["spec"];
    spec["instancetype"] = json!({"kind": "VirtualMachineInstancetype", "name": "small"});
    spec["preference"] = json!({"name": "linux"});
    cluster
        .apply(&vm.to_string())
        .assert_fails(1, &["spec.instancetype.name: VirtualMachineInstancetype \"small\" does not exist"]);
    apply(&cluster, &instancetype("small", "136Mi"));
    apply(&cluster, &preference);
    let conflict = "VM field(s) spec.template.spec.domain.memory.guest conflicts with selected instance type";
    cluster.apply(&vm.to_string()).assert_fails(1, &[conflict]);
    let template = vm["spec"]["template"]["spec"].as_object_mut().expect("an object");
    template.remove("terminationGracePeriodSeconds");
    template["domain"].as_object_mut().expect("an object").remove("memory");
    apply(&cluster, &vm);
    let memory = |vmi: &Value| vmi["spec"]["domain"]["memory"]["guest"].clone();
    request(&cluster, "sized", &json!([{"action": "Start"}]));
    let first = wait_next(&cluster, "sized", "");
    assert_eq!((memory(&first), &first["spec"]["terminationGracePeriodSeconds"]), (json!("136Mi"), &json!(4)));
    assert_eq!(first["metadata"]["annotations"]["kubevirt.io/instancetype-name"], "small");
    let status = object(&cluster, "vm", "sized").expect("it exists")["status"].clone();
    let kept = status["instancetypeRef"]["controllerRevisionRef"]["name"].as_str().expect("a revision").to_owned();
    assert!(object(&cluster, "controllerrevisions.apps", &kept).is_some(), "{status:#}");
    apply(&cluster, &instancetype("small", "160Mi"));
    request(&cluster, "sized", &json!([{"action": "Stop", "uid": uid(&first)}, {"action": "Start"}]));
    assert_eq!(memory(&wait_next(&cluster, "sized", &uid(&first))), "136Mi");
    // Another one is for the next start.
    apply(&cluster, &instancetype("large", "144Mi"));
    let restart = |vm: &Value| condition(vm, "RestartRequired").is_some_and(|text| text.starts_with("True"));
    assert!(!restart(&object(&cluster, "vm", "sized").expect("it runs")));
    patch(&cluster, "sized", &json!({"spec": {"instancetype": {"name": "large"}}})).assert_ok();
    let vm = wait_vm(&cluster, "sized", "to need a restart for its instancetype", restart);
    assert_eq!(memory(&object(&cluster, "vmi", "sized").expect("it runs")), "136Mi", "{vm:#}");
    delete_and_assert_gone(&cluster, "sized");
    cluster.kubectl(&["delete", "virtualmachineclusterpreferences", "linux"]).assert_ok();
    cluster.kubectl(&["-n", "vms", "delete", "virtualmachineinstancetypes", "small", "large"]).assert_ok();
}
