//! What a launcher pod asks its node for.

use api::quantity::Quantity;
use machine::{DiskSource, MAX_FILES_BYTES};
use serde_json::{Value, json};

use super::launch::Launch;
use crate::config::ClusterConfig;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Memory of launcher and engine beyond the guest's: measured 9.5 MiB and 60 MiB, and page tables.
const KVM_OVERHEAD: u64 = 96 * MIB;
/// The same in emulation: QEMU caches up to 128 MiB of translated code, of which it uses a part for most guests.
const EMULATION_OVERHEAD: u64 = 256 * MIB;
/// Log, sockets and overlays that hardly grow.
const EPHEMERAL_STORAGE: u64 = 50 * MIB;
/// KubeVirt's allocation ratio: ten virtual CPUs share one.
const MILLICPUS_OF_A_VCPU: u64 = 100;

/// `resources` of the container `compute`.
pub(super) fn resources(launch: &Launch, config: &ClusterConfig) -> Value {
    let machine = &launch.file.machine;
    let overhead = if config.use_emulation { EMULATION_OVERHEAD } else { KVM_OVERHEAD };
    let given = &launch.instance.spec.resources;
    let vcpus = u64::from(machine.cpu.count());
    // As for any container, a limit is requested where nothing else is.
    let requested = given.requests.cpu.as_ref().or(given.limits.cpu.as_ref());
    let millicpus = requested.and_then(Quantity::milli_rounded_up).unwrap_or(vcpus * MILLICPUS_OF_A_VCPU);
    let requested = given.requests.memory.as_ref().or(given.limits.memory.as_ref());
    let memory = requested.and_then(Quantity::rounded_up).unwrap_or(machine.memory_bytes);
    // Huge pages are a resource of their own (hugepages-2Mi), and no memory of the pod.
    let huge = machine.hugepage_bytes.map_or(0, |_| machine.memory_bytes);
    let memory = memory.saturating_sub(huge);
    let mut requests = json!({
        "cpu": format!("{millicpus}m"),
        "memory": mebibytes(memory.saturating_add(overhead)),
        "ephemeral-storage": ephemeral_storage(launch),
    });
    let mut limits = json!({});
    if let Some(millicpus) = given.limits.cpu.as_ref().and_then(Quantity::milli_rounded_up) {
        limits["cpu"] = json!(format!("{millicpus}m"));
    }
    if let Some(bytes) = given.limits.memory.as_ref().and_then(Quantity::rounded_up) {
        limits["memory"] = mebibytes(bytes.max(machine.memory_bytes).saturating_sub(huge).saturating_add(overhead));
    }
    if let Some(page) = machine.hugepage_bytes {
        let size = if page < GIB { format!("{}Mi", page / MIB) } else { format!("{}Gi", page / GIB) };
        let name = format!("hugepages-{size}");
        limits[&name] = mebibytes(huge);
        requests[&name] = mebibytes(huge);
    }
    let mut devices = Vec::new();
    if !config.use_emulation {
        devices.push("kvm");
    }
    if !launch.file.machine.nics.is_empty() && config.requests_tun {
        devices.push("tun");
        if !config.use_emulation {
            devices.push("vhost-net");
        }
    }
    for device in devices {
        let name = format!("devices.kubevirt.io/{device}");
        limits[&name] = json!("1");
        requests[&name] = json!("1");
    }
    json!({"requests": requests, "limits": limits})
}

fn mebibytes(bytes: u64) -> Value {
    json!(format!("{}Mi", bytes.div_ceil(MIB)))
}

/// What the launcher writes into the folder of disks that end with the VM, as a quantity.
pub(super) fn ephemeral_storage(launch: &Launch) -> Value {
    mebibytes(scratch_bytes(launch).saturating_add(EPHEMERAL_STORAGE))
}

/// The sizes of all disks that end with the VM.
fn scratch_bytes(launch: &Launch) -> u64 {
    let disks = launch.file.machine.disks.iter();
    let sizes = disks.map(|disk| match disk.source {
        DiskSource::Empty { capacity_bytes } => capacity_bytes,
        DiskSource::Files { .. } => MAX_FILES_BYTES,
        _ => 0,
    });
    sizes.fold(0, u64::saturating_add)
}
