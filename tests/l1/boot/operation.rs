//! A boot server that runs for long: floods, metrics, another configuration.

use std::net::UdpSocket;

use libtest_mimic::Trial;
use tests::{BootServer, Ns, World, trial, wait_for_or};

use super::{PATIENCE, client, segment, wait_address};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        // spec: BOOT-10, BOOT-16
        trial("a flood from 100,000 clients takes no more than bounded memory", flood),
        // spec: BOOT-17
        trial("another configuration is put into effect without a restart", reload),
    ]
}

const METRICS: &str = "http://10.9.0.1:9547/metrics";
/// Addresses of the pool that is flooded.
const POOL: u32 = 1024;
const CLIENTS: f64 = 100_000.0;
/// Datagrams between two looks at how many were read.
const BLOCK: u32 = 10_000;
/// What CONFIGURATION.md promises: for each address of the pools, and besides.
const KIB_OF_ADDRESS: u32 = 2;
const KIB_BESIDES: u32 = 8 * 1024;

/// The sum of a metric's samples that have these labels.
fn metric(ns: &Ns<'_>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let text = ns.run(&["busybox", "wget", "-qO-", METRICS]).text();
    let scrape = prometheus_parse::Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let is_it = |sample: &&prometheus_parse::Sample| {
        sample.metric == name && labels.iter().all(|(label, value)| sample.labels.get(label) == Some(value))
    };
    let found: Vec<_> = scrape.samples.iter().filter(is_it).collect();
    assert!(!found.is_empty(), "no {name} {labels:?}\n{text}");
    found
        .iter()
        .map(|sample| match sample.value {
            prometheus_parse::Value::Counter(value)
            | prometheus_parse::Value::Gauge(value)
            | prometheus_parse::Value::Untyped(value) => value,
            _ => panic!("{name} is a histogram\n{text}"),
        })
        .sum()
}

/// Sends DISCOVERs, each of a new client, with the longest names that there are.
struct Flood(UdpSocket, u32);

impl Flood {
    fn send(&mut self, count: u32) {
        let mut message = vec![0; 240];
        message[..3].copy_from_slice(&[1, 1, 6]);
        message[236..].copy_from_slice(&[99, 130, 83, 99]);
        message.extend([&[53, 1, 1, 61, 255][..], &[7; 255], &[12, 255], &[b'n'; 255], &[255]].concat());
        for number in self.1..self.1 + count {
            message[28..34].copy_from_slice(&[&[2, 1][..], &number.to_be_bytes()].concat());
            message[245..249].copy_from_slice(&number.to_be_bytes());
            // What the socket has no room for is lost, as it is in every flood.
            let _ = self.0.send_to(&message, "10.9.0.1:67");
        }
        self.1 += count;
    }
}

fn flood() {
    let world = World::bare();
    let segment = segment(&world);
    segment.sh("ip addr flush dev br0; ip addr add 10.9.0.1/16 dev br0").assert_ok();
    let configuration = "
interface: br0
subnets: [{network: 10.9.0.0/16, pools: [10.9.4.0-10.9.7.255]}]
metrics: 10.9.0.1:9547
";
    let server = BootServer::start(&segment, configuration);
    let [attacker, one] = [6, 7].map(|number| client(&world, number));
    attacker.sh("ip addr add 10.9.0.6/16 dev eth0").assert_ok();
    let kib = |field: &str| -> u32 {
        let status = segment.sh("cat /proc/$(pidof tapvisor-dhcp)/status").text();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of the status");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    assert_eq!(metric(&attacker, "tapvisor_dhcp_pool_addresses", &[("network", "10.9.0.0/16")]), f64::from(POOL));
    let before = kib("VmRSS:");
    let mut flood = Flood(attacker.enter(|| UdpSocket::bind("10.9.0.6:0").unwrap()), 0);
    let read = || {
        flood.send(BLOCK);
        (metric(&attacker, "tapvisor_dhcp_requests_total", &[]) >= CLIENTS).then_some(())
    };
    wait_for_or("100,000 clients to be read", PATIENCE, read, || server.log().lines().last().unwrap_or("").to_owned());
    let grown = kib("VmHWM:").saturating_sub(before);
    assert!(grown <= POOL * KIB_OF_ADDRESS + KIB_BESIDES, "{grown} KiB more than {before} KiB");
    // Clients are served meanwhile and afterwards, and the log has not grown with each.
    one.run(&["udhcpc", "-i", "eth0", "-n", "-q", "-t", "10"]).assert_ok();
    server.wait_line(&["DHCP: leased", "02:00:00:00:00:07"]);
    assert_eq!(metric(&one, "tapvisor_dhcp_leases", &[]), 1.0);
    assert!(metric(&one, "tapvisor_dhcp_answers_total", &[("type", "offer")]) > f64::from(POOL));
    assert!(metric(&one, "tapvisor_dhcp_log_lines_left_out_total", &[]) > 0.0);
    assert!(server.log().lines().count() < 20_000, "{} lines", server.log().lines().count());
}

fn reload() {
    let world = World::bare();
    let subnets = |rest: &str| {
        format!(
            "interface: br0\nmetrics: 10.9.0.1:9547\nsubnets:\n- network: 10.9.0.0/24\n  pools: [10.9.0.100-10.9.0.103]\n{rest}"
        )
    };
    let server = BootServer::start(&segment(&world), &subnets(""));
    let [one, two, three] = [7, 8, 9].map(|number| client(&world, number));
    let lease = |client: &Ns<'_>, address: &str| {
        client.run(&["udhcpc", "-i", "eth0", "-n", "-q"]).assert_ok();
        wait_address(client, address);
    };
    lease(&one, "10.9.0.100");
    server.reload(&subnets("  reservations: [{mac: '02:00:00:00:00:08', address: 10.9.0.50}]\n"));
    server.wait_line(&["the configuration is reloaded"]);
    lease(&two, "10.9.0.50");
    let refused = [
        (subnets("  router: 10.9.0\n"), "subnets[0].router: invalid IPv4 address syntax"),
        (subnets("  router: 10.9.0.101\n"), "10.9.0.100-10.9.0.103 holds the router, 10.9.0.101"),
        (subnets("").replace("br0", "br1"), "interface: br1, which takes a restart; in use is br0"),
        (
            subnets("").replace(":9547", ":9548"),
            "metrics: 10.9.0.1:9548, which takes a restart; in use is 10.9.0.1:9547",
        ),
    ];
    for (configuration, expected) in &refused {
        server.reload(configuration);
        server.wait_line(&["the configuration is not reloaded, the one in use goes on", expected]);
    }
    // As before, with the lease that was there from the beginning.
    lease(&three, "10.9.0.101");
    lease(&one, "10.9.0.100");
    let count = |result| metric(&one, "tapvisor_dhcp_reloads_total", &[("result", result)]);
    assert_eq!((count("applied"), count("refused")), (1.0, 4.0));
}
