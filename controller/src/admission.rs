//! Admission of instances and machines: the same reader that makes launcher pods says what is refused, each field by its path.
//!
//! Flow: an AdmissionReview of admission.k8s.io/v1 comes in, its answer goes out. There is no I/O here: what a machine
//! names is found by a function that is handed in.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::ClusterConfig;
use crate::objects::VirtualMachineInstance;
use crate::replicaset::{self, ReplicaSet};
use crate::review::{Refusal, Request, response};
use crate::template::Findings;
use crate::vm::{self, VirtualMachine};
use crate::vmi::launch;

/// Most complaints that are told at once.
const MOST_COMPLAINTS: usize = 50;

/// What a review is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A VirtualMachineInstance that is to be created.
    Instance,
    /// A VirtualMachine that is to be created or whose spec is to change.
    Machine,
    /// A VirtualMachineInstanceReplicaSet that is to be created or whose spec is to change.
    ReplicaSet,
}

/// Complaints and warnings.
type Verdict = (Vec<String>, Vec<String>);

/// Answers a review.
///
/// # Errors
/// The body is no AdmissionReview.
pub(crate) async fn answer<F: Future<Output = Result<VirtualMachine, Vec<String>>>>(
    subject: Subject,
    body: &[u8],
    config: &ClusterConfig,
    expand: impl FnOnce(VirtualMachine) -> F,
) -> Result<Vec<u8>, serde_json::Error> {
    let Request { uid, name, object, .. } = Request::<Value>::read(body)?;
    let (complaints, warnings) = match subject {
        Subject::Instance => judged(object, name, |object: &VirtualMachineInstance| {
            let reading = launch::read(object, config);
            (reading.launch.err().unwrap_or_default(), reading.warnings)
        }),
        Subject::Machine => match named::<VirtualMachine>(object, name) {
            Ok(vm) => match expand(vm).await {
                Ok(vm) => verdict(vm::reading::read(&vm, config)),
                Err(complaints) => (complaints, Vec::new()),
            },
            Err(complaint) => (vec![complaint], Vec::new()),
        },
        Subject::ReplicaSet => judged(object, name, |set: &ReplicaSet| verdict(replicaset::reading::read(set, config))),
    };
    let refusal =
        (!complaints.is_empty()).then(|| Refusal { code: 422, reason: "Invalid", message: joined(&complaints) });
    response(uid, refusal, warnings)
}

fn verdict(findings: Findings) -> Verdict {
    (findings.complaints, findings.warnings)
}

fn judged<K: DeserializeOwned + kube::ResourceExt>(
    object: Value,
    name: String,
    judge: impl FnOnce(&K) -> Verdict,
) -> Verdict {
    match named(object, name) {
        Ok(object) => judge(&object),
        Err(complaint) => (vec![complaint], Vec::new()),
    }
}

/// The object of a review under the review's name, where it has none itself.
fn named<K: DeserializeOwned + kube::ResourceExt>(object: Value, name: String) -> Result<K, String> {
    let mut object: K = serde_json::from_value(object).map_err(|error| error.to_string())?;
    if object.name_any().is_empty() {
        object.meta_mut().name = Some(name);
    }
    Ok(object)
}

fn joined(complaints: &[String]) -> String {
    let shown = complaints.iter().take(MOST_COMPLAINTS).cloned().collect::<Vec<_>>().join("; ");
    match complaints.len().saturating_sub(MOST_COMPLAINTS) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use serde_json::json;

    fn answered(body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        let config = ClusterConfig::new("launcher:1".into());
        let answer = answer(Subject::Instance, body, &config, |vm| std::future::ready(Ok(vm)));
        answer.now_or_never().unwrap()
    }

    fn reviewed(spec: Value) -> Value {
        let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"namespace": "vms", "name": "web", "uid": "u"}, "spec": spec});
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "r1", "name": "web", "operation": "CREATE", "object": object}});
        serde_json::from_slice(&answered(review.to_string().as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_valid_instance_is_allowed_without_a_warning() {
        let answer =
            reviewed(json!({"domain": {"memory": {"guest": "64Mi"}, "devices": {}}, "nodeSelector": {"disk": "fast"}}));
        let response = json!({"uid": "r1", "allowed": true});
        assert_eq!(
            answer,
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
        );
    }

    // spec: CTRL-8
    #[test]
    fn every_field_that_is_not_implemented_is_refused_by_its_path() {
        let answer = reviewed(
            json!({"domain": {"memory": {"guest": "64Mi"}, "devices": {"tpm": {}, "gpus": [{"name": "g"}]}, "typo": 1}}),
        );
        let response = &answer["response"];
        assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(422)));
        let message = response["status"]["message"].as_str().unwrap();
        for part in [
            "spec.domain.devices.tpm: not supported",
            "spec.domain.devices.gpus: not supported",
            "spec.domain.typo: unknown field",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    // spec: CTRL-8
    #[test]
    fn a_field_without_effect_is_a_warning() {
        let answer =
            reviewed(json!({"domain": {"memory": {"guest": "64Mi"}, "devices": {"autoattachMemBalloon": true}}}));
        assert_eq!(answer["response"]["allowed"], true);
        let warning = answer["response"]["warnings"][0].as_str().unwrap();
        assert!(warning.starts_with("spec.domain.devices.autoattachMemBalloon: has no effect"), "{warning}");
    }

    #[test]
    fn what_is_no_review_is_an_error() {
        for body in [&b""[..], b"{}", b"{\"request\": {\"uid\": 1}}"] {
            assert!(answered(body).is_err());
        }
    }
}
