//! What each run strategy makes of a guest that crashes, one that powers off and a launcher that is killed; links of a guest.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, trial, wait_for};

use crate::pods::{fetch, in_pod};
use crate::vm::{START, delete_and_assert_gone, machine, patch, request, uid, wait_next, wait_vm, word};
use crate::vmi::{condition, installed, object};
use crate::vmi_trouble::{apply, on_launcher};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: VM-9
        trial("a killed launcher is followed as each run strategy says", killed),
        // spec: VM-9
        trial("a guest's crash is followed as each run strategy says", crashed),
        // spec: CTRL-53
        trial("a VM's link goes down and up while its guest runs", link),
    ]
}

/// Waits for an instance of a machine's name with another UID, in whatever phase.
fn wait_instance(cluster: &Cluster, name: &str, earlier: &str) -> Value {
    let ask = || object(cluster, "vmi", name).filter(|vmi| uid(vmi) != earlier);
    wait_for(&format!("an instance {name} other than {earlier:?}"), START, ask).0
}

/// Waits until a machine has stopped, and demands that its instance with this UID is kept in a phase.
fn assert_kept(cluster: &Cluster, name: &str, instance: &str, phase: &str) {
    wait_vm(cluster, name, "to be stopped", |vm| word(vm) == "Stopped" && vm["status"]["created"] == true);
    let vmi = object(cluster, "vmi", name).expect("it is kept, to be looked at");
    assert_eq!((uid(&vmi).as_str(), &vmi["status"]["phase"]), (instance, &json!(phase)), "{vmi:#}");
}

fn killed() {
    let cluster = installed();
    let machines = [("kill-always", "Always"), ("kill-once", "Once"), ("kill-manual", "Manual")];
    machines.iter().for_each(|(name, strategy)| apply(&cluster, &machine(name, strategy, "")));
    request(&cluster, "kill-manual", &json!([{"action": "Start"}]));
    let instances = machines.map(|(name, _)| wait_next(&cluster, name, ""));
    for instance in &instances {
        on_launcher(&cluster, instance, "ctr --namespace k8s.io tasks kill --signal SIGKILL \"$id\"").assert_ok();
    }
    let [always, once, manual] = instances.map(|instance| uid(&instance));
    assert_kept(&cluster, "kill-once", &once, "Failed");
    assert_kept(&cluster, "kill-manual", &manual, "Failed");
    wait_next(&cluster, "kill-always", &always);
    machines.iter().for_each(|(name, _)| delete_and_assert_gone(&cluster, name));
}

fn crashed() {
    const CRASH: &str = "guest.run=sleep+5;echo+c+>/proc/sysrq-trigger";
    let cluster = installed();
    let machines = [
        ("crash-always", "Always", CRASH),
        ("crash-rerun", "RerunOnFailure", CRASH),
        ("crash-once", "Once", CRASH),
        ("off-manual", "Manual", "guest.run=poweroff+-f"),
    ];
    machines.iter().for_each(|(name, strategy, words)| apply(&cluster, &machine(name, strategy, words)));
    request(&cluster, "off-manual", &json!([{"action": "Start"}]));
    let instances = machines.map(|(name, _, _)| uid(&wait_instance(&cluster, name, "")));
    let [always, rerun, once, off] = &instances;
    for (name, earlier) in [("crash-always", always), ("crash-rerun", rerun)] {
        wait_instance(&cluster, name, earlier);
    }
    assert_kept(&cluster, "crash-once", once, "Failed");
    assert_kept(&cluster, "off-manual", off, "Succeeded");
    machines.iter().for_each(|(name, _, _)| delete_and_assert_gone(&cluster, name));
}

fn link() {
    let cluster = installed();
    apply(&cluster, &machine("unplugged", "Always", ""));
    let running = wait_next(&cluster, "unplugged", "");
    let address = running["status"]["interfaces"][0]["ipAddress"].as_str().expect("an address").to_owned();
    let page = || fetch(&cluster, "vms", "client-node1", &address, 80);
    assert!(!page().is_empty());
    let interfaces = &running["spec"]["domain"]["devices"]["interfaces"];
    let set = |state: &str| {
        let mut interfaces = interfaces.clone();
        interfaces[0]["state"] = json!(state);
        let spec = json!({"domain": {"devices": {"interfaces": interfaces}}});
        patch(&cluster, "unplugged", &json!({"spec": {"template": {"spec": spec}}})).assert_ok();
        let is_set = || {
            let vmi = object(&cluster, "vmi", "unplugged").filter(|vmi| uid(vmi) == uid(&running))?;
            (vmi["status"]["interfaces"][0]["linkState"] == state).then_some(())
        };
        wait_for(&format!("the link to be {state}"), START, is_set);
        let vm = object(&cluster, "vm", "unplugged").expect("it exists");
        assert_eq!(condition(&vm, "RestartRequired"), None, "{vm:#}");
    };
    set("down");
    let ask = format!(r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 2 {address} 80");
    assert!(!in_pod(&cluster, "vms", "client-node1", &ask).stdout().contains(" 200 "), "the guest is reached");
    set("up");
    assert!(!page().is_empty());
    delete_and_assert_gone(&cluster, "unplugged");
}
