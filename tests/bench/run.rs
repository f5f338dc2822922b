//! From `tapvisor run` to a lease and to a web page, and the memory of it, compared with QEMU started by hand with the same guest.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::{Guest, World, cache_file, dist_file, workspace};

use crate::Extent;
use crate::dhcp::{Capture, Killed};
use crate::report::{Gate, Section, grouped, short};
use crate::rounds::{Spread, turns};

/// Longest a guest may take to anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one start took, counted from the command.
#[derive(Debug, Clone, Copy)]
struct Start {
    /// Until the command came back; `None` where it does not before the guest ends.
    command: Option<Duration>,
    lease: Duration,
    page: Duration,
}

/// Resident memory, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    supervisor: u64,
    launcher: u64,
    /// Of the launcher, what no file backs and no other process shares (RssAnon).
    launcher_private: u64,
    qemu: u64,
}

pub(crate) fn measure(extent: Extent) -> Section {
    let world = World::new();
    world.bring_guest();
    let (mut starts, mut memories) = ([Vec::new(), Vec::new()], [Memory::default(); 2]);
    let mut waits = Vec::new();
    for round in 0..extent.of(5) {
        for turn in turns(2, round) {
            let (start, memory) = if turn == 0 {
                let (start, memory, wait) = ours(&world);
                waits.push(wait);
                (start, memory)
            } else {
                by_hand(&world)
            };
            starts[turn].push(start);
            memories[turn] = memory;
        }
    }
    let names = ["`tapvisor run --detach -f examples/masquerade.yaml`", "`qemu-system-x86_64 -netdev user` by hand"];
    let rows = names.iter().enumerate().map(|(at, name)| {
        let seconds = |of: fn(&Start) -> Option<Duration>| {
            let all: Vec<_> = starts[at].iter().filter_map(of).collect();
            if all.is_empty() { "–".to_owned() } else { spread(Spread::of(all)) }
        };
        let bytes = |bytes: u64| if bytes == 0 { "–".to_owned() } else { grouped(bytes) };
        let Memory { supervisor, launcher, launcher_private, qemu } = memories[at];
        vec![
            (*name).to_owned(),
            seconds(|start| start.command),
            seconds(|start| Some(start.lease)),
            seconds(|start| Some(start.page)),
            bytes(supervisor),
            bytes(launcher),
            bytes(launcher_private),
            bytes(qemu),
        ]
    });
    let waits = Spread::of(waits);
    Section {
        title: "A VM from the command to its web page",
        // spec: PERF-11
        command: "bench-run",
        head: vec![
            "",
            "to \"running\", s: min / **median** / max",
            "to the lease, s",
            "to the page, s",
            "supervisor, RSS bytes",
            "launcher",
            "launcher, private bytes",
            "QEMU, guest memory in it",
        ],
        rows: rows.collect(),
        gates: vec![
            Gate::at_most("launcher of an idle VM, resident memory", megabytes(memories[0].launcher), 6.0, "MB"),
            Gate::at_most("launcher of an idle VM, private memory", megabytes(memories[0].launcher_private), 1.0, "MB"),
        ],
        notes: vec![
            format!("n = {}; kernel, initramfs, 128 MiB and machine type are the same; the guest runs in emulation (TCG) in both.", starts[0].len()),
            "By hand the guest's network is QEMU's own (slirp, IPv4 by its DHCP server), without a pod, a plugin, DHCPv6 or Services.".to_owned(),
            format!(
                "DISCOVER → ACK of that guest's client against the launcher, by tcpdump in the pod: {} / **{}** / {} ms.",
                short(waits.min),
                short(waits.median),
                short(waits.p99)
            ),
            "Memory is what was resident after the page was served.".to_owned(),
            format!(
                "`tapvisor-launcher` is a file of {} bytes that links {} crates.",
                grouped(std::fs::metadata(dist_file("tapvisor-launcher")).map_or(0, |file| file.len())),
                linked_crates("launcher")
            ),
        ],
    }
}

fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1000).unwrap_or(u32::MAX)) / 1000.0
}

