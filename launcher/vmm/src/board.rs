//! What a machine consists of from one reset to the next, put together and run.

use std::os::fd::OwnedFd;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::acpi;
use crate::boot::{self, Entry};
use crate::bus::Bus;
use crate::chips::{self, ChipsError, ChipsState};
use crate::confine::{self, Thread};
use crate::control::{Controller, Ending, Event, Notice, Snapshot};
use crate::devices::{Console, DebugPort, I8042, Power, Pvpanic, Rtc, Serial};
use crate::event_loop;
use crate::functions::{self, Attached};
use crate::layout::{EVENT_INTERRUPT, SERIAL_INTERRUPT};
use crate::memory::{self, GuestMemory};
use crate::memory_image;
use crate::parts::{Parts, VmmError, system};
use crate::pci::{HostBridge, Pci};
use crate::smbios;
use crate::state::{DevicesState, MachineState, StateError};
use crate::sync::lock;
use crate::sys::slots::{self, MachineFd};
use crate::vcpu::{self, ProcessorState, Processors, Topology};

/// Processors that an 8-bit APIC id can tell apart, as far as we have tried.
const MOST_PROCESSORS: u32 = 64;

/// The parts of a machine.
#[derive(Debug)]
pub(crate) struct Board {
    kvm: Kvm,
    vcpus: Vec<VcpuFd>,
    machine: Arc<MachineFd>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) functions: Vec<Attached>,
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
    /// Puts it together as after power-on, or as the parts' snapshot says, which is taken out of them: a reset boots the kernel.
    ///
    /// # Errors
    /// When a part is unusable or the host refuses.
    pub(crate) fn build(parts: &mut Parts, wake: &Arc<EventFd>) -> Result<Self, VmmError> {
        let topology = Topology::of(parts.cpu);
        let apic_ids = topology.apic_ids().filter(|_| topology.count() <= MOST_PROCESSORS);
        let apic_ids = apic_ids.ok_or(VmmError::Processors(topology.count()))?;
        let no_copy = system("no second descriptor for a part of the machine");
        let kvm = slots::kvm(parts.kvm.try_clone().map_err(no_copy)?);
        let memory = memory::map(parts.memory_bytes, parts.hugepage_bytes)?;
        let (fd, begin) = create_and_load(&kvm, &memory, parts, &apic_ids)?;
        let machine = MachineFd::new(fd, memory);
        let machine = Arc::new(machine.map_err(|source| VmmError::Kvm { what: "the guest's memory", source })?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(std::io::Error::from);
        let epoll = Arc::new(epoll.map_err(system("no descriptor to wait with"))?);
        let functions = functions::attach(&machine, &epoll, &parts.nics, parts.random.as_ref(), parts.balloon)?;
        let console = parts.console.try_clone().map_err(system("no second descriptor for the console"))?;
        let (entry, saved) = match begin {
            Begin::Boot(entry) => (Some(entry), None),
            Begin::GoOn(saved) => (None, Some(saved)),
        };
        let vcpus = vcpu::create(&kvm, &machine, parts.cpu, &apic_ids, entry)?;
        if let Some(saved) = &saved {
            saved.fits(parts.memory_bytes, vcpus.len(), functions.len())?;
            for (id, (vcpu, state)) in vcpus.iter().zip(&saved.processors).enumerate() {
                state.restore(vcpu).map_err(StateError::of_processor(id))?;
            }
            saved.chips.restore(machine.fd()).map_err(StateError::from)?;
        }
        // After the processors and their local APICs: devices send interrupts to them.
        let bus = devices(&machine, console, wake, &functions, saved.map(|saved| saved.devices))?;
        Ok(Self { kvm, vcpus, machine, bus: Arc::new(bus), functions, epoll: Waiting(epoll) })
    }

    /// Runs it until it is reset or ends; nothing of it runs then.
    ///
    /// # Errors
    /// When there are no threads for the processors, or the loop cannot wait.
    pub(crate) fn run(
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
            save: &|snapshot| self.save(&processors, snapshot).map_err(|error| chain(&error)),
        };
        event_loop::run(&inputs, on_event).map_err(system("the event loop cannot wait"))
    }

    /// Writes the state of the machine, which is paused: no processor runs, and no queue is served.
    fn save(&self, processors: &Processors, snapshot: &Snapshot) -> Result<(), StateError> {
        let vcpus = processors.vcpus().iter().enumerate();
        let vcpus =
            vcpus.map(|(id, vcpu)| ProcessorState::save(&self.kvm, &lock(vcpu)).map_err(StateError::of_processor(id)));
        let vcpus = vcpus.collect::<Result<_, _>>()?;
        let chips = ChipsState::save(self.machine.fd())?;
        let memory = self.machine.memory();
        let state = MachineState::new(
            memory_image::length(memory),
            vcpus,
            chips,
            DevicesState::save(&self.bus, &self.functions),
        );
        memory_image::write(memory, &snapshot.memory)?;
        state.write(&snapshot.state)
    }
}

