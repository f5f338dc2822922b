//! Each thing that can be wrong, made in the evidence of a healthy VM and named.

mod place;

use hostnet::facts::{Link, LinkKind, Neighbour, NeighbourState, Route};
use hostnet::nft::{
    Base, ChainFacts, ChainKind, Counter, Element, ElementFacts, Family as TableFamily, Field, Hook, Policy, Rule,
    RuleFacts, SetFacts, TableFacts, TableId, Value,
};
use hostnet::sysctl::Sysctl;
use hostnet::{Facts, RouteQuery};

use super::diagnose;
use super::fixtures::{bridge, declared_ports, masquerade, name};
use crate::evidence::{AskedRoute, Evidence, From, Outcome, Purpose};
use crate::explanation::{Code, Finding, Severity};
use crate::record::Phase;
use nix::libc;
use protocol::control::State;

/// Error findings by code and hop, without repetitions.
fn errors(evidence: &Evidence) -> Vec<(Code, String)> {
    found(evidence, Severity::Error)
}

fn found(evidence: &Evidence, severity: Severity) -> Vec<(Code, String)> {
    let explanation = diagnose(evidence);
    for Finding { consequence, remedy, .. } in &explanation.findings {
        assert!(!consequence.is_empty() && !remedy.is_empty());
    }
    let found = explanation.findings.into_iter().filter(|finding| finding.severity == severity);
    let mut found: Vec<_> = found.map(|finding| (finding.code, finding.hop)).collect();
    found.dedup();
    found
}

fn one(code: Code, hop: &str) -> Vec<(Code, String)> {
    vec![(code, hop.to_owned())]
}

fn pod(evidence: &mut Evidence) -> &mut Facts {
    evidence.pod.as_mut().unwrap()
}

fn link<'a>(facts: &'a mut Facts, text: &str) -> &'a mut Link {
    facts.links.iter_mut().find(|link| link.name == name(text)).unwrap()
}

/// What the guest has sent.
fn sent(vm: &mut Evidence, packets: u64) {
    for tap in ["k6t-eth0", "tap0"] {
        for link in pod(vm).links.iter_mut().filter(|link| link.name == name(tap)) {
            link.statistics.as_mut().unwrap().rx_packets = packets;
        }
    }
}

fn remove_link(facts: &mut Facts, text: &str) {
    facts.links.retain(|link| link.name != name(text));
}

/// A healthy VM of each kind with something done to it.
fn broken(healthy: fn() -> Evidence, mut fault: impl FnMut(&mut Evidence)) -> Evidence {
    let mut evidence = healthy();
    fault(&mut evidence);
    evidence
}

#[test]
fn with_nothing_wrong_nothing_is_found() {
    for healthy in [masquerade, declared_ports, bridge] {
        let explanation = diagnose(&healthy());
        assert_eq!(explanation.findings, []);
        assert!(!explanation.is_broken());
        let hops: Vec<_> = explanation.nics[0].hops.iter().map(|hop| hop.name.as_str()).collect();
        let tap = if healthy().request.interfaces()[0].ports.is_empty() && hops.contains(&"tap0") {
            "tap0"
        } else {
            "k6t-eth0"
        };
        assert_eq!(hops, ["host", "veth7", "eth0", "rules", tap, "svc-eth0", "guest"]);
    }
}

#[test]
fn a_vm_that_does_not_run_is_said_with_its_reason() {
    let stopped = broken(masquerade, |vm| {
        (vm.status.phase, vm.status.reason) = (Phase::Failed, Some("no disk".to_owned()));
        (vm.pod, vm.launcher) = (Err("gone".to_owned()), Err("gone".to_owned()));
    });
    assert_eq!(errors(&stopped), one(Code::NotRunning, "guest"));
    let explanation = diagnose(&stopped);
    assert_eq!(explanation.findings[0].seen, "the VM is Failed: no disk");
    assert!(!explanation.nics[0].hops.is_empty(), "the host's side is still drawn");
    let paused = broken(masquerade, |vm| vm.launcher.as_mut().unwrap().state = State::Paused);
    assert_eq!(errors(&paused), one(Code::Paused, "guest"));
    let full = broken(masquerade, |vm| {
        (vm.status.phase, vm.status.reason) = (Phase::Paused, Some("disk root: no room".to_owned()));
        vm.launcher.as_mut().unwrap().state = State::Paused;
    });
    let finding = &diagnose(&full).findings[0];
    assert_eq!(finding.seen, "the guest's processors are stopped: disk root: no room");
    assert_eq!(finding.remedy, "Mend that, then `tapvisor unpause web`.");
    let silent = broken(masquerade, |vm| vm.launcher = Err("connection refused".to_owned()));
    assert_eq!(errors(&silent), one(Code::LauncherSilent, "launcher"));
    let gone = broken(masquerade, |vm| vm.pod = Err("network namespace x does not exist".to_owned()));
    assert_eq!(errors(&gone), one(Code::NamespaceGone, "tv-000000000000"));
}

