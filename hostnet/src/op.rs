//! Operations on a network namespace, as data.

mod inverse;
mod link;
mod text;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use terms::{IfName, IpNetwork, Protocol};

use crate::facts::{Address, PortVlans, Route};
use crate::nft::{IpVersion, Transaction};
use crate::sysctl::Sysctl;

pub(crate) use text::write_op;

pub use link::{BridgeChange, LinkChange, Master, NewLink, NewLinkKind, NewTap, PeerSettings, PortChange};

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
    /// Changes what `set` names of a link that exists.
    SetLink { link: IfName, set: LinkChange },
    /// Gives a link another name; it must be down.
    RenameLink { link: IfName, name: IfName },
    /// Moves a link to the plan's other namespace, where it has this name and is down, without addresses, routes and master.
    MoveLink { link: IfName, name: IfName },
    /// Lets a bridge's port, or the bridge itself, take part in VLANs; in none of them before.
    AddVlans(PortVlans),
    /// Takes a bridge's port, or the bridge itself, out of VLANs.
    DeleteVlans(PortVlans),
    /// Adds an address; it must not be there.
    AddAddress(Address),
    /// Removes one address from a link.
    DeleteAddress {
        /// The link that holds it.
        link: IfName,
        /// The address with its prefix length, which the kernel compares too.
        address: IpNetwork,
    },
    /// Adds a route; no same entry may be there.
    AddRoute(Route),
    /// Adds a route or replaces the same entry.
    ReplaceRoute(Route),
    /// Removes the route with this destination, table, metric and way out.
    DeleteRoute(Route),
    /// Writes a setting below `/proc/sys/net`.
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
    /// Transport protocol: TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The destination; `None` for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<IpAddr>,
    /// Destination port of the connection's first packet.
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

impl Op {
    /// The link that it makes a port of another.
    pub(crate) fn joins(&self) -> Option<&IfName> {
        let (link, set) = match self {
            Self::CreateLink(new) => (&new.name, &new.set),
            Self::CreateTap(new) => (&new.name, &new.set),
            Self::SetLink { link, set } => (link, set),
            _ => return None,
        };
        matches!(set.master, Some(Master::Link(_))).then_some(link)
    }

    /// Whether it takes something away, so that finding it gone is as good.
    #[must_use]
    pub fn removes(&self) -> bool {
        matches!(
            self,
            Self::DeleteLink { .. }
                | Self::DeleteGroup { .. }
                | Self::DeleteAddress { .. }
                | Self::DeleteRoute(_)
                | Self::DeleteVlans(_)
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
            Self::RenameLink { link, name } => write!(f, "rename link {link} to {name}"),
            Self::MoveLink { link, name } => write!(f, "move link {link} to the other namespace as {name}"),
            Self::AddVlans(vlans) => write!(f, "add {vlans}"),
            Self::DeleteVlans(vlans) => write!(f, "delete {vlans}"),
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
