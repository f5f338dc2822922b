//! A machine's devices without KVM, as a guest's accesses reach them: for fuzzers, by the feature `fuzzing`.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes as _, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::bus::Bus;
use crate::devices::{
    Balloon, Console, DebugPort, I8042, Net, NetSettings, NicReport, Power, Pvpanic, Rng, Rtc, Serial,
};
use crate::layout::{DOORBELL_PORTS, PCI_WINDOW};
use crate::memory::{self, GuestMemory};
use crate::pci::{HostBridge, Pci};
use crate::sync::lock;
use crate::virtio::spec::{BAR_SIZE, PORTS_SIZE};
use crate::virtio::{Change, Device, Doorbells, Function, Message, Shared, Vectors};

/// Bytes of the guest's RAM, at address 0.
pub const RAM: u64 = memory::LEAST;

/// A network device on a file, a balloon and an entropy source in slots 1 to 3, and all that is no PCI function.
#[derive(Debug)]
pub struct Devices {
    bus: Bus,
    functions: Vec<Shared>,
    memory: GuestMemory,
    /// Is never read; without it a byte for the console would be a signal.
    _console: UnixStream,
}

impl Devices {
    /// As after a reset. `tap` has the frames that the guest receives and takes those that it sends, `random` the random bytes.
    ///
    /// # Errors
    /// When the system has no memory or descriptor left.
    pub fn new(tap: File, random: File) -> Result<Self, Box<dyn std::error::Error>> {
        let event = || EventFd::new(EFD_NONBLOCK);
        let memory = memory::map(RAM, None)?;
        let settings = NetSettings { mac: [2, 0, 0, 0, 0, 1], mtu: Some(1500), link_down: false };
        let net = Net::new(settings, vec![(OwnedFd::from(tap), None)], Arc::new(NicReport::new(1)));
        let devices: [Box<dyn Device>; 3] = [Box::new(net), Box::<Balloon>::default(), Box::new(Rng::new(random))];
        let mut functions = Vec::new();
        for (slot, device) in (1..).zip(devices) {
            let (bar, port) = (PCI_WINDOW + slot * BAR_SIZE, u32::from(DOORBELL_PORTS) + slot * PORTS_SIZE);
            let (memory, port) = (memory.clone(), u16::try_from(port)?);
            let function = Function::new(device, memory, Box::new(Nowhere), Box::new(Nowhere), bar, port)?;
            functions.push(Arc::new(Mutex::new(function)));
        }
        let mut slots: Vec<Box<dyn crate::pci::Function>> = vec![Box::new(HostBridge)];
        slots.extend(functions.iter().map(|function| Box::new(Arc::clone(function)) as _));
        let (near, console) = UnixStream::pair()?;
        let bus = Bus {
            serial: Mutex::new(Serial::new(Console::new(near.into())?, event()?, Arc::new(event()?))),
            rtc: Mutex::new(Rtc::default()),
            power: Mutex::new(Power::new(Box::new(|_| {}))),
            i8042: I8042,
            pvpanic: Pvpanic,
            debug: Mutex::new(DebugPort::default()),
            pci: Mutex::new(Pci::new(slots)),
        };
        Ok(Self { bus, functions, memory, _console: console })
    }

    /// The guest reads from a port.
    pub fn read_port(&self, port: u16, data: &mut [u8]) {
        self.bus.read_port(port, data);
    }

    /// The guest writes to a port. Whether that ends or resets its machine.
    pub fn write_port(&self, port: u16, data: &[u8]) -> bool {
        self.bus.write_port(port, data).is_some()
    }

    /// The guest reads from an address that is no RAM.
    pub fn read_memory(&self, address: u64, data: &mut [u8]) {
        self.bus.read_memory(address, data);
    }

    /// The guest writes to an address that is no RAM.
    pub fn write_memory(&self, address: u64, data: &[u8]) {
        self.bus.write_memory(address, data);
    }

    /// The guest writes to its RAM; what does not fit is cut off.
    pub fn write_ram(&self, address: u64, data: &[u8]) {
        // It fails for an address outside.
        let _ = self.memory.write(data, GuestAddress(address));
    }

    /// A queue is served once, as its doorbell would have it. Whether there is more, which the event loop would serve later.
    pub fn serve(&self, function: usize, queue: usize) -> bool {
        self.functions.get(function).is_some_and(|function| lock(function).serve(queue))
    }

    /// The host changes its side of a function: a carrier, the size of the balloon.
    pub fn change(&self, function: usize, up: bool, bytes: u64) {
        if let Some(function) = self.functions.get(function) {
            lock(function).on_change(Change::Link { up });
            lock(function).on_change(Change::Balloon { bytes });
        }
    }

    /// The machine is paused and goes on.
    pub fn pause(&self) {
        for function in &self.functions {
            lock(function).pause();
            lock(function).resume();
        }
    }

    /// Gives the functions of other devices, as after a reset, the state of these. Whether theirs is the same then.
    #[must_use]
    pub fn survives_a_snapshot(&self, other: &Self) -> bool {
        self.functions.iter().zip(&other.functions).all(|(function, other)| {
            lock(function).pause();
            let state = lock(function).save();
            lock(other).restore(&state);
            lock(other).save() == state
        })
    }
}

/// Interrupts and doorbells of no machine.
#[derive(Debug)]
struct Nowhere;

impl Vectors for Nowhere {
    fn route(&self, _: u16, _: Message) {}

    fn fire(&self, _: u16) {}

    fn set_open(&self, _: u16, _: bool) {}

    fn event(&self, _: u16) -> Option<&EventFd> {
        None
    }
}

impl Doorbells for Nowhere {
    fn place(&mut self, _: Option<u64>, _: Option<u16>) {}

    fn ring(&self) {}

    fn listen(&self, _: usize) {}

    fn event(&self, _: usize) -> Option<&EventFd> {
        None
    }
}
