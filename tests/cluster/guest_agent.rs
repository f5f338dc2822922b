//! Debian's guest agent in VMs of the cluster: what status and virtctl say, freezing, a reboot, a guest that misuses its channel.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, cache_file, trial, wait_for};

use crate::virtctl::{available, virtctl};
use crate::vm::machine;
use crate::vmi::{condition, delete_and_assert_gone, wait_instance, wait_ready};
use crate::vmi_trouble::{apply, instance};

/// A guest under emulation, on two processors that run a cluster too.
const GUEST: Duration = Duration::from_secs(180);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CTRL-31, SUB-9, SUB-10, AGENT-3, AGENT-5
        trial("virtctl and status show what Debian's agent says of a guest", honest),
        // spec: AGENT-6, SUB-12
        trial("keys and passwords reach a guest by its agent, changed ones too", credentials),
        // spec: AGENT-2
        trial("a guest that misuses its agent's channel stays as it was to others", hostile),
    ]
}

/// The cluster with the product and the guest that has an agent.
fn with_guest() -> Arc<Cluster> {
    static IMPORTED: OnceLock<()> = OnceLock::new();
    let cluster = available();
    IMPORTED.get_or_init(|| cluster.import(&cache_file("guest-agent/images")));
    cluster
}

/// An instance whose image has the agent.
pub(crate) fn with_agent(name: &str, words: &str) -> Value {
    let mut vmi = instance(name, words);
    let spec = &mut vmi["spec"];
    spec["domain"]["memory"]["guest"] = json!("160Mi");
    spec["domain"]["firmware"]["kernelBoot"]["container"]["image"] = json!("localhost/tapvisor/guest-agent:1");
    spec["domain"]["devices"]["disks"] = json!([{"name": "scratch", "disk": {"bus": "virtio"}}]);
    spec["volumes"] = json!([{"name": "scratch", "emptyDisk": {"capacity": "16Mi"}}]);
    vmi
}

fn is_connected(vmi: &Value) -> bool {
    condition(vmi, "AgentConnected").as_deref() == Some("True")
}

/// A subresource of an instance that virtctl has no verb for.
fn put(cluster: &Cluster, name: &str, subresource: &str, body: &str) -> Ran {
    let path = format!("/apis/subresources.kubevirt.io/v1/namespaces/vms/virtualmachineinstances/{name}/{subresource}");
    let file = cluster.logs().join(format!("{name}-{subresource}.json"));
    std::fs::write(&file, body).expect("a file for the body");
    cluster.kubectl(&["replace", "--raw", &path, "-f", &file.display().to_string()])
}

fn honest() {
    let cluster = with_guest();
    let mut vmi = with_agent("asked", "guest.run=agent");
    vmi["spec"]["readinessProbe"] = json!({"guestAgentPing": {}, "periodSeconds": 2, "timeoutSeconds": 5});
    apply(&cluster, &vmi);
    let vmi = wait_instance(&cluster, "asked", "to have an agent and an address", |vmi| {
        is_connected(vmi) && vmi["status"]["interfaces"][0]["interfaceName"] == "eth0"
    });
    let nic = &vmi["status"]["interfaces"][0];
    assert_eq!(nic["infoSource"], "domain, guest-agent");
    let pods = cluster.kubectl(&["-n", "vms", "get", "pods", "-l", "vmi.kubevirt.io/id=asked", "-o", "json"]).json();
    assert_eq!(nic["ipAddress"], pods["items"][0]["status"]["podIP"], "the pod's address, not the guest's own");
    assert_eq!(vmi["status"]["guestOSInfo"]["id"], "tapvisor");
    wait_ready(&cluster, "asked");

    let info = virtctl(&cluster, &["guestosinfo", "asked"]).json();
    assert_eq!(
        (&info["os"]["prettyName"], &info["userList"][0]["userName"]),
        (&json!("Tapvisor test guest 1"), &json!("fedora")),
        "{info}"
    );
    let users = virtctl(&cluster, &["userlist", "asked"]);
    assert!(users.is_ok() && users.stdout().contains("fedora"), "{}", users.account());
    let filesystems = virtctl(&cluster, &["fslist", "asked"]);
    assert!(filesystems.is_ok() && filesystems.stdout().contains("/mnt"), "{}", filesystems.account());

    let frozen = |vmi: &Value| vmi["status"]["fsFreezeStatus"] == "frozen";
    for _ in 0..2 {
        put(&cluster, "asked", "freeze", "{\"unfreezeTimeout\": \"0s\"}").assert_ok();
    }
    wait_instance(&cluster, "asked", "to be frozen", frozen);
    for _ in 0..2 {
        put(&cluster, "asked", "unfreeze", "{}").assert_ok();
    }
    wait_instance(&cluster, "asked", "to be thawed", |vmi| !frozen(vmi));
    // Long enough to be seen frozen on a slow machine.
    put(&cluster, "asked", "freeze", "{\"unfreezeTimeout\": \"20s\"}").assert_ok();
    wait_instance(&cluster, "asked", "to be frozen again", frozen);
    wait_instance(&cluster, "asked", "to be thawed by itself", |vmi| !frozen(vmi));
    put(&cluster, "asked", "freeze", "{\"unfreezeTimeout\": \"soon\"}").assert_fails(1, &["unfreezeTimeout"]);

    let uid = vmi["metadata"]["uid"].clone();
    let connected = |vmi: &Value| {
        let conditions = vmi["status"]["conditions"].as_array().into_iter().flatten();
        let mut agent = conditions.filter(|condition| condition["type"] == "AgentConnected");
        agent.next().map(|condition| condition["lastTransitionTime"].clone())
    };
    let before = connected(&wait_instance(&cluster, "asked", "to have an agent", is_connected));
    // The time of a condition has whole seconds.
    std::thread::sleep(Duration::from_secs(2));
    virtctl(&cluster, &["soft-reboot", "asked"]).assert_ok();
    let after = wait_instance(&cluster, "asked", "to have another agent after its reboot", |vmi| {
        is_connected(vmi) && connected(vmi) != before
    });
    assert_eq!(after["metadata"]["uid"], uid, "the same instance runs on");
    delete_and_assert_gone(&cluster, &after);
}

