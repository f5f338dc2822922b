//! Executes plans for machines: reads a machine, its instance and its revisions from the caches, writes what the plan says.

use std::sync::Arc;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::Api;
use kube::runtime::controller::Action as Next;
use kube::runtime::events::{EventType, Recorder};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt as _, reflector, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::abandoned;
use super::instance::{FINALIZER, GENERATION, instance};
use super::instancetype::resolve::{self, ExpandError, Expanded};
use super::object::{MachineStatus, VirtualMachine};
use super::plan::{Action, Observed, failed, plan};
use super::reading;
use super::revision::{self, REVISION_OF, revision};
use crate::cache::{self, Filled};
use crate::config::ClusterConfig;
use crate::metrics::Metrics;
use crate::objects::VirtualMachineInstance;
use crate::writer::{RETRY, WriteError, Writer};

/// What a reconciliation works with.
struct Context {
    client: Client,
    instances: Store<VirtualMachineInstance>,
    revisions: Store<ControllerRevision>,
    filled: [Filled; 2],
    recorder: Recorder,
    config: ClusterConfig,
}

/// Runs the controller of machines, for ever. `publish` gets its caches of instances and machines.
pub(crate) async fn run(
    client: Client,
    recorder: Recorder,
    config: ClusterConfig,
    metrics: &Metrics,
    publish: impl FnOnce(Store<VirtualMachineInstance>, Store<VirtualMachine>),
) {
    let (instances, writer) = reflector::store();
    let owned = watcher(Api::<VirtualMachineInstance>::all(client.clone()), watcher::Config::default());
    let owned = reflector(writer, owned).default_backoff().touched_objects();
    let (revisions, writer) = reflector::store();
    let starts =
        watcher(Api::<ControllerRevision>::all(client.clone()), watcher::Config::default().labels(REVISION_OF));
    let starts = reflector(writer, starts).default_backoff().touched_objects();
    let controller = Controller::new(Api::<VirtualMachine>::all(client.clone()), watcher::Config::default());
    publish(instances.clone(), controller.store());
    let sweep = abandoned::release(client.clone(), recorder.clone(), instances.clone(), controller.store());
    let filled = [cache::filled(&instances), cache::filled(&revisions)];
    let context = Context { client, instances, revisions, filled, recorder, config };
    let follow = controller
        // By name: an instance that has lost its owner is taken over.
        .watches_stream(owned, |vmi: VirtualMachineInstance| {
            Some(ObjectRef::new(&vmi.name_any()).within(vmi.metadata.namespace.as_deref()?))
        })
        .owns_stream(starts)
        .run(reconcile, on_error, Arc::new(context))
        .for_each(|result| {
            metrics.passed(result.is_ok());
            async move {
                if let Err(error) = result {
                    tracing::debug!(%error, "a pass over a virtual machine failed");
                }
            }
        });
    tokio::join!(follow, sweep);
}

async fn reconcile(vm: Arc<VirtualMachine>, context: Arc<Context>) -> Result<Next, WriteError> {
    // An instance that the cache does not show yet must not count as gone.
    for filled in &context.filled {
        if !filled.clone().await {
            return Ok(Next::requeue(RETRY));
        }
    }
    let key = ObjectRef::new(&vm.name_any()).within(&vm.namespace().unwrap_or_default());
    let vmi = context.instances.get(&key);
    let of_vm = |revision: &Arc<ControllerRevision>| revision.labels().get(REVISION_OF) == vm.metadata.uid.as_ref();
    let revisions = context.revisions.state().into_iter().filter(of_vm);
    let revisions: Vec<_> = revisions.map(|revision| ControllerRevision::clone(&revision)).collect();
    let expanded = expanded(&context, &vm, vmi.is_some()).await?;
    let used: Vec<_> = expanded.vm.revisions.iter().map(ResourceExt::name_any).collect();
    let complaints = &expanded.complaints;
    let references = &expanded.vm.references;
    let now = Timestamp::now();
    let observed =
        Observed { vm: &vm, complaints, references, used: &used, vmi: vmi.as_deref(), revisions: &revisions, now };
    let plan = plan(&observed);
    let writer = Writer::new(&context.client, &context.recorder, &*vm);
    let steps = Steps { vm: &vm, expanded: &expanded.vm, vmi: vmi.as_deref(), revisions: &revisions, writer };
    if !steps.write_status(&plan.status).await? {
        // A newer object is on its way.
        return Ok(Next::await_change());
    }
    for action in &plan.actions {
        let Err(error) = steps.execute(action).await else { continue };
        let reason = match action {
            Action::DeleteInstance => "FailedDelete",
            _ => "FailedCreate",
        };
        let message = protocol::chain::chain(&error);
        steps.writer.tell(&*vm, EventType::Warning, reason, &message).await;
        steps.write_status(&failed(&observed, reason, message)).await?;
        return Err(error);
    }
    Ok(plan.retry_after.map_or_else(Next::await_change, Next::requeue))
}

/// A machine with its size and preference, and what is wrong with it.
struct Reading {
    vm: Expanded,
    complaints: Vec<String>,
}

/// Expands and reads a machine, unless it has an instance and its status says what that was made with.
async fn expanded(context: &Context, vm: &VirtualMachine, has_instance: bool) -> Result<Reading, WriteError> {
    if has_instance && resolve::is_recorded(vm) {
        return Ok(Reading { vm: Expanded::plain(vm), complaints: Vec::new() });
    }
    match resolve::expand(&context.client, vm).await {
        Ok(expanded) if has_instance => Ok(Reading { vm: expanded, complaints: Vec::new() }),
        Ok(expanded) => {
            let complaints = reading::read(&expanded.vm, &context.config).complaints;
            Ok(Reading { vm: expanded, complaints })
        }
        Err(ExpandError::Refused(complaints)) => Ok(Reading { vm: Expanded::plain(vm), complaints }),
        Err(ExpandError::Api(kind, source)) => Err(WriteError::read(kind, source)),
    }
}

