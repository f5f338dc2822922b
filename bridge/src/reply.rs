//! The result of ADD: the bridge, the cable's ends, and the addresses of IPAM.

use cni_protocol::spec::{CniResult, Interface};
use hostnet::Facts;
use terms::{IfName, MacAddr};

use super::desired::Desired;
use super::error::Refusal;

/// `host` is what the attachment was made on.
pub(crate) fn result(
    desired: &Desired<'_>,
    ipam: CniResult,
    (sandbox, host_end_mac): (&str, MacAddr),
    host: &Facts,
) -> Result<CniResult, Refusal> {
    let with_mac = |name: &IfName, mac: Option<MacAddr>| Interface {
        name: name.to_string(),
        mac: mac.map(|mac| mac.to_string()).unwrap_or_default(),
        ..Interface::default()
    };
    let shared = |name: &IfName| with_mac(name, host.link(name).and_then(|link| link.mac));
    let mtu = desired.conf.mtu.map_or(0, terms::Mtu::value);
    let pod = Interface {
        name: desired.pod_end.to_string(),
        mac: desired.pod_mac.to_string(),
        mtu,
        sandbox: sandbox.to_owned(),
        ..Interface::default()
    };
    let bridge = (!desired.conf.point_to_point).then_some(&desired.conf.bridge);
    let mut interfaces: Vec<_> = bridge.into_iter().map(shared).collect();
    interfaces.push(Interface { mtu, ..with_mac(&desired.host_end, Some(host_end_mac)) });
    let pod_index = interfaces.len();
    interfaces.push(pod);
    let gateway_link = desired.gateway_link()?;
    if bridge.is_some_and(|bridge| gateway_link != *bridge) && !desired.gateways.is_empty() {
        interfaces.push(shared(&gateway_link));
    }
    let ips =
        ipam.ips.into_iter().map(|ip| cni_protocol::spec::IpConfig { interface: Some(pod_index), ..ip }).collect();
    let dns = desired.conf.dns.clone().unwrap_or(ipam.dns);
    Ok(CniResult { interfaces, ips, routes: ipam.routes, dns })
}
