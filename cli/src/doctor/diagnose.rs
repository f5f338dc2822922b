//! What a host's state means for VMs.

use std::net::IpAddr;

use serde::Serialize;

use crate::failure::Exit;

/// What was seen of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) is_root: bool,
    /// Checks that only root could have made.
    pub(super) refused_to_user: Vec<&'static str>,
    pub(super) has_tun: bool,
    pub(super) kvm: Kvm,
    pub(super) has_vhost_net: bool,
    pub(super) has_qemu: bool,
    /// Whether the program of VM processes can be executed; why not.
    pub(super) launcher: Result<(), String>,
    pub(super) missing_plugins: Vec<String>,
    pub(super) fwd: Option<Result<(), String>>,
    pub(super) vm_users: VmUsers,
    /// What VM processes share with the host that they should not, or why that is not known; `None` without root.
    pub(super) isolation: Option<Result<Vec<String>, String>>,
    /// What VM processes cannot confine themselves with, or why that is not known.
    pub(super) confinement: Result<Vec<String>, String>,
    /// Whether it is on, and whether it can be switched on.
    pub(super) ipv4_forwarding: Forwarding,
    pub(super) ipv6_forwarding: Forwarding,
    pub(super) has_ipv6: bool,
    pub(super) vlan: Option<Result<(), String>>,
    /// Chains that drop by default what is forwarded and do not let the default network through.
    pub(super) drops_forwarded: Result<Vec<String>, String>,
    /// Tables of the older iptables, which this program cannot read.
    pub(super) legacy_tables: Vec<String>,
    pub(super) overlap: Option<String>,
    pub(super) services_overlap: Option<String>,
    /// The host's name servers that a VM could reach.
    pub(super) name_servers: Vec<IpAddr>,
}

/// The numbers that VMs run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VmUsers {
    /// From which to which, or why that is not known.
    pub(super) range: Result<String, String>,
    /// Accounts, groups and subordinate ranges that have some of them.
    pub(super) others: Vec<String>,
    /// Whether processes here can run as them.
    pub(super) are_mapped: bool,
}

/// `net.ipv4.ip_forward` or `net.ipv6.conf.all.forwarding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forwarding {
    On,
    /// Off, and it can be switched on.
    Off,
    /// Off, and it cannot be written.
    Fixed,
    Unknown,
}

/// What `/dev/kvm` can do for VM processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kvm {
    /// The host has no such node.
    Absent,
    /// It may not be opened.
    Refused(String),
    /// It runs guests.
    Present(String),
    /// It works, and the user of VM processes may not open it.
    Withheld(String),
    /// It is there and cannot run Linux.
    Unusable(String),
    /// It is there, and what it can do is not known.
    Untried(String),
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Severity {
    /// Nothing needs to change.
    Ok,
    /// VMs run, with a restriction.
    Warning,
    /// No VM runs until it is remedied.
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
pub(super) fn diagnose(seen: &Seen) -> Vec<Finding> {
    let findings = [
        root(seen),
        tun(seen),
        engine(seen),
        launcher(seen),
        vhost(seen),
        plugins(seen),
        forwarding_of_frames(seen),
        vlan(seen),
        vm_users(seen),
        isolation(seen),
        confinement(seen),
        ipv6(seen),
        forwarding("IPv4 forwarding", seen.ipv4_forwarding),
        forwarding("IPv6 forwarding", if seen.has_ipv6 { seen.ipv6_forwarding } else { Forwarding::Off }),
        policy(seen),
        overlap(seen),
        services_overlap(seen),
        name_servers(seen),
    ];
    let told = findings.into_iter().map(|finding| match seen.refused_to_user.contains(&finding.check) {
        true => untold(finding.check),
        false => finding,
    });
    told.collect()
}

/// What a user without rights is not shown: neither good nor bad, and nothing to mend by what would mend the host.
fn untold(check: &'static str) -> Finding {
    bad(
        check,
        Severity::Warning,
        "cannot be examined without root",
        "It is unknown whether VMs can run.",
        "Run `sudo tapvisor doctor`.",
    )
}

/// The exit code: 6 when VMs cannot run, 1 when there are warnings and they are to count, else 0.
pub(super) fn exit_code(severities: impl Iterator<Item = Severity>, is_strict: bool) -> u8 {
    match severities.max() {
        Some(Severity::Error) => Exit::HostLacks as u8,
        Some(Severity::Warning) if is_strict => Exit::Failed as u8,
        _ => 0,
    }
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
            "Run `sudo tapvisor doctor`; run VMs with sudo too.",
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
        Kvm::Withheld(why) => (true, format!("works, but VM processes may not open it: {why}")),
        Kvm::Unusable(why) => (false, format!("cannot run Linux: {why}")),
        Kvm::Untried(why) => (false, format!("was not tried: {why}")),
        Kvm::Present(what) => (true, what.clone()),
    };
    let qemu = if seen.has_qemu { "installed" } else { "not installed" };
    let engines = match (usable, seen.has_qemu, &seen.kvm) {
        (true, true, Kvm::Present(_)) => "kvm, qemu (kvm)",
        (true, true, _) => "kvm, qemu (tcg)",
        (true, false, _) => "kvm",
        (false, true, _) => "qemu (tcg)",
        (false, false, _) => "none",
    };
    let found = format!("/dev/kvm: {found}; qemu-system-x86_64: {qemu}; engines: {engines}");
    let warning = |consequence, remedy| bad("engine", Severity::Warning, found.clone(), consequence, remedy);
    match (usable, seen.has_qemu, &seen.kvm) {
        (true, true, Kvm::Present(_)) => ok("engine", found),
        (true, true, _) => warning(
            "VMs that ask for what engine kvm lacks, such as disks, are emulated and run many times slower.",
            "`chgrp kvm /dev/kvm` and `chmod 0660 /dev/kvm`; a udev rule does it after each start.",
        ),
        (true, false, _) => warning(
            "VMs that ask for what engine kvm lacks, such as disks, do not run.",
            "Install the package qemu-system-x86.",
        ),
        (false, true, _) => warning(
            "VMs are emulated and run many times slower.",
            "Switch on virtualisation in the firmware, or nested virtualisation in the outer hypervisor.",
        ),
        (false, false, _) => {
            bad("engine", Severity::Error, found, "No engine can run a VM.", "Install the package qemu-system-x86.")
        }
    }
}