#[test]
fn devices_that_are_down_or_missing_are_named() {
    for (healthy, tap) in [(masquerade as fn() -> Evidence, "k6t-eth0"), (bridge, "tap0")] {
        for device in [tap, "svc-eth0"] {
            let down = broken(healthy, |vm| link(pod(vm), device).up = false);
            assert_eq!(errors(&down), one(Code::TapDown, device));
            let unplugged = broken(healthy, |vm| link(pod(vm), device).carrier = false);
            assert_eq!(errors(&unplugged), one(Code::NoCarrier, device));
        }
        let missing = broken(healthy, |vm| remove_link(pod(vm), "svc-eth0"));
        assert_eq!(errors(&missing)[0], (Code::LinkMissing, "svc-eth0".to_owned()));
        let down = broken(healthy, |vm| link(pod(vm), "eth0").up = false);
        assert_eq!(errors(&down), one(Code::LinkDown, "eth0"));
        let down = broken(healthy, |vm| link(&mut vm.host, "veth7").up = false);
        assert_eq!(errors(&down), one(Code::LinkDown, "veth7"));
        let missing = broken(healthy, |vm| remove_link(&mut vm.host, "veth7"));
        assert_eq!(errors(&missing), one(Code::LinkMissing, "eth0"));
    }
    let missing = broken(masquerade, |vm| remove_link(pod(vm), "eth0"));
    assert_eq!(errors(&missing)[0], (Code::LinkMissing, "eth0".to_owned()));
}

#[test] // spec: EXPL-6
fn a_cable_that_is_in_another_bridge_than_its_networks_or_in_none_is_named() {
    let on = |bridge: Option<&str>, wanted: serde_json::Value| {
        broken(masquerade, |vm| {
            let [brz, brw] =
                [(9, "brz"), (10, "cni0")].map(|(index, text)| Link::new(index, name(text), LinkKind::Bridge));
            vm.host.links.extend([brz, brw].map(|link| Link { up: true, carrier: true, ..link }));
            link(&mut vm.host, "veth7").master = bridge.map(name);
            let by = bridge.unwrap_or("brz");
            vm.host.routes.iter_mut().filter(|route| !route.is_default()).for_each(|route| route.link = Some(name(by)));
            vm.networks[0].config["plugins"][0] = wanted.clone();
        })
    };
    let named = serde_json::json!({"type": "bridge", "bridge": "brz"});
    assert_eq!(errors(&on(Some("brz"), named.clone())), []);
    assert_eq!(errors(&on(Some("cni0"), named.clone())), one(Code::WrongBridge, "veth7"));
    assert_eq!(errors(&on(None, named)), one(Code::WrongBridge, "veth7"));
    let unnamed = serde_json::json!({"type": "bridge"});
    assert_eq!(errors(&on(Some("cni0"), unnamed)), []);
}

#[test]
fn a_mark_that_is_missing_provisional_or_anothers_is_named() {
    let provisional = "tapvisor/3 0000000000000000 mtu=1500";
    for alias in [None, Some("uplink"), Some(provisional), Some("tapvisor/3 00112233445566ff mtu=1500")] {
        let changed = broken(masquerade, |vm| link(pod(vm), "k6t-eth0").alias = alias.map(str::to_owned));
        assert_eq!(errors(&changed), one(Code::MarkMissing, "k6t-eth0"), "{alias:?}");
    }
}

