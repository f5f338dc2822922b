//! What commands do with their output, and what they say to a user without root.

use libtest_mimic::Trial;
use serde_json::json;
use tests::{Ran, World, dist_file, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CLI-7
        trial("output that is lost is a failure, and a closed pipe is none", output),
        // spec: CLI-4
        trial("control sequences of a manifest do not reach the terminal", control_sequences),
        // spec: CLI-6
        trial("a VM that ended is listed, its log shown, its console refused", stopped),
        // spec: CLI-10
        trial("a user without root is told to use sudo, and not to mend the host", without_root),
    ]
}

fn bash(world: &World, script: &str) -> Ran {
    let script = script.replace("TAPVISOR", &dist_file("tapvisor").display().to_string());
    Ran::of(world.command("/bin/bash").args(["-uc", &script]))
}

fn output() {
    let world = World::new();
    for command in ["ps", "services", "image ls", "doctor", "doctor -o json", "completion bash", "version", "--help"] {
        let code = bash(&world, &format!("TAPVISOR {command}")).code();
        bash(&world, &format!("TAPVISOR {command} >/dev/full")).assert_fails(1, &["cannot write to standard output"]);
        let closed = format!("TAPVISOR {command} | (exec <&-); exit ${{PIPESTATUS[0]}}");
        let closed = bash(&world, &closed);
        assert_eq!((closed.code(), closed.stderr().as_str()), (code, ""), "{command}");
    }
}

fn control_sequences() {
    let world = World::new();
    let manifest = "{apiVersion: v1, kind: \"\\e]0;title\\a\\e[31mRed\", metadata: {name: \"\\u009b2J\"}}\n";
    world.write("/run/vm.yaml", manifest);
    let ran = world.tapvisor(&["run", "-f", "/run/vm.yaml"]);
    assert_eq!(ran.code(), Some(3), "{}", ran.account());
    let said = ran.stderr();
    assert!(said.contains("Red"), "{said}");
    assert!(!said.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{said:?}");
}

/// The record of a VM that has stopped, as its supervisor leaves it.
fn stopped() {
    let world = World::new();
    let vm = "/run/tapvisor/vms/default.web";
    let addresses = ["10.244.107.103", "fd00:1111:2222:3333:4444:5555:6666:7777"];
    let status = json!({"namespace": "default", "name": "web", "kind": "VirtualMachine", "strategy": "Always",
        "phase": "Stopped", "reason": format!("{}\u{1b}[31m", "powered off by its owner ".repeat(5)), "onHost": "absent",
        "kept": true, "containerId": "ab".repeat(32), "netns": "/run/netns/tv-000000000000", "addresses": addresses,
        "gracePeriodSeconds": 30, "createdUnixSeconds": 1_700_000_000});
    world.sh(&format!("mkdir -p {vm}/launcher; touch {vm}/lock")).assert_ok();
    world.write(&format!("{vm}/status.json"), status.to_string());
    world.write(&format!("{vm}/launcher/console.log.1"), "\x1b[32mearlier\x1b[0m\r\n");
    world.write(&format!("{vm}/launcher/console.log"), "\x1bcnow\x1b]0;title\x07\r\n");
    let listed = world.tapvisor(&["ps"]).text();
    assert!(listed.lines().all(|line| line.chars().count() <= 80), "{listed}");
    assert!(addresses.iter().all(|address| listed.contains(address)) && !listed.contains('\x1b'), "{listed}");
    assert_eq!(listed.matches("powered off").count(), 5, "{listed}");
    let logs = world.tapvisor(&["logs", "web"]);
    assert_eq!((logs.code(), logs.stdout().as_str()), (Some(0), "earlier\nnow\n"));
    assert!(logs.stderr().contains("the log was rotated"), "{}", logs.stderr());
    let raw = world.tapvisor(&["logs", "--raw", "web"]).stdout();
    assert_eq!(raw, "\x1b[32mearlier\x1b[0m\r\n\x1bcnow\x1b]0;title\x07\r\n");
    bash(&world, "TAPVISOR logs web >/dev/full").assert_fails(1, &["cannot write to standard output"]);
    let words = ["default/web does not run and has no console", "`tapvisor start default/web`"];
    world.tapvisor(&["console", "web"]).assert_fails(1, &words);
}

fn without_root() {
    let world = World::new();
    let copy = format!("cp '{}' /run/tapvisor-copy; chmod 0755 /run/tapvisor-copy", dist_file("tapvisor").display());
    world.sh(&copy).assert_ok();
    let user = ["setpriv", "--reuid=65534", "--clear-groups", "/run/tapvisor-copy"];
    let items = world.run(&[&user[..], &["doctor", "-o", "json"]].concat());
    let document: serde_json::Value = serde_json::from_str(&items.stdout()).unwrap();
    let found = |check: &str| {
        let items = document["items"].as_array().unwrap();
        items.iter().find(|item| item["check"] == check).unwrap_or_else(|| panic!("no {check}")).clone()
    };
    for check in ["user", "firewall", "IPv4 forwarding"] {
        let remedy = found(check)["remedy"].as_str().unwrap_or("sudo tapvisor doctor").to_owned();
        assert!(remedy.contains("sudo tapvisor doctor"), "{check}: {remedy}");
    }
    assert_eq!(found("firewall")["found"], "cannot be examined without root");
    world.run(&[&user[..], &["ps"]].concat()).assert_fails(6, &["this command needs root", "sudo"]);
}