fn launcher(seen: &Seen) -> Finding {
    match &seen.launcher {
        Ok(()) => ok("launcher", "can be executed"),
        Err(why) => bad(
            "launcher",
            Severity::Error,
            format!("cannot be executed: {why}"),
            "No VM can be started.",
            "`make install` installs tapvisor-launcher next to tapvisor, with mode 0755.",
        ),
    }
}

fn vhost(seen: &Seen) -> Finding {
    let is_fast = matches!(seen.kvm, Kvm::Present(_));
    match (seen.has_vhost_net, is_fast) {
        (true, _) => ok("vhost-net", "can be used"),
        (false, false) => ok("vhost-net", "absent; emulated VMs do not use it"),
        (false, true) => bad(
            "vhost-net",
            Severity::Warning,
            "/dev/vhost-net cannot be opened",
            "Frames pass through user space and cost several times the processor time.",
            "`modprobe vhost_net`; in a container the device must be passed in.",
        ),
    }
}

fn plugins(seen: &Seen) -> Finding {
    match seen.missing_plugins.as_slice() {
        [] => ok("CNI plugins", "those of the default network are installed"),
        missing => bad(
            "CNI plugins",
            Severity::Error,
            format!("missing: {}", missing.join(", ")),
            "The default network cannot be attached.",
            "Install tapvisor-cni and tapvisor-bridge next to this program; CNI_PATH names other folders.",
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
            "Frames cannot be forwarded between a VM and its pod's network.",
            "Use a kernel with CONFIG_NF_TABLES_NETDEV and CONFIG_NFT_FWD_NETDEV; distributions' kernels have both.",
        ),
    }
}

fn vm_users(seen: &Seen) -> Finding {
    const CHECK: &str = "VM users";
    const REMEDY: &str = "Write a range of unused numbers into /etc/tapvisor/uids: one line, FIRST-LAST.";
    let VmUsers { range, others, are_mapped } = &seen.vm_users;
    match (range, others.as_slice()) {
        (Err(why), _) => bad(CHECK, Severity::Error, why.clone(), "No VM can be started.", REMEDY),
        (Ok(range), _) if !are_mapped => bad(
            CHECK,
            Severity::Error,
            format!("{range} is not in this user namespace"),
            "No VM can be started: no process can run as these users.",
            "Write a range of /proc/self/uid_map and gid_map into /etc/tapvisor/uids: one line, FIRST-LAST.",
        ),
        (Ok(range), []) => ok(CHECK, format!("{range} are unused")),
        (Ok(range), others) => bad(
            CHECK,
            Severity::Warning,
            format!("{range} are in use by {}", others.join(", ")),
            "VMs do not get these numbers, but an account that is made later could open a VM's taps and disks.",
            REMEDY,
        ),
    }
}

