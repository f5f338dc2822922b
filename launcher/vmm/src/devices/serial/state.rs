//! What a snapshot keeps of the port: its registers and the input that the guest has not read. Output is not kept.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};
use vm_superio::serial::SerialState as Registers;
use vmm_sys_util::eventfd::EventFd;

use super::Console;
use super::device::{Drained, Interrupt, Serial};

/// Version 1: the registers of a 16550A by their names in its data sheet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SerialState {
    pub(crate) divisor_low: u8,
    pub(crate) divisor_high: u8,
    pub(crate) interrupt_enable: u8,
    pub(crate) interrupt_identification: u8,
    pub(crate) line_control: u8,
    pub(crate) line_status: u8,
    pub(crate) modem_control: u8,
    pub(crate) modem_status: u8,
    pub(crate) scratch: u8,
    /// Input that the guest has not read, at most 64 bytes.
    pub(crate) input: Vec<u8>,
}

impl Serial {
    /// Its state.
    pub(crate) fn save(&self) -> SerialState {
        let registers = self.port.state();
        SerialState {
            divisor_low: registers.baud_divisor_low,
            divisor_high: registers.baud_divisor_high,
            interrupt_enable: registers.interrupt_enable,
            interrupt_identification: registers.interrupt_identification,
            line_control: registers.line_control,
            line_status: registers.line_status,
            modem_control: registers.modem_control,
            modem_status: registers.modem_status,
            scratch: registers.scratch,
            input: registers.in_buffer,
        }
    }

    /// A port with this state.
    ///
    /// # Errors
    /// When there is more input than a port holds, or its interrupt cannot be raised.
    pub(crate) fn restore(
        state: SerialState,
        console: Console,
        interrupt: EventFd,
        wake: Arc<EventFd>,
    ) -> std::io::Result<Self> {
        let registers = Registers {
            baud_divisor_low: state.divisor_low,
            baud_divisor_high: state.divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.input,
        };
        let waiting = Arc::new(AtomicBool::new(true));
        let drained = Drained { wake, waiting: Arc::clone(&waiting) };
        let port = vm_superio::Serial::from_state(&registers, Interrupt(interrupt), drained, console)
            .map_err(|error| std::io::Error::other(format!("serial port: {error:?}")))?;
        Ok(Self::of(port, waiting))
    }
}
