//! One explanation, in a process of its own: it reads a task, both namespaces, and answers.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use explain::record::{Kind, Launcher, Phase, Place, VmRecord, VmStatus};
use explain::{Asking, diagnose, gather};
use nix::sys::resource::{Resource, setrlimit};
use node_protocol::{ExplainPhase, MAX_EXPLANATION_BYTES};
use protocol::chain::chain;
use serde_json::json;
use wiring::Request;

use super::{Task, TaskAnswer};

/// A wiring request and a launcher's status have at most 64 KiB each.
const MAX_TASK_BYTES: u64 = 256 << 10;
/// Longest that all of it may take: SIGALRM ends the process.
const SECONDS: u32 = 9;
/// Memory of its own: the host's routes, neighbours and firewalls.
const MAX_DATA_BYTES: u64 = 96 << 20;

/// Answers one task.
///
/// # Errors
/// It cannot be read, or the answer cannot be written.
pub(crate) fn one(namespaces: &Path) -> io::Result<()> {
    nix::unistd::alarm::set(SECONDS);
    setrlimit(Resource::RLIMIT_DATA, MAX_DATA_BYTES, MAX_DATA_BYTES)?;
    let mut text = Vec::new();
    io::stdin().take(MAX_TASK_BYTES).read_to_end(&mut text)?;
    let answer = bounded(answer(serde_json::from_slice(&text)?, namespaces));
    io::stdout().write_all(&answer)
}

fn bounded(answer: TaskAnswer) -> Vec<u8> {
    // JSON values refuse nothing.
    let text = serde_json::to_vec(&answer).unwrap_or_default();
    match text.len() > MAX_EXPLANATION_BYTES {
        true => json!({"Err": format!("the explanation has {} bytes, expected at most {MAX_EXPLANATION_BYTES}", text.len())})
            .to_string()
            .into_bytes(),
        false => text,
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge of this process")]
fn answer(task: Task, namespaces: &Path) -> TaskAnswer {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Passive: nothing is sent, into no namespace.
    let asking = Asking { ports: &[], is_passive: true, now_unix_seconds: now };
    let evidence = gather(record(task, namespaces)?, asking).map_err(|error| chain(&error))?;
    serde_json::to_value(diagnose(&evidence)).map_err(|error| error.to_string())
}

fn record(task: Task, namespaces: &Path) -> Result<VmRecord, String> {
    let Task { vm, node, namespace, launcher } = task;
    let request = Request::from_value(&vm.wiring).map_err(|error| chain(&error))?;
    let status = VmStatus {
        namespace: vm.namespace,
        name: vm.name,
        place: Place::Cluster { node, pod: vm.pod },
        kind: if vm.has_machine { Kind::VirtualMachine } else { Kind::VirtualMachineInstance },
        phase: match vm.phase {
            ExplainPhase::Starting => Phase::Starting,
            ExplainPhase::Running => Phase::Running,
            ExplainPhase::Paused => Phase::Paused,
        },
        reason: None,
        is_on_host: true,
        netns: namespaces.join(namespace),
        addresses: vm.addresses,
        running_since_unix_seconds: vm.running_since_unix_seconds,
        restarts: 0,
    };
    // What the networks' configurations promise is known on the node alone, in the runtime's own words.
    Ok(VmRecord { status, request, networks: Vec::new(), launcher: Launcher::Asked(launcher) })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn task() -> Task {
        let wiring = json!({"version": 1, "owner": {"uid": 107, "gid": 107},
            "interfaces": [{"name": "default", "podInterface": "eth0", "binding": "masquerade"}]});
        serde_json::from_value(json!({"node": "node1", "namespace": "cni-absent", "launcher": {"Err": "no launcher listens"},
            "vm": {"namespace": "vms", "name": "web", "hasMachine": true, "pod": "virt-launcher-web", "phase": "running",
                "addresses": ["10.244.1.5"], "wiring": wiring}}))
        .unwrap()
    }

    // spec: EXPL-20
    #[test]
    fn a_namespace_that_is_gone_and_a_silent_launcher_are_findings() {
        let explanation = answer(task(), Path::new("/nonexistent")).unwrap();
        let codes: Vec<_> = explanation["findings"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
        assert_eq!(codes, ["namespaceGone", "launcherSilent"]);
        assert_eq!((&explanation["node"], &explanation["netns"]), (&json!("node1"), &json!("cni-absent")));
        let remedy = explanation["findings"][0]["remedy"].as_str().unwrap();
        assert!(remedy.contains("virtctl restart web -n vms"), "{remedy}");
    }

    // spec: EXPL-20
    #[test]
    fn an_answer_that_is_too_long_becomes_a_message() {
        let long = bounded(Ok(Value::String("a".repeat(MAX_EXPLANATION_BYTES))));
        let answer: TaskAnswer = serde_json::from_slice(&long).unwrap();
        assert!(answer.unwrap_err().contains("expected at most 98304"));
        let mut unfit = task();
        unfit.vm.wiring = json!({"interfaces": 1});
        let refused = super::answer(unfit, Path::new("/")).unwrap_err();
        assert!(refused.contains("interfaces"), "{refused}");
    }
}
