//! Leases of real clients.

use libtest_mimic::Trial;
use tests::{BootServer, World, trial};

use super::{addresses, client, segment, wait_address};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        // spec: BOOT-11
        trial("udhcpc leases, renews and releases an address of the boot server", udhcpc),
        // spec: BOOT-11
        trial("four kinds of clients share a pool, one has a reservation", four_clients),
        // spec: BOOT-11
        trial("dhcpcd declines an address that another host uses", declined),
        // spec: BOOT-15
        trial("an address that a host of the link uses is not offered", used_by_another),
        // spec: BOOT-11
        trial("dhclient gets a NAK for the lease of another network", other_network),
        // spec: BOOT-2
        trial("a client for which no address is left is told of in the log", exhausted),
        // spec: BOOT-1
        trial("a boot server that cannot serve says why and ends", refused),
    ]
}

const POOL: &str = "
interface: br0
subnets:
- network: 10.9.0.0/24
  pools: [10.9.0.100-10.9.0.103]
  router: 10.9.0.1
";

fn udhcpc() {
    let world = World::bare();
    let server = BootServer::start(&segment(&world), POOL);
    let one = client(&world, 7);
    one.run(&["udhcpc", "-i", "eth0", "-n", "-p", "/run/udhcpc.pid", "-x", "hostname:seven"]).assert_ok();
    wait_address(&one, "10.9.0.100");
    one.run(&["ping", "-c", "1", "-W", "20", "10.9.0.1"]).assert_ok();
    let leased = ["DHCP: leased", "10.9.0.100", "02:00:00:00:00:07", "seven"];
    server.wait_line(&leased);
    let records = || std::fs::read_to_string(world.path("/run/boot/leases/leases.log")).unwrap_or_default();
    assert!(records().contains("\"address\":\"10.9.0.100\""), "{}", records());
    let leases = |log: String| log.matches("DHCP: leased").count();
    let before = leases(server.log());
    one.sh("kill -USR1 $(cat /run/udhcpc.pid)").assert_ok();
    tests::wait_for("a renewal", super::PATIENCE, || (leases(server.log()) > before).then_some(()));
    one.sh("kill -USR2 $(cat /run/udhcpc.pid)").assert_ok();
    server.wait_line(&["DHCP: released", "10.9.0.100"]);
    assert!(records().contains("\"state\":\"released\""), "{}", records());
}

fn four_clients() {
    let world = World::bare();
    let reservation = "  reservations: [{mac: '02:00:00:00:00:0a', address: 10.9.0.50, hostname: ten}]\n";
    let server = BootServer::start(&segment(&world), &format!("{POOL}{reservation}"));
    let [dhclient, dhcpcd, networkd, udhcpc] = [8, 9, 10, 11].map(|number| client(&world, number));
    udhcpc.run(&["udhcpc", "-i", "eth0", "-n", "-q"]).assert_ok();
    dhclient.run(&["dhclient", "-4", "-1", "-pf", "/run/dhclient4.pid", "eth0"]).assert_ok();
    dhcpcd.run(&["dhcpcd", "-4", "-w", "eth0"]).assert_ok();
    let _daemon = crate::dhcp::start_networkd(&world, &networkd);
    wait_address(&networkd, "10.9.0.50");
    let mut found: Vec<_> = [&dhclient, &dhcpcd, &udhcpc].into_iter().flat_map(addresses).collect();
    found.sort();
    assert_eq!(found, ["10.9.0.100", "10.9.0.101", "10.9.0.102"], "{}", server.log());
    for client in [dhclient, dhcpcd, networkd, udhcpc] {
        let routes = client.run(&["ip", "-j", "-4", "route", "show", "default"]).json();
        assert_eq!(routes[0]["gateway"], "10.9.0.1", "{}: {routes}", client.name());
    }
}

