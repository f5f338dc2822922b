//! `tapvisor doctor` on hosts that lack one thing at a time, each made by hand.

use libtest_mimic::Trial;
use serde_json::Value;
use tests::{Ran, World, dist_file, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: DOC-1, DOC-4
        trial("doctor looks at everything, finds this host fit and changes nothing", fit),
        // spec: DOC-1, DOC-3
        trial("doctor names each missing thing with consequence, remedy, exit code", missing),
        // spec: EXPL-5, DOC-2
        trial("doctor names a firewall that drops forwarded packets of VMs", firewalls),
        // spec: DOC-2
        trial("doctor ignores what ufw accepts elsewhere and sees allowed routes", ufw),
        // spec: ISO-3
        trial("doctor names what this kernel refuses of the walls around VMs", walls),
        // spec: DOC-2
        trial("doctor says of VLANs what ip finds", vlans),
    ]
}

/// How it ended, and what it found of one thing.
fn doctor(world: &World, script: &str, check: &str) -> (Ran, Value) {
    let line = format!("{script} {} doctor -o json", dist_file("tapvisor").display());
    let ran = Ran::of(world.command("/bin/bash").args(["-euc", &line]));
    let document: Value = serde_json::from_str(&ran.stdout()).unwrap_or_else(|_| panic!("{}", ran.account()));
    assert_eq!((&document["apiVersion"], &document["kind"]), (&"tapvisor.io/v1".into(), &"Report".into()));
    let items = document["items"].as_array().unwrap();
    let found = items.iter().find(|item| item["check"] == check).unwrap_or_else(|| panic!("no {check}: {items:?}"));
    (ran, found.clone())
}

fn fit() {
    let world = World::new();
    let before = world.snapshot();
    // As one that was killed leaves it; no process has such a number.
    world.sh("ip netns add tv-doctor-fwd-4194305").assert_ok();
    let ran = world.tapvisor(&["doctor", "-o", "json"]);
    assert_eq!(ran.code(), Some(0), "{}", ran.account());
    let document = ran.json();
    let checks: Vec<_> =
        document["items"].as_array().unwrap().iter().map(|item| item["check"].as_str().unwrap()).collect();
    let expected = [
        "user",
        "/dev/net/tun",
        "engine",
        "launcher",
        "vhost-net",
        "CNI plugins",
        "nft fwd in netdev",
        "VLAN",
        "VM users",
        "VM isolation",
        "VM confinement",
        "IPv6",
        "IPv4 forwarding",
        "IPv6 forwarding",
        "firewall",
        "default network",
        "Services",
        "name servers",
    ];
    assert_eq!(checks, expected);
    for item in document["items"].as_array().unwrap() {
        let is_fine = item["severity"] == "ok";
        assert_eq!(item["remedy"].is_null() && item["consequence"].is_null(), is_fine, "{item}");
    }
    let text = world.tapvisor(&["doctor"]).text();
    assert!(checks.iter().all(|check| text.contains(&format!("  {check}: "))), "{text}");
    before.assert_same(&world.snapshot());
    assert_eq!(world.ns_names(), ["outside"]);
}

