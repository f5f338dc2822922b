//! A NIC's taps, and the settings that its pod interface must have.

use hostnet::Facts;
use hostnet::facts::Route;
use hostnet::op::LinkChange;
use terms::{IfName, IpNetwork, MacAddr, Mtu};

/// One NIC of the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nic {
    pub(crate) pod_interface: IfName,
    /// The Ethernet address that the request demands of the pod interface, if any.
    pub(crate) pod_mac: Option<MacAddr>,
    /// Whether the pod interface must take all multicast frames, because it would sift out the guest's.
    pub(crate) all_multicast: bool,
    pub(crate) tap: Tap,
    pub(crate) service_tap: Option<Tap>,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tap {
    pub(crate) name: IfName,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) mtu: Mtu,
    pub(crate) multi_queue: bool,
    /// Whether the kernel has IPv6 on it, so that it can be told to make no address of its own.
    pub(crate) has_ipv6: bool,
    pub(crate) addresses: Vec<IpNetwork>,
    pub(crate) routes: Vec<Route>,
}

impl Nic {
    /// The VM's tap, then the service tap.
    pub(crate) fn taps(&self) -> impl Iterator<Item = &Tap> {
        std::iter::once(&self.tap).chain(&self.service_tap)
    }

    /// What of the pod interface is not yet as it must be.
    pub(crate) fn change(&self, facts: &Facts) -> LinkChange {
        let now = facts.link(&self.pod_interface);
        LinkChange {
            mac: self.pod_mac.filter(|mac| Some(*mac) != now.and_then(|link| link.mac)),
            all_multicast: (self.all_multicast && now.is_some_and(|link| !link.all_multicast)).then_some(true),
            ..LinkChange::default()
        }
    }
}
