//! Instances that cannot run yet, must not run, or end: phases and conditions say what and why.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, KERNEL_ARGUMENTS, Ran, trial, wait_for};

use crate::pods::busybox;
use crate::vmi::{condition, delete_and_assert_gone, installed, object, wait_instance, wait_ready};

/// A replica gives the Lease up when it is told to end; the other asks for it every two seconds.
const HAND_OVER: Duration = Duration::from_secs(30);

/// A Lease that is not renewed lasts 30 seconds.
const EXPIRY: Duration = Duration::from_secs(120);

/// Longer than a controller takes for an instance.
const MOMENT: Duration = Duration::from_secs(4);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CTRL-14
        trial("admission refuses fields by path, changes of a VM, a forged status", admission),
        // spec: CTRL-38
        trial("a VM of a megabyte runs, one that fits into no Secret is refused", megabyte),
        // spec: CTRL-15
        trial("a missing image or Secret, too few CPUs, a refused ADD are conditions", obstacles),
        // spec: CTRL-16
        trial("a VM that powers off succeeds, one whose launcher is killed fails", ends),
        // spec: CTRL-16
        trial("a VM whose pod is deleted powers off and succeeds", pod_deleted),
        // spec: CTRL-34
        trial("a VM that is removed without its finalizer leaves no pod", stripped),
        // spec: CTRL-17, CTRL-26
        trial("a controller hands over, the next starts a VM once KubeVirt is gone", hand_over),
    ]
}

/// Trials that no other may disturb.
pub(crate) fn alone() -> Vec<Trial> {
    vec![
        // spec: CTRL-16, CTRL-40
        trial("how a VM ended is known although no controller ran meanwhile", ended_unseen),
        // spec: CTRL-28
        trial("a replica that loses its Lease goes on serving and leads again", lease_lost),
    ]
}

/// An instance of namespace `vms` that boots the tests' guest with words on its kernel's command line.
pub(crate) fn instance(name: &str, words: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"namespace": "vms", "name": name},
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "domain": {
                "memory": {"guest": "128Mi"},
                "firmware": {"kernelBoot": {"kernelArgs": format!("{KERNEL_ARGUMENTS} {words}"), "container": {
                    "image": "localhost/tapvisor/guest-kernel:1", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd.img"}}},
                "devices": {"interfaces": [{"name": "default", "masquerade": {}}]},
            },
            "networks": [{"name": "default", "pod": {}}],
        },
    })
}

pub(crate) fn apply(cluster: &Cluster, object: &Value) {
    cluster.apply(&object.to_string()).assert_ok();
}

fn patch(cluster: &Cluster, name: &str, change: &Value) -> Ran {
    cluster.kubectl(&["-n", "vms", "patch", "vmi", name, "--type=merge", "-p", &change.to_string()])
}

/// More than a node of the cluster has.
fn ask_for_too_many_cpus(vmi: &mut Value) {
    vmi["spec"]["domain"]["cpu"] = json!({"cores": 1});
    vmi["spec"]["domain"]["resources"] = json!({"requests": {"cpu": "200"}});
}

fn admission() {
    let cluster = installed();
    let mut refused = instance("refused", "");
    refused["spec"]["domain"]["devices"]["tpm"] = json!({});
    refused["spec"]["domain"]["typo"] = json!(1);
    let paths = ["spec.domain.devices.tpm: not supported", "spec.domain.typo: unknown field"];
    cluster.apply(&refused.to_string()).assert_fails(1, &paths);
    let mut warned = instance("warned", "");
    warned["spec"]["domain"]["devices"]["autoattachMemBalloon"] = json!(true);
    // It stays where it is: no node has that many processors.
    ask_for_too_many_cpus(&mut warned);
    // KubeVirt's client for Go sends every instance with a status, and these two fields in it.
    warned["status"] = json!({"guestOSInfo": {}, "runtimeUser": 0, "phase": "Running"});
    cluster.apply(&warned.to_string()).assert_fails(1, &["only the controller writes it"]);
    warned["status"] = json!({"guestOSInfo": {}, "runtimeUser": 0});
    let ran = cluster.apply(&warned.to_string());
    assert!(ran.is_ok() && ran.stderr().contains("autoattachMemBalloon: has no effect"), "{}", ran.account());
    patch(&cluster, "warned", &json!({"spec": {"hostname": "other"}})).assert_fails(1, &["spec: cannot be changed"]);
    patch(&cluster, "warned", &json!({"status": {"phase": "Succeeded"}}))
        .assert_fails(1, &["only the controller writes it"]);
    patch(&cluster, "warned", &json!({"metadata": {"labels": {"note": "mine"}}})).assert_ok();
    delete_and_assert_gone(&cluster, &object(&cluster, "vmi", "warned").expect("it was applied"));
}

