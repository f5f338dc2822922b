//! Interfaces: a NIC as the guest sees it, before its network is known.

use std::collections::BTreeSet;
use std::net::IpAddr;

use terms::{MacAddr, Protocol};
use wiring::{Binding, MASQUERADE_GATEWAY_MAC};

use super::boot_order::BootOrders;
use super::pci::read_pci;
use super::texts::{is_port_name, lenient_ipv4};
use crate::reader::{Fields, Node};
use machine::{DhcpOptions, NicModel, PciAddress, PrivateOption};

/// An interface's own fields.
pub(super) struct Interface {
    pub(super) binding: Option<Binding>,
    pub(super) plugin: Option<String>,
    pub(super) model: NicModel,
    pub(super) mac: Option<MacAddr>,
    pub(super) ports: Vec<Port>,
    pub(super) boot_order: Option<u32>,
    pub(super) acpi_index: Option<u32>,
    pub(super) pci: Option<PciAddress>,
    pub(super) dhcp: DhcpOptions,
    pub(super) link_down: bool,
}

/// A declared port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// What Services and probes may call it.
    pub name: Option<String>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Number, not 0.
    pub port: u16,
}

const MODELS: &[(&str, NicModel)] = &[
    ("virtio", NicModel::Virtio),
    ("e1000", NicModel::E1000),
    ("e1000e", NicModel::E1000e),
    ("rtl8139", NicModel::Rtl8139),
];
const BINDINGS: &[(&str, Binding)] = &[("masquerade", Binding::Masquerade), ("bridge", Binding::Bridge)];
const LACKING_BINDINGS: &[&str] = &["passtBinding", "sriov"];
/// By a plugin that a cluster's KubeVirt object names.
const BY_PLUGIN: &str = "binding";
const REMOVED_BINDINGS: &[&str] = &["macvtap", "passt", "slirp"];

/// Reads an element of `interfaces` but for its name.
pub(super) fn read(interface: &Fields<'_>, boot_orders: &mut BootOrders) -> Interface {
    interface.unsupported(&["portRanges", "tag"]);
    Interface {
        binding: read_binding(interface),
        plugin: interface.field(BY_PLUGIN).and_then(|node| node.fields(read_plugin)?),
        model: interface.one_of("model", MODELS, &["igb", "ne2k_pci", "pcnet"]).unwrap_or_default(),
        mac: interface.set("macAddress").and_then(|node| read_mac(&node)),
        ports: read_ports(&interface.items("ports")),
        boot_order: boot_orders.read(interface),
        acpi_index: interface.set("acpiIndex").and_then(|node| node.integer(1..=16_383)),
        pci: interface.set("pciAddress").and_then(|node| read_pci(&node)),
        dhcp: interface.field("dhcpOptions").and_then(|node| node.fields(read_dhcp)).unwrap_or_default(),
        link_down: interface.one_of("state", &[("up", false), ("down", true)], &["absent"]).unwrap_or(false),
    }
}

fn read_plugin(binding: &Fields<'_>) -> Option<String> {
    binding.required("name")?.text().map(str::to_owned)
}

fn read_binding(interface: &Fields<'_>) -> Option<Binding> {
    interface.unsupported(LACKING_BINDINGS);
    for name in REMOVED_BINDINGS {
        interface.unsupported_because(name, "KubeVirt removed this binding in 1.3, use masquerade or bridge");
    }
    let lacking = LACKING_BINDINGS.iter().chain(REMOVED_BINDINGS).copied();
    let all = BINDINGS.iter().map(|(name, _)| *name).chain([BY_PLUGIN]).chain(lacking);
    let given: Vec<_> = all.filter(|name| interface.field(name).is_some()).collect();
    if given.len() > 1 {
        interface.node().refuse(format!("has more than one binding: {}", given.join(", ")));
    }
    let bindings = BINDINGS.iter().filter_map(|(name, binding)| {
        let node = interface.field(name)?;
        node.fields(|_| *binding)
    });
    bindings.last()
}

fn read_mac(node: &Node<'_>) -> Option<MacAddr> {
    let mac = node.parsed()?;
    if mac == MASQUERADE_GATEWAY_MAC {
        node.refuse(format!("{mac} is the gateway's"));
        return None;
    }
    Some(mac)
}

fn read_ports(nodes: &[Node<'_>]) -> Vec<Port> {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::new();
    for node in nodes {
        let port = node.fields(|port| {
            let name = port.set("name").and_then(|node| Some((node.text()?.to_owned(), node)));
            let protocols = &[("TCP", Protocol::Tcp), ("UDP", Protocol::Udp)];
            let protocol = port.one_of("protocol", protocols, &["SCTP"]).unwrap_or_default();
            let number = port.required("port")?.integer(1..=u16::MAX)?;
            if let Some((name, node)) = &name {
                if !is_port_name(name) {
                    node.expected("at most 15 lower-case letters, digits and '-', with a letter among them");
                } else if !names.insert(name.clone()) {
                    node.refuse(format!("{name:?} is given twice"));
                }
            }
            if !numbers.insert((protocol, number)) {
                port.node().named("port").refuse(format!("{protocol} {number} is given twice"));
            }
            Some(Port { name: name.map(|(name, _)| name), protocol, port: number })
        });
        ports.extend(port.flatten());
    }
    ports
}

fn read_dhcp(options: &Fields<'_>) -> DhcpOptions {
    let text = |name| {
        let node = options.set(name)?;
        let text: &str = node.text()?;
        if text.len() > 255 || text.contains(|c: char| c.is_control()) {
            node.expected("at most 255 bytes without control characters");
        }
        Some(text.to_owned())
    };
    DhcpOptions {
        boot_file_name: text("bootFileName"),
        tftp_server_name: text("tftpServerName"),
        ntp_servers: options.items("ntpServers").iter().filter_map(read_ntp_server).collect(),
        private_options: read_private_options(&options.items("privateOptions")),
    }
}

fn read_ntp_server(node: &Node<'_>) -> Option<IpAddr> {
    let address = lenient_ipv4(node.text()?);
    if address.is_none() {
        node.expected("an IPv4 address");
    }
    address.map(IpAddr::V4)
}

fn read_private_options(nodes: &[Node<'_>]) -> Vec<PrivateOption> {
    let mut codes = BTreeSet::new();
    let read = |node: &Node<'_>| {
        node.fields(|option| {
            let code = option.required("option").and_then(|node| Some((node.integer(224..=254_u8)?, node)));
            let value = option.required("value").and_then(|node| Some((node.text()?, node)));
            let ((code, code_node), (value, value_node)) = (code?, value?);
            if !codes.insert(code) {
                code_node.refuse(format!("{code} is given twice"));
            }
            if value.is_empty() || value.len() > 4096 {
                value_node.expected("1 to 4096 bytes");
            }
            Some(PrivateOption { option: code, value: value.to_owned() })
        })?
    };
    nodes.iter().filter_map(read).collect()
}
