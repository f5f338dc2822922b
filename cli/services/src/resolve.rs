//! Which VMs stand behind which Service.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use api::kubevirt::Spec;
use api::metadata::Labels;
use api::service::{ServiceKind, ServicePort};
use terms::IpNetwork;
use wiring::Family;

use super::{Frontend, Served, Services};

/// A VM as a Service sees it.
#[derive(Debug, Clone)]
pub struct Endpoint<'a> {
    /// Labels of the object, which selectors match.
    pub labels: &'a Labels,
    /// Specification of the instance, which names ports.
    pub spec: &'a Spec,
    /// Namespace of the VM: a Service selects in its own alone.
    pub namespace: &'a str,
    /// Addresses on the pod network.
    pub addresses: &'a [IpAddr],
    /// Whether it may receive traffic.
    pub ready: bool,
}

impl Services {
    /// Joins Services and VMs into what the kernel is to serve.
    #[must_use]
    pub fn resolve(served: &[Served<'_>], endpoints: &[Endpoint<'_>], ranges: Vec<IpNetwork>) -> Self {
        let frontends = served.iter().flat_map(|served| served.frontends(endpoints)).collect();
        let vms = endpoints.iter().flat_map(|endpoint| endpoint.addresses).copied().collect();
        Self { frontends, vms, ranges, refuses_loopback_v6: false }
    }
}

impl Served<'_> {
    /// Addresses of the manifest that lead nowhere: the Service has not their family.
    #[must_use]
    pub fn unserved(&self) -> Vec<IpAddr> {
        let has = |address: &IpAddr| self.assigned.cluster_ips.iter().any(|ip| Family::of(*ip) == Family::of(*address));
        self.external().filter(|address| !has(address)).collect()
    }

    /// Addresses from outside that the manifest names.
    fn external(&self) -> impl Iterator<Item = IpAddr> {
        let balanced = match self.service.kind {
            ServiceKind::LoadBalancer => self.service.load_balancer_ip,
            ServiceKind::ClusterIp | ServiceKind::NodePort => None,
        };
        self.service.external_ips.iter().copied().chain(balanced)
    }

    fn frontends(&self, endpoints: &[Endpoint<'_>]) -> Vec<Frontend> {
        let ports = self.service.ports.iter().enumerate();
        ports
            .flat_map(|(index, port)| self.assigned.cluster_ips.iter().map(move |ip| (index, port, Family::of(*ip))))
            .map(|(index, port, family)| self.frontend(index, port, family, endpoints))
            .collect()
    }

    fn frontend(&self, index: usize, port: &ServicePort, family: Family, endpoints: &[Endpoint<'_>]) -> Frontend {
        let Self { service, assigned } = self;
        let port_name = port.name.clone().unwrap_or_else(|| port.port.to_string());
        let addresses = assigned.cluster_ips.iter().copied().chain(self.external());
        Frontend {
            name: format!("{}/{port_name}", service.metadata.key),
            family,
            protocol: port.protocol,
            addresses: addresses.filter(|address| Family::of(*address) == family).collect(),
            port: port.port,
            node_port: assigned.node_ports.get(index).copied().flatten(),
            affinity_seconds: service.session_affinity_seconds,
            backends: self.backends(port, family, endpoints),
        }
    }

    fn backends(&self, port: &ServicePort, family: Family, endpoints: &[Endpoint<'_>]) -> BTreeSet<SocketAddr> {
        let service = self.service;
        let behind = |endpoint: &&Endpoint<'_>| {
            endpoint.namespace == service.metadata.key.namespace()
                && service.selects(endpoint.labels)
                && (endpoint.ready || service.publish_not_ready)
        };
        let at = |endpoint: &Endpoint<'_>| {
            let number = port.number_on(endpoint.spec)?;
            let address = endpoint.addresses.iter().find(|address| Family::of(**address) == family)?;
            Some(SocketAddr::new(*address, number))
        };
        endpoints.iter().filter(behind).filter_map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use api::manifest::{Body, parse};

    use super::*;
    use crate::Assigned;

    const TEXT: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  loadBalancerIP: 192.0.2.9
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: www}]
---
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: one, labels: {app: web}}
spec:
  domain:
    memory: {guest: 64Mi}
    devices: {interfaces: [{name: default, masquerade: {}, ports: [{name: www, port: 8080}]}]}
  networks: [{name: default, pod: {}}]
";

    #[test]
    fn a_named_port_is_found_on_the_vm_in_each_family() {
        let objects = parse(TEXT, "test").unwrap();
        let (mut service, mut vm) = (None, None);
        for object in objects {
            match object.body {
                Body::Service(found) => service = Some(found),
                Body::VirtualMachineInstance(found) => vm = Some(found),
                other => panic!("{other:?}"),
            }
        }
        let (service, vm) = (service.unwrap(), vm.unwrap());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let assigned =
            Assigned { cluster_ips: vec![ip("172.30.78.4"), ip("fd77:7461:7078::4")], node_ports: vec![Some(30001)] };
        let addresses = [ip("172.30.77.2"), ip("fd77:7461:7076::2")];
        let endpoint = |namespace, ready| Endpoint {
            labels: &vm.metadata.labels,
            spec: &vm.spec,
            namespace,
            addresses: &addresses,
            ready,
        };
        let served = [Served { service: &service, assigned: &assigned }];
        let frontends = Services::resolve(&served, &[endpoint("default", true)], Vec::new()).frontends;
        let shown: Vec<_> = frontends.iter().map(|f| (f.addresses.clone(), f.backends.clone())).collect();
        assert_eq!(
            shown[0],
            (
                BTreeSet::from([ip("172.30.78.4"), ip("192.0.2.9")]),
                BTreeSet::from(["172.30.77.2:8080".parse().unwrap()])
            )
        );
        assert_eq!(shown[1].1, BTreeSet::from(["[fd77:7461:7076::2]:8080".parse().unwrap()]));
        let of_one_family = Assigned { cluster_ips: vec![ip("fd77:7461:7078::4")], node_ports: vec![None] };
        assert_eq!(Served { service: &service, assigned: &of_one_family }.unserved(), [ip("192.0.2.9")]);
        assert!(served[0].unserved().is_empty());
        for endpoint in [endpoint("default", false), endpoint("other", true)] {
            let empty = Services::resolve(&served, &[endpoint], Vec::new());
            assert!(empty.frontends.iter().all(|frontend| frontend.backends.is_empty()));
        }
    }
}
