//! The official virtctl, unmodified, against one VM that its trials share: versions, and actions on the guest.

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, trial, wait_for};

use crate::pods::{cluster_ips, fetch};
use crate::vmi::{condition, installed, object, wait_instance, wait_ready};
use crate::vmi_trouble::instance;

/// A guest under emulation, on two processors that run a cluster too.
const GUEST: Duration = Duration::from_secs(180);

/// The name of the shared VM.
pub(crate) const VM: &str = "tool";

/// `socket(AF_INET6, SOCK_DGRAM)`, `bind` to port 7, then `recvfrom` and `sendto` for ever: an ELF file that answers every
/// datagram with itself. busybox has no server for datagrams.
const UDP_ECHO: &str = "7f454c4602010100000000000000000002003e0001000000780040000000000040000000000000000000000000000000000000004000380001000000000000000100000005000000000000000000000000004000000000000000400000000000080100000000000008010000000000000010000000000000b829000000bf0a000000be0200000031d20f0589c3b83100000089df488d3551000000ba1c0000000f054881ec00100000c744241c1c000000b82d00000089df488d742440ba000800004531d24989e04c8d4c241c0f0589c2b82c00000089df488d7424404531d24989e04c634c241c0f05ebbd0a000007000000000000000000000000000000000000000000000000";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: SUB-1, SUB-20
        trial("virtctl version and kubectl api-resources know the server", version),
        // spec: SUB-3
        trial("virtctl pauses and unpauses a guest and says why it cannot", pause),
        // spec: SUB-3
        trial("virtctl resets a guest and reboots it by its power button", reboot),
        // spec: SUB-3
        trial("virtctl reports what does not exist as KubeVirt does", missing),
        // spec: SUB-3
        trial("virtctl says that a guest without an agent cannot be asked", without_agent),
        // spec: SUB-7
        trial("virtctl expose makes Services of each type that reach the guest", expose),
    ]
}

/// The cluster with the product, once the API server reaches its subresource API.
pub(crate) fn available() -> Arc<Cluster> {
    let cluster = installed();
    let is_up = |version: &str| {
        let name = format!("{version}.subresources.kubevirt.io");
        let service = cluster.kubectl(&["get", "apiservice", &name, "-o", "json"]);
        service.is_ok() && condition(&service.json(), "Available").is_some_and(|text| text.starts_with("True"))
    };
    let both = || ["v1", "v1alpha3"].into_iter().all(is_up).then_some(());
    wait_for("the subresource API to be available", GUEST, both);
    cluster
}

/// The shared VM, for one trial at a time. It runs and is not paused.
pub(crate) struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    _alone: MutexGuard<'static, ()>,
}

impl Shared {
    pub(crate) fn lock() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        static MADE: OnceLock<()> = OnceLock::new();
        // A trial that failed leaves a VM that the next one looks at for itself.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = available();
        MADE.get_or_init(|| {
            let echo = format!("echo+{UDP_ECHO}|xxd+-r+-p>/bin/echod;chmod+755+/bin/echod;echod&");
            let mut vm = instance(VM, &format!("guest.run={echo}"));
            vm["spec"]["domain"]["devices"]["autoattachGraphicsDevice"] = json!(true);
            cluster.apply(&vm.to_string()).assert_ok();
        });
        wait_ready(&cluster, VM);
        Self { cluster, _alone: alone }
    }

    /// Runs virtctl as the administrator, in namespace `vms`.
    pub(crate) fn virtctl(&self, arguments: &[&str]) -> Ran {
        virtctl(&self.cluster, arguments)
    }
}

/// Runs virtctl as the administrator, in namespace `vms`.
pub(crate) fn virtctl(cluster: &Cluster, arguments: &[&str]) -> Ran {
    Ran::of(command(cluster).args(arguments))
}

/// virtctl as the administrator, in namespace `vms`.
pub(crate) fn command(cluster: &Cluster) -> Command {
    let mut command = cluster.command("virtctl");
    command.args(["--namespace", "vms"]);
    command
}

fn get(cluster: &Cluster, path: &str) -> Value {
    cluster.kubectl(&["get", "--raw", path]).json()
}

const VMI_PATH: &str = "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{name}";

fn version() {
    let cluster = available();
    let ran = virtctl(&cluster, &["version"]);
    assert!(ran.is_ok(), "{}", ran.account());
    let server = ran.stdout().lines().find(|line| line.starts_with("Server Version")).map(str::to_owned);
    assert!(server.is_some_and(|line| line.contains("GitVersion:\"v1.7.0\"")), "{}", ran.account());
    let names = cluster.kubectl(&["api-resources", "--api-group=subresources.kubevirt.io", "-o", "name"]);
    assert!(names.is_ok(), "{}", names.account());
    for version in ["v1", "v1alpha3"] {
        let base = format!("/apis/subresources.kubevirt.io/{version}");
        let resources = get(&cluster, &base);
        assert_eq!(resources["kind"], "APIResourceList");
        assert_eq!(get(&cluster, &format!("{base}/healthz"))["apiserver"]["connectivity"], "ok");
    }
    let paths = |document: &str| {
        let path = format!("{VMI_PATH}/explain");
        wait_for(&format!("the API server's {document}"), GUEST, || {
            Some(get(&cluster, document)).filter(|found| found["paths"][&path].is_object())
        });
    };
    paths("/openapi/v3/apis/subresources.kubevirt.io/v1");
    // The API server asks again a minute after it asked an API that was not there yet.
    paths("/openapi/v2");
    // The skew of versions is no news for a client that fails.
    let failed = virtctl(&cluster, &["pause", "vmi", "nothing"]);
    assert!(!failed.is_ok() && !failed.stderr().contains("differ"), "{}", failed.account());
}

