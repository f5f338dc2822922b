//! The virtio functions of a machine: each device with its interrupts, its doorbells and its place on the bus.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::Epoll;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::devices::{Balloon, Net, NetSettings as Settings, NicReport, Rng};
use crate::interrupts::{KvmDoorbells, Routing};
use crate::layout::{DOORBELL_PORTS, PCI_WINDOW};
use crate::sys::slots::MachineFd;
use crate::sys::tap;
use crate::virtio::spec::{BAR_SIZE, NOTIFY_MULTIPLIER, PORTS_SIZE};
use crate::virtio::{Device, Function, Shared};

/// Bytes of the header of a modern virtio-net frame.
const VIRTIO_HEADER: i32 = 12;

/// A network device.
#[derive(Debug)]
pub struct Nic {
    /// The guest's address.
    pub mac: [u8; 6],
    /// What the device announces as the link's MTU.
    pub mtu: Option<u16>,
    /// Whether the link begins without carrier.
    pub link_down: bool,
    /// Attached queues of a tap with IFF_VNET_HDR: one for each pair of queues of the device, 1 to 16.
    pub taps: Vec<OwnedFd>,
    /// Open /dev/vhost-net, as often: with them the kernel moves the frames. Without them this process does.
    pub vhost: Vec<OwnedFd>,
    /// What is known of its traffic from now on.
    pub report: Arc<NicReport>,
}

/// A virtio device cannot be attached.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct AttachError {
    what: &'static str,
    #[source]
    source: std::io::Error,
}

/// A virtio function, and the events of its queues' doorbells.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) function: Shared,
    pub(crate) doorbells: Vec<Arc<EventFd>>,
}

/// What the event loop heard of: a doorbell, or input for a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) function: usize,
    pub(crate) queue: usize,
    /// Whether it was the queue's doorbell.
    pub(crate) rang: bool,
}

/// Tokens are a kind, the function's place and the place of the doorbell or input in it, 16 bits each.
const DOORBELLS: u64 = 1 << 32;
const INPUTS: u64 = 2 << 32;

impl Source {
    /// What a token of the event loop means.
    pub(crate) fn of(token: u64) -> Option<Self> {
        let rang = match token & !0xffff_ffff {
            DOORBELLS => true,
            INPUTS => false,
            _ => return None,
        };
        let [low, high, third, fourth, ..] = token.to_le_bytes();
        let (function, at) = (u16::from_le_bytes([third, fourth]).into(), usize::from(u16::from_le_bytes([low, high])));
        // An input is for the receive queue of its pair.
        Some(Self { function, queue: if rang { at } else { 2 * at }, rang })
    }

    /// Tokens of the first doorbell and the first input of a function.
    fn tokens(function: u16) -> (u64, u64) {
        let function = u64::from(function) << 16;
        (DOORBELLS | function, INPUTS | function)
    }
}

/// The virtio functions in the order of their slots, the first after the host bridge. `random` is the source of the
/// entropy device, if there is one; `balloon` says whether there is a memory balloon.
///
/// # Errors
/// When the host refuses a part of one.
pub(crate) fn attach(
    machine: &Arc<MachineFd>,
    epoll: &Arc<Epoll>,
    nics: &[Nic],
    random: Option<&File>,
    balloon: bool,
) -> Result<Vec<Attached>, AttachError> {
    let mut devices: Vec<(Box<dyn Device>, Vec<OwnedFd>)> = Vec::new();
    for nic in nics {
        let (device, inputs) = network(nic).map_err(system("a network device cannot be made of its taps"))?;
        devices.push((Box::new(device), inputs));
    }
    if let Some(random) = random {
        let source = random.try_clone().map_err(system("no second descriptor for random bytes"))?;
        devices.push((Box::new(Rng::new(source)), Vec::new()));
    }
    if balloon {
        devices.push((Box::new(Balloon::default()), Vec::new()));
    }
    let routing = Routing::new(Arc::clone(machine));
    let host = Host { machine, epoll, routing: &routing };
    (1..).zip(devices).map(|(slot, (device, inputs))| host.attach(slot, device, inputs)).collect()
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> AttachError {
    move |source| AttachError { what, source }
}

/// What all functions share.
struct Host<'a> {
    machine: &'a Arc<MachineFd>,
    epoll: &'a Arc<Epoll>,
    routing: &'a Arc<Routing>,
}

impl Host<'_> {
    fn attach(&self, slot: u16, device: Box<dyn Device>, inputs: Vec<OwnedFd>) -> Result<Attached, AttachError> {
        let queues = device.queue_sizes().len();
        let vectors = self.routing.vectors(queues + 1).map_err(system("no interrupt for a virtio device"))?;
        let event = |_| EventFd::new(EFD_NONBLOCK).map(Arc::new);
        let doorbells: Vec<_> =
            (0..queues).map(event).collect::<Result<_, _>>().map_err(system("no event descriptor"))?;
        let tokens = Source::tokens(slot - 1);
        let (machine, epoll) = (Arc::clone(self.machine), Arc::clone(self.epoll));
        let placed = KvmDoorbells::new(machine, epoll, doorbells.clone(), inputs, tokens, NOTIFY_MULTIPLIER);
        let memory = self.machine.memory().clone();
        let bar = PCI_WINDOW + u32::from(slot) * BAR_SIZE;
        // There are 31 slots for functions.
        let port = u16::try_from(u32::from(DOORBELL_PORTS) + u32::from(slot) * PORTS_SIZE).unwrap_or_default();
        let function =
            Function::new(device, memory, Box::new(vectors), Box::new(placed), bar, port).map_err(|error| {
                system("a virtio device asks for a queue of no valid size")(std::io::Error::other(error))
            })?;
        Ok(Attached { function: Arc::new(Mutex::new(function)), doorbells })
    }
}

/// A network device on its tap, and the tap's queues to wait for.
fn network(nic: &Nic) -> std::io::Result<(Net, Vec<OwnedFd>)> {
    let (mut pairs, mut inputs) = (Vec::new(), Vec::new());
    for (at, queue) in nic.taps.iter().enumerate() {
        let tap = queue.try_clone()?;
        let flags = OFlag::from_bits_retain(fcntl(&tap, FcntlArg::F_GETFL)?);
        fcntl(&tap, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        tap::set_header(&tap, VIRTIO_HEADER)?;
        inputs.push(tap.try_clone()?);
        let vhost = nic.vhost.get(at).map(OwnedFd::try_clone).transpose()?;
        pairs.push((tap, vhost));
    }
    let settings = Settings { mac: nic.mac, mtu: nic.mtu, link_down: nic.link_down };
    Ok((Net::new(settings, pairs, Arc::clone(&nic.report)), inputs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_which_queue_is_to_be_served() {
        let (doorbells, inputs) = Source::tokens(3);
        assert_eq!(Source::of(doorbells + 5), Some(Source { function: 3, queue: 5, rang: true }));
        assert_eq!(Source::of(inputs + 2), Some(Source { function: 3, queue: 4, rang: false }));
        assert_eq!((Source::of(0), Source::of(1)), (None, None));
    }
}
