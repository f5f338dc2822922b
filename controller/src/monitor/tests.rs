//! Scrapes of what is known, parsed by a foreign parser; and the files of `deploy/monitoring`, which name what is exported.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use node_protocol::LauncherReport;
use prometheus_parse::{Scrape, Value as Sample};
use protocol::control::{LeaseStatus, NicStatus, ServiceStatus, State, Status};
use protocol::counters::{Counters, NicCounters, ProcessCounters, QueuePairCounters, TrafficCounters};
use serde_json::{Value, json};

use super::machines::{Seen, families};
use super::*;
use crate::vmi::names::CREATED_BY;

const POD: &str = "5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f";
const RULES: &str = include_str!("../../../deploy/monitoring/rules.yaml");
const DASHBOARD: &str = include_str!("../../../deploy/monitoring/dashboard.json");

fn parsed(seen: &Seen) -> Scrape {
    let text = metrics::text(families(seen));
    Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap()
}

/// The one sample of a metric with these labels.
fn value(scrape: &Scrape, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut samples = scrape.samples.iter().filter(|sample| {
        sample.metric == metric && labels.iter().all(|(name, value)| sample.labels.get(name) == Some(*value))
    });
    let value = samples.next().map(|sample| match sample.value {
        Sample::Counter(value) | Sample::Gauge(value) => value,
        ref other => panic!("{metric}: {other:?}"),
    });
    assert!(samples.next().is_none(), "{metric} {labels:?}: several samples");
    value
}

fn vmi(more: &Value) -> Arc<VirtualMachineInstance> {
    let mut vmi = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"namespace": "vms", "name": "web", "uid": "u1", "annotations": {"vm.kubevirt.io/os": "a \"b\"\\\n"}},
        "spec": {
            "evictionStrategy": "LiveMigrate",
            "networks": [{"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": "lan"}}],
            "domain": {"devices": {"interfaces": [{"name": "default", "masquerade": {}}, {"name": "lan", "bridge": {}}]}},
        },
        "status": {"phase": "Running", "nodeName": "node1", "guestOSInfo": {"name": "Debian GNU/Linux", "versionId": "12"}},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        vmi["status"][key] = value.clone();
    }
    Arc::new(serde_json::from_value(vmi).unwrap())
}

fn pod(node: &str, image: &str) -> Arc<Pod> {
    let labels = json!({CREATED_BY: "u1"});
    let pod = json!({
        "metadata": {"name": "virt-launcher-web", "uid": POD, "labels": labels, "annotations": {"tapvisor.io/attempt": "2"}},
        "spec": {"nodeName": node, "containers": [{"name": "compute", "image": image}]},
        "status": {"phase": "Running"},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn place(node: &str) -> Place {
    (node.to_owned(), POD.to_owned())
}

fn counters() -> Counters {
    let received = TrafficCounters { bytes: 4242, packets: 42, dropped: 2, errors: 1 };
    let sent = TrafficCounters { bytes: 17, packets: 1, ..TrafficCounters::default() };
    let process = ProcessCounters { user_milliseconds: 1500, system_milliseconds: 250, resident_bytes: 6 << 20 };
    let second = QueuePairCounters { received: TrafficCounters { packets: 40, ..received }, filtered: 5, sent };
    let queues = vec![QueuePairCounters::default(), second];
    let nic = NicCounters { name: "default".to_owned(), received, sent, queues, ..NicCounters::default() };
    Counters { memory_bytes: 1 << 30, process: Some(process), nics: vec![nic] }
}

fn report() -> LauncherReport {
    let lease = LeaseStatus { address: [10, 0, 2, 2].into(), asked: 2, answered: 1, leased: true, grants: 1 };
    let service = ServiceStatus { ipv4: Some(lease), strangers_ignored: 7, ..ServiceStatus::default() };
    let nic = NicStatus { service: Some(service), ..NicStatus::new("default", "02:11:22:33:44:55".parse().unwrap()) };
    let status = Status { nics: vec![nic], resets: 3, ..Status::new(State::Running) };
    LauncherReport { status: Some(status), ..LauncherReport::new(POD.parse().unwrap(), "node1") }
}

fn seen() -> Seen {
    let vm = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"namespace": "vms", "name": "web"},
        "spec": {"instancetype": {"name": "small"}}, "status": {"printableStatus": "CrashLoopBackOff"},
    });
    Seen {
        machines: vec![Arc::new(serde_json::from_value(vm).unwrap())],
        instances: vec![vmi(&json!({}))],
        pods: vec![pod("node1", "launcher:2")],
        agents: BTreeMap::from([("node1".to_owned(), true), ("node2".to_owned(), false)]),
        reports: BTreeMap::from([(place("node1"), report())]),
        counters: BTreeMap::from([(place("node1"), counters())]),
        config: Some(ClusterConfig::new("launcher:2".to_owned())),
    }
}

