//! Annotations of a launcher pod: the instance's, the networks for Multus, and the wiring request.

use std::collections::BTreeMap;

use api::translate::NetworkSource;
use serde_json::{Map, Value, json};
use wiring::Binding;

use super::launch::Launch;
use super::names::{ATTEMPT, COMPUTE};
use crate::config::{ClusterConfig, WiringChannel};
use crate::objects::VirtualMachineInstance;

const WIRING: &str = "tapvisor.io/wiring";
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
/// The NetworkAttachmentDefinition whose plugin is `tapvisor`, where Multus carries the wiring request.
const WIRING_ATTACHMENT: &str = "tapvisor-wiring";
/// Prefixes of annotations that an instance does not hand to its pod: its spec decides about networks.
const OURS: [&str; 4] = ["kubectl.kubernetes.io/", "tapvisor.io/", "k8s.v1.cni.cncf.io/", "v1.multus-cni.io/"];

/// The wiring request that a launcher pod was made with, by whichever way.
pub(crate) fn wiring(annotations: &BTreeMap<String, String>) -> Option<Value> {
    let read = |key: &str| serde_json::from_str::<Value>(annotations.get(key)?).ok();
    let of_attachment = || {
        let networks = read(NETWORKS)?;
        let carrier = networks.as_array()?.iter().find(|network| network["name"] == WIRING_ATTACHMENT)?;
        carrier.pointer("/cni-args/wiring").cloned()
    };
    read(WIRING).or_else(of_attachment)
}

/// The annotations of the pod of an attempt.
///
/// # Errors
/// A defect of this crate: the request cannot be written as JSON.
pub(super) fn annotations(
    object: &VirtualMachineInstance,
    launch: &Launch,
    config: &ClusterConfig,
    attempt: u32,
) -> Result<Map<String, Value>, serde_json::Error> {
    let given = object.metadata.annotations.iter().flatten();
    let handed = given.filter(|(key, _)| !OURS.iter().any(|prefix| key.starts_with(prefix)));
    let mut annotations: Map<_, _> = handed.map(|(key, value)| (key.clone(), json!(value))).collect();
    let mut add = |key: &str, value: String| annotations.insert(key.to_owned(), Value::String(value));
    add("kubevirt.io/domain", object.metadata.name.clone().unwrap_or_default());
    add("kubectl.kubernetes.io/default-container", COMPUTE.to_owned());
    add(ATTEMPT, attempt.to_string());
    let mut networks = Vec::new();
    for network in &launch.translation.networks {
        match &network.source {
            NetworkSource::Pod => {}
            NetworkSource::Multus { namespace, name, default: true } => {
                add(DEFAULT_NETWORK, format!("{namespace}/{name}"));
            }
            NetworkSource::Multus { namespace, name, default: false } => {
                let mut asked = json!({"namespace": namespace, "name": name, "interface": network.pod_interface});
                // The plugin may let pass no address but the one that it knows (`macspoofchk` of `bridge`).
                let mut interfaces = launch.file.wiring.interfaces().iter();
                let bridged = interfaces.find(|interface| interface.name == network.name);
                if let Some(mac) = bridged.filter(|bridged| bridged.binding == Binding::Bridge).and_then(|nic| nic.mac)
                {
                    asked["mac"] = json!(mac);
                }
                networks.push(asked);
            }
        }
    }
    match config.wiring_channel {
        WiringChannel::Annotation => {
            add(WIRING, serde_json::to_string(&launch.file.wiring)?);
        }
        WiringChannel::Multus => networks.push(json!({
            "namespace": object.metadata.namespace,
            "name": WIRING_ATTACHMENT,
            "cni-args": {"wiring": launch.file.wiring},
        })),
    }
    if !networks.is_empty() {
        add(NETWORKS, serde_json::to_string(&networks)?);
    }
    Ok(annotations)
}
