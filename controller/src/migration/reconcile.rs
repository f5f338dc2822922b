//! Executes plans for migrations: reads a migration, its instance and its pods, writes what the plan says.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::translate::claims;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action as Next;
use kube::runtime::events::{EventType, Recorder};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;

use super::object::{Migration, MigrationState, MigrationStatus};
use super::plan::{Action, FINALIZER, INSTANCE_LABEL, LIMIT_PERIOD, Observed, REJECTED_BY_QUOTA, plan};
use super::target;
use crate::agents::Reports;
use crate::cache::Filled;
use crate::config::ClusterConfig;
use crate::metrics::Metrics;
use crate::objects::VirtualMachineInstance;
use crate::vmi::launch::{self, Launch};
use crate::vmi::names::{CREATED_BY, MIGRATION};
use crate::vmi::reconcile::known_claims;
use crate::vmi::{migratable, pod, pod_state};
use crate::writer::{RETRY, WriteError, Writer};
use crate::{MANAGER, conditions};

/// What migrations are reconciled with.
pub(crate) struct Sources {
    /// Every launcher pod.
    pub(crate) pods: Store<Pod>,
    /// When all of them are known.
    pub(crate) filled: Filled,
    /// What node agents say of launchers.
    pub(crate) reports: Arc<Reports>,
    /// The configuration in force.
    pub(crate) config: watch::Receiver<ClusterConfig>,
}

struct Context {
    client: Client,
    recorder: Recorder,
    migrations: Store<Migration>,
    sources: Sources,
}

/// Runs the controller of migrations, for ever.
pub(crate) async fn run(client: Client, recorder: Recorder, sources: Sources, metrics: &Metrics) {
    let targets = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default().labels(MIGRATION));
    let controller = Controller::new(Api::<Migration>::all(client.clone()), watcher::Config::default());
    let migrations = controller.store();
    let of_pod = migrations.clone();
    let context = Arc::new(Context { client, recorder, migrations, sources });
    controller
        .watches_stream(targets.default_backoff().touched_objects(), move |pod: Pod| {
            let uid = pod.labels().get(MIGRATION).cloned();
            of_pod.find(|migration| migration.uid() == uid).map(|migration| ObjectRef::from_obj(&*migration))
        })
        .run(reconcile, on_error, context)
        .for_each(|result| {
            metrics.passed(result.is_ok());
            async move {
                if let Err(error) = result {
                    tracing::debug!(%error, "a pass over a migration failed");
                }
            }
        })
        .await;
}

fn on_error(migration: Arc<Migration>, error: &WriteError, _: Arc<Context>) -> Next {
    let (namespace, reason) = (migration.namespace().unwrap_or_default(), protocol::chain::chain(error));
    tracing::warn!(namespace, name = migration.name_any(), reason, "the migration will be tried again");
    Next::requeue(error.retry_after())
}

/// The instance of a migration and how it is launched.
struct Subject {
    vmi: VirtualMachineInstance,
    launch: Result<Launch, Vec<String>>,
    obstacle: Option<String>,
}

async fn subject(context: &Context, migration: &Migration) -> Result<Option<Subject>, WriteError> {
    let namespace = migration.namespace().unwrap_or_default();
    let instances: Api<VirtualMachineInstance> = Api::namespaced(context.client.clone(), &namespace);
    let found = instances.get_opt(&migration.spec.vmi_name).await;
    let Some(vmi) = found.map_err(|error| WriteError::read("instance", error))? else { return Ok(None) };
    let config = context.sources.config.borrow().clone();
    let mut launch = launch::read(&vmi, &config).launch;
    let mut obstacle = None;
    if let Ok(read) = &launch {
        obstacle = migratable::obstacle(&vmi, read).map(|(_, message)| message.to_owned());
        let named = claims(&read.instance);
        if !named.is_empty() {
            let known = known_claims(&context.client, &vmi, &named).await;
            let known = known.map_err(|error| WriteError::read("claims", error))?;
            obstacle = obstacle.or_else(|| migratable::unshared(&named, &known));
            launch = launch::read_with(&vmi, &known, &config).launch;
        }
    }
    let obstacle = launch.as_ref().err().map(|complaints| complaints.join("; ")).or(obstacle);
    Ok(Some(Subject { vmi, launch, obstacle }))
}

