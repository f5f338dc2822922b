//! What packets pay on their way to a guest: our bindings compared with the bridge and veth of a KubeVirt pod.
//!
//! The guest is a namespace joined to the VM's tap by a thread that carries frames between two taps (`FakeGuest`): the same in
//! every row, and slower than a real guest's vhost, so that differences between rows are smaller than they would be there.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use tests::{FakeGuest, Ns, Program, World, dist_file, inside};

use crate::Extent;
use crate::report::{Gate, Section, milliseconds, times};
use crate::rounds::{Ratio, Spread, turns};
use crate::{pods, shell};

const STREAM: u16 = 5001;
const ECHO: u16 = 7;
const MIB: usize = 1 << 20;
/// Of one stream.
const STREAM_BYTES: usize = 64 * MIB;
const ROUND_TRIPS: usize = 100;

/// Pods wired and unwired for the figures of both.
const CYCLES: usize = 20;

/// Who wires a pod for a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    None,
    Plugin,
    /// A shell that executes what KubeVirt does, or the same with filters of `tc`.
    Shell(&'static str),
}

/// A row: its name, by whom and for which binding the pod is wired, and the row that it is compared with.
struct Variant {
    name: &'static str,
    by: By,
    binding: &'static str,
    peer: usize,
}

const VARIANTS: [Variant; 6] = [
    Variant { name: "the pod itself, no guest", by: By::None, binding: "none", peer: 0 },
    Variant { name: "tapvisor masquerade: tap and nft", by: By::Plugin, binding: "masquerade", peer: 2 },
    Variant {
        name: "KubeVirt's masquerade: bridge, tap and nft",
        by: By::Shell("masquerade"),
        binding: "masquerade",
        peer: 2,
    },
    Variant { name: "tapvisor bridge: redirect between NIC and tap", by: By::Plugin, binding: "bridge", peer: 4 },
    Variant { name: "KubeVirt's bridge: NIC and tap on a bridge", by: By::Shell("bridge"), binding: "bridge", peer: 4 },
    Variant { name: "the redirect by filters of `tc` (u32, mirred)", by: By::Shell("tc"), binding: "bridge", peer: 4 },
];

impl Variant {
    /// The programs that wire a pod and undo it, each in its namespace.
    fn programs(&self, pod: &str) -> Option<[Program; 2]> {
        match self.by {
            By::None => None,
            By::Plugin => {
                let conf = pods::tapvisor(Some(self.binding));
                let call = |verb| pods::call(&dist_file("tapvisor-cni"), verb, pod, &conf, Some(&pods::previous()));
                Some(["ADD", "DEL"].map(call))
            }
            By::Shell(of) => Some(shell::scripts(of).map(|script| shell::program(pod, script))),
        }
    }
}

/// A host, a pod on a veth, and a guest in it.
struct Scene<'w> {
    name: &'static str,
    end: End<'w>,
    world: &'w World,
}

