//! The processors' threads: enter the guest, serve what it leaves it for, until the machine ends.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kvm_bindings::{CpuId, KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd};
use machine::Cpu;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use vm_memory::GuestMemoryError;

use super::gate::{Gate, Order};
use super::{ModelError, Topology, apic, cpuid, model, registers};
use crate::boot::Entry;
use crate::bus::{Bus, Request};
use crate::confine::{self, Thread};
use crate::control::{Controller, Ending, Notice};
use crate::sync::lock;
use crate::sys::kick::{self, KICK};
use crate::sys::slots::MachineFd;

/// Why the processors cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VcpuError {
    /// KVM refused.
    #[error("KVM refuses {what} of processor {id}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// The processor.
        id: u32,
        /// Its answer.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// The host's processor is none of the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// More leaves of CPUID than KVM takes.
    #[error("processor {0} has more leaves of CPUID than KVM takes")]
    Leaves(u32),
    /// The first processor's tables could not be written.
    #[error("the first processor's tables cannot be written")]
    Tables(#[source] GuestMemoryError),
    /// The signal that stops a processor could not be installed.
    #[error("the signal that stops a processor cannot be installed")]
    Signal(#[source] nix::Error),
    /// No thread.
    #[error("no thread for processor {id}")]
    Thread {
        /// The processor.
        id: u32,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// The processors of a machine, each in a thread of its own, behind a closed gate at first.
#[derive(Debug)]
pub(crate) struct Processors {
    threads: Vec<(Pthread, JoinHandle<()>)>,
    /// Each is locked by its thread while that is inside of the gate.
    vcpus: Vec<Arc<Mutex<VcpuFd>>>,
    gate: Arc<Gate>,
}

/// Makes all processors, ready to begin: the first at `entry`, the others wait for it to start them. Without `entry` they have
/// no more than their numbers and are to be given a saved state.
///
/// # Errors
/// When KVM refuses.
pub(crate) fn create(
    kvm: &Kvm,
    machine: &MachineFd,
    cpu: Cpu,
    apic_ids: &[u8],
    entry: Option<Entry>,
) -> Result<Vec<VcpuFd>, VcpuError> {
    let refused = |what, id| move |source| VcpuError::Kvm { what, id, source };
    let supported = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).map_err(refused("CPUID", 0))?;
    let (model, topology) = (model::leaves(cpu.model, &supported)?, Topology::of(cpu));
    let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
    if entry.is_some() {
        registers::write_gdt(machine.memory()).map_err(VcpuError::Tables)?;
    }
    // KVM takes the number of a processor for its APIC id.
    let create = |id: &u8| {
        let id = u32::from(*id);
        let vcpu = machine.fd().create_vcpu(id.into()).map_err(refused("creation", id))?;
        let Some(entry) = entry else { return Ok(vcpu) };
        let leaves = cpuid::of_processor(&model, id, topology, deadline);
        let leaves = CpuId::from_entries(&leaves).map_err(|_| VcpuError::Leaves(id))?;
        vcpu.set_cpuid2(&leaves).map_err(refused("CPUID", id))?;
        registers::set_msrs(&vcpu).map_err(refused("registers", id))?;
        apic::set(&vcpu).map_err(refused("the interrupt controller", id))?;
        if id == 0 {
            registers::set(&vcpu, entry).map_err(refused("registers", id))?;
        }
        Ok(vcpu)
    };
    apic_ids.iter().map(create).collect()
}

impl Processors {
    /// Starts a thread for each processor. `machine` stays mapped as long as any of them lives.
    ///
    /// # Errors
    /// When there is no thread; those that were started have ended then.
    pub(crate) fn start(
        vcpus: Vec<VcpuFd>,
        machine: &Arc<MachineFd>,
        bus: &Arc<Bus>,
        controller: &Controller,
    ) -> Result<Self, VcpuError> {
        kick::install().map_err(VcpuError::Signal)?;
        let vcpus = vcpus.into_iter().map(|vcpu| Arc::new(Mutex::new(vcpu))).collect();
        let mut processors = Self { threads: Vec::new(), vcpus, gate: Arc::new(Gate::closed()) };
        for (id, vcpu) in (0..).zip(&processors.vcpus) {
            let vcpu = Arc::clone(vcpu);
            let (tell, told) = std::sync::mpsc::channel();
            let gate = Arc::clone(&processors.gate);
            let processor =
                Processor { vcpu, _machine: Arc::clone(machine), bus: Arc::clone(bus), controller: controller.clone() };
            let run = move || {
                // The other end waits for it.
                let _ = tell.send(pthread_self());
                if let Err(reason) = confine::restrict(Thread::Processor) {
                    tracing::warn!(reason, "a processor's thread runs without seccomp");
                }
                processor.run(&gate);
            };
            let thread = std::thread::Builder::new().name(format!("vcpu{id}"));
            let handle = thread.spawn(run).map_err(|source| VcpuError::Thread { id, source })?;
            match told.recv() {
                Ok(thread) => processors.threads.push((thread, handle)),
                Err(_) => drop(handle.join()),
            }
        }
        Ok(processors)
    }

    /// Lets them run.
    pub(crate) fn resume(&self) {
        self.gate.open();
    }

    /// Takes all of them out of the guest; none is in it once this returns.
    pub(crate) fn pause(&self) {
        self.stop(Order::Wait);
    }

    /// The processors, all of them outside of the guest since [`Self::pause`].
    pub(crate) fn vcpus(&self) -> &[Arc<Mutex<VcpuFd>>] {
        &self.vcpus
    }

    fn stop(&self, order: Order) {
        let kick = || {
            for (thread, handle) in &self.threads {
                // A thread that was not joined can be signalled even when it has ended.
                if !handle.is_finished() {
                    let _ = pthread_kill(*thread, KICK);
                }
            }
        };
        self.gate.stop(order, self.threads.len(), kick);
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        self.stop(Order::End);
        for (_, handle) in self.threads.drain(..) {
            drop(handle.join());
        }
    }
}

/// What a thread has. Fields are dropped in their order: the processor before the memory that it runs in.
struct Processor {
    vcpu: Arc<Mutex<VcpuFd>>,
    _machine: Arc<MachineFd>,
    bus: Arc<Bus>,
    controller: Controller,
}

impl Processor {
    fn run(self, gate: &Gate) {
        while gate.pass() {
            let mut vcpu = lock(&self.vcpu);
            let mut ending = None;
            while ending.is_none() && gate.is_open() {
                ending = self.enter(&mut vcpu).unwrap_or_else(interrupted);
            }
            let ending = ending.or_else(|| self.complete(&mut vcpu));
            drop(vcpu);
            if let Some(ending) = ending {
                self.controller.notify(Notice::Ended(ending));
                return gate.leave();
            }
        }
    }

    /// Completes the access for which the guest was left: KVM does that when it is entered again, and only then are its
    /// registers those between two instructions.
    fn complete(&self, vcpu: &mut VcpuFd) -> Option<Ending> {
        vcpu.set_kvm_immediate_exit(1);
        let ending = loop {
            match self.enter(vcpu) {
                Ok(None) => {}
                Ok(ending) => break ending,
                Err(error) => break interrupted(error),
            }
        };
        vcpu.set_kvm_immediate_exit(0);
        ending
    }

    /// Runs the guest until it needs something, and serves that.
    fn enter(&self, vcpu: &mut VcpuFd) -> Result<Option<Ending>, kvm_ioctls::Error> {
        let failed = |reason: String| Ok(Some(Ending::Failed { reason }));
        match vcpu.run()? {
            VcpuExit::IoIn(port, data) => self.bus.read_port(port, data),
            VcpuExit::IoOut(port, data) => return Ok(self.bus.write_port(port, data).map(ending)),
            VcpuExit::MmioRead(address, data) => self.bus.read_memory(address, data),
            VcpuExit::MmioWrite(address, data) => self.bus.write_memory(address, data),
            // A triple fault, with which kernels reset a machine when all else has failed.
            VcpuExit::Shutdown => return Ok(Some(Ending::Reset { by_guest: true })),
            VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => return Ok(Some(Ending::Reset { by_guest: true })),
            VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => return Ok(Some(Ending::PoweredOff)),
            VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_CRASH, _) => return Ok(Some(ending(Request::Crash))),
            VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen => {}
            VcpuExit::FailEntry(reason, processor) => {
                return failed(format!("the processor {processor} refuses the guest's state: reason {reason:#x}"));
            }
            VcpuExit::InternalError => {
                return failed("KVM cannot execute the guest's instruction (internal error)".to_owned());
            }
            other => return failed(format!("KVM left the guest with {other:?}")),
        }
        Ok(None)
    }
}

/// What an entry that failed means: nothing where the signal of a stop ended it, or KVM had no time for us.
fn interrupted(error: kvm_ioctls::Error) -> Option<Ending> {
    let goes_on = [libc::EINTR, libc::EAGAIN].contains(&error.errno());
    (!goes_on).then(|| Ending::Failed { reason: format!("KVM_RUN: {error}") })
}

fn ending(request: Request) -> Ending {
    match request {
        Request::Reset => Ending::Reset { by_guest: true },
        Request::PowerOff => Ending::PoweredOff,
        Request::Crash => Ending::Crashed { reason: "the guest's kernel reports a panic".to_owned() },
    }
}
