//! Routes.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use terms::{IfName, IpNetwork};

use crate::omit::is_default;

/// The table of ordinary routes (RT_TABLE_MAIN).
pub const TABLE_MAIN: u32 = 254;
/// The table of the host's own addresses (RT_TABLE_LOCAL).
pub const TABLE_LOCAL: u32 = 255;

/// A route as the kernel lists it, and as [`crate::Op`] adds and removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Where to; the default route is `0.0.0.0/0` or `::/0`.
    pub destination: IpNetwork,
    /// The link it leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<IfName>,
    /// The next router. May be of the other family (RFC 5549).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The gateway is on the link, whatever the link's addresses say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub onlink: bool,
    /// Further hops of a multipath route; the first is above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_hops: Vec<NextHop>,
    /// What is done with the packet.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: RouteKind,
    /// The table it is in.
    #[serde(default = "table_main", skip_serializing_if = "is_table_main")]
    pub table: u32,
    /// RTPROT_*: by it a route is kept or removed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: RouteProtocol,
    /// How far the destination is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scope: RouteScope,
    /// Priority; the lowest wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// Path MTU in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu_bytes: Option<u32>,
    /// Segment size that TCP advertises, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss_bytes: Option<u32>,
    /// The source address the host prefers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer_source: Option<IpAddr>,
}

impl Route {
    /// A static route by a link, to be refined with struct update.
    #[must_use]
    pub fn by(link: IfName, destination: IpNetwork) -> Self {
        Self { link: Some(link), ..Self::to(destination) }
    }

    /// A static route that leads nowhere yet, to be refined with struct update.
    #[must_use]
    pub fn to(destination: IpNetwork) -> Self {
        Self {
            destination,
            link: None,
            gateway: None,
            onlink: false,
            more_hops: Vec::new(),
            kind: RouteKind::Unicast,
            table: TABLE_MAIN,
            protocol: RouteProtocol::Static,
            scope: if destination.is_ipv4() { RouteScope::Link } else { RouteScope::Global },
            metric: None,
            mtu_bytes: None,
            advmss_bytes: None,
            prefer_source: None,
        }
    }

    /// A static route by a gateway.
    #[must_use]
    pub fn via(link: IfName, destination: IpNetwork, gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), scope: RouteScope::Global, ..Self::by(link, destination) }
    }

    /// Delivery to this host of what arrives by the link for an address; the kernel's own entries have metric 0.
    #[must_use]
    pub fn local(link: IfName, destination: IpNetwork, metric: u32) -> Self {
        Self {
            kind: RouteKind::Local,
            table: TABLE_LOCAL,
            scope: if destination.is_ipv4() { RouteScope::Host } else { RouteScope::Global },
            metric: Some(metric),
            ..Self::by(link, destination)
        }
    }

    /// Whether it matches every address.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.destination.prefix() == 0
    }

    /// Whether the kernel would call `other` the same entry: destination, table, metric and way out.
    #[must_use]
    pub fn is_same_entry(&self, other: &Self) -> bool {
        let key = |route: &Self| {
            // The kernel files IPv6 routes without a metric under 1024 (IP6_RT_PRIO_USER) and IPv4 ones under 0.
            let unset = if route.destination.is_ipv6() { 1024 } else { 0 };
            (route.destination, route.table, route.metric.unwrap_or(unset))
        };
        key(self) == key(other) && self.link == other.link && self.gateway == other.gateway && self.kind == other.kind
    }
}

/// One of several ways of a multipath route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NextHop {
    /// The link it leaves by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<IfName>,
    /// RTA_GATEWAY or RTA_VIA; `None` on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// What is done with a packet (RTN_* of `linux/rtnetlink.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteKind {
    /// Forwarded.
    #[default]
    Unicast,
    /// Delivered here.
    Local,
    /// Delivered here and sent as broadcast.
    Broadcast,
    /// Delivered here, one of several holders.
    Anycast,
    /// Sent to a group.
    Multicast,
    /// Dropped in silence.
    Blackhole,
    /// Answered "unreachable".
    Unreachable,
    /// Answered "prohibited".
    Prohibit,
    /// Looked up in the next table.
    Throw,
    /// Any other, by number.
    Other(u8),
}

/// Who made a route (RTPROT_* of `linux/rtnetlink.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteProtocol {
    /// Unspecified (RTPROT_UNSPEC).
    Unspecified,
    /// The kernel.
    Kernel,
    /// Configuration at boot (RTPROT_BOOT).
    Boot,
    /// An administrator.
    #[default]
    Static,
    /// A router advertisement.
    RouterAdvertisement,
    /// A DHCP client.
    Dhcp,
    /// Any other, by number.
    Other(u8),
}

/// How far a destination is (RT_SCOPE_* of `linux/rtnetlink.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteScope {
    /// Anywhere.
    #[default]
    Global,
    /// In the site.
    Site,
    /// On the link.
    Link,
    /// In the host.
    Host,
    /// Nowhere.
    Nowhere,
    /// Any other, by number.
    Other(u8),
}

fn table_main() -> u32 {
    TABLE_MAIN
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_table_main(table: &u32) -> bool {
    *table == TABLE_MAIN
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route ")?;
        if self.kind != RouteKind::Unicast {
            write!(f, "{:?} ", self.kind)?;
        }
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(link) = &self.link {
            write!(f, " dev {link}")?;
        }
        if self.table != TABLE_MAIN {
            write!(f, " table {}", self.table)?;
        }
        self.metric.map_or(Ok(()), |metric| write!(f, " metric {metric}"))
    }
}
