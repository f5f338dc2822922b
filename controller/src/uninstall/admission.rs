//! Deletions of the KubeVirt object: refused while there are VMs, unless the object says otherwise.

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use serde::Deserialize;
use serde_json::Value;

use super::WORKLOADS;
use crate::config::UninstallStrategy;
use crate::review::{self, Refusal, response};

/// What is deleted is the old object; there is no new one.
type Request = review::Request<Option<Value>>;

/// Answers a review of the deletion of a KubeVirt object.
///
/// # Errors
/// The body is no AdmissionReview.
pub(crate) async fn answer(client: &Client, body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let request = Request::read(body)?;
    let Review { request: Deleted { old_object } } = serde_json::from_slice(body)?;
    let refused = match strategy(&old_object) {
        UninstallStrategy::RemoveWorkloads => None,
        UninstallStrategy::BlockUninstallIfWorkloadsExist => present(client).await,
    };
    let refusal = refused.map(|message| Refusal { code: 403, reason: "Forbidden", message });
    response(request.uid, refusal, Vec::new())
}

#[derive(Deserialize)]
struct Review {
    request: Deleted,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deleted {
    #[serde(default)]
    old_object: Value,
}

/// What is not understood does not remove anything.
fn strategy(object: &Value) -> UninstallStrategy {
    UninstallStrategy::read(&object["spec"]["uninstallStrategy"]).unwrap_or_default()
}

/// Why the object stays; `None` where there is no VM.
async fn present(client: &Client) -> Option<String> {
    for (kind, plural) in WORKLOADS {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(kind, plural));
        match api.list(&ListParams::default().limit(1)).await {
            Ok(found) if found.items.is_empty() => {}
            Ok(_) => return Some(refusal(kind)),
            Err(error) => return Some(format!("it is not known whether there are objects {kind}: {error}")),
        }
    }
    None
}

/// KubeVirt's sentence, and what to write.
fn refusal(kind: &str) -> String {
    format!(
        "Rejecting the uninstall request, since there are still {kind} objects present. Either delete all KubeVirt related \
         workloads or change the uninstall strategy before uninstalling KubeVirt: spec.uninstallStrategy: RemoveWorkloads"
    )
}

/// A kind of kubevirt.io/v1.
pub(super) fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: "kubevirt.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "kubevirt.io/v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // spec: OPS-5
    #[test]
    fn only_an_object_that_says_so_takes_its_vms_along() {
        for (written, expected) in [
            (json!("RemoveWorkloads"), UninstallStrategy::RemoveWorkloads),
            (json!("BlockUninstallIfWorkloadsExist"), UninstallStrategy::BlockUninstallIfWorkloadsExist),
            (json!(""), UninstallStrategy::BlockUninstallIfWorkloadsExist),
            (json!(null), UninstallStrategy::BlockUninstallIfWorkloadsExist),
            (json!("RemoveEverything"), UninstallStrategy::BlockUninstallIfWorkloadsExist),
        ] {
            assert_eq!(strategy(&json!({"spec": {"uninstallStrategy": written}})), expected);
        }
    }

    #[test]
    fn a_deletions_review_has_only_the_old_object() {
        let review = json!({"request": {"uid": "u", "name": "kubevirt", "object": null, "oldObject": {"spec": {}}}});
        let body = serde_json::to_vec(&review).unwrap();
        assert_eq!(Request::read(&body).unwrap().object, None);
        let Review { request } = serde_json::from_slice(&body).unwrap();
        assert_eq!(request.old_object, json!({"spec": {}}));
    }
}
