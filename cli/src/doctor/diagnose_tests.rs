//! The findings for each state of a host.

use super::*;

fn healthy() -> Seen {
    Seen {
        is_root: true,
        refused_to_user: Vec::new(),
        has_tun: true,
        kvm: Kvm::Present("works".to_owned()),
        has_vhost_net: true,
        has_qemu: true,
        launcher: Ok(()),
        missing_plugins: Vec::new(),
        fwd: Some(Ok(())),
        vm_users: VmUsers { range: Ok("2000-2999".to_owned()), others: Vec::new(), are_mapped: true },
        isolation: Some(Ok(Vec::new())),
        confinement: Ok(Vec::new()),
        ipv4_forwarding: Forwarding::Off,
        ipv6_forwarding: Forwarding::On,
        has_ipv6: true,
        vlan: Some(Ok(())),
        drops_forwarded: Ok(Vec::new()),
        legacy_tables: Vec::new(),
        overlap: None,
        services_overlap: None,
        name_servers: vec![IpAddr::from([192, 0, 2, 53])],
    }
}

fn severity(seen: &Seen, check: &str) -> Severity {
    diagnose(seen).iter().find(|finding| finding.check == check).unwrap().severity
}

#[test]
fn a_healthy_host_has_nothing_to_mend() {
    assert!(diagnose(&healthy()).iter().all(|finding| finding.severity == Severity::Ok && finding.remedy.is_none()));
}

#[test]
fn emulation_is_a_warning_and_no_engine_at_all_an_error() {
    let emulated = Seen { kvm: Kvm::Absent, ..healthy() };
    assert_eq!(severity(&emulated, "engine"), Severity::Warning);
    assert_eq!(severity(&Seen { has_qemu: false, ..emulated }, "engine"), Severity::Error);
}

// spec: ENGINE-3
#[test]
fn the_engines_that_can_run_vms_are_listed() {
    let engine = |seen: &Seen| diagnose(seen).into_iter().find(|finding| finding.check == "engine").unwrap();
    let withheld = Kvm::Withheld("it is user 0's".to_owned());
    for (kvm, has_qemu, engines, severity) in [
        (healthy().kvm, true, "kvm, qemu (kvm)", Severity::Ok),
        (withheld.clone(), true, "kvm, qemu (tcg)", Severity::Warning),
        (withheld, false, "kvm", Severity::Warning),
        (healthy().kvm, false, "kvm", Severity::Warning),
        (Kvm::Absent, true, "qemu (tcg)", Severity::Warning),
        (Kvm::Absent, false, "none", Severity::Error),
    ] {
        let finding = engine(&Seen { kvm, has_qemu, ..healthy() });
        assert!(finding.found.ends_with(&format!("; engines: {engines}")), "{finding:?}");
        assert_eq!(finding.severity, severity, "{finding:?}");
    }
}

// spec: DOC-5
#[test]
fn a_kvm_that_vm_processes_may_not_open_is_a_warning_with_its_own_remedy() {
    let withheld = Seen { kvm: Kvm::Withheld("it is user 0's and group 0's, mode 0600".to_owned()), ..healthy() };
    let finding = diagnose(&withheld).into_iter().find(|finding| finding.check == "engine").unwrap();
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.found.contains("may not open it: it is user 0's and group 0's, mode 0600"), "{finding:?}");
    assert!(finding.remedy.unwrap().contains("chgrp kvm /dev/kvm"));
}

#[test]
fn what_is_wrong_comes_with_consequence_and_remedy() {
    let ill = Seen {
        is_root: false,
        refused_to_user: Vec::new(),
        has_tun: false,
        kvm: Kvm::Refused("permission denied".to_owned()),
        has_vhost_net: false,
        has_qemu: false,
        launcher: Err("/usr/local/bin/tapvisor-launcher: No such file or directory".to_owned()),
        missing_plugins: vec!["tapvisor-bridge".to_owned()],
        fwd: Some(Err("operation not supported".to_owned())),
        vm_users: VmUsers { range: Err("is none".to_owned()), others: Vec::new(), are_mapped: true },
        isolation: Some(Ok(vec!["VM processes have no PID namespace".to_owned()])),
        confinement: Ok(vec!["Landlock: this kernel does not have it".to_owned()]),
        ipv4_forwarding: Forwarding::Unknown,
        ipv6_forwarding: Forwarding::Fixed,
        has_ipv6: false,
        vlan: Some(Err("operation not supported".to_owned())),
        drops_forwarded: Ok(vec!["ip filter FORWARD (Docker)".to_owned()]),
        legacy_tables: vec!["filter".to_owned()],
        overlap: Some("172.30.77.0/24 overlaps the host's route 172.16.0.0/12 on tun0".to_owned()),
        services_overlap: Some("172.30.78.0/24 overlaps the host's route 172.16.0.0/12 on tun0".to_owned()),
        name_servers: Vec::new(),
    };
    let findings = diagnose(&ill);
    let wrong: Vec<_> = findings.iter().filter(|finding| finding.severity != Severity::Ok).collect();
    assert_eq!(
        wrong.len(),
        16,
        "all but vhost-net, which emulation does not use, and IPv6 forwarding, where there is none"
    );
    assert!(wrong.iter().all(|finding| finding.consequence.is_some() && finding.remedy.is_some()));
}

