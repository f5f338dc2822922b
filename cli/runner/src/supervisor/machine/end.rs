//! The end of a VM: detach networks, keep or remove the record, answer every client that waits.

use api::run_strategy::FinalPhase;

use super::super::pod::StartFailure;
use super::{Machine, State, SupervisorAction};
use crate::protocol::Report;
use crate::record::{Kind, OnHost, Phase};

/// Why a VM is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest never ran; why, and with which exit code.
    NotStarted(StartFailure),
    /// The guest ran at least once.
    Ended {
        /// The phase it stays in.
        phase: FinalPhase,
        /// Why it ended, in a sentence, when that needs saying.
        reason: Option<String>,
    },
}

impl End {
    /// What is recorded of it.
    fn record(&self) -> (Phase, Option<String>) {
        match self {
            Self::NotStarted(failure) => (Phase::Failed, Some(failure.message.clone())),
            Self::Ended { phase, reason } => (Phase::from(*phase), reason.clone()),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NotStarted(failure) => failure.exit_code,
            Self::Ended { phase: FinalPhase::Failed, .. } => 7,
            Self::Ended { .. } => 0,
        }
    }

    /// The last report, which also names what could not be removed.
    fn report(self, left: Option<&str>) -> Report {
        let with = |text: String| match left {
            None => text,
            Some(left) => format!("{text}; and not everything could be removed: {left}"),
        };
        match self {
            Self::NotStarted(failure) => {
                Report::Failed { exit_code: failure.exit_code, message: with(failure.message) }
            }
            Self::Ended { phase, reason } => {
                Report::Ended { end: phase, reason: reason.map(with).or(left.map(str::to_owned)) }
            }
        }
    }
}

impl<C: Clone> Machine<C> {
    /// Ends a VM because a user wants it to.
    pub(super) fn finish_stopped(&mut self, reason: Option<String>) {
        self.status.strategy = self.status.strategy.after_stop();
        let is_kept = self.status.kind == Kind::VirtualMachine;
        let phase = if is_kept { FinalPhase::Stopped } else { FinalPhase::Succeeded };
        self.finish(End::Ended { phase, reason });
    }

    pub(super) fn finish(&mut self, end: End) {
        self.actions.push(SupervisorAction::Detach);
        self.state = State::Detaching(end);
    }

    pub(super) fn on_detached(&mut self, result: Result<(), String>) {
        let State::Detaching(end) = &self.state else { return };
        let (end, left) = (end.clone(), result.err());
        let (phase, reason) = end.record();
        (self.status.phase, self.status.reason) = (phase, reason);
        self.status.left.clone_from(&left);
        let is_clean = left.is_none();
        if is_clean {
            self.status.on_host = OnHost::Absent;
            self.status.ready = false;
            self.status.supervisor = None;
            self.status.addresses.clear();
            self.status.host_links.clear();
        }
        // A record of what could not be removed stays: the next command tries again.
        let remove = is_clean && (self.requests.remove || !self.status.kept);
        self.saving.is_changed = false;
        self.actions.push(SupervisorAction::Forget { status: Box::new(self.status.clone()), remove });
        self.state = State::Forgetting { end, left, remove };
    }

    pub(super) fn on_forgotten(&mut self, failure: Option<String>) {
        let State::Forgetting { end, left, remove } = std::mem::replace(&mut self.state, State::Ended) else { return };
        let left: Vec<_> = left.into_iter().chain(failure).collect();
        let left = (!left.is_empty()).then(|| left.join("; "));
        (self.saving.is_changed, self.saving.retry_at) = (false, None);
        let (exit_code, phase) = (end.exit_code(), self.status.phase);
        self.tell(end.report(left.as_deref()));
        for client in std::mem::take(&mut self.requests.waiting_for_end) {
            let report = match &left {
                None => Report::Done { phase },
                Some(left) => Report::Refused { message: left.clone() },
            };
            self.answer(client, report);
        }
        let message = match &self.status.reason {
            Some(reason) => format!("it has ended: {reason}"),
            None => "it has ended".to_owned(),
        };
        self.refuse_waiting_for_run(&message);
        for client in std::mem::take(&mut self.saving.keepers) {
            let report = if remove { Report::Refused { message: message.clone() } } else { Report::Done { phase } };
            self.answer(client, report);
        }
        self.actions.push(SupervisorAction::Exit(exit_code));
    }
}
