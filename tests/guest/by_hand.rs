//! What people and programs do with a VM: at a terminal, by the verbs, by `-o json`, by the shell's completion.

use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Terminal, dist_file, trial, wait_for};

use crate::manifest::{Vm, document};
use crate::vm::Host;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CLI-13, CLI-15, CLI-17, CLI-19
        trial("run attaches, Ctrl-] leaves, console comes back, logs -f follows", at_a_terminal),
        // spec: CLI-13
        trial("Ctrl-C after VMs run powers them off, ends with 130, leaves nothing", interrupted),
        // spec: CLI-14
        trial("stop, start, restart, pause, unpause work and listings show it", verbs),
        // spec: CLI-14
        trial("bash completes commands and the names of VMs", completion),
    ]
}

fn tapvisor() -> String {
    dist_file("tapvisor").display().to_string()
}

fn status(host: &Host, name: &str) -> Value {
    let list = host.world.tapvisor(&["ps", "-o", "json"]).json();
    assert_eq!((&list["apiVersion"], &list["kind"]), (&json!("tapvisor.io/v1"), &json!("VMList")));
    let items = list["items"].as_array().expect("items is a list");
    items.iter().find(|item| item["name"] == name).cloned().unwrap_or_default()
}

fn at_a_terminal() {
    let host = Host::new();
    host.world.write("/run/vms.yaml", Vm::new("web", "masquerade").yaml());
    let run = Terminal::run(&host.world, &[&tapvisor(), "run", "-f", "/run/vms.yaml"]);
    run.wait_shown("console of default/web; Ctrl-] detaches");
    run.wait_shown("GUEST ready");
    let log = format!("'{}' logs -f web >/run/followed; echo ended $? >>/run/followed", tapvisor());
    let mut follower = host.world.command_without_limit("bash").args(["-c", &log]).spawn().expect("bash starts");
    run.keys("echo typed-$((40 + 2))\r");
    run.wait_shown("typed-42");
    run.keys(Terminal::CTRL_BRACKET);
    let (code, shown) = run.end();
    assert!(code == Some(0) && shown.contains("detached; `tapvisor console default/web` attaches again"), "{shown}");
    assert_eq!(status(&host, "web")["status"], "Running");

    let line = format!("'{}' console web; echo left with $?; stty -a", tapvisor());
    let console = Terminal::run(&host.world, &["bash", "-c", &line]);
    console.wait_shown("Ctrl-] detaches");
    // Ctrl-C is the guest's, not ours.
    console.keys("sh -c 'echo sleeps-$((40 + 1)); exec sleep 600'\r");
    console.wait_shown("sleeps-41");
    console.keys(Terminal::CTRL_C);
    console.keys("echo again-$((40 + 3))\r");
    console.wait_shown("again-43");
    console.keys(Terminal::CTRL_BRACKET);
    let (code, shown) = console.end();
    assert!(code == Some(0) && shown.contains("left with 0"), "{shown}");
    assert!(shown.contains(" icanon") && shown.contains(" echo "), "the terminal is not as it was:\n{shown}");

    // A signal ends the console and puts the terminal back.
    let line = format!("sh -c 'echo $$ >/run/pid; exec '{}' console web'; echo left with $?; stty -a", tapvisor());
    let console = Terminal::run(&host.world, &["bash", "-c", &line]);
    console.wait_shown("Ctrl-] detaches");
    console.keys("echo more-$((40 + 4))\r");
    console.wait_shown("more-44");
    host.world.sh("kill -TERM $(cat /run/pid)").assert_ok();
    let (_, shown) = console.end();
    assert!(shown.contains("left with 130") && shown.contains(" icanon") && shown.contains(" echo "), "{shown}");
    a_terminal_closes(&host);

    let followed = || std::fs::read_to_string(host.world.path("/run/followed")).unwrap_or_default();
    wait_for("what was typed in the followed log", Duration::from_secs(60), || {
        followed().contains("again-43").then_some(())
    });
    assert!(followed().contains("GUEST boot"), "it begins at the beginning");
    host.remove(&["web"]).assert_ok();
    wait_for("the end of the followed log", Duration::from_secs(60), || {
        followed().ends_with("ended 0\n").then_some(())
    });
    let _ = follower.wait();
    host.assert_nothing_left();
}

