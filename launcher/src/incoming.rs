//! In the place of a machine while its guest runs in another launcher: the network is attached, no disk is open, nothing runs.

use std::os::fd::OwnedFd;

use super::engine::{Command, Done, Ending, EngineError, Event, Events, Running};

/// A machine whose guest is to come.
pub(crate) struct Incoming {
    events: Events,
    /// The console stays open, and silent.
    _console: OwnedFd,
}

impl Incoming {
    pub(crate) fn new(events: Events, console: OwnedFd) -> Self {
        Self { events, _console: console }
    }
}

impl Running for Incoming {
    /// There is nothing to save: an order to end is obeyed at once, and every other is for the guest.
    fn command(&mut self, commands: Vec<Command>, done: Done) {
        let ends = |command: &Command| matches!(command, Command::Powerdown | Command::Kill);
        if commands.iter().any(ends) {
            self.events.send(Event::Ended(Ending::PoweredOff));
            return done(Ok(()));
        }
        done(Err(EngineError::Unsupported("the guest runs in another launcher".to_owned())));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    // spec: MIG-5
    #[test]
    fn a_launcher_that_waits_for_a_guest_ends_at_once_and_refuses_all_else() {
        let (event, received) = mpsc::channel();
        let events = Events::new(move |happened| drop(event.send(happened)));
        let (console, _guest) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut machine = Incoming::new(events, console.into());
        let (answer, answers) = mpsc::channel();
        for commands in [vec![Command::Resume], vec![Command::Resume, Command::Powerdown]] {
            let answer = answer.clone();
            machine.command(
                commands,
                Box::new(move |result| answer.send(result.map_err(|error| error.to_string())).unwrap()),
            );
        }
        let answers: Vec<_> = answers.try_iter().collect();
        assert_eq!(answers, [Err("the guest runs in another launcher".to_owned()), Ok(())]);
        assert_eq!(received.try_iter().collect::<Vec<_>>(), [Event::Ended(Ending::PoweredOff)]);
    }
}
