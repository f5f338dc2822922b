//! Boot answers next to a server that gives the addresses.

use std::net::{Ipv4Addr, UdpSocket};

use libtest_mimic::Trial;
use tests::{BootServer, Ns, World, trial, wait_for_or};

use super::{PATIENCE, addresses, client, segment};
use crate::dhcp::Daemon;

pub(super) fn trials() -> Vec<Trial> {
    // spec: BOOT-19
    vec![trial("iPXE boots from a proxy, with the address of dnsmasq", ipxe)]
}

const CONFIGURATION: &str = "
interface: br0
proxy: true
boot:
- {ipxe: true, file: boot.ipxe}
- {file: undionly.kpxe}
tftp: {root: /run/served}
";
const DNSMASQ: [&str; 9] = [
    "dnsmasq",
    "--keep-in-foreground",
    "--conf-file=/dev/null",
    "--port=0",
    "--dhcp-range=10.9.0.100,10.9.0.110,1h",
    "--dhcp-authoritative",
    "--leasefile-ro",
    "--pid-file=",
    "--log-facility=/run/dnsmasq.log",
];

fn ipxe() {
    let world = World::bare();
    let segment = segment(&world);
    world.write(
        "/run/served/boot.ipxe",
        "#!ipxe\necho booted as ${net0/ip} from ${proxydhcp/next-server} alone\nshell\n",
    );
    let server = BootServer::start(&segment, CONFIGURATION);
    let [other, one] = [2, 7].map(|number| client(&world, number));
    other.sh("ip addr add 10.9.0.2/24 dev eth0").assert_ok();
    let dnsmasq = other.command(DNSMASQ[0]).args(&DNSMASQ[1..]).spawn().expect("the world starts programs");
    let _dnsmasq = Daemon(dnsmasq);
    let listens = || other.run(&["ss", "-lun"]).text().contains(":67 ").then_some(());
    wait_for_or("dnsmasq", PATIENCE, listens, || other.run(&["ss", "-lun"]).text());
    segment.sh("ip tuntap add tap0 mode tap; ip link set tap0 master br0; ip link set tap0 up").assert_ok();
    let machine = ["-M", "q35", "-m", "64", "-nodefaults", "-nographic", "-serial", "file:/run/console"];
    let nic = "virtio-net-pci,netdev=n0,mac=02:00:00:00:00:09,bootindex=1";
    let net = ["-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", nic];
    let qemu = segment.command("qemu-system-x86_64").args(machine).args(net).spawn();
    let _qemu = Daemon(qemu.expect("the world starts programs"));
    // A client that is no firmware is dnsmasq's alone, while the other boots.
    one.run(&["udhcpc", "-i", "eth0", "-n", "-q", "-t", "10"]).assert_ok();
    assert!(addresses(&one)[0].starts_with("10.9.0.1"), "{:?}", addresses(&one));
    let console = || std::fs::read_to_string(world.path("/run/console")).unwrap_or_default();
    let is_it = |line: &str| line.starts_with("booted as 10.9.0.1") && line.contains("from 10.9.0.1 alone");
    let booted = || console().lines().any(is_it).then_some(());
    wait_for_or("the booted script", 2 * PATIENCE, booted, || format!("{}\n{}", console(), server.log()));
    server.wait_line(&["told the boot file", "02:00:00:00:00:09", "boot.ipxe"]);
    assert!(!server.log().contains("02:00:00:00:00:07"), "{}", server.log());
    assert_eq!(ask_again(&one), (5, "undionly.kpxe".to_owned()));
}

/// What firmware with an address is told at port 4011: the type of the answer, and the boot file of its header.
fn ask_again(client: &Ns<'_>) -> (u8, String) {
    let address: Ipv4Addr = addresses(client)[0].parse().unwrap();
    let socket = client.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 68)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut message = vec![0; 240];
    message[..8].copy_from_slice(&[1, 1, 6, 0, 4, 3, 2, 1]);
    message[12..16].copy_from_slice(&address.octets());
    message[28..34].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([&[53, 1, 3, 60, 9][..], b"PXEClient", &[93, 2, 0, 0, 255]].concat());
    socket.send_to(&message, "10.9.0.1:4011").unwrap();
    let mut answer = [0; 1500];
    let (_, from) = socket.recv_from(&mut answer).expect("an answer");
    assert_eq!(
        (from, &answer[..8], &answer[240..242]),
        ("10.9.0.1:4011".parse().unwrap(), &[2, 1, 6, 0, 4, 3, 2, 1][..], &[53, 1][..])
    );
    let file = answer[108..236].split(|byte| *byte == 0).next().unwrap_or_default();
    (answer[242], String::from_utf8_lossy(file).into_owned())
}
