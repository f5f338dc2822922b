//! Addresses and ports that a Service is given once and keeps.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::service::{ClusterIp, IpFamily, IpFamilyPolicy, NODE_PORTS, Service, ServicePort};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use terms::{IpNetwork, ObjectKey, Protocol};

use super::ServiceError;

/// What a Service was given, in the order in which its manifest lists families and ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Assigned {
    /// Cluster addresses, the primary family's first.
    pub cluster_ips: Vec<IpAddr>,
    /// The host port of each of the Service's ports that has one; empty for a Service that has none.
    pub node_ports: Vec<Option<u16>>,
}

/// A Service and what it was given.
#[derive(Debug, Clone, Copy)]
pub struct Served<'a> {
    /// The Service of the manifest.
    pub service: &'a Service,
    /// The addresses and ports that it was given.
    pub assigned: &'a Assigned,
}

/// The ranges of cluster addresses and what of them is taken.
#[derive(Debug, Clone)]
pub struct Pool {
    ranges: Vec<IpNetwork>,
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<(Protocol, u16)>,
}

impl Pool {
    /// The ranges, less what other Services hold.
    #[must_use]
    pub fn new<'a>(ranges: Vec<IpNetwork>, others: impl IntoIterator<Item = Served<'a>>) -> Self {
        let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for Served { service, assigned } in others {
            addresses.extend(&assigned.cluster_ips);
            let held = service.ports.iter().zip(&assigned.node_ports);
            ports.extend(held.filter_map(|(port, number)| Some((port.protocol, (*number)?))));
        }
        Self { ranges, addresses, ports }
    }

    /// Gives a Service what it asks for, and the rest by its name: the same name gets the same address where it is free.
    ///
    /// # Errors
    /// When an address or port it asks for is taken or out of range, or none is left.
    pub fn assign(&mut self, service: &Service) -> Result<Assigned, ServiceError> {
        let cluster_ips = match &service.cluster_ip {
            ClusterIp::Headless => return Err(ServiceError::Headless(service.metadata.key.clone())),
            ClusterIp::Given(addresses) => self.take_addresses(&service.metadata.key, addresses)?,
            ClusterIp::Assigned => families(service)
                .iter()
                .map(|family| self.choose_address(&service.metadata.key, *family))
                .collect::<Result<_, _>>()?,
        };
        let node_ports = match service.kind {
            api::service::ServiceKind::ClusterIp => Vec::new(),
            _ => self.node_ports(service)?,
        };
        Ok(Assigned { cluster_ips, node_ports })
    }

    fn take_addresses(&mut self, service: &ObjectKey, requested: &[IpAddr]) -> Result<Vec<IpAddr>, ServiceError> {
        for address in requested {
            if !self.ranges.iter().any(|range| range.contains(*address)) {
                let ranges = self.ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(ServiceError::OutOfRange { service: service.clone(), address: *address, ranges });
            }
            if !self.addresses.insert(*address) {
                return Err(ServiceError::AddressTaken { service: service.clone(), address: *address });
            }
        }
        Ok(requested.to_vec())
    }

    fn choose_address(&mut self, service: &ObjectKey, family: IpFamily) -> Result<IpAddr, ServiceError> {
        let exhausted = || ServiceError::NoAddressLeft { service: service.clone() };
        let of_family = |range: &&IpNetwork| range.is_ipv4() == (family == IpFamily::V4);
        let range = *self.ranges.iter().find(of_family).ok_or_else(exhausted)?;
        // The first address is the network's own; an IPv4 range also keeps its last, which is the broadcast address.
        let hosts = host_count(range);
        let start = seed(&format!("{service} {family:?}")) % hosts.max(1);
        let address = (0..hosts)
            .map(|step| nth_host(range, (start + step) % hosts))
            .find(|address| !self.addresses.contains(address))
            .ok_or_else(exhausted)?;
        self.addresses.insert(address);
        Ok(address)
    }

    fn node_ports(&mut self, service: &Service) -> Result<Vec<Option<u16>>, ServiceError> {
        let key = &service.metadata.key;
        for (index, port) in service.ports.iter().enumerate() {
            let Some(number) = port.node_port else { continue };
            let protocol = port.protocol;
            if !self.ports.insert((protocol, number)) {
                return Err(ServiceError::PortTaken { service: key.clone(), index, protocol, number });
            }
        }
        let node_port = |port: &ServicePort| match port.node_port {
            None if service.allocates_node_ports => self.choose_port(key, port).map(Some),
            requested => Ok(requested),
        };
        service.ports.iter().map(node_port).collect()
    }

    /// One protocol does not stand in another's way: a port number for TCP and UDP is one number on the host too.
    fn choose_port(
        &mut self,
        service: &ObjectKey,
        &ServicePort { protocol, port, .. }: &ServicePort,
    ) -> Result<u16, ServiceError> {
        let count = u64::from(NODE_PORTS.end() - NODE_PORTS.start()) + 1;
        let start = seed(&format!("{service} {port}")) % count;
        let candidate = |step: u64| u16::try_from((start + step) % count).map(|offset| NODE_PORTS.start() + offset);
        let free = (0..count)
            .filter_map(|step| candidate(step).ok())
            .find(|number| !self.ports.contains(&(protocol, *number)));
        let number = free.ok_or_else(|| ServiceError::NoPortLeft { service: service.clone() })?;
        self.ports.insert((protocol, number));
        Ok(number)
    }
}

