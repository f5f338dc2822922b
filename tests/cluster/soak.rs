//! VMs that start while the parts of the cluster are killed, one after the other. `make cluster-soak` starts a hundred.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::cluster::NODES;
use tests::{Cluster, Ran, trial, wait_for, wait_for_or};

use crate::vmi::{installed, object};

/// Names of processes, as the kernel keeps them.
const PARTS: [&str; 5] = ["tapvisor-contro", "tapvisor-node", "kubelet", "containerd", "tapvisor-launch"];
/// A part comes back, and with it admission.
const BACK: Duration = Duration::from_secs(180);
/// A VM whose launchers were killed waits longer each time before the next one.
const CONVERGED: Duration = Duration::from_secs(420);
/// Of machines that exist at a time, of a hundred and of fewer.
const MOST: [usize; 2] = [50, 4];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: OPS-10
        trial("VMs start while the parts of the cluster are killed, none is left over", soak),
    ]
}

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        // Constants of Knuth's MMIX generator; its low digits repeat soon.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        choices[usize::try_from(self.0 >> 33).expect("it fits") % choices.len()]
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?}")))
}

fn machine(name: &str) -> Value {
    // Fifty of them on two nodes of two processors each.
    let spec = json!({
        "terminationGracePeriodSeconds": 0,
        "domain": {"memory": {"guest": "1Mi"}, "resources": {"requests": {"cpu": "10m"}},
            "devices": {"interfaces": [{"name": "default", "masquerade": {}}]}},
        "networks": [{"name": "default", "pod": {}}],
    });
    json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"namespace": "vms", "name": name},
        "spec": {"runStrategy": "Always", "template": {"metadata": {"labels": {"of": "soak"}}, "spec": spec}}})
}

