//! Executes plans for machines: reads a machine, its instance and its revisions from the caches, writes what the plan says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::controller::Action as Next;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt as _, reflector, watcher};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::instance::{FINALIZER, GENERATION, instance};
use super::object::{MachineStatus, VirtualMachine};
use super::plan::{Action, Observed, failed, plan};
use super::reading;
use super::revision::{self, REVISION_OF, revision};
use crate::MANAGER;
use crate::config::ClusterConfig;
use crate::metrics::Metrics;
use crate::objects::VirtualMachineInstance;

const RETRY: Duration = Duration::from_secs(2);
/// The next try after the API server refused an object, which seldom helps.
const RETRY_REFUSED: Duration = Duration::from_secs(30);
/// Kubernetes' bound on the text of an event, in bytes.
const LONGEST_NOTE: usize = 1024;

/// What a reconciliation works with.
struct Context {
    client: Client,
    instances: Store<VirtualMachineInstance>,
    revisions: Store<ControllerRevision>,
    recorder: Recorder,
    config: ClusterConfig,
}

/// Why a plan was not executed; it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub(crate) struct ReconcileError {
    what: String,
    #[source]
    source: Source,
}

#[derive(Debug, thiserror::Error)]
enum Source {
    /// The API server refused a request or did not answer.
    #[error(transparent)]
    Api(kube::Error),
    /// The template is not that of an instance.
    #[error(transparent)]
    Shape(serde_json::Error),
}

impl ReconcileError {
    /// Whether the API server refused what was sent, and will do so again.
    fn is_refusal(&self) -> bool {
        matches!(&self.source, Source::Api(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422))
    }
}

fn api_error(what: impl Into<String>) -> impl FnOnce(kube::Error) -> ReconcileError {
    let what = what.into();
    move |source| ReconcileError { what, source: Source::Api(source) }
}

/// Runs the controller of machines, for ever.
pub(crate) async fn run(client: Client, recorder: Recorder, config: ClusterConfig, metrics: &Metrics) {
    let (instances, writer) = reflector::store();
    let owned = watcher(Api::<VirtualMachineInstance>::all(client.clone()), watcher::Config::default());
    let owned = reflector(writer, owned).default_backoff().touched_objects();
    let (revisions, writer) = reflector::store();
    let starts =
        watcher(Api::<ControllerRevision>::all(client.clone()), watcher::Config::default().labels(REVISION_OF));
    let starts = reflector(writer, starts).default_backoff().touched_objects();
    let context = Context { client: client.clone(), instances, revisions, recorder, config };
    Controller::new(Api::<VirtualMachine>::all(client), watcher::Config::default())
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
        })
        .await;
}

async fn reconcile(vm: Arc<VirtualMachine>, context: Arc<Context>) -> Result<Next, ReconcileError> {
    // An instance that the cache does not show yet must not count as gone.
    if context.instances.wait_until_ready().await.is_err() || context.revisions.wait_until_ready().await.is_err() {
        return Ok(Next::requeue(RETRY));
    }
    let key = ObjectRef::new(&vm.name_any()).within(&vm.namespace().unwrap_or_default());
    let vmi = context.instances.get(&key);
    let of_vm = |revision: &Arc<ControllerRevision>| revision.labels().get(REVISION_OF) == vm.metadata.uid.as_ref();
    let revisions = context.revisions.state().into_iter().filter(of_vm);
    let revisions: Vec<_> = revisions.map(|revision| ControllerRevision::clone(&revision)).collect();
    let complaints = if vmi.is_some() { Vec::new() } else { reading::read(&vm, &context.config).complaints };
    let now = Timestamp::now();
    let observed = Observed { vm: &vm, complaints: &complaints, vmi: vmi.as_deref(), revisions: &revisions, now };
    let plan = plan(&observed);
    let steps = Steps { vm: &vm, vmi: vmi.as_deref(), client: &context.client, recorder: &context.recorder };
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
        steps.tell(EventType::Warning, reason, &message).await;
        steps.write_status(&failed(&observed, reason, message)).await?;
        return Err(error);
    }
    Ok(plan.retry_after.map_or_else(Next::await_change, Next::requeue))
}

fn on_error(vm: Arc<VirtualMachine>, error: &ReconcileError, _: Arc<Context>) -> Next {
    let (namespace, reason) = (vm.namespace().unwrap_or_default(), protocol::chain::chain(error));
    tracing::warn!(namespace, name = vm.name_any(), reason, "the virtual machine will be tried again");
    Next::requeue(if error.is_refusal() { RETRY_REFUSED } else { RETRY })
}

struct Steps<'a> {
    vm: &'a VirtualMachine,
    vmi: Option<&'a VirtualMachineInstance>,
    client: &'a Client,
    recorder: &'a Recorder,
}

