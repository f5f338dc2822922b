//! What commands do with their output, and what they say to a user without root.

use libtest_mimic::Trial;
use tests::{Ran, World, dist_file, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("output that is lost is a failure, and a closed pipe is none", output),
        trial("control sequences of a manifest do not reach the terminal", control_sequences),
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
    assert_eq!(found("firewall")["found"], "cannot be looked at without root");
    world.run(&[&user[..], &["ps"]].concat()).assert_fails(6, &["this command needs root", "sudo"]);
}