/// Key and password of a user of the guest.
fn secrets(cluster: &Cluster, key: &str) {
    let secret = |name: &str, data: Value| {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "vms", "name": name}, "stringData": data});
        cluster.apply(&object.to_string()).assert_ok();
    };
    secret("agent-keys", json!({"key": key}));
    secret("agent-passwords", json!({"fedora": "correct horse"}));
}

fn credentials() {
    let cluster = with_guest();
    secrets(&cluster, "ssh-ed25519 FIRST a@b");
    let mut vmi = with_agent("keyed", "guest.run=agent");
    let by_agent = |secret: &str, agent: Value| json!({"source": {"secret": {"secretName": secret}}, "propagationMethod": {"qemuGuestAgent": agent}});
    vmi["spec"]["accessCredentials"] = json!([
        {"sshPublicKey": by_agent("agent-keys", json!({"users": ["fedora"]}))},
        {"userPassword": by_agent("agent-passwords", json!({}))},
    ]);
    // virtctl finds the Secrets in the machine, not in its instance.
    let mut vm = machine("keyed", "Always", "");
    vm["spec"]["template"]["spec"] = vmi["spec"].take();
    apply(&cluster, &vm);
    wait_instance(&cluster, "keyed", "to have its credentials", |vmi| {
        condition(vmi, "AccessCredentialsSynchronized").as_deref() == Some("True")
    });
    let pods = cluster.kubectl(&["-n", "vms", "get", "pods", "-l", "vmi.kubevirt.io/id=keyed", "-o", "name"]).text();
    let read = |file: &str| {
        let program = ["tapvisor-launcher", "ctl", "agent-execute", "5", "cat", file];
        cluster.kubectl(&[&["-n", "vms", "exec", pods.trim(), "--"], &program[..]].concat()).stdout()
    };
    let keys = "/srv/fedora/.ssh/authorized_keys";
    wait_for("key and password in the guest", GUEST, || {
        let found = (read(keys), read("/run/passwords"));
        (found.0.trim() == "ssh-ed25519 FIRST a@b" && found.1.trim() == "fedora:correct horse").then_some(())
    });
    let change = |words: &[&str]| {
        let user = ["--user", "fedora", "--force", "keyed"];
        virtctl(&cluster, &[&["credentials"][..], words, &user].concat()).assert_ok();
    };
    change(&["add-ssh-key", "--value", "ssh-ed25519 SECOND a@b"]);
    change(&["remove-ssh-key", "--value", "ssh-ed25519 FIRST a@b"]);
    change(&["set-password", "--password", "battery staple"]);
    // The kubelet brings a changed Secret within a minute or two.
    wait_for("the changed key and password to be in the guest", GUEST, || {
        let found = (read(keys), read("/run/passwords"));
        (found.0.trim() == "ssh-ed25519 SECOND a@b" && found.1.contains("fedora:battery staple")).then_some(())
    });
    crate::vm::delete_and_assert_gone(&cluster, "keyed");
}

fn hostile() {
    let cluster = with_guest();
    // An endless line of wrong types, and the channel opened and closed again and again; no agent in between.
    let flood = "flood(){+while+:;do+yes+'{\"return\":[7]}'|head+-c+9999999>$(agent-port);done;};flood&";
    apply(&cluster, &with_agent("flood", &format!("guest.run={flood}")));
    let vmi = wait_ready(&cluster, "flood");
    for verb in ["guestosinfo", "userlist", "fslist"] {
        virtctl(&cluster, &[verb, "flood"]).assert_fails(1, &["VMI does not have guest agent connected"]);
    }
    virtctl(&cluster, &["pause", "vmi", "flood"]).assert_ok();
    wait_instance(&cluster, "flood", "to be paused", |vmi| condition(vmi, "Paused").is_some());
    virtctl(&cluster, &["unpause", "vmi", "flood"]).assert_ok();
    wait_for("the instance to be ready again", GUEST, || Some(wait_ready(&cluster, "flood")));
    delete_and_assert_gone(&cluster, &vmi);
}
