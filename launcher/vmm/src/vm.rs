//! Puts a machine together: KVM's virtual machine, memory, tables, kernel, devices, processors.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Kvm, VcpuFd};
use machine::Cpu;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::acpi::{self, AcpiError};
use crate::boot::{self, BootError, Kernel};
use crate::bus::Bus;
use crate::confine::{self, Thread};
use crate::control::{Controller, Ending, Event, Notice};
use crate::devices::{Console, DebugPort, I8042, Power, Pvpanic, Rtc, Serial};
use crate::event_loop;
use crate::functions::{self, AttachError, Attached, Nic};
use crate::layout::{KVM_TSS, SCI, SERIAL_INTERRUPT};
use crate::memory::{self, MemoryError};
use crate::pci::{HostBridge, Pci};
use crate::state::{DevicesState, UnknownVersion};
use crate::sync::lock;
use crate::sys::slots::{self, MachineFd};
use crate::vcpu::{self, Processors, Topology, VcpuError};

/// Processors that an 8-bit APIC id can tell apart, as far as we have tried.
const MOST_PROCESSORS: u32 = 64;

/// All that a machine is made of, open.
#[derive(Debug)]
pub struct Parts {
    /// An open /dev/kvm.
    pub kvm: OwnedFd,
    /// Processors.
    pub cpu: Cpu,
    /// Guest memory, in bytes.
    pub memory_bytes: u64,
    /// What is booted.
    pub kernel: Kernel,
    /// The far end of the first serial port: a stream.
    pub console: OwnedFd,
    /// Network devices in the order of their slots.
    pub nics: Vec<Nic>,
    /// Where the entropy source takes its bytes from, if there is one: the host's random bytes, open.
    pub random: Option<File>,
    /// What a reset does.
    pub resets: Resets,
    /// What the devices begin with; without it they are as after a reset.
    pub devices: Option<DevicesState>,
}

/// What a reset by the guest or the reset button does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resets {
    /// The machine boots its kernel again.
    Boot,
    /// The machine ends.
    End,
}

/// Why a machine cannot be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmmError {
    /// Too many processors.
    #[error("{0} processors: expected 1 to 64, in a topology whose APIC ids have 8 bits")]
    Processors(u32),
    /// KVM refused.
    #[error("KVM refuses {what}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Nothing to boot.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// No ACPI tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// No processors.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// No virtio device.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// State of another release.
    #[error(transparent)]
    State(#[from] UnknownVersion),
    /// The system refused.
    #[error("{what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Its reason.
        #[source]
        source: std::io::Error,
    },
}

/// A machine that has not started.
#[derive(Debug)]
pub struct Vm {
    parts: Parts,
    board: Board,
    controller: Controller,
    notices: Receiver<Notice>,
    wake: Arc<EventFd>,
}

impl Vm {
    /// Puts a machine together. No thread is made, and the guest does not run yet.
    ///
    /// # Errors
    /// When a part is unusable or the host refuses; nothing is left then.
    pub fn new(mut parts: Parts) -> Result<Self, VmmError> {
        let (controller, notices, wake) = Controller::new().map_err(system("no event descriptor"))?;
        let board = Board::build(&mut parts, &wake)?;
        Ok(Self { parts, board, controller, notices, wake })
    }

    /// What sends commands to this machine.
    #[must_use]
    pub fn controller(&self) -> Controller {
        self.controller.clone()
    }

    /// What a snapshot keeps of the devices of a machine that does not run.
    #[must_use]
    pub fn save_devices(&self) -> DevicesState {
        DevicesState::of(&self.board.bus, &self.board.functions)
    }

    /// Runs the machine to its end on this thread, through all its resets, and restricts the thread's system calls to that. `on_event` is called with each change; the machine
    /// begins paused if `paused` says so.
    ///
    /// # Errors
    /// When there are no threads for the processors, the loop cannot wait, or a reset machine cannot be put together.
    pub fn run(self, mut paused: bool, on_event: &mut dyn FnMut(Event)) -> Result<Ending, VmmError> {
        let Self { mut parts, mut board, controller, notices, wake } = self;
        let mut confined = false;
        loop {
            let ending = board.run(&controller, &notices, &wake, paused, &mut confined, on_event)?;
            let (Ending::Reset { by_guest }, Resets::Boot) = (&ending, parts.resets) else { return Ok(ending) };
            on_event(Event::Reset { by_guest: *by_guest });
            // Other processors may have ended as well; commands are for the machine that follows.
            let commands: Vec<_> = notices.try_iter().filter(|notice| !matches!(notice, Notice::Ended(_))).collect();
            commands.into_iter().for_each(|command| controller.notify(command));
            // First, so that the host never holds the memory of both.
            drop(board);
            board = Board::build(&mut parts, &wake)?;
            paused = false;
        }
    }
}

/// What a machine consists of from one reset to the next.
#[derive(Debug)]
struct Board {
    vcpus: Vec<VcpuFd>,
    machine: Arc<MachineFd>,
    bus: Arc<Bus>,
    functions: Vec<Attached>,
    epoll: Waiting,
}

/// What the event loop waits with; its crate gives it no text.
struct Waiting(Arc<Epoll>);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiting")
    }
}

