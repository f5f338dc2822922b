//! `tapvisor explain` with real guests: every fault made by hand, named, mended, and gone again.

mod asking;
mod elsewhere;
mod watch;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Guest, KERNEL_ARGUMENTS, Outside, trial};

pub(crate) use self::asking::assert_healthy;
use self::asking::{Place, assert_named, errors, explain, fault, wait_error};
use self::watch::watch;
use crate::manifest::Vm;
use crate::vm::Host;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: EXPL-1, EXPL-2, EXPL-8, EXPL-9
        trial("explain finds no fault in either binding, and each made on masquerade", masquerade),
        // spec: EXPL-2
        trial("explain names each fault on a bridge-bound VM's way", bridge),
        // spec: EXPL-5, EXPL-6
        trial("explain names rules, routes, firewalls, neighbours outside the wiring", elsewhere::outside_the_wiring),
        // spec: EXPL-6
        trial("explain names a VM's cable in another bridge than its network's", elsewhere::wrong_bridge),
        // spec: EXPL-7
        trial("explain names a guest that never asks and one that is never answered", leases),
        // spec: EXPL-1
        trial("explain tells a VM's NICs apart and names the one that is down", two_nics),
        // spec: EXPL-1
        trial("explain finds no fault in VMs on a macvlan, then a tap that is down", macvlan),
        // spec: NIC-6
        trial("an interface with state down has no carrier and explain says why", unplugged),
        // spec: EXPL-10
        trial("explain --watch tells what breaks and what is mended", watch),
    ]
}

/// What Docker leaves of the host's forwarding, and the end of it.
const DROP: &str = "iptables -P FORWARD DROP; iptables -N DOCKER-USER";
const ACCEPT: &str = "nft delete table ip filter";

/// A masquerade VM that declares the port of its web server, and a bridge-bound one.
fn run_two(host: &Host) {
    let web = Vm::new("web", "masquerade").set("/domain/devices/interfaces/0", "ports", json!([{"port": 80}]));
    host.run(&[web, Vm::new("db", "bridge")], None).assert_ok();
}

fn wait_leases(guest: &Guest<'_>) {
    let _ = (guest.lease4("eth0"), guest.lease6("eth0"));
}

fn masquerade() {
    let host = Host::new();
    run_two(&host);
    let (web, db) = (host.guest("web"), host.guest("db"));
    wait_leases(&web);
    wait_leases(&db);
    assert_healthy(&host, "web");
    assert_healthy(&host, "db");
    let picture = host.world.tapvisor(&["explain", "web"]).text();
    for word in ["host", "eth0", "k6t-eth0", "svc-eth0", "guest", "10.0.2.2 leased", "Nothing is wrong."] {
        assert!(picture.contains(word), "{word}:\n{picture}");
    }
    assert_counted(&host, &web);
    let faults = [
        fault(
            "tapDown",
            "k6t-eth0",
            "POD ip link set k6t-eth0 down",
            "POD ip link set k6t-eth0 up; POD ip -6 addr add fd10:0:2::1/120 dev k6t-eth0 nodad || true; POD ip -6 addr add fe80::ff:fe00:0/64 dev k6t-eth0 nodad || true; POD ip -6 route add local ::1 dev k6t-eth0 table local metric 2050 || true",
        ),
        fault("tapDown", "svc-eth0", "POD ip link set svc-eth0 down", "POD ip link set svc-eth0 up"),
        fault(
            "markMissing",
            "k6t-eth0",
            "POD ip -j link show k6t-eth0 | jq -r '.[0].ifalias' >/run/mark; POD ip link set k6t-eth0 alias ''",
            "POD ip link set k6t-eth0 alias \"$(cat /run/mark)\"",
        ),
        fault(
            "ruleGone",
            "rules",
            "POD nft delete rule netdev tapvisor svc-eth0 handle $(POD nft -a list chain netdev tapvisor svc-eth0 | sed -n 's/.*to k6t-eth0.*handle //p')",
            "POD nft add rule netdev tapvisor svc-eth0 counter fwd to k6t-eth0",
        ),
        fault("wrongMtu", "k6t-eth0", "POD ip link set k6t-eth0 mtu 1400", "POD ip link set k6t-eth0 mtu 1500"),
        fault("wrongMtu", "END", "ip link set END mtu 1400", "ip link set END mtu 1500"),
        fault(
            "noRoute",
            "eth0",
            "POD ip route show default >/run/default; POD ip route del default",
            "POD ip route add $(cat /run/default)",
        ),
        fault(
            "noRoute",
            "host",
            "ip route show ADDRESS >/run/way; ip route del ADDRESS",
            "ip route add $(cat /run/way)",
        ),
        fault(
            "rpFilter",
            "eth0",
            "POD ip route show default >/run/default; POD ip route replace default via 10.0.2.2 dev k6t-eth0; POD sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
            "POD ip route replace $(cat /run/default); POD sysctl -qw net.ipv4.conf.eth0.rp_filter=0",
        ),
        fault("forwardDrop", "host", DROP, ACCEPT),
        fault(
            "forwardDrop",
            "host",
            "echo 'table inet mine { chain f { type filter hook forward priority 0; policy drop; }; }' | nft -f -",
            "nft delete table inet mine",
        ),
        fault("forwardingOff", "host", "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1"),
        fault("forwardingOff", "rules", "POD sysctl -qw net.ipv4.ip_forward=0", "POD sysctl -qw net.ipv4.ip_forward=1"),
        fault(
            "linkDown",
            "END",
            "ip route show dev END >/run/ways; ip -6 route show dev END | grep -v fe80 >/run/ways6; ip -6 addr show dev END scope global | sed -n 's/.*inet6 \\([^ ]*\\).*/\\1/p' >/run/held6; ip link set END down",
            "ip link set END up; for a in $(cat /run/held6); do ip -6 addr replace $a dev END nodad; done; while read -r way; do ip route replace $way dev END; done </run/ways; for again in 1 2; do while read -r way; do ip -6 route replace $way dev END || true; done </run/ways6; done",
        ),
    ];
    assert_named(&host, &web, &faults);
    assert_firewall_exception(&host, &web);
    assert_ports(&host, &web);
    assert_neighbour(&host, &web, "k6t-eth0", "POD ip neigh flush dev k6t-eth0");
    host.world.tapvisor(&["stop", "--force", "web"]).assert_ok();
    let (ran, item) = explain(&host, &["web"]);
    assert_eq!((ran.code(), errors(&item)), (Some(1), vec![("notRunning".to_owned(), "guest".to_owned())]));
    host.assert_removed(&["web", "db"]);
}