#[test]
fn a_wrong_mtu_is_named_at_the_device_that_differs() {
    let tap = broken(masquerade, |vm| link(pod(vm), "k6t-eth0").mtu_bytes = 1400);
    assert_eq!(errors(&tap), one(Code::WrongMtu, "k6t-eth0"));
    let host = broken(bridge, |vm| link(&mut vm.host, "veth7").mtu_bytes = 1400);
    assert_eq!(errors(&host), one(Code::WrongMtu, "veth7"));
    let both = broken(bridge, |vm| {
        link(pod(vm), "eth0").mtu_bytes = 1400;
        link(&mut vm.host, "veth7").mtu_bytes = 1400;
    });
    assert_eq!(errors(&both), one(Code::WrongMtu, "eth0"));
}

#[test]
fn a_lost_address_is_named_and_its_rules_are_not_held_against_it() {
    let lost = broken(masquerade, |vm| {
        pod(vm).addresses.retain(|held| held.address.to_string() != "10.244.1.5/24");
    });
    assert_eq!(errors(&lost), one(Code::AddressGone, "eth0"));
}

#[test]
fn a_rule_or_table_that_is_gone_is_named() {
    for healthy in [masquerade, declared_ports, bridge] {
        let rule = broken(healthy, |vm| {
            let table = pod(vm).tables.iter_mut().find(|table| table.id.family == TableFamily::Netdev).unwrap();
            table.chains[0].rules.remove(0);
        });
        assert_eq!(errors(&rule), one(Code::RuleGone, "rules"));
        let table = broken(healthy, |vm| pod(vm).tables.clear());
        assert_eq!(errors(&table), one(Code::RuleGone, "rules"));
    }
    let added = broken(masquerade, |vm| {
        let chain = &mut pod(vm).tables[0].chains[0];
        let rule = chain.rules[0].clone();
        chain.rules.push(rule);
    });
    assert_eq!((errors(&added), found(&added, Severity::Warning)), (vec![], one(Code::RuleAdded, "rules")));
    let explanation = diagnose(&broken(masquerade, |vm| pod(vm).tables.clear()));
    assert!(explanation.findings[0].seen.contains("table inet tapvisor is missing"), "{explanation:?}");
}

#[test]
fn forwarding_that_is_off_is_named_where_it_is_off() {
    let inside = broken(masquerade, |vm| {
        pod(vm).sysctls.insert(Sysctl::net("ipv4/ip_forward"), Some("0".to_owned()));
    });
    assert_eq!(errors(&inside), one(Code::ForwardingOff, "rules"));
    assert!(diagnose(&inside).findings[0].remedy.contains("sysctl -w net/ipv4/ip_forward=1"));
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let outside = broken(bridge, |vm| {
            vm.host.sysctls.insert(Sysctl::net(setting), Some("0".to_owned()));
        });
        assert_eq!(errors(&outside), one(Code::ForwardingOff, "host"), "{setting}");
    }
    let loopback = broken(masquerade, |vm| {
        pod(vm).sysctls.insert(Sysctl::ipv4_conf(&name("k6t-eth0"), "route_localnet"), Some("0".to_owned()));
    });
    assert_eq!(errors(&loopback), one(Code::SettingChanged, "rules"));
}

#[test]
fn a_missing_route_is_named_where_it_is_missing() {
    let inside = broken(masquerade, |vm| pod(vm).routes.retain(|route| route.destination.to_string() != "0.0.0.0/0"));
    assert_eq!(errors(&inside), one(Code::NoRoute, "eth0"));
    // The guest of a bridge-bound NIC has its own routes.
    let inside =
        broken(bridge, |vm| pod(vm).routes.retain(|route| !(route.is_default() && route.destination.is_ipv4())));
    assert_eq!((errors(&inside), found(&inside, Severity::Warning)), (vec![], one(Code::NoRoute, "eth0")));
    // A network that never spoke of a default route may be meant so.
    let isolated = broken(masquerade, |vm| {
        vm.networks.clear();
        pod(vm).routes.retain(|route| route.destination.to_string() != "0.0.0.0/0");
    });
    assert_eq!(errors(&isolated), []);
    assert!(diagnose(&isolated).findings[0].remedy.starts_with("Give the network's configuration one"));
    let host = broken(masquerade, |vm| vm.host.routes.retain(|route| route.destination.prefix() != 32));
    assert_eq!(errors(&host), one(Code::NoRoute, "host"));
    let elsewhere = broken(masquerade, |vm| {
        let route = vm.host.routes.iter_mut().find(|route| route.destination.prefix() == 128).unwrap();
        route.link = Some(name("uplink0"));
    });
    assert_eq!(errors(&elsewhere), one(Code::NoRoute, "host"));
    let stub = broken(masquerade, |vm| vm.host.routes.retain(|route| !route.is_default()));
    assert_eq!((errors(&stub), found(&stub, Severity::Warning)), (vec![], one(Code::NoRoute, "host")));
}

