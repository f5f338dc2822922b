//! NICs of a machine.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::pci::PciAddress;

/// A NIC the guest sees. Its Ethernet address, its queues and where it is plugged in are the wiring's, under the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Nic {
    /// Name of the interface in the manifest, and of its wiring.
    pub name: String,
    /// Model of the device (`interface.model` in KubeVirt).
    pub model: NicModel,
    /// Whether the link starts without carrier.
    #[serde(default)]
    pub link_down: bool,
    /// Place in the firmware's order over disks and NICs, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_order: Option<u32>,
    /// Index for predictable names (`eno<N>`), from 1 to 16383.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acpi_index: Option<u32>,
    /// Its place on the PCI buses, if it is not to be the next that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pci: Option<PciAddress>,
    /// DHCP options in addition to what the wiring gives.
    #[serde(default)]
    pub dhcp: DhcpOptions,
}

/// Device model of a NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NicModel {
    /// virtio-net, without the legacy interface.
    #[default]
    Virtio,
    /// Intel 82540EM, emulated by QEMU.
    E1000,
    /// Intel 82574L, emulated by QEMU.
    E1000e,
    /// Realtek RTL8139, emulated by QEMU.
    Rtl8139,
}

/// Options of `dhcpOptions` in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct DhcpOptions {
    /// DHCP option 67 (RFC 2132 §9.5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_file_name: Option<String>,
    /// DHCP option 66 (RFC 2132 §9.4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tftp_server_name: Option<String>,
    /// Option 42 and its DHCPv6 counterpart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ntp_servers: Vec<IpAddr>,
    /// DHCP options 224 to 254, for use in a site (RFC 3942).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub private_options: Vec<PrivateOption>,
}

/// A site-specific DHCP option (RFC 3942).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivateOption {
    /// Option code, from 224 to 254.
    pub option: u8,
    /// Value, sent as its bytes.
    pub value: String,
}
