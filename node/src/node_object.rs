//! What the agent says about its node in the Node object: labels, and whether launchers may be scheduled.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};
use kube::api::{Api, Patch, PatchParams};
use node_protocol::names;
use serde_json::{Value, json};

use crate::processor::Processor;

/// The labels that the agent sets where it is ready.
#[must_use]
pub(crate) fn labels(processor: &Processor) -> BTreeMap<String, String> {
    let mut labels = processor.labels();
    labels.insert(names::SCHEDULABLE.to_owned(), "true".to_owned());
    labels
}

fn is_ours(label: &str) -> bool {
    let prefixes =
        [names::CPU_FEATURE_PREFIX, names::CPU_VENDOR_PREFIX, names::CPU_MODEL_PREFIX, names::HOST_MODEL_PREFIX];
    [names::SCHEDULABLE, names::CPU_MODEL].contains(&label) || prefixes.iter().any(|prefix| label.starts_with(prefix))
}

/// The merge patch that gives `node` exactly these labels of ours and, where they say that it is ready, takes our taint away.
/// `None` when nothing differs.
#[must_use]
pub(crate) fn patch(node: &Node, wanted: &BTreeMap<String, String>) -> Option<Value> {
    let found = node.metadata.labels.clone().unwrap_or_default();
    let set = wanted.iter().filter(|(name, value)| found.get(*name) != Some(value));
    let set = set.map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    let gone = found.keys().filter(|name| is_ours(name) && !wanted.contains_key(*name));
    let labels: serde_json::Map<_, _> = gone.map(|name| (name.clone(), Value::Null)).chain(set).collect();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let is_ready = wanted.get(names::SCHEDULABLE).is_some_and(|value| value == "true");
    let kept: Vec<&Taint> = taints.iter().filter(|taint| !is_ready || taint.key != names::NOT_READY_TAINT).collect();
    let mut patch = json!({});
    if !labels.is_empty() {
        patch["metadata"] = json!({"labels": labels});
    }
    if kept.len() != taints.len() {
        // A list is replaced whole: another taint that came in between must not be lost.
        patch["spec"] = json!({"taints": kept});
        patch["metadata"]["resourceVersion"] = json!(node.metadata.resource_version);
    }
    (patch != json!({})).then_some(patch)
}

/// Makes the Node object say `wanted`; asks the API server for one change at most.
///
/// # Errors
/// The API server's.
pub(crate) async fn publish(
    nodes: &Api<Node>,
    name: &str,
    wanted: &BTreeMap<String, String>,
) -> Result<(), kube::Error> {
    let node = nodes.get(name).await?;
    if let Some(patch) = patch(&node, wanted) {
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        tracing::info!(labels = wanted.len(), "the Node object is up to date");
    }
    Ok(())
}

/// Whether the runtime that a node names has libcni 1.3, which reads drop-in folders: containerd 2.1, CRI-O 1.33 and newer.
#[must_use]
pub(crate) fn has_drop_ins(runtime: &str) -> bool {
    let Some((name, version)) = runtime.split_once("://") else { return false };
    let mut numbers = version.trim_start_matches('v').split('.').map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    let (Some(major), Some(minor)) = version else { return false };
    match name {
        "containerd" => (major, minor) >= (2, 1),
        "cri-o" => (major, minor) >= (1, 33),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(labels: &[(&str, &str)], taints: &[&str]) -> Node {
        let taint = |key: &&str| json!({"key": key, "effect": "NoSchedule"});
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        serde_json::from_value(json!({"metadata": {"name": "node1", "resourceVersion": "7", "labels": labels},
            "spec": {"taints": taints.iter().map(taint).collect::<Vec<_>>()}}))
        .unwrap()
    }

    // spec: NODE-5
    #[test]
    fn only_what_differs_is_patched_and_labels_of_others_stay() {
        let wanted = BTreeMap::from([(names::SCHEDULABLE.to_owned(), "true".to_owned())]);
        let old =
            node(&[("zone", "a"), ("cpu-feature.node.kubevirt.io/gone", "true")], &["other", names::NOT_READY_TAINT]);
        let expected = json!({
            "metadata": {"labels": {"cpu-feature.node.kubevirt.io/gone": null, "kubevirt.io/schedulable": "true"}, "resourceVersion": "7"},
            "spec": {"taints": [{"key": "other", "effect": "NoSchedule"}]},
        });
        assert_eq!(patch(&old, &wanted), Some(expected));
        assert_eq!(patch(&node(&[("kubevirt.io/schedulable", "true"), ("zone", "a")], &["other"]), &wanted), None);
    }

    // spec: NODE-5
    #[test]
    fn a_node_that_is_not_ready_keeps_its_taint_and_loses_labels() {
        let ready = node(&[("kubevirt.io/schedulable", "true")], &[names::NOT_READY_TAINT]);
        let expected = json!({"metadata": {"labels": {"kubevirt.io/schedulable": null}}});
        assert_eq!(patch(&ready, &BTreeMap::new()), Some(expected));
    }

    #[test]
    fn drop_in_folders_are_used_where_the_runtime_reads_them() {
        for (runtime, has) in [
            ("containerd://2.3.7", true),
            ("containerd://v2.1.0-rc.1", true),
            ("containerd://2.0.5", false),
            ("containerd://1.7.27", false),
            ("cri-o://1.33.1", true),
            ("cri-o://1.32.0", false),
            ("docker://27.0", false),
            ("containerd", false),
        ] {
            assert_eq!(has_drop_ins(runtime), has, "{runtime}");
        }
    }
}