fn on_error(vm: Arc<VirtualMachine>, error: &WriteError, _: Arc<Context>) -> Next {
    let (namespace, reason) = (vm.namespace().unwrap_or_default(), protocol::chain::chain(error));
    tracing::warn!(namespace, name = vm.name_any(), reason, "the virtual machine will be tried again");
    Next::requeue(error.retry_after())
}

struct Steps<'a> {
    vm: &'a VirtualMachine,
    expanded: &'a Expanded,
    vmi: Option<&'a VirtualMachineInstance>,
    revisions: &'a [ControllerRevision],
    writer: Writer<'a>,
}

impl Steps<'_> {
    /// Writes a status that differs. False where the object has changed meanwhile, as by a request of a user, or is gone.
    async fn write_status(&self, status: &MachineStatus) -> Result<bool, WriteError> {
        if self.vm.status.as_ref().unwrap_or(&<_>::default()) == status {
            return Ok(true);
        }
        self.writer.replace_status(&VirtualMachine { status: Some(status.clone()), ..self.vm.clone() }).await
    }

    async fn execute(&self, action: &Action) -> Result<(), WriteError> {
        match action {
            Action::SetFinalizer(is_set) => {
                let change = json!({"metadata": finalizers(self.vm, *is_set)});
                self.writer.patch(self.vm, change, "set the finalizer of the virtual machine").await
            }
            Action::DeleteRevision(name) => {
                let mut found = self.revisions.iter().filter(|revision| revision.metadata.name.as_ref() == Some(name));
                match found.next() {
                    Some(revision) => self.writer.delete(revision, "delete a ControllerRevision").await.map(drop),
                    None => Ok(()),
                }
            }
            Action::CreateRevision => {
                let revision = revision(self.vm);
                let revision = revision.map_err(|source| WriteError::shape("build a ControllerRevision", source))?;
                self.writer.create(&revision, "create a ControllerRevision").await.map(drop)
            }
            Action::KeepUsed(name) => {
                let mut used =
                    self.expanded.revisions.iter().filter(|revision| revision.metadata.name.as_ref() == Some(name));
                match used.next() {
                    Some(revision) => self.writer.create(revision, "create a ControllerRevision").await.map(drop),
                    None => Ok(()),
                }
            }
            Action::CreateInstance { is_paused } => self.start(*is_paused).await,
            Action::AdoptInstance => {
                let Some(vmi) = self.vmi else { return Ok(()) };
                let mut metadata = finalizers(vmi, true);
                metadata["ownerReferences"] = json!([super::instance::owner(self.vm)]);
                self.patch_instance(json!({"metadata": metadata}), "take over the instance").await
            }
            Action::DeleteInstance => self.stop().await,
            Action::ReleaseInstance => {
                let Some(vmi) = self.vmi else { return Ok(()) };
                let change = json!({"metadata": finalizers(vmi, false)});
                self.patch_instance(change, "remove the finalizer of the instance").await
            }
            Action::SetGeneration => {
                let generation = self.vm.metadata.generation.unwrap_or_default().to_string();
                let change = json!({"metadata": {"annotations": {GENERATION: generation}}});
                self.patch_instance(change, "write the generation into the instance").await
            }
            Action::SetLinks(interfaces) => {
                let change = json!({"spec": {"domain": {"devices": {"interfaces": interfaces}}}});
                self.patch_instance(change, "write the states of links into the instance").await
            }
            Action::RunAlways => {
                let change = match self.vm.spec.fields.get("running") {
                    Some(Value::Bool(_)) => json!({"running": true}),
                    _ => json!({"runStrategy": "Always"}),
                };
                self.writer.patch(self.vm, json!({"spec": change}), "set the run strategy").await
            }
        }
    }

    async fn start(&self, is_paused: bool) -> Result<(), WriteError> {
        let vmi = instance(&self.expanded.vm, is_paused, &revision::name(self.vm));
        let vmi = vmi.map_err(|source| WriteError::shape("build the instance from the template", source))?;
        if self.writer.create(&vmi, "create the instance").await? {
            let name = vmi.name_any();
            let note = format!("Started the virtual machine by creating the new virtual machine instance {name}");
            self.writer.tell(self.vm, EventType::Normal, "SuccessfulCreate", &note).await;
        }
        Ok(())
    }

    async fn stop(&self) -> Result<(), WriteError> {
        let Some(vmi) = self.vmi else { return Ok(()) };
        if self.writer.delete(vmi, "delete the instance").await? {
            let uid = vmi.uid().unwrap_or_default();
            let note = format!("Stopped the virtual machine by deleting the virtual machine instance {uid}");
            self.writer.tell(self.vm, EventType::Normal, "SuccessfulDelete", &note).await;
        }
        Ok(())
    }

    async fn patch_instance(&self, change: Value, what: &str) -> Result<(), WriteError> {
        match self.vmi {
            Some(vmi) => self.writer.patch(vmi, change, what).await,
            None => Ok(()),
        }
    }
}

/// The finalizers of an object with or without this controller's.
fn finalizers(object: &impl ResourceExt, is_set: bool) -> Value {
    let mut names = object.finalizers().to_vec();
    names.retain(|name| name != FINALIZER);
    if is_set {
        names.push(FINALIZER.to_owned());
    }
    json!({"finalizers": names})
}
