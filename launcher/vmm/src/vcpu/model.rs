//! What a guest is given of its host's processor, so that it can go on at another host (CPUID leaves, before topology).
//!
//! `host-model` is what this release knows of what KVM supports, without what varies between hosts of one kind: a later kernel or
//! microcode adds nothing to it. `x86-64-v2` and `x86-64-v3` are the levels of the x86-64 psABI, the same on every host of a
//! vendor, with no mitigation that needs a processor's help. `host-passthrough` is all that KVM supports.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use machine::CpuModel;

/// The processor lacks what a model has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("machine.cpu.model: the host's processor and KVM have no {}, which {model} has", lacks.join(", "))]
pub struct ModelError {
    /// The model's name.
    pub model: &'static str,
    /// Names of features, as in /proc/cpuinfo.
    pub lacks: Vec<&'static str>,
}

/// Registers of a leaf, in the order EAX, EBX, ECX, EDX.
type Registers = [u32; 4];

/// State of the extended control register 0 that is kept: x87, SSE, AVX, AVX-512 (three parts), protection keys. It is leaf D, too:
/// each part has the index of its bit.
const EXTENDED_STATE: u32 = 0b10_1110_0111;
/// Leaf D: sizes of the extended state, EBX and ECX of index 0, begin with legacy state and header.
const LEAST_STATE: u32 = 576;

/// Features by leaf and index (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E): a bit for each that is kept of `host-model`.
/// Left out are TSX and what else microcode takes away, nested virtualization, counters of performance, the time-stamp
/// counter's invariance (another host has another frequency), and state that KVM gives to no process unasked (AMX).
const KNOWN: [(u32, u32, Registers); 12] = [
    (0x1, 0, [u32::MAX, u32::MAX, 0xf7fa_3203, 0x1f8b_fbff]),
    // The local APIC's timer runs in every state.
    (0x6, 0, [1 << 2, 0, 0, 0]),
    (0x7, 0, [0, 0xf1bf_27ab, 0x1a40_5f4e, 0xbc80_4410]),
    (0x7, 1, [0x0000_1c30, 0, 0, 0]),
    (0x7, 2, [0, 0, 0, 0x1f]),
    (0xd, 1, [0xf, 0, 0, 0]),
    (0x4000_0001, 0, [0x0100_fefb, 0, 0, 0]),
    (0x8000_0001, 0, [u32::MAX, 0, 0x0040_03f3, 0x2fd3_fbff]),
    (0x8000_0008, 0, [0xffff, 0x1702_d205, 0, 0]),
    (0x8000_0021, 0, [0x3800_0144, 0, 0, 0]),
    (0x8000_001d, u32::MAX, [u32::MAX; 4]),
    (0x8000_001e, 0, [u32::MAX; 4]),
];
/// Leaves that are kept as they are: sizes, vendor, caches, names.
const WHOLE: [u32; 10] =
    [0x0, 0x2, 0x4, 0x4000_0000, 0x8000_0000, 0x8000_0002, 0x8000_0003, 0x8000_0004, 0x8000_0005, 0x8000_0006];

