//! What people want of a VM besides what its strategy says, and how it is heard.

use std::time::Duration;

use super::pod::Pod;
use super::requests::{Asked, Listener};
use super::{Ears, Supervisor};
use crate::protocol::{Report, Request};
use crate::record::Kind;

/// What people want of the VM besides what its strategy says.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) stop: bool,
    pub(super) restart: bool,
    pub(super) remove: bool,
    pub(super) waiting_for_end: Vec<Listener>,
    pub(super) waiting_for_run: Vec<Listener>,
}

impl<P: Pod> Supervisor<P> {
    /// What is asked while no guest runs.
    pub(super) fn hear(&mut self, asked: Option<Asked>, wishes: &mut Wishes) {
        // The grace period is for a guest; there is none.
        self.hear_running(asked, wishes, false);
    }

    /// What is asked while a guest runs. The answer is the grace it gets when it is to end now.
    #[expect(clippy::option_option, reason = "not to end, to end within the manifest's grace, within this one")]
    pub(super) fn hear_running(&mut self, asked: Option<Asked>, wishes: &mut Wishes, ran: bool) -> Option<Option<u64>> {
        match asked? {
            Asked::StarterGone if ran => None,
            Asked::StarterGone => {
                wishes.stop = true;
                Some(Some(0))
            }
            Asked::Terminate => {
                wishes.stop = true;
                Some(None)
            }
            Asked::Request(Request::Keep, listener) => {
                self.status.kept = true;
                let saved = self.save();
                listener.tell(&match saved {
                    Ok(()) => Report::Done { phase: self.status.phase },
                    Err(failure) => Report::Refused { message: failure.message },
                });
                None
            }
            Asked::Request(Request::Stop { grace_seconds, remove }, listener) => {
                wishes.stop = true;
                wishes.remove |= remove;
                wishes.waiting_for_end.push(listener);
                Some(grace_seconds)
            }
            Asked::Request(Request::Restart { .. }, listener) if self.status.kind != Kind::VirtualMachine => {
                let message = "a VirtualMachineInstance runs once and is not restarted".to_owned();
                listener.tell(&Report::Refused { message });
                None
            }
            Asked::Request(Request::Restart { grace_seconds }, listener) => {
                wishes.restart = true;
                wishes.waiting_for_run.push(listener);
                Some(grace_seconds)
            }
        }
    }

    /// Waits for the next start. Returns whether somebody wants no next start.
    pub(super) async fn wait(&mut self, ears: &mut Ears, wishes: &mut Wishes, after: Duration) -> bool {
        let mut pause = std::pin::pin!(tokio::time::sleep(after));
        while !wishes.stop && !std::mem::take(&mut wishes.restart) {
            tokio::select! {
                () = &mut pause => return false,
                asked = ears.asked.recv() => { self.hear_running(asked, wishes, true); }
            }
        }
        wishes.stop
    }
}
