//! Processes killed at any moment: the next command repairs, other VMs never notice, `rm` leaves nothing.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;
use tests::{Guest, trial, wait_for};

use crate::manifest::Vm;
use crate::vm::Host;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: RUN-1, CLI-2
        trial("a killed supervisor is repaired by the next command, others run on", || killed("supervise")),
        // spec: RUN-2
        trial("a killed launcher is restarted by its run strategy, others run on", || killed("launch")),
        trial("a killed QEMU is restarted by its run strategy, others run on", || killed("qemu-system")),
        // spec: RUN-1
        trial("everything killed at once leaves nothing after rm", all_at_once),
        // spec: RUN-1
        trial("a run killed at any moment of its start leaves nothing after rm", killed_while_starting),
        // spec: RUN-1
        trial("an rm whose supervisor is killed leaves nothing after the next command", killed_while_ending),
        // spec: RUN-3
        trial("a terminated supervisor powers its guest off, as at a host shutdown", terminated),
        // spec: RUN-11
        trial("rm and stop reach a VM whose supervisor is starting or ending", met),
        // spec: RUN-9
        trial("a supervisor that is stopped or has no socket is ended by --force", unresponsive),
        // spec: RUN-4, RUN-10
        trial("a full /run ends no guest, and a damaged record is listed and removed", full_and_damaged),
    ]
}

fn killed(process: &str) {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade"), Vm::new("other", "masquerade")], None).assert_ok();
    let (web, other) = (host.guest("web"), host.guest("other"));
    let _ = (web.lease4("eth0"), other.lease4("eth0"));
    kill(&host, &web, process);
    if process == "supervise" {
        // No process is left to apply the strategy: the record says so, and `rm` removes it.
        wait_killed(&host, "web");
        host.world.tapvisor(&["stop", "web"]).assert_ok();
        assert_ended(&host, &web);
    } else {
        let _ = web.wait_told("lease4 eth0", 2);
        host.assert_reached(&web, "-4");
        // The first try has to succeed, though what was killed lets go of its tap in its own time.
        let list = host.world.tapvisor(&["ps", "-o", "json"]).json();
        let restarts = list["items"].as_array().unwrap().iter().map(|vm| vm["restarts"].as_u64().unwrap());
        assert_eq!(restarts.collect::<Vec<_>>(), [0, 1], "{list}");
    }
    host.assert_reached(&other, "-4");
    assert_eq!(other.told("boot").len(), 1, "the other guest started again");
    host.assert_removed(&["web", "other"]);
}

fn all_at_once() {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade"), Vm::new("db", "bridge")], None).assert_ok();
    let _ = (host.guest("web").lease4("eth0"), host.guest("db").lease4("eth0"));
    host.world.sh("pkill -9 -x 'tapvisor|tapvisor-launch|qemu-system-x86'").assert_ok();
    host.assert_removed(&["web", "db"]);
}

fn killed_while_starting() {
    let host = Host::new();
    for milliseconds in [5, 20, 40, 80, 160, 320, 640, 1280] {
        host.world.write("/run/vms.yaml", Vm::new("web", "masquerade").yaml());
        let tapvisor = tests::dist_file("tapvisor").display().to_string();
        let script = format!(
            "'{tapvisor}' run --detach -f /run/vms.yaml >/dev/null 2>&1 & sleep {}; pkill -9 -x 'tapvisor|tapvisor-launch|qemu-system-x86' || true; wait",
            f64::from(milliseconds) / 1000.0
        );
        host.world.sh(&script).assert_ok();
        let removed = host.remove(&["web"]);
        let is_clean = removed.code() == Some(0) || removed.code() == Some(4);
        assert!(is_clean, "killed after {milliseconds} ms\n{}\n{}", removed.account(), host.guest("web").account());
    }
    host.assert_nothing_left();
}

