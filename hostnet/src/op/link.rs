//! What a link is made with and what changes on it.

use std::fmt;

use serde::{Deserialize, Serialize};
use terms::{IfName, MacAddr, Mtu, VlanId};

use crate::facts::{AddrGenMode, MacvlanMode};
use crate::omit::is_default;

/// A tap to be made: persistent, with virtio-net header, without packet information.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewTap {
    /// The name of the new link.
    pub name: IfName,
    /// Who may attach without CAP_NET_ADMIN. A tap with neither owner nor group may be taken by anyone.
    pub owner: u32,
    /// The group that one must be in as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// Has several queues (IFF_MULTI_QUEUE). A process that attaches must ask for the same.
    #[serde(default, skip_serializing_if = "is_default")]
    pub multi_queue: bool,
    /// What is set at once.
    #[serde(default, skip_serializing_if = "LinkChange::is_empty")]
    pub set: LinkChange,
}

/// A link to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewLink {
    /// The name of the new link.
    pub name: IfName,
    /// The driver and what it needs.
    pub kind: NewLinkKind,
    /// What is set at once.
    #[serde(default, skip_serializing_if = "LinkChange::is_empty")]
    pub set: LinkChange,
}

/// What a link to be made is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are named for what they hold")]
pub enum NewLinkKind {
    /// One end of a virtual cable; the other is made in the same namespace.
    Veth {
        /// The other end's name, in the same namespace.
        peer: IfName,
    },
    /// One end of a virtual cable; the other is made in the plan's other namespace.
    VethAcross {
        /// The other end's name there.
        peer: IfName,
        /// What is set on it at once.
        #[serde(default, skip_serializing_if = "is_default")]
        set: PeerSettings,
    },
    /// An Ethernet bridge of the kernel.
    Bridge,
    /// An intermediate functional block, for shaping what arrives.
    Ifb,
    /// A MAC-addressed child of another link.
    Macvlan {
        parent: IfName,
        /// How children see each other.
        mode: MacvlanMode,
    },
    /// What carries one 802.1Q tag on another link.
    Vlan { parent: IfName, id: VlanId },
    /// A device that drops all it is given.
    Dummy,
}

/// What the other end of a new virtual cable is made with; `None` leaves it to the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PeerSettings {
    /// Ethernet address of the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// In bytes, without the link-layer header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
}

/// What changes on a link; `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LinkChange {
    /// Whether it is administratively up (IFF_UP).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// In bytes, without the link-layer header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// Refused by links without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Alias, at most 255 bytes; empty removes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// How IPv6 link-local addresses come about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr_gen_mode: Option<AddrGenMode>,
    /// IFLA_GROUP; links start in group 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
    /// IFF_NOARP: no ARP and no neighbour discovery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noarp: Option<bool>,
    /// Takes the frames of all multicast groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_multicast: Option<bool>,
    /// Takes all frames, also those for other stations (IFF_PROMISC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub promiscuous: Option<bool>,
    /// The link it becomes a port of, or of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<Master>,
    /// Settings of a bridge; the link must be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeChange>,
    /// Of a bridge's port; takes effect after `master`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortChange>,
}

/// What changes on a bridge (IFLA_BR_* of `linux/if_link.h`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BridgeChange {
    /// Whether it looks at 802.1Q tags. A kernel without CONFIG_BRIDGE_VLAN_FILTERING refuses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_filtering: Option<bool>,
    /// Whether it learns who wants which multicast group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multicast_snooping: Option<bool>,
    /// Whether it asks for members of multicast groups itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multicast_querier: Option<bool>,
    /// Link-local groups 01:80:c2:00:00:0X that it forwards, a bit for each X.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_fwd_mask: Option<u16>,
    /// How long it remembers where an address is; 0 is not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ageing_seconds: Option<u32>,
}

/// What changes on a bridge's port (IFLA_BRPORT_* of `linux/if_link.h`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PortChange {
    /// Whether frames may leave by the port that they came in by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hairpin: Option<bool>,
    /// Whether no frame passes between it and other isolated ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
}

impl LinkChange {
    /// Whether it has no setting, so that no message is sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A change that brings the link up and leaves the rest.
    #[must_use]
    pub fn up() -> Self {
        Self { up: Some(true), ..Self::default() }
    }

    /// A change of the alias alone, of at most 255 bytes.
    #[must_use]
    pub fn alias(text: impl Into<String>) -> Self {
        Self { alias: Some(text.into()), ..Self::default() }
    }
}

/// Whose port a link becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Master {
    /// It becomes the port of no link.
    None,
    /// It becomes a port of this link.
    Link(IfName),
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.up.map(|up| if up { "up" } else { "down" }.to_owned()),
            self.mtu.map(|mtu| format!("MTU {mtu}")),
            self.mac.map(|mac| format!("MAC {mac}")),
            self.alias.as_ref().map(|alias| format!("alias {alias:?}")),
            self.addr_gen_mode.map(|mode| format!("address generation {mode:?}")),
            self.group.map(|group| format!("group {group}")),
            self.noarp.map(|noarp| if noarp { "noarp" } else { "arp" }.to_owned()),
            self.all_multicast.map(|all| format!("all-multicast {}", on(all))),
            self.promiscuous.map(|all| format!("promiscuous {}", on(all))),
            self.master.as_ref().map(|master| match master {
                Master::None => "no master".to_owned(),
                Master::Link(link) => format!("master {link}"),
            }),
            self.bridge.as_ref().map(ToString::to_string),
            self.port.as_ref().map(ToString::to_string),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for BridgeChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.vlan_filtering.map(|it| format!("vlan_filtering {}", u8::from(it))),
            self.multicast_snooping.map(|it| format!("mcast_snooping {}", u8::from(it))),
            self.multicast_querier.map(|it| format!("mcast_querier {}", u8::from(it))),
            self.group_fwd_mask.map(|mask| format!("group_fwd_mask {mask:#06x}")),
            // `ip` takes hundredths of a second.
            self.ageing_seconds.map(|seconds| format!("ageing_time {}", u64::from(seconds) * 100)),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for PortChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.hairpin.map(|it| format!("hairpin {}", on(it))),
            self.isolated.map(|it| format!("isolated {}", on(it))),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// As `ip` and `bridge` write a switch.
fn on(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl NewLinkKind {
    /// The link that it is made on; `None` for kinds without one.
    #[must_use]
    pub fn parent(&self) -> Option<&IfName> {
        match self {
            Self::Macvlan { parent, .. } | Self::Vlan { parent, .. } => Some(parent),
            _ => None,
        }
    }

    /// The kernel's name for the kind.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Veth { .. } | Self::VethAcross { .. } => "veth",
            Self::Bridge => "bridge",
            Self::Ifb => "ifb",
            Self::Macvlan { .. } => "macvlan",
            Self::Vlan { .. } => "vlan",
            Self::Dummy => "dummy",
        }
    }
}
