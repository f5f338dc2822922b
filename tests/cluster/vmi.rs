//! VirtualMachineInstances: from a manifest to a Service, what each costs the API server, and what is left afterwards.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use libtest_mimic::Trial;
use prometheus_parse::{Scrape, Value as Sample};
use serde_json::Value;
use tests::{Cluster, Ran, cache_file, trial, wait_for, wait_for_or, workspace};

use crate::cluster;
use crate::pods::{busybox, cluster_ips, fetch, wait_running};

/// A launcher pod and its guest, on two processors that run a cluster too.
const START: Duration = Duration::from_secs(180);

const CONTROLLER: &str = "system:serviceaccount:tapvisor:tapvisor-controller";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CTRL-13, CTRL-36, OPS-1, OPS-2
        trial("an applied VM serves HTTP through a Service and leaves nothing", applied),
    ]
}

/// The cluster with the product and a client on each node of namespace `vms`.
pub(crate) fn installed() -> std::sync::Arc<Cluster> {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let cluster = cluster();
    INSTALLED.get_or_init(|| {
        cluster.install_product();
        cluster.import(&cache_file("guest/images"));
        for node in tests::cluster::NODES {
            let name = format!("client-{node}");
            cluster.apply(&busybox("vms", &name, node, "exec sleep 100000").to_string()).assert_ok();
            wait_running(&cluster, "vms", &name);
        }
    });
    cluster
}

/// An object of namespace `vms` as it is now.
pub(crate) fn object(cluster: &Cluster, kind: &str, name: &str) -> Option<Value> {
    let ran = cluster.kubectl(&["-n", "vms", "get", kind, name, "-o", "json"]);
    ran.is_ok().then(|| ran.json())
}

/// Status, reason and message of a condition, joined by spaces.
pub(crate) fn condition(object: &Value, kind: &str) -> Option<String> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some(["status", "reason", "message"].map(text).join(" ").trim_end().to_owned())
}

/// Waits until an instance of namespace `vms` is as `judge` demands.
pub(crate) fn wait_instance(cluster: &Cluster, name: &str, what: &str, judge: impl Fn(&Value) -> bool) -> Value {
    let ask = || object(cluster, "vmi", name).filter(&judge);
    wait_for_or(&format!("instance {name} {what}"), START, ask, || account(cluster, name)).0
}

/// The status of an instance and of its pods, what its guest's console showed last, and the last lines about them in the logs
/// of the nodes and of the controller.
fn account(cluster: &Cluster, name: &str) -> String {
    let mut text = String::new();
    let Some(vmi) = object(cluster, "vmi", name) else { return format!("there is no instance {name}") };
    let _ = writeln!(text, "instance {name}: {}", vmi["status"]);
    let label = format!("kubevirt.io/created-by={}", vmi["metadata"]["uid"].as_str().unwrap_or_default());
    let pods = cluster.kubectl(&["-n", "vms", "get", "pods", "-l", &label, "-o", "json"]).stdout();
    let pods: Value = serde_json::from_str(&pods).unwrap_or_default();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let (pod_name, uid) = (&pod["metadata"]["name"], pod["metadata"]["uid"].as_str().unwrap_or_default());
        let _ = writeln!(text, "pod {pod_name} {uid}: {}", pod["status"]);
        let lines =
            r#"for log in "$0"/node*.log; do echo "$log"; grep -F "$1" "$log" | tail -n 12 | cut -c 1-400; done"#;
        let ran = Ran::of(Command::new("bash").args(["-c", lines]).arg(cluster.logs()).arg(uid));
        text.push_str(&ran.stdout());
        let mut console = cluster.command("timeout");
        console.args(["5", "kubectl", "-n", "vms", "exec", pod_name.as_str().unwrap_or_default(), "--"]);
        console.args(["/usr/bin/tapvisor-launcher", "ctl", "console"]);
        let _ = writeln!(text, "its console:\n{}", Ran::of(&mut console).stdout());
    }
    let controller = ["-n", "tapvisor", "logs", "-l", "app=tapvisor-controller", "--tail=400", "--prefix"];
    let log = cluster.kubectl(&controller).stdout();
    let about: Vec<_> = log.lines().filter(|line| line.contains(name)).collect();
    about.iter().skip(about.len().saturating_sub(10)).for_each(|line| {
        let _ = writeln!(text, "{line}");
    });
    text
}