/// Where the pod's traffic ends.
enum End<'w> {
    Pod(Ns<'w>),
    Guest(FakeGuest<'w>),
}

impl<'w> Scene<'w> {
    fn of(world: &'w World, variant: &Variant) -> Self {
        let name = variant.name;
        pods::make(world, &["pod"]);
        world.sh("ip addr add 10.244.1.1/24 dev pod").assert_ok();
        let pod = world.named("pod");
        let Some([wire, _]) = variant.programs("pod") else {
            return Self { name, end: End::Pod(pod), world };
        };
        inside(world, || wire.run());
        let tap = if variant.binding == "masquerade" && variant.by == By::Plugin { "k6t-eth0" } else { "tap0" };
        let (mac, network) = match variant.binding {
            "masquerade" => {
                ("02:00:00:00:00:07", "ip addr add 10.0.2.2/24 dev eth0; ip route add default via 10.0.2.1")
            }
            _ => ("0a:58:0a:f4:01:05", "ip addr add 10.244.1.5/24 dev eth0"),
        };
        let guest = FakeGuest::plug(world, "guest", &pod, tap, mac);
        guest.ns().sh(network).assert_ok();
        Self { name, end: End::Guest(guest), world }
    }

    fn end(&self) -> &Ns<'w> {
        match &self.end {
            End::Pod(pod) => pod,
            End::Guest(guest) => guest.ns(),
        }
    }

    /// Starts what answers in the guest: a sink, a source, an echo. The threads end with the process.
    fn serve(&self) {
        let any = |port: u16| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let (listener, echo) = self.end().enter(|| {
            let listener = TcpListener::bind(any(STREAM)).expect("the port is free");
            (listener, UdpSocket::bind(any(ECHO)).expect("the port is free"))
        });
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(stream_one(stream))));
        std::thread::spawn(move || {
            let mut datagram = [0; 2048];
            while let Ok((length, from)) = echo.recv_from(&mut datagram) {
                let _ = echo.send_to(datagram.get(..length).unwrap_or_default(), from);
            }
        });
    }

    /// MiB per second into the guest and out of it.
    fn streams(&self) -> [f64; 2] {
        [b'i', b'o'].map(|way| {
            let mut stream = self
                .world
                .enter(|| TcpStream::connect((Ipv4Addr::new(10, 244, 1, 5), STREAM)))
                .expect("the guest listens");
            let start = Instant::now();
            stream.write_all(&[way]).expect("the guest reads");
            if way == b'i' {
                send(&mut stream).expect("the guest reads");
                stream.read_exact(&mut [0]).expect("the guest says that it has all");
            } else {
                receive(&mut stream).expect("the guest sends");
            }
            mebibytes() / start.elapsed().as_secs_f64()
        })
    }

    /// Of 64 bytes by UDP.
    fn round_trips(&self) -> Vec<Duration> {
        self.world.enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port is free");
            socket.connect((Ipv4Addr::new(10, 244, 1, 5), ECHO)).expect("there is a route");
            socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout is not zero");
            // The first may be lost while links come up and addresses are asked for.
            let reaches = |_| socket.send(&[7; 64]).is_ok() && socket.recv(&mut [0; 64]).is_ok();
            assert!((0..10).any(reaches), "{}: the guest never answers", self.name);
            let trip = || {
                let start = Instant::now();
                socket.send(&[7; 64]).expect("there is a way to the guest");
                socket.recv(&mut [0; 64]).expect("the guest answers");
                start.elapsed()
            };
            (0..ROUND_TRIPS).map(|_| trip()).collect()
        })
    }
}

fn mebibytes() -> f64 {
    f64::from(u32::try_from(STREAM_BYTES / MIB).unwrap_or(0))
}

/// Serves one connection: its first byte says whether bytes come in or go out.
fn stream_one(mut stream: TcpStream) -> std::io::Result<()> {
    let mut way = [0];
    stream.read_exact(&mut way)?;
    if way == [b'o'] {
        return send(&mut stream);
    }
    receive(&mut stream)?;
    stream.write_all(&[1])
}

fn send(stream: &mut TcpStream) -> std::io::Result<()> {
    let block = vec![7; 256 * 1024];
    (0..STREAM_BYTES / block.len()).try_for_each(|_| stream.write_all(&block))
}

fn receive(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut left = STREAM_BYTES;
    while left > 0 {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            bytes => left = left.saturating_sub(bytes),
        }
    }
    Ok(())
}

/// How long it takes to wire a pod and to undo that, of each variant that does.
fn cycles(extent: Extent) -> [[Vec<Duration>; 2]; VARIANTS.len()] {
    let world = World::bare();
    let mut took = VARIANTS.map(|_| [Vec::new(), Vec::new()]);
    for round in 0..extent.of(CYCLES) {
        for turn in turns(VARIANTS.len(), round) {
            let Some(programs) = VARIANTS[turn].programs("pod") else { continue };
            pods::make(&world, &["pod"]);
            for (all, program) in took[turn].iter_mut().zip(programs) {
                all.push(inside(&world, || program.run().0.wall));
            }
            pods::remove(&world, &["pod"]);
        }
    }
    took
}