/// A feature of a level: name, level, leaf, register, bit.
type Feature = (&'static str, u32, u32, usize, u32);

const ECX: usize = 2;
/// The psABI's features beyond the first level's, which every processor with KVM has.
const LEVELS: [Feature; 16] = [
    ("pni", 2, 0x1, ECX, 0),
    ("ssse3", 2, 0x1, ECX, 9),
    ("cx16", 2, 0x1, ECX, 13),
    ("sse4_1", 2, 0x1, ECX, 19),
    ("sse4_2", 2, 0x1, ECX, 20),
    ("popcnt", 2, 0x1, ECX, 23),
    ("lahf_lm", 2, 0x8000_0001, ECX, 0),
    ("fma", 3, 0x1, ECX, 12),
    ("movbe", 3, 0x1, ECX, 22),
    ("xsave", 3, 0x1, ECX, 26),
    ("avx", 3, 0x1, ECX, 28),
    ("f16c", 3, 0x1, ECX, 29),
    ("bmi1", 3, 0x7, 1, 3),
    ("avx2", 3, 0x7, 1, 5),
    ("bmi2", 3, 0x7, 1, 8),
    ("abm", 3, 0x8000_0001, ECX, 5),
];
/// Features of every level by leaf: of leaf 1 the x2APIC, the hypervisor and all of the first level; NX, SYSCALL, long mode.
const FIRST_LEVEL: [(u32, Registers); 4] = [
    (0x1, [0, 0x0800, 1 << 21 | 1 << 31, 0x078b_fbff]),
    (0x6, [1 << 2, 0, 0, 0]),
    (0x4000_0001, [0x0100_00fb, 0, 0, 0]),
    (0x8000_0001, [0, 0, 0, 1 << 29 | 1 << 20 | 1 << 11]),
];
/// Family, model and stepping of a level's processor: a Nehalem's and a Zen's, for kernels switch features of older ones off.
const SIGNATURE_INTEL: u32 = 0x0001_06a3;
const SIGNATURE_AMD: u32 = 0x0080_0f12;
/// "AuthenticAMD" begins with it, as EBX of leaf 0 has it.
const AMD: u32 = u32::from_le_bytes(*b"Auth");

/// The leaves of a model on a host whose KVM supports `supported`.
///
/// # Errors
/// When the host lacks a feature of it.
pub(super) fn leaves(model: CpuModel, supported: &CpuId) -> Result<Vec<kvm_cpuid_entry2>, ModelError> {
    let supported = supported.as_slice();
    match model {
        CpuModel::HostPassthrough => Ok(supported.to_vec()),
        CpuModel::HostModel => Ok(host_model(supported)),
        CpuModel::X86V2 => level(model, 2, supported),
        CpuModel::X86V3 => level(model, 3, supported),
    }
}

fn host_model(supported: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
    let mut leaves: Vec<_> = supported.iter().filter_map(known).collect();
    finish(&mut leaves);
    leaves
}

/// What is kept of a leaf, if anything is.
fn known(leaf: &kvm_cpuid_entry2) -> Option<kvm_cpuid_entry2> {
    let mut kept = *leaf;
    let is_known = |(function, index, _): &&(u32, u32, Registers)| {
        *function == leaf.function && (*index == leaf.index || *index == u32::MAX)
    };
    match KNOWN.iter().find(is_known) {
        Some((.., masks)) => mask(&mut kept, masks),
        None if leaf.function == 0xd && leaf.index == 0 => mask(&mut kept, &[EXTENDED_STATE, 0, 0, 0]),
        None if leaf.function == 0xd && EXTENDED_STATE.checked_shr(leaf.index).unwrap_or(0) & 1 != 0 => {}
        None if WHOLE.contains(&leaf.function) => {}
        None => return None,
    }
    Some(kept)
}

fn mask(leaf: &mut kvm_cpuid_entry2, masks: &Registers) {
    let [eax, ebx, ecx, edx] = masks;
    leaf.eax &= eax;
    leaf.ebx &= ebx;
    leaf.ecx &= ecx;
    leaf.edx &= edx;
}

fn level(model: CpuModel, level: u32, supported: &[kvm_cpuid_entry2]) -> Result<Vec<kvm_cpuid_entry2>, ModelError> {
    let of = |function, index| {
        let mut leaves = supported.iter();
        leaves.find(|leaf| leaf.function == function && leaf.index == index).copied().unwrap_or_default()
    };
    let register = |leaf: &kvm_cpuid_entry2, at| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx].get(at).copied().unwrap_or(0);
    let features = || LEVELS.iter().filter(|(_, of_level, ..)| *of_level <= level);
    let lacks: Vec<_> = features()
        .filter(|(_, _, function, at, bit)| register(&of(*function, 0), *at) >> bit & 1 == 0)
        .map(|(name, ..)| *name)
        .collect();
    if !lacks.is_empty() {
        return Err(ModelError { model: model.name(), lacks });
    }
    let vendor = of(0, 0);
    let signature = if vendor.ebx == AMD { SIGNATURE_AMD } else { SIGNATURE_INTEL };
    let leaf = |function, [eax, ebx, ecx, edx]: Registers| kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        edx,
        flags: if matches!(function, 0x7 | 0xd) { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 },
        ..Default::default()
    };
    let with_features = |function| {
        let first = FIRST_LEVEL.iter().find(|(of, _)| *of == function).map_or([0; 4], |(_, registers)| *registers);
        let added = features().filter(|(_, _, of, ..)| *of == function);
        let registers = added.fold(first, |mut registers, (.., at, bit)| {
            if let Some(register) = registers.get_mut(*at) {
                *register |= 1 << bit;
            }
            registers
        });
        leaf(function, registers)
    };
    let mut first = with_features(1);
    first.eax = signature;
    let mut extended = with_features(0x8000_0001);
    extended.eax = signature;
    let mut hypervisor = with_features(0x4000_0001);
    mask(&mut hypervisor, &[of(0x4000_0001, 0).eax, 0, 0, 0]);
    let addresses = of(0x8000_0008, 0).eax & 0xffff;
    let mut leaves = vec![
        leaf(0, [0, vendor.ebx, vendor.ecx, vendor.edx]),
        first,
        with_features(6),
        of(0x4000_0000, 0),
        hypervisor,
        leaf(0x8000_0000, [0; 4]),
        extended,
        leaf(0x8000_0008, [addresses, 0, 0, 0]),
    ];
    if level > 2 {
        leaves.push(with_features(7));
        leaves.push(leaf(0xd, [0b111, 0, 0, 0]));
        // Where and how large is what AVX adds.
        leaves.push(of(0xd, 2));
    }
    let name = format!("{:<48}", model.name());
    let words: Vec<u32> = name.as_bytes().as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let names = (0x8000_0002..).zip(words.as_chunks().0);
    leaves.extend(names.map(|(function, registers)| leaf(function, *registers)));
    finish(&mut leaves);
    Ok(leaves)
}

/// Sizes that follow from what is there: the last leaf of each range, and the bytes of the extended state.
fn finish(leaves: &mut Vec<kvm_cpuid_entry2>) {
    leaves.sort_by_key(|leaf| (leaf.function, leaf.index));
    let last = |range: std::ops::RangeInclusive<u32>| {
        leaves.iter().map(|leaf| leaf.function).filter(|function| range.contains(function)).max().unwrap_or_default()
    };
    // Leaf B is added with the topology.
    let of_leaf_7 = leaves.iter().filter(|leaf| leaf.function == 0x7).map(|leaf| leaf.index).max().unwrap_or_default();
    let (basic, extended) = (last(0..=0xffff).max(0xb), last(0x8000_0000..=0x8000_ffff));
    let parts = leaves.iter().filter(|leaf| leaf.function == 0xd && leaf.index > 1);
    let state = parts.map(|leaf| leaf.eax.saturating_add(leaf.ebx)).max().unwrap_or(LEAST_STATE);
    for leaf in leaves {
        match (leaf.function, leaf.index) {
            (0, _) => leaf.eax = basic,
            (0x7, 0) => leaf.eax = of_leaf_7,
            (0x8000_0000, _) => leaf.eax = extended,
            // EBX is the size of what the guest has switched on: KVM changes it, or leaves it as it was given.
            (0xd, 0) => (leaf.ebx, leaf.ecx) = (state, state),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