/// The counters are those of the kernel.
fn assert_counted(host: &Host, guest: &Guest<'_>) {
    host.assert_reached(guest, "-4");
    let (_, item) = explain(host, &["--passive", guest.name()]);
    let hops = item["nics"][0]["hops"].as_array().unwrap();
    let tap = hops.iter().find(|hop| hop["kind"] == "tap").unwrap();
    let told = guest.pod().run(&["ip", "-j", "-s", "link", "show", "k6t-eth0"]).json();
    let sent = told[0]["stats64"]["tx"]["packets"].as_u64().unwrap();
    let seen = tap["traffic"]["toGuestPackets"].as_u64().unwrap();
    assert!(seen > 0 && seen <= sent, "{seen} of {sent}");
    let rules = hops.iter().find(|hop| hop["kind"] == "rules").unwrap();
    let inbound = rules["counters"].as_array().unwrap().iter().find(|one| one["name"] == "connections in").unwrap();
    assert!(inbound["count"].as_u64().unwrap() > 0, "{rules}");
}

/// A firewall that has a rule for the VM does not stand in its way, be it by address or by what the remedy says.
fn assert_firewall_exception(host: &Host, guest: &Guest<'_>) {
    let place = Place::of(host, guest);
    for (one, other) in [("-s 172.30.77.0/24", "-d 172.30.77.0/24"), ("-i END", "-o END")] {
        let rules = format!("{DROP}; iptables -I FORWARD {one} -j ACCEPT; iptables -I FORWARD {other} -j ACCEPT");
        host.world.sh(&place.script(&rules)).assert_ok();
        assert_healthy(host, guest.name());
        host.world.sh(ACCEPT).assert_ok();
    }
}

/// A declared port without a listener, and one that is not declared.
fn assert_ports(host: &Host, guest: &Guest<'_>) {
    let _ = guest.ok("killall httpd");
    let (_, item) = wait_error(host, &[guest.name()], ("guestRefuses", "guest"));
    assert_eq!(errors(&item).len(), 1, "{item:#}");
    let _ = guest.ok("httpd -p '[::]:80' -h /www");
    assert_healthy(host, guest.name());
    let (ran, item) = explain(host, &["--port", "8080", guest.name()]);
    assert_eq!(ran.code(), Some(1));
    assert!(errors(&item).contains(&("portNotDeclared".to_owned(), "rules".to_owned())), "{item:#}");
    // The question itself was counted.
    let (ran, item) = explain(host, &[guest.name()]);
    assert_eq!((ran.code(), errors(&item)), (Some(0), vec![]));
    assert!(item["findings"].as_array().unwrap().iter().any(|one| one["code"] == "portNotDeclared"), "{item:#}");
}

