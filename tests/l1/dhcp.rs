//! Real DHCP clients against the engine, through a service tap joined to the guest's as a pod has it.

use std::process::Child;
use std::time::Duration;

use dhcp::{Config, Lifetime, Observations, Phase, Prefix, Router, V4Config, V6Config};
use libtest_mimic::Trial;
use terms::MacAddr;
use tests::{DhcpService, FakeGuest, Ns, Skip, World, needs, trial, wait_for};

const GUEST_MAC: &str = "02:00:00:00:00:07";
const ADDRESS: &str = "10.0.2.2/24";
const ADDRESS6: &str = "fd10:0:2::2/128";
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("dhclient gets a dual-stack default route", dhclient),
        trial("dhcpcd gets a dual-stack default route", dhcpcd),
        trial("udhcpc gets an IPv4 default route", udhcpc),
        trial("systemd-networkd gets a dual-stack default route", networkd),
        needs("udhcpc6 gets an IPv6 address", has_udhcpc6, udhcpc6),
        trial("dhclient renews by unicast and rebinds by broadcast", dhclient_renews),
        trial("dhcpcd renews both families", dhcpcd_renews),
        trial("udhcpc renews by unicast", udhcpc_renews),
        trial("systemd-networkd renews both families", networkd_renews),
        trial("dhclient -6 renews", dhclient6_renews),
        trial("a guest that reboots as another system is served, and a released lease is gone", another_client),
        trial("a guest that remembers a foreign address is refused it and gets its own", foreign_lease),
        trial("two NICs of one guest have a service each", two_nics),
        trial("frames of a guest with checksum offload reach the service with finished checksums", checksums),
    ]
}

/// A masquerade NIC: gateway addresses on the VM tap, the service tap joined to it by nft.
const POD: &str = "
ip tuntap add k6t-eth0 mode tap vnet_hdr
ip tuntap add svc-eth0 mode tap
for tap in k6t-eth0 svc-eth0; do ip link set $tap addrgenmode none; done
ip link set k6t-eth0 address 02:00:00:00:00:00 mtu 1450
ip addr add 10.0.2.1/24 dev k6t-eth0
ip addr add fd10:0:2::1/120 dev k6t-eth0 nodad
ip addr add fe80::ff:fe00:0/64 dev k6t-eth0 nodad
ip link set k6t-eth0 up
ip link set svc-eth0 up
nft -f - <<EOF
table netdev tapvisor {
  chain vm {
    type filter hook ingress device k6t-eth0 priority 0;
    udp dport { 67, 547 } fwd to svc-eth0
    icmpv6 type nd-router-solicit fwd to svc-eth0
  }
  chain service {
    type filter hook ingress device svc-eth0 priority 0;
    fwd to k6t-eth0
  }
}
EOF
";

/// A pod with a guest whose DHCP nobody has asked for yet.
struct Scene<'w> {
    // Dropped in this order: the guest lets go of the tap before the service does.
    guest: FakeGuest<'w>,
    service: DhcpService,
    pod: Ns<'w>,
}

impl<'w> Scene<'w> {
    fn of(name: &str, world: &'w World, lease_seconds: u32) -> Self {
        let pod = world.ns("pod");
        pod.sh(POD).assert_ok();
        let service = DhcpService::start(name, &pod, "svc-eth0", masquerade(lease_seconds));
        let guest = FakeGuest::plug(world, "guest", &pod, "k6t-eth0", GUEST_MAC);
        Self { guest, service, pod }
    }

    fn ns(&self) -> &Ns<'w> {
        self.guest.ns()
    }

    fn wait<T>(&self, what: &str, ask: impl Fn(&Observations) -> Option<T>) -> T {
        wait_for(what, PATIENCE, || ask(&self.service.snapshot())).0
    }

    fn assert_ipv4(&self) {
        wait_for("the IPv4 address", PATIENCE, || has_address(self.ns(), "-4", ADDRESS));
        wait_for("the IPv4 default route", PATIENCE, || has_default(self.ns(), "-4", "10.0.2.1"));
        self.ns().run(&["ping", "-c", "1", "-W", "2", "10.0.2.1"]).assert_ok();
        assert!(self.service.snapshot().v4.lease.is_some());
    }

    fn assert_ipv6(&self) {
        wait_for("the IPv6 address", PATIENCE, || has_address(self.ns(), "-6", ADDRESS6));
        wait_for("the IPv6 default route", PATIENCE, || has_default(self.ns(), "-6", "fe80::ff:fe00:0"));
        self.ns().run(&["ping", "-c", "1", "-W", "2", "fd10:0:2::1"]).assert_ok();
        assert!(self.service.snapshot().v6.lease.is_some());
    }
}

