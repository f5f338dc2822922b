//! Reads and checks a Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use terms::{ObjectKey, Protocol};

use super::{ClusterIp, IpFamily, IpFamilyPolicy, NODE_PORTS, Service, ServiceKind, ServicePort, TargetPort};
use crate::kubevirt::is_port_name;
use crate::metadata::{self, Metadata};
use crate::reader::{Fields, Node, Scope};

const KINDS: &[(&str, ServiceKind)] = &[
    ("ClusterIP", ServiceKind::ClusterIp),
    ("NodePort", ServiceKind::NodePort),
    ("LoadBalancer", ServiceKind::LoadBalancer),
];
const POLICIES: &[(&str, IpFamilyPolicy)] = &[
    ("SingleStack", IpFamilyPolicy::SingleStack),
    ("PreferDualStack", IpFamilyPolicy::PreferDualStack),
    ("RequireDualStack", IpFamilyPolicy::RequireDualStack),
];
const FAMILIES: &[(&str, IpFamily)] = &[("IPv4", IpFamily::V4), ("IPv6", IpFamily::V6)];

impl Service {
    pub(crate) fn read(object: &Fields<'_>) -> Option<Self> {
        let metadata = metadata::read(object);
        object.ignored(Scope::Everywhere, "the controller writes it", &["status"]);
        object.required("spec")?.fields(|spec| read_spec(spec, metadata))?
    }
}

fn read_spec(spec: &Fields<'_>, metadata: Option<Metadata>) -> Option<Service> {
    spec.unsupported(&["externalName", "healthCheckNodePort", "loadBalancerSourceRanges"]);
    spec.ignored(Scope::Local, "there is one load balancer", &["loadBalancerClass"]);
    spec.ignored(Scope::Local, "there is one machine", &["trafficDistribution"]);
    let kind = spec.one_of("type", KINDS, &["ExternalName"]).unwrap_or_default();
    let cluster_ip = read_cluster_ip(spec);
    if cluster_ip == ClusterIp::Headless && kind != ServiceKind::ClusterIp {
        spec.node().named("clusterIP").refuse("None is for type ClusterIP");
    }
    let ip_families = read_families(spec, &cluster_ip);
    let policy = spec.one_of("ipFamilyPolicy", POLICIES, &[]);
    if policy == Some(IpFamilyPolicy::SingleStack) && ip_families.len() > 1 {
        spec.node()
            .named("ipFamilyPolicy")
            .refuse("SingleStack allows one address family, ipFamilies or clusterIPs give two");
    }
    // An ExternalName Service has no ports either; its kind was reported already.
    let is_name = spec.field("type").is_some_and(|node| node.value() == "ExternalName");
    let ports = read_ports(spec, kind, cluster_ip != ClusterIp::Headless && !is_name);
    let local = |name| spec.one_of(name, &[("Cluster", false), ("Local", true)], &[]).unwrap_or(false);
    let (selector, session_affinity_seconds) = (metadata::texts(spec, "selector"), read_affinity(spec));
    let external_ips = spec.items("externalIPs").iter().filter_map(read_external_ip).collect();
    let load_balancer_ip = spec.set("loadBalancerIP").and_then(|node| read_external_ip(&node));
    let (external_traffic_is_local, internal_traffic_is_local) =
        (local("externalTrafficPolicy"), local("internalTrafficPolicy"));
    let is_reached_from_outside = kind != ServiceKind::ClusterIp || !spec.items("externalIPs").is_empty();
    if let Some(node) = spec.set("externalTrafficPolicy").filter(|_| !is_reached_from_outside) {
        node.refuse(
            "may only be set for externally-accessible services: type NodePort or LoadBalancer, or externalIPs",
        );
    }
    let allocates_node_ports = read_allocates_node_ports(spec, kind);
    let publish_not_ready = spec.boolean("publishNotReadyAddresses").unwrap_or(false);
    // Only now: complaints about the rest are worth reading even if the object has no name.
    let metadata = metadata?;
    Some(Service {
        metadata,
        kind,
        selector,
        ports,
        cluster_ip,
        ip_family_policy: policy.unwrap_or_else(|| default_policy(&ip_families)),
        ip_families,
        external_ips,
        load_balancer_ip,
        session_affinity_seconds,
        allocates_node_ports,
        external_traffic_is_local,
        internal_traffic_is_local,
        publish_not_ready,
    })
}

fn read_allocates_node_ports(spec: &Fields<'_>, kind: ServiceKind) -> bool {
    let asked = spec.field("allocateLoadBalancerNodePorts").map(|node| (node.boolean(), node));
    match (kind, asked) {
        (ServiceKind::ClusterIp, asked) => {
            if let Some((_, node)) = asked {
                node.refuse("is for type LoadBalancer");
            }
            false
        }
        (ServiceKind::NodePort, Some((_, node))) => {
            node.refuse("is for type LoadBalancer");
            true
        }
        (_, asked) => asked.and_then(|(answer, _)| answer).unwrap_or(true),
    }
}

/// Two families given without a policy ask for both.
fn default_policy(families: &[IpFamily]) -> IpFamilyPolicy {
    if families.len() > 1 { IpFamilyPolicy::RequireDualStack } else { IpFamilyPolicy::SingleStack }
}

