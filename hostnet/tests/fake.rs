//! The fake kernel keeps the rules that the real one is shown to keep in the rung of namespaces.

#[cfg(test)]
mod cases;

use std::collections::BTreeMap;

use hostnet::facts::{Facts, Link, LinkKind};
use hostnet::op::{LinkChange, Op};
use hostnet::sysctl::Sysctl;
use hostnet::{Both, Fake, FakePair, Kernel, Plan, apply, tear_down};

#[cfg(test)]
fn namespace() -> Fake {
    let lo = Link::new(1, "lo".parse().unwrap(), LinkKind::Loopback);
    let sysctls = BTreeMap::from([(Sysctl::net("ipv4/ip_forward"), Some("0".to_owned()))]);
    Fake::new(Facts { links: vec![lo], sysctls, ..Facts::default() })
}

#[test]
fn every_case_holds() {
    for (sentence, case) in cases::CASES.iter().chain(cases::BRIDGE_CASES) {
        println!("{sentence}");
        case(&mut namespace());
    }
}

// spec: L2-PLAN, L2-SHARED-1
#[test]
fn every_case_of_two_namespaces_holds() {
    for (sentence, case) in cases::PAIR_CASES {
        println!("{sentence}");
        let facts = || namespace().facts().clone();
        case(&mut FakePair::new(Both { host: facts(), pod: facts() }));
    }
}

#[test]
fn a_fault_at_any_step_is_undone() {
    let (ops, steps) = {
        let mut kernel = namespace();
        let ops = serde_json::from_str::<Plan>(include_str!("plan.json")).unwrap().ops;
        kernel.execute(&ops).unwrap();
        (ops, kernel.steps())
    };
    for step in 0..steps {
        let before = namespace().facts().clone();
        let mut kernel = namespace().failing_after(step);
        let error = apply(&mut kernel, &before, &Plan { ops: ops.clone() }).unwrap_err();
        assert!(error.left.is_empty(), "step {step}: {error}");
        assert_eq!(*kernel.facts(), before, "step {step}");
    }
}

#[test]
fn plans_are_written_as_they_are_read() {
    let text = include_str!("plan.json");
    let plan: Plan = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&plan).unwrap(), serde_json::from_str::<serde_json::Value>(text).unwrap());
}

// spec: CNI-DEL-1
#[test]
fn what_is_to_be_set_on_a_link_that_is_gone_is_no_failure_of_tear_down() {
    let name = |text: &str| text.parse().unwrap();
    let write = |key: Sysctl| Op::WriteSysctl { key, value: "0".to_owned() };
    let gone = [
        write(Sysctl::ipv4_conf(&name("gone0"), "forwarding")),
        Op::SetLink { link: name("gone0"), set: LinkChange::up() },
        Op::DeleteLink { link: name("gone0") },
    ];
    assert_eq!(tear_down(&mut namespace(), &gone).len(), 0);
    // A setting of the whole namespace that is not there is one.
    assert_eq!(tear_down(&mut namespace(), &[write(Sysctl::net("ipv4/no_such_setting"))]).len(), 1);
}