/// A terminal that closes while its VM is up leaves that, also one that waits to be let run. Its name is as long as a
/// label may be: longer than what is left of a socket's address behind its folder.
fn a_terminal_closes(host: &Host) {
    let name = "x".repeat(63);
    host.world.write("/run/long.yaml", Vm::new(&name, "bridge").set("", "startStrategy", json!("Paused")).yaml());
    let line = format!("echo $$ >/run/pid; exec '{}' run -f /run/long.yaml", tapvisor());
    let run = Terminal::run(&host.world, &["sh", "-c", &line]);
    run.wait_shown(&format!("console of default/{name}; Ctrl-] detaches"));
    host.world.sh("kill -HUP $(cat /run/pid)").assert_ok();
    let (code, shown) = run.end();
    assert_eq!((code, &status(host, &name)["status"]), (Some(0), &json!("Paused")), "{shown}");
    host.remove(&[&name]).assert_ok();
}

fn interrupted() {
    let host = Host::new();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one"},
        "spec": {"selector": {"app": "one"}, "ports": [{"port": 80}]}});
    let vms = Vm::new("one", "masquerade").yaml() + &Vm::new("two", "bridge").yaml();
    host.world.write("/run/vms.yaml", vms + &document(&service));
    let run = Terminal::run(&host.world, &[&tapvisor(), "run", "-f", "/run/vms.yaml"]);
    let guests = [host.guest("one"), host.guest("two")];
    let open = |name: &str| {
        let path = host.world.path(format!("/run/tapvisor/vms/default.{name}/console.log"));
        std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    for guest in &guests {
        let _ = guest.wait_told("ready", 1);
    }
    let logs = [open("one"), open("two")];
    run.keys(Terminal::CTRL_C);
    let (code, shown) = run.end();
    assert!(code == Some(130) && shown.contains("interrupted"), "{code:?}\n{shown}");
    for mut log in logs {
        let mut text = String::new();
        log.seek(SeekFrom::Start(0)).and_then(|_| log.read_to_string(&mut text)).expect("an open log is readable");
        assert!(text.contains("GUEST power button"), "{text}");
    }
    host.assert_nothing_left();
}

fn verbs() {
    let host = Host::new();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    host.world.write("/run/vms.yaml", Vm::new("web", "masquerade").yaml() + &document(&service));
    host.world.tapvisor(&["run", "--detach", "-f", "/run/vms.yaml"]).assert_ok();
    host.world.tapvisor(&["run", "--detach", "-f", "/run/vms.yaml"]).assert_fails(5, &["default/web exists already"]);
    let web = host.guest("web");
    let _ = web.lease4("eth0");
    let address = web.pod_address("-4");
    let answers = |patience: &str| host.world.run(&["ping", "-c", "1", "-W", patience, &address]).is_ok();
    let say = |verb: &str, said: &str| {
        assert_eq!(host.world.tapvisor(&[verb, "web"]).text(), format!("default/web {said}\n"));
        status(&host, "web")
    };
    assert_eq!(say("pause", "paused")["status"], "Paused");
    assert!(!answers("1"), "a paused guest answers");
    let running = say("unpause", "running");
    assert!(running["status"] == "Running" && answers("5"), "{running}");
    listings(&host, &running);

    let stopped = say("stop", "stopped");
    assert_eq!(
        (&stopped["status"], &stopped["addresses"], &stopped["ready"]),
        (&json!("Stopped"), &json!([]), &json!(false))
    );
    assert!(!web.told("power").is_empty(), "not by its power button");
    for verb in ["pause", "unpause"] {
        host.world.tapvisor(&[verb, "web"]).assert_fails(1, &["default/web", "is it running?"]);
    }
    let hints = ["default/web does not run and has no console", "`tapvisor start default/web`"];
    host.world.tapvisor(&["console", "web"]).assert_fails(1, &hints);
    assert_eq!(say("stop", "stopped")["status"], "Stopped", "twice is as good as once");
    assert_eq!(say("start", "running")["status"], "Running");
    host.world.tapvisor(&["start", "web"]).assert_fails(5, &["default/web runs already"]);
    let _ = web.wait_told("lease4 eth0", 2);
    assert_eq!(say("restart", "running")["status"], "Running");
    let _ = web.wait_told("lease4 eth0", 3);
    assert!(answers("5"));
    host.world.tapvisor(&["rm", "-f", "/run/vms.yaml"]).assert_ok();
    host.assert_nothing_left();
}

