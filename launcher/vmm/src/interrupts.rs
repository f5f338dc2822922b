//! Message-signalled interrupts and doorbells by KVM: an event descriptor for each vector and each queue.
//!
//! KVM keeps one routing table for the whole machine and replaces it as a whole, so all vectors share one list here.

use std::cell::Cell;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi,
};
use kvm_ioctls::{IoEventAddress, NoDatamatch};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::sync::lock;
use crate::sys::event::descriptor;
use crate::sys::slots::MachineFd;
use crate::virtio::{Doorbells, Message, Vectors};

/// Pins of the I/O APIC; interrupts with messages are numbered after them.
const PINS: u32 = 24;
/// Pins of an 8259.
const PIC_PINS: u32 = 8;

/// All routes of a machine.
#[derive(Debug)]
pub(crate) struct Routing {
    machine: Arc<MachineFd>,
    messages: Mutex<Vec<Option<Message>>>,
}

impl Routing {
    /// The routes that KVM begins with: pins only.
    pub(crate) fn new(machine: Arc<MachineFd>) -> Arc<Self> {
        Arc::new(Self { machine, messages: Mutex::default() })
    }

    /// Vectors of a new function.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(crate) fn vectors(self: &Arc<Self>, count: usize) -> std::io::Result<KvmVectors> {
        let mut messages = lock(&self.messages);
        let first = messages.len();
        messages.resize(first + count, None);
        let vector = || EventFd::new(EFD_NONBLOCK).map(|event| (event, Cell::new(false)));
        let vectors = (0..count).map(|_| vector()).collect::<Result<_, _>>()?;
        Ok(KvmVectors { routing: Arc::clone(self), first, vectors })
    }

    fn set(&self, at: usize, message: Message) {
        let mut messages = lock(&self.messages);
        match messages.get_mut(at) {
            Some(old) if *old != Some(message) => *old = Some(message),
            _ => return,
        }
        let routes: Vec<_> = pins().chain(with_numbers(&messages)).collect();
        let set = KvmIrqRouting::from_entries(&routes).map_err(|error| format!("{error:?}"));
        let set = set.and_then(|routes| self.machine.fd().set_gsi_routing(&routes).map_err(|error| error.to_string()));
        if let Err(error) = set {
            tracing::warn!(error, "an interrupt of the guest cannot be routed");
        }
    }
}

fn interrupt(at: usize) -> u32 {
    PINS + u32::try_from(at).unwrap_or_default()
}

/// What KVM begins with: both 8259s on pins 0 to 15, the I/O APIC on all.
fn pins() -> impl Iterator<Item = kvm_irq_routing_entry> {
    let entry = |gsi, irqchip, pin| kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        u: kvm_irq_routing_entry__bindgen_ty_1 { irqchip: kvm_irq_routing_irqchip { irqchip, pin } },
        ..Default::default()
    };
    let master = (0..PIC_PINS).map(move |pin| entry(pin, KVM_IRQCHIP_PIC_MASTER, pin));
    let slave = (0..PIC_PINS).map(move |pin| entry(PIC_PINS + pin, KVM_IRQCHIP_PIC_SLAVE, pin));
    // The timer's interrupt 0 is on pin 2, as the MADT says.
    let io_apic = (0..PINS).map(move |pin| entry(pin, KVM_IRQCHIP_IOAPIC, if pin == 0 { 2 } else { pin }));
    master.chain(slave).chain(io_apic)
}

fn with_numbers(messages: &[Option<Message>]) -> impl Iterator<Item = kvm_irq_routing_entry> {
    messages.iter().enumerate().filter_map(|(at, message)| {
        let Message { address, data } = (*message)?;
        let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
        let msi = kvm_irq_routing_msi {
            address_lo: u32::from_le_bytes([a, b, c, d]),
            address_hi: u32::from_le_bytes([e, f, g, h]),
            data,
            ..Default::default()
        };
        let u = kvm_irq_routing_entry__bindgen_ty_1 { msi };
        Some(kvm_irq_routing_entry { gsi: interrupt(at), type_: KVM_IRQ_ROUTING_MSI, u, ..Default::default() })
    })
}

/// The vectors of a function.
#[derive(Debug)]
pub(crate) struct KvmVectors {
    routing: Arc<Routing>,
    first: usize,
    /// What sends each, and whether KVM listens to it: only while the guest does not mask it, so that what is written
    /// meanwhile waits in it.
    vectors: Vec<(EventFd, Cell<bool>)>,
}

impl Vectors for KvmVectors {
    fn route(&self, vector: u16, message: Message) {
        if usize::from(vector) < self.vectors.len() {
            self.routing.set(self.first + usize::from(vector), message);
        }
    }

