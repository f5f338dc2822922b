//! Executes plans: reads an instance and its pods from the caches, writes what the plan says.

use std::sync::Arc;
use std::time::Duration;

use api::translate::{Claim, claims};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action as Next;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use kube::{Client, Resource, ResourceExt as _};
use node_protocol::PodUid;
use protocol::control::Verb;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::claims::{Claims, is_being_filled};
use super::launch::{self, Launch};
use super::names::{CREATED_BY, INSTANCE_ID, MIGRATION, OUTCOME, UNPAUSED_GATE};
use super::plan::{Action, FINALIZER, Observed, Plan, plan, refused};
use super::pod;
use super::{pod_state, sandbox};
use crate::agents::{AgentError, LauncherClient, Reports};
use crate::cache::Filled;
use crate::config::ClusterConfig;
use crate::objects::{InstanceStatus, Phase, VirtualMachineInstance};
use crate::{MANAGER, events};

const RETRY: Duration = Duration::from_secs(2);
/// A quota, a policy, the object's size or a launcher's release does not change with the next try.
const RETRY_REFUSED: Duration = Duration::from_secs(10);

/// What a reconciliation works with.
pub(crate) struct Context {
    /// The API server.
    pub(crate) client: Client,
    /// Every launcher pod.
    pub(crate) pods: Store<Pod>,
    /// Whether `pods` is complete.
    pub(crate) filled: Filled,
    /// Complaints of kubelets about pods, by reason.
    pub(crate) sandbox_events: Vec<Store<Event>>,
    /// What node agents say of launchers.
    pub(crate) reports: Arc<Reports>,
    /// The configuration in force.
    pub(crate) config: watch::Receiver<ClusterConfig>,
    /// Writes events.
    pub(crate) recorder: Recorder,
    /// The way to a launcher.
    pub(crate) launchers: LauncherClient,
}

/// Why a plan was not executed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The API server refused a request or did not answer.
    #[error("cannot {what}")]
    Api {
        /// What was tried.
        what: String,
        /// The API server's answer.
        #[source]
        source: kube::Error,
    },
    /// The API server does not take an object, for what it is or for what else is there.
    #[error("cannot {what}")]
    Refused {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: kube::Error,
    },
    /// The launcher was not reached, or refused.
    #[error("cannot {what}")]
    Launcher {
        /// What it was asked for.
        what: String,
        /// Why not.
        #[source]
        source: AgentError,
    },
    /// A defect of this program.
    #[error("cannot build {what}")]
    Shape {
        /// What was to be built.
        what: &'static str,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

impl ReconcileError {
    /// What a user of the instance is told, where the API server refuses an object.
    fn refusal(&self) -> Option<String> {
        matches!(self, Self::Refused { .. }).then(|| protocol::chain::chain(self))
    }
}

pub(super) fn api_error(what: String) -> impl FnOnce(kube::Error) -> ReconcileError {
    move |source| ReconcileError::Api { what, source }
}

/// One pass over an instance.
///
/// # Errors
/// The first step that failed.
pub(crate) async fn reconcile(
    object: Arc<VirtualMachineInstance>,
    context: Arc<Context>,
) -> Result<Next, ReconcileError> {
    let config = context.config.borrow().clone();
    // A pod that the cache does not show yet must not count as lost.
    if !context.filled.clone().await {
        return Ok(Next::requeue(RETRY));
    }
    let (pods, earlier) = pods_of(&object, &context.pods);
    let (targets, pods): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| pod.labels().contains_key(MIGRATION));
    let mut launch = launch::read(&object, &config).launch;
    let (mut missing_claims, mut filling_claims) = (Vec::new(), Vec::new());
    let named = launch.as_ref().map(|launch| claims(&launch.instance)).unwrap_or_default();
    // What is known of them matters to the pod that is made alone.
    if !named.is_empty() && !pods.iter().any(pod_state::may_run) {
        let known = known_claims(&context.client, &object, &named).await;
        let known = known.map_err(api_error("read the PersistentVolumeClaims".to_owned()))?;
        let filling = known.iter().filter(|(_, claim)| is_being_filled(claim));
        filling_claims.extend(filling.map(|(name, _)| name.clone()));
        missing_claims.extend(named.into_iter().map(|named| named.claim).filter(|claim| !known.contains_key(claim)));
        launch = launch::read_with(&object, &known, &config).launch;
    }
    let newest = newest(&pods);
    let complaint = newest.and_then(|pod| sandbox::complaint(&context.sandbox_events, pod.metadata.uid.as_deref()?));
    let report = newest
        .and_then(|pod| context.reports.of(pod.spec.as_ref()?.node_name.as_deref()?, pod.metadata.uid.as_deref()?));
    let plan = plan(&Observed {
        object: &object,
        launch: &launch,
        missing_claims: &missing_claims,
        filling_claims: &filling_claims,
        pods: &pods,
        targets: &targets,
        earlier: &earlier,
        complaint,
        launcher: report.as_ref().and_then(|report| report.status.clone()),
        outcome: report.and_then(|report| report.outcome),
        now: Timestamp::now(),
    });
    let launchers = (&context.launchers, newest);
    let steps = Steps { object: &object, client: &context.client, config: &config, launchers };
    let done = done(&object, &plan);
    if steps.write_instance(&plan).await? || done.is_shut_down {
        events::publish(&context.recorder, &object, &plan.status, done).await;
    }
    for action in &plan.actions {
        if let Err(error) = steps.execute(action, &launch).await {
            let Some(message) = error.refusal() else { return Err(error) };
            let plan = Plan { status: refused(plan.status.clone(), &message, Timestamp::now()), ..plan };
            if steps.write_instance(&plan).await? {
                events::publish(&context.recorder, &object, &plan.status, events::Done::default()).await;
            }
            return Ok(Next::requeue(RETRY_REFUSED));
        }
    }
    Ok(plan.retry_after.map_or_else(Next::await_change, Next::requeue))
}

