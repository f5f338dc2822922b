//! What a request comes to in one namespace: taps, settings and tables as they must be once it is met.

use std::collections::BTreeMap;

use hostnet::Facts;
use hostnet::facts::{AddressScope, Link, Route, RouteProtocol};
use hostnet::nft::Table;
use hostnet::op::LinkChange;
use hostnet::sysctl::Sysctl;
use terms::{IfName, IpNetwork, MacAddr, Mtu};
use wiring::{Binding, Digest, Family, Interface, MarkError, NicNameError, Owner, Request};

use super::addresses::Choice;
use super::{bridge, masquerade, rules};

/// All that must be there, in the order of the request's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Desired {
    pub(super) digest: Digest,
    pub(super) owner: Owner,
    /// The link group of all our taps: one message deletes them.
    pub(super) group: u32,
    pub(super) nics: Vec<Nic>,
    /// Settings, in the order in which they are written.
    pub(super) sysctls: Vec<(Sysctl, &'static str)>,
    pub(super) tables: Vec<Table>,
}

/// One NIC of the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nic {
    pub(super) pod_interface: IfName,
    /// The address the pod interface must have, if the request wishes one.
    pub(super) pod_mac: Option<MacAddr>,
    /// Whether the pod interface must take all multicast frames, because it would sift out the guest's.
    pub(super) all_multicast: bool,
    pub(super) tap: Tap,
    pub(super) service_tap: Option<Tap>,
}

/// A tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tap {
    pub(super) name: IfName,
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu: Mtu,
    pub(super) multi_queue: bool,
    /// Whether the kernel has IPv6 on it, so that it can be told to make no address of its own.
    pub(super) has_ipv6: bool,
    pub(super) addresses: Vec<IpNetwork>,
    pub(super) routes: Vec<Route>,
}