    fn fire(&self, vector: u16) {
        // It fails only when the event counts to its limit, and then the interrupt is raised as well.
        drop(self.event(vector).map(|event| event.write(1)));
    }

    fn set_open(&self, vector: u16, open: bool) {
        let at = usize::from(vector);
        let Some((event, listened)) = self.vectors.get(at).filter(|(_, listened)| listened.get() != open) else {
            return;
        };
        let (kvm, number) = (self.routing.machine.fd(), interrupt(self.first + at));
        let done = if open { kvm.register_irqfd(event, number) } else { kvm.unregister_irqfd(event, number) };
        match done {
            Ok(()) => listened.set(open),
            Err(error) => tracing::warn!(%error, open, "an interrupt of the guest cannot be opened or closed"),
        }
    }

    fn event(&self, vector: u16) -> Option<&EventFd> {
        self.vectors.get(usize::from(vector)).map(|(event, _)| event)
    }
}

/// The doorbells of a function.
pub(crate) struct KvmDoorbells {
    machine: Arc<MachineFd>,
    epoll: Arc<Epoll>,
    events: Vec<Arc<EventFd>>,
    inputs: Vec<OwnedFd>,
    /// Tokens of doorbells and inputs in the event loop: each this plus its place.
    tokens: (u64, u64),
    distance: u32,
    memory: Option<u64>,
    port: Option<u16>,
}

impl std::fmt::Debug for KvmDoorbells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvmDoorbells").field("memory", &self.memory).field("port", &self.port).finish_non_exhaustive()
    }
}

impl KvmDoorbells {
    /// Doorbells for these events, not placed yet. `tokens` are what the event loop calls the first doorbell and input.
    pub(crate) fn new(
        machine: Arc<MachineFd>,
        epoll: Arc<Epoll>,
        events: Vec<Arc<EventFd>>,
        inputs: Vec<OwnedFd>,
        tokens: (u64, u64),
        distance: u32,
    ) -> Self {
        Self { machine, epoll, events, inputs, tokens, distance, memory: None, port: None }
    }
}

impl KvmDoorbells {
    fn move_to<T: Copy>(&self, from: Option<T>, to: Option<T>, place: impl Fn(T, u32) -> IoEventAddress) {
        let kvm = self.machine.fd();
        for (event, at) in self.events.iter().zip(0..) {
            if let Some(Err(error)) = from.map(|base| kvm.unregister_ioevent(event, &place(base, at), NoDatamatch)) {
                tracing::warn!(%error, "a doorbell of the guest stays where it was");
            }
            if let Some(Err(error)) = to.map(|base| kvm.register_ioevent(event, &place(base, at), NoDatamatch)) {
                tracing::warn!(%error, "a doorbell of the guest cannot be placed");
            }
        }
    }
}

impl Doorbells for KvmDoorbells {
    fn place(&mut self, memory: Option<u64>, port: Option<u16>) {
        let in_memory = |base: u64, at: u32| IoEventAddress::Mmio(base.saturating_add((at * self.distance).into()));
        let at_port = |base: u16, at: u32| IoEventAddress::Pio(u64::from(base) + u64::from(at * self.distance));
        self.move_to(
            self.memory.filter(|_| self.memory != memory),
            memory.filter(|_| self.memory != memory),
            in_memory,
        );
        self.move_to(self.port.filter(|_| self.port != port), port.filter(|_| self.port != port), at_port);
        (self.memory, self.port) = (memory, port);
    }

    fn ring(&self) {
        self.events.iter().for_each(|event| drop(event.write(1)));
    }

    fn listen(&self, first: usize) {
        let events = (self.tokens.0..).zip(&self.events).zip(0..);
        let events = events.map(|((token, event), at)| (token, descriptor(event), at >= first));
        let inputs = (self.tokens.1..).zip(&self.inputs).map(|(token, input)| (token, input.as_fd(), first == 0));
        for (token, fd, wanted) in events.chain(inputs) {
            // Edge-triggered: what cannot be served yet, as in a paused machine, waits for another event.
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token);
            let done = if wanted { self.epoll.add(fd, event) } else { self.epoll.delete(fd) };
            match done {
                Ok(()) | Err(Errno::EEXIST | Errno::ENOENT) => {}
                Err(error) => tracing::warn!(%error, wanted, "the event loop cannot listen to a queue as it should"),
            }
        }
    }

    fn event(&self, queue: usize) -> Option<&EventFd> {
        self.events.get(queue).map(Arc::as_ref)
    }
}
