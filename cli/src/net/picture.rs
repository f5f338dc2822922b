//! Segments as a table and as a picture.

use super::segment::{Kind, Owner, Port, Segment, Vlans};

pub(super) const HEAD: [&str; 6] = ["SEGMENT", "STATE", "MTU", "PORTS", "NETWORKS", "ADDRESSES"];

fn state(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

fn joined(items: impl IntoIterator<Item = String>, between: &str) -> String {
    let text = items.into_iter().collect::<Vec<_>>().join(between);
    if text.is_empty() { "-".to_owned() } else { text }
}

/// A line of `net ls`.
pub(super) fn row(segment: &Segment) -> Vec<String> {
    vec![
        segment.name.to_string(),
        state(segment.up).to_owned(),
        segment.mtu_bytes.to_string(),
        match segment.kind {
            Kind::Bridge => segment.ports.len().to_string(),
            Kind::PointToPoint => "cable".to_owned(),
        },
        joined(segment.networks.iter().cloned(), ","),
        joined(segment.addresses.iter().map(ToString::to_string), "\n"),
    ]
}

/// The bridge, and below it each port with who is behind it.
pub(super) fn lines(segment: &Segment) -> Vec<String> {
    let mut about = vec![state(segment.up).to_owned(), format!("MTU {}", segment.mtu_bytes)];
    if let Some(settings) = &segment.settings {
        about.extend((settings.vlan_filtering == Some(true)).then(|| "VLANs".to_owned()));
        about.extend((!settings.multicast_snooping).then(|| "floods multicast".to_owned()));
        about.extend(settings.multicast_querier.then(|| "multicast querier".to_owned()));
    }
    about.extend(segment.addresses.iter().map(ToString::to_string));
    let mut lines = vec![format!("  {:<16}{}", segment.name.as_str(), about.join(" · "))];
    let last = segment.ports.len().saturating_sub(1);
    for (index, port) in segment.ports.iter().enumerate() {
        let (corner, side) = if index == last { ("└", " ") } else { ("├", "│") };
        let of_port = port_lines(port);
        let names = std::iter::once(port.name.as_str()).chain(std::iter::repeat(""));
        lines.extend(of_port.into_iter().zip(names).enumerate().map(|(row, (text, name))| {
            format!("  {} {name:<15} {text}", if row == 0 { corner } else { side }).trim_end().to_owned()
        }));
    }
    lines
}

/// What there is to say of a port: its state and owner, then VLANs, then what was learned there.
fn port_lines(port: &Port) -> Vec<String> {
    let mut about = vec![state(port.up).to_owned()];
    about.push(port.owner.as_ref().map_or_else(|| "not of tapvisor-bridge".to_owned(), owner));
    about.extend(port.owner.iter().flat_map(|owner| owner.leases.iter().map(ToString::to_string)));
    about.extend(port.isolated.then(|| "isolated".to_owned()));
    about.extend(port.hairpin.then(|| "hairpin".to_owned()));
    let mut lines = vec![about.join(" · ")];
    if !port.vlans.is_empty() {
        lines.push(format!("VLAN {}", port.vlans.iter().map(vlans).collect::<Vec<_>>().join(", ")));
    }
    lines.extend(port.stations.iter().map(|station| {
        let vlan = station.vlan.map(|vlan| format!(" in VLAN {vlan}")).unwrap_or_default();
        format!("learned {}{vlan}", station.mac)
    }));
    lines
}

fn owner(owner: &Owner) -> String {
    match &owner.vm {
        Some(vm) => format!("VM {vm}, {} of {}", owner.interface, owner.network),
        None => format!("container {}, {} of {}", owner.container_id, owner.interface, owner.network),
    }
}

fn vlans(held: &Vlans) -> String {
    let range = if held.first == held.last { held.first.to_string() } else { format!("{}-{}", held.first, held.last) };
    match (held.native, held.untagged) {
        (true, _) => format!("{range} native"),
        (false, true) => format!("{range} untagged"),
        (false, false) => range,
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::tests::host;
    use super::*;

    // spec: NET-20
    #[test]
    fn a_segment_is_drawn_with_its_ports_vlans_leases_and_stations() {
        let host = host();
        assert_eq!(
            lines(&host[0]).join("\n"),
            "\
\x20 blue0           up · MTU 1500 · VLANs · 10.77.1.1/24
  ├ tap9            up · not of tapvisor-bridge
  ├ vetha           up · VM default/left, eth0 of blue · 10.77.1.2 · fd77:1::2
  │                 VLAN 7 native, 100-110
  │                 learned 02:00:00:00:00:07 in VLAN 7
  └ vethb           up · container c2, eth0 of blue · isolated"
        );
        let rows: Vec<_> = host.iter().map(|segment| row(segment).join(" ")).collect();
        assert_eq!(
            rows,
            ["blue0 up 1500 3 blue 10.77.1.1/24", "vethcable up 1500 cable tapvisor-default 172.30.77.1/32"]
        );
    }
}
