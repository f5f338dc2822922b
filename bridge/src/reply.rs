//! The result of ADD: the bridge, the cable's ends, and the addresses of IPAM.

use cni_protocol::spec::{CniResult, Interface};
use hostnet::Facts;
use terms::{IfName, MacAddr};

use super::desired::Desired;
use super::error::Refusal;
use super::plan::NewMacs;

/// Where the pod's link is among the interfaces.
const POD: usize = 2;

/// `before` tells which links were there and keep their addresses.
pub(crate) fn result(
    desired: &Desired<'_>,
    ipam: CniResult,
    sandbox: &str,
    before: &Facts,
    macs: &NewMacs,
) -> Result<CniResult, Refusal> {
    let mac_of = |link: &IfName, new: MacAddr| before.link(link).and_then(|link| link.mac).unwrap_or(new);
    let on_host = |name: &IfName, mac: MacAddr| Interface {
        name: name.to_string(),
        mac: mac.to_string(),
        ..Interface::default()
    };
    let mtu = desired.conf.mtu.map_or(0, terms::Mtu::value);
    let pod = Interface {
        name: desired.pod_end.to_string(),
        mac: desired.pod_mac.to_string(),
        mtu,
        sandbox: sandbox.to_owned(),
        ..Interface::default()
    };
    let bridge = &desired.conf.bridge;
    let mut interfaces = vec![
        on_host(bridge, mac_of(bridge, macs.bridge)),
        Interface { mtu, ..on_host(&desired.host_end, macs.host_end) },
        pod,
    ];
    let gateway_link = desired.gateway_link()?;
    if gateway_link != *bridge && !desired.gateways.is_empty() {
        interfaces.push(on_host(&gateway_link, mac_of(&gateway_link, macs.gateway)));
    }
    let ips = ipam.ips.into_iter().map(|ip| cni_protocol::spec::IpConfig { interface: Some(POD), ..ip }).collect();
    let dns = desired.conf.dns.clone().unwrap_or(ipam.dns);
    Ok(CniResult { interfaces, ips, routes: ipam.routes, dns })
}
