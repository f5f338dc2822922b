//! Foreign bytes: what every reader of foreign input must hold to, whatever it is given.
//!
//! A target is one function that panics when a reader breaks its promise. The fuzzers of the workspace around this
//! package call it with inputs they invent; the tests here call it on stable with every input that is kept.

pub mod agent;
pub mod cni;
pub mod dhcpv4;
pub mod dhcpv6;
mod guest;
pub mod image;
pub mod inputs;
pub mod manifest;
pub mod monitor;
pub mod neighbour;
pub mod pool;
pub mod tftp;
pub mod vmm;
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
pub const TARGETS: [Target; 14] = [
    Target { name: "cni", check: cni::check, max_bytes: 16 * KIB, seeds: Vec::new },
    Target { name: "wiring", check: wiring::check, max_bytes: 8 * KIB, seeds: Vec::new },
    Target { name: "manifest", check: manifest::check, max_bytes: 8 * KIB, seeds: manifest::seeds },
    Target { name: "dhcpv4", check: dhcpv4::check, max_bytes: 4 * KIB, seeds: dhcpv4::seeds },
    Target { name: "dhcpv6", check: dhcpv6::check, max_bytes: 4 * KIB, seeds: dhcpv6::seeds },
    Target { name: "pool", check: pool::check, max_bytes: 4 * KIB, seeds: pool::seeds },
    Target { name: "tftp", check: tftp::check, max_bytes: KIB, seeds: Vec::new },
    Target { name: "neighbour", check: neighbour::check, max_bytes: 4 * KIB, seeds: neighbour::seeds },
    Target { name: "monitor", check: monitor::check, max_bytes: 16 * KIB, seeds: Vec::new },
    Target { name: "agent", check: agent::check, max_bytes: 16 * KIB, seeds: Vec::new },
    Target { name: "image", check: image::check, max_bytes: 32 * KIB, seeds: image::seeds },
    Target { name: "pci", check: vmm::pci, max_bytes: KIB, seeds: Vec::new },
    Target { name: "mmio", check: vmm::mmio, max_bytes: KIB, seeds: Vec::new },
    Target { name: "virtqueue", check: vmm::virtqueue, max_bytes: 4 * KIB, seeds: Vec::new },
];

/// A refusal is read by a person: it says what is wrong and does not hand the input back.
fn assert_short(message: &str, most_bytes: usize) {
    let start: String = message.chars().take(200).collect();
    assert!(message.len() <= most_bytes, "a message of {} bytes, more than {most_bytes}: {start}…", message.len());
}
