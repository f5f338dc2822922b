//! The network device of our machine: on macvtaps of one end of a veth pair, while the host has the other end.

use std::time::Duration;

use libtest_mimic::Trial;
use machine::base64;
use tests::lab::Finished;
use tests::trial;

const LIMIT: Duration = Duration::from_secs(240);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: LAB-10
        trial("frames pass between guest and host, also with offloads", || {
            let finished = streams("");
            assert!(!finished.output.contains("worker: vhost-"), "{finished}");
            moved_by(&finished, "Own");
        }),
        // spec: LAB-12
        trial("vhost-net moves the frames in a thread of the kernel", || {
            let finished = streams("vhost");
            assert!(finished.output.contains("worker: vhost-"), "{finished}");
            moved_by(&finished, "VhostNet");
            // What the kernel moves, this process does not count.
            assert!(
                finished.output.contains("QueueCounts { frames: 0, bytes: 0, dropped: 0, filtered: 0 }"),
                "{finished}"
            );
        }),
        // spec: LAB-13
        trial("a guest of 2 processors uses 2 pairs of queues", || several_queues("pairs=2", "Own")),
        // spec: LAB-13
        trial("a guest of 2 processors uses 2 pairs of queues of vhost-net", || {
            several_queues("pairs=2 vhost", "VhostNet")
        }),
        // spec: LAB-13
        trial("frames of MTU 1280, 1500 and 9000 pass whole", mtus),
        // spec: LAB-34
        trial("TCP of a guest with offloads has valid checksums", || checksums(true)),
        // spec: LAB-34
        trial("TCP of a guest without offloads has valid checksums", || checksums(false)),
        // spec: LAB-31
        trial("a guest gets the frames that its driver wants and no others", filtered),
        // spec: LAB-14
        trial("a guest sees its link go down and up, and frames pass again", || link("")),
        // spec: LAB-14
        trial("a guest on vhost-net sees its link go down and up", || link("vhost")),
        // spec: LAB-14
        trial("a guest goes on with its connection after a pause", || pause("")),
        // spec: LAB-14
        trial("a guest on vhost-net goes on with its connection after a pause", || pause("vhost")),
        // spec: LAB-24
        trial("a driver that writes malformed rings stops its own device alone", malformed),
        // spec: LAB-21
        trial("a guest goes on with its connection from a snapshot", || snapshot("", "Own")),
        // spec: LAB-21
        trial("a guest on vhost-net goes on with its connection from a snapshot", || {
            snapshot("pairs=2 vhost", "VhostNet");
        }),
    ]
}

fn moved_by(finished: &Finished, path: &str) {
    assert!(
        finished.output.contains(&format!("vmm-boot: frames are moved by {path}: ")),
        "expected {path}\n{finished}"
    );
}

/// Runs a guest on a link; `host` runs before it in the background or not, `devices` are words of VMM_NICS without nodes,
/// `guest` runs in it, `reactions` are texts and commands of vmm-boot.
fn run(case: &str, mtu: u32, devices: &[&str], host: &str, guest: &str, reactions: &str) -> Finished {
    let mut links = String::new();
    let mut nics = Vec::new();
    for (at, words) in devices.iter().enumerate() {
        let address = 0x17 + at;
        links.push_str(&format!(
            "$IP link add link near name mv{at} address 02:00:00:00:00:{address:02x} type macvtap mode bridge; $IP link set mv{at} up\n"
        ));
        nics.push(format!("/dev/tap$(cat /sys/class/net/mv{at}/ifindex) {words}"));
    }
    let script = format!(
        "set -e
        ! $IP link del near 2>/dev/null || sleep 1
        $IP link add near mtu {mtu} type veth peer name far mtu {mtu}
        for link in near far; do $IP link set $link up; done
        {links}
        $IP addr add 192.0.2.1/24 dev far
        {host}
        export VMM_NICS=\"{}\"
        vmm-boot $LAB/guest/vmlinux $LAB/guest/initrd 'console=ttyS0 panic=-1 quiet lab.run={} lab.end=poweroff' 2 128 {reactions}",
        nics.join(", "),
        base64::encode(guest.as_bytes())
    );
    let mut finished = crate::run(case, &script, LIMIT);
    finished.output = finished.output.replace('\r', "");
    assert_eq!(finished.code, 0, "{finished}");
    assert!(finished.output.contains("\nvmm-boot: ended PoweredOff"), "{finished}");
    finished
}

/// A listener ends its side when its input ends, so it has one that does not; it sends what it is sent.
const UP: &str = "ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0";
/// Not one packet is counted: on a busy machine one may be late, or lost with the neighbour that the host has forgotten.
const REACHES: &str = "until ping -c 1 -w 5 192.0.2.1 >/dev/null; do :; done; echo host-reached";

