//! Links, addresses, routes, settings.

use hostnet::facts::{AddrGenMode, Address, Ask, LinkKind, Route, Tun, TunMode};
use hostnet::op::{LinkChange, Master, NewLink, NewLinkKind, NewTap};
use hostnet::sysctl::Sysctl;
use hostnet::{Linux, Op, Plan, RouteQuery, apply};
use libtest_mimic::Trial;
use tests::World;

use super::{execute, gather, name, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a tap is made as asked and ip agrees with what is read back", tap_as_asked),
        trial("a bridge, a veth and a macvlan are made, joined and read back", other_links),
        trial("routes of every kind that plans use are added and read back", routes),
        // spec: EXPL-6
        trial("the kernel tells a packet's way, rules and refusing routes included", ways),
        trial("a plan that fails half-way leaves everything as it was", undone),
        trial("errors say which operation failed and why", errors),
    ]
}

fn wiring() -> Vec<Op> {
    let tap = name("k6t-eth0");
    let set = LinkChange {
        mac: Some("02:00:00:00:00:00".parse().unwrap()),
        mtu: Some(1450.try_into().unwrap()),
        addr_gen_mode: Some(AddrGenMode::None),
        group: Some(7),
        up: Some(true),
        ..LinkChange::default()
    };
    let addresses = ["10.0.2.1/24", "fd10:0:2::1/120", "fe80::ff:fe00:0/64"];
    let mut ops =
        vec![Op::CreateTap(NewTap { name: tap.clone(), owner: 107, group: Some(107), multi_queue: false, set })];
    ops.extend(addresses.map(|address| Op::AddAddress(Address::permanent(tap.clone(), address.parse().unwrap()))));
    ops.push(Op::AddRoute(Route::local(tap.clone(), "::1/128".parse().unwrap(), 2048)));
    ops.push(Op::WriteSysctl { key: Sysctl::ipv4_conf(&tap, "route_localnet"), value: "1".to_owned() });
    ops.push(Op::SetLink { link: tap, set: LinkChange::alias("tapvisor/1 00112233445566ff") });
    ops
}

fn tap_as_asked() {
    let world = World::bare();
    let ns = world.ns("pod");
    execute(&ns, &wiring()).unwrap();
    let link = &ns.run(&["ip", "-j", "-d", "link", "show", "k6t-eth0"]).json()[0];
    assert_eq!(link["address"], "02:00:00:00:00:00");
    assert_eq!(link["mtu"], 1450);
    assert_eq!(link["group"], "7");
    assert_eq!(link["ifalias"], "tapvisor/1 00112233445566ff");
    assert_eq!(link["inet6_addr_gen_mode"], "none");
    assert_eq!(link["linkinfo"]["info_data"]["user"], 107, "{link}");
    assert_eq!(link["linkinfo"]["info_data"]["vnet_hdr"], true);
    assert_eq!(link["linkinfo"]["info_data"]["pi"], false);
    assert_eq!(link["linkinfo"]["info_data"]["persist"], true);
    let text = ns.run(&["ip", "-6", "addr", "show", "dev", "k6t-eth0"]).text();
    assert!(text.contains("fd10:0:2::1/120") && text.contains("fe80::ff:fe00:0/64"), "{text}");
    assert!(!text.contains("tentative"), "{text}");
    let local = ns.run(&["ip", "-6", "route", "show", "table", "local"]).text();
    assert!(local.contains("local ::1 dev k6t-eth0"), "{local}");
    assert_eq!(ns.run(&["sysctl", "-n", "net/ipv4/conf/k6t-eth0/route_localnet"]).text().trim(), "1");

    let facts = gather(&ns, &Ask::network().with_sysctls([Sysctl::ipv4_conf(&name("k6t-eth0"), "route_localnet")]));
    let tap = facts.link(&name("k6t-eth0")).unwrap();
    let expected = Tun {
        mode: TunMode::Tap,
        owner: Some(107),
        group: Some(107),
        multi_queue: false,
        persist: true,
        vnet_hdr: true,
        packet_info: false,
    };
    assert_eq!(tap.kind, LinkKind::Tun(expected));
    assert!(tap.up && !tap.carrier && tap.group == 7);
    assert_eq!(tap.addr_gen_mode, Some(AddrGenMode::None));
    assert_eq!(facts.addresses_of(&tap.name).count(), 3);
    assert!(facts.addresses_of(&tap.name).all(|address| !address.flags.tentative && address.flags.permanent));
    assert_eq!(facts.sysctl(&Sysctl::ipv4_conf(&tap.name, "route_localnet")), Some("1"));
    let wanted = Route::local(tap.name.clone(), "::1/128".parse().unwrap(), 2048);
    assert!(facts.routes.iter().any(|route| route.is_same_entry(&wanted)), "{:?}", facts.routes);

    execute(&ns, &[Op::DeleteGroup { group: 7 }]).unwrap();
    assert!(gather(&ns, &Ask::network()).link(&name("k6t-eth0")).is_none());
}

