//! Looking at a host.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cni_protocol::runtime::ConfigList;
use hostnet::nft::{Chain, Family, Rule, Table, Transaction};
use hostnet::op::{LinkChange, NewLink, NewLinkKind};
use hostnet::{Ask, Kernel as _, KernelError, Linux, Netns, Op};
use protocol::probe::{Probe, Verdict};
use terms::{IfName, IpNetwork, ObjectKey, VlanId};
use wiring::{Owner, Request};

use super::diagnose::{Forwarding, Kvm, Seen, VmUsers};
use crate::plugins::plugin_folders;
use explain::firewall::{self, Dropping, dropping};
use explain::refusing::refusals;
use protocol::chain::chain;
use runner::files;
use runner::host::overlap;
use runner::isolation::try_out as try_out_isolation;
use runner::kvm_node::{Access, Node};
use runner::launcher::{LauncherFile, launcher_path};
use runner::layout::Layout;
use runner::network::{binding, built_in, ranges};
use runner::owner::{Accounts, Mapped, OwnerRange, POD_OWNER};
use runner::record::OnHost;
use runner::resolv::Resolv;
use runner::service_store;
use runner::store::Store;

/// Gathers everything that [`super::diagnose`] uses.
pub(super) fn gather() -> Seen {
    let store = Store::new(Layout::default());
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        sweep();
    }
    let (isolation, probed) = (is_root.then(|| isolation(store.layout())), probe());
    let is_apart = matches!(&isolation, Some(Ok(refused)) if refused.is_empty());
    Seen {
        is_root,
        refused_to_user: if is_root { Vec::new() } else { refused() },
        has_tun: can_open("/dev/net/tun").is_ok(),
        kvm: kvm(store.layout(), probed.as_ref().map(|probe| &probe.kvm), is_apart),
        has_vhost_net: can_open("/dev/vhost-net").is_ok(),
        has_qemu: is_in_path("qemu-system-x86_64"),
        launcher: launcher(),
        missing_plugins: missing_plugins(&store),
        fwd: is_root.then(|| try_out("fwd", load_fwd)),
        vm_users: vm_users(store.layout()),
        isolation,
        confinement: probed.map(|probe| probe.lacks),
        ipv4_forwarding: forwarding("/proc/sys/net/ipv4/ip_forward"),
        ipv6_forwarding: forwarding("/proc/sys/net/ipv6/conf/all/forwarding"),
        has_ipv6: read_flag("/proc/sys/net/ipv6/conf/all/disable_ipv6") == Some(false),
        vlan: is_root.then(|| try_out("vlan", make_vlan)),
        drops_forwarded: drops_forwarded().map_err(|error| chain(&error)),
        legacy_tables: firewall::older_tables().into_iter().filter(|table| table == "filter").collect(),
        overlap: overlapping(&store),
        services_overlap: if service_store::are_installed(&store) {
            None
        } else {
            overlap_with(&service_store::ranges())
        },
        name_servers: Resolv::of_host_below(Path::new("/")).servers,
    }
}

/// The checks whose files this user may not open, though they are there.
fn refused() -> Vec<&'static str> {
    let files = [
        ("/dev/net/tun", "/dev/net/tun"),
        ("engine", "/dev/kvm"),
        ("vhost-net", "/dev/vhost-net"),
        ("IPv4 forwarding", "/proc/sys/net/ipv4/ip_forward"),
        ("IPv6 forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"),
    ];
    let is_refused = |path: &str| can_open(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
    let refused = files.into_iter().filter(|(_, path)| is_refused(path)).map(|(check, _)| check);
    // nf_tables answers only who has CAP_NET_ADMIN.
    refused.chain(["firewall"]).collect()
}

fn can_open(path: &str) -> std::io::Result<()> {
    OpenOptions::new().read(true).write(true).open(path).map(drop)
}

