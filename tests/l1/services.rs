//! Services' table in a real kernel: who reaches whom, in both shapes of a pod network, with br_netfilter on and off.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use hostnet::nft::Transaction;
use hostnet::{Ask, Facts, Kernel, Linux, Op};
use libtest_mimic::Trial;
use services::{Frontend, Services, loopback};
use terms::{IfName, Protocol};
use tests::{Ns, World, trial, wait_for};
use wiring::Family;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: SVC-2
        trial("VMs on one bridge reach a Service and themselves, br_netfilter on", || bridged("1")),
        // spec: SVC-2
        trial("VMs on one bridge reach a Service and themselves, br_netfilter off", || bridged("0")),
        // spec: SVC-3
        trial("a node port on ::1 is served, and refused under br_netfilter", bridged_v6),
        // spec: SVC-1, SVC-4
        trial("routed VMs, the host and outside clients reach a Service", routed),
        // spec: SVC-5
        trial("a port without ready VMs or without Service is refused at once", refused),
        // spec: SVC-6
        trial("a client stays with its VM, also when another VM joins", sticky),
        trial("UDP reaches a Service and its answers come from the Service's address", datagrams),
        // spec: SVC-7
        trial("a UDP client that keeps sending moves when its VM leaves", moved_datagrams),
        // spec: SVC-7
        trial("a UDP client that sent before the Service reaches its first VM", early_datagrams),
        // spec: SVC-11
        trial("10,000 Services are one transaction, an update of one stays small", many),
    ]
}

const VIP: &str = "172.30.78.10";
const VIP6: &str = "fd77:7461:7078::10";
const NODE_PORT: u16 = 30080;

/// Two pods behind routed links, as the reference plugin `ptp` makes them.
const ROUTED: &str = "
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.accept_ra=2 net.ipv6.conf.uplink0.accept_ra=2 net.ipv6.conf.all.forwarding=1
    for n in 2 3; do
        ip link add veth$n type veth peer name eth0 netns vm$n
        sysctl -qw net.ipv6.conf.veth$n.accept_dad=0
        ip addr add 172.30.77.1/32 dev veth$n; ip addr add fd77::1/128 dev veth$n nodad; ip link set veth$n up
        ip route add 172.30.77.$n dev veth$n; ip -6 route add fd77::$n dev veth$n
        ip -n vm$n addr add 172.30.77.$n/32 dev eth0; ip -n vm$n addr add fd77::$n/128 dev eth0 nodad
        ip -n vm$n link set eth0 up
        ip -n vm$n route add 172.30.77.1 dev eth0; ip -n vm$n route add default via 172.30.77.1
        ip -n vm$n -6 route add fd77::1 dev eth0; ip -n vm$n -6 route add default via fd77::1
    done
    ip route add 172.30.78.0/24 dev lo; ip -6 route add fd77:7461:7078::/112 dev lo";

/// Two pods on one bridge with hairpin mode, as the reference plugin `bridge` makes them.
const BRIDGED: &str = "
    sysctl -qw net.ipv4.ip_forward=1
    ip link add cni0 type bridge; ip addr add 172.30.77.1/24 dev cni0; ip link set cni0 up
    for n in 2 3; do
        ip link add veth$n type veth peer name eth0 netns vm$n
        ip link set veth$n master cni0 up; bridge link set dev veth$n hairpin on
        ip -n vm$n addr add 172.30.77.$n/24 dev eth0; ip -n vm$n link set eth0 up
        ip -n vm$n route add default via 172.30.77.1
    done
    ip route add 172.30.78.0/24 dev lo";

/// Brings up the network of `vm2` and `vm3`. Until a carrier is noted frames are lost, and datagrams are sent once.
fn shape(world: &World, script: &str) {
    world.sh(script).assert_ok();
    for (vm, link) in [("vm2", "veth2"), ("vm3", "veth3")] {
        world.wait_carrier(link);
        world.named(vm).wait_carrier("eth0");
    }
}

fn web(port: u16, backends: &[&str]) -> Frontend {
    let backends: BTreeSet<SocketAddr> = backends.iter().map(|backend| backend.parse().unwrap()).collect();
    let family = if backends.iter().any(SocketAddr::is_ipv6) { Family::V6 } else { Family::V4 };
    let vip = if family == Family::V4 { VIP } else { VIP6 };
    Frontend {
        name: format!("default/web/{port}"),
        family,
        protocol: Protocol::Tcp,
        addresses: BTreeSet::from([vip.parse().unwrap()]),
        port,
        node_port: None,
        affinity_seconds: None,
        backends,
    }
}

