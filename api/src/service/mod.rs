//! Service of v1: an address and ports in front of the machines whose labels it selects.

mod read;

use std::net::IpAddr;
use std::ops::RangeInclusive;

use terms::Protocol;

use crate::kubevirt::{Port, Spec};
use crate::metadata::{Labels, Metadata};

/// First and last port on a node's addresses, the default of Kubernetes.
pub const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// An address and ports in front of machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Identity, labels and annotations.
    pub metadata: Metadata,
    /// How far it reaches.
    pub kind: ServiceKind,
    /// The labels a machine must have; empty selects none.
    pub selector: Labels,
    /// Ports, at least one unless headless.
    pub ports: Vec<ServicePort>,
    /// The cluster address.
    pub cluster_ip: ClusterIp,
    /// Families of the cluster addresses, first the primary's; empty leaves the choice.
    pub ip_families: Vec<IpFamily>,
    /// One family or two.
    pub ip_family_policy: IpFamilyPolicy,
    /// Addresses of others that are routed here.
    pub external_ips: Vec<IpAddr>,
    /// The address that a load balancer is asked for.
    pub load_balancer_ip: Option<IpAddr>,
    /// How long a client stays with a machine; `None` for not at all.
    pub session_affinity_seconds: Option<u32>,
    /// Whether ports that name no node port are given one.
    pub allocates_node_ports: bool,
    /// Whether traffic from outside goes to machines of this node only, with its source address kept.
    pub external_traffic_is_local: bool,
    /// Whether traffic from within goes to machines of this node only.
    pub internal_traffic_is_local: bool,
    /// Whether machines that are not ready get traffic too.
    pub publish_not_ready: bool,
}

/// How far a Service reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceKind {
    /// Within the cluster.
    #[default]
    ClusterIp,
    /// On each node's addresses.
    NodePort,
    /// From outside.
    LoadBalancer,
}

/// A Service's cluster address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterIp {
    /// One is chosen.
    Assigned,
    /// These, one of a family.
    Given(Vec<IpAddr>),
    /// None: names resolve to the machines themselves.
    Headless,
}

/// An IP family by Kubernetes' name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// One family or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpFamilyPolicy {
    /// One.
    #[default]
    SingleStack,
    /// Two where there are two.
    PreferDualStack,
    /// Two.
    RequireDualStack,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; there is one unless the port is alone.
    pub name: Option<String>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The number clients use.
    pub port: u16,
    /// The machine's port.
    pub target: TargetPort,
    /// The number on the node's addresses, if it has one.
    pub node_port: Option<u16>,
}

/// A machine's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that the machine gives it.
    Name(String),
}

impl Service {
    /// Whether it has no address of its own.
    #[must_use]
    pub fn is_headless(&self) -> bool {
        self.cluster_ip == ClusterIp::Headless
    }

    /// Whether it selects a machine with these labels.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl ServicePort {
    /// The port's number on a machine; `None` if the machine has no port of that name and protocol.
    #[must_use]
    pub fn number_on(&self, machine: &Spec) -> Option<u16> {
        match &self.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => {
                let named = |port: &&Port| port.name.as_ref() == Some(name) && port.protocol == self.protocol;
                machine.nics.iter().flat_map(|nic| &nic.ports).find(named).map(|port| port.port)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kubevirt::VirtualMachineInstance;
    use crate::manifest::{Body, parse};

    use super::*;

    fn service(spec: &str) -> Service {
        let text = format!("{{apiVersion: v1, kind: Service, metadata: {{name: a}}, spec: {spec}}}");
        match parse(&text, "test").unwrap().remove(0).body {
            Body::Service(service) => service,
            body => panic!("{} is no service", body.kind()),
        }
    }

    fn machine() -> VirtualMachineInstance {
        let text = "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: web},
            spec: {networks: [{name: a, pod: {}}], domain: {memory: {guest: 64Mi}, devices: {interfaces:
            [{name: a, masquerade: {}, ports: [{name: web, port: 8080}, {name: dns, port: 53, protocol: UDP}]}]}}}}";
        match parse(text, "test").unwrap().remove(0).body {
            Body::VirtualMachineInstance(instance) => instance,
            body => panic!("{} is no instance", body.kind()),
        }
    }

    #[test]
    fn a_named_target_is_the_machines_port_of_that_name_and_protocol() {
        let ports = "[{name: a, port: 80, targetPort: web}, {name: b, port: 81, targetPort: dns}, {name: c, port: 82}]";
        let service = service(&format!("{{ports: {ports}}}"));
        let numbers: Vec<_> = service.ports.iter().map(|port| port.number_on(&machine().spec)).collect();
        assert_eq!(numbers, [Some(8080), None, Some(82)]);
    }

    #[test]
    fn an_empty_selector_selects_nothing_and_virtctl_expose_its_machine() {
        let labels = machine().pod_labels();
        assert!(!service("{ports: [{port: 80}]}").selects(&labels));
        assert!(service("{ports: [{port: 80}], selector: {vmi.kubevirt.io/id: web}}").selects(&labels));
        assert!(!service("{ports: [{port: 80}], selector: {vmi.kubevirt.io/id: web, app: a}}").selects(&labels));
    }
}
