//! Uninstallation by the KubeVirt object: when it is deleted, VMs end, the nodes are put back, and only then it goes.
//!
//! Flow: a finalizer keeps the object → every VM is deleted → when the last launcher pod is gone, its network was taken down by
//! DEL → the agents' DaemonSet is deleted, and each agent takes the plugin out of the runtime's chain and its file away before
//! it ends → the object is let go.
//! Guarantees: the steps are read from the cluster each time, so that another replica goes on where this one ends.
//! Assumption: the installation itself is removed afterwards, with the manifest that made it.

pub(crate) mod admission;
mod plan;

use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use node_protocol::names::{AGENT, AGENT_LABEL};
use serde_json::json;

use crate::MANAGER;
use crate::objects::KubeVirt;
use crate::vmi::names::LAUNCHER_LABEL;
use plan::{AgentSet, Left, Step, plan};

/// Keeps the KubeVirt object until the nodes are put back.
const FINALIZER: &str = "tapvisor.io/uninstall";
/// Between two looks at what is left.
const LOOK: Duration = Duration::from_secs(1);
/// Objects that make or are VMs, those that make others first.
const WORKLOADS: [(&str, &str); 3] = [
    ("VirtualMachineInstanceReplicaSet", "virtualmachineinstancereplicasets"),
    ("VirtualMachine", "virtualmachines"),
    ("VirtualMachineInstance", "virtualmachineinstances"),
];

/// Follows KubeVirt objects for ever. `namespace` is that of the agents.
pub(crate) async fn run(client: Client, namespace: &str) {
    let objects = watcher(Api::<KubeVirt>::all(client.clone()), watcher::Config::default());
    let mut objects = std::pin::pin!(objects.default_backoff().applied_objects());
    while let Some(object) = objects.next().await {
        let object = match object {
            Ok(object) => object,
            Err(error) => {
                tracing::warn!(%error, "KubeVirt objects cannot be watched");
                continue;
            }
        };
        let is_held = object.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
        match (object.metadata.deletion_timestamp.is_some(), is_held) {
            (true, true) => uninstall(&client, namespace, &object).await,
            (false, false) => hold(&client, &object).await,
            _ => {}
        }
    }
}

async fn hold(client: &Client, object: &KubeVirt) {
    let finalizers: Vec<_> = object.finalizers().iter().map(String::as_str).chain([FINALIZER]).collect();
    if let Err(error) = write_finalizers(client, object, &finalizers).await {
        tracing::warn!(%error, "the KubeVirt object gets no finalizer: its deletion would leave VMs");
    }
}

async fn let_go(client: &Client, object: &KubeVirt) -> kube::Result<()> {
    let finalizers = object.finalizers().iter().map(String::as_str);
    let finalizers: Vec<_> = finalizers.filter(|finalizer| *finalizer != FINALIZER).collect();
    write_finalizers(client, object, &finalizers).await
}

/// Refused when another client has written them meanwhile: then a newer object is on its way.
async fn write_finalizers(client: &Client, object: &KubeVirt, finalizers: &[&str]) -> kube::Result<()> {
    let api: Api<KubeVirt> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let change = json!({"metadata": {"resourceVersion": object.resource_version(), "finalizers": finalizers}});
    match api.patch(&object.name_any(), &parameters, &Patch::Merge(change)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Until the object is let go, or is gone.
async fn uninstall(client: &Client, namespace: &str, object: &KubeVirt) {
    tracing::info!(object = object.name_any(), "the KubeVirt object is deleted: VMs end and the nodes are put back");
    let mut told = String::new();
    loop {
        match step(client, namespace, object).await {
            Ok(Step::LetGo) => return,
            Ok(Step::Wait(what)) if what != told => {
                tracing::info!(what, "uninstalling");
                told = what;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "a step of the uninstallation failed and is tried again"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn step(client: &Client, namespace: &str, object: &KubeVirt) -> kube::Result<Step> {
    let step = plan(&left(client, namespace, object).await?);
    match &step {
        Step::DeleteWorkloads => delete_workloads(client).await?,
        Step::DeleteAgents => {
            let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
            // Foreground: the set is there, and marked, until its last agent has ended.
            match sets.delete(AGENT, &DeleteParams::foreground()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Step::LetGo => let_go(client, object).await?,
        Step::Wait(_) => {}
    }
    Ok(step)
}

async fn left(client: &Client, namespace: &str, object: &KubeVirt) -> kube::Result<Left> {
    let all = ListParams::default();
    let objects = Api::<KubeVirt>::all(client.clone()).list(&all).await?;
    let is_other =
        |other: &&KubeVirt| other.metadata.uid != object.metadata.uid && other.metadata.deletion_timestamp.is_none();
    let home = Api::<Namespace>::all(client.clone()).get_opt(namespace).await?;
    let (mut workloads, mut instances) = (0, 0);
    for (kind, plural) in WORKLOADS {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &admission::resource(kind, plural));
        let found = api.list(&all).await?.items;
        workloads += found.iter().filter(|found| found.metadata.deletion_timestamp.is_none()).count();
        if kind == "VirtualMachineInstance" {
            instances = found.len();
        }
    }
    let launchers = all.clone().labels(&format!("{}={}", LAUNCHER_LABEL.0, LAUNCHER_LABEL.1));
    let pods = Api::<Pod>::all(client.clone()).list(&launchers).await?.items.len();
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let agents = sets.get_opt(AGENT).await?.map(|set| match set.metadata.deletion_timestamp {
        Some(_) => AgentSet::Deleted,
        None => AgentSet::Live,
    });
    let of_agents = all.labels(&format!("{AGENT_LABEL}={AGENT}"));
    let of_agents = Api::<Pod>::namespaced(client.clone(), namespace).list(&of_agents).await?;
    let nodes = of_agents.into_iter().filter_map(|pod| pod.spec?.node_name).collect();
    Ok(Left {
        is_namespace_deleted: home.is_none_or(|home| home.metadata.deletion_timestamp.is_some()),
        has_another: objects.iter().any(|other| is_other(&other)),
        is_gone: !objects.iter().any(|found| found.metadata.uid == object.metadata.uid),
        workloads,
        instances,
        pods,
        agents,
        nodes,
    })
}

async fn delete_workloads(client: &Client) -> kube::Result<()> {
    for (kind, plural) in WORKLOADS {
        let resource = admission::resource(kind, plural);
        let all: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        for object in all.list(&ListParams::default()).await? {
            if object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let namespace = object.namespace().unwrap_or_default();
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
            match api.delete(&object.name_any(), &DeleteParams::background()).await {
                Ok(_) => tracing::info!(kind, namespace, name = object.name_any(), "deleted by the uninstallation"),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