/// A guest whose NIC is down answers for no address.
fn assert_neighbour(host: &Host, guest: &Guest<'_>, hop: &str, flush: &str) {
    let place = Place::of(host, guest);
    let addresses = guest.ok("ip -6 addr show dev eth0 scope global | sed -n 's/.*inet6 \\([^ ]*\\).*/\\1/p'");
    let _ = guest.ok("ip link set eth0 down");
    host.world.sh(&place.script(flush)).assert_ok();
    let _ = wait_error(host, &[guest.name()], ("neighbourUnresolved", &place.script(hop)));
    let back: String = addresses.split_whitespace().map(|a| format!("; ip -6 addr replace {a} dev eth0")).collect();
    let _ = guest.ok(&format!("ip link set eth0 up{back}"));
}

fn bridge() {
    let host = Host::new();
    host.run(&[Vm::new("db", "bridge")], None).assert_ok();
    let db = host.guest("db");
    wait_leases(&db);
    assert_healthy(&host, "db");
    let faults = [
        fault("tapDown", "tap0", "POD ip link set tap0 down", "POD ip link set tap0 up"),
        fault(
            "linkDown",
            "eth0",
            "POD ip route >/run/ways; POD ip -6 route show | grep -v fe80 >/run/ways6; POD ip -6 addr show dev eth0 scope global | sed -n 's/.*inet6 \\([^ ]*\\).*/\\1/p' >/run/held6; POD ip link set eth0 down",
            "POD ip link set eth0 up; for a in $(cat /run/held6); do POD ip -6 addr replace $a dev eth0 nodad; done; for again in 1 2; do while read -r way; do POD ip route replace $way || true; done </run/ways; while read -r way; do POD ip -6 route replace $way || true; done </run/ways6; done",
        ),
        fault(
            "markMissing",
            "tap0",
            "POD ip -j link show tap0 | jq -r '.[0].ifalias' >/run/mark; POD ip link set tap0 alias ''",
            "POD ip link set tap0 alias \"$(cat /run/mark)\"",
        ),
        fault(
            "ruleGone",
            "rules",
            "POD nft delete rule netdev tapvisor svc-eth0 handle $(POD nft -a list chain netdev tapvisor svc-eth0 | sed -n 's/.*to tap0.*handle //p')",
            "POD nft add rule netdev tapvisor svc-eth0 counter fwd to tap0",
        ),
        fault("wrongMtu", "END", "ip link set END mtu 1400", "ip link set END mtu 1500"),
        fault(
            "noRoute",
            "host",
            "ip route show ADDRESS >/run/way; ip route del ADDRESS",
            "ip route add $(cat /run/way)",
        ),
        fault(
            "rpFilter",
            "END",
            "ip route show ADDRESS >/run/way; ip route replace ADDRESS via 192.0.2.1; sysctl -qw net.ipv4.conf.END.rp_filter=1",
            "ip route replace $(cat /run/way); sysctl -qw net.ipv4.conf.END.rp_filter=0",
        ),
        fault(
            "forwardDrop",
            "host",
            "iptables -P FORWARD DROP; iptables -N ufw-user-limit-accept; iptables -A ufw-user-limit-accept -j ACCEPT",
            ACCEPT,
        ),
        fault(
            "forwardingOff",
            "host",
            "sysctl -qw net.ipv6.conf.all.forwarding=0",
            "sysctl -qw net.ipv6.conf.all.forwarding=1",
        ),
    ];
    assert_named(&host, &db, &faults);
    let _ = db.ok("killall httpd");
    let _ = wait_error(&host, &["-p", "80", "db"], ("guestRefuses", "guest"));
    assert_neighbour(&host, &db, "END", "ip neigh flush dev END");
    host.remove(&["--force", "db"]).assert_ok();
    host.assert_nothing_left();
}

