//! Bridges, their ports, VLANs and forwarding entries.

use std::fmt;

use serde::{Deserialize, Serialize};
use terms::{IfName, MacAddr, VlanId};

use crate::omit::is_default;

/// Settings of a bridge (IFLA_BR_* of `linux/if_link.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BridgeSettings {
    /// Whether it looks at 802.1Q tags; `None` where the kernel has no CONFIG_BRIDGE_VLAN_FILTERING.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_filtering: Option<bool>,
    /// Whether it learns who wants which multicast group.
    pub multicast_snooping: bool,
    /// Whether it asks for members of multicast groups itself.
    pub multicast_querier: bool,
    /// Link-local groups 01:80:c2:00:00:0X that it forwards, a bit for each X.
    pub group_fwd_mask: u16,
    /// How long it remembers where an address is.
    pub ageing_seconds: u32,
}

/// Settings of a bridge's port (IFLA_BRPORT_* of `linux/if_link.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BridgePort {
    /// Whether frames may leave by the port that they came in by.
    #[serde(skip_serializing_if = "is_default")]
    pub hairpin: bool,
    /// Whether no frame passes between it and other isolated ports.
    #[serde(skip_serializing_if = "is_default")]
    pub isolated: bool,
}

/// VLANs that a port, or the bridge itself, takes part in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortVlans {
    /// The port, or the bridge.
    pub link: IfName,
    /// The lowest VLAN of the range.
    pub first: VlanId,
    /// The last of them; the first, if it is one.
    pub last: VlanId,
    /// Frames without a tag that come in belong to it; of one VLAN alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pvid: bool,
    /// Frames leave without a tag.
    #[serde(default, skip_serializing_if = "is_default")]
    pub untagged: bool,
    /// Whether `link` is the bridge itself (BRIDGE_FLAGS_SELF).
    #[serde(default, skip_serializing_if = "is_default")]
    pub of_bridge: bool,
}

impl PortVlans {
    /// One VLAN of a port, with its tag.
    #[must_use]
    pub fn tagged(link: IfName, vlans: (VlanId, VlanId)) -> Self {
        Self { link, first: vlans.0, last: vlans.1, pvid: false, untagged: false, of_bridge: false }
    }

    /// The VLAN of frames without a tag.
    #[must_use]
    pub fn native(link: IfName, vlan: VlanId) -> Self {
        Self { link, first: vlan, last: vlan, pvid: true, untagged: true, of_bridge: false }
    }

    /// Whether it holds a VLAN.
    #[must_use]
    pub fn holds(&self, vlan: VlanId) -> bool {
        (self.first..=self.last).contains(&vlan)
    }

    /// Whether both are of one link and have a VLAN in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.link == other.link && self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortVlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VLAN {}", self.first.value())?;
        if self.last != self.first {
            write!(f, "-{}", self.last.value())?;
        }
        f.write_str(if self.pvid { " (native)" } else { "" })?;
        write!(f, " {} {}", if self.of_bridge { "of bridge" } else { "of port" }, self.link)
    }
}

/// An entry of a bridge's forwarding database: by which port an address is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForwardingEntry {
    /// The bridge; `None` for an entry of a device that is no port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<IfName>,
    /// The port, or the device itself where `bridge` is `None`.
    pub port: IfName,
    /// The address, of a station or a group.
    pub mac: [u8; 6],
    /// The VLAN it is valid in; `None` where the bridge ignores VLANs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Whether it is not learned: it is the port's own or was set.
    #[serde(default, skip_serializing_if = "is_default")]
    pub permanent: bool,
}

impl ForwardingEntry {
    /// The address, if it is a station's.
    #[must_use]
    pub fn station(&self) -> Option<MacAddr> {
        MacAddr::new(self.mac)
    }
}
