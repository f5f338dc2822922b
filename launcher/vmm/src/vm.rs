//! Puts a machine together: KVM's virtual machine, memory, tables, kernel, devices, processors.

use std::os::fd::OwnedFd;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Kvm, VcpuFd};
use machine::Cpu;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::acpi::{self, AcpiError};
use crate::boot::{self, BootError, Kernel};
use crate::bus::Bus;
use crate::control::{Controller, Ending, Event, Notice};
use crate::devices::{Console, DebugPort, I8042, Power, Pvpanic, Rtc, Serial};
use crate::event_loop;
use crate::functions::{self, AttachError, Attached, Nic};
use crate::layout::{KVM_TSS, SCI, SERIAL_INTERRUPT};
use crate::memory::{self, MemoryError};
use crate::pci::{HostBridge, Pci};
use crate::state::{DevicesState, UnknownVersion};
use crate::sync::lock;
use crate::sys::slots::MachineFd;
use crate::vcpu::{self, Processors, Topology, VcpuError};

/// Processors that an 8-bit APIC id can tell apart, as far as we have tried.
const MOST_PROCESSORS: u32 = 64;

/// All that a machine is made of, open.
#[derive(Debug)]
pub struct Parts {
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
    /// Whether there is an entropy source.
    pub rng: bool,
    /// What the devices begin with; without it they are as after a reset.
    pub devices: Option<DevicesState>,
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
    vcpus: Vec<VcpuFd>,
    machine: Arc<MachineFd>,
    bus: Arc<Bus>,
    functions: Vec<Attached>,
    controller: Controller,
    notices: Receiver<Notice>,
    wake: Arc<EventFd>,
}

impl Vm {
    /// Puts a machine together. No thread is made, and the guest does not run yet.
    ///
    /// # Errors
    /// When a part is unusable or the host refuses; nothing is left then.
    pub fn new(parts: Parts) -> Result<Self, VmmError> {
        let system = |what| move |source| VmmError::System { what, source };
        let topology = Topology::of(parts.cpu);
        let apic_ids = topology.apic_ids().filter(|_| topology.count() <= MOST_PROCESSORS);
        let apic_ids = apic_ids.ok_or(VmmError::Processors(topology.count()))?;
        let (controller, notices, wake) = Controller::new().map_err(system("no event descriptor"))?;
        let kvm = Kvm::new().map_err(|source| VmmError::Kvm { what: "its device node", source })?;
        let memory = memory::map(parts.memory_bytes)?;
        let mut kernel = parts.kernel;
        let entry = boot::load(&memory, parts.memory_bytes, &mut kernel)?;
        acpi::write(&memory, &apic_ids)?;
        let machine = Arc::new(create(&kvm, memory)?);
        let functions = functions::attach(&machine, parts.nics, parts.rng)?;
        let bus = Arc::new(devices(&machine, parts.console, &wake, &functions, parts.devices)?);
        let vcpus = vcpu::create(&kvm, &machine, topology, &apic_ids, entry)?;
        Ok(Self { vcpus, machine, bus, functions, controller, notices, wake })
    }

    /// What sends commands to this machine.
    #[must_use]
    pub fn controller(&self) -> Controller {
        self.controller.clone()
    }

    /// What a snapshot keeps of the devices of a machine that does not run.
    #[must_use]
    pub fn save_devices(&self) -> DevicesState {
        DevicesState::of(&self.bus, &self.functions)
    }

    /// Runs the machine to its end on this thread. `on_event` is called with each change; the machine begins paused if
    /// `paused` says so.
    ///
    /// # Errors
    /// When there are no threads for the processors, or the loop cannot wait.
    pub fn run(self, paused: bool, on_event: &mut dyn FnMut(Event)) -> Result<Ending, VmmError> {
        let processors = Processors::start(self.vcpus, &self.machine, &self.bus, &self.controller)?;
        let ending = event_loop::run(
            &event_loop::Inputs {
                bus: &self.bus,
                functions: &self.functions,
                processors: &processors,
                notices: &self.notices,
                wake: &self.wake,
                paused,
            },
            on_event,
        );
        ending.map_err(|source| VmmError::System { what: "the event loop cannot wait", source })
    }
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
    let system = |what| move |source| VmmError::System { what, source };
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
                cpu,
                memory_bytes: 128 << 20,
                kernel,
                console: near.into(),
                devices: None,
                nics: Vec::new(),
                rng: false,
            };
            assert!(matches!(Vm::new(parts), Err(VmmError::Processors(count)) if count == cores));
        }
    }
}
