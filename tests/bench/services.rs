//! Services: what one more VM behind one of many costs, and what a new connection's look-up costs, compared with the linear chains
//! that kube-proxy's iptables mode makes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use hostnet::linux::{Linux, Real, Recorder, Step};
use hostnet::nft::Transaction;
use hostnet::{Kernel as _, Op};
use services::{Frontend, Services};
use terms::Protocol;
use tests::{Ns, Ran, Took, World};
use wiring::Family;

use crate::Extent;
use crate::report::{Gate, Section, grouped, milliseconds, short, times};
use crate::rounds::{Ratio, Runs, Spread, turns};

const COUNTS: [usize; 3] = [1, 100, 10_000];
const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
const PORT: u16 = 8080;

/// How connections reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    /// To the backend's own address: no Service.
    None,
    Tapvisor,
    Iptables,
}

/// A host that routes between a client and a server.
struct Scene {
    world: World,
    path: Path,
    services: usize,
}

impl Scene {
    fn of(path: Path, services: usize) -> Self {
        let world = World::bare();
        for (name, host, inner) in [("client", "10.1.0.1", "10.1.0.2"), ("server", "10.1.1.1", "10.1.1.2")] {
            let ns = world.ns(name);
            world
                .sh(&format!(
                    "ip link add {name}0 type veth peer name eth0 netns {name}
                    ip addr add {host}/24 dev {name}0; ip link set {name}0 up"
                ))
                .assert_ok();
            let inside =
                format!("ip addr add {inner}/24 dev eth0; ip link set eth0 up; ip route add default via {host}");
            ns.sh(&inside).assert_ok();
        }
        world.sh("echo 1 >/proc/sys/net/ipv4/ip_forward").assert_ok();
        Self { world, path, services }
    }

    /// Where a client connects to: for a Service the one in the middle of all.
    fn target(&self) -> SocketAddr {
        match self.path {
            Path::None => (BACKEND, PORT).into(),
            _ => (cluster_address(self.services / 2), 80).into(),
        }
    }

    /// Puts Services in place, then gives one a second backend and takes it away again: the time of each update, and its bytes.
    fn install(&self, updates: usize) -> (Duration, Runs, u64) {
        match self.path {
            Path::None => (Duration::ZERO, Runs::default(), 0),
            Path::Tapvisor => self.install_ours(updates),
            Path::Iptables => self.install_theirs(updates),
        }
    }

    fn install_ours(&self, updates: usize) -> (Duration, Runs, u64) {
        let (one, two) = (ours(self.services, false), ours(self.services, true));
        self.world.enter(|| {
            let mut calls = Recorder::new(Real::default());
            let mut kernel = Linux::with(&mut calls);
            let mut send = |from: Option<&Services>, to: &Services| {
                let start = Instant::now();
                let transaction: Transaction = to.update(from);
                kernel.execute(&[Op::Nft(transaction)]).expect("the kernel takes the transaction");
                let wall = start.elapsed();
                Took { wall, cpu: wall }
            };
            let whole = send(None, &one).wall;
            let mut runs = Runs::default();
            for _ in 0..updates {
                runs.add(send(Some(&one), &two));
                runs.add(send(Some(&two), &one));
            }
            drop(kernel);
            let last = calls.into_steps().into_iter().rev().find_map(|step| match step {
                Step::Send { hex, .. } => Some(hex.len() / 2),
                _ => None,
            });
            (whole, runs, last.map_or(0, |bytes| u64::try_from(bytes).unwrap_or(u64::MAX)))
        })
    }

    /// As kube-proxy does it: the changed chains alone by `iptables-restore --noflush`; the whole first.
    fn install_theirs(&self, updates: usize) -> (Duration, Runs, u64) {
        let restore = |text: &str| {
            let start = Instant::now();
            Ran::with_input(self.world.command("iptables-restore").args(["--noflush"]), text.as_bytes()).assert_ok();
            let wall = start.elapsed();
            Took { wall, cpu: wall }
        };
        let whole = restore(&theirs(self.services)).wall;
        let mut runs = Runs::default();
        let update = |backends: u8| their_update(self.services / 2, backends);
        for _ in 0..updates {
            runs.add(restore(&update(2)));
            runs.add(restore(&update(1)));
        }
        (whole, runs, u64::try_from(update(1).len()).unwrap_or(u64::MAX))
    }

    fn ns(&self, name: &str) -> Ns<'_> {
        self.world.named(name)
    }
}

fn cluster_address(number: usize) -> Ipv4Addr {
    let base = u32::from(Ipv4Addr::new(172, 30, 0, 0));
    Ipv4Addr::from(base + 1 + u32::try_from(number).unwrap_or(0))
}

fn ours(count: usize, second_backend: bool) -> Services {
    let frontend = |number: usize| {
        let mut backends = BTreeSet::from([SocketAddr::from((BACKEND, PORT))]);
        if second_backend && number == count / 2 {
            backends.insert((Ipv4Addr::new(10, 1, 1, 3), PORT).into());
        }
        Frontend {
            name: format!("default/s{number}/http"),
            family: Family::V4,
            protocol: Protocol::Tcp,
            addresses: BTreeSet::from([IpAddr::V4(cluster_address(number))]),
            port: 80,
            node_port: None,
            affinity_seconds: None,
            backends,
        }
    };
    let range = "172.30.0.0/16".parse().expect("a network");
    Services {
        frontends: (0..count).map(frontend).collect(),
        vms: BTreeSet::from([BACKEND.into()]),
        ranges: vec![range],
        refuses_loopback_v6: false,
    }
}