/// Waits until an instance runs and Services lead to it.
pub(crate) fn wait_ready(cluster: &Cluster, name: &str) -> Value {
    wait_instance(cluster, name, "to be ready", |vmi| {
        vmi["status"]["phase"] == "Running" && condition(vmi, "Ready").as_deref() == Some("True")
    })
}

/// As [`account`], of the instance that has an address.
pub(crate) fn account_of_address(cluster: &Cluster, address: &str) -> String {
    let list = cluster.kubectl(&["-n", "vms", "get", "vmi", "-o", "json"]).stdout();
    let list: Value = serde_json::from_str(&list).unwrap_or_default();
    let all = list["items"].as_array().into_iter().flatten();
    let accounts = all
        .filter(|vmi| vmi["status"]["interfaces"].to_string().contains(&format!("\"{address}\"")))
        .filter_map(|vmi| vmi["metadata"]["name"].as_str());
    accounts.map(|name| account(cluster, name)).collect()
}

/// Deletes an instance and demands that no pod and no Secret of it is left.
pub(crate) fn delete_and_assert_gone(cluster: &Cluster, vmi: &Value) {
    let (name, uid) =
        (vmi["metadata"]["name"].as_str().expect("a name"), vmi["metadata"]["uid"].as_str().expect("a UID"));
    cluster.kubectl(&["-n", "vms", "delete", "vmi", name, "--timeout=170s"]).assert_ok();
    let label = format!("kubevirt.io/created-by={uid}");
    let list = || cluster.kubectl(&["-n", "vms", "get", "pods,secrets", "-l", &label, "-o", "name"]);
    wait_for("the Secret to be collected", START, || list().text().is_empty().then_some(()));
}

/// What the controller asked of the API server about objects of namespace `vms` whose names contain `part`: verb and
/// resource, in their order.
pub(crate) fn writes(cluster: &Cluster, part: &str) -> Vec<String> {
    let log = std::fs::read_to_string(cluster.logs().join("audit.log")).expect("the API server writes it");
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_ours = |event: &Value| {
        let about = &event["objectRef"];
        event["user"]["username"] == CONTROLLER
            && about["namespace"] == "vms"
            && about["name"].as_str().is_some_and(|name| name.contains(part))
            && event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300)
            && !["get", "list", "watch"].contains(&event["verb"].as_str().unwrap_or_default())
    };
    let describe = |event: Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        format!("{} {}", text(&event["verb"]), text(&event["objectRef"]["resource"]))
    };
    events.filter(is_ours).map(describe).collect()
}

fn applied() {
    let cluster = installed();
    let path = workspace().join("examples/cluster/instance.yaml").display().to_string();
    cluster.kubectl(&["-n", "vms", "apply", "-f", &path]).assert_ok();
    let vmi = wait_ready(&cluster, "web");
    let node = vmi["status"]["nodeName"].as_str().expect("it has a node");
    let other = tests::cluster::NODES.into_iter().find(|name| *name != node).expect("there are two");
    let service = object(&cluster, "service", "web").expect("it was applied");
    for address in cluster_ips(&service) {
        let answer = fetch(&cluster, "vms", &format!("client-{other}"), &address, 80);
        assert!(answer.contains("web"), "{answer}");
    }
    assert_cost(&cluster, vmi["metadata"]["uid"].as_str().expect("a UID"));
    assert_metrics(&cluster, node, || {
        for address in cluster_ips(&service) {
            fetch(&cluster, "vms", &format!("client-{other}"), &address, 80);
        }
    });
    delete_and_assert_gone(&cluster, &vmi);
    let uid = vmi["metadata"]["uid"].as_str().expect("a UID");
    let about = format!("--field-selector=involvedObject.uid={uid}");
    let told = || cluster.kubectl(&["-n", "vms", "get", "events", &about, "-o", "jsonpath={.items[*].reason}"]).text();
    // The last one is written when it is gone.
    let reasons = wait_for("the events of a life", START, || Some(told()).filter(|told| told.contains("Deleted"))).0;
    for reason in ["Started", "ShuttingDown", "Stopped", "Deleted"] {
        assert_eq!(reasons.split_ascii_whitespace().filter(|told| *told == reason).count(), 1, "{reason}: {reasons}");
    }
    cluster.kubectl(&["-n", "vms", "delete", "service", "web"]).assert_ok();
}

