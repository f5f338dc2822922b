//! What a host's state means for VMs.

use serde::Serialize;

/// What was seen of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) is_root: bool,
    pub(super) has_tun: bool,
    pub(super) kvm: Kvm,
    pub(super) has_vhost_net: bool,
    pub(super) has_qemu: bool,
    pub(super) missing_plugins: Vec<String>,
    pub(super) fwd: Option<Result<(), String>>,
    pub(super) owner_of_107: Option<String>,
    pub(super) ipv4_forwarding: Option<bool>,
    pub(super) has_ipv6: bool,
    pub(super) drops_forwarded: Vec<String>,
    pub(super) overlap: Option<String>,
}

/// What `/dev/kvm` can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kvm {
    /// There is none.
    Absent,
    /// It may not be opened.
    Refused(String),
    /// It is there.
    Present(String),
    /// It is there and cannot run Linux.
    Unusable(String),
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// VMs run, with a restriction.
    Warning,
    /// VMs do not run.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) severity: Severity,
    pub(super) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) consequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

/// Findings in the order in which a user would mend them.
pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    vec![
        root(seen),
        tun(seen),
        engine(seen),
        vhost(seen),
        plugins(seen),
        forwarding_of_frames(seen),
        user(seen),
        forwarding(seen),
        policy(seen),
        ipv6(seen),
        overlap(seen),
    ]
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, severity: Severity::Ok, found: found.into(), consequence: None, remedy: None }
}

fn bad(check: &'static str, severity: Severity, found: impl Into<String>, consequence: &str, remedy: &str) -> Finding {
    let (consequence, remedy) = (Some(consequence.to_owned()), Some(remedy.to_owned()));
    Finding { check, severity, found: found.into(), consequence, remedy }
}

fn root(seen: &Seen) -> Finding {
    match seen.is_root {
        true => ok("user", "root"),
        false => bad(
            "user",
            Severity::Error,
            "not root",
            "Network namespaces, CNI plugins and descriptors for the VM process need root; the VM process itself does not.",
            "Run it with sudo. What follows was looked at without root and may be incomplete.",
        ),
    }
}

fn tun(seen: &Seen) -> Finding {
    match seen.has_tun {
        true => ok("/dev/net/tun", "can be opened"),
        false => bad(
            "/dev/net/tun",
            Severity::Error,
            "cannot be opened",
            "VMs have no network without it.",
            "`modprobe tun`; in a container the device must be passed in.",
        ),
    }
}

fn engine(seen: &Seen) -> Finding {
    let (usable, found) = match &seen.kvm {
        Kvm::Absent => (false, "there is none".to_owned()),
        Kvm::Refused(why) => (false, format!("cannot be opened: {why}")),
        Kvm::Unusable(why) => (false, format!("cannot run Linux: {why}")),
        Kvm::Present(what) => (true, what.clone()),
    };
    match (usable, seen.has_qemu) {
        (_, false) => bad(
            "engine",
            Severity::Error,
            format!("/dev/kvm: {found}; qemu-system-x86_64: not installed"),
            "No engine can run a VM.",
            "Install the package qemu-system-x86.",
        ),
        (false, true) => bad(
            "engine",
            Severity::Warning,
            format!("/dev/kvm: {found}; qemu-system-x86_64: installed"),
            "VMs are emulated: they run, many times slower.",
            "Switch on virtualisation in the firmware, or nested virtualisation in the outer hypervisor.",
        ),
        (true, true) => ok("engine", format!("/dev/kvm: {found}; qemu-system-x86_64: installed")),
    }
}

fn vhost(seen: &Seen) -> Finding {
    ok(
        "vhost-net",
        if seen.has_vhost_net { "can be used" } else { "not there; frames take the way through user space" },
    )
}

fn plugins(seen: &Seen) -> Finding {
    match seen.missing_plugins.as_slice() {
        [] => ok("CNI plugins", "those of the default network are installed"),
        missing => bad(
            "CNI plugins",
            Severity::Error,
            format!("missing: {}", missing.join(", ")),
            "The default network cannot be attached.",
            "Install the package containernetworking-plugins, and tapvisor-cni beside this program; CNI_PATH names other folders.",
        ),
    }
}

fn forwarding_of_frames(seen: &Seen) -> Finding {
    match &seen.fwd {
        None => ok("nft fwd in netdev", "not tried without root"),
        Some(Ok(())) => ok("nft fwd in netdev", "works"),
        Some(Err(why)) => bad(
            "nft fwd in netdev",
            Severity::Error,
            format!("does not work: {why}"),
            "Frames cannot be led between a VM and its pod's network.",
            "Use a kernel with CONFIG_NF_TABLES_NETDEV and CONFIG_NFT_FWD_NETDEV; distributions' kernels have both.",
        ),
    }
}