/// Why a request cannot be met in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The pod interface is missing.
    #[error("{0} is not in the namespace: attached after this plugin?")]
    Absent(IfName),
    /// It has no Ethernet address.
    #[error("{0} has no Ethernet address: a VM cannot be joined to it")]
    NotEthernet(IfName),
    /// It has no address to share.
    #[error("{0} has no IP address: masquerade needs one")]
    NoAddress(IfName),
    /// A masquerade subnet is in use.
    #[error("interface {nic:?}: subnet {subnet} overlaps {what} of the pod")]
    Overlap {
        /// The VM's NIC.
        nic: String,
        /// The subnet asked for.
        subnet: IpNetwork,
        /// The address or route.
        what: String,
    },
    /// The MTU does not fit the family or the link.
    #[error("interface {nic:?}: MTU {mtu}: {rule}")]
    Mtu {
        /// The VM's NIC.
        nic: String,
        /// The MTU asked for, or the link's.
        mtu: u32,
        /// What it breaks.
        rule: String,
    },
    /// A name leaves no room for the taps' names.
    #[error(transparent)]
    Name(#[from] NicNameError),
    /// A link has a name that ours must have.
    #[error("link {0} is there already and was not made by this plugin")]
    Foreign(IfName),
    /// The namespace is wired for another request.
    #[error("{link} carries the mark of request {found}, this one is {asked}: DEL that one first")]
    OtherRequest {
        /// The tap.
        link: IfName,
        /// The request it was made for.
        found: Digest,
        /// The request of this call.
        asked: Digest,
    },
    /// The namespace is wired for this request, by a release that wires otherwise.
    #[error("{link} was wired by another release: generation {found}, this plugin's is {ours}: DEL that one first", ours = wiring::GENERATION)]
    OtherRelease {
        /// The tap.
        link: IfName,
        /// The generation in its mark.
        found: u32,
    },
    /// The namespace is wired in part.
    #[error("{0} beside taps that carry this request's mark: DEL first")]
    Incomplete(String),
    /// What must be restored does not fit the mark.
    #[error(transparent)]
    Mark(#[from] MarkError),
}

impl Desired {
    /// What `request` comes to where `facts` are so; `group` is the link group of this attachment.
    pub(super) fn of(request: &Request, group: u32, facts: &Facts) -> Result<Self, Refusal> {
        let mut desired = Self {
            digest: request.digest(),
            owner: request.owner(),
            group,
            nics: Vec::new(),
            sysctls: Vec::new(),
            tables: Vec::new(),
        };
        let (mut masqueraded, mut bridged) = (Vec::new(), Vec::new());
        for interface in request.interfaces() {
            match interface.binding {
                Binding::Masquerade => {
                    let (nic, shape) = masquerade::of(interface, facts)?;
                    desired.nics.push(nic);
                    masqueraded.push(shape);
                }
                Binding::Bridge => {
                    let (nic, shape) = bridge::of(interface, facts)?;
                    desired.nics.push(nic);
                    bridged.push(shape);
                }
                // The device itself goes to the guest; one with a user-space driver cannot even be seen from here.
                Binding::Sriov => {}
            }
        }
        desired.sysctls = masquerade::sysctls(&masqueraded, facts);
        desired.tables = rules::tables(&masqueraded, &bridged);
        Ok(desired)
    }

    /// All taps: a NIC's own, then its service tap.
    pub(super) fn taps(&self) -> impl Iterator<Item = &Tap> {
        self.nics.iter().flat_map(Nic::taps)
    }

    /// What each NIC's tap tells whoever reads its mark: earlier values of what is about to change (those of the namespace
    /// stand on the first tap), the MTU, because the pod interface's may be changed later, and the guest's address of a
    /// family where there is a choice.
    pub(super) fn notes(&self, choices: &[Choice], facts: &Facts) -> Vec<BTreeMap<String, String>> {
        let mut pairs: Vec<BTreeMap<_, _>> = self.nics.iter().map(|nic| nic.notes(facts)).collect();
        for choice in choices {
            let index = self.nics.iter().position(|nic| nic.pod_interface == choice.pod_interface);
            if let Some(pairs) = index.and_then(|index| pairs.get_mut(index)) {
                let key = wiring::address_key(Family::of(choice.address));
                pairs.insert(key.to_owned(), choice.address.to_string());
            }
        }
        for (key, wanted) in &self.sysctls {
            // A setting of a link of our own goes with the link; so nothing of it is among the facts.
            if let (Some(old), Some(first)) = (facts.sysctl(key), pairs.first_mut())
                && old != *wanted
            {
                first.insert(key.path().to_owned(), old.to_owned());
            }
        }
        pairs
    }
}

impl Nic {
    /// The VM's tap, then the service tap.
    pub(super) fn taps(&self) -> impl Iterator<Item = &Tap> {
        std::iter::once(&self.tap).chain(&self.service_tap)
    }

    fn notes(&self, facts: &Facts) -> BTreeMap<String, String> {
        let old = facts.link(&self.pod_interface).and_then(|link| link.mac);
        let change = self.change(facts);
        let mac = change.mac.and(old).map(|old| (mac_key(&self.pod_interface), old.to_string()));
        let multicast = change.all_multicast.map(|_| (multicast_key(&self.pod_interface), OFF.to_owned()));
        mac.into_iter().chain(multicast).chain([(MTU_KEY.to_owned(), self.tap.mtu.to_string())]).collect()
    }

    /// What of the pod interface is not yet as it must be.
    pub(super) fn change(&self, facts: &Facts) -> LinkChange {
        let now = facts.link(&self.pod_interface);
        LinkChange {
            mac: self.pod_mac.filter(|mac| Some(*mac) != now.and_then(|link| link.mac)),
            all_multicast: (self.all_multicast && now.is_some_and(|link| !link.all_multicast)).then_some(true),
            ..LinkChange::default()
        }
    }
}

/// The key under which a mark keeps the MTU of its tap.
pub(super) const MTU_KEY: &str = "mtu";

const MAC_KEY: &str = "mac/";

/// The key under which a mark keeps the earlier Ethernet address of a pod interface.
pub(super) fn mac_key(pod_interface: &IfName) -> String {
    format!("{MAC_KEY}{pod_interface}")
}

/// The pod interface of such a key.
pub(super) fn mac_key_link(key: &str) -> Option<IfName> {
    key.strip_prefix(MAC_KEY)?.parse().ok()
}

const MULTICAST_KEY: &str = "allmulti/";

/// The only value there: who had all multicast frames before has nothing to get back.
pub(super) const OFF: &str = "off";

/// The key under which a mark keeps that a pod interface took only the multicast groups it was in.
fn multicast_key(pod_interface: &IfName) -> String {
    format!("{MULTICAST_KEY}{pod_interface}")
}

/// The pod interface of such a key.
pub(super) fn multicast_key_link(key: &str) -> Option<IfName> {
    key.strip_prefix(MULTICAST_KEY)?.parse().ok()
}

/// Refuses a wiring that is still to be made where its subnets are taken or its MTU does not fit. Only ADD asks: what later
/// plugins and people change after it breaks no wiring.
pub(super) fn refuse_impossible(request: &Request, facts: &Facts) -> Result<(), Refusal> {
    request.interfaces().iter().try_for_each(|interface| match interface.binding {
        Binding::Masquerade => masquerade::refuse_impossible(interface, facts),
        Binding::Bridge => bridge::refuse_impossible(interface, facts),
        Binding::Sriov => Ok(()),
    })
}

/// The pod interface of a request's interface.
pub(super) fn pod_link<'a>(interface: &Interface, facts: &'a Facts) -> Result<&'a Link, Refusal> {
    facts.link(&interface.pod_interface).ok_or_else(|| Refusal::Absent(interface.pod_interface.clone()))
}

