//! The machine an engine runs, described without a word of any engine's own.
//!
//! Built from a VirtualMachineInstance by `api`, written as JSON together with the wiring request, read by `tapvisor-launcher`.
//! Paths are absolute and readable by the launcher; sizes are bytes; times are seconds.

mod agent;
pub mod base64;
mod disk;
mod nic;
mod pci;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use agent::{AgentUse, SshKeys};
pub use disk::{Bus, Cache, CloudInit, Content, Disk, DiskFile, DiskFormat, DiskSource, FileSet, MAX_FILES_BYTES};
pub use nic::{DhcpOptions, Nic, NicModel, PrivateOption};
pub use pci::{FIRST_HIGH_BUS, FREE_SLOTS, PCI_PORTS, PciAddress, PciAddressError};

/// A virtual machine: everything the guest can see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Machine {
    /// Namespace of the VM object.
    pub namespace: String,
    /// Name of the VM object.
    pub name: String,
    /// SMBIOS system UUID in its 36-character form.
    pub uuid: String,
    /// SMBIOS system serial number (`firmware.serial` in KubeVirt).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// Host name told to the guest by DHCP and cloud-init.
    pub hostname: String,
    /// Subdomain under which a headless Service names the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    /// Sockets, cores and threads.
    pub cpu: Cpu,
    /// Size of the guest's memory.
    pub memory_bytes: u64,
    /// Size of the huge pages of the host that the guest's memory is made of; `None` leaves it to the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugepage_bytes: Option<u64>,
    /// Kernel or firmware that runs first.
    pub boot: Boot,
    /// Disks in the manifest's order.
    pub disks: Vec<Disk>,
    /// NICs in the manifest's order of interfaces.
    pub nics: Vec<Nic>,
    /// Whether the guest has ACPI, with its power button.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub acpi: bool,
    /// Whether the guest has a serial console.
    pub serial_console: bool,
    /// Whether the guest has a VGA adapter, shown by VNC.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub graphics: bool,
    /// Whether the guest has a virtio entropy source.
    pub rng: bool,
    /// A watchdog that acts when the guest stops feeding it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<WatchdogAction>,
    /// What the agent in the guest is needed for.
    #[serde(default, skip_serializing_if = "AgentUse::is_none")]
    pub agent: AgentUse,
    /// What a reset by the guest does.
    #[serde(default)]
    pub reboot_policy: RebootPolicy,
    /// Whether the guest waits for `resume` before its first instruction.
    #[serde(default)]
    pub start_paused: bool,
    /// Time between the power button and the end by force.
    pub grace_period_seconds: u64,
    /// Whether emulation is demanded, allowed when there is no usable KVM, or refused.
    pub emulation: Emulation,
    /// Which engine is demanded; `auto` if absent.
    #[serde(default, skip_serializing_if = "EngineDemand::is_auto")]
    pub engine: EngineDemand,
}

fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

/// Processor topology; the guest has the product of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Number of sockets, at least 1.
    pub sockets: u32,
    /// Cores of a socket, at least 1.
    pub cores: u32,
    /// Threads of a core, at least 1.
    pub threads: u32,
    /// What the guest is given of the host's processor.
    #[serde(default, skip_serializing_if = "CpuModel::is_host_model")]
    pub model: CpuModel,
}

impl Cpu {
    /// Number of virtual CPUs: the product of the three.
    #[must_use]
    pub fn count(self) -> u32 {
        self.sockets.saturating_mul(self.cores).saturating_mul(self.threads)
    }
}

/// What a guest on KVM is given of its host's processor. In emulation it has all that is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CpuModel {
    /// What hosts of one kind have in common.
    #[default]
    #[serde(rename = "host-model")]
    HostModel,
    /// All of it: the guest can go on at no other host.
    #[serde(rename = "host-passthrough")]
    HostPassthrough,
    /// The second level of the x86-64 psABI (SSE4.2, POPCNT).
    #[serde(rename = "x86-64-v2")]
    X86V2,
    /// The third level of the x86-64 psABI (AVX2, BMI2, FMA).
    #[serde(rename = "x86-64-v3")]
    X86V3,
}

impl CpuModel {
    /// All, by their names.
    pub const NAMES: [(&str, Self); 4] = [
        ("host-model", Self::HostModel),
        ("host-passthrough", Self::HostPassthrough),
        ("x86-64-v2", Self::X86V2),
        ("x86-64-v3", Self::X86V3),
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, model)| *model == self).map_or("", |(name, _)| name)
    }

    fn is_host_model(&self) -> bool {
        *self == Self::HostModel
    }
}

/// What a reset by the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RebootPolicy {
    /// Starts the guest again in the same machine.
    #[default]
    Reboot,
    /// Ends the machine; its supervisor may start a new one.
    Terminate,
}

/// Which engine may run the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Emulation {
    /// KVM where it works, emulation elsewhere.
    #[default]
    Allowed,
    /// Emulation even where KVM works.
    Required,
    /// KVM alone; without it the machine does not start.
    Forbidden,
}

/// Which engine is demanded (`auto`, `kvm` or `qemu`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EngineDemand {
    /// The launcher chooses: our own machine on KVM if it has all that is asked for, else QEMU.
    #[default]
    Auto,
    /// Our own machine on KVM or nothing.
    Kvm,
    /// QEMU, with KVM where that works and may be used.
    Qemu,
}

impl EngineDemand {
    /// Its words, as in annotations and options.
    pub const WORDS: [(&str, Self); 3] = [("auto", Self::Auto), ("kvm", Self::Kvm), ("qemu", Self::Qemu)];

    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// Kernel or firmware that runs first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Boot {
    /// A Linux kernel, loaded directly.
    Kernel {
        /// Path of a bzImage or an ELF vmlinux.
        kernel: PathBuf,
        /// Path of the initial RAM disk; `None` for a kernel without one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initrd: Option<PathBuf>,
        /// Kernel command line, as the guest reads it in `/proc/cmdline`.
        #[serde(default)]
        command_line: String,
    },
    /// BIOS firmware, which looks for a boot device by `boot_order`.
    Bios,
}

/// What a watchdog does when the guest stops feeding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchdogAction {
    /// Ends the machine at once.
    Poweroff,
    /// Resets the machine at once.
    Reset,
    /// Presses the power button; the guest has to react.
    Shutdown,
}
