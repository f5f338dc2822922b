//! The machine's event loop: console, commands, and what processors report. It never blocks but in one wait for all of them.

use std::sync::mpsc::Receiver;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::Bus;
use crate::control::{Command, Ending, Event, Notice};
use crate::functions::Attached;
use crate::sync::lock;
use crate::sys::event::descriptor;
use crate::vcpu::Processors;

const WAKE: u64 = 0;
const CONSOLE: u64 = 1;
/// The first doorbell; the others follow in the order of functions and queues.
const DOORBELLS: u64 = 2;
/// The first function's input; beyond all doorbells.
const INPUTS: u64 = 1 << 32;

/// What the loop works on.
pub(crate) struct Inputs<'a> {
    pub(crate) bus: &'a Bus,
    pub(crate) functions: &'a [Attached],
    pub(crate) processors: &'a Processors,
    pub(crate) notices: &'a Receiver<Notice>,
    pub(crate) wake: &'a EventFd,
    pub(crate) paused: bool,
}

/// Serves the machine until it ends.
///
/// # Errors
/// When the kernel gives nothing to wait with.
pub(crate) fn run(inputs: &Inputs<'_>, on_event: &mut dyn FnMut(Event)) -> std::io::Result<Ending> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(descriptor(inputs.wake), EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
    // Edge-triggered: input without room waits until the guest has read, and output needs no wait when there is none.
    let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    match epoll.add(lock(&inputs.bus.serial).descriptor(), EpollEvent::new(edges, CONSOLE)) {
        // A regular file is always ready and is not waited for.
        Ok(()) | Err(Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    for (token, doorbell) in (DOORBELLS..).zip(inputs.functions.iter().flat_map(|attached| &attached.doorbells)) {
        // Edge-triggered: one that rings while the machine is paused waits for its end.
        epoll.add(descriptor(doorbell), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token))?;
    }
    for (number, attached) in (0..).zip(inputs.functions) {
        if let Some(input) = &attached.input {
            // Edge-triggered: what has no buffers of the guest waits for its doorbell.
            epoll.add(input, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, INPUTS + number))?;
        }
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

/// Serves the queue of the doorbell with this token.
fn serve(functions: &[Attached], token: u64) {
    if let Some(number) = token.checked_sub(INPUTS) {
        let attached = functions.get(usize::try_from(number).unwrap_or(usize::MAX));
        if let Some((attached, doorbell)) = attached.and_then(|attached| Some((attached, attached.doorbells.first()?)))
            && lock(&attached.function).serve(0)
        {
            drop(doorbell.write(1));
        }
        return;
    }
    let Some(mut at) = token.checked_sub(DOORBELLS).and_then(|at| usize::try_from(at).ok()) else {
        return;
    };
    for attached in functions {
        if let Some(doorbell) = attached.doorbells.get(at) {
            // Cleared before the queue is served: what comes later rings again.
            drop(doorbell.read());
            if lock(&attached.function).serve(at) {
                drop(doorbell.write(1));
            }
            return;
        }
        at -= attached.doorbells.len();
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
            Notice::Ended(ending) => return Some(ending),
            Notice::Command(Command::Kill) => return Some(Ending::Killed),
            Notice::Command(Command::Reset) => return Some(Ending::Reset { by_guest: false }),
            Notice::Command(Command::PowerButton) => lock(&self.inputs.bus.power).press(),
            Notice::Command(Command::Pause) if !self.paused => {
                self.inputs.processors.pause();
                self.paused = true;
                (self.on_event)(Event::Paused);
            }
            Notice::Command(Command::Resume) if self.paused => self.resume(),
            Notice::Command(Command::Pause | Command::Resume) => {}
        }
        None
    }

    fn resume(&mut self) {
        self.inputs.processors.resume();
        self.paused = false;
        // Doorbells that rang meanwhile were not served.
        let doorbells = self.inputs.functions.iter().flat_map(|attached| &attached.doorbells);
        doorbells.for_each(|doorbell| drop(doorbell.write(1)));
        (self.on_event)(Event::Running);
    }
}
