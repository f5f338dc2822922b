//! `netboot`: a boot server on the bridge of a network, until it is interrupted.
//!
//! Flow: find the network's bridge, give it an address if it has none, write the server's configuration, run `tapvisor-dhcp`, undo.
//! Guarantees: the server ends with this command, however that ends. After SIGKILL the address stays; the next call uses it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use cni_protocol::runtime::ConfigList;
use hostnet::facts::Address;
use hostnet::op::{LinkChange, NewLink, NewLinkKind};
use hostnet::{Ask, Facts, Kernel as _, Linux, Op, Plan};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use protocol::chain::chain;
use runner::launcher::own_folder;
use runner::layout::Layout;
use runner::network::Choices;
use serde_json::{Value, json};
use terms::{IfName, IpNetwork, Ipv4Network, MacAddr};

use super::arguments::Netboot;
use super::failure::{Exit, Failure};
use super::terminal;

const PROGRAM: &str = "tapvisor-dhcp";
/// Configuration and leases, by the name of the bridge. Leases outlive this command, as the VMs that hold them do.
const FOLDER: &str = "/var/lib/tapvisor-dhcp";

/// Serves until a signal, or until the server fails.
pub(crate) fn netboot(arguments: &Netboot) -> Result<ExitCode, Failure> {
    super::expect_root()?;
    let layout = Layout::default();
    let bridge = bridge(arguments, &layout)?;
    let root = std::fs::canonicalize(&arguments.root)
        .map_err(|error| Failure::new(Exit::Invalid, format!("--root {}: {error}", arguments.root.display())))?;
    // Before the server starts: it is told of its end by this process alone.
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().for_each(|one| signals.add(one));
    signals.thread_block().map_err(std::io::Error::from)?;
    let mut kernel = Linux::here();
    let before = kernel.gather(&Ask::network()).map_err(|error| Failure::new(Exit::Failed, chain(&error)))?;
    let address = address(&before, &bridge, arguments.address)?;
    let plan = plan(&before, &bridge, address);
    hostnet::apply(&mut kernel, &before, &plan).map_err(|error| Failure::new(Exit::Failed, chain(&error)))?;
    let served = serve(&bridge, address, &root, &arguments.boot, &signals);
    let undone = undo(&mut kernel, &before, &plan, &bridge);
    match (served, undone) {
        (Ok(code), Ok(())) => Ok(code),
        (Err(failure), Ok(())) | (Ok(_), Err(failure)) => Err(failure),
        (Err(failure), Err(later)) => Err(failure.with(later)),
    }
}

/// The bridge of the network. Addresses that the network gives itself are no business of a boot server.
fn bridge(arguments: &Netboot, layout: &Layout) -> Result<IfName, Failure> {
    let invalid = |message: String| Failure::new(Exit::Invalid, message);
    let given = std::slice::from_ref(&arguments.network);
    let (choices, errors) = Choices::load(given, Vec::new(), layout.networks(), &layout.ipam());
    if let Some(error) = errors.first() {
        return Err(invalid(chain(error)));
    }
    let list = choices.primary(&[]).map_err(|error| invalid(chain(&error)))?;
    bridge_of(&list).map_err(|problem| invalid(format!("network {}: {problem}", arguments.network)))
}

fn bridge_of(list: &ConfigList) -> Result<IfName, String> {
    let document = list.to_document();
    let plugin = &document["plugins"][0];
    let kind = plugin["type"].as_str().unwrap_or_default();
    if !["bridge", "tapvisor-bridge"].contains(&kind) {
        return Err(format!("type {kind:?}: a boot server needs a network of type bridge or tapvisor-bridge"));
    }
    if let Some(ipam) = plugin["ipam"]["type"].as_str() {
        return Err(format!(
            "ipam.type {ipam:?}: the network gives its VMs their addresses itself, so they ask no boot server; leave out ipam"
        ));
    }
    let name = plugin["bridge"].as_str().unwrap_or("cni0");
    name.parse().map_err(|error| format!("bridge: {error}"))
}

/// The server's address: the one the bridge has, else the one of the command line.
fn address(facts: &Facts, bridge: &IfName, given: Ipv4Network) -> Result<Ipv4Network, Failure> {
    let of_bridge = facts.addresses_of(bridge).find_map(|address| match address.address {
        IpNetwork::V4(address) => Some(address),
        IpNetwork::V6(_) => None,
    });
    let address = of_bridge.unwrap_or(given);
    if !(12..=29).contains(&address.prefix()) {
        let problem =
            format!("--address {address}: the prefix must be from 12 to 29, so that there are addresses for clients");
        return Err(Failure::new(Exit::Invalid, problem));
    }
    let overlaps = |other: &&Address| match other.address {
        IpNetwork::V4(network) => {
            other.link != *bridge && (network.contains(address.network()) || address.contains(network.network()))
        }
        IpNetwork::V6(_) => false,
    };
    match facts.addresses.iter().find(overlaps) {
        Some(other) if of_bridge.is_none() => {
            let problem =
                format!("--address {address}: overlaps with {} of {}; choose another", other.address, other.link);
            Err(Failure::new(Exit::HostLacks, problem))
        }
        _ => Ok(address),
    }
}

/// What the bridge lacks.
fn plan(facts: &Facts, bridge: &IfName, address: Ipv4Network) -> Plan {
    let mut ops = Vec::new();
    if facts.link(bridge).is_none() {
        // Its own Ethernet address: one of its ports' would change with them.
        let [_, b, c, d] = address.ip().octets();
        let set = LinkChange { mac: Some(MacAddr::local([0x74, 0x61, b, c, d])), ..LinkChange::up() };
        ops.push(Op::CreateLink(NewLink { name: bridge.clone(), kind: NewLinkKind::Bridge, set }));
    }
    let address = IpNetwork::V4(address);
    if !facts.addresses_of(bridge).any(|known| known.address == address) {
        ops.push(Op::AddAddress(Address::permanent(bridge.clone(), address)));
    }
    Plan { ops }
}