/// What the replicas of the controller export.
fn scrape(cluster: &Cluster) -> Vec<Scrape> {
    let names = ["-n", "tapvisor", "get", "pods", "-l", "app=tapvisor-controller", "-o", "name"];
    let names = cluster.kubectl(&names).text();
    let scrape = |name: &str| {
        let name = name.trim_start_matches("pod/");
        let path = format!("/api/v1/namespaces/tapvisor/pods/{name}:8080/proxy/metrics");
        let text = cluster.kubectl(&["get", "--raw", &path]).stdout();
        Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).expect("Prometheus' text")
    };
    names.lines().map(scrape).collect()
}

/// A metric of instance `web`, which one replica exports.
fn of_web(scrapes: &[Scrape], metric: &str) -> Option<Labeled> {
    let samples = scrapes.iter().flat_map(|scrape| &scrape.samples);
    let mut samples = samples.filter(|sample| sample.metric == metric && sample.labels.get("name") == Some("web"));
    let sample = samples.next()?;
    assert!(samples.next().is_none(), "{metric} is exported twice");
    let (Sample::Counter(value) | Sample::Gauge(value)) = sample.value else { panic!("{sample:?}") };
    Some((value, sample.labels.clone()))
}

type Labeled = (f64, prometheus_parse::Labels);

/// A guest that answered requests has received packets, and `traffic` makes them more.
fn assert_metrics(cluster: &Cluster, node: &str, traffic: impl Fn()) {
    const RECEIVED: &str = "kubevirt_vmi_network_receive_packets_total";
    let received = |more_than: f64| {
        let received = || of_web(&scrape(cluster), RECEIVED).filter(|(packets, _)| *packets > more_than);
        wait_for("received packets in the metrics", START, received).0
    };
    let (before, labels) = received(3.0);
    let expected = [("node", node), ("namespace", "vms"), ("interface", "default")];
    assert!(expected.iter().all(|(name, value)| labels.get(name) == Some(*value)), "{labels:?}");
    traffic();
    received(before);
    let scrapes = scrape(cluster);
    let value = |metric: &str| of_web(&scrapes, metric).unwrap_or_else(|| panic!("no {metric}")).0;
    let (resident, memory) = (value("kubevirt_vmi_memory_resident_bytes"), value("kubevirt_vmi_memory_domain_bytes"));
    assert!(
        resident > 16e6 && memory > 64e6 && value("kubevirt_vmi_cpu_usage_seconds_total") > 0.5,
        "{resident} {memory}"
    );
    assert!(of_web(&scrapes, "kubevirt_vmi_info").is_some_and(|(_, labels)| labels.get("phase") == Some("running")));
    let leading = scrapes.iter().flat_map(|scrape| &scrape.samples);
    let leading = leading.filter(|sample| sample.metric == "tapvisor_node_agent_answers").count();
    assert_eq!(leading, tests::cluster::NODES.len(), "one replica exports each agent");
}

/// One Secret, one pod, at most three updates and patches, and at most one event.
fn assert_cost(cluster: &Cluster, uid: &str) {
    let all: Vec<_> = [writes(cluster, "web"), writes(cluster, uid)].concat();
    let count =
        |starts: &[&str]| all.iter().filter(|write| starts.iter().any(|start| write.starts_with(start))).count();
    let (creates, events) = (count(&["create secrets", "create pods"]), count(&["create events"]));
    assert!(creates == 2 && events <= 1 && count(&["patch", "update"]) <= 3, "{all:#?}");
}
