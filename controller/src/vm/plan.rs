//! What is to be done for a machine, decided without I/O from the object, its instance, its revisions and the time.
//!
//! Flow: requests that are satisfied go → the run strategy decides whether the instance is made, left or deleted → the
//! status says so.
//! Guarantees: what an instance's end leads to is in the written status before the instance can vanish. A pass that makes an
//! instance writes no status: the next one, which sees the instance, does.

use std::time::Duration;

use api::run_strategy::{FailedStarts, NextStep, RunOutcome, RunStrategy, decide};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use serde_json::Value;

use super::instance::{FINALIZER, GENERATION};
use super::object::{MachineStatus, VirtualMachine};
use super::printable::{self, Facts};
use super::{links, mirror, requests, revision, start_failure};
use crate::conditions;
use crate::objects::{Phase, VirtualMachineInstance};
use crate::vmi::plan::FINALIZER as INSTANCE_FINALIZER;

/// Finalizer of an object that is deleted with `--cascade=orphan`.
const ORPHAN: &str = "orphan";
/// How long a new instance may be without a phase before the machine's status is written for it.
const PHASE_PATIENCE: Duration = Duration::from_secs(3);

/// What a decision is made from.
#[derive(Debug)]
pub(super) struct Observed<'a> {
    pub(super) vm: &'a VirtualMachine,
    /// Everything that is wrong with its spec.
    pub(super) complaints: &'a [String],
    /// What it names for its size and preference, and is to be recorded in its status: field and value.
    pub(super) references: &'a [(&'static str, Value)],
    /// Names of the revisions that hold those, and do not exist yet.
    pub(super) used: &'a [String],
    /// The instance of its name.
    pub(super) vmi: Option<&'a VirtualMachineInstance>,
    /// The revisions of its starts.
    pub(super) revisions: &'a [ControllerRevision],
    pub(super) now: Timestamp,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// The status to write before the actions.
    pub(super) status: MachineStatus,
    /// What to do, in this order.
    pub(super) actions: Vec<Action>,
    /// When to look again although nothing changed.
    pub(super) retry_after: Option<Duration>,
}

/// A step on the machine's metadata or on other objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Adds [`FINALIZER`] to the machine, or removes it.
    SetFinalizer(bool),
    /// Deletes the revision of an earlier start.
    DeleteRevision(String),
    /// Creates the revision of this start.
    CreateRevision,
    /// Creates the revision of an instancetype or a preference.
    KeepUsed(String),
    /// Creates the instance.
    CreateInstance {
        /// Whether its guest waits for `unpause`.
        is_paused: bool,
    },
    /// Takes over an instance of the machine's name that has no owner.
    AdoptInstance,
    /// Deletes the instance.
    DeleteInstance,
    /// Removes [`FINALIZER`] from the instance: its end is recorded.
    ReleaseInstance,
    /// Writes the machine's generation into the instance, which runs the same template.
    SetGeneration,
    /// Writes the interfaces with the template's states of links into the instance, whose guest is told.
    SetLinks(Value),
    /// Sets the run strategy of a machine that is halted to `Always`: a user asked for a start.
    RunAlways,
}

/// Decides for one machine.
pub(super) fn plan(observed: &Observed<'_>) -> Plan {
    planned(observed).finish()
}

/// The status of a machine whose plan failed at one of its actions.
pub(super) fn failed(observed: &Observed<'_>, reason: &'static str, message: String) -> MachineStatus {
    let mut planner = planned(observed);
    planner.failure = Some((reason, message));
    planner.actions.retain(|action| !matches!(action, Action::CreateInstance { .. }));
    planner.finish().status
}

fn planned<'a>(observed: &'a Observed<'a>) -> Planner<'a> {
    let mut planner = Planner::new(observed);
    if observed.vm.metadata.deletion_timestamp.is_some() {
        planner.end();
    } else if planner.adopts() {
        planner.add_finalizer();
        planner.actions.push(Action::AdoptInstance);
    } else {
        planner.follow_strategy();
    }
    planner
}

