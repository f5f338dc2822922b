//! Networks: what a NIC is plugged into.

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use terms::{IpNetwork, Ipv4Network, Ipv6Network, ObjectKey};

use super::texts::{lenient_ipv4, read_name};
use crate::metadata::DEFAULT_NAMESPACE;
use crate::reader::{Fields, Node};

/// What a NIC is plugged into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// The pod network.
    Pod {
        /// The guest's IPv4 subnet behind masquerade.
        cidr: Option<Ipv4Network>,
        /// The guest's IPv6 subnet behind masquerade.
        cidr6: Option<Ipv6Network>,
    },
    /// A NetworkAttachmentDefinition.
    Multus {
        /// Its namespace, if it is not the machine's.
        namespace: Option<String>,
        /// Its name.
        name: String,
        /// Whether it replaces the pod network.
        is_default: bool,
    },
}

impl Network {
    /// Whether its interface is the pod's first.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        matches!(self, Self::Pod { .. } | Self::Multus { is_default: true, .. })
    }
}

/// A network's name, and the network unless it had complaints.
pub(super) struct NamedNetwork<'a> {
    pub(super) node: Node<'a>,
    pub(super) position: usize,
    pub(super) name: String,
    pub(super) network: Option<Network>,
}

/// Reads an element of `networks`.
pub(super) fn read<'a>(position: usize, node: &Node<'a>) -> Option<NamedNetwork<'a>> {
    let (name, network) = node.fields(|fields| {
        fields.unsupported(&["resourceClaim"]);
        let name = read_name(fields);
        let (pod, multus) = (fields.field("pod"), fields.field("multus"));
        let lacking = fields.field("resourceClaim").is_some();
        match usize::from(pod.is_some()) + usize::from(multus.is_some()) + usize::from(lacking) {
            1 => {}
            0 => fields.node().refuse("needs a source, pod or multus"),
            _ => fields.node().refuse("has more than one source"),
        }
        let pod = pod.and_then(|node| node.fields(read_pod));
        (name, pod.or(multus.and_then(|node| node.fields(read_multus)?)))
    })?;
    Some(NamedNetwork { node: node.clone(), position, name: name?, network })
}

fn read_pod(pod: &Fields<'_>) -> Network {
    let v4 = |node: Node<'_>| {
        let (address, prefix) = parse_cidr(&node, 8..=30, "IPv4", lenient_ipv4)?;
        let network =
            Ipv4Network::new(address, prefix).and_then(|given| Ipv4Network::new(given.network(), prefix)).ok();
        network.filter(|network| is_usable(&node, (*network).into()))
    };
    let v6 = |node: Node<'_>| {
        let (address, prefix) = parse_cidr(&node, 16..=126, "IPv6", |text| text.parse::<Ipv6Addr>().ok())?;
        let network =
            Ipv6Network::new(address, prefix).and_then(|given| Ipv6Network::new(given.network(), prefix)).ok();
        network.filter(|network| is_usable(&node, (*network).into()))
    };
    Network::Pod { cidr: pod.set("vmNetworkCIDR").and_then(v4), cidr6: pod.set("vmIPv6NetworkCIDR").and_then(v6) }
}

/// Whether a guest can have addresses of a range.
fn is_usable(node: &Node<'_>, range: IpNetwork) -> bool {
    let reserved = wiring::reserved(range);
    if let Some(what) = reserved {
        node.refuse(format!("{range} contains {what}"));
    }
    reserved.is_none()
}

/// Reads an address and a prefix length: long enough to leave room for other subnets, short enough for two hosts.
fn parse_cidr<A>(
    node: &Node<'_>,
    prefixes: RangeInclusive<u8>,
    family: &str,
    address: impl Fn(&str) -> Option<A>,
) -> Option<(A, u8)> {
    let text = node.text()?;
    let parsed = text.split_once('/').and_then(|(start, prefix)| {
        let digits = prefix.len() <= 3 && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|prefix| digits && prefixes.contains(prefix))?;
        Some((address(start)?, prefix))
    });
    if parsed.is_none() {
        let (low, high) = (prefixes.start(), prefixes.end());
        node.expected(format_args!("an {family} address, '/' and a prefix length from {low} to {high}"));
    }
    parsed
}

fn read_multus(multus: &Fields<'_>) -> Option<Network> {
    let is_default = multus.boolean("default").unwrap_or(false);
    let node = multus.required("networkName")?;
    let text = node.text()?;
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    if let Err(error) = ObjectKey::new(namespace.unwrap_or(DEFAULT_NAMESPACE), name) {
        node.refuse(format!(
            "must be the name of a NetworkAttachmentDefinition, with a namespace and '/' before it or not: {error}"
        ));
        return None;
    }
    Some(Network::Multus { namespace: namespace.map(str::to_owned), name: name.to_owned(), is_default })
}