fn pause() {
    let shared = Shared::lock();
    let paused = |vmi: &Value| condition(vmi, "Paused").is_some_and(|text| text.starts_with("True PausedByUser"));
    shared.virtctl(&["unpause", "vmi", VM]).assert_fails(1, &["VMI is not paused"]);
    let dry = shared.virtctl(&["pause", "vmi", VM, "--dry-run"]);
    assert!(dry.stdout().contains("scheduled to pause"), "{}", dry.account());
    shared.virtctl(&["unpause", "vmi", VM]).assert_fails(1, &["VMI is not paused"]);
    shared.virtctl(&["pause", "vmi", VM]).assert_ok();
    wait_instance(&shared.cluster, VM, "to be paused", paused);
    shared.virtctl(&["pause", "vmi", VM]).assert_fails(1, &["VMI is already paused"]);
    shared.virtctl(&["soft-reboot", VM]).assert_fails(1, &["VMI is paused"]);
    shared.virtctl(&["unpause", "vmi", VM]).assert_ok();
    wait_ready(&shared.cluster, VM);
}

/// How often the guest was reset, as its launcher says.
fn resets(cluster: &Cluster) -> u64 {
    let pods = cluster.kubectl(&["-n", "vms", "get", "pods", "-l", &format!("vmi.kubevirt.io/id={VM}"), "-o", "name"]);
    let pod = pods.text();
    let status = cluster.kubectl(&["-n", "vms", "exec", pod.trim(), "--", "tapvisor-launcher", "ctl", "status"]);
    status.json()["resets"].as_u64().unwrap_or_else(|| panic!("no count of resets: {}", status.account()))
}

fn reboot() {
    let shared = Shared::lock();
    let cluster = &shared.cluster;
    let uid = wait_ready(cluster, VM)["metadata"]["uid"].clone();
    let before = resets(cluster);
    let reset = shared.virtctl(&["reset", VM]);
    assert!(reset.is_ok(), "{}", reset.account());
    wait_for("the reset", GUEST, || (resets(cluster) > before).then_some(()));
    // The guest listens to its power button once it is up; each press before that is lost.
    wait_for("the guest to hear the button, shut down and boot", GUEST, || {
        shared.virtctl(&["soft-reboot", VM]).assert_ok();
        std::thread::sleep(Duration::from_secs(3));
        (resets(cluster) >= before + 2).then_some(())
    });
    let after = wait_ready(cluster, VM);
    assert_eq!(after["metadata"]["uid"], uid, "the same instance runs on");
    assert_eq!(after["status"]["phase"], "Running");
}

fn without_agent() {
    let shared = Shared::lock();
    for verb in ["guestosinfo", "userlist", "fslist"] {
        shared.virtctl(&[verb, VM]).assert_fails(1, &["VMI does not have guest agent connected"]);
    }
}

fn expose() {
    let shared = Shared::lock();
    for kind in ["ClusterIP", "NodePort", "LoadBalancer"] {
        let name = format!("exposed-{}", kind.to_lowercase());
        let policy = "--ip-family-policy=RequireDualStack";
        let ran = shared.virtctl(&["expose", "vmi", VM, "--name", &name, "--port=80", "--type", kind, policy]);
        assert!(ran.is_ok() && ran.stdout().contains("successfully created"), "{}", ran.account());
        let service = object(&shared.cluster, "service", &name).expect("it was made");
        assert_eq!(service["spec"]["selector"], json!({"vmi.kubevirt.io/id": VM}));
        for address in cluster_ips(&service) {
            let page = fetch(&shared.cluster, "vms", "client-node1", &address, 80);
            assert!(page.contains(VM), "{page}");
        }
        shared.cluster.kubectl(&["-n", "vms", "delete", "service", &name]).assert_ok();
    }
}

fn missing() {
    let cluster = available();
    for (arguments, text) in [
        (&["reset", "nothing"][..], "virtualmachineinstance.kubevirt.io \"nothing\" not found"),
        (&["soft-reboot", "nothing"], "virtualmachineinstance.kubevirt.io \"nothing\" not found"),
        (&["guestosinfo", "nothing"], "not found"),
        (&["userlist", "nothing"], "not found"),
        (&["fslist", "nothing"], "not found"),
        (&["console", "nothing"], "not found"),
        (&["port-forward", "--stdio=true", "vmi/nothing", "80"], "not found"),
    ] {
        virtctl(&cluster, arguments).assert_fails(1, &[text]);
    }
    let mut waiting = instance("waiting", "");
    waiting["spec"]["domain"]["resources"] = json!({"requests": {"cpu": "200"}});
    cluster.apply(&waiting.to_string()).assert_ok();
    wait_instance(&cluster, "waiting", "to have a pod", |vmi| vmi["status"]["phase"] == "Scheduling");
    virtctl(&cluster, &["pause", "vmi", "waiting"]).assert_fails(1, &["VM is not running"]);
    virtctl(&cluster, &["reset", "waiting"]).assert_fails(1, &["non-running VMI with phase Scheduling"]);
    cluster.kubectl(&["-n", "vms", "delete", "vmi", "waiting", "--timeout=100s"]).assert_ok();
}
