//! NICs of a machine.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A NIC the guest sees. Its Ethernet address, its queues and where it is plugged in are the wiring's, under the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Nic {
    /// Name in the manifest.
    pub name: String,
    /// Device model.
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