/// What a plan does to an instance that is deleted.
fn done(object: &VirtualMachineInstance, plan: &Plan) -> events::Done {
    let is_deleted = object.metadata.deletion_timestamp.is_some();
    let is_held = object.finalizers().iter().any(|name| name == FINALIZER);
    let deletes = plan.actions.iter().any(|action| matches!(action, Action::DeletePod { .. }));
    events::Done { is_shut_down: is_deleted && deletes, is_let_go: is_deleted && is_held && !plan.finalizer }
}

/// The claims that an instance names and that exist.
pub(crate) async fn known_claims(
    client: &Client,
    object: &VirtualMachineInstance,
    named: &[Claim],
) -> kube::Result<Claims> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let mut known = Claims::new();
    for Claim { claim, .. } in named {
        known.extend(api.get_opt(claim).await?.map(|found| (claim.clone(), found)));
    }
    Ok(known)
}

/// The pods of an instance, and those of instances that had its name before.
fn pods_of(object: &VirtualMachineInstance, pods: &Store<Pod>) -> (Vec<Pod>, Vec<Pod>) {
    let (uid, name, namespace) = (object.uid(), object.name_any(), object.namespace());
    let of_name = |pod: &Pod| {
        pod.labels().get(CREATED_BY) == uid.as_ref()
            || (pod.namespace() == namespace
                && pod.labels().contains_key(INSTANCE_ID)
                && pod
                    .owner_references()
                    .iter()
                    .any(|owner| owner.name == name && owner.kind == "VirtualMachineInstance"))
    };
    let pods = pods.state();
    let found = pods.iter().filter(|pod| of_name(pod)).map(|pod| Pod::clone(pod));
    found.partition(|pod| pod.labels().get(CREATED_BY) == uid.as_ref())
}

/// The pod that was made last.
fn newest(pods: &[Pod]) -> Option<&Pod> {
    pods.iter().max_by_key(|pod| pod_state::attempt(pod))
}

/// What follows a failed pass.
pub(crate) fn on_error(object: Arc<VirtualMachineInstance>, error: &ReconcileError, _: Arc<Context>) -> Next {
    let namespace = object.namespace().unwrap_or_default();
    let reason = protocol::chain::chain(error);
    tracing::warn!(namespace, name = object.name_any(), reason, "the instance will be tried again");
    Next::requeue(if matches!(error, ReconcileError::Launcher { .. }) { RETRY_REFUSED } else { RETRY })
}

/// What is applied: finalizer and status. A phase that is final is for the very version that was seen, or a pass whose cache does
/// not show the last write yet would judge by a pod that this write has let go.
pub(crate) fn applied(object: &VirtualMachineInstance, plan: &Plan) -> Value {
    let is_final = |status: &InstanceStatus| status.phase.is_some_and(Phase::is_final);
    let ends = is_final(&plan.status) && !object.status.as_ref().is_some_and(is_final);
    // With a UID an apply never creates the object again.
    let mut metadata = json!({
        "name": object.name_any(),
        "uid": object.metadata.uid,
        "finalizers": plan.finalizer.then_some(FINALIZER).into_iter().collect::<Vec<_>>(),
    });
    if ends {
        metadata["resourceVersion"] = json!(object.metadata.resource_version);
    }
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": metadata, "status": plan.status,
    })
}

struct Steps<'a> {
    object: &'a VirtualMachineInstance,
    client: &'a Client,
    config: &'a ClusterConfig,
    /// The way to launchers, and the pod of this instance's.
    launchers: (&'a LauncherClient, Option<&'a Pod>),
}

