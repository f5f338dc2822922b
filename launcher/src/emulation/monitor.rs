//! A thread that executes commands over QEMU's monitor, so that no caller waits for it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use serde_json::Map;

use super::qmp;
use crate::engine::{Command, Done, EngineError};

/// Requests that may wait while QEMU executes one.
const MOST_WAITING: usize = 16;

/// The way to the thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Monitor(SyncSender<Request>);

/// Commands to be executed one after the other.
struct Request {
    commands: Vec<Command>,
    done: Done,
}

impl Monitor {
    /// Starts the thread.
    pub(super) fn start(client: qmp::Client) -> io::Result<Self> {
        let (sender, requests) = sync_channel(MOST_WAITING);
        crate::threads::spawn("monitor", move || execute_all(client, &requests))?;
        Ok(Self(sender))
    }

    /// Hands commands to the thread; `done` is called when they are executed, or at once when they cannot be.
    pub(super) fn execute(&self, commands: Vec<Command>, done: Done) {
        match self.0.try_send(Request { commands, done }) {
            Ok(()) => {}
            Err(TrySendError::Full(request)) => (request.done)(Err(EngineError::Busy(MOST_WAITING))),
            Err(TrySendError::Disconnected(request)) => (request.done)(Err(EngineError::Ended)),
        }
    }
}

fn execute_all(mut client: qmp::Client, requests: &Receiver<Request>) {
    while let Ok(Request { commands, done }) = requests.recv() {
        let result =
            commands.into_iter().filter_map(name_of).try_for_each(|name| client.execute(name, Map::new()).map(drop));
        let is_stuck = matches!(result, Err(EngineError::Silent { .. }));
        done(result);
        if is_stuck {
            // What was requested while QEMU was stuck is not executed later, when it may do harm.
            for request in requests.try_iter() {
                (request.done)(Err(EngineError::Busy(1)));
            }
        }
    }
}

/// The command in QEMU's words; the end by force is a signal.
fn name_of(command: Command) -> Option<&'static str> {
    match command {
        Command::Powerdown => Some("system_powerdown"),
        Command::Pause => Some("stop"),
        Command::Resume => Some("cont"),
        Command::Reset => Some("system_reset"),
        Command::Kill => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;

    // spec: RUN-6
    #[test]
    fn what_waits_for_a_monitor_that_does_not_answer_is_bounded() {
        let (ours, _silent) = UnixStream::pair().unwrap();
        let (_answer, answers) = mpsc::sync_channel(1);
        let monitor = Monitor::start(qmp::Client::new(ours, answers)).unwrap();
        let (done, results) = mpsc::channel();
        for _ in 0..MOST_WAITING + 2 {
            let done = done.clone();
            monitor.execute(vec![Command::Pause], Box::new(move |result| drop(done.send(result))));
        }
        // One is being executed, or waits as well.
        assert!(matches!(results.recv(), Ok(Err(EngineError::Busy(MOST_WAITING)))));
        assert!(results.try_iter().count() <= 1);
    }
}
