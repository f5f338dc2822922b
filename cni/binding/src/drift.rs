//! How a wiring differs from what ADD made: found by CHECK, shown by `explain`. Text is made by [`fmt::Display`] alone.

use std::fmt;

use hostnet::facts::{LinkKind, Route, TunMode};
use hostnet::nft::TableDrift;
use hostnet::sysctl::Sysctl;
use terms::{IfName, IpNetwork, MacAddr};
use wiring::Digest;

/// A difference between the wiring of a request and the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each field is the object of that name")]
pub enum Drift {
    /// A tap, or its pod interface.
    Link { link: IfName, what: LinkDrift },
    /// A route by a tap is missing.
    RouteMissing(Box<Route>),
    /// A kernel setting has another value.
    Setting {
        key: Sysctl,
        /// Its value; `None` where the kernel does not have it.
        found: Option<String>,
        /// The value that masquerading needs.
        expected: &'static str,
    },
    /// An nft table of the plugin is missing or differs from what ADD wrote.
    Table(TableDrift),
}

/// What differs about a link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkDrift {
    /// The namespace has no link of that name.
    Missing,
    /// It is no tun device.
    Kind(LinkKind),
    /// It carries packets, not frames.
    Mode(TunMode),
    /// Whether it takes several descriptors.
    MultiQueue {
        /// Whether the request asks for more than one queue pair.
        expected: bool,
    },
    /// It goes with its last descriptor.
    NotPersistent,
    /// The user who may attach.
    Owner(Ids),
    /// The group that may attach.
    Group(Ids),
    /// The link group (IFLA_GROUP), a number of the attachment from 0x40000000 up.
    LinkGroup {
        /// The group that the kernel reports.
        found: u32,
        /// The group of the attachment that made the taps.
        expected: u32,
    },
    /// The link is administratively down (without IFF_UP).
    Down,
    /// The largest packet, without the link-layer header.
    Mtu {
        /// The MTU in bytes that the kernel reports.
        found: u32,
        /// As the mark has it.
        expected: String,
    },
    /// The tap's own Ethernet address, not the guest's.
    Mac {
        /// The address that the kernel reports; `None` if it reports none.
        found: Option<MacAddr>,
        /// The address that the tap was made with.
        expected: MacAddr,
    },
    /// An address is not on it.
    AddressMissing(IpNetwork),
    /// The pod interface does not take all multicast frames.
    AllMulticastOff,
    /// The commit mark in the tap's alias.
    Mark(MarkDrift),
}

/// A numeric user or group id of a tap (IFLA_TUN_OWNER, IFLA_TUN_GROUP).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// `None` if unset: the kernel does not check it.
    pub found: Option<u32>,
    /// The id in the request's `owner`.
    pub expected: u32,
}

/// What is wrong with a tap's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MarkDrift {
    /// The tap has no alias, or one that is not a mark.
    Missing,
    /// The mark of an ADD that did not finish: its digest is all zeros.
    Provisional,
    /// It was written by a release with another generation of rules.
    OtherRelease(u32),
    /// It is of another request.
    OtherRequest {
        /// The request in the mark.
        found: Digest,
        /// The request of this call.
        expected: Digest,
    },
}

impl Drift {
    pub(crate) fn link(link: &IfName, what: LinkDrift) -> Self {
        Self::Link { link: link.clone(), what }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link { link, what: LinkDrift::Missing } => write!(f, "link {link} is missing"),
            Self::Link { link, what } => write!(f, "link {link}: {what}"),
            Self::RouteMissing(route) => write!(f, "{route} is missing"),
            Self::Setting { key, found, expected } => {
                write!(f, "sysctl {key} is {}, not {expected}", found.as_deref().unwrap_or("missing"))
            }
            Self::Table(drift) => write!(f, "nft {drift}"),
        }
    }
}

impl fmt::Display for LinkDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it is missing"),
            Self::Kind(kind) => write!(f, "kind is {kind:?}, not a tap"),
            Self::Mode(mode) => write!(f, "mode is {mode:?}, not {:?}", TunMode::Tap),
            Self::MultiQueue { expected } => write!(f, "multi_queue is {}, not {expected}", !expected),
            Self::NotPersistent => f.write_str("persist is false, not true"),
            Self::Owner(ids) => write!(f, "owner is {ids}"),
            Self::Group(ids) => write!(f, "group is {ids}"),
            Self::LinkGroup { found, expected } => write!(f, "link group is {found}, not {expected}"),
            Self::Down => f.write_str("up is false, not true"),
            Self::Mtu { found, expected } => write!(f, "MTU is {found}, not {expected}"),
            Self::Mac { found: Some(found), expected } => write!(f, "MAC is {found}, not {expected}"),
            Self::Mac { found: None, expected } => write!(f, "MAC is none, not {expected}"),
            Self::AddressMissing(address) => write!(f, "address {address} is missing"),
            Self::AllMulticastOff => f.write_str("all-multicast is off, not on"),
            Self::Mark(mark) => write!(f, "mark is {mark}"),
        }
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found {
            Some(found) => write!(f, "{found}, not {}", self.expected),
            None => write!(f, "unset, expected {}", self.expected),
        }
    }
}

impl fmt::Display for MarkDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Provisional => f.write_str("provisional: ADD never finished"),
            Self::OtherRelease(generation) => write!(f, "of another release: generation {generation}"),
            Self::OtherRequest { found, expected } => write!(f, "of request {found}, not {expected}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_its_object_and_what_was_expected() {
        let tap: IfName = "k6t-eth0".parse().unwrap();
        let texts = [
            (LinkDrift::Missing, "link k6t-eth0 is missing"),
            (LinkDrift::Mtu { found: 1400, expected: "1500".into() }, "link k6t-eth0: MTU is 1400, not 1500"),
            (LinkDrift::Owner(Ids { found: Some(5), expected: 107 }), "link k6t-eth0: owner is 5, not 107"),
            (LinkDrift::Group(Ids { found: None, expected: 107 }), "link k6t-eth0: group is unset, expected 107"),
            (LinkDrift::Mark(MarkDrift::Missing), "link k6t-eth0: mark is missing"),
        ];
        for (what, text) in texts {
            assert_eq!(Drift::link(&tap, what).to_string(), text);
        }
        let forwarding = Sysctl::net("ipv4/ip_forward");
        let setting = Drift::Setting { key: forwarding, found: Some("0".to_owned()), expected: "1" };
        assert_eq!(setting.to_string(), "sysctl net/ipv4/ip_forward is 0, not 1");
    }
}
