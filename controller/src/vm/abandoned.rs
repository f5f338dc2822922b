//! Instances whose machine is gone: a machine whose finalizers were removed by force leaves its finalizer on its instance,
//! which could not be deleted then.

use std::sync::Arc;
use std::time::Duration;

use kube::api::Api;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use super::instance::FINALIZER;
use super::object::VirtualMachine;
use crate::objects::VirtualMachineInstance;
use crate::writer::Writer;

const PERIOD: Duration = Duration::from_secs(30);

/// Lets such instances go, for ever.
pub(super) async fn release(
    client: Client,
    recorder: Recorder,
    instances: Store<VirtualMachineInstance>,
    machines: Store<VirtualMachine>,
) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let held = instances.state().into_iter().filter(|vmi| is_held(vmi));
        for vmi in held.filter(|vmi| machines.get(&machine_of(vmi)).is_none()).collect::<Vec<_>>() {
            if let Err(error) = release_one(&client, &recorder, &vmi).await {
                let reason = protocol::chain::chain(&*error);
                tracing::warn!(
                    namespace = vmi.namespace(),
                    name = vmi.name_any(),
                    reason,
                    "the instance is not let go"
                );
            }
        }
    }
}

/// Whether an instance is deleted and this controller's finalizer keeps it.
fn is_held(vmi: &VirtualMachineInstance) -> bool {
    vmi.metadata.deletion_timestamp.is_some() && vmi.finalizers().iter().any(|name| name == FINALIZER)
}

fn machine_of(vmi: &VirtualMachineInstance) -> ObjectRef<VirtualMachine> {
    ObjectRef::new(&vmi.name_any()).within(&vmi.namespace().unwrap_or_default())
}

async fn release_one(
    client: &Client,
    recorder: &Recorder,
    vmi: &Arc<VirtualMachineInstance>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // The cache may lack a machine that was just made.
    let machines: Api<VirtualMachine> = Api::namespaced(client.clone(), &vmi.namespace().unwrap_or_default());
    if machines.get_opt(&vmi.name_any()).await?.is_some() {
        return Ok(());
    }
    let kept: Vec<_> = vmi.finalizers().iter().filter(|name| *name != FINALIZER).collect();
    let change = json!({"metadata": {"finalizers": kept}});
    Writer::new(client, recorder, &**vmi).patch(&**vmi, change, "remove the finalizer of the instance").await?;
    Ok(())
}
