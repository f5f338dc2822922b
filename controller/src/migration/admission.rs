//! Admission of migrations, with KubeVirt's sentences: the instance exists, runs and can be moved, and no other migration
//! moves it.

use kube::Client;
use kube::api::{Api, ListParams};

use super::object::Migration;
use crate::objects::{Phase, VirtualMachineInstance};
use crate::review::{Refusal, Request, response};
use crate::vmi::migratable;

/// Answers a review of a migration that is to be created.
///
/// # Errors
/// The body is no AdmissionReview of a migration.
pub(crate) async fn answer(client: &Client, body: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let Request { uid, namespace, object, .. } = Request::<Migration>::read(body)?;
    let refusal = match observe(client, &namespace, &object).await {
        Ok((vmi, others)) => {
            refusal(&object, vmi.as_ref(), &others).map(|message| Refusal { code: 400, reason: "BadRequest", message })
        }
        Err(error) => Some(Refusal { code: 500, reason: "InternalError", message: protocol::chain::chain(&error) }),
    };
    response(uid, refusal, Vec::new())
}

async fn observe(
    client: &Client,
    namespace: &str,
    migration: &Migration,
) -> kube::Result<(Option<VirtualMachineInstance>, Vec<Migration>)> {
    let name = &migration.spec.vmi_name;
    if name.is_empty() {
        return Ok((None, Vec::new()));
    }
    let vmi = Api::<VirtualMachineInstance>::namespaced(client.clone(), namespace).get_opt(name).await?;
    let others = Api::<Migration>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
    Ok((vmi, others.items))
}

/// Why a migration is refused; `None` where it is not.
pub(super) fn refusal(
    migration: &Migration,
    vmi: Option<&VirtualMachineInstance>,
    others: &[Migration],
) -> Option<String> {
    let name = &migration.spec.vmi_name;
    if name.is_empty() {
        return Some("spec.vmiName: is required".to_owned());
    }
    if let Some(field) = migration.spec.other.keys().next() {
        return Some(format!("spec.{field}: not supported"));
    }
    let Some(vmi) = vmi else { return Some(format!("the VMI \"{name}\" does not exist under the cluster")) };
    let status = vmi.status.clone().unwrap_or_default();
    if status.phase.is_some_and(Phase::is_final) {
        return Some("Cannot migrate VMI in finalized state.".to_owned());
    }
    let unmovable = |kind: &&crate::objects::Condition| kind.kind == migratable::CONDITION && kind.status == "False";
    if let Some(condition) = status.conditions.iter().find(unmovable) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (reason, message) = (text(&condition.reason), text(&condition.message));
        return Some(format!("Cannot migrate VMI, Reason: {reason}, Message: {message}"));
    }
    let mut active = others.iter().filter(|other| other.spec.vmi_name == *name && !other.is_final());
    let uid = active.next()?.metadata.uid.clone().unwrap_or_default();
    Some(format!(
        "in-flight migration detected. Active migration job ({uid}) is currently already in progress for VMI {name}."
    ))
}
