//! Requests about a VirtualMachine: each becomes a change of its spec or status, which its controller acts on.
//!
//! The decisions and texts are those of KubeVirt's virt-api; a change names what it was decided from, so that one that meets a
//! newer object is refused.

use api::run_strategy::RunStrategy;
use hyper::StatusCode;
use kube::ResourceExt as _;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use protocol::control::Verb;
use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::{Api, accepted, instance, json_answer, options};
use super::instance::{Launcher, failure, is_running};
use super::path::Target;
use super::status::{Failure, Kind};
use crate::MANAGER;
use crate::http::Answer;
use crate::objects::{Phase, VirtualMachineInstance};
use crate::vm::VirtualMachine;
use crate::vm::instancetype::resolve::{self, ExpandError};

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Start,
    Stop,
    Restart,
    Migrate,
}

impl Action {
    /// The request of a subresource's name.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "start" => Some(Self::Start),
            "stop" => Some(Self::Stop),
            "restart" => Some(Self::Restart),
            "migrate" => Some(Self::Migrate),
            _ => None,
        }
    }
}

/// The options of all requests.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ActionOptions {
    dry_run: Vec<String>,
    /// `start`: the guest's processors stay halted.
    paused: bool,
    /// `stop`: seconds until the guest is ended by force.
    grace_period: Option<i64>,
    /// `restart`: the same; only 0.
    grace_period_seconds: Option<i64>,
    /// `migrate`: more labels that the target node must have.
    added_node_selector: Option<Value>,
}

/// A JSON patch, and what it changes.
#[derive(Debug, Clone, PartialEq)]
enum Change {
    Spec(Value),
    Status(Value),
}

/// Does it.
///
/// # Errors
/// The machine does not exist, its run strategy or state does not allow it, or the API server refused the change.
pub(super) async fn act(api: &Api, target: &Target, action: Action, body: &[u8]) -> Result<Answer, Failure> {
    let options: ActionOptions = options(body)?;
    let (namespace, name) = (&target.namespace, &target.name);
    if action == Action::Restart {
        check_grace(options.grace_period_seconds)?;
    }
    let vm = machine(api, namespace, name).await?;
    let vmi = match instance(&api.client, namespace, name).await {
        Err(missing) if missing.code == StatusCode::NOT_FOUND => None,
        found => Some(found?),
    };
    let is_dry = options.dry_run.iter().any(|stage| stage == "All");
    let observed = Observed { name, vm: &vm, vmi: vmi.as_ref() };
    let change = match action {
        Action::Start => observed.start(options.paused)?,
        Action::Stop => observed.stop(options.grace_period)?,
        Action::Restart => observed.restart()?,
        Action::Migrate => return migrate(api, &observed, &options, is_dry).await,
    };
    patch(api, target, &change, is_dry).await?;
    let grace = options.grace_period.or(options.grace_period_seconds);
    if let (Some(seconds), Some(vmi), false) = (grace, observed.live(), is_dry) {
        let launcher = Launcher::of(api, vmi).await?;
        let fields = json!({"graceSeconds": seconds.max(0)});
        let asked = api.launchers.ask(&launcher.node, &launcher.pod, Verb::Stop, &fields).await;
        asked.map_err(|error| failure(name, &error))?;
    }
    Ok(accepted())
}

fn check_grace(seconds: Option<i64>) -> Result<(), Failure> {
    match seconds {
        Some(1..) => Err(Failure::bad_request("For force restart, only gracePeriod=0 is supported for now")),
        Some(..0) => Err(Failure::bad_request("gracePeriod has to be greater or equal to 0")),
        Some(0) | None => Ok(()),
    }
}

/// The machine of a name.
async fn machine(api: &Api, namespace: &str, name: &str) -> Result<Value, Failure> {
    let path = path(namespace, name, "");
    let request = hyper::Request::get(path).body(Vec::new()).map_err(Failure::internal)?;
    match api.client.request::<Value>(request).await {
        Ok(vm) => Ok(vm),
        Err(kube::Error::Api(status)) if status.code == 404 => Err(Failure::not_found(Kind::Machine, name)),
        Err(error) => Err(Failure::internal(format!("unable to retrieve vm [{name}]: {error}"))),
    }
}