// spec: OPS-1
#[test]
fn a_scrape_has_kubevirts_names_and_labels_and_is_parsed() {
    let scrape = parsed(&seen());
    let web = [("node", "node1"), ("namespace", "vms"), ("name", "web")];
    let with = |label| [&web[..], &[label]].concat();
    let nic = with(("interface", "default"));
    let queue = [&nic[..], &[("queue", "1")]].concat();
    for (metric, labels, expected) in [
        ("kubevirt_vmi_network_receive_bytes_total", &nic, 4242.0),
        ("kubevirt_vmi_network_receive_packets_total", &nic, 42.0),
        ("kubevirt_vmi_network_receive_packets_dropped_total", &nic, 2.0),
        ("kubevirt_vmi_network_receive_errors_total", &nic, 1.0),
        ("kubevirt_vmi_network_transmit_bytes_total", &nic, 17.0),
        ("kubevirt_vmi_network_transmit_packets_total", &nic, 1.0),
        ("kubevirt_vmi_network_transmit_packets_dropped_total", &nic, 0.0),
        ("kubevirt_vmi_network_transmit_errors_total", &nic, 0.0),
        ("tapvisor_vmi_network_queue_receive_bytes_total", &queue, 4242.0),
        ("tapvisor_vmi_network_queue_receive_packets_total", &queue, 40.0),
        ("tapvisor_vmi_network_queue_receive_packets_dropped_total", &queue, 2.0),
        ("tapvisor_vmi_network_queue_receive_packets_filtered_total", &queue, 5.0),
        ("tapvisor_vmi_network_queue_transmit_bytes_total", &queue, 17.0),
        ("tapvisor_vmi_network_queue_transmit_packets_total", &queue, 1.0),
        ("tapvisor_vmi_network_queue_transmit_packets_dropped_total", &queue, 0.0),
        ("kubevirt_vmi_cpu_usage_seconds_total", &web.to_vec(), 1.75),
        ("kubevirt_vmi_cpu_user_usage_seconds_total", &web.to_vec(), 1.5),
        ("kubevirt_vmi_cpu_system_usage_seconds_total", &web.to_vec(), 0.25),
        ("kubevirt_vmi_memory_domain_bytes", &web.to_vec(), 1_073_741_824.0),
        ("kubevirt_vmi_memory_resident_bytes", &web.to_vec(), 6_291_456.0),
        ("kubevirt_vmi_info", &with(("phase", "running")), 1.0),
        ("kubevirt_vmi_info", &with(("guest_os_version_id", "12")), 1.0),
        ("kubevirt_vmi_info", &with(("vmi_pod", "virt-launcher-web")), 1.0),
        ("kubevirt_vmi_non_evictable", &web.to_vec(), 1.0),
        ("kubevirt_vmi_number_of_outdated", &vec![], 0.0),
        ("kubevirt_vm_info", &vec![("name", "web"), ("status", "crashloopbackoff"), ("status_group", "error")], 1.0),
        ("kubevirt_vm_info", &vec![("name", "web"), ("instance_type", "small")], 1.0),
        ("kubevirt_vmi_vnic_info", &vec![("vnic_name", "lan"), ("network", "lan"), ("binding_name", "bridge")], 1.0),
        ("tapvisor_vmi_launch_attempts", &web.to_vec(), 2.0),
    ] {
        assert_eq!(value(&scrape, metric, labels), Some(expected), "{metric} {labels:?}");
    }
}