impl Board {
    fn build(parts: &mut Parts, wake: &Arc<EventFd>) -> Result<Self, VmmError> {
        let topology = Topology::of(parts.cpu);
        let apic_ids = topology.apic_ids().filter(|_| topology.count() <= MOST_PROCESSORS);
        let apic_ids = apic_ids.ok_or(VmmError::Processors(topology.count()))?;
        let no_copy = system("no second descriptor for a part of the machine");
        let kvm = slots::kvm(parts.kvm.try_clone().map_err(no_copy)?);
        let memory = memory::map(parts.memory_bytes)?;
        let entry = boot::load(&memory, parts.memory_bytes, &mut parts.kernel)?;
        acpi::write(&memory, &apic_ids)?;
        let machine = Arc::new(create(&kvm, memory)?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(std::io::Error::from);
        let epoll = Arc::new(epoll.map_err(system("no descriptor to wait with"))?);
        let functions = functions::attach(&machine, &epoll, &parts.nics, parts.random.as_ref())?;
        let console = parts.console.try_clone().map_err(system("no second descriptor for the console"))?;
        let bus = Arc::new(devices(&machine, console, wake, &functions, parts.devices.take())?);
        let vcpus = vcpu::create(&kvm, &machine, topology, &apic_ids, entry)?;
        Ok(Self { vcpus, machine, bus, functions, epoll: Waiting(epoll) })
    }

    /// Runs it until it is reset or ends; nothing of it runs then.
    fn run(
        &mut self,
        controller: &Controller,
        notices: &Receiver<Notice>,
        wake: &EventFd,
        paused: bool,
        confined: &mut bool,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Ending, VmmError> {
        let vcpus = std::mem::take(&mut self.vcpus);
        let processors = Processors::start(vcpus, &self.machine, &self.bus, controller)?;
        // After the first processors' threads were made: theirs is the filter of processors alone.
        if !std::mem::replace(confined, true)
            && let Err(reason) = confine::restrict(Thread::EventLoop)
        {
            tracing::warn!(reason, "the machine's thread runs without seccomp");
        }
        let inputs = event_loop::Inputs {
            epoll: &self.epoll.0,
            bus: &self.bus,
            functions: &self.functions,
            processors: &processors,
            notices,
            wake,
            paused,
        };
        event_loop::run(&inputs, on_event).map_err(system("the event loop cannot wait"))
    }
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> VmmError {
    move |source| VmmError::System { what, source }
}

/// KVM's virtual machine with interrupt controllers and timer in the kernel.
fn create(kvm: &Kvm, memory: memory::GuestMemory) -> Result<MachineFd, VmmError> {
    let refused = |what| move |source| VmmError::Kvm { what, source };
    let fd = kvm.create_vm().map_err(refused("a virtual machine"))?;
    fd.set_tss_address(KVM_TSS).map_err(refused("room for its task segment"))?;
    fd.create_irq_chip().map_err(refused("interrupt controllers"))?;
    // With the dummy speaker KVM serves port 0x61, by which Linux measures the processor's frequency.
    let timer = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    fd.create_pit2(timer).map_err(refused("a timer"))?;
    MachineFd::new(fd, memory).map_err(refused("the guest's memory"))
}

/// The devices, as after a reset or as `state` says.
fn devices(
    machine: &Arc<MachineFd>,
    console: OwnedFd,
    wake: &Arc<EventFd>,
    functions: &[Attached],
    state: Option<DevicesState>,
) -> Result<Bus, VmmError> {
    let console = Console::new(console).map_err(|error| system("the console cannot be used")(error.into()))?;
    let interrupt = EventFd::new(EFD_NONBLOCK).map_err(system("no event descriptor"))?;
    let registered = machine.fd().register_irqfd(&interrupt, SERIAL_INTERRUPT);
    registered.map_err(|source| VmmError::Kvm { what: "an interrupt of the serial port", source })?;
    let sci = Arc::clone(machine);
    let line = Box::new(move |active| {
        if let Err(error) = sci.fd().set_irq_line(SCI.into(), active) {
            tracing::warn!(%error, "the ACPI interrupt cannot be set");
        }
    });
    let mut slots: Vec<Box<dyn crate::pci::Function>> = vec![Box::new(HostBridge)];
    slots.extend(functions.iter().map(|attached| Box::new(Arc::clone(&attached.function)) as _));
    let mut pci = Pci::new(slots);
    let wake = Arc::clone(wake);
    let (serial, rtc, power) = match state.map(DevicesState::checked).transpose()? {
        None => (Serial::new(console, interrupt, wake), Rtc::default(), Power::new(line)),
        Some(state) => {
            pci.restore(&state.pci);
            for (attached, state) in functions.iter().zip(&state.functions) {
                lock(&attached.function).restore(state);
            }
            let serial = Serial::restore(state.serial, console, interrupt, wake);
            let serial = serial.map_err(system("the serial port's state cannot be restored"))?;
            (serial, Rtc::restore(&state.rtc), Power::restore(&state.power, line))
        }
    };
    Ok(Bus {
        serial: Mutex::new(serial),
        rtc: Mutex::new(rtc),
        power: Mutex::new(power),
        i8042: I8042,
        pvpanic: Pvpanic,
        debug: Mutex::new(DebugPort::default()),
        pci: Mutex::new(pci),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_machine_without_processors_or_with_too_many_is_refused() {
        for cores in [65, u32::MAX] {
            let (near, _far) = UnixStream::pair().unwrap();
            let kernel = Kernel { image: tempfile::tempfile().unwrap(), initrd: None, command_line: String::new() };
            let cpu = Cpu { sockets: 1, cores, threads: 1 };
            let parts = Parts {
                kvm: tempfile::tempfile().unwrap().into(),
                cpu,
                memory_bytes: 128 << 20,
                kernel,
                console: near.into(),
                devices: None,
                nics: Vec::new(),
                random: None,
                resets: Resets::End,
            };
            assert!(matches!(Vm::new(parts), Err(VmmError::Processors(count)) if count == cores));
        }
    }
}