fn masquerade(lease_seconds: u32) -> Config {
    let mut config = Config::new(GUEST_MAC.parse().unwrap(), MacAddr::local([0x74, 0x61, 0x70, 0, 1]));
    config.hostname = Some("vm".to_owned());
    config.mtu = Some(1450.try_into().unwrap());
    config.dns = vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()];
    config.search = vec!["default.svc.cluster.local".parse().unwrap(), "cluster.local".parse().unwrap()];
    config.v4 = Some(V4Config {
        address: ADDRESS.parse().unwrap(),
        server_id: [10, 0, 2, 1].into(),
        router: Some([10, 0, 2, 1].into()),
        lease: Lifetime::Seconds(lease_seconds),
        ..V4Config::default()
    });
    config.v6 = Some(V6Config {
        address: "fd10:0:2::2".parse().unwrap(),
        preferred: Lifetime::Seconds(lease_seconds),
        valid: Lifetime::Seconds(lease_seconds * 2),
        router: Router::Gateway {
            link_local: "fe80::ff:fe00:0".parse().unwrap(),
            link_layer: Some(MacAddr::local([0; 5])),
        },
        router_lifetime_seconds: 1800,
        prefixes: vec![Prefix { network: "fd10:0:2::/120".parse().unwrap(), on_link: true }],
        boot_file_url: None,
    });
    config
}

fn has_address(guest: &Ns<'_>, family: &str, address: &str) -> Option<()> {
    let links = guest.run(&["ip", "-j", family, "addr", "show", "dev", "eth0", "scope", "global"]).json();
    let found = links[0]["addr_info"].as_array()?.iter().any(|info| {
        let is_usable = info["tentative"] != true && info["dadfailed"] != true;
        is_usable && format!("{}/{}", info["local"].as_str().unwrap_or_default(), info["prefixlen"]) == address
    });
    found.then_some(())
}

fn has_default(guest: &Ns<'_>, family: &str, gateway: &str) -> Option<()> {
    let routes = guest.run(&["ip", "-j", family, "route", "show", "default"]).json();
    routes.as_array()?.iter().any(|route| route["gateway"] == gateway && route["dev"] == "eth0").then_some(())
}

fn dhclient() {
    let world = World::bare();
    let scene = Scene::of("dhclient", &world, 3600);
    scene.ns().run(&["dhclient", "-4", "-1", "-pf", "/run/dhclient4.pid", "eth0"]).assert_ok();
    scene.assert_ipv4();
    run_dhclient6(scene.ns());
    scene.assert_ipv6();
    let resolv = std::fs::read_to_string(world.path("/etc/resolv.conf")).unwrap();
    assert!(resolv.contains("fd00:96::a") && resolv.contains("cluster.local"), "{resolv}");
}

/// dhclient gives up at once when the link-local address is still being checked for duplicates.
fn run_dhclient6(guest: &Ns<'_>) {
    wait_for("a link-local address", PATIENCE, || {
        let links = guest.run(&["ip", "-j", "-6", "addr", "show", "dev", "eth0", "scope", "link"]).json();
        links[0]["addr_info"].as_array()?.iter().any(|info| info["tentative"] != true).then_some(())
    });
    guest.run(&["dhclient", "-6", "-1", "-v", "-pf", "/run/dhclient6.pid", "eth0"]).assert_ok();
}

fn dhcpcd() {
    let world = World::bare();
    let scene = Scene::of("dhcpcd", &world, 3600);
    scene.ns().run(&["dhcpcd", "-w", "eth0"]).assert_ok();
    scene.assert_ipv4();
    scene.assert_ipv6();
}

fn udhcpc() {
    let world = World::bare();
    let scene = Scene::of("udhcpc", &world, 3600);
    scene.ns().run(&["udhcpc", "-i", "eth0", "-n", "-p", "/run/udhcpc.pid"]).assert_ok();
    scene.assert_ipv4();
}

fn has_udhcpc6() -> Result<(), Skip> {
    let found = std::process::Command::new("busybox").args(["udhcpc6", "--help"]).output();
    match found {
        Ok(ran) if !String::from_utf8_lossy(&ran.stderr).contains("applet not found") => Ok(()),
        _ => Err(Skip("the busybox of this machine has no udhcpc6 (Debian builds it without)".to_owned())),
    }
}

