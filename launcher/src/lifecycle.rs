//! The launcher's decisions: a state machine over engine events and user requests, without clock or engine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::control::State;

use super::engine::{Command, Ending, Event};
use protocol::outcome::{Outcome, Verdict};

/// How often the power button is pressed: a guest that boots does not hear the first.
const PRESS_INTERVAL: Duration = Duration::from_secs(5);

/// A user request for the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VmAction {
    /// One press of the power button.
    Powerdown,
    /// Press the power button; end the machine by force after this time.
    Stop { grace: Duration },
    /// Stop the processors until [`VmAction::Resume`].
    Pause,
    /// Let the processors run again.
    Resume,
    /// Reset the machine at once, without asking the guest.
    Reset,
    /// Press the power button, and reset the machine once the guest has shut down.
    Reboot,
    /// Give a link a carrier or take it.
    SetLink { nic: usize, up: bool },
}

#[derive(Debug)]
pub(crate) struct Lifecycle {
    state: State,
    stop: Option<Stop>,
    /// The guest's next shutdown is followed by a reset.
    reboots: bool,
    /// It has shut down, and is about to be reset.
    is_down: bool,
    resets: u64,
    watchdog_fired: u64,
    /// Links that were changed, by their NIC's place, and whether each has a carrier.
    links: BTreeMap<usize, bool>,
}

#[derive(Debug, Clone, Copy)]
struct Stop {
    kill_at: Option<Instant>,
    press_at: Instant,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        let (state, stop, links) = (State::Starting, None, BTreeMap::new());
        Self { state, stop, reboots: false, is_down: false, resets: 0, watchdog_fired: 0, links }
    }

    pub(crate) fn state(&self) -> State {
        if self.stop.is_some() { State::Stopping } else { self.state }
    }

    /// How often the machine was reset.
    pub(crate) fn resets(&self) -> u64 {
        self.resets
    }

    /// How often the watchdog acted.
    pub(crate) fn watchdog_fired(&self) -> u64 {
        self.watchdog_fired
    }

    /// Whether a link that was changed has a carrier.
    pub(crate) fn link(&self, nic: usize) -> Option<bool> {
        self.links.get(&nic).copied()
    }

    /// Takes an event; the outcome comes with the last.
    pub(crate) fn on_event(&mut self, event: &Event) -> Option<Outcome> {
        match event {
            Event::Running => (self.state, self.is_down) = (State::Running, false),
            Event::ShutDown => self.is_down = self.reboots,
            // Halted at its shutdown, and reset at once.
            Event::Paused if self.is_down => {}
            Event::Paused | Event::DiskFailed { paused: true, .. } => self.state = State::Paused,
            Event::Reset { .. } => self.resets += 1,
            Event::Watchdog(_) => self.watchdog_fired += 1,
            Event::Link { nic, up } => drop(self.links.insert(*nic, *up)),
            Event::DiskFailed { paused: false, .. } | Event::AgentPort { .. } => {}
            Event::Ended(ending) => return Some(outcome_of(ending.clone(), self.stop.is_some())),
        }
        None
    }

    /// Commands for the engine that follow an event.
    pub(crate) fn after_event(&mut self, event: &Event) -> Vec<Command> {
        match event {
            Event::ShutDown if self.reboots => vec![Command::EndAtShutdown, Command::Reset, Command::Resume],
            Event::Reset { by_guest: false } => {
                self.reboots = false;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Commands for the engine that carry an action out.
    ///
    /// # Errors
    /// Why it is not possible in this state.
    pub(crate) fn on_action(&mut self, now: Instant, action: VmAction) -> Result<Vec<Command>, &'static str> {
        match (action, self.state) {
            (VmAction::Powerdown, State::Paused) => Err("the machine is paused: resume it first"),
            (VmAction::Powerdown, _) => Ok(vec![Command::Powerdown]),
            (VmAction::Reboot, _) => {
                self.check_reboot()?;
                self.reboots = true;
                Ok(vec![Command::KeepAtShutdown, Command::Powerdown])
            }
            (VmAction::Stop { grace }, _) => Ok(self.stop(now, grace)),
            (VmAction::SetLink { nic, up }, _) => Ok(vec![Command::SetLink { nic, up }]),
            (VmAction::Pause | VmAction::Resume, _) if self.stop.is_some() => Err("the machine is being stopped"),
            (VmAction::Pause, State::Running) => Ok(vec![Command::Pause]),
            (VmAction::Pause, State::Paused) => Err("the machine is paused already"),
            (VmAction::Resume, State::Running) => Err("the machine is not paused"),
            // A machine that starts paused is resumed out of `Starting`.
            (VmAction::Resume, State::Paused | State::Starting) => Ok(vec![Command::Resume]),
            (VmAction::Reset, _) => Ok(self.forget_reboot().chain([Command::Reset]).collect()),
            (VmAction::Pause, State::Starting | State::Stopping) | (VmAction::Resume, State::Stopping) => {
                Err("the machine is not running yet")
            }
        }
    }

    /// Whether the guest can be asked to reboot.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_reboot(&self) -> Result<(), &'static str> {
        match self.state {
            _ if self.stop.is_some() => Err("the machine is being stopped"),
            State::Running => Ok(()),
            State::Paused => Err("the machine is paused: resume it first"),
            State::Starting | State::Stopping => Err("the machine is not running yet"),
        }
    }

    /// When to call [`Self::on_deadline`]; `None` while nothing waits for the time.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let stop = self.stop?;
        stop.kill_at.map(|kill_at| kill_at.min(stop.press_at))
    }

    /// What time alone asks for.
    pub(crate) fn on_deadline(&mut self, now: Instant) -> Option<Command> {
        let stop = self.stop.as_mut()?;
        if stop.kill_at? <= now {
            stop.kill_at = None;
            return Some(Command::Kill);
        }
        if stop.press_at <= now {
            stop.press_at = now + PRESS_INTERVAL;
            return Some(Command::Powerdown);
        }
        None
    }

    /// What makes the guest's next shutdown the end again, if it is not.
    fn forget_reboot(&mut self) -> impl Iterator<Item = Command> + use<> {
        std::mem::take(&mut self.reboots).then_some(Command::EndAtShutdown).into_iter()
    }

    /// The second request ends the grace period: a user who repeats it does not want to wait.
    fn stop(&mut self, now: Instant, grace: Duration) -> Vec<Command> {
        let is_repeated = self.stop.is_some();
        let is_over = is_repeated || grace.is_zero();
        let kill_at = (!is_over).then(|| now + grace);
        self.stop = Some(Stop { kill_at, press_at: now + PRESS_INTERVAL });
        let commands = match (is_over, self.state) {
            (true, _) => return vec![Command::Kill],
            // Processors that stand never see the button.
            (false, State::Paused | State::Starting) => vec![Command::Resume, Command::Powerdown],
            (false, _) => vec![Command::Powerdown],
        };
        self.forget_reboot().chain(commands).collect()
    }
}

