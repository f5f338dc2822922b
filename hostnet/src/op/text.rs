//! Plans in the syntax of `ip`, `sysctl`, `conntrack` and `nft`, for people who read them.

use std::fmt;

use crate::facts::{AddrGenMode, Address, MacvlanMode, PortVlans, Route, RouteKind, TABLE_LOCAL, TABLE_MAIN};

use super::{Flow, LinkChange, Master, NewLink, NewLinkKind, NewTap, Op, Plan};

impl fmt::Display for Plan {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops.iter().try_for_each(|op| write_op(f, op))
    }
}

pub(crate) fn write_op(f: &mut fmt::Formatter<'_>, op: &Op) -> fmt::Result {
    match op {
        Op::CreateTap(tap) => write_tap(f, tap),
        Op::CreateLink(link) => write_link(f, link),
        Op::DeleteLink { link } => writeln!(f, "ip link delete dev {link}"),
        Op::DeleteGroup { group } => writeln!(f, "ip link delete group {group}"),
        Op::SetLink { link, set } => writeln!(f, "ip link set dev {link}{}", Settings(set)),
        Op::RenameLink { link, name } => writeln!(f, "ip link set dev {link} name {name}"),
        Op::MoveLink { link, name } => writeln!(f, "ip link set dev {link} netns the-other name {name}"),
        Op::AddVlans(vlans) => write_vlans(f, "add", vlans),
        Op::DeleteVlans(vlans) => write_vlans(f, "delete", vlans),
        Op::AddAddress(address) => write_address(f, address),
        Op::DeleteAddress { link, address } => writeln!(f, "ip address delete {address} dev {link}"),
        Op::AddRoute(route) => writeln!(f, "ip route add {}", Entry(route)),
        Op::ReplaceRoute(route) => writeln!(f, "ip route replace {}", Entry(route)),
        Op::DeleteRoute(route) => writeln!(f, "ip route delete {}", Entry(route)),
        Op::WriteSysctl { key, value } => writeln!(f, "sysctl -w {key}={value}"),
        Op::Nft(transaction) => write!(f, "nft -f - <<.\n{transaction}.\n"),
        Op::DeleteConntrack(flow) => write_flow(f, flow),
    }
}

fn write_tap(f: &mut fmt::Formatter<'_>, tap: &NewTap) -> fmt::Result {
    write!(f, "ip tuntap add dev {} mode tap vnet_hdr user {}", tap.name, tap.owner)?;
    tap.group.map_or(Ok(()), |group| write!(f, " group {group}"))?;
    writeln!(f, "{}", if tap.multi_queue { " multi_queue" } else { "" })?;
    if tap.set.is_empty() { Ok(()) } else { writeln!(f, "ip link set dev {}{}", tap.name, Settings(&tap.set)) }
}

fn write_link(f: &mut fmt::Formatter<'_>, link: &NewLink) -> fmt::Result {
    write!(f, "ip link add dev {}", link.name)?;
    if let Some(parent) = link.kind.parent() {
        write!(f, " link {parent}")?;
    }
    write!(f, " type {}", link.kind.name())?;
    match &link.kind {
        NewLinkKind::Veth { peer } => write!(f, " peer name {peer}")?,
        NewLinkKind::VethAcross { peer, set } => {
            write!(f, " peer name {peer} netns the-other")?;
            set.mac.map_or(Ok(()), |mac| write!(f, " address {mac}"))?;
            set.mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))?;
        }
        NewLinkKind::Macvlan { mode, .. } => {
            let mode = match mode {
                MacvlanMode::Private => "private",
                MacvlanMode::Vepa => "vepa",
                MacvlanMode::Passthru => "passthru",
                MacvlanMode::Source => "source",
                MacvlanMode::Bridge | MacvlanMode::Unknown => "bridge",
            };
            write!(f, " mode {mode}")?;
        }
        NewLinkKind::Vlan { id, .. } => write!(f, " id {}", id.value())?,
        NewLinkKind::Bridge | NewLinkKind::Ifb | NewLinkKind::Dummy => {}
    }
    writeln!(f)?;
    if link.set.is_empty() { Ok(()) } else { writeln!(f, "ip link set dev {}{}", link.name, Settings(&link.set)) }
}

fn write_vlans(f: &mut fmt::Formatter<'_>, verb: &str, vlans: &PortVlans) -> fmt::Result {
    write!(f, "bridge vlan {verb} dev {} vid {}", vlans.link, vlans.first.value())?;
    if vlans.last != vlans.first {
        write!(f, "-{}", vlans.last.value())?;
    }
    f.write_str(if vlans.pvid { " pvid" } else { "" })?;
    f.write_str(if vlans.untagged { " untagged" } else { "" })?;
    writeln!(f, "{}", if vlans.of_bridge { " self" } else { "" })
}