/// The address families of a Service on this host, which has both.
fn families(service: &Service) -> Vec<IpFamily> {
    let mut families = service.ip_families.clone();
    if families.is_empty() {
        families.push(IpFamily::V4);
    }
    if service.ip_family_policy != IpFamilyPolicy::SingleStack && families.len() == 1 {
        families.push(if families == [IpFamily::V4] { IpFamily::V6 } else { IpFamily::V4 });
    }
    families
}

fn host_count(range: IpNetwork) -> u64 {
    match range {
        IpNetwork::V4(range) => u64::from(range.size()).saturating_sub(2),
        IpNetwork::V6(range) => u64::try_from(range.size() - 1).unwrap_or(u64::MAX),
    }
}

fn nth_host(range: IpNetwork, n: u64) -> IpAddr {
    match range {
        // `n` is below the host count, which fits the range's own width.
        IpNetwork::V4(range) => {
            let offset = u32::try_from(n + 1).unwrap_or(1);
            Ipv4Addr::from_bits(range.network().to_bits().wrapping_add(offset)).into()
        }
        IpNetwork::V6(range) => Ipv6Addr::from_bits(range.network().to_bits().wrapping_add(u128::from(n) + 1)).into(),
    }
}

fn seed(text: &str) -> u64 {
    Sha256::digest(text).iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: &str) -> Service {
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{selector: {{app: web}}, {spec}}}}}"
        );
        match api::manifest::parse(&text, "test").unwrap().remove(0).body {
            api::manifest::Body::Service(service) => service,
            other => panic!("{other:?}"),
        }
    }

    /// A pool in which `others` hold their addresses and ports.
    fn pool(others: &[(&Service, Assigned)]) -> Pool {
        let others = others.iter().map(|(service, assigned)| Served { service, assigned });
        Pool::new(vec!["172.30.78.0/24".parse().unwrap(), "fd77:7461:7078::/112".parse().unwrap()], others)
    }

    #[test]
    fn the_same_service_gets_the_same_address_and_two_get_different_ones() {
        let web = service("ports: [{port: 80}]");
        let first = pool(&[]).assign(&web).unwrap();
        assert_eq!(pool(&[]).assign(&web).unwrap(), first);
        assert_ne!(pool(&[(&web, first.clone())]).assign(&web).unwrap(), first);
    }

    #[test]
    fn dual_stack_gets_one_of_each_and_a_node_port_service_a_port_for_each() {
        let web = service(
            "type: NodePort, ipFamilyPolicy: PreferDualStack, ports: [{name: a, port: 80}, {name: b, port: 81, nodePort: 30081}]",
        );
        let assigned = pool(&[]).assign(&web).unwrap();
        assert!(assigned.cluster_ips[0].is_ipv4() && assigned.cluster_ips[1].is_ipv6());
        assert!(NODE_PORTS.contains(&assigned.node_ports[0].unwrap()) && assigned.node_ports[1] == Some(30081));
    }

    // spec: SVC-10, SVC-14
    #[test]
    fn a_request_that_cannot_be_met_is_refused_by_path() {
        let taken = Assigned { cluster_ips: vec!["172.30.78.9".parse().unwrap()], node_ports: vec![Some(30081)] };
        let other = service("type: NodePort, ports: [{port: 80, nodePort: 30081}]");
        let refusal = |spec: &str| pool(&[(&other, taken.clone())]).assign(&service(spec)).unwrap_err().to_string();
        assert!(refusal("clusterIP: 172.30.78.9, ports: [{port: 80}]").contains("172.30.78.9 is taken"));
        assert!(refusal("clusterIP: 10.0.0.1, ports: [{port: 80}]").contains("10.0.0.1 is not in 172.30.78.0/24"));
        let second = "type: NodePort, ports: [{name: a, port: 79}, {name: b, port: 80, nodePort: 30081}]";
        assert!(refusal(second).contains("spec.ports[1].nodePort: TCP 30081 is taken"));
        assert!(refusal("clusterIP: None, ports: [{port: 80}]").contains("headless"));
    }

    // spec: SVC-10
    #[test]
    fn one_number_serves_tcp_and_udp_on_the_host() {
        let dns = service(
            "type: NodePort, ports: [{name: t, port: 53, nodePort: 30053}, {name: u, port: 53, protocol: UDP, nodePort: 30053}]",
        );
        assert_eq!(pool(&[]).assign(&dns).unwrap().node_ports, [Some(30053), Some(30053)]);
        let one = |protocol| {
            service(&format!("type: NodePort, ports: [{{port: 53, protocol: {protocol}, nodePort: 30053}}]"))
        };
        let (tcp, udp) = (one("TCP"), one("UDP"));
        let held = pool(&[]).assign(&tcp).unwrap();
        assert_eq!(pool(&[(&tcp, held.clone())]).assign(&udp).unwrap().node_ports, [Some(30053)]);
        assert!(matches!(pool(&[(&tcp, held)]).assign(&tcp), Err(ServiceError::PortTaken { number: 30053, .. })));
        let chosen = service("type: NodePort, ports: [{name: t, port: 53}, {name: u, port: 53, protocol: UDP}]");
        let [first, second] = pool(&[]).assign(&chosen).unwrap().node_ports[..] else { panic!() };
        assert!(first.is_some());
        assert_eq!(first, second, "a client needs to know one number only, as in Kubernetes");
    }

    // spec: SVC-9
    #[test]
    fn a_load_balancer_gets_the_node_ports_that_it_wants() {
        let ports = "ports: [{name: a, port: 80}, {name: b, port: 81, nodePort: 30081}]";
        let given = |spec: &str| pool(&[]).assign(&service(&format!("type: LoadBalancer, {spec} {ports}"))).unwrap();
        assert!(given("").node_ports[0].is_some());
        assert_eq!(given("allocateLoadBalancerNodePorts: false,").node_ports, [None, Some(30081)]);
    }

    #[test]
    fn a_full_range_is_said() {
        let all =
            Assigned { cluster_ips: (1..=254).map(|n| IpAddr::from([172, 30, 78, n])).collect(), node_ports: vec![] };
        let web = service("ports: [{port: 80}]");
        let error = pool(&[(&web, all)]).assign(&web).unwrap_err().to_string();
        assert!(error.contains("no cluster address is left"), "{error}");
    }
}
