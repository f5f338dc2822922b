//! What is exported of machines, instances, their launchers and node agents, by KubeVirt's names and labels where KubeVirt has
//! a metric of the same meaning. Names of our own begin with `tapvisor_`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use node_protocol::LauncherReport;
use protocol::control::NicStatus;
use protocol::counters::{Counters, QueuePairCounters, TrafficCounters};
use serde_json::Value;

use crate::config::ClusterConfig;
use crate::metrics::{Family, Labels};
use crate::objects::{Condition, InstanceStatus, VirtualMachineInstance};
use crate::vm::VirtualMachine;
use crate::vmi::names::{ATTEMPT, COMPUTE, CREATED_BY};

/// Prefix of the annotations that KubeVirt's labels `os`, `workload` and `flavor` come from.
const DESCRIBED: &str = "vm.kubevirt.io/";

/// A node, and the UID of a pod there.
pub(super) type Place = (String, String);

/// All that is known at one time.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) machines: Vec<Arc<VirtualMachine>>,
    pub(super) instances: Vec<Arc<VirtualMachineInstance>>,
    /// Launcher pods.
    pub(super) pods: Vec<Arc<Pod>>,
    /// By node, whether its agent has answered now.
    pub(super) agents: BTreeMap<String, bool>,
    /// What the agents last said of launchers, by node and pod.
    pub(super) reports: BTreeMap<Place, LauncherReport>,
    /// What launchers have used, by node and pod.
    pub(super) counters: BTreeMap<Place, Counters>,
    pub(super) config: Option<ClusterConfig>,
}

/// An instance and the pod that runs it.
struct Instance<'a> {
    vmi: &'a VirtualMachineInstance,
    status: InstanceStatus,
    pod: Option<&'a Pod>,
}

impl Instance<'_> {
    /// `node`, `namespace` and `name`, as all metrics of an instance have them.
    fn labels(&self) -> Labels {
        vec![
            ("node", self.status.node_name.clone().unwrap_or_default()),
            ("namespace", self.vmi.namespace().unwrap_or_default()),
            ("name", self.vmi.name_any()),
        ]
    }

    fn with(&self, more: impl IntoIterator<Item = (&'static str, String)>) -> Labels {
        self.labels().into_iter().chain(more).collect()
    }

    fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Whether an eviction may take it away: only an instance that must be moved and cannot be keeps its node.
    fn is_evictable(&self) -> bool {
        let strategy = self.vmi.spec.fields.get("evictionStrategy").and_then(Value::as_str);
        strategy != Some("LiveMigrate") || self.condition("LiveMigratable").is_some_and(|is| is.status == "True")
    }

    /// Whether its launcher is of another image than new ones are.
    fn is_outdated(&self, config: Option<&ClusterConfig>) -> bool {
        let Some((spec, config)) = self.pod.and_then(|pod| pod.spec.as_ref()).zip(config) else { return false };
        let image = spec.containers.iter().find(|container| container.name == COMPUTE);
        image.is_some_and(|container| container.image.as_ref() != Some(&config.launcher_image))
    }

    /// An agent speaks for the pods of its own node alone.
    fn place(&self) -> Option<Place> {
        let pod = self.pod?;
        Some((pod.spec.as_ref()?.node_name.clone()?, pod.metadata.uid.clone()?))
    }
}

/// The families, also those that have no sample now.
pub(super) fn families(seen: &Seen) -> Vec<Family> {
    let mut by_instance: BTreeMap<&str, &Pod> = BTreeMap::new();
    for pod in &seen.pods {
        let is_live = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        if let (Some(uid), true) = (pod.labels().get(CREATED_BY), is_live) {
            by_instance.insert(uid, pod);
        }
    }
    let instances = seen.instances.iter().map(|vmi| {
        let pod = vmi.metadata.uid.as_deref().and_then(|uid| by_instance.get(uid).copied());
        Instance { vmi, status: vmi.status.clone().unwrap_or_default(), pod }
    });
    let instances: Vec<_> = instances.collect();
    let mut families = vec![machines(seen)];
    families.extend(of_instances(&instances, seen));
    families.extend(used(&instances, seen));
    families.extend(traffic(&instances, seen));
    families.extend(queues(&instances, seen));
    families.extend(wiring(&instances, seen));
    families.extend(agents(seen));
    families
}

