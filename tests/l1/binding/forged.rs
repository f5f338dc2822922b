//! A hostile guest behind masquerade: frames it forges neither leave the pod nor reach the pod's loopback.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use etherparse::PacketBuilder;
use libtest_mimic::Trial;
use serde_json::json;
use tests::{Ns, Outside, Tap, trial, wait_for};

use super::chain::{Chain, Stack, network, tapvisor, world};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("frames a masquerade guest forges never leave the pod", nothing_leaves)]
}

const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 0x42];
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0];
const FORGED: &[u8] = b"forged-by-the-guest";
const HONEST: &[u8] = b"honest-word-of-the-guest";
const GUEST_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 2);
const PORT: u16 = 8099;

fn udp4(from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let to_mac = if to.is_broadcast() { [0xff; 6] } else { GATEWAY };
    let packet = PacketBuilder::ethernet2(GUEST, to_mac).ipv4(from.octets(), to.octets(), 64).udp(ports.0, ports.1);
    let mut frame = Vec::new();
    packet.write(&mut frame, payload).unwrap();
    frame
}

fn udp6(from: Ipv6Addr, to: Ipv6Addr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let to_mac = if to.is_multicast() { [0x33, 0x33, 0, 0, 0, 1] } else { GATEWAY };
    let packet = PacketBuilder::ethernet2(GUEST, to_mac).ipv6(from.octets(), to.octets(), 64).udp(ports.0, ports.1);
    let mut frame = Vec::new();
    packet.write(&mut frame, payload).unwrap();
    frame
}

/// A router advertisement for a prefix of the guest's own, with the marker as an unknown option.
fn advertisement(from: Ipv6Addr) -> Vec<u8> {
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    let packet = PacketBuilder::ethernet2(GUEST, [0x33, 0x33, 0, 0, 0, 1]).ipv6(from.octets(), all.octets(), 255);
    let mut body = vec![0; 8];
    body.extend([253, 3]);
    body.extend(FORGED);
    body.extend([0; 3]);
    let packet = packet.icmpv6_raw(134, 0, [64, 0, 0x07, 0x08]);
    let mut frame = Vec::new();
    packet.write(&mut frame, &body).unwrap();
    frame
}

/// An unsolicited ARP answer: `claimed` is at the guest.
fn arp_claim(claimed: Ipv4Addr) -> Vec<u8> {
    let mut frame = [[0xff; 6], GUEST].concat();
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(GUEST);
    frame.extend(claimed.octets());
    frame.extend([0xff; 6]);
    frame.extend(claimed.octets());
    frame.extend([0; 18]);
    frame
}

/// Everything the guest should not get away with.
fn forgeries(pod_v4: Ipv4Addr, pod_v6: Ipv6Addr) -> Vec<Vec<u8>> {
    let outside4: Ipv4Addr = Outside::V4.parse().unwrap();
    let outside6: Ipv6Addr = Outside::V6.parse().unwrap();
    let foreign4 = [Ipv4Addr::new(203, 0, 113, 9), Ipv4Addr::new(10, 0, 2, 50), Ipv4Addr::new(192, 0, 2, 2), pod_v4];
    let foreign6 = ["2001:db8:bad::9", "fd10:0:2::50", "2001:db8:1::2", "fe80::bad"];
    let mut frames: Vec<_> = foreign4.iter().map(|from| udp4(*from, outside4, (PORT, PORT), FORGED)).collect();
    frames.extend(foreign6.iter().map(|from| udp6(from.parse().unwrap(), outside6, (PORT, PORT), FORGED)));
    frames.push(udp6(pod_v6, outside6, (PORT, PORT), FORGED));
    let loopback = Ipv4Addr::LOCALHOST;
    frames.push(udp4(GUEST_V4, loopback, (PORT, PORT), FORGED));
    frames.push(udp4(GUEST_V4, Ipv4Addr::new(127, 9, 9, 9), (PORT, PORT), FORGED));
    frames.push(udp4(loopback, pod_v4, (PORT, PORT), FORGED));
    frames.push(udp6(GUEST_V6, Ipv6Addr::LOCALHOST, (PORT, PORT), FORGED));
    frames.push(udp6(Ipv6Addr::LOCALHOST, pod_v6, (PORT, PORT), FORGED));
    frames.push(udp4(GUEST_V4, Ipv4Addr::BROADCAST, (67, 68), FORGED));
    frames.push(udp6("fe80::bad".parse().unwrap(), "ff02::1".parse().unwrap(), (547, 546), FORGED));
    frames.push(advertisement("fe80::bad".parse().unwrap()));
    frames.push(advertisement("fe80::ff:fe00:0".parse().unwrap()));
    frames.push(arp_claim(pod_v4));
    frames.push(arp_claim(Ipv4Addr::new(10, 244, 1, 1)));
    frames
}

fn nothing_leaves() {
    let world = world();
    let mut chain = Chain::new(&world, "pod", &[network("ptp", Stack::Dual)]);
    chain.plugins.push(tapvisor(&json!([{"name": "default", "podInterface": "eth0", "binding": "masquerade"}])));
    chain.add();
    let address = |version| chain.address(version).unwrap().to_string();
    let (pod_v4, pod_v6) = (address(4).parse().unwrap(), address(6).parse().unwrap());
    let loopback = chain.pod().enter(|| {
        ["127.0.0.1", "127.9.9.9", "::1"].map(|address| {
            let socket = UdpSocket::bind((address, PORT)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
    });

    let seen = captured(chain.pod(), || {
        let guest = chain.pod().enter(|| Tap::attach("k6t-eth0", false));
        for frame in forgeries(pod_v4, pod_v6) {
            guest.send(&frame);
        }
        // The proof that the capture sees what does leave, and the end of it.
        guest.send(&udp4(GUEST_V4, Outside::V4.parse().unwrap(), (PORT, PORT), HONEST));
        guest.send(&udp6(GUEST_V6, Outside::V6.parse().unwrap(), (PORT, PORT), HONEST));
    });
    assert!(!seen.contains("forged-by"), "left the pod:\n{seen}");
    assert!(!seen.to_lowercase().contains("router advertisement"), "left the pod:\n{seen}");
    assert!(!seen.contains("02:00:00:00:00:42"), "the guest's own address left the pod:\n{seen}");
    for socket in &loopback {
        let mut buffer = [0; 64];
        let got = socket.recv_from(&mut buffer);
        assert!(got.is_err(), "{:?} reached the pod's {:?}", got, socket.local_addr());
    }
    chain.del();
}

/// What goes through the pod's own NIC while `act` runs, until the honest words of both families were seen.
fn captured(pod: &Ns<'_>, act: impl FnOnce()) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seen");
    let output = std::fs::File::create(&file).unwrap();
    let mut command = pod.command("tcpdump");
    command.args(["-i", "eth0", "-nelAU", "--immediate-mode"]).stdout(output).stderr(Stdio::null());
    let mut tcpdump = command.spawn().unwrap();
    let read = || String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
    // Pings until the capture shows one: from then on it sees all.
    wait_for("tcpdump to listen", Duration::from_secs(60), || {
        let _ = pod.run(&["ping", "-c", "1", "-W", "1", Outside::V4]);
        read().contains("echo request").then_some(())
    });
    act();
    let both = || {
        let seen = read();
        (seen.matches("honest-word").count() >= 2).then_some(seen)
    };
    let (_, _) = wait_for("the honest words", Duration::from_secs(60), both);
    std::thread::sleep(Duration::from_millis(300));
    let seen = read();
    let _ = pod.world().run(&["pkill", "-INT", "-x", "tcpdump"]);
    let _ = tcpdump.wait();
    seen
}
