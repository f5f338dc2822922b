//! NICs: interfaces joined to their networks.

use std::collections::BTreeMap;

use terms::MacAddr;
use wiring::{Binding, Request};

use super::Network;
use super::boot_order::BootOrders;
use super::interface::{self, Interface, Port};
use super::network::{self, NamedNetwork};
use super::texts::read_name;
use crate::reader::{Fields, Node, Scope};
use machine::{DhcpOptions, NicModel, PciAddress};

/// A NIC the guest sees and the network behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Name of interface and network.
    pub name: String,
    /// What it is plugged into.
    pub network: Network,
    /// The network's place in the manifest's list, in whose order networks are attached.
    pub network_position: usize,
    /// How it is joined to the pod's interface.
    pub binding: Binding,
    /// The plugin that a cluster's KubeVirt object is to know and that decides how it is joined; a bridge then.
    pub plugin: Option<String>,
    /// Device model.
    pub model: NicModel,
    /// The guest's address, if it is not to be derived.
    pub mac: Option<MacAddr>,
    /// The ports that reach the guest through masquerade, all if empty; named ones can be referred to.
    pub ports: Vec<Port>,
    /// Place in the firmware's order over disks and NICs.
    pub boot_order: Option<u32>,
    /// Index for predictable names.
    pub acpi_index: Option<u32>,
    /// Its place on the PCI buses.
    pub pci: Option<PciAddress>,
    /// Extra DHCP options.
    pub dhcp: DhcpOptions,
    /// Whether the link starts without carrier.
    pub link_down: bool,
}

/// KubeVirt's cluster-wide default (`network.defaultNetworkInterface`).
const DEFAULT_BINDING: Binding = Binding::Bridge;
const DEFAULT_NAME: &str = "default";

/// Joins `interfaces` and `networks` by name; with neither, one NIC on the pod network unless `attach` forbids it.
pub(super) fn read(
    networks: &[Node<'_>],
    devices: &Fields<'_>,
    attach: bool,
    boot_orders: &mut BootOrders,
) -> Vec<Nic> {
    let interfaces = devices.items("interfaces");
    if interfaces.is_empty() && networks.is_empty() {
        return if attach { vec![default_nic()] } else { Vec::new() };
    }
    if let Some(node) = interfaces.get(Request::MAX_INTERFACES) {
        node.refuse(format!("there can be at most {} interfaces", Request::MAX_INTERFACES));
    }
    let mut by_name = read_networks(networks);
    let mut joined = Vec::new();
    let mut names = BTreeMap::new();
    for node in interfaces.iter().take(Request::MAX_INTERFACES) {
        let read = node.fields(|fields| (read_name(fields), interface::read(fields, boot_orders)));
        let Some((Some(name), interface)) = read else { continue };
        if let Some(earlier) = names.insert(name.clone(), node.path().to_owned()) {
            node.named("name").refuse(format!("{name:?} is the name of {earlier} too"));
            continue;
        }
        match by_name.remove(&name) {
            Some(named) => joined.extend(join(node, name, interface, named)),
            None => node.named("name").refuse(format!("there is no network {name:?}")),
        }
    }
    // An interface without a readable name may be the one that is missed; its own complaint comes first.
    if names.len() == interfaces.len() {
        for named in by_name.values() {
            named.node.named("name").refuse(format!("there is no interface {:?}", named.name));
        }
    }
    check_ports(&interfaces, &joined);
    check_acpi_indices(&interfaces, &joined);
    joined
}

fn default_nic() -> Nic {
    Nic {
        name: DEFAULT_NAME.to_owned(),
        network: Network::Pod { cidr: None, cidr6: None },
        network_position: 0,
        binding: DEFAULT_BINDING,
        plugin: None,
        model: NicModel::default(),
        mac: None,
        ports: Vec::new(),
        boot_order: None,
        acpi_index: None,
        pci: None,
        dhcp: DhcpOptions::default(),
        link_down: false,
    }
}

fn read_networks<'a>(networks: &[Node<'a>]) -> BTreeMap<String, NamedNetwork<'a>> {
    let mut by_name: BTreeMap<String, NamedNetwork<'a>> = BTreeMap::new();
    let mut primary: Option<String> = None;
    let read = |(position, node)| network::read(position, node);
    for named in networks.iter().enumerate().filter_map(read) {
        if named.network.as_ref().is_some_and(Network::is_primary) {
            match &primary {
                Some(earlier) => {
                    let complaint = "is a second pod network or multus default after";
                    named.node.refuse(format!("{complaint} {earlier}, there can be one"));
                }
                None => primary = Some(named.node.path().to_owned()),
            }
        }
        match by_name.get(&named.name) {
            Some(earlier) => {
                let complaint = format!("{:?} is the name of {} too", named.name, earlier.node.path());
                named.node.named("name").refuse(complaint);
            }
            None => {
                by_name.insert(named.name.clone(), named);
            }
        }
    }
    by_name
}