fn other_links() {
    let world = World::bare();
    let ns = world.ns("pod");
    let link = |kind, own: &str, set| Op::CreateLink(NewLink { name: name(own), kind, set });
    let mac = "02:00:00:00:00:09".parse().unwrap();
    execute(
        &ns,
        &[
            link(NewLinkKind::Bridge, "br0", LinkChange::up()),
            link(
                NewLinkKind::Veth { peer: name("peer.5") },
                "v0",
                LinkChange { master: Some(Master::Link(name("br0"))), noarp: Some(true), ..LinkChange::up() },
            ),
            link(NewLinkKind::Ifb, "ifb9", LinkChange { mac: Some(mac), ..LinkChange::up() }),
            Op::SetLink { link: name("peer.5"), set: LinkChange::up() },
            link(
                NewLinkKind::Macvlan { parent: name("peer.5"), mode: hostnet::facts::MacvlanMode::Bridge },
                "mv0",
                LinkChange::default(),
            ),
        ],
    )
    .unwrap();
    let facts = gather(&ns, &Ask { statistics: true, ..Ask::network() });
    let of = |text: &str| facts.link(&name(text)).unwrap();
    assert_eq!(of("v0").master, Some(name("br0")));
    assert!(of("v0").noarp && of("v0").statistics.is_some());
    assert_eq!(of("v0").peer_index, Some(of("peer.5").index));
    assert_eq!(of("ifb9").mac, Some(mac));
    assert_eq!(of("mv0").kind, LinkKind::Macvlan(hostnet::facts::MacvlanMode::Bridge));
    assert_eq!(
        (&of("br0").kind, &of("v0").kind, &of("ifb9").kind),
        (&LinkKind::Bridge, &LinkKind::Veth, &LinkKind::Ifb)
    );
    let master = &ns.run(&["ip", "-j", "link", "show", "v0"]).json()[0];
    assert_eq!(master["master"], "br0");
    execute(
        &ns,
        &[Op::SetLink { link: name("v0"), set: LinkChange { master: Some(Master::None), ..LinkChange::default() } }],
    )
    .unwrap();
    assert_eq!(gather(&ns, &Ask::network()).link(&name("v0")).unwrap().master, None);
}

fn routes() {
    let world = World::bare();
    let ns = world.ns("pod");
    let eth0 = name("eth0");
    let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    let net = |text: &str| text.parse::<terms::IpNetwork>().unwrap();
    let veth = NewLink { name: eth0.clone(), kind: NewLinkKind::Veth { peer: name("far") }, set: LinkChange::up() };
    let far = Op::SetLink { link: name("far"), set: LinkChange::up() };
    let routes = [
        Route { onlink: true, ..Route::via(eth0.clone(), net("0.0.0.0/0"), ip("169.254.1.1")) },
        Route { mtu_bytes: Some(1400), ..Route::by(eth0.clone(), net("10.1.0.0/16")) },
        Route { metric: Some(5), ..Route::via(eth0.clone(), net("10.2.0.0/16"), ip("10.244.0.1")) },
        Route { metric: Some(9), ..Route::via(eth0.clone(), net("::/0"), ip("fe80::1")) },
        Route { table: 1000, ..Route::via(eth0.clone(), net("10.3.0.0/16"), ip("fe80::1")) },
    ];
    let mut ops = vec![Op::CreateLink(veth), far];
    ops.push(Op::AddAddress(Address::permanent(eth0.clone(), net("10.244.0.5/24"))));
    ops.extend(routes.iter().cloned().map(Op::AddRoute));
    execute(&ns, &ops).unwrap();
    let facts = gather(&ns, &Ask::network());
    for route in &routes {
        let found = facts.routes.iter().find(|other| other.is_same_entry(route)).unwrap_or_else(|| panic!("{route}"));
        assert_eq!((found.mtu_bytes, found.onlink, found.protocol), (route.mtu_bytes, route.onlink, route.protocol));
    }
    let text = ns.run(&["ip", "route", "show", "table", "all"]).text();
    assert!(text.contains("default via 169.254.1.1 dev eth0 proto static onlink"), "{text}");
    assert!(text.contains("via inet6 fe80::1"), "{text}");
    ns.run(&["ip", "route", "add", "10.9.0.0/16", "nexthop", "via", "10.244.0.1", "nexthop", "via", "10.244.0.2"])
        .assert_ok();
    let facts = gather(&ns, &Ask::network());
    let many = facts.routes.iter().find(|route| route.destination == net("10.9.0.0/16")).unwrap();
    assert_eq!((many.gateway, many.more_hops[0].gateway), (Some(ip("10.244.0.1")), Some(ip("10.244.0.2"))));
    execute(&ns, &routes.map(Op::DeleteRoute)).unwrap();
    let left = gather(&ns, &Ask::network()).routes;
    assert!(!left.iter().any(|route| route.gateway == Some(ip("fe80::1"))), "{left:?}");
}