// spec: DOC-5
#[test]
fn a_missing_vhost_net_matters_where_kvm_works() {
    let slow = Seen { has_vhost_net: false, ..healthy() };
    assert_eq!(severity(&slow, "vhost-net"), Severity::Warning);
    let emulated = Seen { kvm: Kvm::Unusable("it only interprets".to_owned()), ..slow };
    assert_eq!(severity(&emulated, "vhost-net"), Severity::Ok);
}

#[test]
fn forwarding_that_can_be_switched_on_is_no_fault_and_fixed_forwarding_is() {
    for (state, expected) in [
        (Forwarding::On, Severity::Ok),
        (Forwarding::Off, Severity::Ok),
        (Forwarding::Fixed, Severity::Error),
        (Forwarding::Unknown, Severity::Warning),
    ] {
        assert_eq!(severity(&Seen { ipv4_forwarding: state, ..healthy() }, "IPv4 forwarding"), expected);
        assert_eq!(severity(&Seen { ipv6_forwarding: state, ..healthy() }, "IPv6 forwarding"), expected);
    }
}

// spec: DOC-5
#[test]
fn a_firewall_is_named_and_one_that_cannot_be_read_is_doubted() {
    let found = |seen: &Seen| diagnose(seen).into_iter().find(|finding| finding.check == "firewall").unwrap();
    let docker = Seen { drops_forwarded: Ok(vec!["ip filter FORWARD (Docker)".to_owned()]), ..healthy() };
    assert!(found(&docker).found.ends_with("by ip filter FORWARD (Docker)"));
    let unreadable = Seen { drops_forwarded: Err("operation not permitted".to_owned()), ..healthy() };
    assert_eq!(
        (found(&unreadable).severity, &*found(&unreadable).found),
        (Severity::Warning, "cannot be read: operation not permitted")
    );
    let legacy = Seen { legacy_tables: vec!["filter".to_owned()], ..healthy() };
    assert_eq!((found(&legacy).severity, found(&healthy()).severity), (Severity::Warning, Severity::Ok));
}

// spec: DOC-1
#[test]
fn the_exit_code_is_that_of_the_gravest_finding() {
    let code = |severities: &[Severity], is_strict| exit_code(severities.iter().copied(), is_strict);
    assert_eq!(code(&[Severity::Ok, Severity::Ok], true), 0);
    assert_eq!((code(&[Severity::Ok, Severity::Warning], false), code(&[Severity::Warning], true)), (0, 1));
    assert_eq!((code(&[Severity::Error, Severity::Warning], false), code(&[Severity::Error], true)), (6, 6));
}

// spec: CLI-10
#[test]
fn what_a_user_may_not_open_is_a_hint_at_sudo_and_not_at_the_host() {
    let user = Seen {
        is_root: false,
        refused_to_user: vec!["engine", "vhost-net", "IPv4 forwarding", "firewall"],
        kvm: Kvm::Refused("permission denied".to_owned()),
        has_vhost_net: false,
        ipv4_forwarding: Forwarding::Fixed,
        drops_forwarded: Err("operation not permitted".to_owned()),
        ..healthy()
    };
    let wrong: Vec<_> = diagnose(&user).into_iter().filter(|finding| finding.severity != Severity::Ok).collect();
    assert_eq!(
        wrong.iter().map(|it| it.check).collect::<Vec<_>>(),
        ["user", "engine", "vhost-net", "IPv4 forwarding", "firewall"]
    );
    for finding in wrong {
        assert!(finding.remedy.as_ref().unwrap().contains("sudo tapvisor doctor"), "{finding:?}");
    }
}