fn launcher() -> Result<(), String> {
    let program = launcher_path();
    let failed = |why: String| format!("{}: {why}", program.display());
    let file = std::fs::metadata(&program).map_err(|error| failed(error.to_string()))?;
    match file.permissions().mode() & 0o111 {
        0o111 => Ok(()),
        _ => Err(failed(format!("mode {:04o}", file.permissions().mode() & 0o7777))),
    }
}

/// The user of the next VM, or of one in a pod where that is not known.
fn next_owner(layout: &Layout) -> Owner {
    OwnerRange::of(layout).map_or(POD_OWNER, |range| range.first())
}

fn vm_users(layout: &Layout) -> VmUsers {
    let range = OwnerRange::of(layout);
    let others = range.as_ref().map_or_else(|_| Vec::new(), |range| Accounts::below(layout.root()).within(*range));
    let are_mapped = range.as_ref().is_ok_and(|range| Mapped::here().has_first_of(*range));
    VmUsers { range: range.map(|range| range.to_string()).map_err(|error| chain(&error)), others, are_mapped }
}

fn isolation(layout: &Layout) -> Result<Vec<String>, String> {
    let launcher =
        LauncherFile::next_to_this_program().map_err(|error| format!("{}: {error}", launcher_path().display()))?;
    try_out_isolation(layout, &launcher, next_owner(layout))
}

/// A VM process that has a /dev of its own owns the node in it.
fn kvm(layout: &Layout, probed: Result<&Verdict, &String>, is_apart: bool) -> Kvm {
    match can_open("/dev/kvm") {
        Err(error) if error.kind() == ErrorKind::NotFound => Kvm::Absent,
        Err(error) => Kvm::Refused(error.to_string()),
        Ok(()) => match probed {
            Ok(Verdict::Usable) => match Node::kvm() {
                // Root may open anything; a VM process is not root.
                Ok(node) if !is_apart && node.access(next_owner(layout)) == Access::Closed => {
                    Kvm::Withheld(node.to_string())
                }
                _ => Kvm::Present("works".to_owned()),
            },
            Ok(Verdict::Unusable { reason }) => Kvm::Unusable(reason.clone()),
            Err(why) => Kvm::Untried(why.clone()),
        },
    }
}

/// Asks the program that is going to use it.
fn probe() -> Result<Probe, String> {
    let program = launcher_path();
    let failed = |why: String| format!("{} does not answer: {why}", program.display());
    let output = Command::new(&program).arg("probe").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn missing_plugins(store: &Store) -> Vec<String> {
    let folders = plugin_folders(store);
    let request = Request::new(POD_OWNER, Vec::new()).ok();
    let lists = [Some(built_in(Path::new("/"))), request.as_ref().map(binding)];
    let missing = |document| folders.expect(&ConfigList::from_value(document).ok()?).err();
    lists.into_iter().flatten().filter_map(missing).map(|missing| missing.plugin).collect()
}

fn read_flag(path: &str) -> Option<bool> {
    std::fs::read_to_string(path).ok().map(|text| text.trim() != "0")
}

fn forwarding(path: &str) -> Forwarding {
    match read_flag(path) {
        None => Forwarding::Unknown,
        Some(true) => Forwarding::On,
        // Opened for writing, nothing written: a mount that is read-only is refused by that alone.
        Some(false) => match OpenOptions::new().write(true).open(path) {
            Ok(_) => Forwarding::Off,
            Err(_) => Forwarding::Fixed,
        },
    }
}

/// How the names of namespaces begin in which something is tried; what is tried and the process follow.
const TRIAL: &str = "tv-doctor-";

/// Tries something in a namespace of its own that goes again.
fn try_out(what: &str, attempt: fn() -> Result<(), String>) -> Result<(), String> {
    let path = Layout::default().netns_dir().join(format!("{TRIAL}{what}-{}", std::process::id()));
    let netns = Netns::create(&path).map_err(|error| chain(&error))?;
    let tried = netns.run(attempt).map_err(|error| chain(&error));
    drop(netns);
    Netns::remove(&path).map_err(|error| chain(&error))?;
    tried?
}

/// Removes the namespaces of processes that were killed during a trial.
fn sweep() {
    let is_left = |path: &PathBuf| {
        let process = path.file_name().and_then(|name| process_of(name.to_str()?));
        process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists())
    };
    let paths = files::entries(Layout::default().netns_dir()).unwrap_or_default();
    for path in paths.iter().filter(|path| is_left(path)) {
        if let Err(error) = Netns::remove(path) {
            tracing::warn!(error = %chain(&error), "a namespace of a killed doctor cannot be removed");
        }
    }
}