fn user(seen: &Seen) -> Finding {
    match &seen.owner_of_107 {
        None => ok("user 107", "free"),
        Some(name) => bad(
            "user 107",
            Severity::Warning,
            format!("is {name}"),
            "VM processes run as user 107, as in a cluster: that account could open a VM's taps and disks.",
            "Harmless where the account runs nothing; else give it another number.",
        ),
    }
}

fn forwarding(seen: &Seen) -> Finding {
    match seen.ipv4_forwarding {
        Some(true) => ok("forwarding", "on"),
        Some(false) => ok("forwarding", "off; the default network switches it on while VMs run"),
        None => bad(
            "forwarding",
            Severity::Warning,
            "/proc/sys/net/ipv4/ip_forward cannot be read",
            "VMs may not reach beyond this host.",
            "Mount /proc.",
        ),
    }
}

fn policy(seen: &Seen) -> Finding {
    match seen.drops_forwarded.as_slice() {
        [] => ok("FORWARD policy", "nothing drops by default what is forwarded"),
        chains => bad(
            "FORWARD policy",
            Severity::Warning,
            format!("drop in {}", chains.join(", ")),
            "Docker and ufw do this: what VMs send beyond this host is dropped, and rules of ours cannot override it.",
            "`iptables -I FORWARD -s 172.30.77.0/24 -j ACCEPT`, the same with -d, and with ip6tables and fd77:7461:7076::/64.",
        ),
    }
}

fn ipv6(seen: &Seen) -> Finding {
    match seen.has_ipv6 {
        true => ok("IPv6", "on"),
        false => bad(
            "IPv6",
            Severity::Warning,
            "switched off",
            "The default network is dual-stack and cannot be attached.",
            "Choose an IPv4-only network with --network, or switch IPv6 on (net.ipv6.conf.all.disable_ipv6=0).",
        ),
    }
}

fn overlap(seen: &Seen) -> Finding {
    match &seen.overlap {
        None => ok("default network", "its ranges are free"),
        Some(overlap) => bad(
            "default network",
            Severity::Warning,
            overlap.clone(),
            "VMs on the default network are refused.",
            "Choose another network with --network.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Seen {
        Seen {
            is_root: true,
            has_tun: true,
            kvm: Kvm::Present("works".to_owned()),
            has_vhost_net: true,
            has_qemu: true,
            missing_plugins: Vec::new(),
            fwd: Some(Ok(())),
            owner_of_107: None,
            ipv4_forwarding: Some(false),
            has_ipv6: true,
            drops_forwarded: Vec::new(),
            overlap: None,
        }
    }

    fn severity(seen: &Seen, check: &str) -> Severity {
        judge(seen).iter().find(|finding| finding.check == check).unwrap().severity
    }

    #[test]
    fn a_healthy_host_has_nothing_to_mend() {
        assert!(judge(&healthy()).iter().all(|finding| finding.severity == Severity::Ok && finding.remedy.is_none()));
    }

    #[test]
    fn emulation_is_a_warning_and_no_engine_at_all_an_error() {
        let emulated = Seen { kvm: Kvm::Absent, ..healthy() };
        assert_eq!(severity(&emulated, "engine"), Severity::Warning);
        assert_eq!(severity(&Seen { has_qemu: false, ..emulated }, "engine"), Severity::Error);
    }

    #[test]
    fn what_is_wrong_comes_with_consequence_and_remedy() {
        let ill = Seen {
            is_root: false,
            has_tun: false,
            kvm: Kvm::Refused("permission denied".to_owned()),
            has_vhost_net: false,
            has_qemu: false,
            missing_plugins: vec!["ptp".to_owned()],
            fwd: Some(Err("operation not supported".to_owned())),
            owner_of_107: Some("sshd".to_owned()),
            ipv4_forwarding: None,
            has_ipv6: false,
            drops_forwarded: vec!["ip filter FORWARD".to_owned()],
            overlap: Some("172.30.77.0/24 overlaps the host's route 172.16.0.0/12 on tun0".to_owned()),
        };
        let findings = judge(&ill);
        let wrong: Vec<_> = findings.iter().filter(|finding| finding.severity != Severity::Ok).collect();
        assert_eq!(wrong.len(), 10, "all but vhost-net, which is only faster");
        assert!(wrong.iter().all(|finding| finding.consequence.is_some() && finding.remedy.is_some()));
    }
}