#[test] // spec: EXPL-6
fn a_way_that_the_kernel_tells_otherwise_than_the_routes_is_named_once() {
    let way = |at, purpose, to: &str, passed_on: Option<(&str, &str)>, leads| AskedRoute {
        nic: "default".to_owned(),
        at,
        purpose,
        journey: RouteQuery {
            to: to.parse().unwrap(),
            passed_on: passed_on.map(|(from, link)| (from.parse().unwrap(), name(link))),
        },
        leads,
    };
    let address = masquerade().status.addresses[0].to_string();
    let to_vm = |leads| way(From::Host, Purpose::ToVm, &address, None, leads);
    let with = |ways: Vec<AskedRoute>| broken(masquerade, |vm| vm.ways.clone_from(&ways));
    assert_eq!(errors(&with(vec![to_vm(Ok(7))])), []);
    for leads in [Ok(2), Err(Some(libc::EINVAL)), Err(Some(libc::EHOSTUNREACH)), Err(Some(libc::EACCES)), Err(None)] {
        assert_eq!(errors(&with(vec![to_vm(leads)])), one(Code::NoRoute, "host"), "{leads:?}");
    }
    let from_beyond = way(From::Host, Purpose::ToVm, &address, Some(("192.0.2.1", "uplink0")), Err(Some(libc::EINVAL)));
    assert_eq!(errors(&with(vec![to_vm(Ok(7)), from_beyond.clone()])), one(Code::NoRoute, "host"));
    let both = diagnose(&with(vec![to_vm(Err(None)), from_beyond]));
    assert_eq!(both.findings.len(), 1, "{:?}", both.findings);
    let to_guest = way(From::Pod, Purpose::ToVm, "10.0.2.2", None, Err(Some(libc::EINVAL)));
    assert_eq!(errors(&with(vec![to_guest])), one(Code::NoRoute, "k6t-eth0"));
    let beyond = |errno| way(From::Host, Purpose::Beyond, "192.0.2.1", Some((&address, "veth7")), Err(Some(errno)));
    assert_eq!(errors(&with(vec![beyond(libc::ENETUNREACH)])), one(Code::NoRoute, "host"));
    assert_eq!(errors(&with(vec![beyond(libc::EXDEV)])), one(Code::RpFilter, "host"));
    let inside = way(From::Pod, Purpose::Beyond, "192.0.2.1", Some(("10.0.2.2", "k6t-eth0")), Err(Some(libc::EINVAL)));
    assert_eq!(errors(&with(vec![inside])), one(Code::NoRoute, "eth0"));
    // What was said of routes and settings already.
    let said = broken(masquerade, |vm| {
        vm.ways = vec![to_vm(Ok(2)), beyond(libc::EHOSTUNREACH)];
        vm.host.routes.retain(|route| route.destination.prefix() != 32);
        vm.host.sysctls.clear();
    });
    let said: Vec<_> = errors(&said).into_iter().map(|(code, _)| code).collect();
    assert_eq!(said, [Code::ForwardingOff, Code::NoRoute]);
}

