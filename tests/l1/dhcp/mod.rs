//! Real DHCP clients against the engine, through a service tap joined to the guest's as a pod has it.

mod bridge;
mod clients;
mod firmware;
mod identities;
mod renewals;

use std::process::Child;
use std::time::Duration;

use dhcp::{Config, Lifetime, Observations, Prefix, Router, V4Config, V6Config};
use libtest_mimic::Trial;
use terms::MacAddr;
use tests::{DhcpService, FakeGuest, Ns, World, wait_for};

const GUEST_MAC: &str = "02:00:00:00:00:07";
const ADDRESS: &str = "10.0.2.2/24";
const ADDRESS6: &str = "fd10:0:2::2/128";
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn trials() -> Vec<Trial> {
    [clients::trials(), renewals::trials(), identities::trials(), firmware::trials(), bridge::trials()]
        .into_iter()
        .flatten()
        .collect()
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

/// A pod with a guest that has not used DHCP yet.
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

    /// A signal for a client that went to the background: it writes down its new number only after its parent has ended.
    fn signal(&self, signal: &str, pid_file: &str) {
        let line = format!("kill {signal} $(cat {pid_file})");
        wait_for("the client's own number", PATIENCE, || self.ns().sh(&line).is_ok().then_some(()));
    }

    fn assert_ipv4(&self) {
        wait_for("the IPv4 address", PATIENCE, || has_address(self.ns(), "-4", ADDRESS));
        wait_for("the IPv4 default route", PATIENCE, || has_default(self.ns(), "-4", "10.0.2.1"));
        self.ns().run(&["ping", "-c", "1", "-W", "20", "10.0.2.1"]).assert_ok();
        assert!(self.service.snapshot().v4.lease.is_some());
    }

    fn assert_ipv6(&self) {
        wait_for("the IPv6 address", PATIENCE, || has_address(self.ns(), "-6", ADDRESS6));
        wait_for("the IPv6 default route", PATIENCE, || has_default(self.ns(), "-6", "fe80::ff:fe00:0"));
        self.ns().run(&["ping", "-c", "1", "-W", "20", "fd10:0:2::1"]).assert_ok();
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
        routes: Vec::new(),
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

/// dhclient gives up at once when the link-local address is still being checked for duplicates.
fn wait_link_local(guest: &Ns<'_>) {
    wait_for("a link-local address", PATIENCE, || {
        let links = guest.run(&["ip", "-j", "-6", "addr", "show", "dev", "eth0", "scope", "link"]).json();
        links[0]["addr_info"].as_array()?.iter().any(|info| info["tentative"] != true).then_some(())
    });
}

fn run_dhclient6(guest: &Ns<'_>) {
    wait_link_local(guest);
    guest.run(&["dhclient", "-6", "-1", "-v", "-pf", "/run/dhclient6.pid", "eth0"]).assert_ok();
}

/// A daemon in the guest that ends with the scene.
pub(crate) struct Daemon(pub(crate) Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// systemd-networkd takes a writable /sys for a machine with udev and waits for it for ever.
pub(crate) fn start_networkd(world: &World, guest: &Ns<'_>) -> Daemon {
    let network = "[Match]\nName=eth0\n[Network]\nDHCP=yes\nIPv6AcceptRA=yes\n";
    world.write("/etc/systemd/network/10-eth0.network", network);
    let script =
        "mount -o remount,ro /sys; mkdir -p /run/systemd; exec /lib/systemd/systemd-networkd >/run/networkd.log 2>&1";
    Daemon(guest.command("sh").args(["-euc", script]).spawn().expect("the world starts programs"))
}
