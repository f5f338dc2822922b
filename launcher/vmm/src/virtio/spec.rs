//! Numbers of Virtual I/O Device 1.2 and of PCI Local Bus 3.0, with the section of each.

/// §4.1.2: vendor, and device ids of modern devices, less the device's type.
pub(crate) const VENDOR: u16 = 0x1af4;
pub(crate) const DEVICE_BASE: u16 = 0x1040;
/// §5: device types.
pub(crate) const TYPE_NETWORK: u16 = 1;
pub(crate) const TYPE_ENTROPY: u16 = 4;
pub(crate) const TYPE_BALLOON: u16 = 5;

/// §6: feature bits of all devices.
pub(crate) const F_EVENT_INDEX: u64 = 1 << 29;
pub(crate) const F_INDIRECT: u64 = 1 << 28;
pub(crate) const F_VERSION_1: u64 = 1 << 32;

/// §2.1: bits of the device status.
pub(crate) const FEATURES_OK: u8 = 8;
pub(crate) const DRIVER_OK: u8 = 4;
pub(crate) const NEEDS_RESET: u8 = 0x40;

/// §4.1.4.3: offsets and sizes in the common configuration, and what each is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    Queues,
    Status,
    Generation,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOffset,
    QueueDescriptors,
    QueueDriver,
    QueueDevice,
}

/// Offset, size in bytes, register.
pub(crate) const COMMON: [(usize, usize, Register); 16] = [
    (0, 4, Register::DeviceFeatureSelect),
    (4, 4, Register::DeviceFeature),
    (8, 4, Register::DriverFeatureSelect),
    (12, 4, Register::DriverFeature),
    (16, 2, Register::ConfigVector),
    (18, 2, Register::Queues),
    (20, 1, Register::Status),
    (21, 1, Register::Generation),
    (22, 2, Register::QueueSelect),
    (24, 2, Register::QueueSize),
    (26, 2, Register::QueueVector),
    (28, 2, Register::QueueEnable),
    (30, 2, Register::QueueNotifyOffset),
    (32, 8, Register::QueueDescriptors),
    (40, 8, Register::QueueDriver),
    (48, 8, Register::QueueDevice),
];
pub(crate) const COMMON_SIZE: usize = 56;
pub(crate) const COMMON_BYTES: u32 = 56;

/// §4.1.4.3: no vector.
pub(crate) const NO_VECTOR: u16 = 0xffff;
/// §4.1.4: types of the vendor capabilities.
pub(crate) const CAP_COMMON: u8 = 1;
pub(crate) const CAP_NOTIFY: u8 = 2;
pub(crate) const CAP_ISR: u8 = 3;
pub(crate) const CAP_DEVICE: u8 = 4;
pub(crate) const CAP_PCI: u8 = 5;

/// Our layout of BAR 0, each part at a page of its own.
pub(crate) const BAR_SIZE: u32 = 0x8000;
pub(crate) const COMMON_AT: u32 = 0x0000;
pub(crate) const ISR_AT: u32 = 0x1000;
pub(crate) const DEVICE_AT: u32 = 0x2000;
pub(crate) const NOTIFY_AT: u32 = 0x3000;
pub(crate) const MSIX_TABLE_AT: u32 = 0x4000;
pub(crate) const MSIX_PENDING_AT: u32 = 0x5000;
pub(crate) const PART_SIZE: u32 = 0x1000;
/// Distance of two queues' doorbells.
pub(crate) const NOTIFY_MULTIPLIER: u32 = 4;
/// BAR 1 holds the doorbells once more, as ports: on AMD processors KVM must decode the guest's instruction for a doorbell in
/// memory, and not for one that is a port.
pub(crate) const PORTS_SIZE: u32 = 0x100;

/// PCI 3.0 §6.2.2: bits of the command register that let ports and memory be decoded.
pub(crate) const COMMAND_PORTS: u16 = 1 << 0;
pub(crate) const COMMAND_MEMORY: u16 = 1 << 1;
/// PCI 3.0 §6.2.5.1: a BAR of ports.
pub(crate) const BAR_OF_PORTS: u32 = 1;
/// PCI 3.0 §6.7, appendix H: ids of the vendor and the MSI-X capability.
pub(crate) const CAP_ID_VENDOR: u8 = 0x09;
pub(crate) const CAP_ID_MSIX: u8 = 0x11;
/// PCI 3.0 §6.8.2.3: enable and function mask in the message control of MSI-X.
pub(crate) const MSIX_ENABLE: u16 = 1 << 15;
pub(crate) const MSIX_MASK_ALL: u16 = 1 << 14;