/// The instance of a machine that was started.
///
/// # Errors
/// The machine does not exist, was not started, or the instance of its name is not its own.
pub(super) async fn instance_of(api: &Api, namespace: &str, name: &str) -> Result<VirtualMachineInstance, Failure> {
    let vm = machine(api, namespace, name).await?;
    if vm.pointer("/status/created") != Some(&Value::Bool(true)) {
        return Err(Failure::conflict(Kind::Machine, name, "VMI is not started"));
    }
    let vmi = instance(&api.client, namespace, name).await?;
    let uid = vm.pointer("/metadata/uid").and_then(Value::as_str);
    let is_its_own = vmi.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid);
    if is_its_own { Ok(vmi) } else { Err(Failure::internal(format!("unable to retrieve vmi [{name}] for vm"))) }
}

/// The machine of a name with its instancetype and preference put into its template.
///
/// # Errors
/// It does not exist, or what it names is missing or does not fit.
pub(super) async fn expand(api: &Api, target: &Target) -> Result<Answer, Failure> {
    expanded(api, machine(api, &target.namespace, &target.name).await?, Failure::internal).await
}

/// The same for a machine in a body.
///
/// # Errors
/// It is no machine of this namespace, or what it names is missing or does not fit.
pub(super) async fn expand_given(api: &Api, body: &[u8], namespace: &str) -> Result<Answer, Failure> {
    expanded(api, given(body, namespace)?, Failure::bad_request).await
}

/// A body as a machine of a namespace.
fn given(body: &[u8], namespace: &str) -> Result<Value, Failure> {
    if body.is_empty() {
        return Err(Failure::bad_request("empty request body"));
    }
    let mut vm: Value = serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("Can not unmarshal Request body to struct, error: {error}")))?;
    if vm["kind"] != "VirtualMachine" || !vm["spec"]["template"].is_object() {
        return Err(Failure::bad_request("Object is not a valid VirtualMachine"));
    }
    match vm.pointer("/metadata/namespace").and_then(Value::as_str) {
        Some(other) if !other.is_empty() && other != namespace => {
            return Err(Failure::bad_request(format!("VM namespace must be empty or {namespace}")));
        }
        _ => vm["metadata"]["namespace"] = namespace.into(),
    }
    Ok(vm)
}

/// `refuse` makes the answer to a machine that cannot be expanded.
async fn expanded(api: &Api, mut vm: Value, refuse: fn(String) -> Failure) -> Result<Answer, Failure> {
    let read: VirtualMachine = serde_json::from_value(vm.clone()).map_err(|error| refuse(error.to_string()))?;
    match resolve::expand(&api.client, &read).await {
        Ok(expanded) => {
            vm["spec"] = Value::Object(expanded.vm.spec.fields);
            Ok(json_answer(StatusCode::OK, &vm))
        }
        Err(ExpandError::Refused(complaints)) => Err(refuse(complaints.join("; "))),
        Err(error) => Err(Failure::internal(protocol::chain::chain(&error))),
    }
}

async fn migrate(api: &Api, observed: &Observed<'_>, options: &ActionOptions, is_dry: bool) -> Result<Answer, Failure> {
    let Some(vmi) = observed.vmi else { return Err(Failure::not_found(Kind::Instance, observed.name)) };
    if !is_running(vmi) {
        return Err(observed.conflict("VM is not running"));
    }
    let kind = GroupVersionKind::gvk("kubevirt.io", "v1", "VirtualMachineInstanceMigration");
    let mut spec = json!({"vmiName": observed.name});
    if let Some(selector) = &options.added_node_selector {
        spec["addedNodeSelector"] = selector.clone();
    }
    let mut migration = DynamicObject::new("", &ApiResource::from_gvk(&kind)).data(json!({"spec": spec}));
    migration.metadata.name = None;
    migration.metadata.generate_name = Some("kubevirt-migrate-vm-".to_owned());
    let migrations = kube::Api::<DynamicObject>::namespaced_with(
        api.client.clone(),
        &vmi.namespace().unwrap_or_default(),
        &ApiResource::from_gvk(&kind),
    );
    let parameters = PostParams { dry_run: is_dry, field_manager: Some(MANAGER.to_owned()) };
    match migrations.create(&parameters, &migration).await {
        Ok(_) => Ok(accepted()),
        // Admission says why no guest is moved.
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            Err(Failure::forbidden(Kind::Machine, observed.name, status.message))
        }
        Err(error) => Err(Failure::internal(error)),
    }
}

