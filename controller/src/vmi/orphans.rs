//! Pods whose instance is gone: nothing else lets go of them.
//!
//! An instance stays until its pods are gone, unless a user removes its finalizers.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt as _};

use super::pod_state;
use super::reconcile::{ReconcileError, api_error, release};
use crate::cache::Filled;
use crate::objects::VirtualMachineInstance;

/// How often they are looked for.
const PERIOD: Duration = Duration::from_secs(10);

/// Lets go of deleted launcher pods whose instance does not exist, for ever.
pub(crate) async fn run(client: Client, pods: Store<Pod>, filled: Filled) {
    while filled.clone().await {
        for pod in pods.state().iter().filter(|pod| is_deleted(pod)) {
            if let Err(error) = let_go(&client, pod).await {
                let (namespace, name, reason) = (pod.namespace(), pod.name_any(), protocol::chain::chain(&error));
                tracing::warn!(namespace, name, reason, "a launcher pod without instance is not let go of");
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod_state::is_held(pod)
}

async fn let_go(client: &Client, pod: &Pod) -> Result<(), ReconcileError> {
    let namespace = pod.namespace().unwrap_or_default();
    let owners = pod.owner_references().iter();
    let Some(owner) = owners.into_iter().find(|owner| owner.controller == Some(true)) else { return Ok(()) };
    let instances: Api<VirtualMachineInstance> = Api::namespaced(client.clone(), &namespace);
    let instance = instances.get_opt(&owner.name).await;
    let instance = instance.map_err(api_error(format!("look for instance {}", owner.name)))?;
    if instance.is_some_and(|instance| instance.metadata.uid.as_ref() == Some(&owner.uid)) {
        return Ok(());
    }
    release(&Api::namespaced(client.clone(), &namespace), &pod.name_any()).await
}
