//! Bridges, their ports and VLANs, and names of links.

use hostnet::facts::{Ask, BridgePort, PortVlans};
use hostnet::op::{BridgeChange, LinkChange, Master, NewLink, NewLinkKind, PortChange};
use hostnet::{Facts, Kernel, Op, Plan, apply};

use super::{Case, address, fails, name, up, veth};

pub(crate) const CASES: &[Case] = &[
    ("a link that is down takes another name and keeps its addresses", renamed),
    ("a bridge and its ports are set and read back", settings),
    ("a port that leaves its bridge loses its settings", left),
    ("links asked for by name come alone, with the name of their master", named),
    ("a plan on bridges that fails leaves them as they were", failure),
    ("VLANs of a port are added and removed, or the kernel lacks them", vlans),
];

fn bridge(text: &str) -> Op {
    Op::CreateLink(NewLink { name: name(text), kind: NewLinkKind::Bridge, set: LinkChange::up() })
}

fn set(link: &str, set: LinkChange) -> Op {
    Op::SetLink { link: name(link), set }
}

fn join(link: &str, bridge: &str) -> Op {
    set(link, LinkChange { master: Some(Master::Link(name(bridge))), ..LinkChange::default() })
}

fn port(link: &str, hairpin: bool, isolated: bool) -> Op {
    let port = PortChange { hairpin: Some(hairpin), isolated: Some(isolated) };
    set(link, LinkChange { port: Some(port), ..LinkChange::default() })
}

fn gather(kernel: &mut dyn Kernel) -> Facts {
    kernel.gather(&Ask { bridging: true, vlans: true, ..Ask::network() }).unwrap()
}

fn renamed(kernel: &mut dyn Kernel) {
    let down = LinkChange { up: Some(false), ..LinkChange::default() };
    kernel.execute(&[veth("v0", "v1"), set("v0", down), address("v0", "10.0.0.1/24")]).unwrap();
    kernel.execute(&[Op::RenameLink { link: name("v0"), name: name("w0") }]).unwrap();
    fails(kernel, Op::RenameLink { link: name("w0"), name: name("v1") }, libc::EEXIST);
    let facts = gather(kernel);
    assert!(facts.link(&name("v0")).is_none());
    assert_eq!(facts.addresses_of(&name("w0")).count(), 1);
    let plan =
        Plan { ops: vec![Op::RenameLink { link: name("w0"), name: name("x0") }, address("nope", "10.0.0.1/24")] };
    assert!(apply(kernel, &facts, &plan).unwrap_err().left.is_empty());
    assert!(gather(kernel).link(&name("w0")).is_some());
}

fn settings(kernel: &mut dyn Kernel) {
    let change = BridgeChange {
        multicast_snooping: Some(false),
        group_fwd_mask: Some(0x4000),
        ageing_seconds: Some(60),
        ..BridgeChange::default()
    };
    let set_bridge = set("br0", LinkChange { bridge: Some(change), promiscuous: Some(true), ..LinkChange::default() });
    kernel.execute(&[bridge("br0"), veth("v0", "v1"), join("v0", "br0"), port("v0", true, true), set_bridge]).unwrap();
    let facts = gather(kernel);
    let link = facts.link(&name("br0")).unwrap();
    let bridge = link.bridge.unwrap();
    assert_eq!((bridge.multicast_snooping, bridge.group_fwd_mask, bridge.ageing_seconds), (false, 0x4000, 60));
    assert!(link.promiscuous);
    let port = facts.link(&name("v0")).unwrap();
    assert_eq!(
        (port.port, port.master.clone()),
        (Some(BridgePort { hairpin: true, isolated: true }), Some(name("br0")))
    );
    assert_eq!((facts.link(&name("v1")).unwrap().port, port.bridge), (None, None));
}

fn left(kernel: &mut dyn Kernel) {
    kernel
        .execute(&[bridge("br0"), bridge("br1"), veth("v0", "v1"), join("v0", "br0"), port("v0", true, true)])
        .unwrap();
    kernel.execute(&[join("v0", "br1")]).unwrap();
    assert_eq!(gather(kernel).link(&name("v0")).unwrap().port, Some(BridgePort::default()));
    let leave = LinkChange { master: Some(Master::None), ..LinkChange::default() };
    kernel.execute(&[set("v0", leave)]).unwrap();
    assert_eq!(gather(kernel).link(&name("v0")).unwrap().port, None);
    let failure = kernel.execute(&[port("v0", true, true)]).unwrap_err();
    assert!(failure.error.errno().is_some(), "{failure}");
}

