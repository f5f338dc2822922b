//! The launcher pod of an instance and the Secret with its launch file, as data.
//!
//! Shape, labels and annotations are those that Services, NetworkPolicies, `virtctl` and dashboards expect of KubeVirt.

use std::collections::BTreeSet;

use api::kubevirt::Port;
use api::translate::container_images;
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::annotations::annotations;
use super::images::{Images, images};
use super::launch::{LAUNCHER_ID, Launch};
use super::names::{COMPUTE, CREATED_BY, OUTCOME, UNPAUSED_GATE};
use super::resources::resources;
use super::volumes::{SCRATCH, claims, files, service_account, volumes};
use crate::config::ClusterConfig;
use crate::objects::VirtualMachineInstance;

/// Time the launcher has after the guest's grace period, and the pod after that.
const LAUNCHER_SECONDS: u64 = 15;
const POD_SECONDS: u64 = 15;
/// Time a launcher takes before its guest can answer a probe.
const PROBE_DELAY_SECONDS: i64 = 10;
/// The launcher in its image.
const LAUNCHER: &str = "/usr/bin/tapvisor-launcher";
/// A DNS label, less `virt-launcher-` and the hash: tools that cut pod names at a label's length keep the hash.
const NAME_CHARS: usize = 40;

/// Fields of an instance's spec that the pod takes over as they are.
const COPIED: [&str; 8] = [
    "affinity",
    "dnsConfig",
    "dnsPolicy",
    "nodeSelector",
    "priorityClassName",
    "schedulerName",
    "tolerations",
    "topologySpreadConstraints",
];

/// Annotation of an instance whose launcher is to fail, so that what follows can be tried.
const FAILS: &str = "kubevirt.io/func-test-virt-launcher-fail-fast";
/// Label of nodes whose agent is ready.
const SCHEDULABLE: &str = "kubevirt.io/schedulable";

/// Name of the pod of an attempt.
pub(crate) fn pod_name(instance: &str, uid: &str, attempt: u32) -> String {
    let hash = crate::hex(&Sha256::digest(format!("{uid}/{attempt}"))[..4]);
    let start: String = instance.chars().take(NAME_CHARS).collect();
    format!("virt-launcher-{}-{hash}", start.trim_end_matches(['-', '.']))
}

/// Name of the Secret with the launch file. It follows everything the file is made of but the immutable spec, so that an
/// attempt under another release or configuration has a Secret of its own. Never a hash of the content: that holds
/// passwords, and names can be read by many.
fn secret_name(uid: &str, launch: &Launch) -> String {
    let wiring = launch.file.wiring.digest();
    let emulation = launch.file.machine.emulation;
    let mut source = format!("{uid}/{}/{emulation:?}/{wiring}", env!("CARGO_PKG_VERSION"));
    // A claim may be another one of its name by then.
    if !launch.places.is_empty() {
        source.push_str(&format!("{:?}", launch.places));
    }
    format!("virt-launcher-{uid}-{}", crate::hex(&Sha256::digest(source)[..4]))
}

/// The Secret with an instance's launch file; it never changes.
///
/// # Errors
/// A defect of this module: the shape is not a Secret's.
pub(crate) fn secret(object: &VirtualMachineInstance, launch: &Launch) -> Result<Secret, serde_json::Error> {
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    serde_json::from_value(json!({
        "metadata": {
            "name": secret_name(uid, launch),
            "namespace": object.metadata.namespace,
            "labels": {CREATED_BY: uid},
            "ownerReferences": [owner(object)],
        },
        "immutable": true,
        "type": "tapvisor.io/launch-file",
        "stringData": {"machine.json": serde_json::to_string(&launch.file)?},
    }))
}

