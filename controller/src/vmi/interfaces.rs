//! The guest's NICs in its status: those of its machine, with what Multus and the guest's agent say of them.

use k8s_openapi::api::core::v1::Pod;
use protocol::agent::GuestInterface;
use protocol::control::Status;
use serde::Deserialize;

use super::launch::{Launch, PRIMARY_INTERFACE};
use super::pod_state;
use crate::objects::InterfaceStatus;

/// Interfaces that only the guest knows, at most.
const MOST_OF_GUEST: usize = 10;
/// Where Multus says what it has attached.
const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

/// Joins what is known. A NIC on the pod network is reached by the pod's addresses, whatever the guest calls its own; others
/// by those that the guest says, or else by those that its network has given the pod's interface: the guest is told them by
/// DHCP. A guest's interface is the NIC with its Ethernet address; it may have more interfaces.
pub(super) fn interfaces(
    launch: &Launch,
    pod: &Pod,
    launcher: Option<&Status>,
    of_guest: &[GuestInterface],
) -> Vec<InterfaceStatus> {
    let (addresses, attached) = (pod_state::addresses(pod), attached(pod));
    let mut of_guest: Vec<_> = of_guest.iter().collect();
    let of_nic = |(nic, interface): (&machine::Nic, &wiring::Interface)| {
        let is_primary = interface.pod_interface.as_str() == PRIMARY_INTERFACE;
        let guest = interface.mac.and_then(|mac| of_guest.iter().position(|guest| guest.mac == mac));
        let guest = guest.map(|at| of_guest.remove(at));
        let attached = attached.iter().find(|attached| attached.interface == interface.pod_interface.as_str());
        let sources =
            [Some("domain"), guest.map(|_| "guest-agent"), attached.filter(|_| !is_primary).map(|_| "multus-status")];
        let (ip_address, ip_addresses) = match (guest, attached) {
            _ if is_primary => (addresses.first().cloned(), addresses.clone()),
            (Some(guest), _) => addresses_of(guest),
            (None, Some(attached)) => (attached.ips.first().cloned(), attached.ips.clone()),
            (None, None) => (None, Vec::new()),
        };
        InterfaceStatus {
            name: interface.name.clone(),
            mac: interface.mac.map(|mac| mac.to_string()).unwrap_or_default(),
            interface_name: guest.map(|guest| guest.name.clone()).unwrap_or_default(),
            ip_address,
            ip_addresses,
            info_source: sources.into_iter().flatten().collect::<Vec<_>>().join(", "),
            link_state: if is_down(nic, launcher).unwrap_or(nic.link_down) { "down" } else { "up" }.to_owned(),
            queue_count: u64::from(interface.queues),
            pod_interface_name: interface.pod_interface.to_string(),
        }
    };
    let mut interfaces: Vec<_> = launch.file.nics().map(of_nic).collect();
    interfaces.extend(of_guest.into_iter().take(MOST_OF_GUEST).map(of_guest_alone));
    interfaces
}

/// Links whose carrier is not what the specification says: the NIC's name, and whether it is to have one.
pub(super) fn differing_links(launch: &Launch, launcher: &Status) -> Vec<(String, bool)> {
    let nics = launch.file.nics().map(|(nic, _)| nic);
    let differing = nics.filter(|nic| is_down(nic, Some(launcher)).is_some_and(|is_down| is_down != nic.link_down));
    differing.map(|nic| (nic.name.clone(), !nic.link_down)).collect()
}

/// Whether the launcher says that a NIC has no carrier; nothing where it does not know the NIC.
fn is_down(nic: &machine::Nic, launcher: Option<&Status>) -> Option<bool> {
    launcher?.nics.iter().find(|known| known.name == nic.name).map(|known| known.link_down)
}

fn of_guest_alone(guest: &GuestInterface) -> InterfaceStatus {
    let (ip_address, ip_addresses) = addresses_of(guest);
    InterfaceStatus {
        mac: guest.mac.to_string(),
        interface_name: guest.name.clone(),
        ip_address,
        ip_addresses,
        info_source: "guest-agent".to_owned(),
        ..InterfaceStatus::default()
    }
}

/// The address to show, IPv4 if there is one, and all.
fn addresses_of(guest: &GuestInterface) -> (Option<String>, Vec<String>) {
    let first = guest.addresses.iter().find(|address| address.is_ipv4()).or(guest.addresses.first());
    (first.map(ToString::to_string), guest.addresses.iter().map(ToString::to_string).collect())
}

/// An interface of the pod that Multus has attached.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Attached {
    interface: String,
    ips: Vec<String>,
}

fn attached(pod: &Pod) -> Vec<Attached> {
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(NETWORK_STATUS));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