fn streams(words: &str) -> Finished {
    let host = "head -c 5000000 /dev/urandom >/tmp/sent; md5sum </tmp/sent
        busybox nc -l -p 5000 </tmp/sent &
        tail -f /dev/null | busybox nc -l -p 5001 | wc -c &
        (until grep -h '^vhost-' /proc/[0-9]*/comm 2>/dev/null | sed 's/^/worker: /' | grep .; do sleep 1; done) &";
    let guest = format!(
        "{UP}; {REACHES}; nc 192.0.2.1 5000 | md5sum; head -c 3000000 /dev/zero | nc 192.0.2.1 5001; echo all-sent; read -t 2"
    );
    let finished = run("streams of frames", 1500, &[words], host, &guest, "all-sent report");
    assert!(finished.output.contains("host-reached\n"), "{finished}");
    assert!(finished.output.contains("\n3000000\n"), "{finished}");
    let sums: Vec<_> = finished.output.lines().filter_map(|line| line.strip_suffix("  -")).collect();
    assert!(matches!(sums[..], [sent, received] if sent == received), "{finished}");
    finished
}

fn several_queues(words: &str, path: &str) {
    let guest = format!(
        "{UP}; ls /sys/class/net/eth0/queues | tr '\\n' ' '; echo; {REACHES}; \
         nc 192.0.2.1 5000 | md5sum; echo all-sent; read -t 2; grep -c 'virtio0-input\\|virtio0-output' /proc/interrupts"
    );
    let host = "head -c 2000000 /dev/urandom >/tmp/sent; md5sum </tmp/sent; busybox nc -l -p 5000 </tmp/sent &";
    let finished = run("several queues", 1500, &[words], host, &guest, "all-sent report");
    assert!(finished.output.contains("rx-0 rx-1 tx-0 tx-1"), "{finished}");
    assert!(finished.output.contains("host-reached\n"), "{finished}");
    assert!(finished.output.contains("\n4\n"), "four interrupts of queues\n{finished}");
    let sums: Vec<_> = finished.output.lines().filter_map(|line| line.strip_suffix("  -")).collect();
    assert!(matches!(sums[..], [sent, received] if sent == received), "{finished}");
    moved_by(&finished, path);
}

fn mtus() {
    // Of several devices each is tried alone: the host sees one subnet.
    let guest = "for n in 0 1 2; do m=$(cat /sys/class/net/eth$n/mtu); echo mtu $m; ip link set eth$n up; ip addr add 192.0.2.2/24 dev eth$n; \
        until ping -c 1 -w 5 -s $((m - 28)) 192.0.2.1 >/dev/null; do :; done; echo whole; ip addr del 192.0.2.2/24 dev eth$n; ip link set eth$n down; done";
    // The neighbour moves from device to device.
    let host = "(while sleep 1; do $IP neigh flush dev far; done) &";
    let finished = run("MTUs", 9000, &["mtu=1280", "mtu=1500 vhost", "mtu=9000"], host, guest, "");
    for mtu in [1280, 1500, 9000] {
        assert!(finished.output.contains(&format!("mtu {mtu}\nwhole\n")), "{finished}");
    }
}

