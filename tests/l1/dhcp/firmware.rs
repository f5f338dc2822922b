//! Firmware that boots from what the lease names.

use std::net::UdpSocket;
use std::time::Duration;

use libtest_mimic::Trial;
use tests::{DhcpService, World, trial, wait_for};

use super::{Daemon, GUEST_MAC, POD, masquerade};

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("iPXE boots the file that the lease names", ipxe)]
}

/// Serves one file of less than 512 bytes once (RFC 1350); returns the name it was asked for.
fn answer_tftp(socket: &UdpSocket, content: &[u8]) -> String {
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut request = [0; 1500];
    let (length, client) = socket.recv_from(&mut request).expect("a read request");
    let name = request[2..length].split(|byte| *byte == 0).next().unwrap();
    socket.send_to(&[&[0, 3, 0, 1], content].concat(), client).unwrap();
    String::from_utf8_lossy(name).into_owned()
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
    let asked = std::thread::spawn(move || answer_tftp(&tftp, script));
    let nic = format!("virtio-net-pci,netdev=n0,mac={GUEST_MAC},bootindex=1");
    let machine = ["-M", "q35", "-m", "64", "-nodefaults", "-nographic", "-serial", "file:/run/console"];
    let net = ["-netdev", "tap,id=n0,ifname=k6t-eth0,script=no,downscript=no", "-device", &nic];
    let qemu = pod.command("qemu-system-x86_64").args(machine).args(net).spawn();
    let _qemu = Daemon(qemu.expect("the world starts programs"));
    let console = || std::fs::read_to_string(world.path("/run/console")).unwrap_or_default();
    wait_for("the booted script", Duration::from_secs(120), || {
        console().contains("booted as 10.0.2.2 of vm").then_some(())
    });
    assert_eq!(asked.join().unwrap(), "boot.ipxe");
    let discover = service.snapshot().v4.discover.expect("a DISCOVER");
    assert!(discover.vendor_class.starts_with("PXEClient"), "{discover:?}");
}
