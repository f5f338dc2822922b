//! PCI configuration space of a virtio function: the header, and the capabilities that say where its registers are.

use super::spec::{
    BAR_OF_PORTS, BAR_SIZE, CAP_COMMON, CAP_DEVICE, CAP_ID_MSIX, CAP_ID_VENDOR, CAP_ISR, CAP_NOTIFY, CAP_PCI,
    COMMAND_MEMORY, COMMAND_PORTS, COMMON_AT, COMMON_BYTES, DEVICE_AT, DEVICE_BASE, ISR_AT, MSIX_PENDING_AT,
    MSIX_TABLE_AT, NOTIFY_AT, NOTIFY_MULTIPLIER, PART_SIZE, PORTS_SIZE, VENDOR,
};

/// Registers (PCI 3.0 §6.1, figure 6-1) by their numbers.
const COMMAND: u16 = 1;
const BAR_0: u16 = 4;
const BAR_1: u16 = 5;
const INTERRUPT: u16 = 15;
/// Places of the capabilities, in bytes.
const MSIX: u8 = 0x40;
const COMMON: u8 = 0x4c;
const NOTIFY: u8 = 0x5c;
const ISR: u8 = 0x70;
const DEVICE: u8 = 0x80;
const WINDOW: u8 = 0x90;
const PORTS: u8 = 0xa4;
/// MSI-X: message control is the upper half of its first register.
const MSIX_REGISTER: u16 = MSIX as u16 / 4;
/// The window of §4.1.4.9: BAR, offset, length, and the data register.
const WINDOW_BAR: u16 = WINDOW as u16 / 4 + 1;
const WINDOW_OFFSET: u16 = WINDOW as u16 / 4 + 2;
const WINDOW_LENGTH: u16 = WINDOW as u16 / 4 + 3;
const WINDOW_DATA: u16 = WINDOW as u16 / 4 + 4;
/// Status: there is a list of capabilities (PCI 3.0 §6.2.3).
const STATUS_CAPABILITIES: u32 = 1 << 20;
/// Bits of the command register that hold something: ports, memory, bus master, interrupts off.
const COMMAND_BITS: u32 = COMMAND_PORTS as u32 | COMMAND_MEMORY as u32 | 1 << 2 | 1 << 10;

/// What a write to a register means beyond its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing more.
    Plain,
    /// The BAR or its decoding may have changed.
    Window,
    /// Message control of MSI-X.
    Control(u16),
    /// The data register of the window.
    Data,
}

/// The registers of one function.
#[derive(Debug)]
pub(super) struct Configuration {
    registers: [u32; 64],
}

impl Configuration {
    /// After a reset, with BAR 0 at `bar` and BAR 1 at `port`. A device without configuration of its own has no capability for it:
    /// Linux walks the list a dozen times while it boots, and each entry costs two exits.
    pub(super) fn new(device_type: u16, class: u32, vectors: u16, (bar, port): (u32, u16), has_device: bool) -> Self {
        let id = DEVICE_BASE + device_type;
        let mut this = Self { registers: [0; 64] };
        this.set(0, u32::from(id) << 16 | u32::from(VENDOR));
        this.set(COMMAND, STATUS_CAPABILITIES);
        // §4.1.2.1: revision 1 or higher for modern devices.
        this.set(2, class << 8 | 1);
        this.set(BAR_0, bar);
        this.set(BAR_1, u32::from(port) | BAR_OF_PORTS);
        this.set(11, u32::from(id) << 16 | u32::from(VENDOR));
        this.set(13, MSIX.into());
        this.place(
            MSIX,
            [
                u32::from(CAP_ID_MSIX) | u32::from(COMMON) << 8 | u32::from(vectors) << 16,
                MSIX_TABLE_AT,
                MSIX_PENDING_AT,
            ],
        );
        this.place(COMMON, capability(PORTS, 16, CAP_COMMON, COMMON_AT, COMMON_BYTES));
        // §4.1.4: drivers prefer the first of a kind; those that take no ports have the second.
        this.place(PORTS, [capability(NOTIFY, 20, CAP_NOTIFY, 0, 0)[0], 1, 0, PORTS_SIZE]);
        this.set(u16::from(PORTS) / 4 + 4, NOTIFY_MULTIPLIER);
        this.place(NOTIFY, capability(ISR, 20, CAP_NOTIFY, NOTIFY_AT, PART_SIZE));
        this.set(u16::from(NOTIFY) / 4 + 4, NOTIFY_MULTIPLIER);
        this.place(ISR, capability(if has_device { DEVICE } else { WINDOW }, 16, CAP_ISR, ISR_AT, 4));
        if has_device {
            this.place(DEVICE, capability(WINDOW, 16, CAP_DEVICE, DEVICE_AT, PART_SIZE));
        }
        this.place(WINDOW, capability(0, 20, CAP_PCI, 0, 0));
        this
    }