/// The process that a trial's namespace is called after.
fn process_of(name: &str) -> Option<u32> {
    name.strip_prefix(TRIAL)?.rsplit_once('-')?.1.parse().ok()
}

fn name(text: &str) -> Result<IfName, String> {
    text.parse::<IfName>().map_err(|error| error.to_string())
}

fn cable(one: &IfName, other: &IfName) -> Op {
    let kind = NewLinkKind::Veth { peer: other.clone() };
    Op::CreateLink(NewLink { name: one.clone(), kind, set: LinkChange::default() })
}

/// A link with a tag, as the plugin `vlan` makes it.
fn make_vlan() -> Result<(), String> {
    let (one, other) = (name("one")?, name("other")?);
    let id = VlanId::try_from(7).map_err(|error| error.to_string())?;
    let kind = NewLinkKind::Vlan { parent: one.clone(), id };
    let tagged = Op::CreateLink(NewLink { name: name("tagged")?, kind, set: LinkChange::default() });
    Linux::here().execute(&[cable(&one, &other), tagged]).map_err(|failure| chain(&failure))
}

/// The very kind of rule that a VM needs.
fn load_fwd() -> Result<(), String> {
    let (one, other) = (name("one")?, name("other")?);
    let cable = cable(&one, &other);
    let ingress = Chain::ingress("in", one, 0).rule(Rule::named("doctor").forward(&other));
    let table = Table::new(Family::Netdev, "doctor").chain(ingress);
    let load = Op::Nft(Transaction::add([table]));
    Linux::here().execute(&[cable, load]).map_err(|error| chain(&error))
}

/// Filters that drop what no rule of theirs decided, as Docker and ufw leave them, and that have no rule for our VMs.
fn drops_forwarded() -> Result<Vec<String>, KernelError> {
    let mut kernel = Linux::here();
    let tables = firewall::tables(&mut kernel)?;
    let facts = kernel.gather(&Ask::default().with_tables(tables))?;
    let is_in_the_way = |dropping: &Dropping<'_>| {
        let mut addresses = ranges().into_iter().map(|range| range.ip());
        addresses.any(|address| dropping.concerns(address) && !dropping.lets_through(address, None))
    };
    let by_default = dropping(&facts.tables).into_iter().filter(is_in_the_way).map(|dropping| dropping.to_string());
    let by_rule = ranges().into_iter().flat_map(|range| refusals(&facts.tables, range.ip(), None));
    let mut all: Vec<_> = by_default.chain(by_rule.map(|refusal| refusal.to_string())).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// Only while no VM is on the default network: it would meet itself.
fn overlapping(store: &Store) -> Option<String> {
    let is_present = |key: &ObjectKey| store.status(key).is_ok_and(|status| status.on_host == OnHost::Present);
    if store.keys().is_ok_and(|keys| keys.iter().any(is_present)) {
        return None;
    }
    overlap_with(&ranges())
}

fn overlap_with(ranges: &[IpNetwork]) -> Option<String> {
    let facts = Linux::here().gather(&Ask::network()).ok()?;
    overlap(&facts, ranges).map(|overlap| overlap.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_of_a_trial_tells_whose_it_is_and_others_tell_nothing() {
        assert_eq!(process_of("tv-doctor-fwd-4711"), Some(4711));
        assert_eq!(["tv-354f5c9f2d0a", "tv-doctor-fwd", "tv-doctor-fwd-x"].map(process_of), [None, None, None]);
    }
}