/// One chain that lists the Services, one for each Service and one for each endpoint.
fn theirs(count: usize) -> String {
    let mut text = "*nat\n:KUBE-SERVICES - [0:0]\n".to_owned();
    for number in 0..count {
        let _ = write!(text, ":KUBE-SVC-{number} - [0:0]\n:KUBE-SEP-{number}-1 - [0:0]\n");
    }
    text.push_str("-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n");
    for number in 0..count {
        let address = cluster_address(number);
        let _ = write!(
            text,
            "-A KUBE-SERVICES -d {address}/32 -p tcp -m comment --comment \"default/s{number}:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-{number}
-A KUBE-SVC-{number} -j KUBE-SEP-{number}-1
-A KUBE-SEP-{number}-1 -p tcp -m tcp -j DNAT --to-destination {BACKEND}:{PORT}
"
        );
    }
    text.push_str("COMMIT\n");
    text
}

fn their_update(number: usize, backends: u8) -> String {
    let mut text = format!("*nat\n:KUBE-SVC-{number} - [0:0]\n:KUBE-SEP-{number}-2 - [0:0]\n");
    if backends > 1 {
        let _ = write!(
            text,
            "-A KUBE-SVC-{number} -m statistic --mode random --probability 0.5 -j KUBE-SEP-{number}-2
-A KUBE-SEP-{number}-2 -p tcp -m tcp -j DNAT --to-destination 10.1.1.3:{PORT}
"
        );
    }
    let _ = write!(text, "-A KUBE-SVC-{number} -j KUBE-SEP-{number}-1\nCOMMIT\n");
    text
}

pub(crate) fn measure(extent: Extent) -> Section {
    let mut paths = vec![(Path::None, 0)];
    for count in COUNTS {
        paths.extend([(Path::Tapvisor, count), (Path::Iptables, count)]);
    }
    let scenes: Vec<Scene> = paths.iter().map(|(path, count)| Scene::of(*path, *count)).collect();
    eprintln!("bench: services: updates");
    let updates: Vec<_> = scenes.iter().map(|scene| scene.install(extent.of(25))).collect();
    eprintln!("bench: services: connections");
    let mut connections = vec![Vec::new(); scenes.len()];
    for scene in &scenes {
        let listener = scene.ns("server").enter(|| TcpListener::bind((BACKEND, PORT)).expect("the port is free"));
        // Ends with the process; a socket keeps nothing alive but an empty namespace.
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
    for round in 0..extent.of(20) {
        for turn in turns(scenes.len(), round) {
            connections[turn].extend(connect(&scenes[turn], 50));
        }
    }
    let spreads: Vec<Spread> = connections.into_iter().map(Spread::of).collect();
    let mut rows = Vec::new();
    for ((scene, (whole, runs, bytes)), spread) in scenes.iter().zip(&updates).zip(&spreads) {
        let [count, whole, update, bytes] = match scene.path {
            Path::None => [(); 4].map(|()| "–".to_owned()),
            _ => [grouped(scene.services as u64), short(*whole), milliseconds(runs.wall()), grouped(*bytes)],
        };
        let name = match scene.path {
            Path::None => "no Service",
            Path::Tapvisor => "tapvisor",
            Path::Iptables => "iptables, as kube-proxy lists Services",
        };
        let per_second = format!("{:.0}", 1.0 / spread.median.as_secs_f64());
        let more = times(Ratio::between(*spread, spreads[0]));
        rows.push(vec![name.to_owned(), count, whole, update, bytes, milliseconds(*spread), per_second, more]);
    }
    let ratio = |of: usize, to: usize| Ratio::between(spreads[of], spreads[to]).medians;
    let update = |at: usize| updates[at].1.wall().median.as_secs_f64() * 1e3;
    Section {
        title: "Services",
        // spec: PERF-8
        command: "bench-services",
        head: vec![
            "",
            "Services",
            "putting all in place, ms",
            "one backend more or less, ms: min / **median** / p99 [middle half]",
            "its bytes",
            "new connection, ms: min / **median** / p99 [middle half]",
            "connections per second, one after another",
            "to no Service",
        ],
        rows,
        gates: vec![
            Gate::at_most("new connection, 10 000 Services to one", ratio(5, 1), 1.2, "×"),
            Gate::at_least("new connection at 10 000, faster than iptables", ratio(6, 5), 1.0, "×"),
            Gate::at_most("update at 10 000, to iptables", update(5) / update(6), 1.0, "×"),
        ],
        notes: vec![
            "A host routes between a client and a server, each in a namespace; a connection is TCP's three packets and a reset. Of all \
             Services the one in the middle is asked. Each row has a host of its own; they are measured in turn."
                .to_owned(),
            "Bytes: tapvisor's netlink messages; the text that `iptables-restore --noflush` reads, whose time has the program's start in it, \
             as kube-proxy's has."
                .to_owned(),
        ],
    }
}

/// The times of connections one after another.
fn connect(scene: &Scene, count: usize) -> Vec<Duration> {
    let target = scene.target();
    scene.ns("client").enter(|| {
        let connect = || {
            let start = Instant::now();
            let stream = TcpStream::connect_timeout(&target, Duration::from_secs(5));
            let took = start.elapsed();
            let stream = stream.unwrap_or_else(|error| panic!("{target} by {:?}: {error}", scene.path));
            // A reset leaves no port waiting.
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger)
                .expect("linger can be set");
            took
        };
        (0..count).map(|_| connect()).collect()
    })
}