async fn reconcile(migration: Arc<Migration>, context: Arc<Context>) -> Result<Next, WriteError> {
    // A target pod that the cache does not show yet must not count as removed.
    if !context.sources.filled.clone().await {
        return Ok(Next::requeue(RETRY));
    }
    let subject = subject(&context, &migration).await?;
    let config = context.sources.config.borrow().clone();
    let pods = context.sources.pods.state();
    let uid = migration.uid();
    let target = pods.iter().find(|pod| pod.labels().get(MIGRATION) == uid.as_ref()).map(|pod| &**pod);
    let source = subject.as_ref().and_then(|subject| source(&pods, &subject.vmi));
    let report = target
        .and_then(|pod| context.sources.reports.of(pod.spec.as_ref()?.node_name.as_deref()?, pod.uid()?.as_str()));
    let is_waiting = report.and_then(|report| report.status).is_some_and(|status| status.incoming);
    let plan = plan(&Observed {
        migration: &migration,
        instance: subject.as_ref().map(|subject| &subject.vmi),
        all: &context.migrations.state(),
        target,
        source,
        waits_for_guest: config.requires_agent().then_some(is_waiting),
        obstacle: subject.as_ref().and_then(|subject| subject.obstacle.clone()),
        limits: config.migrations,
        now: Timestamp::now(),
    });
    let steps = Steps { context: &context, migration: &migration, subject: subject.as_ref(), config: &config };
    let state = plan.status.migration_state.as_ref().filter(|state| state.completed);
    // Clients read the instance once the migration has ended.
    if let Some(state) = state.filter(|_| !migration.is_final()) {
        steps.tell_instance(state).await?;
    }
    if !steps.write(&plan.status, plan.finalizer).await? {
        // A newer object is on its way.
        return Ok(Next::await_change());
    }
    let is_news = migration.status.as_ref() != Some(&plan.status);
    if let Some((reason, text)) = plan.warning.as_ref().filter(|_| is_news) {
        steps.writer().tell(&*migration, EventType::Warning, reason, text).await;
    }
    for action in &plan.actions {
        if let Some(again) = steps.execute(action, &plan.status).await? {
            return Ok(again);
        }
    }
    Ok(plan.retry_after.map_or_else(Next::await_change, Next::requeue))
}

/// The pod that runs the guest.
fn source<'a>(pods: &'a [Arc<Pod>], vmi: &VirtualMachineInstance) -> Option<&'a Pod> {
    let of_instance = pods.iter().map(|pod| &**pod).filter(|pod| {
        pod.labels().get(CREATED_BY) == vmi.metadata.uid.as_ref() && !pod.labels().contains_key(MIGRATION)
    });
    of_instance.max_by_key(|pod| pod_state::attempt(pod)).filter(|pod| pod_state::may_run(pod))
}

struct Steps<'a> {
    context: &'a Context,
    migration: &'a Migration,
    subject: Option<&'a Subject>,
    config: &'a ClusterConfig,
}