/// How many packages are in the program of a package, its own included.
fn linked_crates(package: &str) -> usize {
    let arguments =
        ["tree", "--edges=normal,no-proc-macro", "--prefix=none", "--format={p}", "--offline", "--package", package];
    let output = Command::new("cargo").args(arguments).current_dir(workspace()).output().expect("cargo starts");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.split(' ').next()).collect::<BTreeSet<_>>().len()
}

fn spread(spread: Spread) -> String {
    let [min, median, most] = [spread.min, spread.median, spread.p99].map(|time| time.as_secs_f64());
    format!("{min:.2} / **{median:.2}** / {most:.2}")
}

fn ours(world: &World) -> (Start, Memory, Duration) {
    let manifest = workspace().join("examples/masquerade.yaml").display().to_string();
    let guest = Guest::of(world, "web");
    let start = Instant::now();
    world.tapvisor(&["run", "--detach", "-f", &manifest]).assert_ok();
    let command = start.elapsed();
    let capture = Capture::start(world, &guest.pod());
    let address: IpAddr = guest.pod_address("-4").parse().expect("an address");
    let lease = since(start, "the lease", || guest.console().contains("GUEST lease4 ").then_some(()));
    let page = since(start, "the page", || page(world, (address, 80).into()));
    let memory = Memory {
        supervisor: resident(world, "ps -eo rss=,args= | grep 'tapvisor supervise' | grep -v grep"),
        launcher: resident(world, "ps -eo rss=,args= | grep 'tapvisor-launcher launch' | grep -v grep"),
        launcher_private: resident(
            world,
            "awk '/^RssAnon/ { print $2 }' /proc/$(pgrep -f 'tapvisor-launcher launch')/status",
        ),
        qemu: resident(world, QEMU),
    };
    let wait = capture.discover_to_ack();
    drop(capture);
    world.tapvisor(&["rm", "vm/web"]).assert_ok();
    (Start { command: Some(command), lease, page }, memory, wait)
}

const QEMU: &str = "ps -eo rss=,comm= | grep qemu-system";

fn by_hand(world: &World) -> (Start, Memory) {
    let [kernel, initramfs] = ["guest/vmlinuz", "guest/initrd.img"].map(|name| cache_file(name).display().to_string());
    let start = Instant::now();
    let mut command = world.command_without_limit("qemu-system-x86_64");
    command.args([
        "-accel",
        "tcg",
        "-machine",
        "q35,usb=off,vmport=off,smm=off,graphics=off,dump-guest-core=off",
        "-m",
        "128",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
    ]);
    command.args(["-kernel", &kernel, "-initrd", &initramfs, "-append", "console=ttyS0 quiet panic=-1"]);
    command.args(["-serial", "file:/run/by-hand.log", "-pidfile", "/run/by-hand.pid", "-device", "virtio-rng-pci"]);
    command.args(["-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:8080-:80", "-device", "virtio-net-pci,netdev=net"]);
    let qemu = Killed(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("nsenter starts"));
    let log = world.path("/run/by-hand.log");
    let console = || String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
    let lease = since(start, "the lease", || console().contains("GUEST lease4 ").then_some(()));
    let page = since(start, "the page", || page(world, (Ipv4Addr::LOCALHOST, 8080).into()));
    let memory = Memory { qemu: resident(world, QEMU), ..Memory::default() };
    drop(qemu);
    // nsenter was ended, not what it started.
    let end = "pid=$(cat /run/by-hand.pid); kill $pid || true; while [ -e /proc/$pid ]; do sleep 0.05; done; rm /run/by-hand.*";
    world.sh(end).assert_ok();
    (Start { command: None, lease, page }, memory)
}

/// The time from `start` until there is an answer.
fn since(start: Instant, what: &str, mut ask: impl FnMut() -> Option<()>) -> Duration {
    while ask().is_none() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    start.elapsed()
}

/// Whether the guest serves its page.
fn page(world: &World, at: SocketAddr) -> Option<()> {
    world.enter(|| {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_millis(500)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.contains("200 OK").then_some(())
    })
}

/// The sum of the first column, kibibytes, of what a script lists.
fn resident(world: &World, script: &str) -> u64 {
    let text = world.sh(&format!("{{ {script}; }} || true")).text();
    let first = |line: &str| line.split_whitespace().next()?.parse::<u64>().ok();
    text.lines().filter_map(first).sum::<u64>() * 1024
}
