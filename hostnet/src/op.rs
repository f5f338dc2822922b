//! Operations on a network namespace, as data.

mod inverse;
mod text;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use terms::{IfName, IpNetwork, MacAddr, Mtu, Protocol, VlanId};

use crate::facts::{AddrGenMode, Address, MacvlanMode, Route};
use crate::nft::{IpVersion, Transaction};
use crate::omit::is_default;
use crate::sysctl::Sysctl;

/// Operations in the order in which they take effect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// In the order of execution; undone in reverse.
    pub ops: Vec<Op>,
}

/// One operation. The kernel sees neighbouring operations on links, addresses and routes in one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are named for what they hold")]
pub enum Op {
    /// Makes a persistent tap and sets what `set` says.
    CreateTap(NewTap),
    /// Makes a link of another kind and sets what `set` says.
    CreateLink(NewLink),
    /// Removes a link, and with it its addresses and routes.
    DeleteLink { link: IfName },
    /// Removes all links of a group at once. Links wait for the kernel together instead of one by one.
    DeleteGroup {
        /// The group; never 0, which all links are in.
        group: u32,
    },
    /// Changes a link.
    SetLink { link: IfName, set: LinkChange },
    /// Adds an address; it must not be there.
    AddAddress(Address),
    /// Removes an address.
    DeleteAddress {
        /// The link that holds it.
        link: IfName,
        /// Address and prefix length.
        address: IpNetwork,
    },
    /// Adds a route; no same entry may be there.
    AddRoute(Route),
    /// Adds a route or replaces the same entry.
    ReplaceRoute(Route),
    /// Removes a route.
    DeleteRoute(Route),
    /// Writes a setting.
    WriteSysctl { key: Sysctl, value: String },
    /// Changes nft tables, all or nothing.
    Nft(Transaction),
    /// Removes a flow from connection tracking, so that its next packet is translated again.
    DeleteConntrack(Flow),
}

/// Connections by where they were first sent to, before any translation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Flow {
    /// Of the addresses in the packets.
    pub version: IpVersion,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The destination; `None` for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    /// In the original direction.
    pub port: u16,
}

impl Flow {
    /// The protocol's number (IANA "Protocol Numbers").
    #[must_use]
    pub(crate) fn protocol_number(&self) -> u8 {
        match self.protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

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
        /// The other end's name.
        peer: IfName,
    },
    /// An Ethernet bridge.
    Bridge,
    /// An intermediate functional block.
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

/// What changes on a link; `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LinkChange {
    /// Administratively up or down.
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
    /// The link it becomes a port of, or of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<Master>,
}

impl LinkChange {
    /// Whether it has no setting, so that no message is sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Brings the link up.
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
    /// No master.
    None,
    /// That link's.
    Link(IfName),
}

impl Op {
    /// Whether it takes something away, so that finding it gone is as good.
    #[must_use]
    pub fn removes(&self) -> bool {
        matches!(
            self,
            Self::DeleteLink { .. } | Self::DeleteGroup { .. } | Self::DeleteAddress { .. } | Self::DeleteRoute(_)
        )
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateTap(tap) => write!(f, "create tap {}", tap.name),
            Self::CreateLink(link) => write!(f, "create {} {}", link.kind.name(), link.name),
            Self::DeleteLink { link } => write!(f, "delete link {link}"),
            Self::DeleteGroup { group } => write!(f, "delete all links of group {group}"),
            Self::SetLink { link, set } => write!(f, "set {set} of link {link}"),
            Self::AddAddress(address) => write!(f, "add address {} to {}", address.address, address.link),
            Self::DeleteAddress { link, address } => write!(f, "delete address {address} from {link}"),
            Self::AddRoute(route) => write!(f, "add {route}"),
            Self::ReplaceRoute(route) => write!(f, "replace {route}"),
            Self::DeleteRoute(route) => write!(f, "delete {route}"),
            Self::WriteSysctl { key, value } => write!(f, "write {value} to sysctl {key}"),
            Self::DeleteConntrack(flow) => {
                let to = flow.destination.map_or_else(|| "any address".to_owned(), |to| to.to_string());
                write!(f, "forget {} connections to {to} port {}", flow.protocol, flow.port)
            }
            Self::Nft(transaction) => {
                f.write_str("nft:")?;
                transaction
                    .commands
                    .iter()
                    .enumerate()
                    .try_for_each(|(n, command)| write!(f, "{} {command}", if n == 0 { "" } else { "," }))
            }
        }
    }
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
            self.all_multicast.map(|all| format!("all-multicast {}", if all { "on" } else { "off" })),
            self.master.as_ref().map(|master| match master {
                Master::None => "no master".to_owned(),
                Master::Link(link) => format!("master {link}"),
            }),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl NewLinkKind {
    /// The link below it.
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
            Self::Veth { .. } => "veth",
            Self::Bridge => "bridge",
            Self::Ifb => "ifb",
            Self::Macvlan { .. } => "macvlan",
            Self::Vlan { .. } => "vlan",
            Self::Dummy => "dummy",
        }
    }
}