fn services(frontends: Vec<Frontend>) -> Services {
    let vms = ["172.30.77.2", "172.30.77.3", "fd77::2", "fd77::3"];
    let ranges = ["172.30.78.0/24", "fd77:7461:7078::/112"];
    Services {
        frontends,
        vms: vms.iter().map(|vm| vm.parse().unwrap()).collect(),
        ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        refuses_loopback_v6: false,
    }
}

/// Installs, or goes from one state to the next; returns the table as our own reader sees it.
fn install(world: &World, next: &Services, installed: Option<&Services>) -> Facts {
    world.enter(|| {
        let mut kernel = Linux::here();
        let facts = kernel.gather(&Ask::network().with_sysctls(loopback::settings())).unwrap();
        let is_vms = |link: &&IfName| ["veth2", "veth3", "cni0"].contains(&link.as_str());
        let links = facts.links.iter().map(|link| &link.name).filter(is_vms).collect();
        let (settings, ways_back) = loopback::opened(&links, &facts);
        let refuses_loopback_v6 = loopback::is_unanswered(&links, &facts);
        let next = &Services { refuses_loopback_v6, ..next.clone() };
        let installed = installed.map(|before| Services { refuses_loopback_v6, ..before.clone() });
        let installed = installed.as_ref();
        kernel.execute(&[settings, ways_back].concat()).unwrap();
        kernel.execute(&[Op::Nft(next.update(installed))]).unwrap();
        assert!(hostnet::tear_down(&mut kernel, &next.stale_flows(installed)).is_empty());
        kernel.gather(&Ask::default().with_tables([Services::table_id()])).unwrap()
    })
}

/// Answers on a port of both families with its own name and the client's address.
fn serve(ns: &Ns<'_>, port: u16) {
    let name = ns.name().to_owned();
    let listener = ns.enter(|| TcpListener::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = write!(stream, "{name} sees {peer}");
        }
    });
}

fn ask(to: &str, port: u16) -> Result<String, std::io::ErrorKind> {
    ask_within(Duration::from_secs(30), to, port)
}

fn ask_within(limit: Duration, to: &str, port: u16) -> Result<String, std::io::ErrorKind> {
    let to = SocketAddr::new(to.parse::<IpAddr>().unwrap(), port);
    let mut stream = TcpStream::connect_timeout(&to, limit).map_err(|error| error.kind())?;
    let mut said = String::new();
    stream.set_read_timeout(Some(limit)).unwrap();
    stream.read_to_string(&mut said).map_err(|error| error.kind())?;
    Ok(said)
}

fn bridged(br_netfilter: &str) {
    let world = World::new();
    let (two, three) = (world.ns("vm2"), world.ns("vm3"));
    shape(&world, BRIDGED);
    world.wait_carrier("cni0");
    let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    world.sh(&format!("[ ! -e {switch} ] || echo {br_netfilter} > {switch}")).assert_ok();
    serve(&three, 8080);
    install(&world, &services(vec![web(80, &["172.30.77.3:8080"])]), None);
    assert_eq!(two.enter(|| ask(VIP, 80)).unwrap(), "vm3 sees 172.30.77.1");
    assert_eq!(three.enter(|| ask(VIP, 80)).unwrap(), "vm3 sees 172.30.77.1", "itself");
    assert!(world.enter(|| ask(VIP, 80)).unwrap().starts_with("vm3 sees "), "the host");
    assert_eq!(two.enter(|| ask("172.30.77.3", 8080)).unwrap(), "vm3 sees 172.30.77.2", "without the Service");
}

