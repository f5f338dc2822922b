//! Namespaces as facts, right ones and each kind of wrong one; and what guests of real networks are told.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use dhcp::{Prefix, Router};
use hostnet::facts::{Address, Route};
use terms::IpNetwork;
use wiring::MASQUERADE_GATEWAY_LINK_LOCAL;

use super::super::ResolvConf;
use super::*;
use crate::fixtures::machine_for_tests;

const ME: Owner = Owner { uid: 107, gid: 107 };

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn request(binding: Binding) -> Request {
    Request::new(ME, vec![interface("default", "eth0", binding)]).unwrap()
}

/// Behind a masquerade with an address of its own, else with the pod interface's.
fn interface(nic: &str, link: &str, binding: Binding) -> Interface {
    let mut interface = Interface::new(nic, name(link), binding);
    interface.mac = (binding == Binding::Masquerade).then(|| "02:11:22:33:44:55".parse().unwrap());
    interface
}

fn tap(index: u32, of: &str) -> Link {
    let tun = Tun { owner: Some(107), group: Some(107), persist: true, ..Tun::default() };
    Link { up: true, ..Link::new(index, name(of), LinkKind::Tun(tun)) }
}

fn address(link: &str, text: &str) -> Address {
    Address::permanent(name(link), text.parse().unwrap())
}

/// A namespace that the plugin has wired for eth0 with this binding.
fn wired(binding: Binding) -> Facts {
    let mut eth0 = Link::new(2, name("eth0"), LinkKind::Veth);
    (eth0.up, eth0.mac, eth0.mtu_bytes) = (true, "02:aa:00:00:00:01".parse().ok(), 1450);
    let mut vm = tap(3, if binding == Binding::Masquerade { "k6t-eth0" } else { "tap0" });
    vm.mtu_bytes = 1450;
    vm.mac = Some(MacAddr::local([0; 5]));
    vm.alias = Some(Mark::new(request(binding).digest(), BTreeMap::new()).unwrap().to_string());
    let mut facts = Facts { links: vec![eth0, vm, tap(4, "svc-eth0")], ..Facts::default() };
    if binding == Binding::Masquerade {
        facts.addresses = vec![
            address("k6t-eth0", "10.0.2.1/24"),
            address("k6t-eth0", "fd10:0:2::1/120"),
            address("k6t-eth0", "fe80::ff:fe00:0/64"),
        ];
    }
    facts
}

fn verified(binding: Binding, facts: &Facts) -> Result<WiredNic, VerifyError> {
    verify(&machine_for_tests(), &request(binding), facts, ME, &resolvers("nameserver 10.96.0.10\n"))
        .map(|mut nics| nics.remove(0))
}

fn resolvers(of_pod: &str) -> Resolvers {
    Resolvers { of_pod: ResolvConf::parse(of_pod), ..Resolvers::default() }
}

fn answers(binding: Binding, facts: &Facts) -> dhcp::Config {
    verified(binding, facts).unwrap().service.unwrap().answers
}

/// Facts of a bridge-bound pod with these addresses and routes (`to`, `via` or empty).
fn pod(addresses: &[&str], routes: &[(&str, &str)]) -> Facts {
    let mut facts = wired(Binding::Bridge);
    facts.addresses = addresses.iter().map(|text| address("eth0", text)).collect();
    facts.routes = routes
        .iter()
        .map(|(to, via)| {
            let by = Route::by(name("eth0"), to.parse().unwrap());
            Route { gateway: via.parse().ok(), ..by }
        })
        .collect();
    facts
}

fn v4_routes(config: &dhcp::Config) -> Vec<String> {
    config.v4.as_ref().unwrap().routes.iter().map(|(to, by)| format!("{to} {by}")).collect()
}

