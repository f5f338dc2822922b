//! Engine `emulation`: QEMU with our taps and disks, translating instructions, or on KVM where the probe found it real.

mod command_line;
mod monitor;
mod pci;
mod process;
mod qemu_events;
mod qmp;

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use machine::Boot;
use nix::sys::signal::Signal;
use protocol::control::{Accelerator, EngineKind};
use serde_json::Map;

use command_line::{Descriptors, DiskDescriptors, LayerDescriptor, NicDescriptors};
use monitor::Monitor;
use process::{Handle, Process};
use qemu_events::QemuEvents;

use crate::confine::landlock::{self, Access};
use crate::counters::Account;
use crate::engine::{Command, Confine, Done, Engine, EngineError, Event, Events, Parts, Running};
use crate::sys::kvm_probe::NODE;
use block::Layer;

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// How long QEMU may take to flush its disks once it is told to end.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

/// QEMU as an engine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Emulation {
    /// What executes the guest's instructions.
    pub(crate) accelerator: Accelerator,
}

#[derive(Debug)]
struct Qemu {
    monitor: Monitor,
    handle: Handle,
    account: Option<Account>,
}

impl Engine for Emulation {
    fn kind(&self) -> EngineKind {
        EngineKind::Qemu(self.accelerator)
    }

    fn has_passthrough(&self) -> bool {
        false
    }

    fn has_agent_channel(&self) -> bool {
        true
    }

    fn start(
        &self,
        parts: Parts,
        events: Events,
        confine: &mut dyn FnMut(Confine),
    ) -> Result<Box<dyn Running>, EngineError> {
        let program = process::find(PROGRAM, PACKAGE)?;
        let system = |what| move |source| EngineError::System { what, source };
        let (ours, theirs) = UnixStream::pair().map_err(system("no socket pair for the monitor"))?;
        let reading = ours.try_clone().map_err(system("no second descriptor for the monitor"))?;
        let (start_paused, disks) = (parts.machine.start_paused, parts.machine.disks.iter());
        let names = disks.map(|disk| disk.name.clone()).collect();
        let nics = parts.machine.nics.iter().enumerate();
        let unplugged: Vec<_> = nics.filter(|(_, nic)| nic.link_down).map(|(index, _)| index).collect();
        let rules = rules(&program, self.accelerator, &parts.machine.boot);
        let (arguments, inherited) = inherit(self.accelerator, parts, theirs.into())?;
        tracing::debug!(?program, ?arguments, "starting QEMU");
        let process = Process::spawn(&program, &arguments, &inherited, rules)?;
        let account = process.account();
        confine(Confine::AllThreads);
        let process = Process::follow(process);
        // Only QEMU holds them from here on, so that its end is the end of each of them.
        drop(inherited);
        let handle = process.handle();
        let (answer, answers) = mpsc::sync_channel(qmp::MOST_ANSWERS);
        let (exit, exited) = mpsc::channel();
        let first = events.clone();
        let span = tracing::Span::current();
        let follow = move || watch(reading, process, &answer, &events, &exit, QemuEvents::of(names));
        thread::spawn(move || span.in_scope(follow));
        let mut monitor = qmp::Client::new(ours, answers);
        let negotiated = monitor.negotiate().and_then(|version| {
            tracing::info!(version, accelerator = ?self.accelerator, "QEMU is ready");
            // Before the first instruction, so that the guest never sees a carrier; no option of the command line does it.
            let mut unplugged = unplugged.into_iter().map(|nic| Command::SetLink { nic, up: false });
            unplugged.try_for_each(|command| monitor::execute(&mut monitor, command, &first))?;
            if start_paused { Ok(()) } else { monitor.execute("cont", Map::new()).map(drop) }
        });
        match negotiated {
            Ok(()) => {
                // QEMU tells of processors that come to stand, not of those that never ran.
                if start_paused {
                    first.send(Event::Paused);
                }
                let monitor = Monitor::start(monitor, first).map_err(system("no thread for the monitor"))?;
                Ok(Box::new(Qemu { monitor, handle, account }))
            }
            // Its last words say more than that it closed the monitor; one that still runs then is killed where it is followed.
            Err(EngineError::Ended) => {
                let last_words = exited.recv_timeout(FLUSH_PATIENCE.saturating_mul(2));
                Err(last_words.map_or(EngineError::Ended, EngineError::GaveUp))
            }
            Err(error) => {
                handle.signal(Signal::SIGKILL);
                drop(exited.recv_timeout(FLUSH_PATIENCE));
                Err(error)
            }
        }
    }
}

/// What QEMU may open: its own files, and what the guest boots from. Everything else it was handed open.
fn rules(program: &Path, accelerator: Accelerator, boot: &Boot) -> Option<OwnedFd> {
    let booted: Vec<&Path> = match boot {
        Boot::Kernel { kernel, initrd, .. } => {
            [Some(kernel), initrd.as_ref()].into_iter().flatten().map(|path| path.as_path()).collect()
        }
        Boot::Bios => Vec::new(),
    };
    let kvm = (accelerator == Accelerator::Kvm).then_some(Path::new(NODE));
    let access = Access {
        execute: landlock::programs(program),
        read: booted,
        devices: ["/dev/null", "/dev/urandom"].into_iter().map(Path::new).chain(kvm).collect(),
        may_signal: false,
        ..Access::default()
    };
    match landlock::ruleset(&access) {
        Ok(Some(ruleset)) => return Some(ruleset),
        Ok(None) => tracing::warn!(reason = "this kernel does not have it", "QEMU runs without Landlock"),
        Err(why) => tracing::warn!(reason = %why, "QEMU runs without Landlock"),
    }
    None
}