fn isolation(seen: &Seen) -> Finding {
    const CHECK: &str = "VM isolation";
    const REMEDY: &str = "In a container, allow clone3, mount and pivot_root (CAP_SYS_ADMIN and no AppArmor profile that denies mounts).";
    match &seen.isolation {
        None => ok(CHECK, "not tried without root"),
        Some(Ok(refused)) if refused.is_empty() => ok(CHECK, "PID and mount namespaces of their own"),
        Some(Ok(refused)) => bad(
            CHECK,
            Severity::Warning,
            refused.join("; "),
            "VMs run. A guest that takes over its VM process sees more of this host than necessary; each VM still runs as its own user.",
            REMEDY,
        ),
        Some(Err(why)) => bad(CHECK, Severity::Error, why.clone(), "No VM can be started.", REMEDY),
    }
}

fn confinement(seen: &Seen) -> Finding {
    const CHECK: &str = "VM confinement";
    let lacks = match &seen.confinement {
        Ok(lacks) => lacks.join("; "),
        Err(why) => why.clone(),
    };
    match lacks.as_str() {
        "" => ok(CHECK, "Landlock and seccomp"),
        lacks => bad(
            CHECK,
            Severity::Warning,
            lacks,
            "VMs run. A guest that takes over its VM process can use more system calls than necessary.",
            "Use a kernel with CONFIG_SECURITY_LANDLOCK, `landlock` in its lsm= list, and CONFIG_SECCOMP_FILTER; in a container, allow these system calls.",
        ),
    }
}

fn vlan(seen: &Seen) -> Finding {
    match &seen.vlan {
        None => ok("VLAN", "not tried without root"),
        Some(Ok(())) => ok("VLAN", "links with an 802.1Q tag can be made"),
        Some(Err(why)) => bad(
            "VLAN",
            Severity::Warning,
            format!("no link with an 802.1Q tag can be made: {why}"),
            "Networks with a VLAN, by the plugin vlan or a bridge's tag, cannot be attached; all others can.",
            "Use a kernel with CONFIG_VLAN_8021Q (`modprobe 8021q`); distributions' kernels have it.",
        ),
    }
}

fn forwarding(check: &'static str, state: Forwarding) -> Finding {
    match state {
        Forwarding::On => ok(check, "on"),
        Forwarding::Off => ok(check, "off; the default network switches it on while VMs run"),
        Forwarding::Fixed => bad(
            check,
            Severity::Error,
            "off, and /proc/sys cannot be written",
            "Routed networks, the default one among them, cannot be attached.",
            "Switch it on with sysctl on the host; in a container mount /proc/sys writable, or switch it on outside.",
        ),
        Forwarding::Unknown => {
            bad(check, Severity::Warning, "cannot be read", "VMs may not reach beyond this host.", "Mount /proc.")
        }
    }
}

fn policy(seen: &Seen) -> Finding {
    const CHECK: &str = "firewall";
    let dropping = match &seen.drops_forwarded {
        Ok(chains) => chains.as_slice(),
        Err(why) => {
            return bad(
                CHECK,
                Severity::Warning,
                format!("cannot be read: {why}"),
                "If a firewall drops forwarded packets by default, VMs do not reach beyond this host.",
                "Run doctor as root, on a kernel with CONFIG_NF_TABLES; `nft list ruleset` shows the rules.",
            );
        }
    };
    match (dropping, seen.legacy_tables.as_slice()) {
        ([], []) => ok(CHECK, "no rule drops packets of VMs"),
        ([], tables) => bad(
            CHECK,
            Severity::Warning,
            format!("the older iptables is in use ({}), and cannot be read", tables.join(", ")),
            "If its FORWARD chain drops by default, VMs do not reach beyond this host.",
            "See `iptables-legacy -S FORWARD`; `iptables-legacy -I FORWARD -s 172.30.77.0/24 -j ACCEPT` and the same with -d let VMs through.",
        ),
        (chains, _) => bad(
            CHECK,
            Severity::Warning,
            format!("forwarded packets are dropped by {}", chains.join(", ")),
            "Packets of VMs beyond this host are dropped; Tapvisor's rules cannot override this.",
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

fn services_overlap(seen: &Seen) -> Finding {
    match &seen.services_overlap {
        None => ok("Services", "their ranges are free"),
        Some(overlap) => bad(
            "Services",
            Severity::Warning,
            overlap.clone(),
            "Manifests with a Service are refused; other manifests work.",
            "Remove that address or route before you create Services.",
        ),
    }
}

fn name_servers(seen: &Seen) -> Finding {
    const CHECK: &str = "name servers";
    match seen.name_servers.as_slice() {
        [] => bad(
            CHECK,
            Severity::Warning,
            "neither /etc/resolv.conf nor systemd-resolved names one that a VM could reach",
            "VMs resolve no names, unless their network or their manifest names a server.",
            "Name one in /etc/resolv.conf, or in manifests with dnsConfig.nameservers.",
        ),
        servers => ok(CHECK, servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
