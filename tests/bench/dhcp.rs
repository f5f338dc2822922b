//! DHCP: answers per second of the engine without a socket, and how long a guest waits, compared with dnsmasq.

use std::fs::File;
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ::dhcp::{Config, Engine, Lifetime, Prefix, Router, V4Config, V6Config};
use etherparse::PacketBuilder;
use terms::MacAddr;
use tests::{DhcpService, FakeGuest, Ns, Tap, World, inside, wait_for};

use crate::Extent;
use crate::pods;
use crate::report::{Gate, Section, grouped, milliseconds, times};
use crate::rounds::{Ratio, Spread, turns};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

/// A pod whose tap has dnsmasq behind it as ours has the service tap.
const DNSMASQ_POD: &str = "ip tuntap add k6t-eth0 mode tap vnet_hdr
ip addr add 10.0.2.1/24 dev k6t-eth0
ip link set k6t-eth0 up";

const KINDS: [&str; 4] = [
    "DISCOVER → OFFER, at the tap",
    "REQUEST → ACK, at the tap",
    "DISCOVER → ACK of udhcpc, by tcpdump",
    "of it what the server took",
];
/// The kind that says more of the client than of the server.
const WHOLE: usize = 2;

const EXCHANGES: usize = 200;
const CLIENTS: usize = 15;

const DNSMASQ: [&str; 11] = [
    "dnsmasq",
    "--keep-in-foreground",
    "--conf-file=/dev/null",
    "--port=0",
    "--interface=k6t-eth0",
    "--dhcp-range=10.0.2.2,10.0.2.2,1h",
    "--dhcp-authoritative",
    // Neither asks the wire whether the address is free, nor keeps a file: it shall be as quick as it can.
    "--no-ping",
    "--leasefile-ro",
    "--pid-file=",
    "--log-facility=/dev/null",
];

fn config() -> Config {
    let mut config = Config::new(MacAddr::new(MAC).expect("an address"), MacAddr::local([0x74, 0x61, 0x70, 0, 1]));
    config.hostname = Some("vm".to_owned());
    config.v4 = Some(V4Config {
        address: "10.0.2.2/24".parse().expect("an address"),
        server_id: Ipv4Addr::new(10, 0, 2, 1),
        router: Some(Ipv4Addr::new(10, 0, 2, 1)),
        lease: Lifetime::Seconds(3600),
        ..V4Config::default()
    });
    config.v6 = Some(V6Config {
        address: "fd10:0:2::2".parse().expect("an address"),
        preferred: Lifetime::Seconds(3600),
        valid: Lifetime::Seconds(7200),
        router: Router::Gateway {
            link_local: "fe80::ff:fe00:0".parse().expect("an address"),
            link_layer: Some(MacAddr::local([0; 5])),
        },
        router_lifetime_seconds: 1800,
        prefixes: vec![Prefix { network: "fd10:0:2::/120".parse().expect("a network"), on_link: true }],
        routes: Vec::new(),
        boot_file_url: None,
    });
    config
}

/// A broadcast DHCPv4 message of a client that has no address.
fn message(kind: u8, number: u32) -> Vec<u8> {
    let mut body = vec![1, 1, 6, 0];
    body.extend(number.to_be_bytes());
    body.resize(28, 0);
    body.extend(MAC);
    body.resize(236, 0);
    body.extend([99, 130, 83, 99, 53, 1, kind, 55, 5, 1, 3, 6, 51, 121]);
    if kind == REQUEST {
        body.extend([50, 4, 10, 0, 2, 2, 54, 4, 10, 0, 2, 1]);
    }
    body.push(255);
    body.resize(300, 0);
    let packet = PacketBuilder::ethernet2(MAC, [0xff; 6]).ipv4([0; 4], [255; 4], 64).udp(68, 67);
    written(|frame| packet.write(frame, &body))
}