impl Running for Qemu {
    fn command(&mut self, commands: Vec<Command>, done: Done) {
        // By a signal, because the monitor may be stuck.
        if commands.contains(&Command::Kill) {
            self.kill();
            return done(Ok(()));
        }
        self.monitor.execute(commands, done);
    }

    fn take_account(&mut self) -> Option<Account> {
        self.account.take()
    }

    fn show(&mut self, client: OwnedFd, done: Done) {
        self.monitor.show(client, done);
    }
}

impl Qemu {
    /// SIGTERM flushes and ends a QEMU that still listens; what does not is killed.
    fn kill(&self) {
        if self.handle.signal(Signal::SIGTERM) {
            let handle = self.handle.clone();
            thread::spawn(move || {
                thread::sleep(FLUSH_PATIENCE);
                handle.signal(Signal::SIGKILL)
            });
        }
    }
}

/// Follows QEMU from its first event to its exit.
fn watch(
    monitor: UnixStream,
    process: Process,
    answers: &SyncSender<qmp::Message>,
    events: &Events,
    exit: &Sender<String>,
    mut qemu_events: QemuEvents,
) {
    qmp::read_all(monitor, answers, |name, data| {
        if let Some(event) = qemu_events.on(name, data) {
            events.send(event);
        }
    });
    let handle = process.handle();
    // QEMU ends soon after it has closed the monitor; one that closed it and still runs is killed.
    thread::spawn(move || {
        thread::sleep(FLUSH_PATIENCE);
        handle.signal(Signal::SIGKILL)
    });
    let end = process.wait();
    // It has no receiver once the machine has started.
    drop(exit.send(end.describe()));
    events.send(Event::Ended(qemu_events.ending(&end)));
}

/// Parses a monitor's bytes for a machine with these disks: the events for the launcher, and how many answers wait to be
/// read. A guest may have taken over QEMU, so a fuzzer feeds this function without a QEMU.
#[must_use]
pub fn heard(monitor: impl Read, disks: Vec<String>) -> (Vec<Event>, usize) {
    let (answer, answers) = mpsc::sync_channel(qmp::MOST_ANSWERS);
    let mut qemu_events = QemuEvents::of(disks);
    let mut events = Vec::new();
    qmp::read_all(monitor, &answer, |name, data| events.extend(qemu_events.on(name, data)));
    (events, answers.try_iter().count())
}

/// Turns parts into arguments and the descriptors that they name.
fn inherit(
    accelerator: Accelerator,
    parts: Parts,
    monitor: OwnedFd,
) -> Result<(Vec<String>, Vec<OwnedFd>), EngineError> {
    // QEMU inherits each descriptor under the number it has here, which the arguments name.
    let mut inherited = Vec::new();
    let mut give = |descriptor: OwnedFd| {
        let number = descriptor.as_raw_fd();
        inherited.push(descriptor);
        number
    };
    let layer = |layer: Layer, give: &mut dyn FnMut(OwnedFd) -> i32| LayerDescriptor {
        format: layer.format,
        read_only: layer.read_only,
        is_device: layer.is_device,
        direct: layer.direct,
        fd: give(layer.file.into()),
    };
    let nics = parts.nics.into_iter().map(|nic| NicDescriptors {
        mac: nic.mac,
        mtu: nic.mtu,
        queues: nic.queues.into_iter().map(&mut give).collect(),
        vhost: nic.vhost.into_iter().map(&mut give).collect(),
    });
    let nics = nics.collect();
    let disks = parts.disks.into_iter().map(|disk| DiskDescriptors {
        top: layer(disk.top, &mut give),
        base: disk.base.map(|base| layer(base, &mut give)),
    });
    let disks = disks.collect();
    let (console, agent) = (give(parts.console), parts.agent.map(&mut give));
    let descriptors = Descriptors { monitor: give(monitor), console, agent, nics, disks };
    let arguments = command_line::arguments(&parts.machine, accelerator, &descriptors)?;
    Ok((arguments, inherited))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    // spec: RUN-6
    #[test]
    fn a_monitor_that_does_not_answer_delays_no_kill() {
        let (ours, _silent) = UnixStream::pair().unwrap();
        let (_answer, answers) = mpsc::sync_channel(qmp::MOST_ANSWERS);
        let process = Process::follow(Process::spawn(Path::new("/bin/sleep"), &["60".into()], &[], None).unwrap());
        let monitor = Monitor::start(qmp::Client::new(ours, answers), Events::new(|_| ())).unwrap();
        let mut qemu = Qemu { monitor, handle: process.handle(), account: None };
        let (done, finished) = mpsc::channel();
        let done = move || {
            let done = done.clone();
            Box::new(move |result| drop(done.send(result)))
        };
        qemu.command(vec![Command::Pause], done());
        qemu.command(vec![Command::Kill], done());
        assert!(matches!(finished.recv(), Ok(Ok(()))), "the kill waited for the pause");
        assert_eq!(process.wait().describe(), "QEMU was killed by signal 15");
    }
}