    fn set(&mut self, register: u16, value: u32) {
        if let Some(place) = self.registers.get_mut(usize::from(register)) {
            *place = value;
        }
    }

    fn place<const N: usize>(&mut self, at: u8, words: [u32; N]) {
        (u16::from(at) / 4..).zip(words).for_each(|(register, word)| self.set(register, word));
    }

    /// Reads a register; those beyond 255 bytes are zero.
    pub(super) fn read(&self, register: u16) -> u32 {
        self.registers.get(usize::from(register)).copied().unwrap_or(0)
    }

    /// Whether the register is the data of the window.
    pub(super) fn is_window_data(register: u16) -> bool {
        register == WINDOW_DATA
    }

    /// Writes the bytes that `mask` has ones for.
    pub(super) fn write(&mut self, register: u16, value: u32, mask: u32) -> Written {
        let writable = match register {
            COMMAND => COMMAND_BITS,
            // Bits below the size stay zero: by them the guest learns it.
            BAR_0 => !(BAR_SIZE - 1),
            BAR_1 => !(PORTS_SIZE - 1) & 0xffff,
            INTERRUPT | WINDOW_BAR => 0xff,
            WINDOW_OFFSET | WINDOW_LENGTH => u32::MAX,
            MSIX_REGISTER if mask & 0xffff_0000 != 0 => {
                let merged = self.read(register) & !mask | value & mask;
                let [_, _, low, high] = merged.to_le_bytes();
                return Written::Control(u16::from_le_bytes([low, high]));
            }
            WINDOW_DATA => return Written::Data,
            _ => 0,
        };
        let mask = mask & writable;
        let merged = self.read(register) & !mask | value & mask;
        self.set(register, merged);
        if matches!(register, COMMAND | BAR_0 | BAR_1) { Written::Window } else { Written::Plain }
    }

    /// Notes what message control reads as.
    pub(super) fn set_control(&mut self, control: u16) {
        self.set(MSIX_REGISTER, self.read(MSIX_REGISTER) & 0xffff | u32::from(control) << 16);
    }

    /// Where BAR 0 is, while memory is decoded there.
    pub(super) fn window(&self) -> Option<u64> {
        let bar = self.read(BAR_0) & !(BAR_SIZE - 1);
        (self.read(COMMAND) & u32::from(COMMAND_MEMORY) != 0 && bar != 0).then_some(bar.into())
    }

    /// Where BAR 1 is, while ports are decoded there.
    pub(super) fn ports(&self) -> Option<u16> {
        let port = self.read(BAR_1) & !(PORTS_SIZE - 1) & 0xffff;
        (self.read(COMMAND) & u32::from(COMMAND_PORTS) != 0)
            .then_some(u16::try_from(port).ok()?)
            .filter(|port| *port != 0)
    }

    /// The place in BAR 0 that the window shows, and how many bytes; nothing while it is set wrongly (§4.1.4.9.1). Of BAR 1 it
    /// shows the same doorbells in BAR 0.
    pub(super) fn shown(&self) -> Option<(u64, usize)> {
        let (offset, length) = (self.read(WINDOW_OFFSET), self.read(WINDOW_LENGTH));
        let (base, size) = match self.read(WINDOW_BAR) & 0xff {
            0 => (0, BAR_SIZE),
            1 => (NOTIFY_AT, PORTS_SIZE),
            _ => return None,
        };
        let aligned = matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length);
        let fits = offset.checked_add(length).is_some_and(|end| end <= size);
        (aligned && fits).then_some((u64::from(base) + u64::from(offset), length as usize))
    }

    /// All registers, for a snapshot.
    pub(super) fn registers(&self) -> &[u32; 64] {
        &self.registers
    }

    /// Takes over what a guest can write of saved registers.
    pub(super) fn restore(&mut self, registers: &[u32]) {
        for (register, value) in (0_u16..).zip(registers) {
            if matches!(register, COMMAND | BAR_0 | BAR_1 | INTERRUPT | WINDOW_BAR | WINDOW_OFFSET | WINDOW_LENGTH) {
                self.write(register, *value, u32::MAX);
            }
        }
    }
}

/// `struct virtio_pci_cap`, §4.1.4, in BAR 0.
fn capability(next: u8, length: u8, kind: u8, offset: u32, size: u32) -> [u32; 4] {
    [u32::from_le_bytes([CAP_ID_VENDOR, next, length, kind]), 0, offset, size]
}
