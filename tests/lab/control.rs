//! The control protocol of `launcher/protocol` on engine kvm: every request, as `tapvisor-launcher ctl` sends it.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;
use tests::lab::Finished;
use tests::trial;

use crate::manifests::{PRELUDE, manifest};

const LIMIT: Duration = Duration::from_secs(240);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: LAB-32, LAB-12
        trial("engine kvm answers every request of the control protocol", answers_all),
        // spec: LAB-33, LAB-12
        trial("without vhost-net the launcher counts the frames of each queue", counts),
    ]
}

/// A VM with the masquerade example's NIC, and `ctl`, which prints the request, its answer and its exit code.
fn prelude() -> String {
    format!(
        r#"{PRELUDE}
        echo {} | base64 -d | sed 's/runStrategy: Always/runStrategy: Once/' >web.yaml
        tapvisor run -d -f web.yaml --network ./net.conflist --engine kvm
        folder=/run/tapvisor/vms/default.web/launcher
        ctl() {{ echo "> $*"; tapvisor-launcher ctl --dir $folder "$@" 2>&1 </dev/null && echo "< 0" || echo "< $?"; }}
        # As often as it takes: logged WORD COUNT
        logged() {{ until [ "$(tapvisor logs web | grep -c "$1")" -ge $2 ]; do sleep 1; done; }}
        "#,
        manifest("masquerade.yaml")
    )
}

/// What was printed between a request and its exit code, which is expected.
fn answer<'a>(finished: &'a Finished, request: &str, code: i32) -> &'a str {
    let begin = format!("\n> {request}\n");
    let after = finished.output.split_once(&begin).unwrap_or_else(|| panic!("no {request:?}\n{finished}")).1;
    let (answer, rest) = after.split_once("< ").unwrap_or_else(|| panic!("{request:?} has no end\n{finished}"));
    assert_eq!(rest.lines().next(), Some(&*code.to_string()), "{request:?}\n{finished}");
    answer
}

fn json(finished: &Finished, request: &str) -> Value {
    let text = answer(finished, request, 0);
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{request:?}: {error}\n{finished}"))
}

fn answers_all() {
    let script = format!(
        r#"{}
        tapvisor-launcher ctl --dir $folder events >/tmp/run/events </dev/null &
        logged 'GUEST lease4' 1
        ctl status
        ctl probe
        for address in $(addresses); do ask "$address"; done
        ctl counters
        ctl pause
        ctl powerdown
        tapvisor-launcher ctl --dir $folder pause 2>&1 | sed 's/^/twice: /'
        ctl unpause
        tapvisor-launcher ctl --dir $folder unpause 2>&1 | sed 's/^/twice: /'
        for address in $(addresses); do ask "$address"; done
        ctl agent-ping
        ctl agent-info
        ctl agent-execute 5 true
        ctl freeze
        ctl unfreeze
        (echo 'echo typed-$((6 * 7))'; sleep 1000) | tapvisor-launcher ctl --dir $folder console >/dev/null &
        logged typed-42 1
        echo "console: $(tapvisor logs web | grep -o typed-42)"
        ctl reset
        logged 'GUEST lease4' 2
        ctl reboot
        logged 'GUEST power button' 1
        logged 'GUEST lease4' 3
        tapvisor-launcher ctl --dir $folder powerdown
        while tapvisor ps | grep -q Running; do sleep 1; done
        tapvisor ps | sed 's/^/ended: /'
        sed 's/^/event: /' /tmp/run/events
        tapvisor rm web
        "#,
        prelude()
    );
    let finished = crate::run("the control protocol", &script, LIMIT);
    println!("{finished}");
    assert_eq!(finished.code, 0, "{finished}");
    let status = json(&finished, "status");
    assert_eq!(status["engine"], "kvm", "{finished}");
    assert_eq!(status["state"], "running", "{finished}");
    assert_eq!(status["confinement"]["seccomp"], true, "{finished}");
    assert!(status["engineReason"].as_str().is_some_and(|reason| reason.contains("demanded")), "{finished}");
    answer(&finished, "probe", 0);
    let nic = &json(&finished, "counters")["nics"][0];
    assert_eq!(nic["dataPath"], "vhostNet", "{finished}");
    assert!(nic["received"]["packets"].as_u64() > Some(0) && nic["sent"]["packets"].as_u64() > Some(0), "{finished}");
    assert!(finished.output.contains("console: typed-42"), "{finished}");
    for request in ["pause", "unpause", "reset", "reboot"] {
        answer(&finished, request, 0);
    }
    assert!(answer(&finished, "powerdown", 1).contains("the machine is paused: resume it first"), "{finished}");
    assert!(finished.output.contains("twice: tapvisor-launcher: "), "{finished}");
    for reason in ["the machine is paused already", "the machine is not paused"] {
        assert!(finished.output.contains(reason), "{reason}\n{finished}");
    }
    for request in ["agent-ping", "agent-info", "agent-execute 5 true", "freeze", "unfreeze"] {
        let answer = answer(&finished, request, 1);
        assert!(answer.contains("agent"), "{request}: {answer}\n{finished}");
    }
    let events: Vec<Value> = finished
        .output
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let seen =
        |kind: &str| events.iter().filter(|event| event["type"] == kind || event["event"]["type"] == kind).count();
    assert_eq!((seen("paused"), seen("reset"), seen("ended")), (1, 2, 1), "{finished}");
}

fn counts() {
    // A node that is no vhost-net's refuses its calls. The mount is this script's own.
    let script = format!(
        r#"cat >/tmp/counts <<'SCRIPT'
        mount --bind /dev/null /dev/vhost-net
        {}
        echo {} | base64 -d >db.yaml
        tapvisor run -d -f db.yaml --network ./net.conflist --engine kvm
        for address in $(addresses); do ask "$address"; done
        for vm in web db; do tapvisor logs $vm | grep -o 'GUEST lease[46].*' | sed "s/^/$vm: /"; done
        ctl counters
        folder=/run/tapvisor/vms/default.db/launcher
        echo "of db: $(tapvisor-launcher ctl --dir $folder counters | tr -d ' \n')"
        tapvisor rm web
        tapvisor rm db
SCRIPT
        unshare -m sh /tmp/counts"#,
        prelude(),
        manifest("bridge.yaml")
    );
    let finished = crate::run("counters of queues", &script, LIMIT);
    println!("{finished}");
    assert_eq!(finished.code, 0, "{finished}");
    for address in ["192.0.2.2", "192.0.2.3", "2001:db8:77::2", "2001:db8:77::3"] {
        assert!(finished.output.contains(&format!("page of {address}: HTTP/1.1 200 OK")), "{finished}");
    }
    for lease in ["web: GUEST lease4", "web: GUEST lease6", "db: GUEST lease4", "db: GUEST lease6"] {
        assert!(finished.output.contains(lease), "no {lease}\n{finished}");
    }
    let of_bridge = finished.output.lines().find_map(|line| line.strip_prefix("of db: ")).unwrap_or_default();
    assert!(of_bridge.contains(r#""dataPath":"launcher""#), "{finished}");
    let nic = &json(&finished, "counters")["nics"][0];
    assert_eq!(nic["dataPath"], "launcher", "{finished}");
    let queues = nic["queues"].as_array().map_or(0, Vec::len);
    assert_eq!(queues, 1, "{finished}");
    for direction in ["received", "sent"] {
        let (queue, tap) = (&nic["queues"][0][direction], &nic[direction]);
        assert!(queue["packets"].as_u64() > Some(0), "{finished}");
        assert!(queue["packets"].as_u64() <= tap["packets"].as_u64(), "{finished}");
    }
}