#[test] // spec: EXPL-8
fn a_forward_chain_that_drops_is_named_with_its_owner() {
    let base = |policy| Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0, device: None, policy };
    let table = |policy| TableFacts {
        id: TableId::new(TableFamily::Ip, "filter"),
        chains: vec![
            ChainFacts { name: "FORWARD".to_owned(), base: Some(base(policy)), rules: Vec::new() },
            ChainFacts { name: "DOCKER-USER".to_owned(), base: None, rules: Vec::new() },
        ],
        sets: Vec::new(),
    };
    for healthy in [masquerade, bridge] {
        let drops = broken(healthy, |vm| vm.host.tables = vec![table(Policy::Drop)]);
        assert_eq!(errors(&drops), one(Code::ForwardDrop, "host"));
        assert!(diagnose(&drops).findings[0].seen.starts_with("ip filter FORWARD (Docker) drops"));
        let accepts = broken(healthy, |vm| vm.host.tables = vec![table(Policy::Accept)]);
        assert_eq!(errors(&accepts), []);
    }
    // On a bridge that is not the pod's gateway the hook is met only with br_netfilter.
    let bridged = |setting: &'static str| {
        broken(masquerade, |vm| {
            vm.host.links.push(Link { up: true, carrier: true, ..Link::new(9, name("br0"), LinkKind::Bridge) });
            link(&mut vm.host, "veth7").master = Some(name("br0"));
            vm.host.addresses.clear();
            vm.host.sysctls.insert(Sysctl::net("bridge/bridge-nf-call-iptables"), Some(setting.to_owned()));
            vm.host.tables = vec![table(Policy::Drop)];
        })
    };
    assert_eq!(errors(&bridged("0")), []);
    assert_eq!(errors(&bridged("1")), one(Code::ForwardDrop, "host"));
}

#[test]
fn strict_reverse_path_filtering_is_named_where_the_way_back_is_another() {
    let strict = |facts: &mut Facts, link: &str| {
        facts.sysctls.insert(Sysctl::ipv4_conf(&name(link), "rp_filter"), Some("1".to_owned()));
    };
    // Alone it does no harm.
    let harmless = broken(masquerade, |vm| {
        strict(&mut vm.host, "veth7");
        strict(pod(vm), "eth0");
        strict(pod(vm), "k6t-eth0");
    });
    assert_eq!(errors(&harmless), []);
    let inside = broken(masquerade, |vm| {
        strict(pod(vm), "eth0");
        let route = pod(vm).routes.iter_mut().find(|route| route.destination.to_string() == "0.0.0.0/0").unwrap();
        route.link = Some(name("lo"));
    });
    assert_eq!(errors(&inside), one(Code::RpFilter, "eth0"));
    let outside = broken(bridge, |vm| {
        strict(&mut vm.host, "veth7");
        vm.host.routes.retain(|route| route.destination.prefix() != 32);
    });
    assert_eq!(errors(&outside), [(Code::NoRoute, "host".to_owned()), (Code::RpFilter, "veth7".to_owned())]);
}

#[test]
fn a_neighbour_that_does_not_resolve_is_named() {
    let entry = |link: &str, address: &str| Neighbour {
        link: name(link),
        address: address.parse().unwrap(),
        mac: None,
        state: NeighbourState::Failed,
        router: false,
    };
    let guest = broken(masquerade, |vm| pod(vm).neighbours.push(entry("k6t-eth0", "10.0.2.2")));
    assert_eq!(errors(&guest), one(Code::NeighbourUnresolved, "k6t-eth0"));
    let gateway = broken(masquerade, |vm| pod(vm).neighbours.push(entry("eth0", "10.244.1.1")));
    assert_eq!(errors(&gateway), one(Code::NeighbourUnresolved, "eth0"));
    let bridged = broken(bridge, |vm| {
        let address = vm.status.addresses[0].to_string();
        vm.host.neighbours.push(entry("veth7", &address));
    });
    assert_eq!(errors(&bridged), one(Code::NeighbourUnresolved, "veth7"));
    let strangers = broken(masquerade, |vm| pod(vm).neighbours.push(entry("eth0", "10.244.1.99")));
    assert_eq!(errors(&strangers), []);
    // A guest that never took IPv6 may do without.
    let v4_alone = broken(masquerade, |vm| {
        pod(vm).neighbours.push(entry("k6t-eth0", "fd10:0:2::2"));
        let service = vm.launcher.as_mut().unwrap().nics[0].service.as_mut().unwrap();
        service.ipv6.as_mut().unwrap().leased = false;
    });
    assert_eq!(errors(&v4_alone), []);
}

#[test] // spec: EXPL-6
fn another_ethernet_address_for_the_vms_own_is_named_once_it_is_sure() {
    for healthy in [masquerade, bridge] {
        let with = |mac: &str, state| {
            broken(healthy, |vm| {
                let address = vm.status.addresses[0];
                let mac = Some(mac.parse().unwrap());
                vm.host.neighbours.push(Neighbour { link: name("veth7"), address, mac, state, router: false });
            })
        };
        let foreign = "02:de:ad:00:00:01";
        for state in [NeighbourState::Permanent, NeighbourState::Reachable] {
            assert_eq!(errors(&with(foreign, state)), one(Code::NeighbourForeign, "veth7"));
        }
        assert_eq!(errors(&with(foreign, NeighbourState::Stale)), []);
        let own = healthy().pod.unwrap().link(&name("eth0")).unwrap().mac.unwrap().to_string();
        assert_eq!(errors(&with(&own, NeighbourState::Permanent)), []);
    }
}