fn bridged_v6() {
    let world = World::new();
    let (_two, three) = (world.ns("vm2"), world.ns("vm3"));
    shape(&world, BRIDGED);
    world
        .sh("ip addr add fd77::1/64 dev cni0 nodad; for n in 2 3; do ip -n vm$n addr add fd77::$n/64 dev eth0 nodad
        ip -n vm$n -6 route add default via fd77::1; done")
        .assert_ok();
    serve(&three, 8080);
    let node = Frontend { node_port: Some(NODE_PORT), ..web(80, &["[fd77::3]:8080"]) };
    let switch = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";
    for on in ["0", "1", "0"] {
        world.sh(&format!("[ ! -e {switch} ] || echo {on} > {switch}")).assert_ok();
        let is_on = world.sh(&format!("cat {switch} || true")).text().trim() == "1";
        install(&world, &services(vec![node.clone()]), None);
        let own = world.enter(|| ask_within(Duration::from_secs(10), "::1", NODE_PORT));
        match is_on {
            true => assert_eq!(own.unwrap_err(), std::io::ErrorKind::ConnectionRefused),
            false => assert!(own.unwrap().starts_with("vm3 sees fd77::1")),
        }
        assert!(world.enter(|| ask("2001:db8:1::2", NODE_PORT)).unwrap().starts_with("vm3 sees "), "another address");
    }
}

fn routed() {
    let world = World::new();
    let (two, three) = (world.ns("vm2"), world.ns("vm3"));
    shape(&world, ROUTED);
    serve(&three, 8080);
    let at_node = |frontend: Frontend, ip: &str| Frontend {
        node_port: Some(NODE_PORT),
        addresses: frontend.addresses.iter().copied().chain([ip.parse().unwrap()]).collect(),
        ..frontend
    };
    let v4 = at_node(web(80, &["172.30.77.3:8080"]), "192.0.2.77");
    let v6 = at_node(web(80, &["[fd77::3]:8080"]), "2001:db8:1::77");
    install(&world, &services(vec![v4, v6]), None);
    for vip in [VIP, VIP6] {
        let gateway = if vip == VIP { "172.30.77.1" } else { "fd77::1" };
        assert_eq!(two.enter(|| ask(vip, 80)).unwrap(), format!("vm3 sees {gateway}"));
        assert_eq!(three.enter(|| ask(vip, 80)).unwrap(), format!("vm3 sees {gateway}"), "itself");
        assert!(world.enter(|| ask(vip, 80)).unwrap().starts_with("vm3 sees "), "the host to {vip}");
    }
    for own in ["127.0.0.1", "::1", "192.0.2.2", "2001:db8:1::2"] {
        assert!(world.enter(|| ask(own, NODE_PORT)).unwrap().starts_with("vm3 sees "), "{own}");
    }
    let outside = world.named("outside");
    assert_eq!(
        outside.enter(|| ask("192.0.2.2", NODE_PORT)).unwrap(),
        "vm3 sees 192.0.2.1",
        "the client's address is kept"
    );
    assert_eq!(outside.enter(|| ask("2001:db8:1::2", NODE_PORT)).unwrap(), "vm3 sees 2001:db8:1::1");
    world.sh("ip -n outside route add 192.0.2.77 via 192.0.2.2; ip -n outside -6 route add 2001:db8:1::77 via 2001:db8:1::2").assert_ok();
    assert_eq!(outside.enter(|| ask("192.0.2.77", 80)).unwrap(), "vm3 sees 192.0.2.1", "load balancer");
    assert_eq!(outside.enter(|| ask("2001:db8:1::77", 80)).unwrap(), "vm3 sees 2001:db8:1::1");
    loopback_is_the_hosts(&world, &two);
}

/// NodePorts on 127.0.0.1 need `route_localnet` on VM links; a VM must not reach the host's loopback by it.
fn loopback_is_the_hosts(world: &World, vm: &Ns<'_>) {
    let _private = world.enter(|| TcpListener::bind("127.0.0.1:9000").unwrap());
    let _private6 = world.enter(|| TcpListener::bind("[::1]:9000").unwrap());
    vm.sh("ip -6 route flush table local; ip -6 route add local fd77::2 dev eth0 table local
        ip -6 route add ::1 via fd77::1 dev eth0")
        .assert_ok();
    let in_vain = Duration::from_secs(3);
    assert!(vm.enter(|| ask_within(in_vain, "::1", 9000)).is_err(), "a VM reached the host's ::1");
    vm.sh("ip route flush table local; sysctl -qw net.ipv4.conf.eth0.route_localnet=1
        ip route add local 172.30.77.2 dev eth0 table local; ip route add 127.0.0.1 via 172.30.77.1 src 172.30.77.2")
        .assert_ok();
    let answer = vm.enter(|| ask_within(in_vain, "127.0.0.1", 9000));
    assert!(matches!(answer, Err(std::io::ErrorKind::TimedOut)), "{answer:?}");
    let counted = |rule: &str| {
        let guard = world.run(&["nft", "list", "chain", "inet", "tapvisor-services", "guard"]).text();
        let line = guard.lines().find(|line| line.contains(rule)).unwrap_or_else(|| panic!("{rule}: {guard}"));
        !line.contains("counter packets 0 ")
    };
    // What comes for ::1 by a link is dropped before any chain sees it.
    assert!(counted("ip daddr 127.0.0.0/8"));
    loopback_is_no_source(world, vm);
    assert!(counted("ip saddr 127.0.0.0/8"));
}

/// The kernel knows 127.0.0.1 for its own and drops it as a source, but no other address of 127.0.0.0/8.
fn loopback_is_no_source(world: &World, vm: &Ns<'_>) {
    let host = world.enter(|| UdpSocket::bind("172.30.77.1:9001").unwrap());
    host.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let sent = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
udp = lambda text: (9001).to_bytes(2, 'big') * 2 + (8 + len(text)).to_bytes(2, 'big') + bytes(2) + text
ip = lambda source, length: bytes([0x45, 0, 0, length, 0, 0, 0, 0, 64, 17, 0, 0]) + socket.inet_aton(source) + socket.inet_aton('172.30.77.1')
for source, text in (('127.0.0.2', b'loopback'), ('172.30.77.2', b'own')):
    s.sendto(ip(source, 28 + len(text)) + udp(text), ('172.30.77.1', 0))";
    vm.run(&["python3", "-c", sent]).assert_ok();
    let mut datagram = [0; 16];
    let length = host.recv(&mut datagram).expect("what came from the VM's own address");
    assert_eq!(&datagram[..length], b"own", "the host took a datagram from 127.0.0.2 of a VM");
}

fn refused() {
    let world = World::new();
    let two = world.ns("vm2");
    let _three = world.ns("vm3");
    shape(&world, ROUTED);
    let without_vms = Frontend { node_port: Some(NODE_PORT), ..web(81, &[]) };
    install(&world, &services(vec![without_vms]), None);
    for (address, port) in [(VIP, 81), (VIP, 9999), ("172.30.78.99", 80)] {
        for from in ["vm2", "host"] {
            let answer =
                if from == "host" { world.enter(|| ask(address, port)) } else { two.enter(|| ask(address, port)) };
            assert_eq!(answer.unwrap_err(), std::io::ErrorKind::ConnectionRefused, "{from} to {address}:{port}");
        }
    }
    let outside = world.named("outside");
    assert_eq!(outside.enter(|| ask("192.0.2.2", NODE_PORT)).unwrap_err(), std::io::ErrorKind::ConnectionRefused);
}

fn sticky() {
    let world = World::new();
    let (two, three) = (world.ns("vm2"), world.ns("vm3"));
    shape(&world, ROUTED);
    serve(&two, 8080);
    serve(&three, 8080);
    let sticky = |backends: &[&str]| services(vec![Frontend { affinity_seconds: Some(600), ..web(80, backends) }]);
    let (one, both) = (sticky(&["172.30.77.3:8080"]), sticky(&["172.30.77.2:8080", "172.30.77.3:8080"]));
    install(&world, &one, None);
    let outside = world.named("outside");
    world.sh("ip -n outside route add 172.30.78.0/24 via 192.0.2.2").assert_ok();
    assert!(outside.enter(|| ask(VIP, 80)).unwrap().starts_with("vm3"));
    install(&world, &both, Some(&one));
    for _ in 0..20 {
        assert!(outside.enter(|| ask(VIP, 80)).unwrap().starts_with("vm3"));
    }
    // Another client gets its own choice; without affinity both VMs are chosen.
    install(&world, &services(vec![web(80, &["172.30.77.2:8080", "172.30.77.3:8080"])]), Some(&both));
    let drawn: BTreeSet<String> = (0..40).map(|_| outside.enter(|| ask(VIP, 80)).unwrap()[..3].to_owned()).collect();
    assert_eq!(drawn, BTreeSet::from(["vm2".to_owned(), "vm3".to_owned()]));
}

/// Answers every datagram with the namespace's name.
fn answer_datagrams(ns: &Ns<'_>, port: u16) {
    let name = ns.name().to_owned();
    let socket = ns.enter(|| UdpSocket::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
}

/// A client of the Service's own port.
fn client(ns: &Ns<'_>, vip: &str) -> impl Fn() -> Option<String> {
    client_to(ns, vip, 53)
}

/// A client with one socket, so that all it sends is one flow.
fn client_to(ns: &Ns<'_>, to: &str, port: u16) -> impl Fn() -> Option<String> {
    let family = if to.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = ns.enter(|| UdpSocket::bind(family).unwrap());
    socket.connect((to, port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    move || {
        socket.send(b"question").ok()?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..length]).into_owned())
    }
}

fn dns(backends: &[&str]) -> Frontend {
    Frontend { protocol: Protocol::Udp, ..web(53, backends) }
}

fn datagrams() {
    let world = World::new();
    let (two, three) = (world.ns("vm2"), world.ns("vm3"));
    shape(&world, ROUTED);
    answer_datagrams(&three, 5353);
    install(&world, &services(vec![dns(&["172.30.77.3:5353"])]), None);
    assert_eq!(client(&two, VIP)().as_deref(), Some("vm3"));
}

fn moved_datagrams() {
    let world = World::new();
    let (two, three) = (world.ns("vm2"), world.ns("vm3"));
    shape(&world, ROUTED);
    for vm in [&two, &three] {
        answer_datagrams(vm, 5353);
    }
    let behind =
        |vm: u8| services(vec![dns(&[&format!("172.30.77.{vm}:5353")]), dns(&[&format!("[fd77::{vm}]:5353")])]);
    let (first, then) = (behind(3), behind(2));
    install(&world, &first, None);
    let outside = world.named("outside");
    world.sh("ip -n outside route add 172.30.78.0/24 via 192.0.2.2; ip -n outside -6 route add fd77:7461:7078::/112 via 2001:db8:1::2")
        .assert_ok();
    for vip in [VIP, VIP6] {
        for client in [client(&outside, vip), client(&three, vip)] {
            install(&world, &first, None);
            assert_eq!(client().as_deref(), Some("vm3"), "{vip}");
            assert_eq!(client().as_deref(), Some("vm3"), "{vip}, the same flow");
            install(&world, &then, Some(&first));
            assert_eq!(client().as_deref(), Some("vm2"), "{vip}, the same flow after its VM has left");
        }
    }
}

fn early_datagrams() {
    let world = World::new();
    let (_two, three) = (world.ns("vm2"), world.ns("vm3"));
    shape(&world, ROUTED);
    answer_datagrams(&three, 5353);
    let behind = |v4: &[&str], v6: &[&str]| {
        let at_node = |frontend: Frontend, family, ip: &str| Frontend {
            family,
            addresses: BTreeSet::from([ip.parse().unwrap()]),
            node_port: Some(NODE_PORT),
            ..frontend
        };
        services(vec![at_node(dns(v4), Family::V4, VIP), at_node(dns(v6), Family::V6, VIP6)])
    };
    // The kernel tracks connections only if a rule uses their state, as those of any firewall do.
    world.sh("echo 'table inet mine { chain in { type filter hook input priority 0; ct state invalid drop; }; }' | nft -f -").assert_ok();
    let (without_vms, three) = (behind(&[], &[]), behind(&["172.30.77.3:5353"], &["[fd77::3]:5353"]));
    let outside = world.named("outside");
    for node in ["192.0.2.2", "2001:db8:1::2"] {
        let client = client_to(&outside, node, NODE_PORT);
        assert_eq!(client(), None, "{node}: nothing is installed");
        install(&world, &three, None);
        assert_eq!(client().as_deref(), Some("vm3"), "{node}: the Service came");
        install(&world, &without_vms, Some(&three));
        assert_eq!(client(), None, "{node}: its VM left");
        install(&world, &three, Some(&without_vms));
        assert_eq!(client().as_deref(), Some("vm3"), "{node}: a VM came");
        world.enter(|| {
            let table = Op::Nft(Transaction::delete([Services::table_id()]));
            let ops = [vec![table], Services::default().stale_flows(Some(&three))].concat();
            assert!(hostnet::tear_down(&mut Linux::here(), &ops).is_empty());
        });
    }
}

fn many() {
    let world = World::new();
    let (_two, three) = (world.ns("vm2"), world.ns("vm3"));
    shape(&world, ROUTED);
    serve(&three, 8080);
    let numbered = |n: u32| Frontend {
        name: format!("default/s{n}/http"),
        addresses: BTreeSet::from([IpAddr::from((0x0a60_0000 + n).to_be_bytes())]),
        ..web(80, &["172.30.77.2:8080"])
    };
    let mut all = services((1..=10_000).map(numbered).collect());
    install(&world, &all, None);
    let before = all.clone();
    all.frontends[4321].backends = BTreeSet::from(["172.30.77.3:8080".parse().unwrap()]);
    let vip = all.frontends[4321].addresses.first().unwrap().to_string();
    assert!(all.update(Some(&before)).commands.len() <= 4);
    let facts = install(&world, &all, Some(&before));
    assert_eq!(facts.tables[0].chains.iter().filter(|chain| chain.name.starts_with("service-")).count(), 10_000);
    world.sh("ip route add 10.96.0.0/16 dev lo").assert_ok();
    wait_for("the changed Service", Duration::from_secs(60), || world.enter(|| ask(&vip, 80)).ok());
    let listed = world.run(&["nft", "list", "map", "inet", "tapvisor-services", "services4"]).text();
    assert_eq!(listed.matches("goto service-").count(), 10_000);
}
