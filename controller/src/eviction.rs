//! Evictions of launcher pods: what the instance's `evictionStrategy` makes of them, with KubeVirt's texts and codes, which
//! `kubectl drain`, autoscalers and the descheduler know.
//!
//! Flow: an AdmissionReview of a pod's eviction comes in → pod and instance are read → [`verdict`] → the instance is marked
//! where another controller is to move it → the answer.
//! Guarantees: a dry run marks nothing. What cannot be read is refused with a code by which clients try again.

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use crate::MANAGER;
use crate::objects::VirtualMachineInstance;
use crate::review::{self, Refusal, response};
use crate::vmi::names::LAUNCHER_LABEL;

/// Annotation of a launcher pod: the name of its instance.
const DOMAIN: &str = "kubevirt.io/domain";
/// Annotation of an eviction by the descheduler, which waits for the instance to move.
const REQUESTED_BY: (&str, &str) = ("requested-by", "sigs.k8s.io/descheduler");
/// Annotation of an instance that the descheduler evicts.
const SOURCE: &str = "kubevirt.io/eviction-source";

/// The object is the eviction's body, which may be missing.
type Request = review::Request<Option<Value>>;

/// What becomes of an eviction.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// The pod is evicted: its guest is shut down.
    Allow,
    /// It is not, for this reason.
    Deny(String),
    /// It is not, and its instance is marked for another controller to move it from this node.
    Mark(String),
}

/// Answers a review of an eviction.
///
/// # Errors
/// The body is no AdmissionReview.
pub(crate) async fn answer(client: &Client, body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let request = Request::read(body)?;
    let uid = request.uid.clone();
    let refused = decide(client, &request).await.unwrap_or_else(|error| Some(protocol::chain::chain(&error)));
    let refusal = refused.map(|message| Refusal { code: 429, reason: "TooManyRequests", message });
    response(uid, refusal, Vec::new())
}

/// Why the eviction is refused; `None` where it is not.
async fn decide(client: &Client, request: &Request) -> kube::Result<Option<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &request.namespace);
    let Some(pod) = pods.get_opt(&request.name).await? else { return Ok(None) };
    let Some(name) = instance_of(&pod) else { return Ok(None) };
    let resource = ApiResource::erase::<VirtualMachineInstance>(&());
    let instances: Api<DynamicObject> = Api::namespaced_with(client.clone(), &request.namespace, &resource);
    let Some(vmi) = instances.get_opt(name).await? else { return Ok(None) };
    match verdict(&pod, &json!(vmi)) {
        Verdict::Allow => Ok(None),
        Verdict::Deny(reason) => Ok(Some(reason)),
        Verdict::Mark(node) => {
            let mut parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            parameters.dry_run = is_dry_run(request);
            let change = Patch::Merge(mark(&node, body(request)));
            instances.patch(name, &parameters, &change).await?;
            Ok(Some(evacuation(&request.namespace, name)))
        }
    }
}

/// The name of the instance that a pod runs, unless it is no launcher or has ended.
fn instance_of(pod: &Pod) -> Option<&str> {
    let is_launcher = pod.metadata.labels.as_ref()?.get(LAUNCHER_LABEL.0)? == LAUNCHER_LABEL.1;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
    pod.metadata.annotations.as_ref()?.get(DOMAIN).map(String::as_str).filter(|_| is_launcher && !has_ended)
}

fn verdict(pod: &Pod, vmi: &Value) -> Verdict {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text(&vmi["metadata"]["namespace"]), text(&vmi["metadata"]["name"]));
    let conditions = vmi["status"]["conditions"].as_array().into_iter().flatten();
    let mut movable = conditions.filter(|condition| condition["type"] == "LiveMigratable");
    let is_movable = movable.any(|condition| condition["status"] == "True");
    match (vmi["spec"]["evictionStrategy"].as_str(), is_movable) {
        (Some("LiveMigrate"), false) => {
            return Verdict::Deny(format!(
                "VMI {name} is configured with an eviction strategy but is not live-migratable"
            ));
        }
        (Some("LiveMigrate" | "LiveMigrateIfPossible"), true) | (Some("External"), _) => {}
        _ => return Verdict::Allow,
    }
    if !text(&vmi["status"]["evacuationNodeName"]).is_empty() {
        return Verdict::Deny(format!("Evacuation in progress: {}", evacuation(&namespace, &name)));
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    if text(&vmi["status"]["nodeName"]) != node {
        return Verdict::Deny("Eviction request for target Pod".to_owned());
    }
    Verdict::Mark(node)
}