#[test] // spec: EXPL-5
fn a_network_that_is_to_be_masqueraded_and_is_not_is_named() {
    let with = |rules: Vec<RuleFacts>, has_older_nat| {
        broken(masquerade, |vm| {
            vm.networks[0].config["plugins"][0]["ipMasq"] = true.into();
            vm.has_older_nat = has_older_nat;
            let hook = Hook::Postrouting;
            let base = Base { kind: ChainKind::Nat, hook, priority: 100, device: None, policy: Policy::Accept };
            let chain = ChainFacts { name: "POSTROUTING".to_owned(), base: Some(base), rules: rules.clone() };
            let ids = [TableFamily::Ip, TableFamily::Ip6].map(|family| TableId::new(family, "nat"));
            let table = |id| TableFacts { id, chains: vec![chain.clone()], sets: Vec::new() };
            vm.host.tables = ids.map(table).into();
        })
    };
    let facts = |rule: Rule| RuleFacts { handle: 1, comment: None, counter: None, statements: rule.statements };
    assert_eq!(errors(&with(vec![], false)), one(Code::MasqueradeGone, "host"));
    assert_eq!(errors(&with(vec![], true)), []);
    assert_eq!(errors(&with(vec![facts(Rule::default().masquerade())], false)), []);
    let ours = ["10.244.1.5", "fd00:10:244:1::5"].map(|ip| facts(Rule::default().saddr(ip.parse().unwrap())));
    assert_eq!(errors(&with(ours.to_vec(), false)), []);
    // As `tapvisor-bridge` does it: the addresses are in a set of the table.
    let by_set = |held: &[&str]| {
        let mut vm = with(
            vec![facts(Rule::default().in_set([Field::Iifname, Field::IpSaddr], "masqueraded").masquerade())],
            false,
        );
        let element = |ip: &&str| ElementFacts {
            key: Element::of([Value::from(&name("veth7")), Value::from(ip.parse::<std::net::IpAddr>().unwrap())]).key,
            data: None,
            expires_milliseconds: None,
        };
        let set =
            SetFacts { name: "masqueraded".to_owned(), dynamic: false, elements: held.iter().map(element).collect() };
        vm.host.tables.iter_mut().for_each(|table| table.sets.push(set.clone()));
        errors(&vm)
    };
    assert_eq!(by_set(&["10.244.1.5", "fd00:10:244:1::5"]), []);
    assert_eq!(by_set(&["10.244.1.5", "fd00:10:244:1::6"]), one(Code::MasqueradeGone, "host"));
    let mut unwished = with(vec![], false);
    unwished.networks[0].config["plugins"][0]["ipMasq"] = false.into();
    assert_eq!(errors(&unwished), []);
}