/// What VMs take of a node: addresses, wired namespaces, tables, allocated devices, records of the plugin.
fn used(cluster: &Cluster, node: &str) -> Vec<String> {
    let line = r#"ls /var/lib/cni/networks/pods | grep -vE '^(lock|last_)' | sed 's/^/address /'
        for netns in /run/netns/*; do
            nsenter --net="$netns" ip -o link 2>/dev/null | grep -oE '(k6t-|svc-|tap)[^:@]*' | sed "s|^|$netns |" || true
            nsenter --net="$netns" nft list tables 2>/dev/null | grep tapvisor | sed "s|^|$netns |" || true
        done
        ls /run/tapvisor/locks | sed 's/^/lock /'"#;
    let ran = Ran::of(cluster.on_node(node, "bash").args(["-uc", line])).text();
    let mut lines: Vec<_> = ran.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Kills one process of a part on a node; whether one ran there.
fn kill(cluster: &Cluster, node: &str, part: &str) -> bool {
    let line = r#"pids=$(pgrep -x "$0") && kill -KILL $(shuf -n 1 <<<"$pids") && echo killed || true"#;
    !Ran::of(cluster.on_node(node, "bash").args(["-uc", line, part])).text().is_empty()
}

/// Pods of the soak that may run a guest, by machine.
fn launchers(cluster: &Cluster) -> BTreeMap<String, usize> {
    let list = cluster.kubectl(&["-n", "vms", "get", "pods", "-l", "of=soak", "-o", "json"]).stdout();
    let list: Value = serde_json::from_str(&list).unwrap_or_default();
    let mut launchers = BTreeMap::new();
    for pod in list["items"].as_array().into_iter().flatten() {
        let ends = pod["metadata"]["deletionTimestamp"].is_string();
        let is_over = ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default());
        if let Some(name) = pod["metadata"]["labels"]["vmi.kubevirt.io/id"].as_str().filter(|_| !ends && !is_over) {
            *launchers.entry(name.to_owned()).or_default() += 1;
        }
    }
    launchers
}

fn assert_no_duplicate(cluster: &Cluster, seed: u64) {
    let launchers = launchers(cluster);
    assert!(launchers.values().all(|count| *count == 1), "seed {seed}: {launchers:#?}");
}

fn is_running(cluster: &Cluster, name: &str) -> bool {
    object(cluster, "vm", name).is_some_and(|vm| vm["status"]["printableStatus"] == "Running")
}

fn soak() {
    let starts = usize::try_from(number("SOAK_STARTS", 8)).expect("it fits");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").as_secs();
    let seed = number("SOAK_SEED", now);
    let most = if starts < 100 { MOST[1] } else { MOST[0] };
    eprintln!("soak: {starts} starts, seed {seed}");
    let cluster = installed();
    let before = NODES.map(|node| used(&cluster, node));
    let mut dice = Dice(seed);
    let mut alive: Vec<String> = Vec::new();
    for start in 0..starts {
        let name = format!("soak-{start}");
        let is_applied = || cluster.apply(&machine(&name).to_string()).is_ok().then_some(());
        wait_for(&format!("seed {seed}: {name} to be admitted"), BACK, is_applied);
        alive.push(name);
        // Between nothing and a second after the creation: a start takes about as long.
        std::thread::sleep(Duration::from_millis(dice.of(&[0, 100, 200, 400, 700, 1000])));
        let (node, first) = (dice.of(&NODES), dice.of(&[0, 1, 2, 3, 4]));
        // Of launchers and controllers a node may have none, and what was killed before may not be back.
        let mut parts = PARTS.iter().cycle().skip(first).take(PARTS.len());
        assert!(parts.any(|part| kill(&cluster, node, part)), "seed {seed}: nothing runs on {node}");
        if alive.len() > most {
            let oldest = alive.remove(0);
            let delete = ["-n", "vms", "delete", "vm", &oldest, "--wait=false"];
            wait_for(&format!("seed {seed}: {oldest} to be deleted"), BACK, || {
                cluster.kubectl(&delete).is_ok().then_some(())
            });
        }
        assert_no_duplicate(&cluster, seed);
    }
    let late = || alive.iter().filter(|name| !is_running(&cluster, name)).collect::<Vec<_>>();
    let account = || {
        let late = late();
        let states =
            late.iter().map(|name| format!("{:#}\n", object(&cluster, "vm", name).unwrap_or_default()["status"]));
        format!("{}{}", states.collect::<String>(), cluster.kubectl(&["get", "pods", "-A", "-o", "wide"]).stdout())
    };
    wait_for_or(&format!("seed {seed}: all VMs to run"), CONVERGED, || late().is_empty().then_some(()), account);
    assert_no_duplicate(&cluster, seed);
    assert_eq!(launchers(&cluster).len(), alive.len(), "seed {seed}");
    assert_nothing_left(&cluster, seed, &alive, before);
}

/// Deletes the machines that are left, and demands that nothing of any is found afterwards.
fn assert_nothing_left(cluster: &Cluster, seed: u64, alive: &[String], before: [Vec<String>; 2]) {
    let delete =
        [&["-n", "vms", "delete", "vm", "--timeout=170s"][..], &alive.iter().map(String::as_str).collect::<Vec<_>>()];
    cluster.kubectl(&delete.concat()).assert_ok();
    let objects =
        || cluster.kubectl(&["-n", "vms", "get", "vm,vmi,pods,secrets,controllerrevisions", "-o", "name"]).text();
    let left = || objects().lines().filter(|name| name.contains("soak-")).map(str::to_owned).collect::<Vec<_>>();
    let account = || format!("{:#?}", left());
    wait_for_or(&format!("seed {seed}: no object to be left"), BACK, || left().is_empty().then_some(()), account);
    for (node, before) in NODES.into_iter().zip(before) {
        let more = || used(cluster, node).into_iter().filter(|line| !before.contains(line)).collect::<Vec<_>>();
        let account = || format!("{:#?}", more());
        wait_for_or(&format!("seed {seed}: {node} to be as before"), BACK, || more().is_empty().then_some(()), account);
    }
}