/// tcpdump listens at the far end of a link without offloads: what it sees was cut into frames and summed before, by the guest or,
/// of a guest with offloads, by the host's kernel as the header of virtio says.
fn checksums(offloads: bool) {
    let driver = if offloads { "" } else { "rmmod virtio_net; insmod /modules/virtio_net.ko csum=0 gso=0; " };
    // A server sends files in pieces of the kernel's choice, which makes large frames of them where the device takes these.
    let host = "for link in near far; do ethtool -K $link tx off tso off gso off gro off; done
        rm -f /tmp/all-fetched; : >/tmp/fetched
        head -c 2000000 /dev/urandom >/tmp/sent; md5sum </tmp/sent
        busybox nc -l -p 5000 </tmp/sent &
        (until [ $(wc -c </tmp/fetched) -gt 3000000 ]; do
            printf 'GET /zeros HTTP/1.0\\r\\n\\r\\n' | busybox nc 192.0.2.2 5001 >/tmp/fetched 2>/dev/null || sleep 0.5
        done; touch /tmp/all-fetched) &
        tcpdump -i far -Z root -s 0 -w /tmp/capture tcp 2>/tmp/heard &
        until grep -q 'listening on' /tmp/heard; do kill -0 $! || { cat /tmp/heard; exit 1; }; sleep 0.1; done";
    let guest = format!(
        "{driver}{UP}; {REACHES}; nc 192.0.2.1 5000 | md5sum; mkdir -p /tmp; head -c 3000000 /dev/zero >/tmp/zeros; httpd -p 5001 -h /tmp; \
         echo serves; read x"
    );
    let reactions = "serves 'await /tmp/all-fetched' '' report '' 'type go'; kill $!; wait $! || true
        tcpdump -Z root -vv -n -r /tmp/capture >/tmp/frames
        echo \"correct: $(grep -c '(correct)' /tmp/frames), incorrect: $(grep -c 'incorrect\\|bad cksum' /tmp/frames)\"
        echo \"fetched: $(wc -c </tmp/fetched)\"
        rm /tmp/capture /tmp/frames /tmp/fetched";
    let finished = run("checksums", 1500, &[""], host, &guest, reactions);
    let sums: Vec<_> = finished.output.lines().filter_map(|line| line.strip_suffix("  -")).collect();
    assert!(matches!(sums[..], [sent, received] if sent == received), "{finished}");
    assert!(number(&finished, "\nfetched: ") > 3_000_000, "{finished}");
    let (correct, incorrect) = (number(&finished, "\ncorrect: "), number(&finished, ", incorrect: "));
    // 5 MB in frames of 1500 bytes.
    assert!(correct > 3000 && incorrect == 0, "{correct} correct, {incorrect} incorrect\n{finished}");
    // The report's second queue is what the guest sends.
    let sent = finished.output.split_once("}, QueueCounts { ").map(|(_, sent)| format!("\n{sent}")).unwrap_or_default();
    let sent = Finished { output: sent, ..finished };
    let bytes = number(&sent, "bytes: ") / number(&sent, "\nframes: ");
    assert_eq!(bytes > 1514, offloads, "{bytes} bytes in a frame of the guest\n{sent}");
}

/// The number that follows a text.
fn number(finished: &Finished, after: &str) -> u64 {
    let rest = finished.output.split_once(after).map(|(_, rest)| rest).unwrap_or_default();
    let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("no number after {after:?}\n{finished}"))
}

/// On a tap, for a macvtap has a filter of its own. The host sends to an address that is not the guest's.
fn filtered() {
    let count = "cat /sys/class/net/eth0/statistics/rx_packets";
    let guest = format!(
        "{UP}; {REACHES}; read x; ip link set eth0 promisc on; n=$({count}); until [ $({count}) -gt $((n + 3)) ]; do sleep 0.2; done; \
         echo receives-all; ip link set eth0 promisc off; ip link set eth0 address 02:00:00:00:00:77; {REACHES}"
    );
    let script = format!(
        "set -e
        $IP link del near 2>/dev/null || true
        $IP link del tap0 2>/dev/null || true
        rm -f /tmp/pinged
        $IP tuntap add tap0 mode tap vnet_hdr
        $IP link set tap0 up
        $IP addr add 192.0.2.1/24 dev tap0
        $IP neigh add 192.0.2.99 lladdr 02:00:00:00:00:99 dev tap0
        VMM_NICS=tap:tap0 vmm-boot $LAB/guest/vmlinux $LAB/guest/initrd 'console=ttyS0 panic=-1 quiet lab.run={} lab.end=poweroff' 1 128 \\
            host-reached 'await /tmp/pinged' '' report '' 'type go' >/tmp/guest 2>&1 &
        vm=$!
        until grep -q host-reached /tmp/guest; do sleep 0.2; done
        ping -c 3 -w 3 192.0.2.99 || true
        touch /tmp/pinged
        (set +e; while :; do ping -c 1 -w 1 192.0.2.99; $IP neigh flush to 192.0.2.2 dev tap0; done) >/dev/null 2>&1 &
        wait $vm
        cat /tmp/guest
        rm /tmp/guest /tmp/pinged
        $IP link del tap0",
        base64::encode(guest.as_bytes())
    );
    let mut finished = crate::run("a filter", &script, LIMIT);
    finished.output = finished.output.replace('\r', "");
    assert_eq!(finished.code, 0, "{finished}");
    assert!(number(&finished, ", filtered: ") >= 3, "{finished}");
    let after = finished.output.split_once("receives-all\n").map(|(_, after)| after).unwrap_or_default();
    assert!(after.contains("host-reached\n"), "{finished}");
}

