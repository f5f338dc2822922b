//! Plans broken at every kernel step, and steps written down.

use hostnet::facts::{AddrGenMode, Address, Ask, Facts, Route};
use hostnet::linux::{Real, Recorder, Step};
use hostnet::nft::{Chain, Family, Rule, Table, Transaction, priority};
use hostnet::op::{LinkChange, NewTap};
use hostnet::sysctl::Sysctl;
use hostnet::{Kernel, Linux, Op, Plan, apply};
use libtest_mimic::Trial;
use tests::{Ns, World};

use super::faulty::{Fault, Faulty};
use super::{name, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-UNDO-1
        trial("a plan broken at any kernel step leaves the namespace as it was", broken),
        trial("a recorder writes down every step of a plan", recorded),
        trial("wiring a tap takes few steps", few_steps),
    ]
}

fn prepare(ns: &Ns<'_>) {
    ns.sh("ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up; ip addr add 10.244.0.5/24 dev eth0")
        .assert_ok();
    ns.settle();
}

fn plan() -> Plan {
    let tap = |own: &str, set: LinkChange| {
        Op::CreateTap(NewTap { name: name(own), owner: 107, group: Some(107), multi_queue: false, set })
    };
    let set =
        LinkChange { addr_gen_mode: Some(AddrGenMode::None), mtu: Some(1450.try_into().unwrap()), ..LinkChange::up() };
    let vm = name("k6t-eth0");
    let table = Table::new(Family::Netdev, "tapvisor").chain(
        Chain::ingress("from-guest", vm.clone(), priority::FILTER).rule(Rule::named("all").forward(&name("svc-eth0"))),
    );
    let address = |text: &str| Op::AddAddress(Address::permanent(vm.clone(), text.parse().unwrap()));
    let ops = vec![
        Op::WriteSysctl { key: Sysctl::net("ipv4/ip_forward"), value: "1".to_owned() },
        tap("k6t-eth0", set.clone()),
        tap("svc-eth0", set),
        address("10.0.2.1/24"),
        address("fd10:0:2::1/120"),
        address("fe80::ff:fe00:0/64"),
        Op::AddRoute(Route::local(vm.clone(), "::1/128".parse().unwrap(), 2048)),
        Op::SetLink {
            link: name("eth0"),
            set: LinkChange { mac: Some("02:00:00:00:00:77".parse().unwrap()), ..LinkChange::default() },
        },
        Op::WriteSysctl { key: Sysctl::ipv4_conf(&vm, "route_localnet"), value: "1".to_owned() },
        Op::Nft(Transaction::add([table])),
        Op::SetLink { link: vm, set: LinkChange::alias("tapvisor/1 00112233445566ff") },
    ];
    Plan { ops }
}

fn before(kernel: &mut impl Kernel) -> Facts {
    let table = hostnet::nft::TableId::new(Family::Netdev, "tapvisor");
    let keys = [Sysctl::net("ipv4/ip_forward"), Sysctl::ipv4_conf(&name("k6t-eth0"), "route_localnet")];
    kernel.gather(&Ask::network().with_sysctls(keys).with_tables([table])).unwrap()
}

fn broken() {
    let world = World::bare();
    let mut broken = 0;
    for fault in [Fault::Refuse, Fault::Report] {
        let ns = world.ns(&format!("{fault:?}"));
        prepare(&ns);
        let snapshot = ns.snapshot();
        for at in 0.. {
            let struck = ns.enter(|| {
                let facts = before(&mut Linux::here());
                let mut calls = Faulty::new(Real::default(), fault, at);
                let outcome = apply(&mut Linux::with(&mut calls), &facts, &plan());
                if let Err(error) = &outcome {
                    assert!(error.left.is_empty(), "{fault:?} at {at}: {error}");
                }
                assert_eq!(calls.struck(), outcome.is_err(), "{fault:?} at {at}");
                outcome.is_err()
            });
            if !struck {
                break;
            }
            broken += 1;
            snapshot.assert_same(&ns.snapshot());
        }
    }
    assert!(broken >= 2 * 12, "only {broken} steps");
}

/// The steps of the whole plan.
fn steps() -> Vec<Step> {
    let world = World::bare();
    let ns = world.ns("pod");
    prepare(&ns);
    ns.enter(|| {
        let facts = before(&mut Linux::here());
        let mut calls = Recorder::new(Real::default());
        apply(&mut Linux::with(&mut calls), &facts, &plan()).unwrap();
        calls.into_steps()
    })
}

fn recorded() {
    let steps = steps();
    let text = serde_json::to_string(&steps).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Step>>(&text).unwrap(), steps);
    assert_eq!(
        steps.first(),
        Some(&Step::WriteFile { path: "/proc/sys/net/ipv4/ip_forward".to_owned(), contents: "1".to_owned() })
    );
    assert_eq!(steps.iter().filter(|step| **step == Step::OpenTun).count(), 2);
}

fn few_steps() {
    let steps = steps();
    let sends = steps.iter().filter(|step| matches!(step, Step::Send { .. })).count();
    // One with the first tap's settings before the second tap is made, one with all that follows, the transaction, the mark.
    assert_eq!(sends, 4, "{steps:#?}");
}