/// The shape that programs rely on.
fn listings(host: &Host, vm: &Value) {
    let expected = json!({"namespace": "default", "name": "web", "kind": "VirtualMachine", "runStrategy": "Always",
        "status": "Running", "reason": null, "ready": true, "restarts": 0, "network": "tapvisor-default"});
    for (field, value) in expected.as_object().expect("an object") {
        assert_eq!(vm[field], *value, "{field} of {vm}");
    }
    assert!(vm["createdUnixSeconds"].is_u64() && vm["runningSinceUnixSeconds"].is_u64(), "{vm}");
    assert!(vm["launcherPid"].is_u64() && vm["addresses"].as_array().is_some_and(|all| all.len() == 2), "{vm}");
    let netns = vm["netns"].as_str().unwrap_or_default();
    assert!(netns.starts_with("/run/netns/tv-") && vm["containerId"].as_str().is_some_and(|id| id.len() == 64), "{vm}");
    for (line, kind, fields) in [
        (&["services"][..], "ServiceList", &["name", "family", "protocol", "addresses", "port", "backends"][..]),
        (&["image", "ls"], "ImageList", &["names", "digest", "sizeBytes"]),
        (&["doctor"], "Report", &["check", "severity", "found"]),
    ] {
        let list: Value = serde_json::from_str(&host.world.tapvisor(&[line, &["-o", "json"]].concat()).stdout())
            .unwrap_or_else(|error| panic!("{line:?}: {error}"));
        assert_eq!((&list["apiVersion"], &list["kind"]), (&json!("tapvisor.io/v1"), &json!(kind)));
        let items = list["items"].as_array().expect("items is a list");
        assert!(!items.is_empty(), "{line:?} lists nothing");
        for item in items {
            fields.iter().for_each(|field| assert!(item.get(field).is_some(), "{line:?}: no {field} in {item}"));
        }
    }
    let table = host.world.tapvisor(&["ps"]).text();
    assert!(table.starts_with("NAMESPACE") && table.contains("default") && table.contains("Running"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    for address in vm["addresses"].as_array().expect("a list") {
        assert!(table.contains(address.as_str().expect("text")), "{table}");
    }
}

fn completion() {
    let host = Host::new();
    let resting = Vm::new("webserver", "masquerade").strategy("Halted").yaml()
        + &Vm::new("db", "bridge").strategy("Halted").yaml();
    host.world.write("/run/vms.yaml", resting);
    host.world.tapvisor(&["run", "--detach", "-f", "/run/vms.yaml"]).assert_ok();
    host.world
        .sh(&format!("ln -s '{0}' /run/tapvisor-link; '{0}' completion bash >/run/completion", tapvisor()))
        .assert_ok();
    let complete = |words: &[&str]| {
        let (line, count) = (words.join(" "), words.len() - 1);
        let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "PATH=$(dirname '{}'):$PATH; source /run/completion; COMP_WORDS=({}); COMP_CWORD={count}; COMP_LINE='{line}'; \
             COMP_POINT=${{#COMP_LINE}}; function=$(complete -p tapvisor | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             $function tapvisor '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            tapvisor(),
            quoted.join(" "),
            words[count],
            words[count - 1]
        );
        let said = host.world.run(&["bash", "-c", &script]).text();
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["tapvisor", "cons"]), ["console"]);
    assert_eq!(complete(&["tapvisor", "stop", ""]), ["db", "webserver"]);
    assert_eq!(complete(&["tapvisor", "stop", "we"]), ["webserver"]);
    assert_eq!(complete(&["tapvisor", "logs", "--follow", "d"]), ["db"]);
    assert!(complete(&["tapvisor", "stop", "--gr"]).contains(&"--grace".to_owned()));
    assert!(complete(&["tapvisor", "ps", "-o", ""]).contains(&"json".to_owned()));
    host.remove(&["webserver", "db"]).assert_ok();
    host.assert_nothing_left();
}
