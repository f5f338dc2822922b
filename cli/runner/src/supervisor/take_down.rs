//! The end of a VM: everything is taken back, and who waits is told.

use super::pod::{Pod, StartFailure};
use super::wishes::Wishes;
use super::{Ears, Over, Supervisor};
use crate::protocol::Report;
use crate::record::{OnHost, Phase};
use crate::{chain, files};
use api::run_strategy::FinalPhase;

impl<P: Pod> Supervisor<P> {
    /// Takes everything back, says so, and forgets the VM unless it is kept.
    pub(super) async fn take_down(mut self, over: Over, ears: &Ears, wishes: &Wishes) -> u8 {
        let pod = self.pod.clone();
        let detached = tokio::task::spawn_blocking(move || pod.detach()).await;
        let left = match detached {
            Ok(Ok(())) => None,
            Ok(Err(left)) => Some(left),
            Err(panic) => Some(format!("taking the networks back panicked: {panic}")),
        };
        let (phase, reason, exit_code) = match &over {
            Over::NotStarted(failure) => (Phase::Failed, Some(failure.message.clone()), failure.exit_code),
            Over::Ended { end, reason } => {
                (Phase::from(*end), reason.clone(), if *end == FinalPhase::Failed { 7 } else { 0 })
            }
        };
        self.status.phase = phase;
        self.status.reason = left.clone().or(reason);
        // Who comes from now on is not to be let in and left without an answer.
        let socket = self.store.layout().vm(&self.key).supervisor_socket();
        if let Err(error) = files::remove_file(&socket) {
            tracing::warn!("{}", chain(&error));
        }
        let forgotten = self.forget(left.is_none(), wishes.remove || !self.status.kept);
        let left = left.or(forgotten.err().map(|failure| failure.message));
        ears.starter.tell(&final_report(over, left.as_deref()));
        for listener in &wishes.waiting_for_end {
            listener.tell(&match &left {
                None => Report::Done { phase },
                Some(left) => Report::Refused { message: left.clone() },
            });
        }
        let message = match &self.status.reason {
            Some(reason) => format!("it has ended: {reason}"),
            None => "it has ended".to_owned(),
        };
        wishes.waiting_for_run.iter().for_each(|listener| listener.tell(&Report::Refused { message: message.clone() }));
        exit_code
    }

    /// Says that nothing is on the host any more, if that is so, and removes the folder when it is not to be kept.
    fn forget(&mut self, is_clean: bool, remove: bool) -> Result<(), StartFailure> {
        let host = self.store.lock_host()?;
        if !is_clean {
            return self.save();
        }
        self.status.on_host = OnHost::Absent;
        self.status.ready = false;
        self.status.supervisor = None;
        self.status.addresses.clear();
        self.status.host_links.clear();
        // What is to go needs no room to be written down first; and the host is put back whatever becomes of the record.
        let forgotten = match remove {
            true => self.store.remove(&host, &self.key, &self.lock).map_err(StartFailure::from),
            false => self.save(),
        };
        forgotten.and(self.pod.release_host(&host))
    }
}

fn final_report(over: Over, left: Option<&str>) -> Report {
    let with = |text: String| match left {
        None => text,
        Some(left) => format!("{text}; and not everything could be taken back: {left}"),
    };
    match over {
        Over::NotStarted(failure) => Report::Failed { exit_code: failure.exit_code, message: with(failure.message) },
        Over::Ended { end, reason } => Report::Ended { end, reason: reason.map(with).or(left.map(str::to_owned)) },
    }
}