/// A thing taken away in front of the command, and how grave that is.
fn missing() {
    const FORWARDING: &str = "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys;";
    let no_plugin =
        format!("export CNI_PATH=/nowhere; mount --bind /dev/null {};", dist_file("tapvisor-bridge").display());
    let cases = [
        ("mount -t tmpfs tmpfs /dev/net;", "/dev/net/tun", "error", "cannot be opened"),
        ("export PATH=/nowhere;", "engine", "error", "qemu-system-x86_64: not installed"),
        (&no_plugin, "CNI plugins", "error", "missing: tapvisor-bridge"),
        (FORWARDING, "IPv4 forwarding", "error", "cannot be written"),
        (FORWARDING, "IPv6 forwarding", "error", "cannot be written"),
        ("setpriv --reuid 65534 --clear-groups", "user", "error", "not root"),
        ("sysctl -qw net.ipv6.conf.all.disable_ipv6=1;", "IPv6", "warning", "switched off"),
        ("echo alice:x:1900000005:100::/:/bin/sh >>/etc/passwd;", "VM users", "warning", "alice in /etc/passwd"),
        ("echo staff:x:1900000005: >>/etc/group;", "VM users", "warning", "staff in /etc/group"),
        ("echo alice:1899934465:65536 >>/etc/subuid;", "VM users", "warning", "alice in /etc/subuid"),
        ("echo alice:1900000000:1 >>/etc/subgid;", "VM users", "warning", "alice in /etc/subgid"),
        ("mkdir -p /etc/tapvisor; echo 1-9 >/etc/tapvisor/uids;", "VM users", "error", "\"1-9\" is invalid, expected"),
        ("unshare --user --map-root-user", "VM users", "error", "is not in this user namespace"),
        ("ip route add 172.16.0.0/12 via 192.0.2.1;", "default network", "warning", "172.16.0.0/12"),
        ("ip route add 172.30.78.0/25 via 192.0.2.1;", "Services", "warning", "172.30.78.0/25"),
        ("echo nameserver 127.0.0.53 >/etc/resolv.conf;", "name servers", "warning", "neither /etc/resolv.conf"),
    ];
    for (script, check, severity, words) in cases {
        let world = World::new();
        let (ran, found) = doctor(&world, script, check);
        assert_eq!(found["severity"], severity, "{script}: {found}");
        assert!(found["found"].as_str().unwrap().contains(words), "{script}: {found}");
        assert!(found["consequence"].is_string() && found["remedy"].is_string(), "{found}");
        assert_eq!(ran.code(), Some(if severity == "error" { 6 } else { 0 }), "{script}: {}", ran.account());
    }
    let (_, found) = doctor(&World::new(), "setpriv --reuid 65534 --clear-groups", "firewall");
    assert!(found["severity"] == "warning" && found["found"].as_str().unwrap().contains("without root"), "{found}");
    if std::path::Path::new("/dev/kvm").exists() {
        let (_, found) = doctor(&World::new(), "mount --bind /dev/null /dev/kvm;", "engine");
        assert!(found["found"].as_str().unwrap().contains("cannot run Linux"), "{found}");
    }
}