fn link(words: &str) {
    let guest = format!(
        "{UP}; until ping -c 1 -w 5 192.0.2.1 >/dev/null; do :; done; echo is-up; \
         until [ \"$(cat /sys/class/net/eth0/carrier)\" = 0 ]; do sleep 0.1; done; echo has-no-carrier; \
         until [ \"$(cat /sys/class/net/eth0/carrier)\" = 1 ]; do sleep 0.1; done; {REACHES}"
    );
    let host = "tcpdump -i far -Z root -n -l arp >/tmp/arp 2>/tmp/heard &
        listens=$!
        until grep -q 'listening on' /tmp/heard; do kill -0 $listens || { cat /tmp/heard; exit 1; }; sleep 0.1; done";
    let reactions = "is-up link-down has-no-carrier link-up
        kill $listens; wait $listens || true; sed 's/^/arp: /' /tmp/arp; rm /tmp/arp /tmp/heard";
    let finished = run("a link", 1500, &[words], host, &guest, reactions);
    assert!(finished.output.contains("host-reached\n"), "{finished}");
    // Linux announces an address by itself only where it is told to (arp_notify): the device asked for it.
    let is_announcement = |line: &&str| {
        line.starts_with("arp: ")
            && (line.contains("Announcement 192.0.2.2,")
                || line.contains("tell 192.0.2.2,") && line.contains("who-has 192.0.2.2 "))
    };
    assert!(finished.output.lines().any(|line| is_announcement(&line)), "the guest is not announced\n{finished}");
}

fn pause(words: &str) {
    let host = "head -c 5000000 /dev/urandom >/tmp/sent; md5sum </tmp/sent; busybox nc -l -p 5000 </tmp/sent &";
    let guest = format!("{UP}; echo begins; nc 192.0.2.1 5000 | md5sum");
    let finished = run("a pause", 1500, &[words], host, &guest, "begins pause");
    assert!(finished.output.contains("vmm-boot: Paused\n"), "{finished}");
    let sums: Vec<_> = finished.output.lines().filter_map(|line| line.strip_suffix("  -")).collect();
    assert!(matches!(sums[..], [sent, received] if sent == received), "{finished}");
}

fn snapshot(words: &str, path: &str) {
    // It takes five seconds at least, so that the snapshot is in the middle of it.
    let host = "head -c 2000000 /dev/urandom >/tmp/sent; md5sum </tmp/sent
        (for part in $(seq 0 19); do dd if=/tmp/sent bs=100000 skip=$part count=1 2>/dev/null; sleep 0.25; done) | busybox nc -l -p 5000 &";
    let guest = format!("{UP}; echo begins; nc 192.0.2.1 5000 | md5sum; echo all-received; read -t 2");
    let reactions = "begins 'save /tmp/snapshot'
        ls -s /tmp/snapshot
        VMM_SNAPSHOT=/tmp/snapshot vmm-boot $LAB/guest/vmlinux $LAB/guest/initrd '' 2 128 all-received report";
    let finished =
        run("a snapshot under traffic", 1500, &[words], host, &guest, &format!("{reactions}; rm -r /tmp/snapshot"));
    let first = finished.output.split_once("vmm-boot: saved Ok(())\n").map(|(_, after)| after);
    let first = first.unwrap_or_else(|| panic!("nothing is saved\n{finished}"));
    assert!(first.contains("vmm-boot: ended Killed"), "{finished}");
    assert!(!first.contains("guest: init with"), "the guest has booted again\n{finished}");
    let sums: Vec<_> = finished.output.lines().filter_map(|line| line.strip_suffix("  -")).collect();
    assert!(matches!(sums[..], [sent, received] if sent == received), "{finished}");
    moved_by(&finished, path);
}

/// A driver in the guest's shell: it takes the entropy device, in slot 2, and gives it the kernel's command line for a ring.
fn malformed() {
    let guest = format!(
        "{UP}; cd /sys/bus/pci/drivers/virtio-pci; echo 0000:00:02.0 >unbind; echo 1 >../../devices/0000:00:02.0/enable
        bar=$(sed 's/ .*//;q' ../../devices/0000:00:02.0/resource)
        at() {{ offset=$1; shift; devmem $((bar + offset)) $*; }}
        ring() {{ at 20 8 0; at 20 8 3; at 8 32 1; at 12 32 1; at 20 8 11; at 22 16 0; at 24 16 64
            at 32 32 $1; at 40 32 $2; at 44 32 $3; at 48 32 0x30000; at 28 16 1; at 20 8 15; sleep 1; echo \"status $(at 20 8)\"; }}
        ring 0x20000 0x20000 0; ring 0x20000 0x30000 0xffffff00; {REACHES}
        echo 0000:00:02.0 >bind; head -c 100 /dev/hwrng | wc -c; echo both-work"
    );
    let finished = run("a malformed ring", 1500, &[""], "", &guest, "");
    assert_eq!(finished.output.matches("status 0x4").count(), 2, "both ask for a reset (bit 6)\n{finished}");
    assert!(finished.output.contains("host-reached\n"), "{finished}");
    assert!(finished.output.contains("\n100\nboth-work\n"), "{finished}");
}
