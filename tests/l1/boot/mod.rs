//! The boot server with real clients: DHCP on a bridge, TFTP and HTTP from a folder; how it is operated.

mod database;
mod files;
mod leases;
mod operation;
mod proxy;
mod relayed;

use std::time::Duration;

use libtest_mimic::Trial;
use tests::{Ns, World, wait_for_or};

const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn trials() -> Vec<Trial> {
    [database::trials(), files::trials(), leases::trials(), operation::trials(), proxy::trials(), relayed::trials()]
        .into_iter()
        .flatten()
        .collect()
}

/// A namespace with the bridge `br0`, which has 10.9.0.1/24.
fn segment(world: &World) -> Ns<'_> {
    let server = world.ns("server");
    let script = "ip link add br0 type bridge; ip link set br0 addrgenmode none; ip addr add 10.9.0.1/24 dev br0; ip link set br0 up";
    server.sh(script).assert_ok();
    server
}

/// A client on the bridge whose `eth0` has the Ethernet address 02:00:00:00:00:`number`.
fn client<'w>(world: &'w World, number: u8) -> Ns<'w> {
    let name = format!("client{number}");
    let client = world.ns(&name);
    let script = format!(
        "ip link add port{number} type veth peer name eth0 netns {name} address 02:00:00:00:00:{number:02x}
        ip link set port{number} master br0; ip link set port{number} up"
    );
    world.named("server").sh(&script).assert_ok();
    client.sh("ip link set eth0 up").assert_ok();
    client.wait_carrier("eth0");
    client
}

/// Waits until the client has this address.
fn wait_address(client: &Ns<'_>, wanted: &str) {
    let found = || addresses(client).contains(&wanted.to_owned()).then_some(());
    wait_for_or(&format!("{wanted} at {}", client.name()), PATIENCE, found, || format!("{:?}", addresses(client)));
}

/// The IPv4 addresses of the client.
fn addresses(client: &Ns<'_>) -> Vec<String> {
    let links = client.run(&["ip", "-j", "-4", "addr", "show", "dev", "eth0"]).json();
    let infos = links[0]["addr_info"].as_array().cloned().unwrap_or_default();
    infos.iter().filter_map(|info| info["local"].as_str().map(str::to_owned)).collect()
}