fn ways() {
    let world = World::bare();
    let ns = world.ns("pod");
    let script = "for l in one two; do ip link add $l type veth peer name far-$l; ip link set far-$l up; done; ip addr add 192.0.2.1/24 dev one; ip addr add 2001:db8::1/64 dev one nodad
        ip addr add 198.51.100.1/24 dev two; ip addr add 2001:db8:1::1/64 dev two nodad
        ip link set one up; ip link set two up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
        for f in -4 -6; do ip $f route add blackhole default; ip $f rule add iif two blackhole; done
        ip route add unreachable 203.0.113.0/24; ip route add prohibit 203.0.113.7";
    ns.sh(script).assert_ok();
    let ask = |to: &str, from: Option<(&str, &str)>| {
        let passed_on = from.map(|(address, link)| (address.parse().unwrap(), name(link)));
        let journey = RouteQuery { to: to.parse().unwrap(), passed_on };
        ns.enter(|| Linux::here().look_up_route(&journey)).map_err(|error| error.errno())
    };
    let number = |link: &str| ns.run(&["ip", "-j", "link", "show", link]).json()[0]["ifindex"].as_u64().unwrap();
    let index = |link: &str| Ok(u32::try_from(number(link)).unwrap());
    for (to, neighbour, from) in
        [("192.0.2.9", "198.51.100.9", "192.0.2.8"), ("2001:db8::9", "2001:db8:1::9", "2001:db8::8")]
    {
        assert_eq!(ask(to, None), index("one"));
        assert_eq!(ask(neighbour, Some((from, "one"))), index("two"));
        assert_eq!(ask(to, Some((neighbour, "two"))), Err(Some(libc::EINVAL)), "a rule");
    }
    assert_eq!(ask("192.0.2.1", None), index("lo"));
    assert_eq!(ask("8.8.8.8", None), Err(Some(libc::EINVAL)));
    assert_eq!(ask("2001:db8:9::1", None), Err(Some(libc::EINVAL)));
    assert_eq!(ask("203.0.113.1", None), Err(Some(libc::EHOSTUNREACH)));
    assert_eq!(ask("203.0.113.7", None), Err(Some(libc::EACCES)));
    assert_eq!(ask("192.0.2.9", Some(("192.0.2.8", "gone"))), Err(None));
}

fn undone() {
    let world = World::bare();
    let ns = world.ns("pod");
    ns.sh("ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up; ip addr add 10.244.0.5/24 dev eth0")
        .assert_ok();
    ns.settle();
    let before = ns.snapshot();
    let eth0 = name("eth0");
    let key = Sysctl::net("ipv4/ip_forward");
    let facts = gather(&ns, &Ask::network().with_sysctls([key.clone()]));
    let mut ops = wiring();
    ops.insert(0, Op::WriteSysctl { key, value: "1".to_owned() });
    let set = LinkChange { mac: Some("02:00:00:00:00:77".parse().unwrap()), ..LinkChange::default() };
    ops.push(Op::SetLink { link: eth0.clone(), set });
    // Refused: the address is there. What travels behind it in the same message takes effect all the same.
    ops.push(Op::AddAddress(Address::permanent(eth0.clone(), "10.244.0.5/24".parse().unwrap())));
    ops.push(Op::AddAddress(Address::permanent(eth0.clone(), "10.244.9.9/32".parse().unwrap())));
    let plan = Plan { ops };
    let error = ns.enter(|| apply(&mut Linux::here(), &facts, &plan)).unwrap_err();
    assert!(error.left.is_empty(), "{error}");
    assert_eq!(error.cause.what, "add address 10.244.0.5/24 to eth0");
    before.assert_same(&ns.snapshot());
}

fn errors() {
    let world = World::bare();
    let ns = world.ns("pod");
    let says = |op: Op, words: &[&str]| {
        let error = execute(&ns, &[op]).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    says(Op::DeleteLink { link: name("nope") }, &["cannot delete link nope", "there is no link nope"]);
    let lo = name("lo");
    let unreachable = Route::via(lo.clone(), "10.0.0.0/8".parse().unwrap(), "192.0.2.1".parse().unwrap());
    says(Op::AddRoute(unreachable), &["cannot add route 10.0.0.0/8 via 192.0.2.1 dev lo", "the kernel says: Nexthop"]);
    let tap = |own: &str| {
        Op::CreateTap(NewTap { name: name(own), owner: 0, group: None, multi_queue: false, set: LinkChange::default() })
    };
    execute(&ns, &[tap("tap0")]).unwrap();
    says(tap("tap0"), &["cannot create tap tap0", "it exists already"]);
    says(
        Op::WriteSysctl { key: Sysctl::ipv4_conf(&lo, "no_such_setting"), value: "1".to_owned() },
        &["cannot write 1 to sysctl net/ipv4/conf/lo/no_such_setting", "no such setting"],
    );
    says(Op::DeleteGroup { group: 0 }, &["group 0 is every link's"]);
}
