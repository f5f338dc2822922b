//! What a snapshot keeps of a processor, and its way out of KVM and back.
//!
//! Structures of the kernel's interface, which never change, are kept as their bytes in base64.

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd};
use serde::{Deserialize, Serialize};

use crate::kernel_bytes::KernelBytes;
use crate::sys::xsave;

/// IA32_TSC_DEADLINE and the time-stamp counter (Intel SDM volume 4).
const TSC_DEADLINE: u32 = 0x6e0;
const TSC: u32 = 0x10;
/// The processor may begin to run guests itself: EFER.SVME (AMD APM volume 2, §3.1.7), CR4.VMXE (Intel SDM volume 3, §2.5).
const EFER_SVME: u64 = 1 << 12;
const CR4_VMXE: u64 = 1 << 13;

/// Version 1.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ProcessorState {
    /// Function, index and whether it counts, then EAX, EBX, ECX and EDX of each leaf.
    cpuid: Vec<[u32; 7]>,
    tsc_kilohertz: u32,
    mp_state: u32,
    registers: KernelBytes<kvm_regs>,
    special_registers: KernelBytes<kvm_sregs>,
    floating_point: KernelBytes<kvm_xsave>,
    /// Missing where the host's processor has none.
    extended_control: Option<KernelBytes<kvm_xcrs>>,
    debug_registers: KernelBytes<kvm_debugregs>,
    local_apic: KernelBytes<kvm_lapic_state>,
    /// Index and value, in the order in which KVM lists and takes them.
    model_specific: Vec<(u32, u64)>,
    events: KernelBytes<kvm_vcpu_events>,
}

/// Why a processor's state cannot be saved or restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessorStateError {
    /// KVM refused.
    #[error("KVM refuses {what}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        #[source]
        source: kvm_ioctls::Error,
    },
    /// A guest that runs guests.
    #[error("the guest has switched virtualization on: the state of guests of its own cannot be saved")]
    Nested,
    /// More entries than KVM takes.
    #[error("the state has more leaves of CPUID or model-specific registers than KVM takes")]
    TooMany,
    /// Another clock.
    #[error("the processor's time-stamp counter has {found} kHz and cannot be set to {expected} kHz")]
    Frequency {
        /// The saved processor's.
        expected: u32,
        /// This host's.
        found: u32,
        /// KVM's answer.
        #[source]
        source: kvm_ioctls::Error,
    },
}

fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> ProcessorStateError {
    move |source| ProcessorStateError::Kvm { what, source }
}

impl ProcessorState {
    /// The state of a processor that has completed all accesses.
    ///
    /// # Errors
    /// When KVM refuses, or the guest may run guests itself.
    pub(crate) fn save(host: &Kvm, vcpu: &VcpuFd) -> Result<Self, ProcessorStateError> {
        // First: it makes KVM take start signals of other processors, which changes registers and the local APIC.
        let mp_state = vcpu.get_mp_state().map_err(kvm("a processor's activity"))?.mp_state;
        let special = vcpu.get_sregs().map_err(kvm("a processor's special registers"))?;
        if special.efer & EFER_SVME != 0 || special.cr4 & CR4_VMXE != 0 {
            return Err(ProcessorStateError::Nested);
        }
        let leaves = vcpu.get_cpuid2(kvm_bindings::KVM_MAX_CPUID_ENTRIES).map_err(kvm("a processor's CPUID"))?;
        let extended_control = if host.check_extension(Cap::Xcrs) {
            Some(KernelBytes(vcpu.get_xcrs().map_err(kvm("a processor's extended control registers"))?))
        } else {
            None
        };
        Ok(Self {
            cpuid: leaves.as_slice().iter().map(words).collect(),
            tsc_kilohertz: vcpu.get_tsc_khz().map_err(kvm("a processor's frequency"))?,
            mp_state,
            registers: KernelBytes(vcpu.get_regs().map_err(kvm("a processor's registers"))?),
            special_registers: KernelBytes(special),
            floating_point: KernelBytes(vcpu.get_xsave().map_err(kvm("a processor's floating-point state"))?),
            extended_control,
            debug_registers: KernelBytes(vcpu.get_debug_regs().map_err(kvm("a processor's debug registers"))?),
            local_apic: KernelBytes(vcpu.get_lapic().map_err(kvm("a processor's local APIC"))?),
            model_specific: model_specific(host, vcpu)?,
            events: KernelBytes(vcpu.get_vcpu_events().map_err(kvm("a processor's events"))?),
        })
    }

    /// Gives a new processor this state. The order is KVM's: CPUID says what the others may hold, the local APIC's timer is of
    /// a kind before it gets its deadline, events are last.
    ///
    /// # Errors
    /// When KVM refuses.
    pub(crate) fn restore(&self, vcpu: &VcpuFd) -> Result<(), ProcessorStateError> {
        let leaves: Vec<_> = self.cpuid.iter().map(leaf).collect();
        let leaves = CpuId::from_entries(&leaves).map_err(|_| ProcessorStateError::TooMany)?;
        vcpu.set_cpuid2(&leaves).map_err(kvm("a saved CPUID"))?;
        let found = vcpu.get_tsc_khz().map_err(kvm("a processor's frequency"))?;
        let expected = self.tsc_kilohertz;
        if found != expected {
            let refused = |source| ProcessorStateError::Frequency { expected, found, source };
            vcpu.set_tsc_khz(expected).map_err(refused)?;
        }
        let activity = kvm_mp_state { mp_state: self.mp_state };
        vcpu.set_mp_state(activity).map_err(kvm("a saved activity"))?;
        vcpu.set_regs(&self.registers.0).map_err(kvm("saved registers"))?;
        vcpu.set_sregs(&self.special_registers.0).map_err(kvm("saved special registers"))?;
        xsave::set(vcpu, &self.floating_point.0).map_err(kvm("a saved floating-point state"))?;
        if let Some(control) = &self.extended_control {
            vcpu.set_xcrs(&control.0).map_err(kvm("saved extended control registers"))?;
        }
        vcpu.set_debug_regs(&self.debug_registers.0).map_err(kvm("saved debug registers"))?;
        vcpu.set_lapic(&self.local_apic.0).map_err(kvm("a saved local APIC"))?;
        restore_model_specific(vcpu, &self.model_specific)?;
        vcpu.set_vcpu_events(&self.events.0).map_err(kvm("saved events"))?;
        // The guest's watchdogs are told that it did not run. It fails where the guest does not use KVM's clock.
        let _ = vcpu.kvmclock_ctrl();
        Ok(())
    }
}

