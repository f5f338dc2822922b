//! Tests of the models, on what two hosts' KVM supports.

use std::fmt::Write as _;

use super::*;

const MODELS: [CpuModel; 3] = [CpuModel::HostModel, CpuModel::X86V2, CpuModel::X86V3];

/// Leaves of a file: function.index, flags, EAX, EBX, ECX, EDX, in hexadecimal digits.
fn host(name: &str) -> CpuId {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cpuid");
    let text = std::fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap();
    let number = |text: &str| u32::from_str_radix(text, 16).unwrap();
    let leaf = |line: &str| {
        let words: Vec<_> = line.split([' ', '.']).map(number).collect();
        let [function, index, flags, eax, ebx, ecx, edx] = words[..] else { panic!("{line}") };
        kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() }
    };
    let leaves: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(leaf).collect();
    CpuId::from_entries(&leaves).unwrap()
}

fn text(leaves: &[kvm_cpuid_entry2]) -> String {
    leaves.iter().fold(String::new(), |mut text, leaf| {
        let kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, .. } = leaf;
        writeln!(text, "{function:08x}.{index:x} {flags:x} {eax:08x} {ebx:08x} {ecx:08x} {edx:08x}").unwrap();
        text
    })
}

fn leaf(leaves: &[kvm_cpuid_entry2], function: u32) -> kvm_cpuid_entry2 {
    *leaves.iter().find(|leaf| leaf.function == function && leaf.index == 0).unwrap()
}

// spec: LAB-35
#[test]
fn each_model_has_fixed_leaves_on_two_hosts() {
    for name in ["epyc", "xeon"] {
        for model in MODELS {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cpuid");
            let path = folder.join(format!("{name}.{}.txt", model.name()));
            let found = text(&leaves(model, &host(name)).unwrap());
            if std::env::var_os("TAPVISOR_REWRITE_GOLDEN").is_some() {
                std::fs::write(&path, &found).unwrap();
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(found, kept, "{} (TAPVISOR_REWRITE_GOLDEN=1 rewrites it)", path.display());
        }
    }
}

// spec: LAB-35
#[test]
fn a_level_is_the_same_on_hosts_of_two_vendors_but_for_who_made_them() {
    for model in [CpuModel::X86V2, CpuModel::X86V3] {
        let [one, other] = ["epyc", "xeon"].map(|name| {
            let mut leaves = leaves(model, &host(name)).unwrap();
            // Who made it, and the width of its addresses.
            leaves.retain(|leaf| !matches!(leaf.function, 0 | 0x8000_0008));
            leaves.iter_mut().filter(|leaf| matches!(leaf.function, 1 | 0x8000_0001)).for_each(|leaf| leaf.eax = 0);
            text(&leaves)
        });
        assert_eq!(one, other);
    }
}

// spec: LAB-35
#[test]
fn a_later_hosts_additions_are_not_in_the_host_model() {
    let before = leaves(CpuModel::HostModel, &host("epyc")).unwrap();
    let mut later = host("epyc").as_slice().to_vec();
    for leaf in later.iter_mut().filter(|leaf| matches!(leaf.function, 0x7 | 0x8000_0007 | 0x8000_0021)) {
        // Bits that no processor has today, and the invariant time-stamp counter.
        (leaf.eax, leaf.edx) = (leaf.eax | if leaf.function == 7 { 0 } else { 1 << 20 }, leaf.edx | 1 << 8 | 1 << 2);
    }
    later.push(kvm_cpuid_entry2 { function: 0x8000_0030, eax: u32::MAX, ..Default::default() });
    let after = leaves(CpuModel::HostModel, &CpuId::from_entries(&later).unwrap()).unwrap();
    assert_eq!(text(&before), text(&after));
}

// spec: LAB-35
#[test]
fn a_host_that_lacks_a_feature_of_a_level_is_named_with_all_that_it_lacks() {
    let mut old = host("epyc").as_slice().to_vec();
    old.iter_mut().filter(|leaf| leaf.function == 7).for_each(|leaf| leaf.ebx = 0);
    let old = CpuId::from_entries(&old).unwrap();
    assert!(leaves(CpuModel::X86V2, &old).is_ok());
    let error = leaves(CpuModel::X86V3, &old).unwrap_err();
    let expected = "machine.cpu.model: the host's processor and KVM have no bmi1, avx2, bmi2, which x86-64-v3 has";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_host_model_has_no_nested_guests_no_tsx_and_a_state_of_its_own_size() {
    for name in ["epyc", "xeon"] {
        let leaves = leaves(CpuModel::HostModel, &host(name)).unwrap();
        assert_eq!(leaf(&leaves, 1).ecx & 1 << 5, 0, "VMX");
        assert_eq!(leaf(&leaves, 0x8000_0001).ecx & 1 << 2, 0, "SVM");
        assert_eq!(leaf(&leaves, 7).ebx & (1 << 4 | 1 << 11), 0, "HLE, RTM");
        let (state, parts) = (leaf(&leaves, 0xd), leaves.iter().filter(|leaf| leaf.function == 0xd && leaf.index > 1));
        assert_eq!(Some(state.ecx), parts.map(|part| part.eax + part.ebx).max());
    }
}