fn declined() {
    let world = World::bare();
    // The server does not look for the other host, so the client has to.
    let server = BootServer::start(&segment(&world), &format!("probeMilliseconds: 0{POOL}"));
    let [other, one] = [5, 7].map(|number| client(&world, number));
    other.run(&["ip", "addr", "add", "10.9.0.100/24", "dev", "eth0"]).assert_ok();
    one.run(&["dhcpcd", "-4", "-b", "eth0"]).assert_ok();
    server.wait_line(&["DHCP: declined", "10.9.0.100", "02:00:00:00:00:07"]);
    wait_address(&one, "10.9.0.101");
}

fn used_by_another() {
    let world = World::bare();
    let server = BootServer::start(&segment(&world), POOL);
    let [other, one] = [5, 7].map(|number| client(&world, number));
    other.run(&["ip", "addr", "add", "10.9.0.100/24", "dev", "eth0"]).assert_ok();
    one.run(&["udhcpc", "-i", "eth0", "-n", "-q"]).assert_ok();
    server.wait_line(&["another host uses the address", "10.9.0.100", "used_by=\"02:00:00:00:00:05\""]);
    wait_address(&one, "10.9.0.101");
    assert!(!server.log().lines().any(|line| line.contains("DHCP: offered") && line.contains("10.9.0.100")));
    let records = std::fs::read_to_string(world.path("/run/boot/leases/leases.log")).unwrap();
    assert!(records.contains("\"state\":\"declined\""), "{records}");
}

fn other_network() {
    let world = World::bare();
    let server = BootServer::start(&segment(&world), POOL);
    let one = client(&world, 7);
    let lease = "lease { interface \"eth0\"; fixed-address 192.168.77.9; option subnet-mask 255.255.255.0;
        option dhcp-lease-time 86400; renew 6 2037/01/03 00:00:00; rebind 6 2037/01/03 00:00:00;
        expire 6 2037/01/03 00:00:00; }";
    world.write("/run/old.leases", lease);
    one.run(&["dhclient", "-4", "-1", "-lf", "/run/old.leases", "-pf", "/run/dh.pid", "eth0"]).assert_ok();
    wait_address(&one, "10.9.0.100");
    server.wait_line(&["DHCP: refused", "192.168.77.9"]);
}

fn exhausted() {
    let world = World::bare();
    let configuration = POOL.replace("10.9.0.100-10.9.0.103", "10.9.0.100-10.9.0.100");
    let server = BootServer::start(&segment(&world), &configuration);
    let [one, two] = [7, 8].map(|number| client(&world, number));
    one.run(&["udhcpc", "-i", "eth0", "-n", "-q"]).assert_ok();
    assert!(!two.run(&["udhcpc", "-i", "eth0", "-n", "-q", "-t", "2", "-T", "1"]).is_ok());
    server.wait_line(&["no address is left", "02:00:00:00:00:08"]);
    assert_eq!(addresses(&two), Vec::<String>::new());
}

fn refused() {
    let world = World::bare();
    let server = segment(&world);
    let mut running = BootServer::start(&server, POOL);
    let program = tests::dist_file("tapvisor-dhcp").display().to_string();
    let serve = |configuration: &str, expected: &str| {
        world.write("/run/conf.yaml", configuration);
        let ran = server.run(&[&program, "serve", "--config", "/run/conf.yaml"]);
        assert!(ran.code() == Some(1) && ran.stderr().contains(expected), "{expected}\n{}", ran.account());
    };
    serve(POOL, "UDP port 67 of interface br0 is in use: another DHCP server runs there");
    serve(&POOL.replace("br0", "br7"), "interface br7: there is none of that name");
    serve(&format!("address: 10.9.0.2{POOL}"), "address 10.9.0.2: it is not on interface br0, which has 10.9.0.1");
    serve(
        &POOL.replace("10.9.0.100-", "10.9.0.1-"),
        "subnets[0]: pools: 10.9.0.1-10.9.0.103 holds the router, 10.9.0.1",
    );
    serve(&POOL.replace("router", "routers"), "subnets[0].routers: unknown field `routers`");
    running.kill();
    serve(&format!("tftp: {{root: /run/none}}{POOL}"), "tftp.root: cannot open the folder /run/none");
}
