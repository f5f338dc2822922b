//! Engine `kvm`: our own machine, in this process, with our taps.
//!
//! One thread has the machine's event loop and each processor has one; they are made before the launcher confines itself.
//! They may open nothing, as the rest of the process.

mod lacks;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use machine::{Boot, Machine, RebootPolicy};
use protocol::chain::chain;
use protocol::control::EngineKind;
use protocol::counters::{DataPath, QueuePairCounters, TrafficCounters};
use vmm::{Controller, Identity, Kernel, Nic, NicReport, QueueCounts, Resets, Vm, VmmError};

pub(crate) use lacks::lacks;

use crate::confine::landlock::{self, Access};
use crate::counters::QueueReader;
use crate::engine::{Command, Confine, Done, Ending, Engine, EngineError, Event, Events, OpenNic, Parts, Running};

/// Our machine.
#[derive(Debug)]
pub(crate) struct OwnMachine<'a> {
    /// An open /dev/kvm, if there is one.
    pub(crate) kvm: Option<&'a OwnedFd>,
}

/// One that runs.
#[derive(Debug)]
struct Started {
    controller: Controller,
    events: Events,
    /// Of each NIC, until they are taken.
    reports: Vec<Arc<NicReport>>,
}

impl Engine for OwnMachine<'_> {
    fn kind(&self) -> EngineKind {
        EngineKind::Kvm
    }

    fn has_passthrough(&self) -> bool {
        false
    }

    fn has_agent_channel(&self) -> bool {
        false
    }

    fn start(
        &self,
        parts: Parts,
        events: Events,
        confine: &mut dyn FnMut(Confine),
    ) -> Result<Box<dyn Running>, EngineError> {
        let system = |what| move |source| EngineError::System { what, source };
        let paused = parts.machine.start_paused;
        let none = || EngineError::Unsupported("engine kvm: there is no /dev/kvm".to_owned());
        let kvm = self.kvm.ok_or_else(none)?.try_clone().map_err(system("no second descriptor for /dev/kvm"))?;
        let parts = vmm_parts(kvm, parts)?;
        let reports = parts.nics.iter().map(|nic| Arc::clone(&nic.report)).collect();
        let vm = Vm::new(parts).map_err(refused)?;
        let controller = vm.controller();
        let (tell, ready) = std::sync::mpsc::channel();
        let of_machine = events.clone();
        let run = move || {
            // Before the processors' threads are made, so that it binds them, too.
            drop(tell.send(landlock::restrict_thread(&Access::default())));
            run(vm, paused, &of_machine);
        };
        crate::threads::spawn("machine", run).map_err(system("no thread for the machine"))?;
        if let Ok(Err(why)) = ready.recv() {
            tracing::warn!(reason = %why, "the machine's threads run without Landlock");
        }
        confine(Confine::ThisThread);
        Ok(Box::new(Started { controller, events, reports }))
    }
}

/// Runs it to its end, with events for the launcher.
fn run(vm: Vm, paused: bool, events: &Events) {
    let ending = vm.run(paused, &mut |event| {
        events.send(match event {
            vmm::Event::Running => Event::Running,
            vmm::Event::Paused => Event::Paused,
            vmm::Event::Reset { by_guest } => Event::Reset { by_guest },
        });
    });
    events.send(Event::Ended(match ending {
        Ok(vmm::Ending::PoweredOff) => Ending::PoweredOff,
        Ok(vmm::Ending::Reset { .. }) => Ending::Rebooted,
        Ok(vmm::Ending::Crashed { reason }) => Ending::Crashed { reason },
        Ok(vmm::Ending::Killed) => Ending::Killed,
        Ok(vmm::Ending::Failed { reason }) => Ending::Failed { reason },
        Err(error) => Ending::Failed { reason: chain(&error) },
    }));
}