fn solicit() -> Vec<u8> {
    let mut body = vec![1, 0, 0, 1, 0, 1, 0, 10, 0, 3, 0, 1];
    body.extend(MAC);
    body.extend([0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 2, 0, 0]);
    let servers: Ipv6Addr = "ff02::1:2".parse().expect("an address");
    let packet = PacketBuilder::ethernet2(MAC, [0x33, 0x33, 0, 1, 0, 2]).ipv6(link_local(), servers.octets(), 1);
    written(|frame| packet.udp(546, 547).write(frame, &body))
}

fn router_solicitation() -> Vec<u8> {
    let routers: Ipv6Addr = "ff02::2".parse().expect("an address");
    let packet = PacketBuilder::ethernet2(MAC, [0x33, 0x33, 0, 0, 0, 2]).ipv6(link_local(), routers.octets(), 255);
    written(|frame| packet.icmpv6_raw(133, 0, [0; 4]).write(frame, &[]))
}

fn link_local() -> [u8; 16] {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 7).octets()
}

fn written<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame).expect("memory takes what is written");
    frame
}

/// Answers per second to one kind of question, the best of several runs.
fn engine_rate(frame: &[u8], answers: usize) -> u64 {
    let run = || {
        let mut engine = Engine::new(config()).expect("the configuration is valid");
        let mut now = Duration::ZERO;
        let start = Instant::now();
        for _ in 0..answers {
            // As much later as the engine wants between two answers in the long run.
            now += Duration::from_millis(20);
            assert_eq!(black_box(engine.on_frame(now, black_box(frame))).len(), 1, "each question has one answer");
        }
        start.elapsed()
    };
    let best = (0..5).map(|_| run()).min().unwrap_or_default();
    u64::try_from(answers).unwrap_or(0) * 1_000_000 / u64::try_from(best.as_micros()).unwrap_or(1).max(1)
}

/// A server that answers behind a tap.
struct Server<'w> {
    pod: Ns<'w>,
    _service: Option<DhcpService>,
    _dnsmasq: Option<Killed>,
}

/// A process that ends with its owner.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl<'w> Server<'w> {
    fn ours(world: &'w World) -> Self {
        pods::make(world, &["ours"]);
        let add = pods::call(
            &tests::dist_file("tapvisor-cni"),
            "ADD",
            "ours",
            &pods::tapvisor(Some("masquerade")),
            Some(&pods::previous()),
        );
        inside(world, || add.run());
        let pod = world.named("ours");
        let service = DhcpService::start("bench", &pod, "svc-eth0", config());
        Self { pod, _service: Some(service), _dnsmasq: None }
    }

    fn dnsmasq(world: &'w World) -> Self {
        let pod = world.ns("dnsmasq");
        pod.sh(DNSMASQ_POD).assert_ok();
        let mut command = world.command_without_limit("ip");
        command.args(["netns", "exec", "dnsmasq"]).args(DNSMASQ);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("nsenter starts");
        let server = Self { pod, _service: None, _dnsmasq: Some(Killed(child)) };
        let sockets = ["ss", "-lun"];
        wait_for("dnsmasq", Duration::from_secs(10), || server.pod.run(&sockets).text().contains(":67 ").then_some(()));
        server
    }
}

/// Asks until there is an answer: a link that has just got its carrier loses frames.
fn greet(tap: &Tap) {
    let answered = || {
        tap.send(&message(DISCOVER, 0));
        tap.receive(500).filter(|frame| answers(frame, 0).is_some())
    };
    wait_for("the first answer", Duration::from_secs(10), answered);
}

/// How long DISCOVER and REQUEST waited for their answers, from the descriptor of the VM's tap.
fn exchange(tap: &Tap, number: u32) -> [Duration; 2] {
    [(DISCOVER, 2), (REQUEST, 5)].map(|(kind, wanted)| {
        let question = message(kind, number);
        let start = Instant::now();
        tap.send(&question);
        while start.elapsed() < Duration::from_secs(5) {
            if let Some(frame) = tap.receive(1000)
                && answers(&frame, number) == Some(wanted)
            {
                return start.elapsed();
            }
        }
        panic!("no answer to message {kind}")
    })
}