fn read_cluster_ip(spec: &Fields<'_>) -> ClusterIp {
    let (first, all) = (spec.set("clusterIP"), spec.items("clusterIPs"));
    let first = first.into_iter().collect::<Vec<_>>();
    let nodes = if all.is_empty() { &first } else { &all };
    if let ([single], [head, ..]) = (first.as_slice(), all.as_slice())
        && single.value() != head.value()
    {
        single.expected("the first of clusterIPs");
    }
    if nodes.iter().any(|node| node.value() == "None") {
        if let Some(node) = nodes.get(1) {
            node.refuse("must be absent after None, which is the only entry of a headless Service");
        }
        return ClusterIp::Headless;
    }
    let addresses: Vec<IpAddr> = nodes.iter().filter_map(Node::ip_address).collect();
    match addresses.as_slice() {
        [] => ClusterIp::Assigned,
        [_] => ClusterIp::Given(addresses),
        [one, two] if one.is_ipv4() != two.is_ipv4() => ClusterIp::Given(addresses),
        _ => {
            spec.node().named("clusterIPs").refuse("must be at most one address of each family");
            ClusterIp::Given(addresses)
        }
    }
}

fn read_families(spec: &Fields<'_>, cluster_ip: &ClusterIp) -> Vec<IpFamily> {
    let nodes = spec.items("ipFamilies");
    let families: Vec<_> = nodes.iter().filter_map(|node| node.one_of(FAMILIES, &[])).collect();
    let distinct: BTreeSet<_> = families.iter().collect();
    if distinct.len() < families.len() {
        spec.node().named("ipFamilies").refuse("must name each family once");
    }
    let ClusterIp::Given(addresses) = cluster_ip else { return families };
    let given: Vec<_> = addresses.iter().map(|a| if a.is_ipv4() { IpFamily::V4 } else { IpFamily::V6 }).collect();
    if !families.is_empty() && !given.iter().zip(&families).all(|(given, family)| given == family) {
        spec.node().named("ipFamilies").refuse("must be the families of the cluster addresses, in their order");
    }
    if families.is_empty() { given } else { families }
}

/// An address that is routed here from elsewhere: never one that means something on every host.
fn read_external_ip(node: &Node<'_>) -> Option<IpAddr> {
    let address = node.ip_address()?;
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local {
        node.expected("an address that is not loopback, link-local, multicast or unspecified");
        return None;
    }
    Some(address)
}

fn read_affinity(spec: &Fields<'_>) -> Option<u32> {
    // Kubernetes' default: three hours.
    const DEFAULT_SECONDS: u32 = 10_800;
    let by_client = spec.one_of("sessionAffinity", &[("None", false), ("ClientIP", true)], &[]).unwrap_or(false);
    let config = spec.field("sessionAffinityConfig");
    let seconds = config.as_ref().and_then(|node| {
        node.fields(|config| {
            let client = config.field("clientIP")?;
            client.fields(|client| client.integer("timeoutSeconds", 1..=86_400_u32))?
        })?
    });
    if let (false, Some(config)) = (by_client, config) {
        config.refuse("is for sessionAffinity ClientIP");
    }
    by_client.then(|| seconds.unwrap_or(DEFAULT_SECONDS))
}

fn read_ports(spec: &Fields<'_>, kind: ServiceKind, needs_ports: bool) -> Vec<ServicePort> {
    let nodes = spec.items("ports");
    if nodes.is_empty() && needs_ports {
        spec.node().named("ports").refuse("must have a port");
    }
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::new();
    for node in &nodes {
        let Some(Some(port)) = node.fields(|port| read_port(port, kind, nodes.len() > 1)) else { continue };
        if let Some(name) = port.name.as_ref().filter(|name| !names.insert((*name).clone())) {
            node.named("name").refuse(format!("{name:?} is given twice"));
        }
        if !numbers.insert((port.protocol, port.port)) {
            node.named("port").refuse(format!("{} {} is given twice", port.protocol, port.port));
        }
        if let Some(number) = port.node_port.filter(|number| !node_ports.insert((port.protocol, *number))) {
            node.named("nodePort").refuse(format!("{} {number} is given twice", port.protocol));
        }
        ports.push(port);
    }
    ports
}

fn read_port(port: &Fields<'_>, kind: ServiceKind, one_of_many: bool) -> Option<ServicePort> {
    // A hint about what is spoken, which no rule here looks at.
    port.text("appProtocol");
    let protocols = &[("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];
    let protocol = port.one_of("protocol", protocols, &[]).unwrap_or_default();
    let name = port.set("name").and_then(|node| Some((node.text()?.to_owned(), node)));
    match &name {
        Some((name, node)) if ObjectKey::new(name, "x").is_err() => {
            node.expected("at most 63 lower-case letters, digits and '-'");
        }
        None if one_of_many => port.node().named("name").refuse("is required when there is more than one port"),
        _ => {}
    }
    let node_port = port.set("nodePort").and_then(|node| {
        if kind == ServiceKind::ClusterIp {
            node.refuse("is for type NodePort and LoadBalancer");
        }
        node.integer(NODE_PORTS)
    });
    let target = port.set("targetPort").map(|node| read_target(&node));
    let number = port.required("port")?.integer(1..=u16::MAX)?;
    let target = target.unwrap_or(Some(TargetPort::Number(number)))?;
    Some(ServicePort { name: name.map(|(name, _)| name), protocol, port: number, target, node_port })
}

fn read_target(node: &Node<'_>) -> Option<TargetPort> {
    match node.value().as_str() {
        None => node.integer(1..=u16::MAX).map(TargetPort::Number),
        Some(name) if is_port_name(name) => Some(TargetPort::Name(name.to_owned())),
        Some(_) => {
            node.expected("a number from 1 to 65535 or the name of a port");
            None
        }
    }
}