#[test]
fn a_masquerade_guest_comes_next_to_the_gateway_on_its_tap() {
    let nic = verified(Binding::Masquerade, &wired(Binding::Masquerade)).unwrap();
    assert_eq!((nic.tap.as_str(), nic.mtu.value(), nic.queues), ("k6t-eth0", 1450, 1));
    let answers = nic.service.unwrap().answers;
    let v4 = answers.v4.unwrap();
    assert_eq!(v4.address.to_string(), "10.0.2.2/24");
    assert_eq!((v4.router, v4.server_id), (Some(Ipv4Addr::new(10, 0, 2, 1)), Ipv4Addr::new(10, 0, 2, 1)));
    let v6 = answers.v6.unwrap();
    assert_eq!(v6.address, "fd10:0:2::2".parse::<Ipv6Addr>().unwrap());
    let link_layer = Some(MacAddr::local([0; 5]));
    assert_eq!(v6.router, Router::Gateway { link_local: MASQUERADE_GATEWAY_LINK_LOCAL, link_layer });
    assert_eq!(answers.hostname.as_deref(), Some("web"));
    assert_eq!(answers.dns, ["10.96.0.10".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn a_family_the_tap_lacks_is_not_served() {
    let mut facts = wired(Binding::Masquerade);
    facts.addresses.retain(|address| address.address.is_ipv6());
    let config = answers(Binding::Masquerade, &facts);
    assert!(config.v4.is_none() && config.v6.is_some());
}

#[test]
fn an_ordinary_subnet_is_mirrored() {
    let facts = pod(
        &["10.244.1.5/24", "fd00:244:1::5/64", "fe80::1234/64"],
        &[
            ("10.244.1.0/24", ""),
            ("0.0.0.0/0", "10.244.1.1"),
            ("fd00:244:1::/64", ""),
            ("::/0", "fd00:244:1::1"),
            ("fe80::/64", ""),
        ],
    );
    let config = answers(Binding::Bridge, &facts);
    let v4 = config.v4.as_ref().unwrap();
    assert_eq!((v4.address.to_string(), v4.router), ("10.244.1.5/24".into(), Some(Ipv4Addr::new(10, 244, 1, 1))));
    assert!(v4.routes.is_empty());
    let v6 = config.v6.unwrap();
    let gateway = "fd00:244:1::1".parse().unwrap();
    assert_eq!(v6.router, Router::Virtual { link_local: "fe80::7476:1".parse().unwrap(), gateway });
    assert_eq!(v6.prefixes, [Prefix { network: "fd00:244:1::/64".parse().unwrap(), on_link: true }]);
    assert_eq!(config.guest_mac, "02:aa:00:00:00:01".parse().unwrap());
}

#[test]
fn calicos_single_addresses_become_on_link_routes() {
    let facts = pod(
        &["192.168.5.9/32", "fd00:5::9/128"],
        &[("169.254.1.1/32", ""), ("0.0.0.0/0", "169.254.1.1"), ("::/0", "fe80::ecee:eeff:feee:eeee")],
    );
    let config = answers(Binding::Bridge, &facts);
    assert_eq!(config.v4.as_ref().unwrap().address.prefix(), 32);
    assert_eq!(v4_routes(&config), ["169.254.1.1/32 0.0.0.0"]);
    let v6 = config.v6.unwrap();
    assert_eq!(
        v6.router,
        Router::Gateway { link_local: "fe80::ecee:eeff:feee:eeee".parse().unwrap(), link_layer: None }
    );
    assert!(v6.prefixes.is_empty());
}

#[test]
fn a_gateway_that_is_only_onlink_in_the_table_is_made_a_neighbour() {
    let facts = pod(&["192.168.5.9/32"], &[("0.0.0.0/0", "169.254.1.1")]);
    assert_eq!(v4_routes(&answers(Binding::Bridge, &facts)), ["169.254.1.1/32 0.0.0.0"]);
}

#[test]
fn ptps_subnet_by_its_gateway_is_not_on_link() {
    let facts = pod(
        &["10.1.2.3/24", "fd01::3/64"],
        &[
            ("10.1.2.0/24", "10.1.2.1"),
            ("10.1.2.1/32", ""),
            ("0.0.0.0/0", "10.1.2.1"),
            ("fd01::/64", "fd01::1"),
            ("fd01::1/128", ""),
            ("::/0", "fd01::1"),
        ],
    );
    let config = answers(Binding::Bridge, &facts);
    assert_eq!(config.v4.as_ref().unwrap().address.to_string(), "10.1.2.3/32");
    assert_eq!(v4_routes(&config), ["10.1.2.1/32 0.0.0.0", "10.1.2.0/24 10.1.2.1"]);
    assert!(config.v6.unwrap().prefixes.is_empty());
}

#[test]
fn without_gateway_the_server_is_nobodys_address() {
    let v4 = answers(Binding::Bridge, &pod(&["10.9.0.5/24"], &[("10.9.0.0/24", "")])).v4.unwrap();
    assert_eq!((v4.server_id, v4.router), (Ipv4Addr::new(169, 254, 75, 10), None));
}

#[test]
fn a_network_without_addresses_has_no_service_and_needs_no_service_tap() {
    let mut facts = pod(&["fe80::1/64"], &[]);
    facts.links.retain(|link| link.name.as_str() != "svc-eth0");
    assert_eq!(verified(Binding::Bridge, &facts).unwrap().service, None);
}

// spec: CTRL-56
#[test]
fn a_managed_tap_has_no_service_of_ours() {
    let mut interface = interface("default", "eth0", Binding::Bridge);
    interface.without_service = true;
    let request = Request::new(ME, vec![interface]).unwrap();
    let mut facts = pod(&["10.9.0.5/24"], &[("10.9.0.0/24", "")]);
    facts.links.retain(|link| link.name.as_str() != "svc-eth0");
    let mark = Mark::new(request.digest(), BTreeMap::new()).unwrap().to_string();
    facts.links.iter_mut().filter(|link| link.alias.is_some()).for_each(|link| link.alias = Some(mark.clone()));
    let nics = verify(&machine_for_tests(), &request, &facts, ME, &resolvers("")).unwrap();
    assert_eq!(nics[0].service, None);
}

#[test]
fn what_every_real_network_says_the_dhcp_engine_accepts() {
    for facts in [
        pod(
            &["10.244.1.5/24", "fd00::5/64"],
            &[("10.244.1.0/24", ""), ("0.0.0.0/0", "10.244.1.1"), ("::/0", "fd00::1")],
        ),
        pod(&["192.168.5.9/32"], &[("0.0.0.0/0", "169.254.1.1")]),
        pod(&["10.9.0.5/24"], &[("0.0.0.0/0", "")]),
    ] {
        dhcp::Engine::new(answers(Binding::Bridge, &facts)).unwrap();
    }
    dhcp::Engine::new(answers(Binding::Masquerade, &wired(Binding::Masquerade))).unwrap();
}

// spec: NIC-5
#[test]
fn one_nic_has_the_default_route_the_others_announce_their_networks() {
    let mut facts = wired(Binding::Masquerade);
    let (mut net1, mut tap1) = (facts.links[0].clone(), facts.links[1].clone());
    (net1.index, net1.name) = (12, name("net1"));
    (tap1.index, tap1.name) = (13, name("k6t-net1"));
    facts.links.extend([net1, tap1, tap(14, "svc-net1")]);
    facts.addresses.extend([address("k6t-net1", "10.0.3.1/24"), address("k6t-net1", "fd10:0:3::1/120")]);
    let gateway =
        |text: &str| Route { gateway: text.parse().ok(), ..Route::by(name("eth0"), "0.0.0.0/0".parse().unwrap()) };
    let by = |link: &str, to: &str| Route::by(name(link), to.parse().unwrap());
    facts.routes = vec![gateway("10.1.0.1"), by("eth0", "::/0"), by("net1", "10.81.0.0/24"), by("net1", "0.0.0.0/0")];
    facts.routes.extend([by("net1", "fd81::/64"), by("net1", "fe80::/64")]);
    let mut second = interface("second", "net1", Binding::Masquerade);
    second.cidr = "10.0.3.0/24".parse().ok();
    second.cidr6 = "fd10:0:3::/120".parse().ok();
    let first = interface("default", "eth0", Binding::Masquerade);
    let request = Request::new(ME, vec![first, second]).unwrap();
    let mark = Mark::new(request.digest(), BTreeMap::new()).unwrap().to_string();
    facts.links.iter_mut().filter(|link| link.alias.is_some()).for_each(|link| link.alias = Some(mark.clone()));
    let mut machine = machine_for_tests();
    let second = Nic { name: "second".to_owned(), ..machine.nics[0].clone() };
    machine.nics.push(second);
    let nics = verify(&machine, &request, &facts, ME, &Resolvers::default()).unwrap();
    let [first, second] = [0, 1].map(|index| nics[index].service.clone().unwrap().answers);
    assert_eq!((first.v4.as_ref().unwrap().router, v4_routes(&first)), (Some(Ipv4Addr::new(10, 0, 2, 1)), Vec::new()));
    assert_eq!(
        (second.v4.as_ref().unwrap().router, v4_routes(&second)),
        (None, vec!["10.81.0.0/24 10.0.3.1".to_owned()])
    );
    let (first, second) = (first.v6.unwrap(), second.v6.unwrap());
    assert!(first.router_lifetime_seconds > 0 && first.routes.is_empty());
    assert_eq!((second.router_lifetime_seconds, second.routes), (0, vec!["fd81::/64".parse().unwrap()]));
}

#[test]
fn missing_pieces_are_named() {
    for gone in ["eth0", "k6t-eth0", "svc-eth0"] {
        let mut facts = wired(Binding::Masquerade);
        facts.links.retain(|link| link.name.as_str() != gone);
        let error = verified(Binding::Masquerade, &facts).unwrap_err().to_string();
        assert_eq!(error, format!("the pod's network was not wired: NIC \"default\": {gone} is not in the namespace"));
    }
    let mut facts = wired(Binding::Masquerade);
    facts.links[1].alias = None;
    let error = verified(Binding::Masquerade, &facts).unwrap_err().to_string();
    assert!(error.contains("k6t-eth0 carries no commit mark"), "{error}");
    facts.links[1].alias = Some("uplink".into());
    assert!(verified(Binding::Masquerade, &facts).unwrap_err().to_string().contains("not a tapvisor mark"));
    let mut facts = wired(Binding::Masquerade);
    facts.addresses.clear();
    assert!(verified(Binding::Masquerade, &facts).unwrap_err().to_string().contains("holds no gateway address"));
}

// spec: NIC-1
#[test]
fn every_difference_names_device_expected_and_found() {
    let changed = |change: &dyn Fn(&mut Facts)| {
        let mut facts = wired(Binding::Masquerade);
        change(&mut facts);
        verified(Binding::Masquerade, &facts).unwrap_err().to_string()
    };
    let tun = |facts: &mut Facts, link: usize, change: &dyn Fn(&mut Tun)| {
        if let LinkKind::Tun(tun) = &mut facts.links[link].kind {
            change(tun);
        }
    };
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Facts));
    let cases: [Case<'_>; 8] = [
        ("k6t-eth0: owner is 0, expected 107", &|f| tun(f, 1, &|t| t.owner = Some(0))),
        ("k6t-eth0: group is unset, expected 107", &|f| tun(f, 1, &|t| t.group = None)),
        ("svc-eth0: owner is unset, expected 107", &|f| tun(f, 2, &|t| t.owner = None)),
        ("k6t-eth0: multi_queue is true, expected false", &|f| tun(f, 1, &|t| t.multi_queue = true)),
        ("k6t-eth0: kind is Bridge, expected tap", &|f| f.links[1].kind = LinkKind::Bridge),
        ("k6t-eth0: MTU is 1500, expected 1450", &|f| f.links[1].mtu_bytes = 1500),
        ("k6t-eth0: administrative state is down, expected up", &|f| f.links[1].up = false),
        ("k6t-eth0: gateway address is 10.9.0.1/24, expected 10.0.2.1/24", &|f| {
            f.addresses[0].address = "10.9.0.1/24".parse::<IpNetwork>().unwrap();
        }),
    ];
    for (expected, change) in cases {
        assert_eq!(changed(change), format!("NIC \"default\": {expected}"));
    }
    let released = changed(&|f| {
        let alias = f.links[1].alias.take().unwrap();
        f.links[1].alias = Some(alias.replacen("tapvisor/3", "tapvisor/9", 1));
    });
    assert!(released.contains("another release of the plugin: generation 9, this launcher knows 3"), "{released}");
    let other = changed(&|f| f.links[1].alias = Some("tapvisor/3 00112233445566ff".into()));
    assert!(
        other.contains(
            "wired for another request: NIC \"default\": k6t-eth0: wiring digest is 00112233445566ff, expected "
        ),
        "{other}"
    );
}

#[test]
fn a_requested_mac_must_be_on_the_pod_interface() {
    let mut requested = interface("default", "eth0", Binding::Bridge);
    requested.mac = "02:00:00:00:00:77".parse().ok();
    let request = Request::new(ME, vec![requested]).unwrap();
    let mut facts = pod(&["10.9.0.5/24"], &[("10.9.0.0/24", "")]);
    let mark = Mark::new(request.digest(), BTreeMap::new()).unwrap().to_string();
    facts.links.iter_mut().filter(|link| link.alias.is_some()).for_each(|link| link.alias = Some(mark.clone()));
    let error = verify(&machine_for_tests(), &request, &facts, ME, &Resolvers::default()).unwrap_err().to_string();
    assert_eq!(error, "NIC \"default\": eth0: MAC address is 02:aa:00:00:00:01, expected 02:00:00:00:00:77");
}

#[test]
fn a_nic_without_an_address_or_without_an_interface_is_refused() {
    let refused = |request: Request, change: &dyn Fn(&mut Machine)| {
        let (mut machine, mut facts) = (machine_for_tests(), wired(Binding::Masquerade));
        change(&mut machine);
        facts.links[1].alias = Some(Mark::new(request.digest(), BTreeMap::new()).unwrap().to_string());
        verify(&machine, &request, &facts, ME, &Resolvers::default()).unwrap_err().to_string()
    };
    let without = Interface::new("default", name("eth0"), Binding::Masquerade);
    let error = refused(Request::new(ME, vec![without]).unwrap(), &|_| ());
    assert_eq!(error, "nics[0] \"default\": mac: a masquerade NIC needs one");
    let error = refused(request(Binding::Masquerade), &|machine| machine.nics[0].name = "other".to_owned());
    assert_eq!(error, "nics[0] \"other\": the wiring has no interface of this name");
}

/// A second NIC of the machine on its own network, bridge-bound, with these addresses and routes.
fn two_nics(addresses: &[&str], routes: &[(&str, &str)], resolvers: &Resolvers) -> [WiredNic; 2] {
    let mut facts = wired(Binding::Masquerade);
    let (mut net1, mut tap1) = (facts.links[0].clone(), facts.links[1].clone());
    (net1.index, net1.name) = (12, name("net1"));
    (tap1.index, tap1.name) = (13, NicKey::of(&name("net1")).unwrap().bridge_tap());
    facts.links.extend([net1, tap1, tap(14, "svc-net1")]);
    facts.addresses.extend(addresses.iter().map(|text| address("net1", text)));
    let route = |link: &str, (to, via): (&str, &str)| Route {
        gateway: via.parse().ok(),
        ..Route::by(name(link), to.parse().unwrap())
    };
    facts.routes = vec![route("eth0", ("0.0.0.0/0", "10.1.0.1")), route("eth0", ("::/0", "fe80::1"))];
    facts.routes.extend(routes.iter().map(|it| route("net1", *it)));
    let first = interface("default", "eth0", Binding::Masquerade);
    let second = interface("blue", "net1", Binding::Bridge);
    let request = Request::new(ME, vec![first, second]).unwrap();
    let mark = Mark::new(request.digest(), BTreeMap::new()).unwrap().to_string();
    facts.links.iter_mut().filter(|link| link.alias.is_some()).for_each(|link| link.alias = Some(mark.clone()));
    let mut machine = machine_for_tests();
    let second = Nic { name: "blue".into(), ..machine.nics[0].clone() };
    machine.nics.push(second);
    verify(&machine, &request, &facts, ME, resolvers).unwrap().try_into().unwrap()
}

// spec: DHCP-7
#[test]
fn ipv6_routes_of_a_secondary_network_are_announced_with_their_gateway() {
    let addresses = ["192.168.1.23/24", "fd20::23/64"];
    let routes = [
        ("192.168.1.0/24", ""),
        ("10.99.0.0/16", "192.168.1.254"),
        ("fd20::/64", ""),
        ("fd99::/48", "fd20::fe"),
        ("fd9a::/48", "fd20::fe"),
        ("fd9b::/48", "fd20::fd"),
    ];
    let [_, blue] = two_nics(&addresses, &routes, &Resolvers::default());
    let v6 = blue.service.as_ref().unwrap().answers.v6.as_ref().unwrap();
    let gateway = "fd20::fe".parse().unwrap();
    assert_eq!(v6.router, Router::Virtual { link_local: "fe80::7476:1".parse().unwrap(), gateway });
    assert_eq!((v6.router_lifetime_seconds, v6.routes.len()), (0, 2));
    assert_eq!(v6.routes[0], "fd99::/48".parse().unwrap());
    assert_eq!(v6.prefixes, [Prefix { network: "fd20::/64".parse().unwrap(), on_link: true }]);
    assert_eq!(blue.not_told, ["the route to fd9b::/48 by fd20::fd: advertisements speak for one router, fd20::fe"]);
}

// spec: DHCP-9
#[test]
fn the_pods_name_servers_go_to_the_nic_with_the_default_route() {
    let of_nics = [("default", "nameserver 192.0.2.1\n"), ("blue", "nameserver 192.0.2.2\nsearch blue.example\n")];
    let of_nics = of_nics.map(|(nic, text)| (nic.to_owned(), ResolvConf::parse(text)));
    let all = Resolvers { of_nics: of_nics.into(), ..resolvers("nameserver 192.0.2.53\nsearch lan\n") };
    let told = |nic: &WiredNic| {
        let answers = &nic.service.as_ref().unwrap().answers;
        let servers: Vec<_> = answers.dns.iter().map(ToString::to_string).collect();
        (servers.join(" "), answers.search.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    let words = |servers: &str, search: &str| (servers.to_owned(), search.to_owned());
    let lan = (&["10.81.0.5/24"][..], &[("10.81.0.0/24", "")][..]);
    let [default, blue] = two_nics(lan.0, lan.1, &all);
    assert_eq!((told(&default), told(&blue)), (words("192.0.2.53", "lan"), words("192.0.2.2", "blue.example")));
    let only_pods = Resolvers { of_nics: BTreeMap::new(), ..all };
    assert_eq!(told(&two_nics(lan.0, lan.1, &only_pods)[1]), words("", ""), "the host's are not blue's");
    // A network without a way out: its one NIC is the first with DHCP.
    let alone = verified(Binding::Bridge, &pod(&["10.9.0.5/24"], &[("10.9.0.0/24", "")])).unwrap();
    assert_eq!(told(&alone), words("10.96.0.10", ""));
}

// spec: DHCP-5
#[test]
fn of_several_addresses_the_guest_gets_the_one_in_the_mark() {
    let mut facts = pod(&["10.77.0.2/24", "10.78.0.2/24", "fd78:1::2/64", "fd77:1::2/64"], &[]);
    let noted = |facts: &mut Facts, notes: &str| {
        let alias = facts.links[1].alias.as_mut().unwrap();
        *alias = format!("{alias}{notes}");
    };
    noted(&mut facts, " address4=10.78.0.2 address6=fd77:1::2");
    let nic = verified(Binding::Bridge, &facts).unwrap();
    let answers = nic.service.unwrap().answers;
    assert_eq!(answers.v4.unwrap().address.ip(), Ipv4Addr::new(10, 78, 0, 2));
    assert_eq!(answers.v6.unwrap().address, "fd77:1::2".parse::<Ipv6Addr>().unwrap());
    let said = "eth0 has several addresses and the guest gets 10.78.0.2; nothing answers at 10.77.0.2";
    assert_eq!((nic.not_told.len(), nic.not_told[0].as_str()), (2, said));
}

// spec: DHCP-8
#[test]
fn a_guest_has_the_mtu_of_its_pods_default_route() {
    let with = |binding: Binding, routes: &[(&str, u32)]| {
        let mut facts = wired(binding);
        facts.addresses.extend(["10.9.0.5/24", "fd09::5/64"].map(|text| address("eth0", text)));
        let route = |(to, mtu): &(&str, u32)| Route {
            mtu_bytes: Some(*mtu).filter(|mtu| *mtu > 0),
            ..Route::by(name("eth0"), to.parse().unwrap())
        };
        facts.routes = routes.iter().map(route).collect();
        let nic = verified(binding, &facts).unwrap();
        assert_eq!(nic.service.unwrap().answers.mtu, Some(nic.mtu));
        (nic.mtu.value(), nic.not_told.len())
    };
    for binding in [Binding::Masquerade, Binding::Bridge] {
        assert_eq!(with(binding, &[("10.9.0.0/24", 1300), ("0.0.0.0/0", 1400)]), (1400, 0));
        assert_eq!(with(binding, &[("10.9.0.0/24", 1300)]), (1300, 0), "there is no default route");
        assert_eq!(with(binding, &[("0.0.0.0/0", 9000)]), (1450, 0), "the tap carries no more");
        assert_eq!(with(binding, &[("0.0.0.0/0", 600)]), (1280, 1), "IPv6 needs that");
    }
}

// spec: DHCP-10
#[test]
fn clients_of_any_ethernet_address_are_answered_behind_a_masquerade_alone() {
    assert!(answers(Binding::Masquerade, &wired(Binding::Masquerade)).any_client);
    assert!(!answers(Binding::Bridge, &pod(&["10.9.0.5/24"], &[("10.9.0.0/24", "")])).any_client);
}

// spec: DHCP-7
#[test]
fn more_networks_than_can_be_announced_are_left_out_and_said() {
    let networks: Vec<_> = (0..20).map(|n| format!("fd{n:02}::/64")).collect();
    let routes: Vec<_> = networks.iter().map(|to| (to.as_str(), "")).collect();
    let nic = verified(Binding::Bridge, &pod(&["fd00::5/64"], &routes)).unwrap();
    let answers = nic.service.unwrap().answers;
    assert_eq!(answers.v6.as_ref().unwrap().prefixes.len(), 16);
    dhcp::Engine::new(answers).unwrap();
    assert_eq!(nic.not_told, ["the network fd16::/64 and 3 more: at most 16 can be announced"]);
}