/// An error and its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What the processors of a machine begin with.
enum Begin {
    /// The kernel in its memory.
    Boot(Entry),
    /// A snapshot, whose memory is in it.
    GoOn(Box<MachineState>),
}

/// KVM's virtual machine, made while the memory is filled: KVM_CREATE_VM moves a thread of its own to the caller's cgroups
/// and waits there for all processors of the host (RCU), for 10 ms and more.
fn create_and_load(
    kvm: &Kvm,
    memory: &GuestMemory,
    parts: &mut Parts,
    apic_ids: &[u8],
) -> Result<(VmFd, Begin), VmmError> {
    std::thread::scope(|scope| {
        let created = std::thread::Builder::new().spawn_scoped(scope, || chips::create(kvm));
        let created = created.map_err(system("no thread to make a virtual machine"))?;
        let begin = load(memory, parts, apic_ids)?;
        let ended = |_| system("the thread that makes a virtual machine failed")(std::io::ErrorKind::Other.into());
        let created = created.join().map_err(ended)?;
        Ok((created.map_err(|ChipsError { what, source }| VmmError::Kvm { what, source })?, begin))
    })
}

/// Fills the memory: with what the snapshot has, or with kernel and tables.
fn load(memory: &GuestMemory, parts: &mut Parts, apic_ids: &[u8]) -> Result<Begin, VmmError> {
    if let Some(snapshot) = parts.snapshot.take() {
        let state = MachineState::read(&snapshot.state)?;
        memory_image::read(memory, &snapshot.memory).map_err(StateError::from)?;
        return Ok(Begin::GoOn(Box::new(state)));
    }
    let entry = boot::load(memory, parts.memory_bytes, &mut parts.kernel)?;
    acpi::write(memory, apic_ids)?;
    smbios::write(memory, &parts.identity)?;
    Ok(Begin::Boot(entry))
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
    let interrupts = Arc::clone(machine);
    let line = Box::new(move |active| {
        if let Err(error) = interrupts.fd().set_irq_line(EVENT_INTERRUPT.into(), active) {
            tracing::warn!(%error, "the interrupt of ACPI events cannot be set");
        }
    });
    let mut slots: Vec<Box<dyn crate::pci::Function>> = vec![Box::new(HostBridge)];
    slots.extend(functions.iter().map(|attached| Box::new(Arc::clone(&attached.function)) as _));
    let mut pci = Pci::new(slots);
    let wake = Arc::clone(wake);
    let (serial, rtc, power) = match state {
        None => (Serial::new(console, interrupt, wake), Rtc::default(), Power::new(line)),
        Some(state) => {
            pci.restore(&state.pci);
            for (attached, state) in functions.iter().zip(&state.functions) {
                let mut function = lock(&attached.function);
                function.restore(state);
                function.interrupt();
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
