//! Both bindings on the reference plugins' networks: one and two families, three MTUs, one queue and two.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Guest, Outside, trial};

use crate::manifest::Vm;
use crate::vm::Host;

const V4: &str = "10.244.7.0/24";
const V6: &str = "fd00:10:244:7::/64";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("both bindings on ptp with two families", || both("ptp", &["-4", "-6"], 1500)),
        trial("both bindings on ptp with IPv4 alone", || both("ptp", &["-4"], 1500)),
        trial("both bindings on ptp with IPv6 alone", || both("ptp", &["-6"], 1500)),
        // spec: NIC-3
        trial("both bindings on bridge with two families and MTU 9000", || both("bridge", &["-4", "-6"], 9000)),
        trial("both bindings on bridge with IPv4 alone", || both("bridge", &["-4"], 1500)),
        // spec: NIC-3
        trial("both bindings on bridge with IPv6 alone and MTU 1280", || both("bridge", &["-6"], 1280)),
        trial("both bindings on macvlan with two families", macvlan),
        // spec: NIC-3
        trial("both bindings with two queues", two_queues),
        // spec: NIC-3
        trial("streams of both families pass both bindings intact with offloads", streams),
    ]
}

fn both(plugin: &str, families: &[&str], mtu: u32) {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade"), Vm::new("db", "bridge")], Some(&network(plugin, families, mtu)))
        .assert_ok();
    let (web, db) = (host.guest("web"), host.guest("db"));
    for family in families {
        assert_leases(&web, &db, family);
        for guest in [&web, &db] {
            host.assert_reached(guest, family);
        }
    }
    for guest in [&web, &db] {
        assert_eq!(guest.ok("cat /sys/class/net/eth0/mtu").trim(), mtu.to_string(), "MTU of {}", guest.name());
        let missing = if families.contains(&"-4") { "lease6" } else { "lease4" };
        if families.len() == 1 && guest.name() == "db" {
            assert_eq!(guest.told(&format!("{missing} eth0")), Vec::<String>::new());
        }
        let log =
            host.world.run(&["cat", &format!("/run/tapvisor/vms/default.{}/supervisor.log", guest.name())]).text();
        assert!(
            !log.contains(" WARN ") && !log.contains(" ERROR "),
            "nothing is wrong, and the log says otherwise:\n{log}"
        );
    }
    host.assert_removed(&["web", "db"]);
}

fn assert_leases(web: &Guest<'_>, db: &Guest<'_>, family: &str) {
    if family == "-4" {
        assert_eq!(web.lease4("eth0").address, "10.0.2.2/24");
        assert_eq!(web.lease4("eth0").via, "10.0.2.1");
        assert_eq!(db.lease4("eth0").ip(), db.pod_address("-4"));
        assert_ne!(db.lease4("eth0").via, "-");
    } else {
        assert_eq!(web.lease6("eth0").ip(), "fd10:0:2::2");
        assert_eq!(web.lease6("eth0").via, "fe80::ff:fe00:0");
        assert_eq!(db.lease6("eth0").ip(), db.pod_address("-6"));
        assert_ne!(db.lease6("eth0").via, "-");
    }
}

pub(crate) fn network(plugin: &str, families: &[&str], mtu: u32) -> String {
    let mut main = json!({"type": plugin, "mtu": mtu, "ipMasq": true, "ipam": ipam(families, V4, V6)});
    if plugin == "bridge" {
        main["bridge"] = "br-test".into();
        main["isGateway"] = true.into();
    }
    list(&main)
}

fn ipam(families: &[&str], v4: &str, v6: &str) -> Value {
    let of = |family: &str| if family == "-4" { (v4, "0.0.0.0/0") } else { (v6, "::/0") };
    let ranges: Vec<_> = families.iter().map(|family| json!([{"subnet": of(family).0}])).collect();
    let routes: Vec<_> = families.iter().map(|family| json!({"dst": of(family).1})).collect();
    json!({"type": "host-local", "dataDir": "/run/test-ipam", "ranges": ranges, "routes": routes})
}

fn list(main: &Value) -> String {
    json!({"cniVersion": "1.0.0", "name": "test", "plugins": [main]}).to_string()
}

