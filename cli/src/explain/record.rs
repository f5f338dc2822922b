//! What the runner keeps of a VM, as `explain` takes it.

use explain::record::{Kind, Launcher, Network, Phase, Place, VmRecord, VmStatus};
use runner::record::{self, OnHost};
use runner::store::Store;
use terms::ObjectKey;
use wiring::Request;

use crate::failure::{Exit, Failure};
use crate::names;

/// Reads a VM's record from the runner's files.
pub(super) fn read(store: &Store, key: &ObjectKey) -> Result<VmRecord, Failure> {
    let status = store.status(key)?;
    let files = store.layout().vm(key);
    let text = std::fs::read_to_string(files.wiring());
    let text =
        text.map_err(|error| Failure::new(Exit::Failed, format!("cannot read {:?}: {error}", files.wiring())))?;
    let request = Request::parse(&text)
        .map_err(|error| Failure::new(Exit::Failed, format!("the VM's wiring request: {error}")))?;
    let networks = store.attachments(key)?.list.into_iter();
    let networks = networks.map(|network| Network { ifname: network.ifname, config: network.config }).collect();
    let status = VmStatus {
        kind: match status.kind {
            record::Kind::VirtualMachine => Kind::VirtualMachine,
            record::Kind::VirtualMachineInstance => Kind::VirtualMachineInstance,
        },
        phase: phase(status.phase),
        place: Place::Machine { argument: names::argument(key), log: files.supervisor_log() },
        namespace: status.namespace,
        name: status.name,
        reason: status.reason,
        is_on_host: status.on_host == OnHost::Present,
        netns: store.layout().netns(key),
        addresses: status.addresses,
        running_since_unix_seconds: status.running_since_unix_seconds,
        restarts: status.restarts,
    };
    Ok(VmRecord { status, request, networks, launcher: Launcher::Socket(files.control_socket()) })
}

fn phase(phase: record::Phase) -> Phase {
    match phase {
        record::Phase::Starting => Phase::Starting,
        record::Phase::Running => Phase::Running,
        record::Phase::Paused => Phase::Paused,
        record::Phase::Stopping => Phase::Stopping,
        record::Phase::CrashLoopBackOff => Phase::CrashLoopBackOff,
        record::Phase::Stopped => Phase::Stopped,
        record::Phase::Succeeded => Phase::Succeeded,
        record::Phase::Failed => Phase::Failed,
    }
}
