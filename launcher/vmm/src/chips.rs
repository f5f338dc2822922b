//! What KVM has of a machine beyond processors and memory: interrupt controllers, timer and clock; and what a snapshot keeps of
//! them.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_PIT_SPEAKER_DUMMY, kvm_clock_data,
    kvm_irqchip, kvm_irqchip__bindgen_ty_1, kvm_pic_state, kvm_pit_config, kvm_pit_state2,
};
use kvm_ioctls::{Kvm, VmFd};
use serde::{Deserialize, Serialize};

use crate::kernel_bytes::KernelBytes;
use crate::layout::KVM_TSS;

/// KVM refused.
#[derive(Debug, thiserror::Error)]
#[error("KVM refuses {what}")]
pub(crate) struct ChipsError {
    /// What was asked of it.
    pub(crate) what: &'static str,
    /// Its answer.
    #[source]
    pub(crate) source: kvm_ioctls::Error,
}

fn refused(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> ChipsError {
    move |source| ChipsError { what, source }
}

/// KVM's virtual machine with interrupt controllers and timer in the kernel.
///
/// # Errors
/// When KVM refuses.
pub(crate) fn create(kvm: &Kvm) -> Result<VmFd, ChipsError> {
    let fd = kvm.create_vm().map_err(refused("a virtual machine"))?;
    fd.set_tss_address(KVM_TSS).map_err(refused("room for its task segment"))?;
    fd.create_irq_chip().map_err(refused("interrupt controllers"))?;
    mask(&fd)?;
    // With the dummy speaker KVM serves port 0x61, by which Linux measures the processor's frequency.
    let timer = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    fd.create_pit2(timer).map_err(refused("a timer"))?;
    Ok(fd)
}

/// Masks all of both 8259s, as firmware does before it starts a kernel that may not know of them: with hardware-reduced ACPI Linux
/// leaves them as they are.
fn mask(fd: &VmFd) -> Result<(), ChipsError> {
    // KVM's own after a reset: which pins may be level-triggered.
    for (chip_id, elcr_mask) in [(KVM_IRQCHIP_PIC_MASTER, 0xf8), (KVM_IRQCHIP_PIC_SLAVE, 0xde)] {
        let pic = kvm_pic_state { imr: 0xff, elcr_mask, ..Default::default() };
        let chip = kvm_irqchip { chip_id, chip: kvm_irqchip__bindgen_ty_1 { pic }, ..Default::default() };
        fd.set_irqchip(&chip).map_err(refused("to mask an interrupt controller"))?;
    }
    Ok(())
}

/// Version 1.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ChipsState {
    /// Both 8259s and the I/O APIC.
    interrupt_controllers: [KernelBytes<kvm_irqchip>; 3],
    timer: KernelBytes<kvm_pit_state2>,
    /// Nanoseconds that the guest has run, by KVM's clock.
    clock: u64,
}

impl ChipsState {
    /// The state while no processor runs.
    ///
    /// # Errors
    /// When KVM refuses.
    pub(crate) fn save(fd: &VmFd) -> Result<Self, ChipsError> {
        let controller = |chip_id| {
            let mut state = kvm_irqchip { chip_id, ..Default::default() };
            fd.get_irqchip(&mut state).map_err(refused("the state of an interrupt controller"))?;
            Ok(KernelBytes(state))
        };
        Ok(Self {
            interrupt_controllers: [
                controller(KVM_IRQCHIP_PIC_MASTER)?,
                controller(KVM_IRQCHIP_PIC_SLAVE)?,
                controller(KVM_IRQCHIP_IOAPIC)?,
            ],
            timer: KernelBytes(fd.get_pit2().map_err(refused("the timer's state"))?),
            clock: fd.get_clock().map_err(refused("its clock"))?.clock,
        })
    }

    /// Gives a machine whose processors have their state this one. The guest's clock goes on where it was.
    ///
    /// # Errors
    /// When KVM refuses.
    pub(crate) fn restore(&self, fd: &VmFd) -> Result<(), ChipsError> {
        for controller in &self.interrupt_controllers {
            fd.set_irqchip(&controller.0).map_err(refused("the saved state of an interrupt controller"))?;
        }
        fd.set_pit2(&self.timer.0).map_err(refused("the saved state of the timer"))?;
        let clock = kvm_clock_data { clock: self.clock, ..Default::default() };
        fd.set_clock(&clock).map_err(refused("the saved clock"))
    }
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_pit_channel_state;

    use super::*;
    use crate::devices::golden;

    // spec: LAB-20
    #[test]
    fn the_state_of_interrupt_controllers_and_timer_has_a_fixed_shape() {
        let controller = |chip_id| KernelBytes(kvm_irqchip { chip_id, ..Default::default() });
        let mut timer = kvm_pit_state2::default();
        timer.channels[0] = kvm_pit_channel_state { count: 0x1_0000, mode: 2, ..Default::default() };
        let state = ChipsState {
            interrupt_controllers: [controller(0), controller(1), controller(2)],
            timer: KernelBytes(timer),
            clock: 1_234_567_890,
        };
        golden("chips", &state);
    }
}