fn write_address(f: &mut fmt::Formatter<'_>, address: &Address) -> fmt::Result {
    write!(f, "ip address add {} dev {}", address.address, address.link)?;
    address.peer.map_or(Ok(()), |peer| write!(f, " peer {peer}"))?;
    address.valid_seconds.map_or(Ok(()), |seconds| write!(f, " valid_lft {seconds}"))?;
    address.preferred_seconds.map_or(Ok(()), |seconds| write!(f, " preferred_lft {seconds}"))?;
    writeln!(f, "{}", if address.flags.nodad { " nodad" } else { "" })
}

fn write_flow(f: &mut fmt::Formatter<'_>, flow: &Flow) -> fmt::Result {
    write!(f, "conntrack -D -p {}", flow.protocol.to_string().to_lowercase())?;
    flow.destination.map_or(Ok(()), |to| write!(f, " --orig-dst {to}"))?;
    writeln!(f, " --orig-port-dst {}", flow.port)
}

/// What `ip link set` is told.
struct Settings<'a>(&'a LinkChange);

impl fmt::Display for Settings<'_> {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.0;
        let on = |on: bool| if on { "on" } else { "off" };
        set.mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))?;
        set.mac.map_or(Ok(()), |mac| write!(f, " address {mac}"))?;
        set.group.map_or(Ok(()), |group| write!(f, " group {group}"))?;
        set.addr_gen_mode.map_or(Ok(()), |mode| {
            f.write_str(match mode {
                AddrGenMode::Eui64 => " addrgenmode eui64",
                AddrGenMode::None => " addrgenmode none",
                AddrGenMode::StablePrivacy => " addrgenmode stable_secret",
                AddrGenMode::Random => " addrgenmode random",
            })
        })?;
        set.noarp.map_or(Ok(()), |noarp| write!(f, " arp {}", on(!noarp)))?;
        set.all_multicast.map_or(Ok(()), |all| write!(f, " allmulticast {}", on(all)))?;
        set.promiscuous.map_or(Ok(()), |all| write!(f, " promisc {}", on(all)))?;
        match &set.master {
            None => {}
            Some(Master::None) => f.write_str(" nomaster")?,
            Some(Master::Link(link)) => write!(f, " master {link}")?,
        }
        set.up.map_or(Ok(()), |up| f.write_str(if up { " up" } else { " down" }))?;
        set.alias.as_ref().map_or(Ok(()), |alias| write!(f, " alias '{alias}'"))?;
        set.bridge.as_ref().map_or(Ok(()), |bridge| write!(f, " type bridge {bridge}"))?;
        set.port.as_ref().map_or(Ok(()), |port| write!(f, " type bridge_slave {port}"))
    }
}

/// A route as `ip route` is told.
struct Entry<'a>(&'a Route);

impl fmt::Display for Entry<'_> {
    #[cold]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = self.0;
        match route.kind {
            RouteKind::Unicast => {}
            RouteKind::Other(number) => write!(f, "type {number} ")?,
            kind => write!(f, "{} ", format!("{kind:?}").to_lowercase())?,
        }
        write!(f, "{}", route.destination)?;
        route.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))?;
        route.link.as_ref().map_or(Ok(()), |link| write!(f, " dev {link}"))?;
        for hop in &route.more_hops {
            f.write_str(" nexthop")?;
            hop.gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))?;
            hop.link.as_ref().map_or(Ok(()), |link| write!(f, " dev {link}"))?;
        }
        match route.table {
            TABLE_MAIN => {}
            TABLE_LOCAL => f.write_str(" table local")?,
            table => write!(f, " table {table}")?,
        }
        route.metric.map_or(Ok(()), |metric| write!(f, " metric {metric}"))?;
        route.mtu_bytes.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))?;
        route.advmss_bytes.map_or(Ok(()), |bytes| write!(f, " advmss {bytes}"))?;
        route.prefer_source.map_or(Ok(()), |source| write!(f, " src {source}"))?;
        f.write_str(if route.onlink { " onlink" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysctl::Sysctl;

    #[test]
    fn operations_read_as_commands() {
        let tap: terms::IfName = "k6t-eth0".parse().unwrap();
        let set = LinkChange { mtu: Some(1450.try_into().unwrap()), alias: Some("a b".to_owned()), ..LinkChange::up() };
        let plan = Plan {
            ops: vec![
                Op::CreateTap(NewTap { name: tap.clone(), owner: 107, group: Some(107), multi_queue: true, set }),
                Op::AddAddress(Address::permanent(tap.clone(), "fd10:0:2::1/120".parse().unwrap())),
                Op::AddRoute(Route::local(tap.clone(), "::1/128".parse().unwrap(), 2050)),
                Op::WriteSysctl { key: Sysctl::net("ipv4/ip_forward"), value: "1".to_owned() },
                Op::DeleteLink { link: tap },
            ],
        };
        let expected = "ip tuntap add dev k6t-eth0 mode tap vnet_hdr user 107 group 107 multi_queue
ip link set dev k6t-eth0 mtu 1450 up alias 'a b'
ip address add fd10:0:2::1/120 dev k6t-eth0 nodad
ip route add local ::1/128 dev k6t-eth0 table local metric 2050
sysctl -w net/ipv4/ip_forward=1
ip link delete dev k6t-eth0
";
        assert_eq!(plan.to_string(), expected);
    }
}