/// The guest does not boot so soon: what ends here is a machine whose processors have just begun to run.
fn killed_while_ending() {
    let host = Host::new();
    let tapvisor = tests::dist_file("tapvisor").display().to_string();
    for milliseconds in [10, 20, 40, 60, 80, 100, 150, 200, 300, 400] {
        host.run(&[Vm::new("web", "masquerade")], None).assert_ok();
        let script = format!(
            "'{tapvisor}' rm --force web >/dev/null 2>&1 & sleep {}; pkill -9 -x 'tapvisor|tapvisor-launch|qemu-system-x86' || true; wait",
            f64::from(milliseconds) / 1000.0
        );
        host.world.sh(&script).assert_ok();
        let removed = host.remove(&["web"]);
        let is_clean = removed.code() == Some(0) || removed.code() == Some(4);
        assert!(is_clean, "killed after {milliseconds} ms\n{}\n{}", removed.account(), host.guest("web").account());
        host.assert_as_before();
    }
    // Killed between the end of the record and that of the host's settings: what the next command finds, made by hand.
    host.run(&[Vm::new("web", "masquerade")], None).assert_ok();
    host.world.sh("cp /run/tapvisor/host.json /run/host.json").assert_ok();
    host.remove(&["--force", "web"]).assert_ok();
    let half = "mkdir -p /run/tapvisor/vms/.new-default.web/launcher; cp /run/host.json /run/tapvisor; sysctl -qw net.ipv4.ip_forward=1";
    host.world.sh(half).assert_ok();
    assert_eq!(host.remove(&["absent"]).code(), Some(4));
    host.assert_nothing_left();
}

fn terminated() {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade")], None).assert_ok();
    let web = host.guest("web");
    let _ = web.wait_told("ready", 1);
    host.world.sh("kill -TERM $(cat /run/tapvisor/vms/default.web/pid)").assert_ok();
    let status = || host.world.tapvisor(&["ps", "-o", "json"]).json()["items"][0]["status"].clone();
    wait_for("the VM to be stopped", Duration::from_secs(60), || (status() == "Stopped").then_some(()));
    assert!(!web.told("power").is_empty(), "not by its power button: {}", web.account());
    host.assert_removed(&["web"]);
}

/// Two commands at once.
fn met() {
    let host = Host::new();
    let tapvisor = tests::dist_file("tapvisor").display().to_string();
    let vms = Vm::new("web", "masquerade").yaml();
    host.world.write("/run/vms.yaml", vms);
    for verb in ["rm", "stop"] {
        // Found as soon as it is written down: its supervisor does not listen yet.
        let script = format!(
            "'{tapvisor}' run --detach -f /run/vms.yaml >/run/said 2>&1 & \
             until [ -e /run/tapvisor/vms/default.web/lock ]; do :; done; '{tapvisor}' {verb} web; echo $?; wait || true"
        );
        let ran = host.world.sh(&script);
        assert!(ran.text().ends_with("\n0\n"), "{verb}: {}", ran.account());
        assert_eq!(host.remove(&["web"]).code(), Some(if verb == "rm" { 4 } else { 0 }));
        host.assert_as_before();

        host.world.tapvisor(&["run", "--detach", "-f", "/run/vms.yaml"]).assert_ok();
        let twice =
            format!("'{tapvisor}' stop --force web & sleep 0.1; '{tapvisor}' {verb} web; echo $?; wait $!; echo $?");
        let ran = host.world.sh(&twice);
        let codes: Vec<_> = ran.stdout().lines().filter(|line| line.len() == 1).map(str::to_owned).collect();
        assert_eq!(codes, ["0", "0"], "{verb}: {}", ran.account());
        assert_eq!(host.remove(&["web"]).code(), Some(if verb == "rm" { 4 } else { 0 }));
        host.assert_as_before();
    }
    host.assert_nothing_left();
}

/// A command that would wait for such a supervisor is ended by `timeout` with 124.
fn unresponsive() {
    let host = Host::new();
    let tapvisor = tests::dist_file("tapvisor").display().to_string();
    let dir = "/run/tapvisor/vms/default.web";
    for spoil in [format!("kill -STOP $(cat {dir}/pid)"), format!("rm {dir}/supervisor.sock")] {
        for (verb, phase) in [("stop", Some("Stopped")), ("rm", None)] {
            host.run(&[Vm::new("web", "masquerade")], None).assert_ok();
            host.world.sh(&spoil).assert_ok();
            let run = |arguments: &str| host.world.run(&["sh", "-c", &format!("timeout 90 '{tapvisor}' {arguments}")]);
            run(&format!("{verb} web")).assert_fails(1, &["default/web", "does not answer", "--force"]);
            run(&format!("{verb} --force web")).assert_ok();
            let vms = host.world.tapvisor(&["ps", "-o", "json"]).json();
            assert_eq!(vms["items"][0]["status"].as_str(), phase, "{verb} after {spoil}: {vms}");
            assert_ended(&host, &host.guest("web"));
            let _ = host.remove(&["web"]);
            host.assert_as_before();
        }
    }
    host.assert_nothing_left();
}