impl Steps<'_> {
    fn writer(&self) -> Writer<'_> {
        Writer::new(&self.context.client, &self.context.recorder, self.migration)
    }

    /// Writes label and finalizer, then the status. False where a newer object is on its way.
    async fn write(&self, status: &MigrationStatus, finalizer: bool) -> Result<bool, WriteError> {
        let migration = self.migration;
        let has_finalizer = migration.finalizers().iter().any(|name| name == FINALIZER);
        let label = Some(&migration.spec.vmi_name).filter(|name| name.len() <= MAX_LABEL);
        let has_label = label.is_none() || migration.labels().get(INSTANCE_LABEL) == label;
        if status != migration.status.as_ref().unwrap_or(&MigrationStatus::default()) {
            let written = Migration { status: Some(status.clone()), ..migration.clone() };
            if !self.writer().replace_status(&written).await? {
                return Ok(false);
            }
            // The next pass writes the metadata of that version, and executes the plan.
            if !has_label || has_finalizer != finalizer {
                self.write_metadata(label, finalizer).await?;
            }
            return Ok(true);
        }
        if !has_label || has_finalizer != finalizer {
            self.write_metadata(label, finalizer).await?;
        }
        Ok(true)
    }

    async fn write_metadata(&self, label: Option<&String>, finalizer: bool) -> Result<(), WriteError> {
        let mut finalizers: Vec<_> =
            self.migration.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
        finalizers.extend(finalizer.then(|| FINALIZER.to_owned()));
        let labels: BTreeMap<_, _> = label.map(|name| (INSTANCE_LABEL, name)).into_iter().collect();
        // Without the version: the status was written a moment ago.
        let change = json!({"metadata": {"uid": self.migration.uid(), "labels": labels, "finalizers": finalizers}});
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let migrations = self.api::<Migration>();
        let patched = migrations.patch(&self.migration.name_any(), &parameters, &Patch::Merge(change)).await;
        ignore(patched.map(drop), &[404, 409], "write the migration")
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.context.client.clone(), &self.migration.namespace().unwrap_or_default())
    }

    /// The instance's status names its last migration.
    async fn tell_instance(&self, state: &MigrationState) -> Result<(), WriteError> {
        let Some(subject) = self.subject.filter(|_| !state.target_pod.is_empty()) else { return Ok(()) };
        let change = json!({"metadata": {"uid": subject.vmi.uid()}, "status": {"migrationState": state}});
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let instances = self.api::<VirtualMachineInstance>();
        let patched = instances.patch(&subject.vmi.name_any(), &parameters, &Patch::Merge(change)).await;
        ignore(patched.map(drop), &[404, 409], "write the instance's migration")
    }

    /// Executes a step. Returns when to look again, where it was not done.
    async fn execute(&self, action: &Action, status: &MigrationStatus) -> Result<Option<Next>, WriteError> {
        match action {
            Action::CreateTarget => self.create_target(status).await,
            Action::DeleteTarget => {
                let name = target::name(self.migration);
                let deleted = self.api::<Pod>().delete(&name, &DeleteParams::default()).await;
                ignore(deleted.map(drop), &[404], "delete the target pod").map(|()| None)
            }
            Action::DeleteMigration(name) => {
                let deleted = self.api::<Migration>().delete(name, &DeleteParams::default()).await;
                ignore(deleted.map(drop), &[404], "delete a finished migration").map(|()| None)
            }
        }
    }

    async fn create_target(&self, status: &MigrationStatus) -> Result<Option<Next>, WriteError> {
        let Some(Subject { vmi, launch: Ok(launch), .. }) = self.subject else { return Ok(None) };
        let secret = pod::secret(vmi, launch).map_err(|source| WriteError::shape("build the Secret", source))?;
        let pod = target::pod(self.migration, vmi, launch, self.config);
        let pod = pod.map_err(|source| WriteError::shape("build the target pod", source))?;
        self.writer().create::<Secret>(&secret, "create the Secret").await?;
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match self.api::<Pod>().create(&parameters, &pod).await {
            Err(kube::Error::Api(refused)) if refused.code == 403 && refused.message.contains("exceeded quota") => {
                let mut status = status.clone();
                let now = Timestamp::now();
                conditions::set(&mut status.conditions, REJECTED_BY_QUOTA, "True", "", &refused.message, now);
                self.write(&status, true).await?;
                Ok(Some(Next::requeue(LIMIT_PERIOD)))
            }
            created => ignore(created.map(drop), &[409], "create the target pod").map(|()| None),
        }
    }
}

/// The longest value of a label.
const MAX_LABEL: usize = 63;

fn ignore(result: kube::Result<()>, codes: &[u16], what: &str) -> Result<(), WriteError> {
    match result {
        Err(kube::Error::Api(status)) if codes.contains(&status.code) => Ok(()),
        other => other.map_err(WriteError::api(what)),
    }
}
