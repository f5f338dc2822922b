//! VirtualMachines whose guests end: a start that fails again and again, and a run strategy of one run.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, trial};

use crate::vm::{delete_and_assert_gone, machine, request, uid, wait_vm, word};
use crate::vmi::{condition, installed, object};
use crate::vmi_trouble::apply;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: VM-31
        trial("a VM that fails before its guest runs is tried again, ever later", crash_loop),
        // spec: VM-33
        trial("a VM that is run by hand stays as its guest's crash left it", crashed),
        // spec: VM-32
        trial("a VM that runs once is not tried again after its guest ended", once),
    ]
}

/// The machine's failed starts in a row, the instance that was counted last, and when the next start is due.
fn failed(vm: &Value) -> (u64, &str, &str) {
    let failure = &vm["status"]["startFailure"];
    let text = |field: &str| failure[field].as_str().unwrap_or_default();
    (
        failure["consecutiveFailCount"].as_u64().unwrap_or_default(),
        text("lastFailedVMIUID"),
        text("retryAfterTimestamp"),
    )
}

fn crash_loop() {
    let cluster = installed();
    let mut vm = machine("crashes", "Always", "");
    // The kernel is in the image, and no kernel that the machine could boot.
    let container = &mut vm["spec"]["template"]["spec"]["domain"]["firmware"]["kernelBoot"]["container"];
    container["kernelPath"] = container["initrdPath"].clone();
    apply(&cluster, &vm);
    let backs_off = |count: u64| {
        wait_vm(&cluster, "crashes", "to back off", move |vm| word(vm) == "CrashLoopBackOff" && failed(vm).0 == count)
    };
    let first = backs_off(1);
    let second = backs_off(2);
    assert_ne!(failed(&first).1, failed(&second).1, "another instance failed");
    let due = (timestamp(&cluster, failed(&first).2), timestamp(&cluster, failed(&second).2));
    // 10 s after the first failure, 40 s after the second.
    assert!(due.1 >= due.0 + 30, "{due:?}");
    delete_and_assert_gone(&cluster, "crashes");
}

/// Seconds since 1970, as date(1) reads a time.
fn timestamp(cluster: &Cluster, text: &str) -> u64 {
    let ran = tests::Ran::of(cluster.command("date").args(["-d", text, "+%s"]));
    ran.text().trim().parse().unwrap_or_else(|_| panic!("{text:?} is no time: {}", ran.account()))
}

fn crashed() {
    let cluster = installed();
    apply(&cluster, &machine("panics", "Manual", "guest.run=echo+c+>/proc/sysrq-trigger"));
    request(&cluster, "panics", &json!([{"action": "Start"}]));
    let stopped =
        wait_vm(&cluster, "panics", "to be stopped", |vm| word(vm) == "Stopped" && vm["status"]["created"] == true);
    let vmi = object(&cluster, "vmi", "panics").expect("it is kept, to be looked at");
    assert_eq!(vmi["status"]["phase"], "Failed", "{vmi:#}");
    // The launcher's code for a guest that crashed.
    let told = condition(&vmi, "Synchronized").unwrap_or_default();
    assert!(told.contains("LauncherFailed") && told.contains("code 7"), "{told}");
    assert!(stopped["status"]["startFailure"].is_null(), "a guest that ran is no start that failed: {stopped:#}");
    delete_and_assert_gone(&cluster, "panics");
}

fn once() {
    let cluster = installed();
    apply(&cluster, &machine("once", "Once", "guest.run=poweroff+-f"));
    let ended =
        wait_vm(&cluster, "once", "to be stopped", |vm| word(vm) == "Stopped" && vm["status"]["created"] == true);
    assert_eq!(ended["status"]["runStrategy"], "Once");
    let vmi = object(&cluster, "vmi", "once").expect("it is kept, to be looked at");
    assert_eq!(vmi["status"]["phase"], "Succeeded", "{vmi:#}");
    // Without its instance the machine does not begin again.
    cluster.kubectl(&["-n", "vms", "delete", "vmi", "once", "--timeout=60s"]).assert_ok();
    let stopped = wait_vm(&cluster, "once", "to stay", |vm| word(vm) == "Stopped" && vm["status"]["created"] == false);
    assert_eq!(condition(&stopped, "Ready").as_deref(), Some("False VMINotExists VMI does not exist"));
    assert!(object(&cluster, "vmi", "once").is_none_or(|later| uid(&later) == uid(&vmi)), "{stopped:#}");
    delete_and_assert_gone(&cluster, "once");
}