/// The kind of DHCPv4 message that a frame answers this number with.
fn answers(frame: &[u8], number: u32) -> Option<u8> {
    const BOOTP: usize = 14 + 20 + 8;
    (frame.get(12..14)? == [8, 0] && frame.get(23) == Some(&17)).then_some(())?;
    let body = frame.get(BOOTP..)?;
    (body.first() == Some(&2) && body.get(4..8)? == number.to_be_bytes()).then_some(())?;
    let at = body.get(240..)?.windows(2).position(|option| option == [53, 1])?;
    body.get(240 + at + 2).copied()
}

/// One run of udhcpc, by tcpdump on the guest's segment: from DISCOVER to ACK, and how much of it the server took.
fn by_tcpdump(world: &World, guest: &FakeGuest<'_>, pod: &Ns<'_>) -> [Duration; 2] {
    let capture = Capture::start(world, pod);
    let client = ["busybox", "udhcpc", "-f", "-q", "-n", "-i", "eth0", "-s", "/bin/true", "-t", "5", "-T", "2"];
    guest.ns().run(&client).assert_ok();
    let [discover, offer, request, ack] = capture.messages();
    [ack - discover, (offer - discover) + (ack - request)].map(|seconds| Duration::from_secs_f64(seconds.max(0.0)))
}

/// tcpdump on the segment of a pod's guest; ends when dropped.
pub(crate) struct Capture {
    seen: PathBuf,
    _tcpdump: Killed,
}

impl Capture {
    /// Returns when it listens.
    pub(crate) fn start(world: &World, pod: &Ns<'_>) -> Self {
        let [seen, said] = ["seen", "said"].map(|what| world.path(format!("/run/{}.{what}", pod.name())));
        let mut command = world.command_without_limit("ip");
        command.args(["netns", "exec", pod.name(), "tcpdump", "-i", "k6t-eth0", "-nltt", "-v", "udp", "port", "67"]);
        let [output, words] = [&seen, &said].map(|path| File::create(path).expect("a file can be made"));
        let tcpdump = Killed(command.stdout(output).stderr(words).spawn().expect("nsenter starts"));
        let listens = || std::fs::read_to_string(&said).unwrap_or_default().contains("listening on").then_some(());
        wait_for("tcpdump", Duration::from_secs(10), listens);
        Self { seen, _tcpdump: tcpdump }
    }

    /// Between the first of each, once both were seen.
    pub(crate) fn discover_to_ack(&self) -> Duration {
        let [discover, .., ack] = self.messages();
        Duration::from_secs_f64((ack - discover).max(0.0))
    }

    /// When the first DISCOVER, OFFER, REQUEST and ACK were seen, in seconds, once all were.
    fn messages(&self) -> [f64; 4] {
        let seen = || {
            let text = std::fs::read_to_string(&self.seen).unwrap_or_default();
            let at = |word: &str| {
                let stamp = |line: &str| line.split_whitespace().next()?.parse().ok();
                text.split_once(word)?.0.lines().rev().find_map(stamp)
            };
            Some([at(": Discover")?, at(": Offer")?, at(": Request\n")?, at(": ACK")?])
        };
        wait_for("DISCOVER, OFFER, REQUEST and ACK", Duration::from_secs(60), seen).0
    }
}

fn engine_rows(answers: usize) -> Vec<Vec<String>> {
    let questions = [
        ("DISCOVER", message(DISCOVER, 1)),
        ("REQUEST", message(REQUEST, 1)),
        ("DHCPv6 SOLICIT", solicit()),
        ("router solicitation", router_solicitation()),
    ];
    let row = |(question, frame): (&str, Vec<u8>)| {
        let rate = grouped(engine_rate(&frame, answers));
        vec!["engine without a socket".to_owned(), question.to_owned(), rate, "–".to_owned(), "–".to_owned()]
    };
    questions.into_iter().map(row).collect()
}

