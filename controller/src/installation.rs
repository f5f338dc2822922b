//! The KubeVirt object: its configuration is put in force, and its status says so or says why not.

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use node_protocol::names::{AGENT, AGENT_LABEL};
use serde_json::json;
use tokio::sync::watch;

use crate::MANAGER;
use crate::config::ClusterConfig;
use crate::objects::{Condition, InstallationStatus, KubeVirt};

/// Pods of KubeVirt itself.
const KUBEVIRT: &str = "kubevirt.io in (virt-operator,virt-controller,virt-handler,virt-api)";
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Whether pods of this cluster can mount container images as volumes: they can from Kubernetes 1.35, where the gate
/// `ImageVolume` is on unless an operator turns it off. Waits for the API server's answer.
pub(crate) async fn mounts_images(client: &Client) -> bool {
    loop {
        match client.apiserver_version().await {
            Ok(version) => return has_image_volumes(&version.major, &version.minor),
            Err(error) => tracing::warn!(%error, "the version of Kubernetes is not known yet"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Providers append to the minor version, as in `34+`.
fn has_image_volumes(major: &str, minor: &str) -> bool {
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    number(major).zip(number(minor)).is_some_and(|version| version >= (1, 35))
}

/// Waits until no KubeVirt runs in the cluster: both would make pods for the same objects.
pub(crate) async fn wait_alone(client: Client) {
    let pods = Api::<Pod>::all(client);
    // Some clients look for agents under KubeVirt's label, and operators give ours that one.
    let others = format!("{KUBEVIRT},{AGENT_LABEL}!={AGENT}");
    loop {
        match pods.list(&ListParams::default().labels(&others).limit(1)).await.map(|found| found.items) {
            Ok(found) if found.is_empty() => return,
            Ok(found) => {
                let pod =
                    found.first().map(|pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()));
                tracing::error!(pod, "KubeVirt runs in this cluster: nothing is done until it is removed");
            }
            Err(error) => tracing::warn!(%error, "it is not known whether KubeVirt runs in this cluster"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What the KubeVirt object says, for those who work by it.
#[derive(Clone)]
pub(crate) struct Published {
    /// The configuration in force.
    pub(crate) config: watch::Sender<ClusterConfig>,
    /// The resourceVersion of the object that was looked at last.
    pub(crate) followed: watch::Sender<Option<u64>>,
}

/// Puts the configuration of the object that exists in force, before the first pass over an instance.
pub(crate) async fn adopt(client: Client, publish: &Published) {
    let defaults = publish.config.borrow().clone();
    match Api::<KubeVirt>::all(client.clone()).list(&ListParams::default()).await {
        Ok(objects) => {
            for object in objects {
                put_in_force(&client, publish, &defaults, &object).await;
            }
        }
        Err(error) => tracing::warn!(%error, "KubeVirt objects cannot be listed: the defaults are in force"),
    }
}

/// Follows changes of the KubeVirt object for ever.
pub(crate) async fn run(client: Client, publish: Published, defaults: ClusterConfig) {
    let objects = watcher(Api::<KubeVirt>::all(client.clone()), watcher::Config::default());
    let mut objects = std::pin::pin!(objects.default_backoff().applied_objects());
    while let Some(object) = objects.next().await {
        match object {
            Ok(object) => put_in_force(&client, &publish, &defaults, &object).await,
            Err(error) => tracing::warn!(%error, "KubeVirt objects cannot be watched"),
        }
    }
}

async fn put_in_force(client: &Client, publish: &Published, defaults: &ClusterConfig, object: &KubeVirt) {
    let read = ClusterConfig::read(defaults, object);
    if let Ok(config) = &read {
        publish.config.send_if_modified(|current| std::mem::replace(current, config.clone()) != *config);
    }
    let version = object.resource_version().and_then(|version| version.parse().ok());
    tracing::info!(version, is_in_force = read.is_ok(), "a KubeVirt object was read");
    publish.followed.send_if_modified(|current| std::mem::replace(current, version) != version);
    let complaints = read.err().unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let status = status(object, &complaints);
    // Clients that wait for an uninstallation look at the object, not at its status.
    if object.status.as_ref() == Some(&status) || object.metadata.deletion_timestamp.is_some() {
        return;
    }
    let api: Api<KubeVirt> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"status": status}));
    if let Err(error) = api.patch_status(&object.name_any(), &parameters, &patch).await {
        tracing::warn!(%error, "the status of the KubeVirt object is not written");
    }
}

/// Available only with a configuration that is in force.
fn status(object: &KubeVirt, complaints: &str) -> InstallationStatus {
    let earlier = object.status.clone().unwrap_or_default();
    let in_force = complaints.is_empty();
    let condition = |kind: &str, is_true: bool| {
        let status = if is_true { "True" } else { "False" };
        let before = earlier.conditions.iter().find(|condition| condition.kind == kind && condition.status == status);
        let reason = if in_force { "ConfigurationInForce" } else { "InvalidConfiguration" };
        Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(complaints.to_owned()).filter(|text| !text.is_empty()),
            last_transition_time: Some(
                before.and_then(|condition| condition.last_transition_time.clone()).unwrap_or(Time(Timestamp::now())),
            ),
        }
    };
    InstallationStatus {
        phase: Some("Deployed".to_owned()),
        conditions: vec![
            // What KubeVirt's operator would have created came with the manifest.
            condition("Created", true),
            condition("Available", true),
            condition("Progressing", false),
            condition("Degraded", !in_force),
        ],
        observed_generation: if in_force { object.metadata.generation } else { earlier.observed_generation },
        observed_kube_virt_version: Some(format!("tapvisor-{}", env!("CARGO_PKG_VERSION"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CTRL-35
    #[test]
    fn images_are_mounted_from_kubernetes_1_35_on() {
        let known = [("1", "34"), ("1", "34+"), ("1", "35"), ("1", "36+"), ("2", "0"), ("", "")];
        let found = known.map(|(major, minor)| has_image_volumes(major, minor));
        assert_eq!(found, [false, false, true, true, true, false]);
    }

    /// Clients that wait for an installation of KubeVirt read these four.
    #[test]
    fn a_configuration_in_force_is_created_available_settled_and_sound() {
        let object = serde_json::from_value(json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
            "metadata": {"name": "kubevirt", "generation": 3}, "spec": {}}));
        let status = status(&object.unwrap(), "");
        let conditions: Vec<_> = status.conditions.iter().map(|found| (&*found.kind, &*found.status)).collect();
        assert_eq!(
            conditions,
            [("Created", "True"), ("Available", "True"), ("Progressing", "False"), ("Degraded", "False")]
        );
        assert_eq!(status.observed_generation, Some(3));
    }
}
