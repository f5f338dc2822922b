//! Clients behind a relay agent, many at once, and a server that is killed meanwhile.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use libtest_mimic::Trial;
use tests::{BootServer, World, trial};

use super::{client, segment};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        // spec: BOOT-3
        trial("no lease is lost or given twice by a boot server that is killed", killed),
        // spec: BOOT-6
        trial("a client behind a relay agent gets an address of its own network", relayed),
    ]
}

const NETWORKS: &str = "
interface: br0
subnets:
- {network: 10.9.0.0/24, pools: [10.9.0.100-10.9.0.199]}
- {network: 10.8.0.0/16, pools: [10.8.1.0-10.8.255.0], router: 10.8.0.1}
";
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 9, 0, 1), 67);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
/// As often in the rung; the variable `KILLS` is for `make kill-boot-server`.
const KILLS: u32 = 25;

fn kills() -> u32 {
    let given = std::env::var("KILLS").ok();
    given.map_or(KILLS, |given| given.parse().expect("KILLS is a number"))
}

/// The agent of a network: its clients are numbers.
struct Agent(UdpSocket);

impl Agent {
    /// In a client's namespace, reached through the bridge.
    fn start(world: &World) -> Self {
        let agent = client(world, 2);
        agent.sh("ip addr add 10.8.0.1/16 dev eth0; ip route add 10.9.0.0/24 dev eth0").assert_ok();
        world.named("server").sh("ip route add 10.8.0.0/16 dev br0").assert_ok();
        let socket = agent.enter(|| UdpSocket::bind((AGENT, 67)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self(socket)
    }

    /// Sends a client's message and returns type and address of the answer to it.
    fn ask(&self, client: u32, kind: u8, wanted: Option<Ipv4Addr>) -> Option<(u8, Ipv4Addr)> {
        let mut message = vec![0; 240];
        message[..4].copy_from_slice(&[1, 1, 6, 1]);
        message[4..8].copy_from_slice(&(client << 8 | u32::from(kind)).to_be_bytes());
        message[24..28].copy_from_slice(&AGENT.octets());
        message[28..30].copy_from_slice(&[2, 1]);
        message[30..34].copy_from_slice(&client.to_be_bytes());
        message[236..].copy_from_slice(&[99, 130, 83, 99]);
        message.extend([53, 1, kind]);
        if let Some(wanted) = wanted {
            message.extend([&[50, 4][..], &wanted.octets(), &[54, 4], &SERVER.0.octets()].concat());
        }
        message.push(255);
        // Nothing listens while the server is dead.
        let _ = self.0.send_to(&message, SERVER);
        let mut answer = [0; 1500];
        while let Ok(length) = self.0.recv(&mut answer) {
            let answer = &answer[..length];
            if answer[4..8] == message[4..8] {
                let at = answer.windows(3).position(|bytes| bytes[..2] == [53, 1]).expect("an answer has a type");
                return Some((answer[at + 2], <[u8; 4]>::try_from(&answer[16..20]).unwrap().into()));
            }
        }
        None
    }

    /// The address that the client is acknowledged, if it gets that far.
    fn lease(&self, client: u32) -> Option<Ipv4Addr> {
        let (_, offered) = self.ask(client, 1, None).filter(|(kind, _)| *kind == 2)?;
        let (kind, address) = self.ask(client, 3, Some(offered))?;
        (kind == 5).then_some(address)
    }
}

fn relayed() {
    let world = World::bare();
    let server = BootServer::start(&segment(&world), NETWORKS);
    let agent = Agent::start(&world);
    let address = agent.lease(7).expect("a lease");
    assert_eq!(address, Ipv4Addr::new(10, 8, 1, 0));
    server.wait_line(&["DHCP: leased", "10.8.1.0", "relay=\"10.8.0.1\""]);
    assert_eq!(agent.ask(8, 3, Some(address)).map(|(kind, _)| kind), Some(6), "of another client");
}

fn killed() {
    let world = World::bare();
    let mut server = BootServer::start(&segment(&world), NETWORKS);
    let agent = Agent::start(&world);
    let mut leases = BTreeMap::new();
    let mut next = 0;
    let kills = kills();
    for kill in 0..kills {
        let (agent, leases, next) = (&agent, &mut leases, &mut next);
        std::thread::scope(|scope| {
            let clients = scope.spawn(move || {
                // Until the server has been dead for a whole wait.
                while let Some(lease) = agent.lease(*next) {
                    leases.insert(*next, lease);
                    *next += 1;
                }
                *next += 1;
            });
            std::thread::sleep(Duration::from_millis(u64::from(kill) * 7 % 60));
            server.kill();
            clients.join().unwrap();
        });
        server.start_again();
    }
    let mut given: Vec<_> = leases.values().collect();
    given.sort();
    given.dedup();
    assert!(leases.len() >= 25, "only {} leases before {kills} kills", leases.len());
    assert_eq!(given.len(), leases.len(), "an address was given twice");
    for (client, address) in &leases {
        let answer = agent.ask(*client, 3, Some(*address));
        assert_eq!(answer, Some((5, *address)), "client {client}");
    }
    assert!(!server.log().contains("damaged"), "{}", server.log());
}
