//! A thread that executes commands over QEMU's monitor, so that no caller waits for it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use serde_json::{Map, Value};

use super::command_line::nic_id;
use super::qmp;
use crate::engine::{Command, Done, EngineError, Event, Events};

/// Requests that may wait while QEMU executes one.
const MOST_WAITING: usize = 16;

/// The way to the thread. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Monitor(SyncSender<Request>);

/// Something for QEMU to do.
struct Request {
    order: Order,
    done: Done,
}

enum Order {
    /// To be executed one after the other.
    Commands(Vec<Command>),
    /// A client of VNC, to be handed to QEMU.
    Show(OwnedFd),
}

impl Monitor {
    /// Starts the thread that executes commands one after the other. What QEMU does not tell of itself goes to `events`.
    pub(super) fn start(client: qmp::Client, events: Events) -> io::Result<Self> {
        let (sender, requests) = sync_channel(MOST_WAITING);
        crate::threads::spawn("monitor", move || execute_all(client, &requests, &events))?;
        Ok(Self(sender))
    }

    /// Hands commands to the thread; `done` is called when they are executed, or at once when they cannot be.
    pub(super) fn execute(&self, commands: Vec<Command>, done: Done) {
        self.send(Request { order: Order::Commands(commands), done });
    }

    /// Hands a client of VNC to the thread, which hands it to QEMU.
    pub(super) fn show(&self, client: OwnedFd, done: Done) {
        self.send(Request { order: Order::Show(client), done });
    }

    fn send(&self, request: Request) {
        match self.0.try_send(request) {
            Ok(()) => {}
            Err(TrySendError::Full(request)) => (request.done)(Err(EngineError::Busy(MOST_WAITING))),
            Err(TrySendError::Disconnected(request)) => (request.done)(Err(EngineError::Ended)),
        }
    }
}

fn execute_all(mut client: qmp::Client, requests: &Receiver<Request>, events: &Events) {
    while let Ok(Request { order, done }) = requests.recv() {
        let result = match order {
            Order::Commands(commands) => {
                commands.into_iter().try_for_each(|command| execute(&mut client, command, events))
            }
            Order::Show(viewer) => show(&mut client, viewer),
        };
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

/// Executes one command; the end by force is a signal.
pub(super) fn execute(client: &mut qmp::Client, command: Command, events: &Events) -> Result<(), EngineError> {
    if let Some((name, arguments)) = name_of(command) {
        client.execute(name, arguments)?;
    }
    if let Some(link) = Event::of_link(&command) {
        events.send(link);
    }
    Ok(())
}

/// Gives QEMU a client's connection as a file descriptor: QEMU itself listens nowhere.
fn show(client: &mut qmp::Client, viewer: OwnedFd) -> Result<(), EngineError> {
    const NAME: &str = "viewer";
    client.execute_with("getfd", Map::from_iter([("fdname".to_owned(), NAME.into())]), Some(viewer))?;
    let arguments = [("protocol", "vnc".into()), ("fdname", NAME.into()), ("skipauth", true.into())];
    let arguments = arguments.into_iter().map(|(key, value): (&str, Value)| (key.to_owned(), value)).collect();
    client.execute("add_client", arguments).map(drop)
}

/// The command in QEMU's words.
fn name_of(command: Command) -> Option<(&'static str, Map<String, Value>)> {
    let at_shutdown = |action: &str| ("set-action", Map::from_iter([("shutdown".to_owned(), action.into())]));
    match command {
        Command::Powerdown => Some(("system_powerdown", Map::new())),
        Command::Pause => Some(("stop", Map::new())),
        Command::Resume => Some(("cont", Map::new())),
        Command::Reset => Some(("system_reset", Map::new())),
        Command::KeepAtShutdown => Some(at_shutdown("pause")),
        Command::EndAtShutdown => Some(at_shutdown("poweroff")),
        Command::SetLink { nic, up } => {
            Some(("set_link", Map::from_iter([("name".to_owned(), nic_id(nic).into()), ("up".to_owned(), up.into())])))
        }
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
        let monitor = Monitor::start(qmp::Client::new(ours, answers), Events::new(|_| ())).unwrap();
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