fn machines(seen: &Seen) -> Family {
    let mut info = Family::new("kubevirt_vm_info", "Information about Virtual Machines.");
    for vm in &seen.machines {
        let field =
            |path: &[&str]| path.iter().skip(1).try_fold(vm.spec.fields.get(*path.first()?)?, |at, name| at.get(name));
        let described = |what: &str| {
            let key = format!("{DESCRIBED}{what}");
            text(field(&["template", "metadata", "annotations", &key]))
        };
        let status = vm.status.as_ref().and_then(|status| status.printable_status.as_deref()).unwrap_or_default();
        let labels = vec![
            ("name", vm.name_any()),
            ("namespace", vm.namespace().unwrap_or_default()),
            ("os", described("os")),
            ("workload", described("workload")),
            ("flavor", described("flavor")),
            ("instance_type", text(field(&["instancetype", "name"]))),
            ("preference", text(field(&["preference", "name"]))),
            ("status", status.to_lowercase()),
            ("status_group", group(status).to_owned()),
        ];
        info.add(labels, 1.0);
    }
    info
}

fn text(value: Option<&Value>) -> String {
    value.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// KubeVirt's group of a printable status.
fn group(status: &str) -> &'static str {
    match status {
        "Provisioning" | "Starting" | "WaitingForVolumeBinding" => "starting",
        "Running" => "running",
        "Migrating" => "migrating",
        "Stopped" | "Paused" | "Stopping" | "Terminating" => "non_running",
        "CrashLoopBackOff" | "Unknown" | "ErrorUnschedulable" | "ErrImagePull" | "ImagePullBackOff"
        | "ErrorPvcNotFound" | "DataVolumeError" => "error",
        _ => "<unknown>",
    }
}

