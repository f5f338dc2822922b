//! CPUID of each processor: the leaves of its model, with our topology.

use kvm_bindings::kvm_cpuid_entry2;
use machine::Cpu;

/// Leaf 1, ECX: a hypervisor is there; the TSC-deadline timer (Intel SDM volume 2, CPUID, table 3-10).
const HYPERVISOR: u32 = 1 << 31;
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, EDX: the field of logical processors is valid.
const HYPER_THREADING: u32 = 1 << 28;
/// Leaf 80000008, ECX (AMD APM volume 3, appendix E): threads less one, and the bits of an APIC id.
const AMD_SIZES: u32 = 0x8000_0008;
/// Leaf 8000001E: extended APIC id, compute unit, node (AMD).
const AMD_TOPOLOGY: u32 = 0x8000_001e;

/// Level types of leaf B (Intel SDM volume 2, CPUID, leaf 0BH).
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

/// Processors by thread, core and socket. An APIC id has a field of whole bits for each, as Intel's and AMD's have: with 3
/// cores the ids have gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Topology {
    threads: u32,
    cores: u32,
    sockets: u32,
}

impl Topology {
    /// The topology of a machine.
    pub(crate) fn of(cpu: Cpu) -> Self {
        Self { threads: cpu.threads.max(1), cores: cpu.cores.max(1), sockets: cpu.sockets.max(1) }
    }

    /// Processors in all.
    pub(crate) fn count(self) -> u32 {
        self.of_socket().saturating_mul(self.sockets)
    }

    /// APIC ids in the order of processors; nothing when one needs more than 8 bits, or is the broadcast.
    pub(crate) fn apic_ids(self) -> Option<Vec<u8>> {
        let id = |index: u32| {
            let (thread, core) = (index % self.threads, index / self.threads % self.cores);
            let id = (index / self.of_socket()).checked_shl(self.socket_shift())?;
            u8::try_from(id | core << self.core_shift() | thread).ok().filter(|id| *id != u8::MAX)
        };
        (0..self.count().min(u32::from(u8::MAX) + 1)).map(id).collect()
    }

    fn of_socket(self) -> u32 {
        self.threads.saturating_mul(self.cores)
    }

    fn core_shift(self) -> u32 {
        bits(self.threads)
    }

    fn socket_shift(self) -> u32 {
        bits(self.threads) + bits(self.cores)
    }
}

/// Bits that number `count` things.
fn bits(count: u32) -> u32 {
    u32::BITS - count.saturating_sub(1).leading_zeros()
}

/// The leaves of the processor with APIC id `id`. `deadline` says whether KVM emulates the TSC-deadline timer.
pub(crate) fn of_processor(
    model: &[kvm_cpuid_entry2],
    id: u32,
    topology: Topology,
    deadline: bool,
) -> Vec<kvm_cpuid_entry2> {
    let mut leaves = model.to_vec();
    // Leaf B is ours, one entry for each level; leaf 1F would be read before it.
    leaves.retain(|leaf| leaf.function != 0xb && leaf.function != 0x1f);
    leaves.iter_mut().for_each(|leaf| adapt(leaf, id, topology, deadline));
    leaves.extend(levels(id, topology));
    leaves
}

fn adapt(leaf: &mut kvm_cpuid_entry2, id: u32, topology: Topology, deadline: bool) {
    let of_socket = topology.of_socket();
    match leaf.function {
        1 => {
            // EBX: initial APIC id in the upper byte, logical processors of the package below it.
            leaf.ebx = leaf.ebx & 0xffff | id << 24 | of_socket.min(0xff) << 16;
            leaf.ecx |= HYPERVISOR;
            if deadline {
                leaf.ecx |= TSC_DEADLINE;
            }
            if of_socket > 1 {
                leaf.edx |= HYPER_THREADING;
            } else {
                leaf.edx &= !HYPER_THREADING;
            }
        }
        // Deterministic caches: ids of cores in the package (bits 31-26) and of threads that share a cache (25-14).
        4 if leaf.eax & 0x1f != 0 => {
            let level = leaf.eax >> 5 & 0x7;
            let sharing = if level < 3 { topology.threads } else { of_socket };
            leaf.eax = leaf.eax & 0x3fff | (topology.cores - 1).min(0x3f) << 26 | (sharing - 1).min(0xfff) << 14;
        }
        AMD_SIZES => leaf.ecx = topology.socket_shift() << 12 | (of_socket - 1).min(0xff),
        AMD_TOPOLOGY => {
            leaf.eax = id;
            leaf.ebx = (id >> topology.core_shift()) & 0xff | (topology.threads - 1).min(0xff) << 8;
            leaf.ecx = id.checked_shr(topology.socket_shift()).unwrap_or_default() & 0xff;
        }
        _ => {}
    }
}