fn udhcpc6() {
    let world = World::bare();
    let scene = Scene::of("udhcpc6", &world, 3600);
    scene.ns().run(&["busybox", "udhcpc6", "-i", "eth0", "-n", "-q", "-s", "/bin/true"]).assert_ok();
    assert!(scene.service.snapshot().v6.lease.is_some());
}

/// A daemon in the guest that ends with the scene.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// systemd-networkd takes a writable /sys for a machine with udev and waits for it for ever.
fn start_networkd(world: &World, guest: &Ns<'_>) -> Daemon {
    let network = "[Match]\nName=eth0\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\n";
    world.write("/etc/systemd/network/10-eth0.network", network);
    let script = "mount -o remount,ro /sys; exec /lib/systemd/systemd-networkd >/run/networkd.log 2>&1";
    Daemon(guest.command("sh").args(["-euc", script]).spawn().expect("the world starts programs"))
}

fn networkd() {
    let world = World::bare();
    let scene = Scene::of("networkd", &world, 3600);
    let _daemon = start_networkd(&world, scene.ns());
    scene.assert_ipv4();
    scene.assert_ipv6();
}

fn phase4(seen: &Observations) -> Option<Phase> {
    seen.v4.lease.as_ref().map(|lease| lease.phase)
}

fn phase6(seen: &Observations) -> Option<Phase> {
    seen.v6.lease.as_ref().map(|lease| lease.phase)
}

fn dhclient_renews() {
    let world = World::bare();
    let scene = Scene::of("dhclient-renews", &world, 8);
    scene.ns().run(&["dhclient", "-4", "-1", "-pf", "/run/dhclient4.pid", "eth0"]).assert_ok();
    scene.wait("a renewal", |seen| (phase4(seen) == Some(Phase::Renewing)).then_some(()));
    // Renewals no longer arrive: the client must fall back to asking anybody.
    scene.pod.run(&["nft", "insert rule netdev tapvisor vm ip daddr 10.0.2.1 udp dport 67 drop"]).assert_ok();
    scene.wait("a rebinding", |seen| (phase4(seen) == Some(Phase::Rebinding)).then_some(()));
    scene.assert_ipv4();
}

fn dhclient6_renews() {
    let world = World::bare();
    let scene = Scene::of("dhclient6-renews", &world, 8);
    run_dhclient6(scene.ns());
    scene.wait("a renewal", |seen| (phase6(seen) == Some(Phase::Renewing)).then_some(()));
    scene.assert_ipv6();
}

fn dhcpcd_renews() {
    let world = World::bare();
    // dhcpcd does not believe in leases below 20 seconds.
    let scene = Scene::of("dhcpcd-renews", &world, 24);
    scene.ns().run(&["dhcpcd", "-w", "eth0"]).assert_ok();
    scene.wait("a renewal", |seen| (phase4(seen) == Some(Phase::Renewing)).then_some(()));
    scene.wait("a DHCPv6 renewal", |seen| (phase6(seen) == Some(Phase::Renewing)).then_some(()));
    scene.assert_ipv4();
    scene.assert_ipv6();
}

fn udhcpc_renews() {
    let world = World::bare();
    // udhcpc does not believe in leases below a minute of waiting: it is told to renew.
    let scene = Scene::of("udhcpc-renews", &world, 3600);
    scene.ns().run(&["udhcpc", "-i", "eth0", "-n", "-p", "/run/udhcpc.pid"]).assert_ok();
    scene.assert_ipv4();
    scene.ns().sh("kill -USR1 $(cat /run/udhcpc.pid)").assert_ok();
    scene.wait("a renewal", |seen| (phase4(seen) == Some(Phase::Renewing)).then_some(()));
    scene.ns().sh("kill -USR2 $(cat /run/udhcpc.pid)").assert_ok();
    scene.wait("the release", |seen| seen.v4.released_at);
}

fn networkd_renews() {
    let world = World::bare();
    let scene = Scene::of("networkd-renews", &world, 10);
    let _daemon = start_networkd(&world, scene.ns());
    scene.wait("a renewal", |seen| (phase4(seen) == Some(Phase::Renewing)).then_some(()));
    scene.wait("a DHCPv6 renewal", |seen| (phase6(seen) == Some(Phase::Renewing)).then_some(()));
    scene.assert_ipv4();
    scene.assert_ipv6();
}