/// Applies an instance, waits for a condition with these words, and demands that it may still heal.
fn assert_obstacle(cluster: &Cluster, vmi: &Value, kind: &str, words: &[&str]) {
    apply(cluster, vmi);
    let name = vmi["metadata"]["name"].as_str().expect("a name");
    let told = |vmi: &Value| condition(vmi, kind).is_some_and(|text| words.iter().all(|word| text.contains(word)));
    let found = wait_instance(cluster, name, &format!("to have {kind} with {words:?}"), told);
    assert!(["Scheduling", "Pending"].contains(&found["status"]["phase"].as_str().unwrap_or_default()), "{found:#}");
    let about = format!("--field-selector=involvedObject.name={name}");
    let told = || {
        let events = cluster.kubectl(&["-n", "vms", "get", "events", "-o", "json", &about]).json();
        events["items"].as_array().filter(|events| !events.is_empty()).cloned()
    };
    // It is written after the condition.
    let events = wait_for(&format!("an event about {name}"), HAND_OVER, told).0;
    assert!(events.len() == 1 && events[0]["type"] == "Normal", "{events:#?}");
    delete_and_assert_gone(cluster, &found);
}

/// A VM without a kernel and a disk to boot from, with so many KiB of cloud-init data.
fn with_data(name: &str, kibibytes: usize) -> Value {
    let mut vmi = instance(name, "");
    let spec = &mut vmi["spec"];
    spec["terminationGracePeriodSeconds"] = json!(0);
    spec["domain"]["memory"]["guest"] = json!("1Mi");
    spec["domain"].as_object_mut().expect("an object").remove("firmware");
    spec["domain"]["devices"]["disks"] = json!([{"name": "seed", "disk": {"bus": "virtio"}}]);
    spec["volumes"] = json!([{"name": "seed", "cloudInitNoCloud": {"userData": "#".repeat(kibibytes << 10)}}]);
    vmi
}

fn megabyte() {
    let cluster = installed();
    let machine = |name: &str, kibibytes| {
        let spec = with_data(name, kibibytes)["spec"].take();
        json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"namespace": "vms", "name": name},
            "spec": {"runStrategy": "Always", "template": {"spec": spec}}})
    };
    for larger in [with_data("larger", 1100), machine("larger", 1100)] {
        let refused = cluster.apply(&larger.to_string());
        refused.assert_fails(1, &["at most 1048576 fit into its Secret"]);
        assert!(refused.stderr().len() < 1000, "{}", refused.account());
    }
    // Its instance, the Secret and the ControllerRevision hold the same data.
    apply(&cluster, &machine("large", 1000));
    wait_instance(&cluster, "large", "to run", |vmi| vmi["status"]["phase"] == "Running");
    crate::vm::delete_and_assert_gone(&cluster, "large");
}

fn obstacles() {
    let cluster = installed();
    let mut greedy = instance("greedy", "");
    ask_for_too_many_cpus(&mut greedy);
    assert_obstacle(&cluster, &greedy, "PodScheduled", &["False Unschedulable", "Insufficient cpu"]);
    let mut imageless = instance("imageless", "");
    imageless["spec"]["domain"]["firmware"]["kernelBoot"]["container"]["image"] = "localhost/missing:1".into();
    assert_obstacle(&cluster, &imageless, "Synchronized", &["False", "Image", "localhost/missing:1"]);
    let mut secretless = instance("secretless", "");
    secretless["spec"]["domain"]["devices"]["disks"] = json!([{"name": "seed", "disk": {"bus": "virtio"}}]);
    secretless["spec"]["volumes"] = json!([{"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": "absent"}}}]);
    assert_obstacle(&cluster, &secretless, "Synchronized", &["False FailedMount", "\"absent\" not found"]);
    let mut overlapping = instance("overlapping", "");
    overlapping["spec"]["networks"][0]["pod"] = json!({"vmNetworkCIDR": "10.244.0.0/16"});
    assert_obstacle(
        &cluster,
        &overlapping,
        "Synchronized",
        &["False FailedCreatePodSandBox CNI plugin tapvisor:", "10.244."],
    );
}

