//! Addresses on links.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use terms::{IfName, IpNetwork};

use crate::omit::is_default;

/// An IP address on a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Address {
    /// The link that holds it.
    pub link: IfName,
    /// The address with its prefix length (IFA_LOCAL or IFA_ADDRESS).
    pub address: IpNetwork,
    /// The other end, on point-to-point links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// How far it is valid.
    #[serde(default)]
    pub scope: AddressScope,
    /// IFA_F_* that matter to us.
    #[serde(default)]
    pub flags: AddressFlags,
    /// Seconds it remains preferred; `None` is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_seconds: Option<u32>,
    /// Seconds it remains valid; `None` is for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_seconds: Option<u32>,
}

impl Address {
    /// A permanent address for [`crate::Op::AddAddress`], valid at once: duplicate detection is off for IPv6.
    #[must_use]
    pub fn permanent(link: IfName, address: IpNetwork) -> Self {
        let ip = address.ip();
        let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        Self {
            link,
            address,
            peer: None,
            scope: if ip.is_loopback() {
                AddressScope::Host
            } else if link_local {
                AddressScope::Link
            } else {
                AddressScope::Global
            },
            flags: AddressFlags { nodad: ip.is_ipv6(), permanent: true, ..AddressFlags::default() },
            preferred_seconds: None,
            valid_seconds: None,
        }
    }
}

/// How far an address is valid (RT_SCOPE_* of `linux/rtnetlink.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AddressScope {
    /// Valid everywhere (RT_SCOPE_UNIVERSE).
    #[default]
    Global,
    /// Valid in the site (RT_SCOPE_SITE).
    Site,
    /// Valid on the link alone (RT_SCOPE_LINK).
    Link,
    /// Valid in the host alone (RT_SCOPE_HOST).
    Host,
    /// Another RT_SCOPE_* value.
    Other(u8),
}

/// Flags of an address (IFA_F_* of `linux/if_addr.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AddressFlags {
    /// Duplicate address detection is skipped.
    #[serde(skip_serializing_if = "is_default")]
    pub nodad: bool,
    /// Duplicate address detection is under way; the address is not usable yet.
    #[serde(skip_serializing_if = "is_default")]
    pub tentative: bool,
    /// Duplicate address detection found another holder.
    #[serde(skip_serializing_if = "is_default")]
    pub dad_failed: bool,
    /// Set by an administrator, not learnt.
    #[serde(skip_serializing_if = "is_default")]
    pub permanent: bool,
    /// Not the first of its subnet, or a temporary one.
    #[serde(skip_serializing_if = "is_default")]
    pub secondary: bool,
    /// Its preferred lifetime is over: not for new connections (RFC 4862 §5.5.4).
    #[serde(skip_serializing_if = "is_default")]
    pub deprecated: bool,
    /// The kernel makes no route to its subnet (IFA_F_NOPREFIXROUTE).
    #[serde(skip_serializing_if = "is_default")]
    pub no_prefix_route: bool,
}
