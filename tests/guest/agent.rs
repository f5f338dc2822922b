//! Debian's guest agent, unmodified, in a guest on this machine: probes, requests and a guest that misuses its channel.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{KERNEL_ARGUMENTS, Ran, cache_file, dist_file, trial, wait_for};

use crate::manifest::Vm;
use crate::vm::Host;

/// Longest between a change in the guest and what follows from it.
const MOMENT: Duration = Duration::from_secs(120);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: AGENT-1, AGENT-3, AGENT-4, AGENT-5
        trial("Debian's agent answers, freezes, reboots and decides about probes", honest),
        // spec: AGENT-2
        trial("a guest that floods its agent's channel or is silent harms nothing", hostile),
    ]
}

/// A VM whose image has the agent; `words` are for its start.
fn vm(words: &str) -> Vm {
    let kernel =
        json!({"image": "tapvisor/guest-agent:1", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd.img"});
    let firmware = json!({"kernelBoot": {"kernelArgs": format!("{KERNEL_ARGUMENTS} {words}"), "container": kernel}});
    Vm::new("web", "masquerade")
        .set("/domain", "firmware", firmware)
        .set("/domain", "memory", json!({"guest": "160Mi"}))
        .disk("scratch", json!({"emptyDisk": {"capacity": "16Mi"}}))
}

fn host() -> Host {
    let host = Host::new();
    host.world.tapvisor(&["image", "import", &cache_file("guest-agent/images").display().to_string()]).assert_ok();
    host
}

/// `tapvisor-launcher ctl` in the VM's folder.
fn ctl(host: &Host, words: &str) -> Ran {
    let launcher = dist_file("tapvisor-launcher").display().to_string();
    host.world.sh(&format!("'{launcher}' ctl --dir /run/tapvisor/vms/default.web/launcher {words}"))
}

fn status(host: &Host) -> Value {
    ctl(host, "status").json()
}

fn honest() {
    let host = host();
    let probe = json!({"exec": {"command": ["/bin/sh", "-c", "test -e /run/ready"]}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 1});
    // Without a power button.
    let features = json!({"acpi": {"enabled": false}});
    let web = vm("guest.run=agent").set("", "readinessProbe", probe).set("/domain", "features", features);
    host.run(&[web], None).assert_ok();
    let guest = host.guest("web");
    let _ = guest.lease4("eth0");
    let agent =
        || Some(status(&host)["agent"].clone()).filter(|agent| agent["interfaces"][0]["addresses"][0] == "10.0.2.2");
    let agent = wait_for("the agent to say the guest's address", MOMENT, agent).0;
    assert_eq!((&agent["connected"], &agent["os"]["id"]), (&json!(true), &json!("tapvisor")), "{agent}");
    let info = ctl(&host, "agent-info").json();
    assert_eq!(
        (&info["users"][0]["userName"], &info["filesystems"][0]["mountPoint"]),
        (&json!("fedora"), &json!("/mnt")),
        "{info}"
    );
    ctl(&host, "agent-execute 5 /bin/sh -c 'echo out; echo err >&2; exit 3'").assert_fails(3, &[]);

    let ready = || host.world.tapvisor(&["ps", "-o", "json"]).json()["items"][0]["ready"] == true;
    assert!(!ready(), "ready before its probe succeeded");
    let _ = guest.ok("touch /run/ready");
    wait_for("the probe to succeed", MOMENT, || ready().then_some(()));

    ctl(&host, "freeze 3").assert_ok();
    assert_eq!(status(&host)["agent"]["frozen"], true);
    wait_for("the file systems to be thawed by themselves", MOMENT, || {
        (status(&host)["agent"]["frozen"] != true).then_some(())
    });
    let _ = guest.ok("echo written >/mnt/file && sync");

    let resets = || status(&host)["resets"].as_u64().expect("a count");
    let before = resets();
    ctl(&host, "reboot").assert_ok();
    let _ = guest.wait_told("ready", 2);
    assert!(resets() > before, "not by the guest itself");
    host.assert_removed(&["web"]);
}

fn hostile() {
    let host = host();
    host.run(&[vm("")], None).assert_ok();
    let guest = host.guest("web");
    let _ = guest.wait_told("ready", 1);
    let misuses = [
        // An endless line, wrong types, opened and silent, opened and closed again and again.
        "cat /dev/zero >$(agent-port)",
        "yes '{\"return\": [7, {\"pid\": \"x\"}]}' >$(agent-port)",
        "sleep 1000 <>$(agent-port)",
        "while :; do : <>$(agent-port); done",
    ];
    for misuse in misuses {
        let _ = guest.ok(&format!("{{ {misuse}; }} 2>/dev/null & echo $! >/run/misuse"));
        for _ in 0..3 {
            let ping = ctl(&host, "agent-ping");
            assert!(!ping.is_ok(), "{misuse}: {}", ping.account());
            assert_eq!(status(&host)["state"], "running", "{misuse}");
        }
        let _ = guest.ok("kill $(cat /run/misuse); pkill yes; pkill cat; pkill sleep; true");
        let memory =
            host.world.sh("awk '/VmHWM/ {print $2}' /proc/$(pgrep -x tapvisor-launch | tail -1)/status").text();
        let kib: u64 = memory.trim().parse().expect("a number of KiB");
        assert!(kib < 64 << 10, "{misuse}: the launcher has used {kib} KiB");
    }
    let _ = guest.ok("agent");
    wait_for("an agent that is in order to be heard", MOMENT, || ctl(&host, "agent-ping").is_ok().then_some(()));
    host.assert_removed(&["web"]);
}