fn vmm_parts(kvm: OwnedFd, parts: Parts) -> Result<vmm::Parts, EngineError> {
    let Parts { machine, nics, console, .. } = parts;
    let open = |path: &std::path::Path, what| File::open(path).map_err(|source| EngineError::System { what, source });
    let Boot::Kernel { kernel, initrd, command_line } = &machine.boot else {
        return Err(EngineError::Unsupported(lacks::FIRMWARE.to_owned()));
    };
    let initrd = initrd.as_ref().map(|path| open(path, "the initrd cannot be opened")).transpose()?;
    let image = open(kernel, "the kernel cannot be opened")?;
    let random = machine.rng.then(|| open("/dev/urandom".as_ref(), "/dev/urandom cannot be opened")).transpose()?;
    Ok(vmm::Parts {
        kvm,
        cpu: machine.cpu,
        memory_bytes: machine.memory_bytes,
        hugepage_bytes: machine.hugepage_bytes,
        identity: Identity { uuid: machine.uuid.clone(), serial_number: machine.serial_number.clone() },
        kernel: Kernel { image, initrd, command_line: command_line.clone() },
        console,
        nics: nics_of(&machine, nics),
        random,
        // Huge pages are the machine's own: the host's pool takes none back in pieces.
        balloon: machine.hugepage_bytes.is_none(),
        resets: match machine.reboot_policy {
            RebootPolicy::Reboot => Resets::Boot,
            RebootPolicy::Terminate => Resets::End,
        },
        snapshot: None,
    })
}

fn nics_of(machine: &Machine, nics: Vec<OpenNic>) -> Vec<Nic> {
    let nic = |(asked, open): (&machine::Nic, OpenNic)| {
        let mtu = open.mtu.and_then(|mtu| u16::try_from(mtu.value()).ok());
        let report = Arc::new(NicReport::new(open.queues.len()));
        let (mac, link_down) = (open.mac.bytes(), asked.link_down);
        Nic { mac, mtu, link_down, taps: open.queues, vhost: open.vhost, report }
    };
    machine.nics.iter().zip(nics).map(nic).collect()
}

fn refused(error: VmmError) -> EngineError {
    match error {
        VmmError::Processors(_) | VmmError::Memory(vmm::MemoryError::Size(_)) => {
            EngineError::Unsupported(error.to_string())
        }
        other => EngineError::GaveUp(chain(&other)),
    }
}

impl Started {
    /// `None` for what is carried out already: whether the guest's next shutdown ends the machine. It boots again by itself then.
    fn of_vmm(&self, command: Command) -> Option<vmm::Command> {
        Some(match command {
            Command::KeepAtShutdown | Command::EndAtShutdown => {
                self.controller.boot_at_shutdown(command == Command::KeepAtShutdown);
                return None;
            }
            Command::Powerdown => vmm::Command::PowerButton,
            Command::Kill => vmm::Command::Kill,
            Command::Pause => vmm::Command::Pause,
            Command::Resume => vmm::Command::Resume,
            Command::Reset => vmm::Command::Reset,
            Command::SetLink { nic, up } => vmm::Command::Link { nic, up },
        })
    }
}

impl Running for Started {
    fn command(&mut self, commands: Vec<Command>, done: Done) {
        let links: Vec<_> = commands.iter().filter_map(Event::of_link).collect();
        let mut commands: Vec<_> = commands.into_iter().filter_map(|command| self.of_vmm(command)).collect();
        let Some(last) = commands.pop() else { return done(Ok(())) };
        commands.into_iter().for_each(|command| self.controller.send(command));
        let events = self.events.clone();
        let executed = move |executed: bool| {
            if !executed {
                return done(Err(EngineError::Ended));
            }
            links.into_iter().for_each(|link| events.send(link));
            done(Ok(()));
        };
        self.controller.send_then(last, vmm::Done::new(executed));
    }

    fn take_queues(&mut self) -> Vec<QueueReader> {
        let reader = |report: Arc<NicReport>| Box::new(move || read_queues(&report)) as QueueReader;
        std::mem::take(&mut self.reports).into_iter().map(reader).collect()
    }
}

fn read_queues(report: &NicReport) -> (DataPath, Vec<QueuePairCounters>) {
    let path = match report.data_path() {
        vmm::DataPath::Idle => DataPath::Idle,
        vmm::DataPath::Own => DataPath::Launcher,
        vmm::DataPath::VhostNet => DataPath::VhostNet,
    };
    let traffic = |of: QueueCounts| TrafficCounters {
        bytes: of.bytes,
        packets: of.frames,
        dropped: of.dropped,
        ..TrafficCounters::default()
    };
    let counts = report.queues();
    let (pairs, _) = counts.as_chunks();
    let pairs = pairs.iter().map(|&[received, sent]| QueuePairCounters {
        received: traffic(received),
        filtered: received.filtered,
        sent: traffic(sent),
    });
    (path, pairs.collect())
}