fn named(kernel: &mut dyn Kernel) {
    kernel.execute(&[bridge("br0"), veth("v0", "v1"), join("v0", "br0"), address("br0", "10.0.0.1/24")]).unwrap();
    kernel.execute(&[address("v1", "10.0.9.1/24")]).unwrap();
    let ask = Ask { addresses: true, ..Ask::of_links([name("v0"), name("nope"), name("br0")]) };
    let facts = kernel.gather(&ask).unwrap();
    assert_eq!(facts.links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["v0", "br0"]);
    assert_eq!(facts.link(&name("v0")).unwrap().master, Some(name("br0")));
    let addresses = facts.addresses.iter().map(|held| held.address.to_string());
    let addresses: Vec<_> = addresses.filter(|text| !text.starts_with("fe80:")).collect();
    assert_eq!(addresses, ["10.0.0.1/24"]);
    let alone = kernel.gather(&Ask::of_links([name("v0")])).unwrap();
    assert_eq!(alone.link(&name("v0")).unwrap().master, Some(name("br0")));
}

fn failure(kernel: &mut dyn Kernel) {
    kernel
        .execute(&[bridge("br0"), bridge("br1"), veth("v0", "v1"), join("v0", "br0"), port("v0", true, false)])
        .unwrap();
    let before = gather(kernel);
    let change = BridgeChange { ageing_seconds: Some(10), multicast_querier: Some(true), ..BridgeChange::default() };
    let ops = vec![
        set("br0", LinkChange { bridge: Some(change), ..LinkChange::default() }),
        port("v0", false, true),
        veth("v2", "v3"),
        join("v2", "br0"),
        up("nope"),
    ];
    let error = apply(kernel, &before, &Plan { ops }).unwrap_err();
    assert!(error.left.is_empty(), "{error}");
    let after = gather(kernel);
    for link in ["br0", "v0"] {
        let of = |facts: &Facts| facts.link(&name(link)).map(|link| (link.bridge, link.port, link.master.clone()));
        assert_eq!(of(&after), of(&before), "{link}");
    }
    assert!(after.link(&name("v2")).is_none());
}

fn vlans(kernel: &mut dyn Kernel) {
    let filtering = BridgeChange { vlan_filtering: Some(true), ..BridgeChange::default() };
    let filtering = set("br0", LinkChange { bridge: Some(filtering), ..LinkChange::default() });
    kernel.execute(&[bridge("br0"), veth("v0", "v1"), join("v0", "br0")]).unwrap();
    let id = |number: u64| number.try_into().unwrap();
    let trunk = PortVlans::tagged(name("v0"), (id(100), id(110)));
    let native = PortVlans::native(name("v0"), id(7));
    let has_vlans = gather(kernel).link(&name("br0")).unwrap().bridge.unwrap().vlan_filtering.is_some();
    if !has_vlans {
        for op in [filtering, Op::AddVlans(native)] {
            let error = kernel.execute(&[op]).unwrap_err().error.to_string();
            assert!(error.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{error}");
        }
        return;
    }
    kernel.execute(&[filtering]).unwrap();
    let before = gather(kernel);
    kernel.execute(&[Op::AddVlans(trunk.clone()), Op::AddVlans(native.clone())]).unwrap();
    let facts = gather(kernel);
    assert!(facts.vlans_of(&name("v0")).any(|held| *held == trunk), "{:?}", facts.vlans);
    assert!(facts.vlans_of(&name("v0")).any(|held| held.pvid && held.untagged && held.holds(id(7))));
    kernel.execute(&[Op::DeleteVlans(trunk.clone())]).unwrap();
    assert!(!gather(kernel).vlans.iter().any(|held| held.overlaps(&trunk)));
    kernel.execute(&[Op::DeleteVlans(native.clone())]).unwrap();
    let plan = Plan { ops: vec![Op::AddVlans(trunk.clone()), Op::AddVlans(native), up("nope")] };
    assert!(apply(kernel, &before, &plan).unwrap_err().left.is_empty());
    assert!(!gather(kernel).vlans.iter().any(|held| held.overlaps(&trunk)));
}