/// What does not fit is written later; what cannot be read is one VM's.
fn full_and_damaged() {
    let host = Host::new();
    host.world.sh("mkdir -p /run/tapvisor; mount -t tmpfs -o size=8m tmpfs /run/tapvisor").assert_ok();
    host.run(&[Vm::new("web", "masquerade"), Vm::new("other", "masquerade")], None).assert_ok();
    let (web, other) = (host.guest("web"), host.guest("other"));
    let _ = (web.lease4("eth0"), other.lease4("eth0"));
    let status = |index: usize| host.world.tapvisor(&["ps", "-o", "json"]).json()["items"][index]["status"].clone();
    host.world.sh("dd if=/dev/zero of=/run/tapvisor/fill bs=4k 2>/dev/null || true").assert_ok();
    // Each of these is a status to be written.
    host.world.tapvisor(&["pause", "web"]).assert_ok();
    host.world.tapvisor(&["unpause", "web"]).assert_ok();
    host.assert_reached(&web, "-4");
    assert_eq!(web.told("boot").len(), 1, "the guest started again");
    host.world.tapvisor(&["pause", "web"]).assert_ok();
    assert_eq!(status(1), "Running", "there was room after all");
    host.world.sh("rm /run/tapvisor/fill").assert_ok();
    wait_for("the status to be written", Duration::from_secs(20), || (status(1) == "Paused").then_some(()));

    let file = "/run/tapvisor/vms/default.web/status.json";
    host.world.sh("kill -9 $(cat /run/tapvisor/vms/default.web/pid)").assert_ok();
    wait_killed(&host, "web");
    host.world.sh(&format!("echo '{{' > {file}")).assert_ok();
    assert_eq!((status(0), status(1)), (json!("Running"), json!("Damaged")));
    host.assert_reached(&other, "-4");
    host.remove(&["web"]).assert_ok();
    host.world.sh("rm /run/tapvisor/vms/default.other/lock").assert_ok();
    host.remove(&["other"]).assert_ok();
    host.world.tapvisor(&["ps"]).assert_ok();
    host.assert_as_before();
    host.world.sh("umount /run/tapvisor").assert_ok();
    host.assert_nothing_left();
}

/// Until a VM's supervisor has ended: a process that was sent a signal runs on for a while, and holds its locks.
fn wait_killed(host: &Host, name: &str) {
    let said = format!("default/{name}: its supervisor was killed");
    let ended = || host.world.tapvisor(&["ps"]).stderr().contains(&said).then_some(());
    wait_for("ps to say that the supervisor was killed", Duration::from_secs(60), ended);
}

/// Kills the VM's own process of a kind.
fn kill(host: &Host, guest: &Guest<'_>, process: &str) {
    let namespace = guest.pod().path();
    let script = match process {
        "supervise" => format!("kill -9 $(cat /run/tapvisor/vms/default.{}/pid)", guest.name()),
        "qemu-system" => format!(
            "kill -9 $(ip netns pids $(basename {namespace}) | xargs -n1 -I@ sh -c 'grep -q qemu-system /proc/@/comm && echo @ || true')"
        ),
        _ => format!(
            "kill -9 $(ip netns pids $(basename {namespace}) | xargs -n1 -I@ sh -c 'grep -q tapvisor /proc/@/comm && grep -qz ^launch /proc/@/cmdline && echo @ || true')"
        ),
    };
    host.world.sh(&script).assert_ok();
}

fn assert_ended(host: &Host, guest: &Guest<'_>) {
    let script = format!("pgrep -ax qemu-system-x86 | grep -F default/{} || true", guest.name());
    let ended = || host.world.sh(&script).text().is_empty().then_some(());
    wait_for("the guest whose supervisor is gone to end", Duration::from_secs(60), ended);
}
