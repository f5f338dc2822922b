//! Executes plans for sets: reads a set and the instances of its namespace from the caches, writes what the plan says.

use std::sync::Arc;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use kube::api::Api;
use kube::runtime::controller::Action as Next;
use kube::runtime::events::{EventType, Recorder};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt as _, reflector, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use super::object::{ReplicaSet, ReplicaSetStatus};
use super::plan::{Action, failed, plan};
use crate::cache::{self, Filled};
use crate::metrics::Metrics;
use crate::objects::VirtualMachineInstance;
use crate::writer::{RETRY, WriteError, Writer};

struct Context {
    client: Client,
    instances: Store<VirtualMachineInstance>,
    filled: Filled,
    recorder: Recorder,
}

/// Runs the controller of sets, for ever.
pub(crate) async fn run(client: Client, recorder: Recorder, metrics: &Metrics) {
    let (instances, writer) = reflector::store();
    let watched = watcher(Api::<VirtualMachineInstance>::all(client.clone()), watcher::Config::default());
    let watched = reflector(writer, watched).default_backoff().touched_objects();
    let controller = Controller::new(Api::<ReplicaSet>::all(client.clone()), watcher::Config::default());
    let sets = controller.store();
    controller
        // By namespace: an instance without an owner may be one that a set selects.
        .watches_stream(watched, move |vmi: VirtualMachineInstance| {
            let sets = sets.state().into_iter().filter(|set| set.namespace() == vmi.namespace());
            sets.map(|set| ObjectRef::from_obj(&*set)).collect::<Vec<_>>()
        })
        .run(reconcile, on_error, Arc::new(Context { client, filled: cache::filled(&instances), instances, recorder }))
        .for_each(|result| {
            metrics.passed(result.is_ok());
            async move {
                if let Err(error) = result {
                    tracing::debug!(%error, "a pass over a replica set failed");
                }
            }
        })
        .await;
}

async fn reconcile(set: Arc<ReplicaSet>, context: Arc<Context>) -> Result<Next, WriteError> {
    // An instance that the cache does not show yet must not count as missing.
    if !context.filled.clone().await {
        return Ok(Next::requeue(RETRY));
    }
    let instances = context.instances.state();
    let instances: Vec<_> =
        instances.iter().map(|vmi| &**vmi).filter(|vmi| vmi.namespace() == set.namespace()).collect();
    let plan = plan(&set, &instances, Timestamp::now());
    let writer = Writer::new(&context.client, &context.recorder, &*set);
    if !write_status(&writer, &set, &plan.status).await? {
        // A newer object is on its way.
        return Ok(Next::await_change());
    }
    for action in &plan.actions {
        let Err(error) = execute(&writer, &set, action, &instances).await else { continue };
        let reason = if matches!(action, Action::Delete(_)) { "FailedDelete" } else { "FailedCreate" };
        let message = protocol::chain::chain(&error);
        writer.tell(&*set, EventType::Warning, reason, &message).await;
        write_status(&writer, &set, &failed(&plan.status, reason, &message, Timestamp::now())).await?;
        return Err(error);
    }
    Ok(Next::await_change())
}

fn on_error(set: Arc<ReplicaSet>, error: &WriteError, _: Arc<Context>) -> Next {
    let (namespace, reason) = (set.namespace().unwrap_or_default(), protocol::chain::chain(error));
    tracing::warn!(namespace, name = set.name_any(), reason, "the replica set will be tried again");
    Next::requeue(error.retry_after())
}

async fn write_status(writer: &Writer<'_>, set: &ReplicaSet, status: &ReplicaSetStatus) -> Result<bool, WriteError> {
    if set.status.as_ref() == Some(status) {
        return Ok(true);
    }
    writer.replace_status(&ReplicaSet { status: Some(status.clone()), ..set.clone() }).await
}

async fn execute(
    writer: &Writer<'_>,
    set: &ReplicaSet,
    action: &Action,
    instances: &[&VirtualMachineInstance],
) -> Result<(), WriteError> {
    let named = |name: &String| instances.iter().copied().find(|vmi| vmi.metadata.name.as_ref() == Some(name));
    let owners = |owners: Value| json!({"metadata": {"ownerReferences": owners}});
    match action {
        Action::Create(name) => {
            let vmi = instance(set, name);
            let vmi = vmi.map_err(|source| WriteError::shape("build an instance from the template", source))?;
            if writer.create(&vmi, "create an instance").await? {
                let note = format!("Created virtual machine instance {name}");
                writer.tell(set, EventType::Normal, "SuccessfulCreate", &note).await;
            }
            Ok(())
        }
        Action::Delete(name) => {
            let Some(vmi) = named(name) else { return Ok(()) };
            if writer.delete(vmi, "delete an instance").await? {
                let note = format!("Deleted virtual machine instance {name}");
                writer.tell(set, EventType::Normal, "SuccessfulDelete", &note).await;
            }
            Ok(())
        }
        Action::Adopt(name) => match named(name) {
            Some(vmi) => writer.patch(vmi, owners(json!([owner(set)])), "take over an instance").await,
            None => Ok(()),
        },
        Action::Release(name) => match named(name) {
            Some(vmi) => writer.patch(vmi, owners(Value::Null), "give up an instance").await,
            None => Ok(()),
        },
    }
}

/// An instance of the template.
///
/// # Errors
/// The template is not that of an instance.
pub(super) fn instance(set: &ReplicaSet, name: &str) -> Result<VirtualMachineInstance, serde_json::Error> {
    let metadata = &set.spec.template["metadata"];
    serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "namespace": set.metadata.namespace,
            "labels": metadata["labels"],
            "annotations": metadata["annotations"],
            "ownerReferences": [owner(set)],
        },
        "spec": set.spec.template["spec"],
    }))
}

fn owner(set: &ReplicaSet) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstanceReplicaSet",
        "name": set.metadata.name,
        "uid": set.metadata.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}