/// The addresses under which others reach the pod by a link.
pub(super) fn reachable(link: &IfName, family: Family, facts: &Facts) -> Vec<IpNetwork> {
    let ours = |address: &&hostnet::facts::Address| {
        address.scope == AddressScope::Global
            && Family::of(address.address.ip()) == family
            && !is_link_local(address.address)
    };
    facts.addresses_of(link).filter(ours).map(|address| address.address).collect()
}

fn is_link_local(address: IpNetwork) -> bool {
    match address {
        IpNetwork::V4(address) => address.ip().is_link_local(),
        IpNetwork::V6(address) => address.ip().is_unicast_link_local(),
    }
}

/// Links with routes that a router advertisement made.
pub(super) fn advertised_links(facts: &Facts) -> Vec<IfName> {
    let mut links: Vec<_> = facts
        .routes
        .iter()
        .filter(|route| route.protocol == RouteProtocol::RouterAdvertisement)
        .filter_map(|route| route.link.clone())
        .collect();
    links.sort();
    links.dedup();
    links
}

/// RFC 8200 §5; the kernel takes IPv6 off a link below it.
const IPV6_LEAST: u32 = 1280;

/// Whether a tap with this MTU beside `link` has IPv6.
pub(super) fn has_ipv6(link: &Link, mtu: Mtu) -> bool {
    link.addr_gen_mode.is_some() && mtu.value() >= IPV6_LEAST
}

/// The MTU of a NIC's taps: the one asked for, else the pod interface's.
pub(super) fn mtu(interface: &Interface, link: &Link) -> Result<Mtu, Refusal> {
    let of_link = || {
        let mtu = link.mtu_bytes;
        let refuse = |rule: &str| Refusal::Mtu { nic: interface.name.clone(), mtu, rule: rule.to_owned() };
        Mtu::try_from(u64::from(mtu)).map_err(|error| refuse(error.rule()))
    };
    interface.mtu.map_or_else(of_link, Ok)
}

/// Refuses an MTU that the pod interface does not carry or that is too small for IPv6.
pub(super) fn refuse_mtu(interface: &Interface, mtu: Mtu, ipv6: bool, facts: &Facts) -> Result<(), Refusal> {
    let refuse = |rule: String| Err(Refusal::Mtu { nic: interface.name.clone(), mtu: mtu.value(), rule });
    let link = pod_link(interface, facts)?;
    if mtu.value() > link.mtu_bytes {
        return refuse(format!("{} carries at most {}", link.name, link.mtu_bytes));
    }
    if ipv6 && mtu.value() < IPV6_LEAST {
        return refuse(format!("the pod has IPv6, which needs at least {IPV6_LEAST}"));
    }
    Ok(())
}