#[test]
fn a_guest_that_never_asked_and_one_never_answered_differ() {
    let leases = |vm: &mut Evidence, asked: u64, answered: u64| {
        sent(vm, 1);
        let service = vm.launcher.as_mut().unwrap().nics[0].service.as_mut().unwrap();
        for lease in [&mut service.ipv4, &mut service.ipv6].into_iter().flatten() {
            (lease.asked, lease.answered, lease.leased, lease.grants) = (asked, answered, false, 0);
        }
    };
    let count = |vm: &mut Evidence, packets: u64| {
        let table = pod(vm).tables.iter_mut().find(|table| table.id.family == TableFamily::Netdev).unwrap();
        let rules = table.chains.iter_mut().flat_map(|chain| &mut chain.rules);
        let mut asked = rules.filter(|rule| rule.comment.as_deref() == Some("eth0: DHCPv4"));
        asked.next().unwrap().counter = Some(Counter { packets, bytes: packets * 300 });
    };
    for healthy in [masquerade, bridge] {
        let never = broken(healthy, |vm| leases(vm, 0, 0));
        assert_eq!(errors(&never), one(Code::DhcpNeverAsked, "guest"));
        assert!(diagnose(&never).findings[0].seen.contains("in the 60 s that it runs"));
        for (asked, answered) in [(3, 0), (3, 3)] {
            let unanswered = broken(healthy, |vm| leases(vm, asked, answered));
            assert_eq!(errors(&unanswered), one(Code::DhcpNeverAnswered, "svc-eth0"), "{answered}");
        }
        let lost = broken(healthy, |vm| {
            leases(vm, 0, 0);
            count(vm, 4);
        });
        let wrong = [(Code::DhcpNeverAnswered, "svc-eth0".to_owned()), (Code::DhcpNeverAsked, "guest".to_owned())];
        assert_eq!(errors(&lost), wrong, "IPv4 was asked for, IPv6 was not");
        // What an earlier guest asked on the same wiring is not this one's.
        let earlier = broken(healthy, |vm| {
            leases(vm, 0, 0);
            count(vm, 4);
            vm.status.restarts = 1;
        });
        assert_eq!(errors(&earlier), one(Code::DhcpNeverAsked, "guest"));
    }
    let v4_alone = broken(masquerade, |vm| {
        let service = vm.launcher.as_mut().unwrap().nics[0].service.as_mut().unwrap();
        let lease = service.ipv6.as_mut().unwrap();
        (lease.asked, lease.grants, lease.leased) = (0, 0, false);
    });
    assert_eq!((errors(&v4_alone), found(&v4_alone, Severity::Warning)), (vec![], one(Code::DhcpNeverAsked, "guest")));
}

#[test]
fn an_undeclared_port_is_an_error_if_probed_and_a_warning_if_counted() {
    let wanted = broken(declared_ports, |vm| vm.wanted_ports = vec![80, 8080]);
    assert_eq!(errors(&wanted), one(Code::PortNotDeclared, "rules"));
    let counted = broken(declared_ports, |vm| {
        let table = pod(vm).tables.iter_mut().find(|table| table.id.family == TableFamily::Inet).unwrap();
        let chain = table.chains.iter_mut().find(|chain| chain.name == "prerouting").unwrap();
        let undeclared = chain.rules.iter_mut().find(|rule| rule.comment.as_deref() == Some("eth0: undeclared V4"));
        undeclared.unwrap().counter = Some(Counter { packets: 2, bytes: 120 });
    });
    assert_eq!((errors(&counted), found(&counted, Severity::Warning)), (vec![], one(Code::PortNotDeclared, "rules")));
    let open = broken(masquerade, |vm| vm.wanted_ports = vec![8080]);
    assert_eq!(errors(&open), []);
}

#[test]
fn a_refusing_guest_a_silent_guest_and_a_broken_path_differ() {
    let answer = |vm: &mut Evidence, from: From, outcome: &Outcome| {
        vm.probes.iter_mut().filter(|probe| probe.from == from).for_each(|probe| probe.outcome = outcome.clone());
    };
    let refuses = broken(declared_ports, |vm| {
        answer(vm, From::Pod, &Outcome::Refused);
        answer(vm, From::Host, &Outcome::Refused);
    });
    assert_eq!(errors(&refuses), one(Code::GuestRefuses, "guest"));
    for outcome in [Outcome::Silent, Outcome::Unreachable("no route to host".to_owned())] {
        let silent = broken(declared_ports, |vm| answer(vm, From::Pod, &outcome));
        assert_eq!(errors(&silent), one(Code::GuestSilent, "guest"));
        let stuck = broken(declared_ports, |vm| answer(vm, From::Host, &outcome));
        assert_eq!(errors(&stuck), one(Code::GuestSilent, "rules"));
    }
}

#[test]
fn sources_that_the_guard_drops_are_a_warning() {
    let forged = broken(masquerade, |vm| {
        let table = pod(vm).tables.iter_mut().find(|table| table.id.family == TableFamily::Inet).unwrap();
        let chain = table.chains.iter_mut().find(|chain| chain.name == "guard").unwrap();
        let rule = chain.rules.iter_mut().find(|rule| rule.comment.as_ref().is_some_and(|c| c.contains("not from")));
        rule.unwrap().counter = Some(Counter { packets: 9, bytes: 900 });
    });
    assert_eq!(found(&forged, Severity::Warning), one(Code::ForeignSource, "rules"));
}

