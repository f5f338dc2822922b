//! The virtio functions of a machine: each device with its interrupts, its doorbells and its place on the bus.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::devices::{Net, Rng};
use crate::interrupts::{KvmDoorbells, Routing};
use crate::layout::PCI_WINDOW;
use crate::sys::slots::MachineFd;
use crate::sys::tap;
use crate::virtio::spec::{BAR_SIZE, NOTIFY_MULTIPLIER};
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
    /// An attached tap with IFF_VNET_HDR.
    pub tap: OwnedFd,
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
    /// Where input for the first queue comes from.
    pub(crate) input: Option<OwnedFd>,
}

/// The virtio functions in the order of their slots, the first after the host bridge.
///
/// # Errors
/// When the host refuses a part of one.
pub(crate) fn attach(machine: &Arc<MachineFd>, nics: Vec<Nic>, rng: bool) -> Result<Vec<Attached>, AttachError> {
    let system = |what| move |source| AttachError { what, source };
    let routing = Routing::new(Arc::clone(machine));
    let mut devices: Vec<(Box<dyn Device>, Option<OwnedFd>)> = Vec::new();
    for nic in nics {
        let (device, input) = network(nic).map_err(system("the tap of a network device cannot be used"))?;
        devices.push((Box::new(device), Some(input)));
    }
    if rng {
        let device = Rng::new().map_err(system("the host's random bytes cannot be opened"))?;
        devices.push((Box::new(device), None));
    }
    let attach = |(slot, (device, input)): (u32, (Box<dyn Device>, Option<OwnedFd>))| {
        let queues = device.queue_sizes().len();
        let vectors = routing.vectors(queues + 1).map_err(system("no interrupt for a virtio device"))?;
        let event = |_| EventFd::new(EFD_NONBLOCK).map(Arc::new);
        let doorbells: Vec<_> =
            (0..queues).map(event).collect::<Result<_, _>>().map_err(system("no event descriptor"))?;
        let placed = KvmDoorbells::new(Arc::clone(machine), doorbells.clone(), NOTIFY_MULTIPLIER);
        let memory = machine.memory().clone();
        let bar = PCI_WINDOW + slot * BAR_SIZE;
        let function = Function::new(device, memory, Box::new(vectors), Box::new(placed), bar).map_err(|error| {
            system("a virtio device asks for a queue of no valid size")(std::io::Error::other(error))
        })?;
        Ok(Attached { function: Arc::new(Mutex::new(function)), doorbells, input })
    };
    (1_u32..).zip(devices).map(attach).collect()
}

/// A network device on its tap, and the tap to wait for.
fn network(nic: Nic) -> std::io::Result<(Net, OwnedFd)> {
    let (input, offloads) = (nic.tap.try_clone()?, nic.tap.try_clone()?);
    let flags = OFlag::from_bits_retain(fcntl(&nic.tap, FcntlArg::F_GETFL)?);
    fcntl(&nic.tap, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    tap::set_header(&nic.tap, VIRTIO_HEADER)?;
    let offload = Box::new(move |flags| tap::set_offload(&offloads, flags).map_err(std::io::Error::from));
    Ok((Net::new(nic.tap.into(), offload, nic.mac, nic.mtu), input))
}