/// A macvlan on the uplink, with addresses of the uplink's own networks.
pub(crate) fn on_uplink() -> String {
    let ranges =
        [("192.0.2.0/24", "192.0.2.100", "192.0.2.1"), ("2001:db8:1::/64", "2001:db8:1::100", "2001:db8:1::1")];
    let ranges: Vec<_> = ranges
        .iter()
        .map(|(subnet, start, gateway)| json!([{"subnet": subnet, "rangeStart": start, "gateway": gateway}]))
        .collect();
    let ipam = json!({"type": "host-local", "dataDir": "/run/test-ipam", "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
    list(&json!({"type": "macvlan", "master": Outside::UPLINK, "ipam": ipam}))
}

/// A macvlan NIC cannot talk to the host it sits on, by the kernel's design: asked from the outside.
fn macvlan() {
    let host = Host::new();
    let network = on_uplink();
    host.run(&[Vm::new("web", "masquerade"), Vm::new("db", "bridge")], Some(&network)).assert_ok();
    let (web, db) = (host.guest("web"), host.guest("db"));
    for family in ["-4", "-6"] {
        assert_leases(&web, &db, family);
        for guest in [&web, &db] {
            let url = crate::vm::url(&guest.pod_address(family));
            let outside = host.world.named("outside");
            let page = outside.run(&["timeout", "60", "busybox", "wget", "-qO-", &url]).text();
            assert!(page.starts_with(&format!("guest {}\n", guest.name())), "{page}");
            let at = if family == "-4" { Outside::V4 } else { Outside::V6 };
            let page = guest.ok(&format!("timeout 60 wget -qO- {}", crate::vm::url(at)));
            assert!(page.contains(&format!("outside sees {}", guest.pod_address(family))), "{page}");
        }
    }
    host.assert_removed(&["web", "db"]);
}

fn two_queues() {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade").two_queues(), Vm::new("db", "bridge").two_queues()], None).assert_ok();
    for guest in [host.guest("web"), host.guest("db")] {
        assert_eq!(guest.ok("ls -d /sys/class/net/eth0/queues/rx-* | wc -l").trim(), "2");
        let _ = (guest.lease4("eth0"), guest.lease6("eth0"));
        // Different flows, so that both queues carry some.
        for _ in 0..4 {
            host.assert_reached(&guest, "-4");
            host.assert_reached(&guest, "-6");
        }
    }
    host.assert_removed(&["web", "db"]);
}

const STREAM_BYTES: usize = 8_000_000;

fn streams() {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade"), Vm::new("db", "bridge")], None).assert_ok();
    for guest in [host.guest("web"), host.guest("db")] {
        let _ = (guest.lease4("eth0"), guest.lease6("eth0"));
        let _ = guest.ok(&format!("yes tapvisor | head -c {STREAM_BYTES} >/www/stream"));
        for family in ["-4", "-6"] {
            let url = format!("{}stream", crate::vm::url(&guest.pod_address(family)));
            let got = host.world.run(&["timeout", "60", "busybox", "wget", "-qO-", &url]).text();
            assert!(is_intact(got.as_bytes()), "{} bytes from {}", got.len(), guest.name());
            assert!(is_intact(&sent_by(&host, &guest, family)), "from {} to the outside", guest.name());
        }
    }
    host.assert_removed(&["web", "db"]);
}

fn is_intact(bytes: &[u8]) -> bool {
    bytes.len() == STREAM_BYTES && bytes.iter().zip(b"tapvisor\n".iter().cycle()).all(|(got, sent)| got == sent)
}

/// What arrives outside of the stream the guest sends there.
fn sent_by(host: &Host, guest: &Guest<'_>, family: &str) -> Vec<u8> {
    let at: SocketAddr = if family == "-4" { ([0; 4], 5001).into() } else { ([0_u16; 8], 5001).into() };
    let listener = host.world.named("outside").enter(|| TcpListener::bind(at).unwrap());
    let outside = if family == "-4" { Outside::V4 } else { Outside::V6 };
    guest.type_line(&format!("nc {outside} 5001 </www/stream"));
    listener.set_nonblocking(true).unwrap();
    let accepted = || listener.accept().ok();
    let ((mut stream, _), _) = tests::wait_for("the guest's stream", Duration::from_secs(60), accepted);
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}