impl Steps<'_> {
    fn namespaced<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.vm.namespace().unwrap_or_default())
    }

    /// Writes a status that differs. False where the object has changed meanwhile, as by a request of a user, or is gone.
    async fn write_status(&self, status: &MachineStatus) -> Result<bool, ReconcileError> {
        if self.vm.status.as_ref().unwrap_or(&<_>::default()) == status {
            return Ok(true);
        }
        let object = VirtualMachine { status: Some(status.clone()), ..self.vm.clone() };
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let written =
            self.namespaced::<VirtualMachine>().replace_status(&self.vm.name_any(), &parameters, &object).await;
        match written {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            other => other.map(|_| true).map_err(api_error("write the status")),
        }
    }

    async fn execute(&self, action: &Action) -> Result<(), ReconcileError> {
        match action {
            Action::SetFinalizer(is_set) => {
                let change = json!({"metadata": finalizers(self.vm, *is_set)});
                self.patch(self.vm, change, "set the finalizer of the virtual machine").await
            }
            Action::DeleteRevision(name) => {
                let deleted = self.namespaced::<ControllerRevision>().delete(name, &DeleteParams::default()).await;
                absent_is_fine(deleted.map(drop)).map_err(api_error(format!("delete ControllerRevision {name}")))
            }
            Action::CreateRevision => {
                let revision = revision(self.vm).map_err(|source| shape_error("build a ControllerRevision", source))?;
                self.create(&revision, "create a ControllerRevision").await.map(drop)
            }
            Action::CreateInstance { is_paused } => self.start(*is_paused).await,
            Action::AdoptInstance => {
                let owner = json!({"metadata": {"ownerReferences": [super::instance::owner(self.vm)]}});
                self.patch_instance(owner, "take over the instance").await
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
            Action::RunAlways => {
                let change = match self.vm.spec.fields.get("running") {
                    Some(Value::Bool(_)) => json!({"running": true}),
                    _ => json!({"runStrategy": "Always"}),
                };
                self.patch(self.vm, json!({"spec": change}), "set the run strategy").await
            }
        }
    }

    async fn start(&self, is_paused: bool) -> Result<(), ReconcileError> {
        let vmi = instance(self.vm, is_paused, &revision::name(self.vm));
        let vmi = vmi.map_err(|source| shape_error("build the instance from the template", source))?;
        if self.create(&vmi, "create the instance").await? {
            let note =
                format!("Started the virtual machine by creating the new virtual machine instance {}", vmi.name_any());
            self.tell(EventType::Normal, "SuccessfulCreate", &note).await;
        }
        Ok(())
    }

    async fn stop(&self) -> Result<(), ReconcileError> {
        let Some(vmi) = self.vmi else { return Ok(()) };
        let uid = vmi.metadata.uid.clone();
        let preconditions = Some(Preconditions { uid: uid.clone(), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match self.namespaced::<VirtualMachineInstance>().delete(&vmi.name_any(), &parameters).await {
            // Another instance of this name is not meant.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(api_error("delete the instance")(error)),
            Ok(_) => {
                let uid = uid.unwrap_or_default();
                let note = format!("Stopped the virtual machine by deleting the virtual machine instance {uid}");
                self.tell(EventType::Normal, "SuccessfulDelete", &note).await;
                Ok(())
            }
        }
    }

    /// Names are deterministic: an object that exists was made by an earlier pass that the cache does not show yet. Says
    /// whether this pass made it.
    async fn create<K>(&self, object: &K, what: &str) -> Result<bool, ReconcileError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match self.namespaced::<K>().create(&parameters, object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            other => other.map(|_| true).map_err(api_error(what)),
        }
    }

    async fn patch_instance(&self, change: Value, what: &str) -> Result<(), ReconcileError> {
        match self.vmi {
            Some(vmi) => self.patch(vmi, change, what).await,
            None => Ok(()),
        }
    }

    /// Changes this very version of an object; one that has changed meanwhile leads to another pass by itself.
    async fn patch<K>(&self, object: &K, mut change: Value, what: &str) -> Result<(), ReconcileError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        change["metadata"]["uid"] = json!(object.meta().uid);
        change["metadata"]["resourceVersion"] = json!(object.meta().resource_version);
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patched = self.namespaced::<K>().patch(&object.name_any(), &parameters, &Patch::Merge(change)).await;
        match patched {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            other => other.map(drop).map_err(api_error(what)),
        }
    }

    /// Publishes an event. One that cannot be written changes nothing.
    async fn tell(&self, type_: EventType, reason: &str, note: &str) {
        let note = note[..note.floor_char_boundary(LONGEST_NOTE)].to_owned();
        let action = "Run".to_owned();
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action, secondary: None };
        if let Err(error) = self.recorder.publish(&event, &self.vm.object_ref(&())).await {
            tracing::debug!(%error, "an event is not written");
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

fn shape_error(what: &str, source: serde_json::Error) -> ReconcileError {
    ReconcileError { what: what.to_owned(), source: Source::Shape(source) }
}

fn absent_is_fine(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