fn path(namespace: &str, name: &str, below: &str) -> String {
    format!("/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachines/{name}{below}")
}

async fn patch(api: &Api, target: &Target, change: &Change, is_dry: bool) -> Result<(), Failure> {
    let (below, operations) = match change {
        Change::Spec(operations) => ("", operations),
        Change::Status(operations) => ("/status", operations),
    };
    let dry = if is_dry { "&dryRun=All" } else { "" };
    let path = format!("{}?fieldManager={MANAGER}{dry}", path(&target.namespace, &target.name, below));
    let request = hyper::Request::patch(path).header("content-type", "application/json-patch+json");
    let request = request.body(operations.to_string().into_bytes()).map_err(Failure::internal)?;
    match api.client.request::<Value>(request).await {
        Ok(_) => Ok(()),
        // A `test` of the patch has failed, or another writer was first.
        Err(kube::Error::Api(status)) if [409, 422].contains(&status.code) => {
            Err(Failure::conflict(Kind::Machine, &target.name, status.message))
        }
        Err(error) => Err(Failure::internal(error)),
    }
}

/// A machine and its instance, as they were read.
struct Observed<'a> {
    name: &'a str,
    vm: &'a Value,
    vmi: Option<&'a VirtualMachineInstance>,
}

impl Observed<'_> {
    fn conflict(&self, why: impl std::fmt::Display) -> Failure {
        Failure::conflict(Kind::Machine, self.name, why)
    }

    fn phase(&self) -> Option<Phase> {
        self.vmi.and_then(|vmi| vmi.status.as_ref()).and_then(|status| status.phase)
    }

    fn is_final(&self) -> bool {
        self.phase().is_some_and(Phase::is_final)
    }

    /// The instance, unless it has ended.
    fn live(&self) -> Option<&VirtualMachineInstance> {
        self.vmi.filter(|_| !self.is_final())
    }

    fn strategy(&self) -> Result<RunStrategy, Failure> {
        let spec = &self.vm["spec"];
        match (&spec["running"], &spec["runStrategy"]) {
            (Value::Null, Value::Null) | (Value::Bool(false), Value::Null) => Ok(RunStrategy::Halted),
            (Value::Bool(true), Value::Null) => Ok(RunStrategy::Always),
            (Value::Null, strategy) => serde_json::from_value(strategy.clone())
                .map_err(|_| Failure::internal(format!("spec.runStrategy: {strategy} is not supported"))),
            _ => Err(Failure::internal("Running and RunStrategy are mutually exclusive")),
        }
    }

    fn is_true(&self, condition: &str) -> bool {
        let mut conditions = self.vm.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        conditions.any(|found| found["type"] == condition && found["status"] == "True")
    }

    fn start(&self, paused: bool) -> Result<Change, Failure> {
        if self.live().is_some() && !matches!(self.phase(), None | Some(Phase::Unknown)) {
            return Err(self.conflict("VM is already running"));
        }
        if self.is_true("ManualRecoveryRequired") {
            return Err(self.conflict(RECOVERY));
        }
        let mut start = json!({"action": "Start"});
        if paused {
            start["data"] = json!({"paused": "true"});
        }
        let strategy = self.strategy()?;
        let is_succeeded = self.phase() == Some(Phase::Succeeded);
        match strategy {
            RunStrategy::Halted if paused => self.request(&[start]),
            RunStrategy::Halted => Ok(self.set_running(true)),
            RunStrategy::RerunOnFailure if self.phase() == Some(Phase::Failed) => {
                Err(self.conflict("RerunOnFailure does not support starting VM from failed state"))
            }
            RunStrategy::RerunOnFailure if is_succeeded => self.request(&[self.stop_request(), start]),
            RunStrategy::Manual if self.is_final() => self.request(&[self.stop_request(), start]),
            RunStrategy::RerunOnFailure | RunStrategy::Manual => self.request(&[start]),
            RunStrategy::Always | RunStrategy::Once => {
                Err(self.conflict(format!("{strategy:?} does not support manual start requests")))
            }
        }
    }

    fn stop(&self, grace: Option<i64>) -> Result<Change, Failure> {
        let strategy = self.strategy()?;
        let by_request = matches!(strategy, RunStrategy::Halted | RunStrategy::RerunOnFailure | RunStrategy::Manual);
        let Some(vmi) = self.live() else {
            return if by_request { Err(self.conflict("VM is not running")) } else { Ok(self.set_running(false)) };
        };
        if strategy == RunStrategy::Halted {
            let own = vmi.spec.fields.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
            if grace.is_none_or(|grace| own.is_some_and(|own| grace >= own)) {
                return Err(self.conflict("Halted only supports manual stop requests with a shorter graceperiod"));
            }
        }
        if by_request { self.request(&[self.stop_request()]) } else { Ok(self.set_running(false)) }
    }

    fn restart(&self) -> Result<Change, Failure> {
        if self.is_true("VolumesChange") {
            return Err(self.conflict(RECOVERY));
        }
        let strategy = self.strategy()?;
        if matches!(strategy, RunStrategy::Halted | RunStrategy::Once) {
            // The misspelling is KubeVirt's.
            return Err(self.conflict(format!("RunStategy {strategy:?} does not support manual restart requests")));
        }
        if self.vmi.is_none() {
            return Err(self.conflict("VM is not running: Halted"));
        }
        self.request(&[self.stop_request(), json!({"action": "Start"})])
    }

    fn stop_request(&self) -> Value {
        json!({"action": "Stop", "uid": self.vmi.and_then(|vmi| vmi.metadata.uid.as_ref())})
    }

    /// Requests in the status, in their order. A stop replaces what waits there; nothing else does.
    fn request(&self, requests: &[Value]) -> Result<Change, Failure> {
        let status = self.vm.get("status").filter(|status| status.as_object().is_some_and(|map| !map.is_empty()));
        let Some(status) = status else {
            let add = json!([{"op": "add", "path": "/status", "value": {"stateChangeRequests": requests}}]);
            return Ok(Change::Status(add));
        };
        const PATH: &str = "/status/stateChangeRequests";
        let waiting = status.get("stateChangeRequests").cloned().unwrap_or_default();
        let is_idle = waiting.as_array().is_none_or(Vec::is_empty);
        let is_stop = matches!(requests, [request] if request["action"] == "Stop");
        let operation = match (is_idle, is_stop) {
            (true, _) => "add",
            (false, true) => "replace",
            (false, false) => {
                return Err(Failure::internal("unable to complete request: stop/start already underway"));
            }
        };
        let mut operations = vec![
            json!({"op": "test", "path": PATH, "value": waiting}),
            json!({"op": operation, "path": PATH, "value": requests}),
        ];
        if status.get("startFailure").is_some_and(|failure| !failure.is_null()) {
            operations.push(json!({"op": "remove", "path": "/status/startFailure"}));
        }
        Ok(Change::Status(operations.into()))
    }

    /// Sets the field that the machine uses.
    fn set_running(&self, running: bool) -> Change {
        let spec = &self.vm["spec"];
        let strategy = if running { "Always" } else { "Halted" };
        let (path, before, after) = match (&spec["running"], &spec["runStrategy"]) {
            (Value::Null, Value::Null) => {
                return Change::Spec(json!([{"op": "add", "path": "/spec/runStrategy", "value": strategy}]));
            }
            (Value::Null, before) => ("/spec/runStrategy", before, json!(strategy)),
            (before, _) => ("/spec/running", before, json!(running)),
        };
        Change::Spec(json!([
            {"op": "test", "path": path, "value": before},
            {"op": "replace", "path": path, "value": after},
        ]))
    }
}

const RECOVERY: &str = "VM recovery required: Volume migration failed, leaving some volumes pointing to non-consistent targets; manual intervention is needed to reassign them to their original volumes.";

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