/// Guests that do not ask by themselves.
fn leases() {
    let host = Host::new();
    let arguments = json!(format!("{KERNEL_ARGUMENTS} guest.dhcp=none"));
    let quiet =
        |name, binding| Vm::new(name, binding).set("/domain/firmware/kernelBoot", "kernelArgs", arguments.clone());
    host.run(&[quiet("web", "masquerade"), quiet("db", "bridge")], None).assert_ok();
    for guest in [host.guest("web"), host.guest("db")] {
        let _ = guest.wait_told("ready", 1);
        // Until then it may still boot.
        let _ = wait_error(&host, &[guest.name()], ("dhcpNeverAsked", "guest"));
        // The launcher's answers find no way to the guest.
        let place = Place::of(&host, &guest);
        let tap = if guest.name() == "web" { "k6t-eth0" } else { "tap0" };
        let rule = format!("$(POD nft -a list chain netdev tapvisor svc-eth0 | sed -n 's/.*to {tap}.*handle //p')");
        let delete = format!("POD nft delete rule netdev tapvisor svc-eth0 handle {rule}");
        host.world.sh(&place.script(&delete)).assert_ok();
        let _ = guest.sh("udhcpc -n -q -i eth0 -s /bin/lease4 -T 1 -t 2");
        let (_, item) = explain(&host, &[guest.name()]);
        assert!(errors(&item).contains(&("dhcpNeverAnswered".to_owned(), "svc-eth0".to_owned())), "{item:#}");
        host.world
            .sh(&place.script(&format!("POD nft add rule netdev tapvisor svc-eth0 counter fwd to {tap}")))
            .assert_ok();
        let _ = guest.ok("udhcpc -n -q -i eth0 -s /bin/lease4 -T 2 -t 20");
        assert_healthy(&host, guest.name());
    }
    host.remove(&["--force", "web", "db"]).assert_ok();
    host.assert_nothing_left();
}

fn two_nics() {
    let host = Host::new();
    let manifest = std::fs::read_to_string(tests::workspace().join("examples/two-nics.yaml")).unwrap();
    host.world.write("/run/vms.yaml", manifest);
    host.world.tapvisor(&["run", "--detach", "-f", "/run/vms.yaml"]).assert_ok();
    let left = host.guest("left");
    wait_leases(&left);
    assert_healthy(&host, "left");
    let (_, item) = explain(&host, &["left"]);
    let nics = item["nics"].as_array().unwrap();
    let words = |nic: &Value, key: &str| nic[key].as_str().unwrap().to_owned();
    let told: Vec<_> = nics.iter().map(|nic| (words(nic, "name"), words(nic, "binding"))).collect();
    assert_eq!(told, [("default", "masquerade"), ("blue", "bridge")].map(|(n, b)| (n.to_owned(), b.to_owned())));
    let second = words(&nics[1], "podInterface");
    left.pod().run(&["ip", "link", "set", &second, "down"]).assert_ok();
    let (ran, item) = explain(&host, &["left"]);
    assert_eq!((ran.code(), errors(&item)[0].clone()), (Some(1), ("linkDown".to_owned(), second)), "{item:#}");
    let down = item["findings"].as_array().unwrap().iter().find(|one| one["code"] == "linkDown").unwrap();
    assert_eq!(down["nic"], "blue");
    host.remove(&["--force", "left", "right"]).assert_ok();
}

fn unplugged() {
    let host = Host::new();
    let down = Vm::new("web", "masquerade").set("/domain/devices/interfaces/0", "state", json!("down"));
    host.run(&[down], None).assert_ok();
    let web = host.guest("web");
    let _ = web.wait_told("ready", 1);
    assert_eq!(web.ok("cat /sys/class/net/eth0/carrier").trim(), "0");
    let (ran, item) = explain(&host, &["web"]);
    assert_eq!((ran.code(), errors(&item)), (Some(0), vec![]), "{item:#}");
    assert!(item["findings"].as_array().unwrap().iter().any(|one| one["code"] == "unplugged"), "{item:#}");
    host.remove(&["--force", "web"]).assert_ok();
    host.assert_nothing_left();
}

fn macvlan() {
    let host = Host::new();
    let vms = [Vm::new("web", "masquerade"), Vm::new("db", "bridge")];
    host.run(&vms, Some(&crate::networks::on_uplink())).assert_ok();
    for (name, tap) in [("web", "k6t-eth0"), ("db", "tap0")] {
        let guest = host.guest(name);
        wait_leases(&guest);
        assert_healthy(&host, name);
        let (_, item) = explain(&host, &[name]);
        assert_eq!(item["nics"][0]["hops"][1]["name"], Outside::UPLINK, "{item:#}");
        guest.pod().run(&["ip", "link", "set", tap, "down"]).assert_ok();
        let _ = wait_error(&host, &[name], ("tapDown", tap));
    }
    host.remove(&["--force", "web", "db"]).assert_ok();
    host.assert_nothing_left();
}
