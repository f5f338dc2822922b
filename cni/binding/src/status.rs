//! STATUS: whether this host could serve an ADD.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use hostnet::linux::Linux;
use hostnet::nft::{Family as TableFamily, Table, Transaction};
use hostnet::op::{LinkChange, NewTap};
use hostnet::{Kernel, Op};
use nix::sched::{CloneFlags, unshare};
use terms::{IfName, IpNetwork, Ipv4Network, Ipv6Network, Protocol};
use wiring::{Mesh, Port};

use super::bridge::{Bridge, Service};
use super::error::BindingError;
use super::masquerade::{Masquerade, Side};
use super::rules;

const TUN_NODE: &str = "/dev/net/tun";

/// Looks for the tun driver, and tries in a namespace of its own whether the kernel takes taps and the rules of a wiring.
#[cold]
pub(crate) fn check() -> Result<(), BindingError> {
    if !Path::new(TUN_NODE).exists() {
        return Err(BindingError::HostLacks(format!("{TUN_NODE} is missing: load the tun module")));
    }
    let tried = std::thread::scope(|scope| scope.spawn(wire_a_new_namespace).join());
    tried.unwrap_or_else(|_| Err(BindingError::HostLacks("the trial of a wiring panicked".to_owned())))
}

/// The namespace goes with the thread, and all that is in it.
fn wire_a_new_namespace() -> Result<(), BindingError> {
    let lacks = |why: String| BindingError::HostLacks(why);
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| lacks(format!("no network namespace can be made: {errno}")))?;
    let devices = Devices::named().map_err(|error| lacks(error.to_string()))?;
    let mut kernel = Linux::here();
    for name in [&devices.tap, &devices.service_tap] {
        let set = LinkChange::default();
        let tap = NewTap { name: name.clone(), owner: 0, group: None, multi_queue: false, set };
        let made = kernel.execute(&[Op::CreateTap(tap)]);
        made.map_err(|failure| lacks(format!("no tap can be made: {}", failure.error)))?;
    }
    for table in tables(&devices) {
        let (id, options) = (table.id.clone(), options(table.id.family));
        kernel.execute(&[Op::Nft(Transaction::add([table]))]).map_err(|failure| {
            let error = failure.error;
            lacks(format!(
                "the kernel does not take a wiring's rules in nft table {id} (kernel options {options}): {error}"
            ))
        })?;
    }
    Ok(())
}

/// What the rules of a family are made of.
fn options(family: TableFamily) -> &'static str {
    match family {
        TableFamily::Netdev => "NF_TABLES_NETDEV and NFT_FWD_NETDEV",
        TableFamily::Arp => "NF_TABLES_ARP",
        _ => "NF_TABLES_INET, NFT_CT, NFT_NAT and NFT_MASQ",
    }
}

/// The devices of the trial. Rules that name a device to match it do not need it; chains at its ingress and `fwd` do.
struct Devices {
    /// Is in every namespace.
    loopback: IfName,
    tap: IfName,
    service_tap: IfName,
    plain: IfName,
    meshed: IfName,
}

impl Devices {
    fn named() -> Result<Self, terms::Invalid> {
        Ok(Self {
            loopback: "lo".parse()?,
            tap: "trial-vm".parse()?,
            service_tap: "trial-svc".parse()?,
            plain: "trial0".parse()?,
            meshed: "trial1".parse()?,
        })
    }
}

/// The tables of a wiring with one NIC of every kind, each with all that a request can ask for.
fn tables(devices: &Devices) -> Vec<Table> {
    const V4: Ipv4Network = Ipv4Network::new_checked(Ipv4Addr::new(192, 0, 2, 1), 24).unwrap();
    const V6: Ipv6Network = Ipv6Network::new_checked(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 64).unwrap();
    let side = |gateway: IpNetwork, guest: IpAddr| Side { guest, gateway, pod: vec![guest], networks: vec![gateway] };
    let masquerade = |pod_interface: &IfName, mesh: Option<Mesh>| Masquerade {
        pod_interface: pod_interface.clone(),
        tap: devices.tap.clone(),
        service_tap: devices.service_tap.clone(),
        v4: Some(side(V4.into(), Ipv4Addr::new(192, 0, 2, 2).into())),
        v6: Some(side(V6.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).into())),
        ports: vec![Port { protocol: Protocol::Tcp, port: 80 }],
        mesh,
    };
    let bridge = Bridge {
        pod_interface: devices.loopback.clone(),
        tap: devices.tap.clone(),
        service: Some(Service {
            tap: devices.service_tap.clone(),
            link_local: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
            v4: true,
            v6: true,
            global_gateways: vec![V6.ip()],
        }),
    };
    rules::tables(&[masquerade(&devices.plain, None), masquerade(&devices.meshed, Some(Mesh::Istio))], &[bridge])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    /// What the tables of a plan are made of: statements and fields, each with its table's family, and the kinds of chains.
    fn parts(plan: &Value) -> BTreeSet<String> {
        let transactions = plan["ops"].as_array().into_iter().flatten().filter_map(|op| op["nft"].as_array());
        let tables = transactions.flatten().filter_map(|command| command.get("addTable"));
        tables.flat_map(of_table).collect()
    }

    fn of_table(table: &Value) -> Vec<String> {
        let family = table["id"]["family"].as_str().unwrap();
        let mut parts = Vec::new();
        for chain in table["chains"].as_array().unwrap() {
            parts.push(format!("{family} chain {} {}", chain["base"]["kind"], chain["base"]["hook"]));
            let rules = chain["rules"].as_array().into_iter().flatten();
            for statement in rules.flat_map(|rule| rule["statements"].as_array().unwrap()) {
                let name =
                    statement.as_str().or_else(|| statement.as_object()?.keys().next().map(String::as_str)).unwrap();
                parts.push(format!("{family} {name}"));
                let fields = statement["match"]["fields"].as_array().into_iter().flatten();
                parts.extend(fields.map(|field| format!("{family} {field}")));
            }
        }
        parts
    }

    // spec: CNI-STATUS
    #[test]
    fn status_tries_all_that_the_rules_of_any_wiring_are_made_of() {
        let tried = tables(&Devices::named().unwrap());
        let tried = parts(&json!({"ops": [Op::Nft(Transaction::add(tried))]}));
        let wanted: BTreeSet<_> = crate::golden::plans().flat_map(|plan| parts(&json!(plan))).collect();
        assert!(wanted.len() > 20, "{wanted:?}");
        let untried: Vec<_> = wanted.difference(&tried).collect();
        assert!(untried.is_empty(), "STATUS does not try {untried:?}");
    }
}