/// The run strategy; the error says which value is none.
pub(super) fn strategy(vm: &VirtualMachine) -> Result<RunStrategy, String> {
    let fields = &vm.spec.fields;
    let text = match (fields.get("running"), fields.get("runStrategy")) {
        (Some(Value::Bool(running)), None | Some(Value::Null)) => if *running { "Always" } else { "Halted" }.to_owned(),
        (None | Some(Value::Null), None | Some(Value::Null)) => "Halted".to_owned(),
        (_, Some(Value::String(strategy))) => strategy.clone(),
        (_, other) => other.map(ToString::to_string).unwrap_or_default(),
    };
    let known = serde_json::from_value(Value::String(text.clone()));
    known.map_err(|_| format!("spec.runStrategy: {text:?} is not supported"))
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    strategy: Result<RunStrategy, String>,
    /// The instance, unless another object controls it.
    vmi: Option<&'a VirtualMachineInstance>,
    status: MachineStatus,
    failure: Option<(&'static str, String)>,
    actions: Vec<Action>,
    retry_after: Option<Duration>,
}

impl<'a> Planner<'a> {
    fn new(observed: &'a Observed<'a>) -> Self {
        let vmi = observed
            .vmi
            .filter(|vmi| controller(vmi).is_none_or(|owner| Some(owner) == observed.vm.metadata.uid.as_deref()));
        let mut status = observed.vm.status.clone().unwrap_or_default();
        requests::trim(&mut status.state_change_requests, vmi);
        let strategy = strategy(observed.vm);
        let failure = status.start_failure.take();
        status.start_failure = start_failure::after(failure, strategy.clone().ok(), vmi, observed.now);
        Self { observed, strategy, vmi, status, failure: None, actions: Vec::new(), retry_after: None }
    }

    fn has_finalizer(&self, name: &str) -> bool {
        self.observed.vm.metadata.finalizers.iter().flatten().any(|found| found == name)
    }

    fn adopts(&self) -> bool {
        self.vmi.is_some_and(|vmi| controller(vmi).is_none() && vmi.metadata.deletion_timestamp.is_none())
    }

    fn phase(&self) -> Option<Phase> {
        self.vmi?.status.as_ref()?.phase
    }

    fn has_ended(&self) -> bool {
        self.phase().is_some_and(Phase::is_final)
    }

    /// The machine is deleted: its instance first, unless it is left alone. The garbage collector takes the owner off what
    /// is left alone before it removes its own finalizer.
    fn end(&mut self) {
        match self.vmi {
            Some(vmi) if controller(vmi).is_some() && !self.has_finalizer(ORPHAN) => {
                self.stop();
                self.release();
            }
            // With the finalizer of a machine that is gone it could not be deleted.
            Some(vmi) if has_finalizer(vmi, FINALIZER) => self.actions.push(Action::ReleaseInstance),
            _ if self.has_finalizer(FINALIZER) => self.actions.push(Action::SetFinalizer(false)),
            _ => {}
        }
    }

    fn add_finalizer(&mut self) {
        if !self.has_finalizer(FINALIZER) {
            self.actions.push(Action::SetFinalizer(true));
        }
    }

    fn follow_strategy(&mut self) {
        self.add_finalizer();
        match self.strategy.clone() {
            Ok(strategy) => {
                match self.vmi {
                    Some(vmi) => self.follow_instance(strategy, vmi),
                    None => self.follow_absence(strategy),
                }
                self.record_strategy(strategy);
            }
            Err(complaint) => self.failure = Some(("FailedCreate", complaint)),
        }
        if let Some(vmi) = self.vmi {
            self.follow_generation(vmi);
            self.follow_links(vmi);
        }
        self.record_references();
        self.release();
    }

    /// There is an instance: it is left, or deleted so that another can follow.
    fn follow_instance(&mut self, strategy: RunStrategy, vmi: &VirtualMachineInstance) {
        if vmi.metadata.deletion_timestamp.is_some() {
            return;
        }
        let is_stop = requests::asks_stop(&self.status.state_change_requests, vmi);
        match strategy {
            RunStrategy::Halted => return self.stop(),
            RunStrategy::Once => {}
            RunStrategy::Always | RunStrategy::RerunOnFailure | RunStrategy::Manual if is_stop => return self.stop(),
            RunStrategy::Always | RunStrategy::RerunOnFailure | RunStrategy::Manual => {}
        }
        let outcome = match self.phase() {
            Some(Phase::Succeeded) => RunOutcome::PoweredOff,
            Some(Phase::Failed) => RunOutcome::Failed,
            _ => return,
        };
        let (next, _) = decide(strategy, outcome, start_failure::ran(vmi), FailedStarts::default(), 0.0);
        let is_again = matches!(next, NextStep::Again { .. });
        // Under this strategy only a request starts a machine that ran before.
        let needs_request = is_again && strategy == RunStrategy::RerunOnFailure;
        if needs_request && !requests::asks_start(&self.status.state_change_requests) {
            self.status.state_change_requests.push(requests::start());
        }
        if is_again || strategy == RunStrategy::RerunOnFailure {
            self.stop();
        }
    }

    /// There is no instance: one is made, or not.
    fn follow_absence(&mut self, strategy: RunStrategy) {
        let is_asked = requests::asks_start(&self.status.state_change_requests);
        // It differs before the first start and after a change of the strategy.
        let is_other = self.status.run_strategy.as_deref() != Some(name(strategy).as_str());
        let starts = match strategy {
            RunStrategy::Always => true,
            RunStrategy::RerunOnFailure => is_asked || is_other,
            RunStrategy::Once => is_other,
            RunStrategy::Manual => is_asked,
            RunStrategy::Halted => {
                if is_asked {
                    self.actions.push(Action::RunAlways);
                }
                false
            }
        };
        if starts {
            self.start();
        }
    }

    fn start(&mut self) {
        if let Some(left) = start_failure::time_left(self.status.start_failure.as_ref(), self.observed.now) {
            self.retry_after = Some(left);
            return;
        }
        if conditions::is_true(&self.status.conditions, mirror::MANUAL_RECOVERY) {
            return;
        }
        if !self.observed.complaints.is_empty() {
            self.failure = Some(("FailedCreate", self.observed.complaints.join("; ")));
            return;
        }
        if let Some(vmi) = self.observed.vmi {
            let owner = controller(vmi).unwrap_or_default();
            let message = format!("an instance of this name exists and belongs to another object (UID {owner})");
            self.failure = Some(("FailedCreate", message));
            return;
        }
        let this = revision::name(self.observed.vm);
        let names = self.observed.revisions.iter().filter_map(|revision| revision.metadata.name.clone());
        let of_starts = names.filter(|name| name.starts_with(revision::OF_START));
        let (same, older): (Vec<_>, Vec<_>) = of_starts.partition(|name| *name == this);
        self.actions.extend(older.into_iter().map(Action::DeleteRevision));
        if same.is_empty() {
            self.actions.push(Action::CreateRevision);
        }
        self.actions.extend(self.observed.used.iter().cloned().map(Action::KeepUsed));
        let is_paused = requests::asks_paused_start(&self.status.state_change_requests);
        self.actions.push(Action::CreateInstance { is_paused });
    }

    fn stop(&mut self) {
        if self.vmi.is_some_and(|vmi| vmi.metadata.deletion_timestamp.is_none()) {
            self.actions.push(Action::DeleteInstance);
        }
    }

    /// An instance whose end is recorded, or that is gone but for this finalizer, is let go.
    fn release(&mut self) {
        let Some(vmi) = self.vmi.filter(|vmi| has_finalizer(vmi, FINALIZER)) else { return };
        let is_gone = vmi.metadata.deletion_timestamp.is_some() && !has_finalizer(vmi, INSTANCE_FINALIZER);
        if self.has_ended() || is_gone {
            self.actions.push(Action::ReleaseInstance);
        }
    }

    /// The strategy is recorded once it has led to an instance, or has nothing to start.
    fn record_strategy(&mut self, strategy: RunStrategy) {
        let is_pending = self.vmi.is_none() && (self.creates() || self.retry_after.is_some() || self.failure.is_some());
        if self.vmi.is_some() || (self.status.run_strategy.is_some() && !is_pending) {
            self.status.run_strategy = Some(name(strategy));
        }
    }

    fn creates(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::CreateInstance { .. }))
    }

    /// What the instance was made with is recorded once it exists; what is not named any more goes.
    fn record_references(&mut self) {
        for field in ["instancetypeRef", "preferenceRef"] {
            let named = self.observed.references.iter().find(|(name, _)| *name == field);
            match named {
                Some((_, reference)) if self.vmi.is_some() => {
                    self.status.other.insert(field.to_owned(), reference.clone());
                }
                None if self.observed.vm.spec.fields.get(field.trim_end_matches("Ref")).is_none_or(Value::is_null) => {
                    self.status.other.remove(field);
                }
                _ => {}
            }
        }
    }

    /// Generations, and whether the instance runs what the machine says.
    fn follow_generation(&mut self, vmi: &VirtualMachineInstance) {
        let generation = self.observed.vm.metadata.generation;
        let annotations = vmi.metadata.annotations.as_ref();
        let mut of_instance: Option<i64> = annotations.and_then(|all| all.get(GENERATION)?.parse().ok());
        let started = vmi.status.as_ref().and_then(|status| status.virtual_machine_revision_name.as_deref());
        let mut revisions = self.observed.revisions.iter();
        let revision = revisions.find(|found| started.is_some() && found.metadata.name.as_deref() == started);
        if let Some(started) = revision.and_then(revision::spec) {
            let current = |name: &str| self.observed.vm.spec.fields.get(name).unwrap_or(&Value::Null);
            let differs = |name: &str| current(name) != &started[name];
            let is_other_size = differs("instancetype") || differs("preference");
            let is_same = !differs("template") && !is_other_size;
            let is_other = links::differ_elsewhere(&current("template")["spec"], &started["template"]["spec"]);
            let needs_restart = is_other || is_other_size;
            if is_same && of_instance != generation && vmi.metadata.deletion_timestamp.is_none() {
                self.actions.push(Action::SetGeneration);
                of_instance = generation;
            }
            if needs_restart && !self.actions.contains(&Action::DeleteInstance) {
                let message = "the template's spec was changed; the change takes effect at the next start";
                let now = self.observed.now;
                conditions::set(&mut self.status.conditions, mirror::RESTART_REQUIRED, "True", "", message, now);
            } else {
                conditions::remove(&mut self.status.conditions, mirror::RESTART_REQUIRED);
            }
        }
        if let Some(of_instance) = of_instance {
            self.status.observed_generation = Some(of_instance);
            self.status.desired_generation = generation;
        }
    }

    /// The state of a link is the one part of a template that a running instance takes over.
    fn follow_links(&mut self, vmi: &VirtualMachineInstance) {
        let template = self.observed.vm.spec.fields.get("template").unwrap_or(&Value::Null);
        let is_over = self.has_ended() || vmi.metadata.deletion_timestamp.is_some();
        let changed = links::taken_over(&template["spec"], &vmi.spec.fields);
        self.actions.extend(changed.filter(|_| !is_over).map(Action::SetLinks));
    }

    fn finish(mut self) -> Plan {
        let now = self.observed.now;
        let unchanged = self.observed.vm.status.clone().unwrap_or_default();
        // A failure stays to be read until the instance exists; a machine without its finalizer could vanish before the instance.
        if self.creates() || self.actions.contains(&Action::SetFinalizer(true)) {
            return Plan { status: unchanged, actions: self.actions, retry_after: None };
        }
        if let Some(left) = self.patience() {
            return Plan { status: unchanged, actions: self.actions, retry_after: Some(left) };
        }
        let has_failed = self.status.start_failure.is_some();
        mirror::mirror(&mut self.status.conditions, self.vmi, has_failed, now);
        match &self.failure {
            Some((reason, message)) => {
                conditions::set(&mut self.status.conditions, mirror::FAILURE, "True", reason, message, now);
            }
            None if self.actions.contains(&Action::DeleteInstance) => {}
            None => conditions::remove(&mut self.status.conditions, mirror::FAILURE),
        }
        if self.vmi.is_none() {
            conditions::remove(&mut self.status.conditions, mirror::RESTART_REQUIRED);
        }
        self.status.created = self.vmi.is_some();
        self.status.ready = self.vmi.is_some() && conditions::is_true(&self.status.conditions, "Ready");
        self.status.printable_status = Some(printable::status(&Facts {
            is_deleted: self.observed.vm.metadata.deletion_timestamp.is_some(),
            strategy: self.strategy.clone().ok(),
            status: &self.status,
            vmi: self.vmi,
            stops: self.actions.contains(&Action::DeleteInstance),
        }));
        Plan { status: self.status, actions: self.actions, retry_after: self.retry_after }
    }

    /// How long to wait for the first phase of an instance that was just made: one write then says both.
    fn patience(&self) -> Option<Duration> {
        let vmi = self.vmi.filter(|vmi| self.phase().is_none() && vmi.metadata.deletion_timestamp.is_none())?;
        let created = vmi.metadata.creation_timestamp.as_ref()?.0;
        let age = Duration::try_from(self.observed.now.duration_since(created)).unwrap_or_default();
        let is_quiet = self.actions.is_empty() && self.observed.vm.metadata.deletion_timestamp.is_none();
        PHASE_PATIENCE.checked_sub(age).filter(|left| is_quiet && !left.is_zero())
    }
}

/// The name of a strategy, as specs have it.
fn name(strategy: RunStrategy) -> String {
    format!("{strategy:?}")
}

/// UID of the object that controls an instance.
fn controller(vmi: &VirtualMachineInstance) -> Option<&str> {
    let owners = vmi.metadata.owner_references.iter().flatten();
    let mut controller = owners.filter(|owner| owner.controller == Some(true));
    controller.next().map(|owner| owner.uid.as_str())
}

fn has_finalizer(vmi: &VirtualMachineInstance, name: &str) -> bool {
    vmi.metadata.finalizers.iter().flatten().any(|found| found == name)
}