pub(crate) fn measure(extent: Extent) -> Section {
    let mut rows = engine_rows(extent.of(200_000));
    let world = World::bare();
    let servers = [Server::ours(&world), Server::dnsmasq(&world)];
    let mut waits = [(); 2].map(|()| [(); KINDS.len()].map(|()| Vec::new()));
    let taps = servers.each_ref().map(|server| server.pod.enter(|| Tap::attach("k6t-eth0", false)));
    taps.iter().for_each(greet);
    for number in 0..extent.of(EXCHANGES) {
        for turn in turns(servers.len(), number) {
            let [offer, ack] = exchange(&taps[turn], u32::try_from(number).unwrap_or(0) + 1);
            waits[turn][0].push(offer);
            waits[turn][1].push(ack);
        }
        // One VM's engine gives fifty answers a second, however often it is asked.
        std::thread::sleep(Duration::from_millis(40));
    }
    drop(taps);
    eprintln!("bench: dhcp: tcpdump");
    let guests = servers.each_ref().map(|server| {
        FakeGuest::plug(&world, &format!("guest-{}", server.pod.name()), &server.pod, "k6t-eth0", "02:00:00:00:00:07")
    });
    for number in 0..extent.of(CLIENTS) {
        for turn in turns(servers.len(), number) {
            let waited = by_tcpdump(&world, &guests[turn], &servers[turn].pod);
            waits[turn][WHOLE..].iter_mut().zip(waited).for_each(|(all, one)| all.push(one));
        }
    }
    drop(guests);
    let spreads = waits.map(|kinds| kinds.map(Spread::of));
    for (at, kind) in KINDS.iter().enumerate() {
        for (server, spreads_of) in ["tapvisor: service tap and engine", "dnsmasq"].iter().zip(&spreads) {
            rows.push(vec![
                (*server).to_owned(),
                (*kind).to_owned(),
                format!("{:.0}", 1.0 / spreads_of[at].median.as_secs_f64()),
                milliseconds(spreads_of[at]),
                times(Ratio::between(spreads_of[at], spreads[1][at])),
            ]);
        }
    }
    let gates = KINDS.iter().enumerate().filter(|(at, _)| *at != WHOLE).map(|(at, kind)| {
        Gate::at_most(
            format!("{}, to dnsmasq", kind.replace("of it", "of DISCOVER → ACK by tcpdump")),
            Ratio::between(spreads[0][at], spreads[1][at]).medians,
            1.0,
            "×",
        )
    });
    Section {
        title: "DHCP",
        // spec: PERF-9
        command: "bench-dhcp",
        head: vec![
            "",
            "question",
            "answers per second, one after another",
            "ms: min / **median** / p99 [middle half]",
            "to dnsmasq",
        ],
        rows,
        gates: gates.collect(),
        notes: vec![
            "The engine is asked as often as it answers: its clock runs on by 20 ms with each question, because one VM's engine gives \
             at most fifty answers a second in the long run."
                .to_owned(),
            "Both servers are asked from the descriptor of a VM's tap, in turn. Ours: the tap as the plugin wires it, the service tap, the \
             engine in a loop as the launcher's. dnsmasq: at the same tap without our rules, neither pinging nor keeping a lease file. \
             udhcpc runs in a namespace joined to the tap."
                .to_owned(),
            "Between OFFER and REQUEST udhcpc closes a packet socket, for which the kernel waits tens of milliseconds: that is the client's \
             and does not depend on the server. The gate is on what the server took: DISCOVER → OFFER and REQUEST → ACK."
                .to_owned(),
            format!("n = {} at the tap, {} by tcpdump.", extent.of(EXCHANGES), extent.of(CLIENTS)),
        ],
    }
}