fn words(leaf: &kvm_cpuid_entry2) -> [u32; 7] {
    let counts = leaf.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    [leaf.function, leaf.index, counts, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
}

fn leaf(&[function, index, flags, eax, ebx, ecx, edx]: &[u32; 7]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() }
}

/// All registers that KVM lists and gives; it stops at each that it does not give.
fn model_specific(host: &Kvm, vcpu: &VcpuFd) -> Result<Vec<(u32, u64)>, ProcessorStateError> {
    let list = host.get_msr_index_list().map_err(kvm("its list of model-specific registers"))?;
    let (mut rest, mut values) = (list.as_slice(), Vec::new());
    while !rest.is_empty() {
        let entries: Vec<_> = rest.iter().map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
        let mut entries = Msrs::from_entries(&entries).map_err(|_| ProcessorStateError::TooMany)?;
        let read = vcpu.get_msrs(&mut entries).map_err(kvm("a processor's model-specific registers"))?;
        values.extend(entries.as_slice().iter().take(read).map(|entry| (entry.index, entry.data)));
        rest = rest.get(read + 1..).unwrap_or_default();
    }
    Ok(with_deadline(values))
}

/// A deadline that has passed, and whose interrupt KVM has not sent yet, reads as none: the guest would wait for good. One that
/// is due at once costs a guest without a deadline one interrupt that it ignores.
fn with_deadline(mut values: Vec<(u32, u64)>) -> Vec<(u32, u64)> {
    let now = values.iter().find(|(index, _)| *index == TSC).map(|(_, now)| *now);
    let deadline = values.iter_mut().find(|(index, value)| *index == TSC_DEADLINE && *value == 0);
    if let (Some((_, deadline)), Some(now)) = (deadline, now) {
        *deadline = now;
    }
    values
}

fn restore_model_specific(vcpu: &VcpuFd, values: &[(u32, u64)]) -> Result<(), ProcessorStateError> {
    let mut rest = values;
    while !rest.is_empty() {
        let entries: Vec<_> = rest
            .iter()
            .map(|(index, data)| kvm_msr_entry { index: *index, data: *data, ..Default::default() })
            .collect();
        let entries = Msrs::from_entries(&entries).map_err(|_| ProcessorStateError::TooMany)?;
        let written = vcpu.set_msrs(&entries).map_err(kvm("saved model-specific registers"))?;
        if let Some((index, value)) = rest.get(written) {
            // Some can be read and not written; what they hold is fixed on one kind of host.
            tracing::warn!("KVM does not take {value:#x} for the model-specific register {index:#x}");
        }
        rest = rest.get(written + 1..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_dtable;

    use super::*;
    use crate::devices::golden;

    // spec: LAB-20
    #[test]
    fn the_state_of_a_processor_has_a_fixed_shape() {
        let special =
            kvm_sregs { gdt: kvm_dtable { base: 0x500, limit: 39, ..Default::default() }, ..Default::default() };
        golden(
            "processor",
            &ProcessorState {
                cpuid: vec![[0xb, 1, 1, 2, 3, 4, 5]],
                tsc_kilohertz: 2_000_000,
                mp_state: 0,
                registers: KernelBytes(kvm_regs { rip: 0x100_0000, rflags: 2, ..Default::default() }),
                special_registers: KernelBytes(special),
                floating_point: KernelBytes(kvm_xsave::default()),
                extended_control: Some(KernelBytes(kvm_xcrs { nr_xcrs: 1, ..Default::default() })),
                debug_registers: KernelBytes(kvm_debugregs::default()),
                local_apic: KernelBytes(kvm_lapic_state::default()),
                model_specific: vec![(TSC, 12_345), (TSC_DEADLINE, 0)],
                events: KernelBytes(kvm_vcpu_events::default()),
            },
        );
    }

    // spec: LAB-20
    #[test]
    fn a_deadline_that_has_passed_is_due_at_once() {
        assert_eq!(with_deadline(vec![(TSC, 7), (TSC_DEADLINE, 0)]), [(TSC, 7), (TSC_DEADLINE, 7)]);
        assert_eq!(with_deadline(vec![(TSC, 7), (TSC_DEADLINE, 9)]), [(TSC, 7), (TSC_DEADLINE, 9)]);
        assert_eq!(with_deadline(vec![(TSC_DEADLINE, 0)]), [(TSC_DEADLINE, 0)]);
    }

    // spec: LAB-20
    #[test]
    fn a_leaf_of_cpuid_is_kept_with_its_index() {
        let words_of_leaf = [0xb, 1, 1, 2, 3, 4, 5];
        assert_eq!(words(&leaf(&words_of_leaf)), words_of_leaf);
    }
}