// spec: OPS-2
#[test]
fn a_scrape_tells_of_agents_and_of_the_network_of_guests() {
    let scrape = parsed(&seen());
    let family = [("name", "web"), ("interface", "default"), ("family", "IPv4")];
    for (metric, labels, expected) in [
        ("tapvisor_vmi_network_leased", &family[..], 1.0),
        ("tapvisor_vmi_network_dhcp_requests_total", &family, 2.0),
        ("tapvisor_vmi_network_dhcp_answers_total", &family, 1.0),
        ("tapvisor_vmi_network_ignored_clients_total", &family[..2], 7.0),
        ("tapvisor_vmi_resets_total", &family[..1], 3.0),
        ("tapvisor_node_agent_answers", &[("node", "node1")], 1.0),
        ("tapvisor_node_agent_answers", &[("node", "node2")], 0.0),
        ("tapvisor_node_launchers", &[("node", "node1")], 1.0),
        ("tapvisor_node_launchers_silent", &[("node", "node1")], 0.0),
    ] {
        assert_eq!(value(&scrape, metric, labels), Some(expected), "{metric} {labels:?}");
    }
    let refused = json!({"conditions": [{"type": "Synchronized", "status": "False", "reason": "NotWired"}]});
    let scrape = parsed(&Seen { instances: vec![vmi(&refused)], ..seen() });
    assert_eq!(value(&scrape, "tapvisor_vmi_not_synchronized", &[("reason", "NotWired")]), Some(1.0));
}

// spec: OPS-1
#[test]
fn an_agents_counters_of_a_pod_on_another_node_are_not_exported() {
    let scrape = parsed(&Seen { pods: vec![pod("node2", "launcher:1")], ..seen() });
    assert_eq!(value(&scrape, "kubevirt_vmi_memory_domain_bytes", &[]), None);
    assert_eq!(value(&scrape, "tapvisor_vmi_resets_total", &[]), None);
    assert_eq!(value(&scrape, "kubevirt_vmi_info", &[("outdated", "true")]), Some(1.0));
    assert_eq!(value(&scrape, "kubevirt_vmi_number_of_outdated", &[]), Some(1.0));
}

/// Names of metrics in a text.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("kubevirt_") || word.starts_with("tapvisor_")).collect()
}

// spec: OPS-3
#[test]
fn rules_and_dashboard_name_only_metrics_that_are_exported() {
    let rules: Value = serde_saphyr::from_str(RULES).unwrap();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let rules: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    let recorded: BTreeSet<_> = rules.iter().filter_map(|rule| rule["record"].as_str()).collect();
    let of_replica = Metrics::default().families();
    let exported: Vec<_> = of_replica.into_iter().chain(families(&Seen::default())).collect();
    let exported: BTreeSet<_> = exported.iter().map(|family| family.name).chain(recorded).collect();
    let expressions = rules.iter().map(|rule| rule["expr"].as_str().unwrap());
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions: Vec<_> = expressions.chain(targets.map(|target| target["expr"].as_str().unwrap())).collect();
    for expression in &expressions {
        assert!(!named(expression).is_empty(), "{expression}");
    }
    let used: BTreeSet<_> = named(RULES).into_iter().chain(named(DASHBOARD)).collect();
    let unknown: Vec<_> = used.difference(&exported).collect();
    assert!(unknown.is_empty() && expressions.len() > 15, "{unknown:?}");
}

#[tokio::test]
async fn a_replica_that_does_not_lead_exports_no_instances() {
    let metrics = Arc::new(Metrics::default());
    let monitor = Monitor::new(metrics);
    let text = monitor.text().await;
    assert!(text.contains("tapvisor_controller_leading 0") && !text.contains("kubevirt_"), "{text}");
}
