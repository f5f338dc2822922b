//! Which address of each family a bridge-bound guest gets, where its pod interface has several: the first of the CNI result.
//!
//! DHCPv4 and DHCPv6 lease one address. The kernel lists IPv4 addresses oldest first and IPv6 addresses newest first, so
//! its order alone would give a guest the first of one family and the last of the other.

use std::fmt;
use std::net::IpAddr;

use hostnet::Facts;
use terms::IfName;
use wiring::{Binding, Family, Request};

use super::pod::reachable;
use cni_protocol::spec::CniResult;

/// An address of a CNI result and the interface that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) link: IfName,
    pub(crate) address: IpAddr,
}

/// The addresses of a previous result, in its order; one without an interface is for `ifname`.
pub(crate) fn given(previous: Option<&CniResult>, sandbox: &str, ifname: &IfName) -> Vec<Given> {
    let Some(previous) = previous else { return Vec::new() };
    let link = |index: Option<usize>| match index {
        None => Some(ifname.clone()),
        Some(index) => {
            let interface = previous.interfaces.get(index).filter(|interface| interface.sandbox == sandbox)?;
            interface.name.parse().ok()
        }
    };
    let given = previous.ips.iter().map(|ip| Some(Given { link: link(ip.interface)?, address: ip.address.ip() }));
    given.flatten().collect()
}

/// One family of a NIC with several addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) pod_interface: IfName,
    pub(crate) address: IpAddr,
    /// Those that no host answers for.
    pub(crate) others: Vec<IpAddr>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others: Vec<_> = self.others.iter().map(ToString::to_string).collect();
        let Self { pod_interface, address, .. } = self;
        let (is_are, others) = (if others.len() == 1 { "is" } else { "are" }, others.join(", "));
        write!(
            f,
            "{pod_interface}: the guest gets the address {address}; {others} {is_are} not used: a guest gets one address of each family"
        )
    }
}

/// The choice for each family of each bridge-bound NIC that has several addresses. Behind a masquerade all of them lead to
/// the guest.
pub(crate) fn choices(request: &Request, given: &[Given], facts: &Facts) -> Vec<Choice> {
    let bridged = request.interfaces().iter().filter(|interface| interface.binding == Binding::Bridge);
    let families = bridged.flat_map(|interface| [Family::V4, Family::V6].map(|family| (interface, family)));
    let chosen = families.filter_map(|(interface, family)| {
        let mut held: Vec<_> =
            reachable(&interface.pod_interface, family, facts).iter().map(terms::IpNetwork::ip).collect();
        if held.len() < 2 {
            return None;
        }
        if family == Family::V6 {
            held.reverse();
        }
        let mut of_result = given.iter().filter(|given| given.link == interface.pod_interface);
        let first = of_result.find(|given| held.contains(&given.address)).map(|given| given.address);
        let address = first.or_else(|| held.first().copied())?;
        held.retain(|other| *other != address);
        Some(Choice { pod_interface: interface.pod_interface.clone(), address, others: held })
    });
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use cni_protocol::spec::Version;
    use hostnet::facts::Address;
    use serde_json::json;

    use super::*;
    use crate::desired::Desired;
    use crate::plan;

    /// A pod after a network that gave it two addresses of each family, in the kernel's order.
    fn pod() -> Facts {
        let text = include_str!("../tests/golden/bridge-dual-stack-global-gateway/facts.json");
        let mut facts: Facts = serde_json::from_str(text).unwrap();
        facts.addresses.retain(|address| address.link.as_str() != "eth0");
        let address = |text: &str| Address::permanent("eth0".parse().unwrap(), text.parse().unwrap());
        facts.addresses.extend(["10.77.0.2/24", "10.78.0.2/24", "fd78:1::2/64", "fd77:1::2/64"].map(address));
        facts
    }

    fn request(binding: &str) -> Request {
        let text =
            r#"{"version":1,"owner":{"uid":107,"gid":107},"interfaces":[{"name":"default","podInterface":"eth0""#;
        Request::parse(&format!(r#"{text},"binding":"{binding}"}}]}}"#)).unwrap()
    }

    fn result() -> CniResult {
        let document = json!({
            "interfaces": [{"name": "veth7"}, {"name": "eth0", "sandbox": "/run/netns/a"}],
            "ips": [{"address": "192.0.2.9/24", "interface": 0}, {"address": "10.78.0.2/24", "interface": 1},
                {"address": "10.77.0.2/24", "interface": 1}, {"address": "fd77:1::2/64", "interface": 1},
                {"address": "fd78:1::2/64", "interface": 1}],
        });
        CniResult::from_document(&document, Version::V1_0_0).unwrap()
    }

    fn chosen(given: &[Given]) -> Vec<String> {
        choices(&request("bridge"), given, &pod()).iter().map(|choice| choice.address.to_string()).collect()
    }

    // spec: DHCP-5
    #[test]
    fn the_first_address_of_the_result_is_the_guests() {
        let eth0 = "eth0".parse().unwrap();
        let given = given(Some(&result()), "/run/netns/a", &eth0);
        assert_eq!(given.len(), 4, "not the host's");
        assert_eq!(chosen(&given), ["10.78.0.2", "fd77:1::2"]);
        let words = choices(&request("bridge"), &given, &pod())[0].to_string();
        assert_eq!(
            words,
            "eth0: the guest gets the address 10.78.0.2; 10.77.0.2 is not used: a guest gets one address of each family"
        );
    }

    #[test]
    fn without_a_result_it_is_the_address_that_was_given_first() {
        assert_eq!(chosen(&[]), ["10.77.0.2", "fd77:1::2"]);
    }

    #[test]
    fn one_address_of_a_family_and_a_masquerade_leave_no_choice() {
        let mut facts = pod();
        facts.addresses.retain(|address| !address.address.to_string().contains("78"));
        assert_eq!(choices(&request("bridge"), &[], &facts), []);
        assert_eq!(choices(&request("masquerade"), &[], &pod()), []);
    }

    // spec: DHCP-5
    #[test]
    fn the_choice_is_in_the_commit_mark() {
        let (request, facts) = (request("bridge"), pod());
        let given = given(Some(&result()), "/run/netns/a", &"eth0".parse().unwrap());
        let desired = Desired::of(&request, 1 << 30, &facts).unwrap();
        let plan = plan::plan(desired, &choices(&request, &given, &facts), &facts).unwrap();
        let last = json!(plan.ops.last().unwrap()).to_string();
        assert!(last.contains(" address4=10.78.0.2 address6=fd77:1::2 mtu=1500\""), "{last}");
    }
}