impl Steps<'_> {
    fn namespaced<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.object.namespace().unwrap_or_default())
    }

    /// Finalizer and status in one write by server-side apply; no write when neither changes. Says whether there was one.
    async fn write_instance(&self, plan: &Plan) -> Result<bool, ReconcileError> {
        let has_finalizer = self.object.finalizers().iter().any(|name| name == FINALIZER);
        if has_finalizer == plan.finalizer && self.object.status.as_ref().unwrap_or(&<_>::default()) == &plan.status {
            return Ok(false);
        }
        let name = self.object.name_any();
        let patch = Patch::Apply(applied(self.object, plan));
        let api: Api<VirtualMachineInstance> = self.namespaced();
        let written = api.patch(&name, &PatchParams::apply(MANAGER).force(), &patch).await;
        gone_is_fine(written.map(drop), "write the instance".to_owned())?;
        Ok(true)
    }

    async fn execute(&self, action: &Action, launch: &Result<Launch, Vec<String>>) -> Result<(), ReconcileError> {
        match (action, launch) {
            (Action::CreateSecret, Ok(launch)) => {
                let secret = pod::secret(self.object, launch);
                let secret = secret.map_err(|source| ReconcileError::Shape { what: "the Secret", source })?;
                self.create(&self.namespaced::<Secret>(), &secret).await
            }
            (Action::CreatePod { attempt }, Ok(launch)) => {
                let pod = pod::pod(self.object, launch, self.config, *attempt);
                let pod = pod.map_err(|source| ReconcileError::Shape { what: "the launcher pod", source })?;
                self.create(&self.namespaced::<Pod>(), &pod).await
            }
            // A plan creates nothing for an instance that was refused.
            (Action::CreateSecret | Action::CreatePod { .. }, Err(_)) => Ok(()),
            (Action::DeletePod { name }, _) => {
                let deleted = self.namespaced::<Pod>().delete(name, &DeleteParams::default()).await;
                gone_is_fine(deleted.map(drop), format!("delete pod {name}"))
            }
            (Action::ReleasePod { name }, _) => release(&self.namespaced::<Pod>(), name).await,
            (Action::SetGate { name, is_open }, _) => self.set_gate(name, *is_open).await,
            (Action::SetLink { nic, up }, _) => self.set_link(nic, *up).await,
        }
    }

    /// Its report on the change leads to the next pass.
    async fn set_link(&self, nic: &str, up: bool) -> Result<(), ReconcileError> {
        let (launchers, pod) = self.launchers;
        let place =
            || Some((pod?.spec.as_ref()?.node_name.as_deref()?, pod?.metadata.uid.as_ref()?.parse::<PodUid>().ok()?));
        // A pod whose launcher has reported has both.
        let Some((node, pod)) = place() else { return Ok(()) };
        let what = format!("set the link of NIC {nic:?} {}", if up { "up" } else { "down" });
        let asked = launchers.ask(node, &pod, Verb::SetLink, &json!({"link": {"nic": nic, "up": up}})).await;
        asked.map(drop).map_err(|source| ReconcileError::Launcher { what, source })
    }

    /// Names are deterministic: an object that exists was made by an earlier pass that the cache does not show yet.
    async fn create<K>(&self, api: &Api<K>, object: &K) -> Result<(), ReconcileError>
    where
        K: Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        match api.create(&parameters, object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(source @ kube::Error::Api(_)) if is_refusal(&source) => {
                Err(ReconcileError::Refused { what: format!("create {}", object.name_any()), source })
            }
            other => other.map(drop).map_err(api_error(format!("create {}", object.name_any()))),
        }
    }

    async fn set_gate(&self, name: &str, is_open: bool) -> Result<(), ReconcileError> {
        let (status, reason, message) = match is_open {
            true => ("True", "NotPaused", "the guest is not paused"),
            false => ("False", "Paused", "the guest is paused"),
        };
        let condition = json!({
            "type": UNPAUSED_GATE,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": Timestamp::now().round(jiff::Unit::Second).unwrap_or_default(),
        });
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let patched = self.namespaced::<Pod>().patch_status(name, &PatchParams::default(), &patch).await;
        gone_is_fine(patched.map(drop), format!("set the readiness gate of pod {name}"))
    }
}

/// Forbidden, too large or invalid.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if [400, 403, 413, 422].contains(&status.code))
}

/// Takes our finalizer from a pod; one that is gone needs none.
///
/// # Errors
/// The API server refused it or did not answer.
pub(super) async fn release(pods: &Api<Pod>, name: &str) -> Result<(), ReconcileError> {
    let patch = Patch::Strategic(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [OUTCOME]}}));
    let released = pods.patch_metadata(name, &PatchParams::default(), &patch).await;
    gone_is_fine(released.map(drop), format!("release pod {name}"))
}

fn gone_is_fine(result: kube::Result<()>, what: String) -> Result<(), ReconcileError> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map_err(api_error(what)),
    }
}
