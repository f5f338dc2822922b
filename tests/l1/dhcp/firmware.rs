//! Firmware that boots from what the lease names.

use std::net::UdpSocket;
use std::time::Duration;

use libtest_mimic::Trial;
use tests::{DhcpService, World, serve_tftp, trial, wait_for};

use super::{Daemon, GUEST_MAC, POD, masquerade};

pub(super) fn trials() -> Vec<Trial> {
    // spec: DHCP-13
    vec![trial("iPXE boots the file that the lease names", ipxe)]
}

fn ipxe() {
    let world = World::bare();
    let pod = world.ns("pod");
    pod.sh(POD).assert_ok();
    let mut config = masquerade(3600);
    let v4 = config.v4.as_mut().unwrap();
    v4.boot_server = Some("10.0.2.1".to_owned());
    v4.boot_file = Some("boot.ipxe".to_owned());
    let service = DhcpService::start("ipxe", &pod, "svc-eth0", config);
    let script = b"#!ipxe\necho booted as ${net0/ip} of ${net0/hostname}\nshell\n";
    let tftp = pod.enter(|| UdpSocket::bind("10.0.2.1:69").unwrap());
    let asked = std::thread::spawn(move || serve_tftp(&tftp, script, 1));
    let nic = format!("virtio-net-pci,netdev=n0,mac={GUEST_MAC},bootindex=1");
    let machine = ["-M", "q35", "-m", "64", "-nodefaults", "-nographic", "-serial", "file:/run/console"];
    let net = ["-netdev", "tap,id=n0,ifname=k6t-eth0,script=no,downscript=no", "-device", &nic];
    let qemu = pod.command("qemu-system-x86_64").args(machine).args(net).spawn();
    let _qemu = Daemon(qemu.expect("the world starts programs"));
    let console = || std::fs::read_to_string(world.path("/run/console")).unwrap_or_default();
    wait_for("the booted script", Duration::from_secs(170), || {
        console().contains("booted as 10.0.2.2 of vm").then_some(())
    });
    assert_eq!(asked.join().unwrap(), ["boot.ipxe".to_owned()].into());
    let discover = service.snapshot().v4.discover.expect("a DISCOVER");
    assert!(discover.vendor_class.starts_with("PXEClient"), "{discover:?}");
}
