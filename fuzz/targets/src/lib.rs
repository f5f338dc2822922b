//! Foreign bytes: what every reader of foreign input must hold to, whatever it is given.
//!
//! A target is one function that panics when a reader breaks its promise. The fuzzers of the workspace around this
//! package call it with inputs they invent; the tests here call it on stable with every input that is kept.

#[cfg(feature = "readers")]
pub mod agent;
#[cfg(feature = "readers")]
pub mod cni;
#[cfg(feature = "readers")]
pub mod dhcpv4;
#[cfg(feature = "readers")]
pub mod dhcpv6;
#[cfg(feature = "readers")]
mod guest;
#[cfg(feature = "readers")]
pub mod image;
pub mod inputs;
#[cfg(feature = "readers")]
pub mod manifest;
#[cfg(feature = "readers")]
pub mod monitor;
#[cfg(feature = "readers")]
pub mod neighbour;
#[cfg(feature = "readers")]
pub mod pool;
#[cfg(feature = "readers")]
pub mod tftp;
pub mod vmm;
#[cfg(feature = "readers")]
pub mod wiring;

/// A reader of foreign input and how its result is checked.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of its fuzzer and of its files.
    pub name: &'static str,
    /// Reads an input and panics when a promise is broken.
    pub check: fn(&[u8]),
    /// Longest input that is worth trying.
    pub max_bytes: usize,
    /// Inputs that lie elsewhere in the repository: examples, recorded clients.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

const KIB: usize = 1024;

/// All targets, in the order in which they are run.
pub const TARGETS: &[Target] = &[
    #[cfg(feature = "readers")]
    Target { name: "cni", check: cni::check, max_bytes: 16 * KIB, seeds: Vec::new },
    #[cfg(feature = "readers")]
    Target { name: "wiring", check: wiring::check, max_bytes: 8 * KIB, seeds: Vec::new },
    #[cfg(feature = "readers")]
    Target { name: "manifest", check: manifest::check, max_bytes: 8 * KIB, seeds: manifest::seeds },
    #[cfg(feature = "readers")]
    Target { name: "dhcpv4", check: dhcpv4::check, max_bytes: 4 * KIB, seeds: dhcpv4::seeds },
    #[cfg(feature = "readers")]
    Target { name: "dhcpv6", check: dhcpv6::check, max_bytes: 4 * KIB, seeds: dhcpv6::seeds },
    #[cfg(feature = "readers")]
    Target { name: "pool", check: pool::check, max_bytes: 4 * KIB, seeds: pool::seeds },
    #[cfg(feature = "readers")]
    Target { name: "tftp", check: tftp::check, max_bytes: KIB, seeds: Vec::new },
    #[cfg(feature = "readers")]
    Target { name: "neighbour", check: neighbour::check, max_bytes: 4 * KIB, seeds: neighbour::seeds },
    #[cfg(feature = "readers")]
    Target { name: "monitor", check: monitor::check, max_bytes: 16 * KIB, seeds: Vec::new },
    #[cfg(feature = "readers")]
    Target { name: "agent", check: agent::check, max_bytes: 16 * KIB, seeds: Vec::new },
    #[cfg(feature = "readers")]
    Target { name: "image", check: image::check, max_bytes: 32 * KIB, seeds: image::seeds },
    Target { name: "pci", check: vmm::pci, max_bytes: KIB, seeds: Vec::new },
    Target { name: "mmio", check: vmm::mmio, max_bytes: KIB, seeds: Vec::new },
    Target { name: "virtqueue", check: vmm::virtqueue, max_bytes: 4 * KIB, seeds: Vec::new },
];

/// A refusal is read by a person: it says what is wrong and does not hand the input back.
#[cfg(feature = "readers")]
fn assert_short(message: &str, most_bytes: usize) {
    let start: String = message.chars().take(200).collect();
    assert!(message.len() <= most_bytes, "a message of {} bytes, more than {most_bytes}: {start}…", message.len());
}