/// Takes back what was added. A bridge that VMs joined meanwhile stays, without the address.
fn undo(kernel: &mut Linux<'_>, before: &Facts, plan: &Plan, bridge: &IfName) -> Result<(), Failure> {
    let failed = |text: String| Failure::new(Exit::Failed, format!("{bridge}: not all was undone: {text}"));
    let now = kernel.gather(&Ask::network()).map_err(|error| failed(chain(&error)))?;
    let has_ports = now.links.iter().any(|link| link.master.as_ref() == Some(bridge));
    let stays = |op: &Op| has_ports && matches!(op, Op::CreateLink(_));
    let undone = Plan { ops: plan.ops.iter().filter(|op| !stays(op)).cloned().collect() };
    match hostnet::apply::undo(kernel, before, &undone) {
        Ok(left) if left.is_empty() => Ok(()),
        Ok(left) => Err(failed(left.join("; "))),
        Err(error) => Err(failed(chain(&error))),
    }
}

/// Runs the server until it or this command ends.
fn serve(
    bridge: &IfName,
    address: Ipv4Network,
    root: &Path,
    boot: &str,
    signals: &SigSet,
) -> Result<ExitCode, Failure> {
    let folder = Path::new(FOLDER).join(bridge.as_str());
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("conf.yaml");
    // JSON is YAML.
    std::fs::write(&file, configuration(bridge, address, root, boot, &folder).to_string())?;
    let program = own_folder().join(PROGRAM);
    let mut command = Command::new(&program);
    command.args(["serve", "--until-end-of-input", "--config"]).arg(&file).stdin(Stdio::piped());
    let mut server = command
        .spawn()
        .map_err(|error| Failure::new(Exit::HostLacks, format!("cannot execute {}: {error}", program.display())))?;
    terminal::say(&format!("tapvisor: serves {} as {} on {bridge}; Ctrl-C ends it", root.display(), address.ip()));
    let was_asked = wait(&mut server, signals)?;
    let status = server.wait()?;
    if was_asked || status.success() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(Exit::Failed, format!("the boot server ended: {status}; its last lines are above")))
}

/// Waits until the server has ended or this command is asked to end; whether it is the latter.
fn wait(server: &mut Child, signals: &SigSet) -> Result<bool, Failure> {
    loop {
        match signals.wait().map_err(std::io::Error::from)? {
            Signal::SIGCHLD if server.try_wait()?.is_some() => return Ok(false),
            Signal::SIGCHLD => {}
            _ => {
                let pid = Pid::from_raw(i32::try_from(server.id()).unwrap_or(i32::MAX));
                // A server that is gone already has ended as it was asked to.
                let _ = kill(pid, Signal::SIGTERM);
                return Ok(true);
            }
        }
    }
}

/// All host addresses but the server's own are for clients.
fn configuration(bridge: &IfName, address: Ipv4Network, root: &Path, boot: &str, folder: &Path) -> Value {
    let (own, first, last) =
        (u32::from(address.ip()), u32::from(address.network()) + 1, u32::from(address.broadcast()) - 1);
    let pools = [(first, own.saturating_sub(1)), (own + 1, last)].into_iter().filter(|(first, last)| first <= last);
    let pools: Vec<_> =
        pools.map(|(first, last)| format!("{}-{}", Ipv4Addr::from(first), Ipv4Addr::from(last))).collect();
    let network = format!("{}/{}", address.network(), address.prefix());
    let leases: PathBuf = folder.join("leases");
    json!({
        "interface": bridge.as_str(),
        "address": address.ip(),
        "leases": leases,
        "subnets": [{"network": network, "pools": pools}],
        "boot": [{"ipxe": true, "file": boot}, {"file": boot}],
        "tftp": {"root": root},
        "http": {"root": root},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(plugin: &Value) -> ConfigList {
        ConfigList::from_value(json!({"cniVersion": "1.0.0", "name": "blue", "plugins": [plugin]})).unwrap()
    }

    // spec: BOOT-14
    #[test]
    fn a_boot_server_is_for_bridges_that_give_no_addresses_themselves() {
        let found = |plugin: Value| bridge_of(&list(&plugin)).map(|name| name.to_string());
        assert_eq!(found(json!({"type": "bridge", "bridge": "br-blue", "ipam": {}})), Ok("br-blue".to_owned()));
        assert_eq!(found(json!({"type": "tapvisor-bridge"})), Ok("cni0".to_owned()));
        assert!(found(json!({"type": "macvlan"})).unwrap_err().starts_with("type \"macvlan\""));
        let problem = found(json!({"type": "bridge", "ipam": {"type": "host-local"}})).unwrap_err();
        assert!(problem.starts_with("ipam.type \"host-local\""), "{problem}");
    }

    #[test]
    fn clients_get_every_address_but_the_servers() {
        let pools = |address: &str| {
            let bridge = "br0".parse().unwrap();
            let conf = configuration(&bridge, address.parse().unwrap(), Path::new("/r"), "f", Path::new("/l"));
            conf["subnets"][0]["pools"].as_array().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(pools("10.7.0.1/24"), ["\"10.7.0.2-10.7.0.254\""]);
        assert_eq!(pools("10.7.0.4/29"), ["\"10.7.0.1-10.7.0.3\"", "\"10.7.0.5-10.7.0.6\""]);
    }
}
