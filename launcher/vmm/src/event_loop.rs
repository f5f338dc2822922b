//! The machine's event loop: console, commands, and what processors report. It never blocks but in one wait for all of them.

use std::sync::mpsc::Receiver;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::Bus;
use crate::control::{Command, Ending, Event, Notice, Saved, Snapshot};
use crate::functions::{Attached, Source};
use crate::sync::lock;
use crate::sys::event::descriptor;
use crate::vcpu::Processors;
use crate::virtio::Change;

const WAKE: u64 = 0;
const CONSOLE: u64 = 1;

/// What the loop works on.
pub(crate) struct Inputs<'a> {
    /// Doorbells and inputs of the functions are in it already.
    pub(crate) epoll: &'a Epoll,
    pub(crate) bus: &'a Bus,
    pub(crate) functions: &'a [Attached],
    pub(crate) processors: &'a Processors,
    pub(crate) notices: &'a Receiver<Notice>,
    pub(crate) wake: &'a EventFd,
    pub(crate) paused: bool,
    /// Writes the state of the paused machine.
    pub(crate) save: &'a dyn Fn(&Snapshot) -> Result<(), String>,
}

/// Serves the machine until it ends.
///
/// # Errors
/// When the kernel cannot wait.
pub(crate) fn run(inputs: &Inputs<'_>, on_event: &mut dyn FnMut(Event)) -> std::io::Result<Ending> {
    let epoll = inputs.epoll;
    epoll.add(descriptor(inputs.wake), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
    // Edge-triggered: input without room waits until the guest has read, and output needs no wait when there is none.
    let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    match epoll.add(lock(&inputs.bus.serial).descriptor(), EpollEvent::new(edges, CONSOLE)) {
        // A regular file is always ready and is not waited for.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    let mut state = State { inputs, on_event, paused: true };
    if inputs.paused {
        (state.on_event)(Event::Paused);
    } else {
        state.resume();
    }
    let mut events = [EpollEvent::empty(); 8];
    loop {
        let ready = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let woken = events.iter().take(ready).any(|event| event.data() == WAKE);
        if woken {
            // Only to clear it: what there is to do is in the channel, and input may have room now.
            drop(inputs.wake.read());
        }
        lock(&inputs.bus.serial).serve();
        if !state.paused {
            events.iter().take(ready).for_each(|event| serve(inputs.functions, event.data()));
        }
        while let Ok(notice) = inputs.notices.try_recv() {
            if let Some(ending) = state.on_notice(notice) {
                return Ok(ending);
            }
        }
    }
}

/// Serves the queue that the token of a doorbell or an input means.
fn serve(functions: &[Attached], token: u64) {
    let Some(Source { function, queue, rang }) = Source::of(token) else { return };
    let Some(attached) = functions.get(function) else { return };
    let Some(doorbell) = attached.doorbells.get(queue) else { return };
    if rang {
        // Cleared before the queue is served: what comes later rings again.
        drop(doorbell.read());
    }
    if lock(&attached.function).serve(queue) {
        drop(doorbell.write(1));
    }
}

struct State<'a> {
    inputs: &'a Inputs<'a>,
    on_event: &'a mut dyn FnMut(Event),
    paused: bool,
}

impl State<'_> {
    fn on_notice(&mut self, notice: Notice) -> Option<Ending> {
        match notice {
            Notice::Ended(ending) => Some(ending),
            Notice::Save(snapshot, Saved(done)) => {
                let not_paused = || Err("the machine runs: it is saved while it is paused".to_owned());
                done(if self.paused { (self.inputs.save)(&snapshot) } else { not_paused() });
                None
            }
            Notice::Command(command, done) => {
                let ending = self.on_command(command);
                if let Some(done) = done {
                    done.report();
                }
                ending
            }
        }
    }

    fn on_command(&mut self, command: Command) -> Option<Ending> {
        match command {
            Command::Kill => return Some(Ending::Killed),
            Command::Reset => return Some(Ending::Reset { by_guest: false }),
            Command::PowerButton => lock(&self.inputs.bus.power).press(),
            Command::Pause if !self.paused => {
                self.inputs.processors.pause();
                self.inputs.functions.iter().for_each(|attached| lock(&attached.function).pause());
                self.paused = true;
                (self.on_event)(Event::Paused);
            }
            Command::Resume if self.paused => self.resume(),
            Command::Pause | Command::Resume => {}
            Command::Link { nic, up } => {
                if let Some(attached) = self.inputs.functions.get(nic) {
                    lock(&attached.function).on_change(Change::Link { up });
                }
            }
            Command::Balloon { bytes } => {
                let functions = self.inputs.functions.iter();
                functions.for_each(|attached| lock(&attached.function).on_change(Change::Balloon { bytes }));
            }
        }
        None
    }

    fn resume(&mut self) {
        self.inputs.functions.iter().for_each(|attached| lock(&attached.function).resume());
        self.inputs.processors.resume();
        self.paused = false;
        // Doorbells that rang meanwhile were not served.
        let doorbells = self.inputs.functions.iter().flat_map(|attached| &attached.doorbells);
        doorbells.for_each(|doorbell| drop(doorbell.write(1)));
        (self.on_event)(Event::Running);
    }
}
