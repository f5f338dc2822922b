//! A hostile guest: what it forges stays in its own pod.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use libtest_mimic::Trial;
use tests::{Outside, trial, wait_for};

use crate::manifest::Vm;
use crate::vm::Host;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-GUARD-1
        trial("frames a real masquerade guest forges never leave its pod", masquerade),
        trial("a masquerade guest with a changed MAC still cannot spoof others", changed_mac),
    ]
}

/// A tcpdump in the world that shows what must not be seen.
struct Watch {
    child: Child,
    shown: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Watch {
    fn start(host: &Host, filter: &str) -> Self {
        let filter = format!("({filter}) or udp dst port {LAST_PORT}");
        let mut command = host.world.command_without_limit("tcpdump");
        command.args(["-nei", "any", "-l", "--immediate-mode", &filter]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let listens = BufReader::new(&mut stderr).lines().any(|line| line.unwrap().contains("listening on any"));
        assert!(listens, "tcpdump does not listen");
        child.stderr = Some(stderr);
        let shown = Arc::<Mutex<String>>::default();
        let (stdout, on_screen) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(&shown));
        let reader = std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| *on_screen.lock().unwrap() += &(line + "\n"));
        });
        Self { child, shown, reader }
    }

    /// What was there until now: a datagram of the host's is the last that is waited for.
    fn seen(mut self, host: &Host) -> String {
        host.world.sh(&format!("echo last >/dev/udp/{}/{LAST_PORT}", Outside::V4)).assert_ok();
        let last = format!(".{LAST_PORT}: ");
        let shown = || self.shown.lock().unwrap().clone();
        wait_for("tcpdump to show the last datagram", Duration::from_secs(60), || {
            shown().contains(&last).then_some(())
        });
        host.world.sh("pkill -INT -x tcpdump").assert_ok();
        let _ = self.child.wait();
        self.reader.join().unwrap();
        let text = self.shown.lock().unwrap();
        text.lines().filter(|line| !line.contains(&last)).map(|line| format!("{line}\n")).collect()
    }
}

/// A port that no guest sends to.
const LAST_PORT: u16 = 4444;

fn masquerade() {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade")], None).assert_ok();
    let web = host.guest("web");
    let _ = (web.lease4("eth0"), web.lease6("eth0"));
    let pod = web.pod();
    let listener = pod.enter(|| std::net::TcpListener::bind("127.0.0.1:8099").unwrap());
    listener.set_nonblocking(true).unwrap();

    let forged = "src net 10.0.2.0/24 or src 203.0.113.9 or src 2001:db8:bad::9 or src net fd10:0:2::/120 \
         or udp src port 67 or udp src port 547 or (icmp6 and ip6[40] == 134 and ether src not 02:00:00:00:00:00)";
    let forged = forged.replace(" and ether src not 02:00:00:00:00:00", "");
    let watch = Watch::start(&host, &format!("({forged}) and not net 192.0.2.0/24 and not src net fe80::/10"));
    let attacks = [
        "ip addr add 203.0.113.9/32 dev eth0; ping -c 2 -W 1 -I 203.0.113.9 198.51.100.7",
        "ip addr add 10.0.2.50/24 dev eth0; ping -c 2 -W 1 -I 10.0.2.50 198.51.100.7",
        "ip addr add 2001:db8:bad::9/128 dev eth0; ping -6 -c 2 -W 1 -I 2001:db8:bad::9 2001:db8:2::7",
        "ip addr add fd10:0:2::50/120 dev eth0; ping -6 -c 2 -W 1 -I fd10:0:2::50 2001:db8:2::7",
        "printf 'start 10.244.0.10\\nend 10.244.0.20\\ninterface eth0\\nlease_file /tmp/l\\n' >/tmp/c; touch /tmp/l; udhcpd -f /tmp/c & sleep 2; kill $!",
        "echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet; ip addr del 127.0.0.1/8 dev lo; ip route del local 127.0.0.1 table local; ip route add 127.0.0.1 via 10.0.2.1; nc -w 2 127.0.0.1 8099 </dev/null",
    ];
    for attack in attacks {
        let _ = web.sh(attack);
    }
    let seen = watch.seen(&host);
    assert!(seen.trim().is_empty(), "left the pod:\n{seen}");
    assert!(listener.accept().is_err(), "the guest reached the pod's loopback");
    // It is still served what is its own.
    host.assert_reached(&web, "-4");
    host.assert_removed(&["web"]);
}

fn changed_mac() {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade"), Vm::new("other", "masquerade")], None).assert_ok();
    let (web, other) = (host.guest("web"), host.guest("other"));
    let _ = (web.lease4("eth0"), other.lease4("eth0"), web.lease6("eth0"), other.lease6("eth0"));
    let _ = web.sh("ip link set eth0 down; ip link set eth0 address 02:00:00:00:0b:ad; ip link set eth0 up");
    let watch = Watch::start(&host, "ip or ip6 or arp");
    let _ = web.sh(&format!("ping -c 2 -W 1 {}", Outside::V4));
    host.world.run(&["ping", "-c", "1", "-W", "5", &other.pod_address("-4")]).assert_ok();
    let seen = watch.seen(&host);
    assert!(seen.contains("echo request"), "the watch saw nothing at all:\n{seen}");
    assert!(!seen.contains("02:00:00:00:0b:ad"), "a frame with the forged address left the pod:\n{seen}");
    host.assert_reached(&other, "-4");
    host.assert_removed(&["web", "other"]);
}