pub(crate) fn measure(extent: Extent) -> Section {
    let worlds = VARIANTS.map(|_| World::bare());
    let scenes: Vec<Scene<'_>> =
        worlds.iter().zip(&VARIANTS).map(|(world, variant)| Scene::of(world, variant)).collect();
    scenes.iter().for_each(Scene::serve);
    let (mut trips, mut streams) = (VARIANTS.map(|_| Vec::new()), VARIANTS.map(|_| [Vec::new(), Vec::new()]));
    for round in 0..extent.of(20) {
        for turn in turns(scenes.len(), round) {
            trips[turn].extend(scenes[turn].round_trips());
            for (all, rate) in streams[turn].iter_mut().zip(scenes[turn].streams()) {
                all.push(rate);
            }
        }
    }
    drop(scenes);
    let cycles = cycles(extent);
    let trips = trips.map(Spread::of);
    let rates = streams.map(|ways| ways.map(rates));
    let rows = VARIANTS.iter().enumerate().map(|(at, variant)| {
        let compared = match variant.by {
            By::None => "–".to_owned(),
            By::Plugin | By::Shell(_) => times(Ratio::between(trips[at], trips[variant.peer])),
        };
        let [inward, outward] = rates[at]
            .map(|[least, median, upper, most]| format!("{least:.0} / **{median:.0}** / {upper:.0} / {most:.0}"));
        let [made, undone] = cycles[at].clone().map(|all| match all.as_slice() {
            [] => "–".to_owned(),
            [_, ..] => milliseconds(Spread::of(all)),
        });
        vec![variant.name.to_owned(), milliseconds(trips[at]), compared, inward, outward, made, undone]
    });
    // Of streams the better ones: other work on the machine takes away, and one that met none of it says little.
    let faster = |way: usize, ours: usize| rates[ours][way][2] / rates[ours + 1][way][2];
    let trip = |ours: usize| Ratio::between(trips[ours], trips[ours + 1]).medians;
    let mut gates = Vec::new();
    for (ours, binding) in [(1, "masquerade"), (3, "bridge")] {
        gates.push(Gate::at_most(format!("{binding}: round trip, to KubeVirt's"), trip(ours), 1.05, "×"));
        gates.push(Gate::at_least(
            format!("{binding}: stream in, upper quartile, of KubeVirt's"),
            faster(0, ours),
            0.95,
            "×",
        ));
        gates.push(Gate::at_least(
            format!("{binding}: stream out, upper quartile, of KubeVirt's"),
            faster(1, ours),
            0.95,
            "×",
        ));
    }
    Section {
        title: "Packets to and from a guest",
        // spec: PERF-10
        command: "bench-path",
        head: vec![
            "",
            "UDP round trip of 64 bytes, ms: min / **median** / p99 [middle half]",
            "to KubeVirt's",
            "TCP into the guest, MiB/s: least / **median** / upper quartile / most",
            "TCP out of it, MiB/s",
            "wired, ms",
            "undone, ms",
        ],
        rows: rows.collect(),
        gates,
        notes: vec![
            format!("n = {} round trips and {} streams of {} MiB each way, in turn.", extent.of(20) * ROUND_TRIPS, extent.of(20), STREAM_BYTES / MIB),
            "Host and pod are joined by a veth. The guest is a namespace joined to the VM's tap by a thread that carries frames, with \
             checksum and segmentation offload: the same in every row and most of its time; a gate allows five in a hundred for noise."
                .to_owned(),
            format!(
                "Wired and undone n = {} times, by one process of the plugin, and by a shell with all processes that it executes.",
                extent.of(CYCLES)
            ),
        ],
    }
}

/// Least, median, upper quartile, most.
fn rates(mut all: Vec<f64>) -> [f64; 4] {
    all.sort_by(f64::total_cmp);
    let last = all.len() - 1;
    [all[0], all[last / 2], all[last * 3 / 4], all[last]]
}