/// What ufw of Debian 12 loads at its start into the chains that forwarded packets pass, and of the others what accepts: rules
/// of its own that take everything, in chains where no such packet arrives. `6` is replaced for its IPv6 half.
const UFW: &str = "
    for tool in iptables ip6tables; do
        v=${tool#ip}; v=${v%tables}
        for kind in before-logging before after after-logging reject track skip-to-policy user user-logging; do
            for way in input output forward; do $tool -N ufw$v-$kind-$way; done
        done
        for chain in logging-deny logging-allow not-local user-limit user-limit-accept; do $tool -N ufw$v-$chain; done
        for kind in before-logging before after after-logging reject track; do
            for way in INPUT OUTPUT FORWARD; do $tool -A $way -j ufw$v-$kind-$(echo $way | tr A-Z a-z); done
        done
        $tool -A ufw$v-skip-to-policy-input -j DROP
        $tool -A ufw$v-skip-to-policy-output -j ACCEPT
        $tool -A ufw$v-skip-to-policy-forward -j DROP
        $tool -A ufw$v-before-input -i lo -j ACCEPT
        $tool -A ufw$v-before-output -o lo -j ACCEPT
        $tool -A ufw$v-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
        $tool -A ufw$v-before-forward -j ufw$v-user-forward
        $tool -A ufw$v-user-limit -j REJECT
        $tool -A ufw$v-user-limit-accept -j ACCEPT
        $tool -P INPUT DROP; $tool -P FORWARD DROP
    done
    iptables -A ufw-before-forward -p icmp --icmp-type echo-request -j ACCEPT
    ip6tables -A ufw6-before-forward -p icmpv6 --icmpv6-type echo-request -j ACCEPT;";

/// What `ufw route allow` adds for a network.
const UFW_ROUTES: &str = "
    iptables -A ufw-user-forward -s 172.30.77.0/24 -j ACCEPT; iptables -A ufw-user-forward -d 172.30.77.0/24 -j ACCEPT
    ip6tables -A ufw6-user-forward -s fd77:7461:7076::/64 -j ACCEPT
    ip6tables -A ufw6-user-forward -d fd77:7461:7076::/64 -j ACCEPT;";

fn ufw() {
    let world = World::new();
    let found = |script: &str| doctor(&world, script, "firewall").1;
    let shut = found(UFW);
    assert_eq!(shut["severity"], "warning", "{shut}");
    for chain in ["ip filter FORWARD (ufw)", "ip6 filter FORWARD (ufw)"] {
        assert!(shut["found"].as_str().unwrap().contains(chain), "{shut}");
    }
    let open = found(UFW_ROUTES);
    assert_eq!(open["severity"], "ok", "{open}");
}

fn firewalls() {
    let world = World::new();
    let found = |script: &str| doctor(&world, script, "firewall").1;
    assert_eq!(found("")["severity"], "ok");
    // Not every firewall waits for the hook that is called so.
    let early = found("iptables -t raw -A PREROUTING -s 172.30.77.0/24 -j DROP;");
    assert!(early["found"].as_str().unwrap().contains("ip raw PREROUTING"), "{early}");
    world.sh("nft delete table ip raw").assert_ok();
    let docker = found("iptables -P FORWARD DROP; iptables -N DOCKER-USER;");
    assert_eq!(docker["severity"], "warning");
    assert!(docker["found"].as_str().unwrap().contains("ip filter FORWARD (Docker)"), "{docker}");
    let strict = world.tapvisor(&["doctor", "--strict"]);
    assert_eq!(strict.code(), Some(1), "{}", strict.account());
    let let_through =
        "iptables -I FORWARD -s 172.30.77.0/24 -j ACCEPT; iptables -I FORWARD -d 172.30.77.0/24 -j ACCEPT;";
    assert_eq!(found(let_through)["severity"], "ok");
    let own =
        found("echo 'table inet mine { chain f { type filter hook forward priority 0; policy drop; }; }' | nft -f -;");
    assert!(own["found"].as_str().unwrap().contains("inet mine f"), "{own}");
    let by_rule = found("nft delete table inet mine; iptables -P FORWARD ACCEPT; iptables -A FORWARD -j REJECT;");
    assert_eq!(by_rule["severity"], "ok", "the rules before let VMs through: {by_rule}");
    let by_rule = found("iptables -F FORWARD; iptables -A FORWARD -j REJECT;");
    assert!(by_rule["found"].as_str().unwrap().contains("of ip filter FORWARD"), "{by_rule}");
}

/// Below a folder that is no mount point, as in a chroot, no process is given another root.
fn walls() {
    const CHROOT: &str = "root=/run/c/root; mkdir -p $root; for path in /*; do
        if [ -L $path ]; then cp -a $path $root/; elif [ -d $path ]; then mkdir $root$path; mount --rbind $path $root$path; fi
        done; chroot $root";
    let world = World::new();
    let (_, whole) = doctor(&world, "", "VM isolation");
    assert_eq!(whole["severity"], "ok", "{whole}");
    let (ran, found) = doctor(&world, CHROOT, "VM isolation");
    assert_eq!((ran.code(), &found["severity"]), (Some(0), &"warning".into()), "{found}");
    let words = found["found"].as_str().unwrap();
    assert!(words.contains("no mount namespace") && words.contains(": EINVAL"), "{found}");
    assert!(!words.contains("PID namespace"), "{found}");
    assert_eq!(world.sh("ls /run | grep doctor || true").text(), "");
}

fn vlans() {
    let world = World::new();
    let can = world.sh("ip link add link uplink0 name tagged type vlan id 7 && ip link del tagged").is_ok();
    let (_, found) = doctor(&world, "", "VLAN");
    assert_eq!(found["severity"] == "ok", can, "{found}");
}