fn ends() {
    let cluster = installed();
    apply(&cluster, &instance("short", "guest.run=poweroff+-f"));
    let ended = wait_instance(&cluster, "short", "to succeed", |vmi| vmi["status"]["phase"] == "Succeeded");
    assert!(condition(&ended, "Ready").is_some_and(|text| text.starts_with("False GuestNotRunning")), "{ended:#}");
    delete_and_assert_gone(&cluster, &ended);

    apply(&cluster, &instance("killed", ""));
    let running = wait_ready(&cluster, "killed");
    on_launcher(&cluster, &running, "ctr --namespace k8s.io tasks kill --signal SIGKILL \"$id\"").assert_ok();
    let failed = wait_instance(&cluster, "killed", "to fail", |vmi| vmi["status"]["phase"] == "Failed");
    assert!(condition(&failed, "Synchronized").is_some_and(|text| text.contains("LauncherFailed")), "{failed:#}");
    delete_and_assert_gone(&cluster, &failed);
}

/// Runs a line of shell on the node of a running instance, without its kubelet; `$id` is the launcher's container.
pub(crate) fn on_launcher(cluster: &Cluster, running: &Value, line: &str) -> Ran {
    let (pod, node) =
        running["status"]["activePods"].as_object().and_then(|pods| pods.iter().next()).expect("it has a pod");
    let find = format!(
        r#"id=$(ctr --namespace k8s.io containers list --quiet 'labels."io.kubernetes.pod.uid"=={pod},labels."io.kubernetes.container.name"==compute')"#
    );
    let node = node.as_str().expect("a name");
    Ran::of(cluster.on_node(node, "bash").args(["-euo", "pipefail", "-c", &format!("{find}; {line}")]))
}

fn pod_deleted() {
    let cluster = installed();
    apply(&cluster, &instance("evicted", ""));
    let running = wait_ready(&cluster, "evicted");
    let label = format!("kubevirt.io/created-by={}", running["metadata"]["uid"].as_str().expect("a UID"));
    cluster.kubectl(&["-n", "vms", "delete", "pod", "-l", &label, "--timeout=170s"]).assert_ok();
    let ended = wait_instance(&cluster, "evicted", "to end", |vmi| {
        ["Succeeded", "Failed"].contains(&vmi["status"]["phase"].as_str().unwrap_or_default())
    });
    assert_eq!(ended["status"]["phase"], "Succeeded", "{ended:#}");
    delete_and_assert_gone(&cluster, &ended);
}

/// What keeps an instance until its pods are gone is taken away: the pods go all the same.
fn stripped() {
    let cluster = installed();
    apply(&cluster, &instance("stripped", ""));
    let running = wait_ready(&cluster, "stripped");
    cluster.kubectl(&["-n", "vms", "delete", "vmi", "stripped", "--wait=false"]).assert_ok();
    patch(&cluster, "stripped", &json!({"metadata": {"finalizers": null}})).assert_ok();
    let label = format!("kubevirt.io/created-by={}", running["metadata"]["uid"].as_str().expect("a UID"));
    cluster.kubectl(&["-n", "vms", "wait", "--for=delete", "pod", "-l", &label, "--timeout=170s"]).assert_ok();
}

fn scale_controller(cluster: &Cluster, replicas: usize) {
    let replicas_flag = format!("--replicas={replicas}");
    cluster.kubectl(&["-n", "tapvisor", "scale", "deployment", "tapvisor-controller", &replicas_flag]).assert_ok();
    let condition = if replicas == 0 { "--for=delete" } else { "--for=condition=Ready" };
    let wait = ["-n", "tapvisor", "wait", condition, "pod", "-l", "app=tapvisor-controller", "--timeout=170s"];
    cluster.kubectl(&wait).assert_ok();
}

