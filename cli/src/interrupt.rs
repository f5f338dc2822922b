//! Signals. Ctrl-C and SIGTERM while VMs are in this command's hands: stop them, and the second time without grace. A
//! terminal that closes does the same until they run; from then on it leaves them, as Ctrl-] does.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{SigSet, Signal};

use super::failure::Exit;
use super::supervisor::Sender;
use super::terminal;
use runner::protocol::Request;

/// Catches interrupts from its making on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupts(Arc<Mutex<State>>);

/// One lock for all fields: an interrupt is passed on to a supervisor, or is seen when the supervisor is added.
#[derive(Debug, Default)]
struct State {
    count: usize,
    senders: Vec<Sender>,
    what: What,
    all_run: bool,
}

/// What becomes of a VM whose start is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum What {
    /// This command made it: it goes.
    #[default]
    New,
    /// It was there before: it stays, and does not run.
    Known,
}

impl Interrupts {
    /// Begins to catch. Must come before other threads are started: they inherit what is caught.
    ///
    /// # Errors
    /// When signals cannot be caught.
    pub(crate) fn catch(what: What) -> io::Result<Self> {
        let caught = caught();
        caught.thread_block()?;
        let interrupts = Self(Arc::new(Mutex::new(State { what, ..State::default() })));
        let state = Arc::clone(&interrupts.0);
        std::thread::Builder::new().name("interrupts".to_owned()).spawn(move || {
            while let Ok(signal) = caught.wait() {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                if signal == Signal::SIGHUP && state.may_leave() {
                    state.leave();
                    terminal::restore();
                    std::process::exit(0);
                }
                state.pass_on();
            }
        })?;
        Ok(interrupts)
    }

    /// From now on a closed terminal leaves the VMs as they are.
    pub(crate) fn all_run(&self) {
        self.state().all_run = true;
    }

    /// Whether there was an interrupt.
    pub(crate) fn seen(&self) -> bool {
        self.state().count > 0
    }

    /// Passes interrupts on to this supervisor as well; at once, if one came before.
    pub(crate) fn pass_to(&self, mut sender: Sender) {
        let mut state = self.state();
        if state.count > 0 {
            tell(&mut sender, state.stop());
        }
        state.senders.push(sender);
    }

    /// Stops passing interrupts on: the VMs no longer belong to this command. Returns whether an interrupt was passed on before.
    #[must_use]
    pub(crate) fn let_go(&self) -> bool {
        let mut state = self.state();
        state.senders.clear();
        state.count > 0
    }

    /// Does as an interrupt does: everything that this command started is removed.
    pub(crate) fn cancel(&self) {
        let mut state = self.state();
        let stop = Request::Stop { grace_seconds: Some(0), remove: state.what == What::New };
        state.senders.iter_mut().for_each(|sender| tell(sender, stop));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pass_on(&mut self) {
        self.count += 1;
        let stop = self.stop();
        self.senders.iter_mut().for_each(|sender| tell(sender, stop));
    }

    fn stop(&self) -> Request {
        Request::Stop { grace_seconds: (self.count > 1).then_some(0), remove: self.what == What::New }
    }

    /// Who has begun to stop them stays to see the end.
    fn may_leave(&self) -> bool {
        self.all_run && self.count == 0
    }

    fn leave(&mut self) {
        self.senders.iter_mut().for_each(|sender| tell(sender, Request::Keep));
    }
}

fn tell(sender: &mut Sender, request: Request) {
    if let Err(failure) = sender.send(request) {
        // A supervisor that has just ended need not be told.
        tracing::debug!("{}", failure.messages.join("; "));
    }
}

/// A closed terminal is left ignored where `nohup` has it so: a signal that is waited for would be heard all the same.
fn caught() -> SigSet {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hangs_up = (!is_ignored(&status, Signal::SIGHUP)).then_some(Signal::SIGHUP);
    [Signal::SIGINT, Signal::SIGTERM].into_iter().chain(hangs_up).collect()
}

/// Whether a process with this `/proc/PID/status` ignores a signal (proc(5), `SigIgn`).
fn is_ignored(status: &str, signal: Signal) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal as u32 - 1) & 1 == 1
}

/// For a command that holds nothing but the terminal: a signal puts that back and ends the command. Must come before
/// other threads are started.
///
/// # Errors
/// When signals cannot be caught.
pub(crate) fn end_on_signal() -> io::Result<()> {
    let caught = caught();
    caught.thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if caught.wait().is_ok() {
            terminal::restore();
            std::process::exit(Exit::Interrupted as i32);
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::names;
    use crate::supervisor::Line;
    use terms::ObjectKey;

    fn key(name: &str) -> ObjectKey {
        names::vm(name).unwrap()
    }

    fn state(what: What) -> (State, impl FnMut() -> Request) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sender = Line::with(key("web"), ours).sender().unwrap();
        let mut lines = BufReader::new(theirs).lines();
        let next = move || serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        (State { senders: vec![sender], what, ..State::default() }, next)
    }

    // spec: CLI-15
    #[test]
    fn an_interrupt_removes_new_vms_and_only_stops_those_that_existed() {
        for (what, remove) in [(What::New, true), (What::Known, false)] {
            let (mut state, mut next) = state(what);
            state.pass_on();
            state.pass_on();
            assert_eq!(next(), Request::Stop { grace_seconds: None, remove });
            assert_eq!(next(), Request::Stop { grace_seconds: Some(0), remove });
        }
    }

    #[test]
    fn a_signal_that_nohup_has_ignored_is_known() {
        let status = "Name:\ttapvisor\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\n";
        assert!(is_ignored(status, Signal::SIGHUP) && is_ignored(status, Signal::SIGPIPE));
        assert!(!is_ignored(status, Signal::SIGINT) && !is_ignored("", Signal::SIGHUP));
    }

    // spec: CLI-15
    #[test]
    fn a_closed_terminal_leaves_vms_that_run_and_are_not_being_stopped() {
        let (mut state, mut next) = state(What::New);
        assert!(!state.may_leave(), "not all of them run");
        state.all_run = true;
        assert!(state.may_leave());
        state.leave();
        assert_eq!(next(), Request::Keep);
        state.pass_on();
        assert!(!state.may_leave());
    }
}