fn of_instances(instances: &[Instance<'_>], seen: &Seen) -> Vec<Family> {
    let mut info = Family::new("kubevirt_vmi_info", "Information about VirtualMachineInstances.");
    let mut kept = Family::new(
        "kubevirt_vmi_non_evictable",
        "1 for an instance whose eviction strategy is LiveMigrate and that cannot be migrated.",
    );
    let mut nics = Family::new("kubevirt_vmi_vnic_info", "NICs of instances: name, binding and network.");
    let mut refused = Family::new(
        "tapvisor_vmi_not_synchronized",
        "1 for an instance that does not run as it should, with the reason of its condition Synchronized.",
    );
    let mut attempts = Family::new(
        "tapvisor_vmi_launch_attempts",
        "Number of the launcher pod that runs the instance; above 1 when earlier ones had no network.",
    );
    let mut outdated = 0.0;
    for instance in instances {
        let config = seen.config.as_ref();
        info.add(described(instance, config), 1.0);
        kept.add(instance.labels(), f64::from(u8::from(!instance.is_evictable())));
        outdated += f64::from(u8::from(instance.is_outdated(config)));
        nics_of(instance, &mut nics);
        if let Some(condition) = instance.condition("Synchronized").filter(|condition| condition.status == "False") {
            refused.add(instance.with([("reason", condition.reason.clone().unwrap_or_default())]), 1.0);
        }
        let attempt = instance.pod.and_then(|pod| pod.annotations().get(ATTEMPT)?.parse::<u32>().ok());
        if let Some(attempt) = attempt {
            attempts.add(instance.labels(), f64::from(attempt));
        }
    }
    let outdated = Family::of(
        "kubevirt_vmi_number_of_outdated",
        "Instances whose launcher is of another image than new ones are.",
        outdated,
    );
    vec![info, kept, nics, refused, attempts, outdated]
}

fn described(instance: &Instance<'_>, config: Option<&ClusterConfig>) -> Labels {
    let annotation = |key: &str| instance.vmi.annotations().get(key).cloned().unwrap_or_default();
    let named = |of_namespace: &str, of_cluster: &str| {
        let own = annotation(of_namespace);
        if own.is_empty() { annotation(of_cluster) } else { own }
    };
    let os = instance.status.guest_os_info.clone().unwrap_or_default();
    let phase = instance.status.phase.map(|phase| format!("{phase:?}").to_lowercase());
    instance.with([
        ("phase", phase.unwrap_or_default()),
        ("os", annotation(&format!("{DESCRIBED}os"))),
        ("workload", annotation(&format!("{DESCRIBED}workload"))),
        ("flavor", annotation(&format!("{DESCRIBED}flavor"))),
        ("instance_type", named("kubevirt.io/instancetype-name", "kubevirt.io/cluster-instancetype-name")),
        ("preference", named("kubevirt.io/preference-name", "kubevirt.io/cluster-preference-name")),
        ("guest_os_kernel_release", os.kernel_release),
        ("guest_os_arch", os.machine),
        ("guest_os_name", os.name),
        ("guest_os_version_id", os.version_id),
        ("evictable", instance.is_evictable().to_string()),
        ("outdated", instance.is_outdated(config).to_string()),
        ("vmi_pod", instance.pod.map(kube::ResourceExt::name_any).unwrap_or_default()),
    ])
}

fn nics_of(instance: &Instance<'_>, family: &mut Family) {
    let fields = &instance.vmi.spec.fields;
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let networks = list(fields.get("networks"));
    let nics = fields.get("domain").and_then(|domain| domain.get("devices")?.get("interfaces"));
    for nic in list(nics) {
        let name = text(nic.get("name"));
        let Some(network) = networks.iter().find(|network| text(network.get("name")) == name) else { continue };
        let network = match network.get("multus") {
            Some(multus) => text(multus.get("networkName")),
            None => "pod networking".to_owned(),
        };
        let binding = ["masquerade", "bridge", "sriov"].into_iter().find(|binding| nic.get(binding).is_some());
        let model = Some(text(nic.get("model"))).filter(|model| !model.is_empty());
        let labels = vec![
            ("name", instance.vmi.name_any()),
            ("namespace", instance.vmi.namespace().unwrap_or_default()),
            ("vnic_name", name),
            ("binding_type", "core".to_owned()),
            ("network", network),
            ("binding_name", binding.unwrap_or_default().to_owned()),
            ("model", model.unwrap_or_else(|| "<none>".to_owned())),
        ];
        family.add(labels, 1.0);
    }
}

/// Seconds and bytes beyond 2^53 lose their last digits, as everything does in Prometheus.
#[expect(clippy::cast_precision_loss, reason = "samples of Prometheus are floating-point numbers")]
fn number(count: u64) -> f64 {
    count as f64
}

fn seconds(milliseconds: u64) -> f64 {
    number(milliseconds) / 1000.0
}

fn used(instances: &[Instance<'_>], seen: &Seen) -> Vec<Family> {
    let mut all = Family::new("kubevirt_vmi_cpu_usage_seconds_total", "Total CPU time spent in all modes.");
    let mut user = Family::new("kubevirt_vmi_cpu_user_usage_seconds_total", "Total CPU time spent in user mode.");
    let mut system = Family::new("kubevirt_vmi_cpu_system_usage_seconds_total", "Total CPU time spent in system mode.");
    let mut memory = Family::new("kubevirt_vmi_memory_domain_bytes", "The guest's memory.");
    let mut resident =
        Family::new("kubevirt_vmi_memory_resident_bytes", "Resident memory of the process that runs the guest.");
    for instance in instances {
        let Some(counters) = instance.place().and_then(|place| seen.counters.get(&place)) else { continue };
        memory.add(instance.labels(), number(counters.memory_bytes));
        let Some(process) = counters.process else { continue };
        let [in_user, in_system] = [seconds(process.user_milliseconds), seconds(process.system_milliseconds)];
        all.add(instance.labels(), in_user + in_system);
        user.add(instance.labels(), in_user);
        system.add(instance.labels(), in_system);
        resident.add(instance.labels(), number(process.resident_bytes));
    }
    vec![all, user, system, memory, resident]
}

fn traffic(instances: &[Instance<'_>], seen: &Seen) -> Vec<Family> {
    type Count = fn(&TrafficCounters) -> u64;
    let counts: [(&str, &str, &str, Count); 4] = [
        (
            "kubevirt_vmi_network_receive_bytes_total",
            "kubevirt_vmi_network_transmit_bytes_total",
            "Bytes of the NIC's traffic, as its guest sees it.",
            |traffic| traffic.bytes,
        ),
        (
            "kubevirt_vmi_network_receive_packets_total",
            "kubevirt_vmi_network_transmit_packets_total",
            "Packets of the NIC's traffic, as its guest sees it.",
            |traffic| traffic.packets,
        ),
        (
            "kubevirt_vmi_network_receive_packets_dropped_total",
            "kubevirt_vmi_network_transmit_packets_dropped_total",
            "Packets dropped on the NIC's tap.",
            |traffic| traffic.dropped,
        ),
        (
            "kubevirt_vmi_network_receive_errors_total",
            "kubevirt_vmi_network_transmit_errors_total",
            "Malformed packets on the NIC's tap.",
            |traffic| traffic.errors,
        ),
    ];
    let mut families = Vec::new();
    for (receive, transmit, help, count) in counts {
        let (mut receive, mut transmit) = (Family::new(receive, help), Family::new(transmit, help));
        for instance in instances {
            let counters = instance.place().and_then(|place| seen.counters.get(&place));
            for nic in counters.into_iter().flat_map(|counters| &counters.nics) {
                let labels = instance.with([("interface", nic.name.clone())]);
                receive.add(labels.clone(), number(count(&nic.received)));
                transmit.add(labels, number(count(&nic.sent)));
            }
        }
        families.extend([receive, transmit]);
    }
    families
}

/// Each pair of queues that a launcher serves itself: what vhost-net moves is in [`traffic`] alone.
fn queues(instances: &[Instance<'_>], seen: &Seen) -> Vec<Family> {
    type Count = fn(&QueuePairCounters) -> u64;
    let counts: [(&str, &str, Count); 7] = [
        (
            "tapvisor_vmi_network_queue_receive_bytes_total",
            "Bytes that the guest received by this pair of queues.",
            |pair| pair.received.bytes,
        ),
        (
            "tapvisor_vmi_network_queue_transmit_bytes_total",
            "Bytes that the guest sent by this pair of queues.",
            |pair| pair.sent.bytes,
        ),
        (
            "tapvisor_vmi_network_queue_receive_packets_total",
            "Packets that the guest received by this pair of queues.",
            |pair| pair.received.packets,
        ),
        (
            "tapvisor_vmi_network_queue_transmit_packets_total",
            "Packets that the guest sent by this pair of queues.",
            |pair| pair.sent.packets,
        ),
        (
            "tapvisor_vmi_network_queue_receive_packets_dropped_total",
            "Packets to this pair of queues that were dropped.",
            |pair| pair.received.dropped,
        ),
        (
            "tapvisor_vmi_network_queue_transmit_packets_dropped_total",
            "Packets of this pair of queues that were dropped.",
            |pair| pair.sent.dropped,
        ),
        (
            "tapvisor_vmi_network_queue_receive_packets_filtered_total",
            "Packets that the guest's driver does not want.",
            |pair| pair.filtered,
        ),
    ];
    let family = |(name, help, count): (&'static str, &'static str, Count)| {
        let mut family = Family::new(name, help);
        for instance in instances {
            let counters = instance.place().and_then(|place| seen.counters.get(&place));
            for nic in counters.into_iter().flat_map(|counters| &counters.nics) {
                for (queue, pair) in nic.queues.iter().enumerate() {
                    let labels = instance.with([("interface", nic.name.clone()), ("queue", queue.to_string())]);
                    family.add(labels, number(count(pair)));
                }
            }
        }
        family
    };
    counts.map(family).into()
}

fn wiring(instances: &[Instance<'_>], seen: &Seen) -> Vec<Family> {
    let mut leased =
        Family::new("tapvisor_vmi_network_leased", "1 if the guest holds the address of this family, by DHCP.");
    let mut asked = Family::new("tapvisor_vmi_network_dhcp_requests_total", "DHCP messages from the guest.");
    let mut answered = Family::new("tapvisor_vmi_network_dhcp_answers_total", "DHCP messages to the guest.");
    let mut ignored =
        Family::new("tapvisor_vmi_network_ignored_clients_total", "DHCP messages of other clients than the guest.");
    let mut resets = Family::new("tapvisor_vmi_resets_total", "Resets of the guest.");
    let mut watchdog = Family::new("tapvisor_vmi_watchdog_total", "How often the guest's watchdog acted.");
    for instance in instances {
        let report = instance.place().and_then(|place| seen.reports.get(&place));
        let Some(status) = report.and_then(|report| report.status.as_ref()) else { continue };
        resets.add(instance.labels(), number(status.resets));
        watchdog.add(instance.labels(), number(status.watchdog_fired));
        for NicStatus { name, service, .. } in &status.nics {
            let Some(service) = service else { continue };
            let of_nic = || ("interface", name.clone());
            ignored.add(instance.with([of_nic()]), number(service.strangers_ignored));
            for (family, lease) in [("IPv4", &service.ipv4), ("IPv6", &service.ipv6)] {
                let Some(lease) = lease else { continue };
                let labels = instance.with([of_nic(), ("family", family.to_owned())]);
                leased.add(labels.clone(), f64::from(u8::from(lease.leased)));
                asked.add(labels.clone(), number(lease.asked));
                answered.add(labels, number(lease.answered));
            }
        }
    }
    vec![leased, asked, answered, ignored, resets, watchdog]
}

fn agents(seen: &Seen) -> Vec<Family> {
    let mut answers =
        Family::new("tapvisor_node_agent_answers", "1 if the agent of a node has answered this scrape, 0 if not.");
    let mut launchers = Family::new("tapvisor_node_launchers", "Launchers that the agent of a node knows.");
    let mut silent = Family::new(
        "tapvisor_node_launchers_silent",
        "Launchers that do not answer their node's agent as they should.",
    );
    for (node, has_answered) in &seen.agents {
        let labels = || vec![("node", node.clone())];
        let of_node = || seen.reports.iter().filter(|((at, _), _)| at == node).map(|(_, report)| report);
        let count = |reports: usize| number(reports.try_into().unwrap_or(u64::MAX));
        answers.add(labels(), f64::from(u8::from(*has_answered)));
        launchers.add(labels(), count(of_node().count()));
        silent.add(labels(), count(of_node().filter(|report| report.problem.is_some()).count()));
    }
    vec![answers, launchers, silent]
}
