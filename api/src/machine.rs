//! The machine an engine runs, described without a word of any engine's own.
//!
//! Built from a VirtualMachineInstance by this crate, written as JSON beside the wiring request, read by
//! `tapvisor launch`. Paths are absolute and readable by the launcher; sizes are bytes; times are seconds.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use terms::{IfName, MacAddr, Queues};
use wiring::{Binding, Request};

/// What `tapvisor launch --machine FILE` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LaunchFile {
    /// Always 1.
    pub version: u32,
    /// The machine to run.
    pub machine: Machine,
    /// The network it must find in its namespace.
    pub wiring: Request,
}

impl LaunchFile {
    /// The only version there is.
    pub const VERSION: u32 = 1;
}

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
    /// SMBIOS system serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// Host name told to the guest by DHCP and cloud-init.
    pub hostname: String,
    /// Subdomain under which a headless Service names the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    /// Processor topology.
    pub cpu: Cpu,
    /// Guest memory.
    pub memory_bytes: u64,
    /// What runs first.
    pub boot: Boot,
    /// Disks in the manifest's order.
    pub disks: Vec<Disk>,
    /// NICs in the manifest's order of interfaces.
    pub nics: Vec<Nic>,
    /// Whether the guest has a serial console.
    pub serial_console: bool,
    /// Whether the guest has a virtio entropy source.
    pub rng: bool,
    /// A watchdog that acts when the guest stops feeding it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog: Option<WatchdogAction>,
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
}

/// Processor topology; the guest has the product of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Sockets, at least 1.
    pub sockets: u32,
    /// Cores of a socket, at least 1.
    pub cores: u32,
    /// Threads of a core, at least 1.
    pub threads: u32,
}

impl Cpu {
    /// Virtual CPUs in all.
    #[must_use]
    pub fn count(self) -> u32 {
        self.sockets.saturating_mul(self.cores).saturating_mul(self.threads)
    }
}

/// What a reset by the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RebootPolicy {
    /// Starts the guest again in the same machine.
    #[default]
    Reboot,
    /// Ends the machine; whoever runs it may start a new one.
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
    /// KVM or nothing.
    Forbidden,
}

/// What runs first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Boot {
    /// A Linux kernel, loaded directly.
    Kernel {
        /// bzImage or ELF vmlinux.
        kernel: PathBuf,
        /// Initial RAM disk.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        initrd: Option<PathBuf>,
        /// Kernel command line.
        #[serde(default)]
        command_line: String,
    },
    /// BIOS firmware, which looks for a boot device by `boot_order`.
    Bios,
}

/// A disk the guest sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Disk {
    /// Name of disk and volume in the manifest.
    pub name: String,
    /// Controller it hangs on.
    pub bus: Bus,
    /// Whether it is a CD-ROM drive with a medium.
    #[serde(default)]
    pub cdrom: bool,
    /// Whether the guest may only read it.
    #[serde(default)]
    pub read_only: bool,
    /// Serial number the guest reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Place in the firmware's order over disks and NICs, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_order: Option<u32>,
    /// How writes reach the host's storage.
    #[serde(default)]
    pub cache: Cache,
    /// Where its content comes from.
    pub source: DiskSource,
}

/// The controller a disk hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Bus {
    /// virtio-blk.
    Virtio,
    /// AHCI.
    Sata,
    /// virtio-scsi.
    Scsi,
}

/// How a disk's writes reach the host's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cache {
    /// Bypasses the host's page cache where the file system can, else behaves as `Writeback`.
    #[default]
    None,
    /// Through the page cache, flushed when the guest flushes.
    Writeback,
    /// Through the page cache, flushed at each write.
    Writethrough,
}

/// Where a disk's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum DiskSource {
    /// A file that keeps what the guest writes.
    File {
        /// The image.
        path: PathBuf,
    },
    /// A file that stays as it is; writes go to an overlay that ends with the VM.
    Overlay {
        /// The image below.
        path: PathBuf,
    },
    /// An empty disk that ends with the VM.
    Empty {
        /// Its size.
        capacity_bytes: u64,
    },
    /// A cloud-init NoCloud volume, made by the launcher.
    NoCloud(NoCloud),
}

/// The files of a NoCloud volume; the launcher adds `meta-data`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NoCloud {
    /// Content of `user-data`.
    pub user_data: String,
    /// Content of `network-config`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_data: Option<String>,
}

impl std::fmt::Debug for NoCloud {
    /// Without the texts, which often hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let network_bytes = self.network_data.as_ref().map(String::len);
        let mut files = f.debug_struct("NoCloud");
        files.field("user_data_bytes", &self.user_data.len()).field("network_data_bytes", &network_bytes).finish()
    }
}

/// A NIC the guest sees; its wiring is the interface of the same name in the wiring request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Nic {
    /// Name in the manifest.
    pub name: String,
    /// The interface in the pod's namespace.
    pub pod_interface: IfName,
    /// How it is wired.
    pub binding: Binding,
    /// Device model.
    pub model: NicModel,
    /// The guest's address; `None` takes the pod interface's own (bridge binding).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Queue pairs.
    #[serde(default)]
    pub queues: Queues,
    /// Whether the link starts without carrier.
    #[serde(default)]
    pub link_down: bool,
    /// Place in the firmware's order over disks and NICs, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_order: Option<u32>,
    /// Index for predictable names (`eno<N>`), from 1 to 16383.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acpi_index: Option<u32>,
    /// Extra DHCP options.
    #[serde(default)]
    pub dhcp: DhcpOptions,
}

/// Device model of a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NicModel {
    /// virtio-net, modern.
    #[default]
    Virtio,
    /// Intel 82540EM.
    E1000,
    /// Intel 82574L.
    E1000e,
    /// Realtek RTL8139.
    Rtl8139,
}

/// Options of `dhcpOptions` in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DhcpOptions {
    /// Option 67.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_file_name: Option<String>,
    /// Option 66.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tftp_server_name: Option<String>,
    /// Option 42 and its DHCPv6 counterpart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ntp_servers: Vec<IpAddr>,
    /// Options 224 to 254.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub private_options: Vec<PrivateOption>,
}

/// A site-specific DHCP option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivateOption {
    /// Code, 224 to 254.
    pub option: u8,
    /// Value, sent as its bytes.
    pub value: String,
}

/// What a watchdog does when the guest stops feeding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchdogAction {
    /// Ends the machine at once.
    Poweroff,
    /// Resets it.
    Reset,
    /// Presses the power button.
    Shutdown,
}