/// The launcher pod of an attempt.
///
/// # Errors
/// A defect of this module: the shape is not a pod's.
pub(crate) fn pod(
    object: &VirtualMachineInstance,
    launch: &Launch,
    config: &ClusterConfig,
    attempt: u32,
) -> Result<Pod, serde_json::Error> {
    let metadata = &object.metadata;
    let (name, uid) = (metadata.name.as_deref().unwrap_or_default(), metadata.uid.as_deref().unwrap_or_default());
    let mut labels = launch.instance.pod_labels();
    labels.insert(CREATED_BY.to_owned(), uid.to_owned());
    let (mut volumes, mut mounts) = volumes(&secret_name(uid, launch), launch);
    let (of_claims, claim_mounts, devices) = claims(launch);
    let (of_files, file_mounts) = files(launch);
    let resources = resources(launch, config);
    let Images { volumes: of_images, mounts: image_mounts, init_containers } = images(launch, config, &resources);
    volumes.extend(of_images.into_iter().chain(of_claims).chain(of_files));
    mounts.extend(image_mounts.into_iter().chain(claim_mounts).chain(file_mounts));
    let mut spec = json!({
        "restartPolicy": "Never",
        "enableServiceLinks": false,
        "automountServiceAccountToken": false,
        "hostname": launch.instance.hostname(),
        "terminationGracePeriodSeconds": launch.file.machine.grace_period_seconds + LAUNCHER_SECONDS + POD_SECONDS,
        "readinessGates": [{"conditionType": UNPAUSED_GATE}],
        "securityContext": {
            "runAsUser": LAUNCHER_ID,
            "runAsGroup": LAUNCHER_ID,
            "runAsNonRoot": true,
            "fsGroup": LAUNCHER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [compute(object, launch, config, &resources, mounts, devices)],
        "volumes": volumes,
    });
    if !init_containers.is_empty() {
        spec["initContainers"] = json!(init_containers);
    }
    for field in COPIED {
        if let Some(value) = object.spec.fields.get(field).filter(|value| !value.is_null()) {
            spec[field] = value.clone();
        }
    }
    // As they are understood: the API server may refuse numbers with leading zeros in a pod.
    let name_servers = &launch.instance.spec.dns.nameservers;
    if !name_servers.is_empty() {
        spec["dnsConfig"]["nameservers"] = json!(name_servers);
    }
    spec["nodeSelector"]["kubernetes.io/arch"] = json!("amd64");
    if config.requires_agent() {
        spec["nodeSelector"][SCHEDULABLE] = json!("true");
    }
    // Its token is in the volume that asks for it, and not mounted automatically.
    set(&mut spec, "serviceAccountName", service_account(launch));
    set(&mut spec, "subdomain", launch.instance.spec.subdomain.as_deref());
    set(&mut spec, "runtimeClassName", config.runtime_class.as_deref());
    let pull_secrets: BTreeSet<_> =
        container_images(&launch.instance).into_iter().filter_map(|image| image.pull_secret).collect();
    if !pull_secrets.is_empty() {
        spec["imagePullSecrets"] = pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    serde_json::from_value(json!({
        "metadata": {
            "name": pod_name(name, uid, attempt),
            "namespace": metadata.namespace,
            "labels": labels,
            "annotations": annotations(object, launch, config, attempt)?,
            "finalizers": [OUTCOME],
            "ownerReferences": [owner(object)],
        },
        "spec": spec,
    }))
}

fn set(object: &mut Value, field: &str, value: Option<&str>) {
    if let Some(value) = value {
        object[field] = json!(value);
    }
}

fn owner(object: &VirtualMachineInstance) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "name": object.metadata.name,
        "uid": object.metadata.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

fn compute(
    object: &VirtualMachineInstance,
    launch: &Launch,
    config: &ClusterConfig,
    resources: &Value,
    mounts: Vec<Value>,
    devices: Vec<Value>,
) -> Value {
    let launching = [
        "launch",
        "--machine",
        "/etc/tapvisor/machine.json",
        "--dir",
        "/run/tapvisor",
        "--scratch",
        SCRATCH,
        "--termination-log",
        "/dev/termination-log",
    ];
    let args: &[_] = if kube::ResourceExt::annotations(object).contains_key(FAILS) { &["fail"] } else { &launching };
    let mut container = json!({
        "name": COMPUTE,
        "image": config.launcher_image,
        "imagePullPolicy": "IfNotPresent",
        "args": args,
        "resources": resources,
        // The launcher writes its outcome there; a launcher that cannot write leaves its last log lines.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        },
        "volumeMounts": mounts,
    });
    if !devices.is_empty() {
        container["volumeDevices"] = json!(devices);
    }
    let ports: Vec<_> = launch.instance.spec.nics.iter().flat_map(|nic| &nic.ports).map(container_port).collect();
    if !ports.is_empty() {
        container["ports"] = json!(ports);
    }
    for probe in ["readinessProbe", "livenessProbe"] {
        if let Some(value) = object.spec.fields.get(probe).filter(|value| !value.is_null()) {
            let mut value = value.clone();
            let delay = value["initialDelaySeconds"].as_i64().unwrap_or(0);
            value["initialDelaySeconds"] = json!(delay.saturating_add(PROBE_DELAY_SECONDS));
            ask_the_agent(&mut value);
            container[probe] = value;
        }
    }
    container
}

/// A probe that asks the guest's agent is a program in the pod: it asks the launcher.
fn ask_the_agent(probe: &mut Value) {
    // Kubernetes reads a zero as its default.
    let timeout = probe["timeoutSeconds"].as_i64().filter(|seconds| *seconds > 0).unwrap_or(1);
    let words = match (&probe["exec"]["command"], &probe["guestAgentPing"]) {
        (Value::Array(command), _) => {
            [vec![json!("agent-execute"), json!(timeout.to_string())], command.clone()].concat()
        }
        (_, Value::Object(_)) => vec![json!("agent-ping")],
        _ => return,
    };
    let program = [LAUNCHER, "ctl"].map(Value::from);
    if let Some(probe) = probe.as_object_mut() {
        probe.remove("guestAgentPing");
        probe.insert("exec".to_owned(), json!({"command": program.into_iter().chain(words).collect::<Vec<_>>()}));
        // For the way to the agent.
        probe.insert("timeoutSeconds".to_owned(), json!(timeout.saturating_add(1)));
    }
}

fn container_port(port: &Port) -> Value {
    let mut value = json!({"containerPort": port.port, "protocol": port.protocol.to_string().to_uppercase()});
    set(&mut value, "name", port.name.as_deref());
    value
}