fn another_client() {
    let world = World::bare();
    let scene = Scene::of("another-client", &world, 3600);
    let boot_as = |id: &str| {
        let files = format!("-lf /run/{id}.leases -pf /run/{id}.pid -cf /run/{id}.conf");
        world.write(&format!("/run/{id}.conf"), format!("send dhcp-client-identifier \"{id}\";\n"));
        scene.ns().sh(&format!("dhclient -4 -1 {files} eth0")).assert_ok();
        scene.assert_ipv4();
        files
    };
    let client_id = |seen: Observations| seen.v4.lease.map(|lease| lease.client_id);
    boot_as("first");
    assert_eq!(client_id(scene.service.snapshot()), Some(b"first".to_vec()));
    // Gone without a word, as a machine that is reset.
    scene.ns().sh("kill -9 $(cat /run/first.pid); ip addr flush dev eth0 scope global").assert_ok();
    let files = boot_as("second");
    assert_eq!(client_id(scene.service.snapshot()), Some(b"second".to_vec()));
    scene.ns().sh(&format!("dhclient -4 -r {files} eth0")).assert_ok();
    scene.wait("the release", |seen| seen.v4.released_at);
    assert_eq!(scene.service.snapshot().v4.lease, None);
}

fn foreign_lease() {
    let world = World::bare();
    let scene = Scene::of("foreign-lease", &world, 3600);
    let lease = "lease { interface \"eth0\"; fixed-address 192.168.77.9; option subnet-mask 255.255.255.0;
        option dhcp-lease-time 86400; renew 6 2037/01/03 00:00:00; rebind 6 2037/01/03 00:00:00;
        expire 6 2037/01/03 00:00:00; }";
    world.write("/run/old.leases", lease);
    scene.ns().run(&["dhclient", "-4", "-1", "-lf", "/run/old.leases", "-pf", "/run/dh.pid", "eth0"]).assert_ok();
    scene.assert_ipv4();
    assert_eq!(scene.service.snapshot().v4.naks, 1);
}

fn two_nics() {
    let world = World::bare();
    let pods = ["pod-a", "pod-b"].map(|name| {
        let pod = world.ns(name);
        pod.sh(POD).assert_ok();
        pod
    });
    let scenes = pods.map(|pod| {
        let (service_name, guest_name) = (format!("two-nics-{}", pod.name()), format!("guest-{}", pod.name()));
        let service = DhcpService::start(&service_name, &pod, "svc-eth0", masquerade(3600));
        let guest = FakeGuest::plug(&world, &guest_name, &pod, "k6t-eth0", GUEST_MAC);
        Scene { guest, service, pod }
    });
    // One machine with both NICs.
    scenes[1].ns().run(&["ip", "link", "set", "eth0", "netns", scenes[0].ns().name(), "name", "eth1"]).assert_ok();
    let guest = scenes[0].ns();
    guest.sh("ip link set eth1 up; udhcpc -i eth0 -nq; udhcpc -i eth1 -nq").assert_ok();
    for (scene, link) in scenes.iter().zip(["eth0", "eth1"]) {
        let addresses = guest.run(&["ip", "-4", "addr", "show", "dev", link]).text();
        assert!(addresses.contains(ADDRESS), "{link}: {addresses}");
        assert_eq!(scene.service.snapshot().v4.acks, 1);
    }
}

/// The kernel leaves the sum of a datagram from a socket to the device; the VM tap takes it so, the service tap does not.
fn checksums() {
    let world = World::bare();
    let scene = Scene::of("checksums", &world, 3600);
    scene.ns().sh("ip addr add 10.0.2.2/24 dev eth0; ip addr add fd10:0:2::2/120 dev eth0 nodad").assert_ok();
    scene.ns().sh("echo of a socket >/dev/udp/10.0.2.1/67; echo of a socket >/dev/udp/fd10:0:2::1/547").assert_ok();
    scene.wait("both datagrams", |seen| (seen.ignored.unusable >= 2).then_some(()));
    world.write("/run/seen.pcap", scene.service.pcap());
    let account = world.run(&["tcpdump", "-nvvr", "/run/seen.pcap", "udp and (port 67 or port 547)"]).text();
    assert_eq!(account.matches("udp sum ok").count(), 2, "{account}");
}