/// What an engine's ending means, when `requested` says whether anybody wanted it.
fn outcome_of(ending: Ending, requested: bool) -> Outcome {
    let (outcome, reason) = match ending {
        Ending::PoweredOff if requested => (Verdict::PoweredOff, "the guest powered off when asked to".to_owned()),
        Ending::PoweredOff => (Verdict::PoweredOff, "the guest powered itself off".to_owned()),
        Ending::Rebooted => (Verdict::PoweredOff, "the guest rebooted, which its policy makes the end".to_owned()),
        Ending::Crashed { reason } => (Verdict::Crashed, reason),
        Ending::Watchdog => (Verdict::Watchdog, "the guest stopped feeding its watchdog".to_owned()),
        Ending::Killed if requested => {
            (Verdict::Killed, "ended by force: the guest had not powered off within the grace period".to_owned())
        }
        Ending::Killed => (Verdict::Killed, "the engine was ended by a signal from outside".to_owned()),
        Ending::Failed { reason } => (Verdict::Failed, reason),
    };
    Outcome { outcome, reason, requested }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "a test's epoch")]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn running() -> Lifecycle {
        let mut lifecycle = Lifecycle::new();
        lifecycle.on_event(&Event::Running);
        lifecycle
    }

    #[test]
    fn a_stop_presses_the_button_again_and_again_and_then_kills_once() {
        let (mut lifecycle, start) = (running(), epoch());
        let action = VmAction::Stop { grace: 12 * SECOND };
        assert_eq!(lifecycle.on_action(start, action), Ok(vec![Command::Powerdown]));
        assert_eq!(lifecycle.state(), State::Stopping);
        let mut seen = Vec::new();
        while let Some(at) = lifecycle.next_deadline() {
            seen.push(((at - start).as_secs(), lifecycle.on_deadline(at).unwrap()));
        }
        assert_eq!(seen, [(5, Command::Powerdown), (10, Command::Powerdown), (12, Command::Kill)]);
        let outcome = lifecycle.on_event(&Event::Ended(Ending::Killed)).unwrap();
        assert_eq!((outcome.outcome, outcome.requested), (Verdict::Killed, true));
    }

    #[test]
    fn no_grace_or_a_second_request_kills_at_once() {
        let now = epoch();
        assert_eq!(running().on_action(now, VmAction::Stop { grace: Duration::ZERO }), Ok(vec![Command::Kill]));
        let mut lifecycle = running();
        lifecycle.on_action(now, VmAction::Stop { grace: SECOND }).unwrap();
        assert_eq!(lifecycle.on_action(now, VmAction::Stop { grace: 60 * SECOND }), Ok(vec![Command::Kill]));
        assert_eq!(lifecycle.next_deadline(), None);
    }

    #[test]
    fn a_paused_machine_is_resumed_to_hear_the_button() {
        let mut lifecycle = running();
        lifecycle.on_event(&Event::Paused);
        let action = VmAction::Stop { grace: SECOND };
        assert_eq!(lifecycle.on_action(epoch(), action), Ok(vec![Command::Resume, Command::Powerdown]));
    }

    #[test]
    fn actions_that_are_not_possible_are_refused() {
        let now = epoch();
        assert!(running().on_action(now, VmAction::Resume).is_err());
        assert!(Lifecycle::new().on_action(now, VmAction::Pause).is_err());
        let mut lifecycle = running();
        lifecycle.on_event(&Event::Paused);
        assert!(lifecycle.on_action(now, VmAction::Pause).is_err());
        assert!(lifecycle.on_action(now, VmAction::Powerdown).is_err());
        assert_eq!(lifecycle.on_action(now, VmAction::Resume), Ok(vec![Command::Resume]));
    }

    // spec: LAUNCH-10
    #[test]
    fn a_reboot_keeps_the_machine_at_its_guests_shutdown_and_resets_it() {
        let mut lifecycle = running();
        let pressed = lifecycle.on_action(epoch(), VmAction::Reboot);
        assert_eq!(pressed, Ok(vec![Command::KeepAtShutdown, Command::Powerdown]));
        lifecycle.on_event(&Event::ShutDown);
        assert_eq!(lifecycle.after_event(&Event::ShutDown), [Command::EndAtShutdown, Command::Reset, Command::Resume]);
        for event in [Event::Paused, Event::Reset { by_guest: false }, Event::Running] {
            assert_eq!((lifecycle.on_event(&event), lifecycle.state()), (None, State::Running), "{event:?}");
            assert_eq!(lifecycle.after_event(&event), []);
        }
        assert_eq!(lifecycle.resets(), 1);
        assert_eq!(lifecycle.after_event(&Event::ShutDown), [], "the next shutdown is the end");
        lifecycle.on_event(&Event::Paused);
        assert!(lifecycle.on_action(epoch(), VmAction::Reboot).is_err());
    }

    // spec: LAUNCH-10
    #[test]
    fn a_stop_overrides_a_reboot_that_the_guest_ignores() {
        let mut lifecycle = running();
        lifecycle.on_action(epoch(), VmAction::Reboot).unwrap();
        let action = VmAction::Stop { grace: SECOND };
        assert_eq!(lifecycle.on_action(epoch(), action), Ok(vec![Command::EndAtShutdown, Command::Powerdown]));
        assert_eq!(lifecycle.after_event(&Event::ShutDown), []);
        assert!(lifecycle.on_action(epoch(), VmAction::Reboot).is_err());
        let mut lifecycle = running();
        lifecycle.on_action(epoch(), VmAction::Reboot).unwrap();
        let reset = lifecycle.on_action(epoch(), VmAction::Reset);
        assert_eq!(reset, Ok(vec![Command::EndAtShutdown, Command::Reset]));
    }

    // spec: LAUNCH-12
    #[test]
    fn a_link_is_as_it_was_changed_last() {
        let mut lifecycle = running();
        assert_eq!(lifecycle.link(1), None);
        let action = VmAction::SetLink { nic: 1, up: false };
        assert_eq!(lifecycle.on_action(epoch(), action), Ok(vec![Command::SetLink { nic: 1, up: false }]));
        assert_eq!(lifecycle.link(1), None, "the engine has not done it yet");
        for up in [false, true] {
            lifecycle.on_event(&Event::Link { nic: 1, up });
            assert_eq!((lifecycle.link(0), lifecycle.link(1)), (None, Some(up)));
        }
    }

    #[test]
    fn a_guest_that_goes_of_itself_is_powered_off_without_request() {
        let mut lifecycle = running();
        lifecycle.on_event(&Event::Reset { by_guest: true });
        let outcome = lifecycle.on_event(&Event::Ended(Ending::PoweredOff)).unwrap();
        assert_eq!((outcome.outcome, outcome.requested, lifecycle.resets()), (Verdict::PoweredOff, false, 1));
    }
}