/// Leaf B: level by level the processors up to it, and the shift of the APIC id to the next.
fn levels(id: u32, topology: Topology) -> [kvm_cpuid_entry2; 3] {
    let level = |index: u32, shift, count, kind| kvm_cpuid_entry2 {
        function: 0xb,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: count,
        ecx: kind | index,
        edx: id,
        ..Default::default()
    };
    [
        level(0, topology.core_shift(), topology.threads, LEVEL_THREAD),
        level(1, topology.socket_shift(), topology.of_socket(), LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use machine::CpuModel;

    use super::*;

    fn leaf(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, eax: 1 << 5 | 1, ebx: 0xaabb_0800, edx: HYPER_THREADING, ..Default::default() }
    }

    fn supported() -> [kvm_cpuid_entry2; 6] {
        [leaf(0), leaf(1), leaf(4), leaf(0xb), leaf(0x1f), leaf(AMD_SIZES)]
    }

    fn topology(sockets: u32, cores: u32, threads: u32) -> Topology {
        Topology::of(Cpu { sockets, cores, threads, model: CpuModel::HostModel })
    }

    #[test]
    fn a_processor_says_who_it_is_and_of_how_many() {
        let leaves = of_processor(&supported(), 5, topology(2, 2, 2), true);
        let one = leaves.iter().find(|leaf| leaf.function == 1).unwrap();
        assert_eq!(one.ebx, 0x0504_0800);
        assert_eq!(one.ecx, HYPERVISOR | TSC_DEADLINE);
        assert_ne!(one.edx & HYPER_THREADING, 0);
        let levels: Vec<_> = leaves.iter().filter(|leaf| leaf.function == 0xb).collect();
        assert_eq!(
            levels.iter().map(|leaf| (leaf.eax, leaf.ebx, leaf.edx)).collect::<Vec<_>>(),
            [(1, 2, 5), (2, 4, 5), (0, 0, 5)]
        );
        assert!(leaves.iter().all(|leaf| leaf.function != 0x1f));
    }

    #[test]
    fn a_single_processor_has_no_siblings() {
        let leaves = of_processor(&supported(), 0, topology(1, 1, 1), false);
        let one = leaves.iter().find(|leaf| leaf.function == 1).unwrap();
        assert_eq!((one.ebx, one.ecx, one.edx & HYPER_THREADING), (0x0001_0800, HYPERVISOR, 0));
    }

    #[test]
    fn apic_ids_have_a_field_for_each_level() {
        assert_eq!(topology(2, 3, 1).apic_ids().unwrap(), [0, 1, 2, 4, 5, 6]);
        assert_eq!(topology(1, 3, 2).apic_ids().unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(topology(64, 1, 1).apic_ids().unwrap().len(), 64);
        assert_eq!(topology(13, 5, 3).apic_ids(), None, "socket 12 begins at 12 * 32");
    }

    #[test]
    fn no_topology_overflows_a_field() {
        for (sockets, cores, threads) in [(0, 0, 0), (1, 256, 2), (u32::MAX, 3, 1), (1, u32::MAX, u32::MAX)] {
            let topology = topology(sockets, cores, threads);
            of_processor(&supported(), 255, topology, true);
            topology.apic_ids();
        }
    }
}
