//! What the kernel says about a network namespace, as plain data that planners read and golden files hold.

mod address;
mod bridge;
mod link;
mod neighbour;
mod route;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use terms::IfName;

use crate::nft::{LinkIndices, TableFacts, TableId};
use crate::sysctl::Sysctl;

pub use address::{Address, AddressFlags, AddressScope};
pub use bridge::{BridgePort, BridgeSettings, ForwardingEntry, PortVlans};
pub use link::{AddrGenMode, Link, LinkKind, MacvlanMode, OperState, Statistics, Tun, TunMode};
pub use neighbour::{Neighbour, NeighbourState};
pub use route::{NextHop, Route, RouteKind, RouteProtocol, RouteScope, TABLE_LOCAL, TABLE_MAIN};

/// A snapshot of one network namespace: as much of it as was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Facts {
    /// All links, by index; or those that were asked for by name.
    pub links: Vec<Link>,
    /// All addresses of both families.
    pub addresses: Vec<Address>,
    /// All routes of both families and all tables.
    pub routes: Vec<Route>,
    /// Neighbour entries with a link-layer address or a failure to report.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<Neighbour>,
    /// VLANs of bridges and their ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vlans: Vec<PortVlans>,
    /// Forwarding entries of bridges (RTM_GETNEIGH of AF_BRIDGE).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forwarding: Vec<ForwardingEntry>,
    /// The settings asked for; one the kernel has not is `null`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<Sysctl, Option<String>>,
    /// The nft tables asked for, as far as they exist.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableFacts>,
    /// Which nft tables there are, if that was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub table_ids: Vec<TableId>,
}

/// What to read; each `true` costs one dump.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    /// Links; implied by addresses, routes and neighbours, which name them.
    pub links: bool,
    /// These links alone, one request each; an absent one is a fact too. Not together with `links`.
    pub links_named: Vec<IfName>,
    /// Settings of bridges and of their ports too.
    pub bridging: bool,
    /// Read the VLANs of bridges and their ports (RTM_GETLINK of AF_BRIDGE).
    pub vlans: bool,
    /// Read the forwarding entries of bridges (RTM_GETNEIGH of AF_BRIDGE).
    pub forwarding: bool,
    /// Packet counters of the links too.
    pub statistics: bool,
    /// Read the addresses of both families (RTM_GETADDR).
    pub addresses: bool,
    /// Read the routes of all tables (RTM_GETROUTE).
    pub routes: bool,
    /// Read the neighbour entries (RTM_GETNEIGH).
    pub neighbours: bool,
    /// Read these settings; one that is absent is a fact too.
    pub sysctls: Vec<Sysctl>,
    /// These nft tables with chains, rules, sets and elements.
    pub tables: Vec<TableId>,
    /// Which nft tables there are, not what they hold.
    pub table_ids: bool,
}

impl Ask {
    /// Links, addresses and routes: what wiring is planned on.
    #[must_use]
    pub fn network() -> Self {
        Self { links: true, addresses: true, routes: true, ..Self::default() }
    }

    /// Whether links are asked for, or what names them.
    pub(crate) fn needs_links(&self) -> bool {
        self.links || self.addresses || self.routes || self.neighbours || self.vlans || self.forwarding
    }

    /// These links alone, with what bridges say of them.
    #[must_use]
    pub fn of_links(names: impl IntoIterator<Item = IfName>) -> Self {
        Self { links_named: names.into_iter().collect(), bridging: true, ..Self::default() }
    }

    /// The same, and these settings.
    #[must_use]
    pub fn with_sysctls(mut self, keys: impl IntoIterator<Item = Sysctl>) -> Self {
        self.sysctls.extend(keys);
        self
    }

    /// The same, and these nft tables.
    #[must_use]
    pub fn with_tables(mut self, tables: impl IntoIterator<Item = TableId>) -> Self {
        self.tables.extend(tables);
        self
    }
}

impl Facts {
    /// The link of that name.
    #[must_use]
    pub fn link(&self, name: &IfName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == *name)
    }

    /// The link of that index.
    #[must_use]
    pub fn link_at(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The addresses of a link.
    pub fn addresses_of<'a>(&'a self, link: &'a IfName) -> impl Iterator<Item = &'a Address> {
        self.addresses.iter().filter(move |address| address.link == *link)
    }

    /// The VLANs that a port, or a bridge, takes part in.
    pub fn vlans_of<'a>(&'a self, link: &'a IfName) -> impl Iterator<Item = &'a PortVlans> {
        self.vlans.iter().filter(move |vlans| vlans.link == *link)
    }

    /// The routes whose first hop leaves by a link.
    pub fn routes_of<'a>(&'a self, link: &'a IfName) -> impl Iterator<Item = &'a Route> {
        self.routes.iter().filter(move |route| route.link.as_ref() == Some(link))
    }

    /// A setting's value, if it was asked for and exists.
    #[must_use]
    pub fn sysctl(&self, key: &Sysctl) -> Option<&str> {
        self.sysctls.get(key)?.as_deref()
    }

    /// An nft table, if it was asked for and exists.
    #[must_use]
    pub fn table(&self, id: &TableId) -> Option<&TableFacts> {
        self.tables.iter().find(|table| table.id == *id)
    }

    /// Whether an nft table exists, if it, or which there are, was asked for.
    #[must_use]
    pub fn has_table(&self, id: &TableId) -> bool {
        self.table(id).is_some() || self.table_ids.contains(id)
    }
}

impl LinkIndices for Facts {
    fn index_of(&self, link: &IfName) -> Option<u32> {
        self.link(link).map(|link| link.index)
    }

    fn link_at(&self, index: u32) -> Option<&IfName> {
        self.link_at(index).map(|link| &link.name)
    }
}