fn ended_unseen() {
    let cluster = installed();
    apply(&cluster, &instance("unseen", ""));
    let running = wait_ready(&cluster, "unseen");
    scale_controller(&cluster, 0);
    let label = format!("kubevirt.io/created-by={}", running["metadata"]["uid"].as_str().expect("a UID"));
    cluster.kubectl(&["-n", "vms", "delete", "pod", "-l", &label, "--wait=false"]).assert_ok();
    let phase =
        ["-n", "vms", "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod", "-l", &label, "--timeout=170s"];
    let seen = cluster.kubectl(&phase);
    let refused = cluster.apply(&instance("unchecked", "").to_string());
    let labelled = patch(&cluster, "unseen", &json!({"metadata": {"labels": {"note": "mine"}}}));
    scale_controller(&cluster, 2);
    seen.assert_ok();
    // Nothing is accepted that no controller has checked; what exists can be labelled.
    refused.assert_fails(1, &["failed calling webhook \"instances.tapvisor.io\""]);
    labelled.assert_ok();
    let ended = wait_instance(&cluster, "unseen", "to end", |vmi| {
        ["Succeeded", "Failed"].contains(&vmi["status"]["phase"].as_str().unwrap_or_default())
    });
    assert_eq!(ended["status"]["phase"], "Succeeded", "{ended:#}");
    delete_and_assert_gone(&cluster, &ended);
}

pub(crate) fn holder(cluster: &Cluster) -> String {
    let ran = cluster.kubectl(&[
        "-n",
        "tapvisor",
        "get",
        "lease",
        "tapvisor-controller",
        "-o",
        "jsonpath={.spec.holderIdentity}",
    ]);
    ran.text().trim().to_owned()
}

fn hand_over() {
    let cluster = installed();
    // A part of KubeVirt, as far as a controller that starts can see: the next one does nothing until it is gone.
    let mut foreign = busybox("vms", "virt-api", "node1", "exec sleep 100000");
    foreign["metadata"]["labels"] = json!({"kubevirt.io": "virt-api"});
    apply(&cluster, &foreign);
    let first = holder(&cluster);
    cluster.kubectl(&["-n", "tapvisor", "delete", "pod", &first, "--wait=false"]).assert_ok();
    let (next, _) = wait_for("another replica to lead", HAND_OVER, || {
        Some(holder(&cluster)).filter(|holder| !holder.is_empty() && *holder != first)
    });
    assert_ne!(first, next);
    // Two: the passes over both wait for the caches of a controller that starts.
    const AFTER: [&str; 2] = ["after", "after-too"];
    AFTER.iter().for_each(|name| apply(&cluster, &instance(name, "")));
    std::thread::sleep(MOMENT);
    for name in AFTER {
        let untouched = object(&cluster, "vmi", name).expect("it was applied");
        assert_eq!(
            (&untouched["status"], &untouched["metadata"]["finalizers"]),
            (&Value::Null, &Value::Null),
            "{untouched:#}"
        );
    }
    cluster.kubectl(&["-n", "vms", "delete", "pod", "virt-api", "--timeout=60s"]).assert_ok();
    for running in AFTER.map(|name| wait_ready(&cluster, name)) {
        delete_and_assert_gone(&cluster, &running);
    }
}

fn lease_lost() {
    let cluster = installed();
    let replicas = || {
        let pods = cluster.kubectl(&["-n", "tapvisor", "get", "pods", "-l", "app=tapvisor-controller", "-o", "json"]);
        let pods = pods.json()["items"].as_array().cloned().expect("a list");
        let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].clone();
        pods.iter().map(|pod| (pod["metadata"]["name"].clone(), restarts(pod))).collect::<Vec<_>>()
    };
    let before = replicas();
    let taken = json!({"spec": {"holderIdentity": "another"}}).to_string();
    let patch = ["-n", "tapvisor", "patch", "lease", "tapvisor-controller", "--type=merge", "-p", &taken];
    cluster.kubectl(&patch).assert_ok();
    wait_for("a replica to lead again", EXPIRY, || {
        let holder = Value::from(holder(&cluster));
        before.iter().any(|(name, _)| *name == holder).then_some(())
    });
    assert_eq!(replicas(), before);
    apply(&cluster, &instance("led", ""));
    delete_and_assert_gone(&cluster, &wait_ready(&cluster, "led"));
}
