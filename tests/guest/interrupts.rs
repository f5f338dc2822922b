//! Ctrl-C at any moment: before "running" everything is taken back, afterwards the guest is stopped gracefully.

use std::process::Stdio;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;
use tests::{dist_file, trial};

use crate::manifest::Vm;
use crate::vm::Host;

pub(crate) fn trials() -> Vec<Trial> {
    // spec: CLI-12
    vec![trial("Ctrl-C at any moment of a start ends with 130 and leaves nothing", at_any_moment)]
}

/// As the shell tells it: a command that a signal ended counts as 128 and the signal's number.
fn interrupted_after(host: &Host, milliseconds: u64) -> (i32, String) {
    let script = format!(
        "set -m; '{}' run -f /run/vms.yaml </dev/null >/run/said 2>&1 & sleep {}; kill -INT $!; wait $!; echo $?",
        dist_file("tapvisor").display(),
        Duration::from_millis(milliseconds).as_secs_f64(),
    );
    let code = host.world.command("bash").args(["-c", &script]).stdin(Stdio::null()).output().expect("bash starts");
    let said = std::fs::read_to_string(host.world.path("/run/said")).unwrap_or_default();
    (String::from_utf8_lossy(&code.stdout).trim().parse().unwrap_or(-1), said)
}

fn at_any_moment() {
    let host = Host::new();
    // A guest that is not up yet does not hear its power button.
    let vm = Vm::new("web", "masquerade").set("", "terminationGracePeriodSeconds", json!(1));
    let resting = Vm::new("resting", "masquerade").strategy("Halted");
    host.world.write("/run/vms.yaml", resting.yaml() + &vm.yaml());
    for milliseconds in [0, 10, 25, 50, 100, 200, 400, 800, 1600, 3200] {
        let (code, said) = interrupted_after(&host, milliseconds);
        assert_eq!(code, 130, "after {milliseconds} ms:\n{said}\n{}", host.guest("web").account());
        // Once all run, what rests was told of, and it stays.
        if said.contains("default/resting is not started by its run strategy") {
            host.remove(&["resting"]).assert_ok();
        }
        host.assert_as_before();
    }
    host.assert_nothing_left();
}