#[test]
fn a_pod_on_a_macvlan_needs_nothing_of_the_hosts_routing() {
    let macvlan = broken(masquerade, |vm| {
        link(pod(vm), "eth0").kind = LinkKind::Macvlan(hostnet::facts::MacvlanMode::Bridge);
        vm.host.sysctls.clear();
        vm.host.routes = vec![Route::by(name("uplink0"), "10.244.1.0/24".parse().unwrap())];
        remove_link(&mut vm.host, "veth7");
        vm.host.links.push(Link { up: true, carrier: true, ..Link::new(7, name("eno1"), LinkKind::Physical) });
    });
    assert_eq!(diagnose(&macvlan).findings, []);
}

#[test]
fn a_nic_that_the_manifest_keeps_unplugged_is_no_fault_of_the_guests() {
    let unplugged = broken(masquerade, |vm| {
        let nic = &mut vm.launcher.as_mut().unwrap().nics[0];
        nic.link_down = true;
        let lease = nic.service.as_mut().unwrap().ipv4.as_mut().unwrap();
        (lease.asked, lease.grants, lease.leased) = (0, 0, false);
    });
    assert_eq!((errors(&unplugged), found(&unplugged, Severity::Warning)), (vec![], one(Code::Unplugged, "guest")));
}

#[test] // spec: CLI-11
fn a_guest_that_still_boots_is_one_line() {
    let silent = |seconds: u64, packets: u64, asked: u64| {
        broken(declared_ports, |vm| {
            let lease = vm.launcher.as_mut().unwrap().nics[0].service.as_mut().unwrap().ipv4.as_mut().unwrap();
            (lease.asked, lease.answered, lease.leased, lease.grants) = (asked, asked, false, 0);
            vm.probes.iter_mut().for_each(|probe| probe.outcome = Outcome::Silent);
            let guest = "10.0.2.2".parse().unwrap();
            let state = NeighbourState::Failed;
            let neighbour = Neighbour { link: name("k6t-eth0"), address: guest, mac: None, state, router: false };
            pod(vm).neighbours.push(neighbour);
            sent(vm, packets);
            vm.now_unix_seconds = vm.status.running_since_unix_seconds.unwrap() + seconds;
        })
    };
    for boots in [silent(3, 0, 0), silent(299, 0, 0), silent(14, 5, 0)] {
        assert_eq!((errors(&boots), found(&boots, Severity::Warning)), (vec![], one(Code::GuestBoots, "guest")));
    }
    for hangs in [silent(300, 0, 0), silent(15, 5, 0)] {
        assert!(errors(&hangs).contains(&(Code::DhcpNeverAsked, "guest".to_owned())));
    }
    assert!(errors(&silent(3, 5, 2)).contains(&(Code::GuestSilent, "guest".to_owned())), "it has asked");
}

#[test] // spec: DHCP-7
fn what_a_guest_is_not_told_and_a_second_client_are_warnings() {
    let vm = broken(masquerade, |vm| {
        let nic = &mut vm.launcher.as_mut().unwrap().nics[0];
        nic.not_told = vec!["the route to fd99::/48".to_owned()];
        nic.service.as_mut().unwrap().clients =
            ["02:00:00:00:00:01", "02:00:00:00:00:02"].map(|mac| mac.parse().unwrap()).into();
    });
    let svc = "svc-eth0".to_owned();
    let expected = vec![(Code::NotTold, svc.clone()), (Code::SeveralClients, svc)];
    assert_eq!((errors(&vm), found(&vm, Severity::Warning)), (vec![], expected));
}

#[test] // spec: DHCP-5
fn of_several_addresses_the_guest_is_expected_at_the_one_in_the_mark() {
    let vm = broken(bridge, |vm| {
        let other = hostnet::facts::Address::permanent(name("eth0"), "10.78.0.2/24".parse().unwrap());
        pod(vm).addresses.insert(0, other);
        let alias = &mut link(pod(vm), "tap0").alias;
        *alias = Some(format!("{} address4=10.244.1.5", alias.as_deref().unwrap()));
    });
    let case = super::Case::of(&vm);
    let addresses: Vec<_> = case.nics[0].guest_addresses().iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.244.1.5", "fd00:10:244:1::5"]);
}
