//! STATUS: whether this host could serve an ADD.

use std::path::Path;

use hostnet::linux::Linux;
use hostnet::nft::{Chain, Family, Rule, Table, Transaction};
use hostnet::{Kernel, Op};
use nix::sched::{CloneFlags, unshare};
use terms::IfName;

use super::BindingError;

const TUN_NODE: &str = "/dev/net/tun";

/// Looks for the tun driver, and tries in a namespace of its own whether frames can be forwarded between devices.
pub(super) fn check() -> Result<(), BindingError> {
    if !Path::new(TUN_NODE).exists() {
        return Err(BindingError::HostLacks(format!("{TUN_NODE} is missing: load the tun module")));
    }
    let tried = std::thread::scope(|scope| scope.spawn(forward_in_a_new_namespace).join());
    tried.unwrap_or_else(|_| Err(BindingError::HostLacks("the trial of nft fwd panicked".to_owned())))
}

/// The namespace goes with the thread, and the table with it.
fn forward_in_a_new_namespace() -> Result<(), BindingError> {
    let lacks = |why: String| BindingError::HostLacks(why);
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| lacks(format!("no network namespace can be made: {errno}")))?;
    let loopback: IfName = "lo".parse().map_err(|error| lacks(format!("{error}")))?;
    let rule = Rule::named("trial").forward(&loopback);
    let table = Table::new(Family::Netdev, "tapvisor-trial").chain(Chain::regular("trial").rule(rule));
    Linux::here().execute(&[Op::Nft(Transaction::add([table]))]).map_err(|failure| {
        lacks(format!(
            "nft cannot forward frames between devices (kernel options NF_TABLES_NETDEV and NFT_FWD_NETDEV): {}",
            failure.error
        ))
    })
}