/// The sentence that the descheduler looks for.
fn evacuation(namespace: &str, name: &str) -> String {
    format!("Eviction triggered evacuation of VMI \"{namespace}/{name}\"")
}

fn mark(node: &str, eviction: &Value) -> Value {
    let mut change = json!({"status": {"evacuationNodeName": node}});
    if eviction["metadata"]["annotations"][REQUESTED_BY.0] == REQUESTED_BY.1 {
        change["metadata"]["annotations"] = json!({SOURCE: "descheduler"});
    }
    change
}

fn body(request: &Request) -> &Value {
    request.object.as_ref().unwrap_or(&Value::Null)
}

fn is_dry_run(request: &Request) -> bool {
    request.dry_run == Some(true) || body(request)["deleteOptions"]["dryRun"][0] == "All"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "virt-launcher-web-1", "labels": {"kubevirt.io": "virt-launcher"}, "annotations": {DOMAIN: "web"}},
            "spec": {"nodeName": "node1", "containers": []}, "status": {"phase": phase},
        }))
        .unwrap()
    }

    fn vmi(strategy: Value, status: Value) -> Value {
        json!({"metadata": {"namespace": "vms", "name": "web"}, "spec": {"evictionStrategy": strategy}, "status": status})
    }

    // spec: VM-17
    #[test]
    fn the_eviction_strategy_decides_with_kubevirts_sentences() {
        let on_node = json!({"nodeName": "node1"});
        let movable = json!({"nodeName": "node1", "conditions": [{"type": "LiveMigratable", "status": "True"}]});
        let unmovable = json!({"nodeName": "node1", "conditions": [{"type": "LiveMigratable", "status": "False"}]});
        let marked = json!({"nodeName": "node1", "evacuationNodeName": "node1"});
        let deny = |text: &str| Verdict::Deny(text.to_owned());
        let mark = || Verdict::Mark("node1".to_owned());
        let not_movable = "VMI web is configured with an eviction strategy but is not live-migratable";
        let table = [
            (Value::Null, &on_node, Verdict::Allow),
            (json!("None"), &movable, Verdict::Allow),
            (json!("LiveMigrate"), &on_node, deny(not_movable)),
            (json!("LiveMigrate"), &unmovable, deny(not_movable)),
            (json!("LiveMigrate"), &movable, mark()),
            (json!("LiveMigrateIfPossible"), &unmovable, Verdict::Allow),
            (json!("LiveMigrateIfPossible"), &movable, mark()),
            (json!("External"), &on_node, mark()),
            (
                json!("External"),
                &marked,
                deny("Evacuation in progress: Eviction triggered evacuation of VMI \"vms/web\""),
            ),
            (json!("External"), &json!({"nodeName": "node2"}), deny("Eviction request for target Pod")),
        ];
        for (strategy, status, expected) in table {
            assert_eq!(
                verdict(&pod("Running"), &vmi(strategy.clone(), status.clone())),
                expected,
                "{strategy} {status}"
            );
        }
    }

    // spec: VM-17
    #[test]
    fn only_launchers_that_run_are_looked_at_and_a_dry_run_marks_nothing() {
        assert_eq!(instance_of(&pod("Running")), Some("web"));
        assert_eq!((instance_of(&pod("Failed")), instance_of(&Pod::default())), (None, None));
        let request = |value: Value| serde_json::from_value::<Request>(value).unwrap();
        assert!(!is_dry_run(&request(json!({"uid": "1", "dryRun": false}))));
        assert!(is_dry_run(&request(json!({"uid": "1", "dryRun": true}))));
        assert!(is_dry_run(&request(json!({"uid": "1", "object": {"deleteOptions": {"dryRun": ["All"]}}}))));
        let by_descheduler = json!({"metadata": {"annotations": {"requested-by": "sigs.k8s.io/descheduler"}}});
        assert_eq!(mark("n", &by_descheduler)["metadata"]["annotations"], json!({SOURCE: "descheduler"}));
        assert_eq!(mark("n", &Value::Null), json!({"status": {"evacuationNodeName": "n"}}));
    }
}