fn join(node: &Node<'_>, name: String, interface: Interface, named: NamedNetwork<'_>) -> Option<Nic> {
    let network = named.network?;
    let Interface { binding, plugin, model, mac, ports, boot_order, acpi_index, pci, dhcp, link_down } = interface;
    let binding = binding.unwrap_or(DEFAULT_BINDING);
    if binding != Binding::Masquerade {
        if !ports.is_empty() {
            node.named("ports").warn(Scope::Everywhere, "a bridge binding lets all ports through");
        }
        if let Network::Pod { cidr, cidr6 } = &network {
            let pod = named.node.named("pod");
            let given = [("vmNetworkCIDR", cidr.is_some()), ("vmIPv6NetworkCIDR", cidr6.is_some())];
            for (field, _) in given.into_iter().filter(|(_, given)| *given) {
                pod.named(field).warn(Scope::Everywhere, "only a masquerade NIC has a subnet of its own");
            }
        }
    }
    let network_position = named.position;
    Some(Nic {
        name,
        network,
        network_position,
        binding,
        plugin,
        model,
        mac,
        ports,
        boot_order,
        acpi_index,
        pci,
        dhcp,
        link_down,
    })
}

/// Reports an index that two interfaces have.
fn check_acpi_indices(interfaces: &[Node<'_>], nics: &[Nic]) {
    let mut taken = BTreeMap::new();
    for (nic, index) in nics.iter().filter_map(|nic| Some((nic, nic.acpi_index?))) {
        if let (Some(other), Some(node)) = (taken.insert(index, &nic.name), node_of(interfaces, nic)) {
            node.named("acpiIndex").refuse(format!("{index} is taken by interface {other:?}"));
        }
    }
}

/// The fields with the addresses of NICs.
pub(super) fn pci_addresses<'a>(devices: &Fields<'a>, nics: &[Nic]) -> Vec<(Node<'a>, PciAddress)> {
    let interfaces = devices.items("interfaces");
    let given = nics.iter().filter_map(|nic| Some((node_of(&interfaces, nic)?.named("pciAddress"), nic.pci?)));
    given.collect()
}

fn node_of<'n, 'a>(interfaces: &'n [Node<'a>], nic: &Nic) -> Option<&'n Node<'a>> {
    interfaces.iter().find(|node| node.value().get("name") == Some(&nic.name.as_str().into()))
}

/// Port names are unique over the machine, for Services know no interface.
fn check_ports(interfaces: &[Node<'_>], nics: &[Nic]) {
    let count: usize = nics.iter().map(|nic| nic.ports.len()).sum();
    if let (true, Some(node)) = (count > Request::MAX_PORTS, interfaces.first()) {
        node.named("ports")
            .refuse(format!("{count} ports over all interfaces, at most {} are possible", Request::MAX_PORTS));
    }
    let mut names = BTreeMap::new();
    for nic in nics {
        for name in nic.ports.iter().filter_map(|port| port.name.as_deref()) {
            let other = names.insert(name, nic.name.as_str()).filter(|other| *other != nic.name);
            if let (Some(other), Some(node)) = (other, node_of(interfaces, nic)) {
                node.named("ports").refuse(format!("the name {name:?} is given to a port of interface {other:?} too"));
            }
        }
    }
}
