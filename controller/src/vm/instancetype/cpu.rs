//! The topology of a number of vCPUs, as a preference spreads them over sockets, cores and threads.

use serde_json::{Value, json};

/// Cores of each socket, or threads of each core, where the preference names no number.
const SPREAD_RATIO: u64 = 2;
const THREADS_OF_A_CORE: u64 = 2;

/// Sockets, cores and threads of so many vCPUs.
///
/// # Errors
/// The preference's number does not divide that of the vCPUs.
pub(super) fn topology(vcpus: u64, preference: Option<&Value>) -> Result<Value, String> {
    let cpu = preference.map_or(&Value::Null, |preference| &preference["cpu"]);
    let (mut sockets, mut cores, mut threads) = (1, 1, 1);
    match cpu["preferredCPUTopology"].as_str().unwrap_or("sockets") {
        _ if vcpus == 1 => {}
        "cores" | "preferCores" => cores = vcpus,
        "threads" | "preferThreads" => threads = vcpus,
        "spread" | "preferSpread" => {
            let older = preference.and_then(|preference| preference["preferSpreadSocketToCoreRatio"].as_u64());
            let ratio =
                cpu["spreadOptions"]["ratio"].as_u64().or(older).filter(|ratio| *ratio > 0).unwrap_or(SPREAD_RATIO);
            match cpu["spreadOptions"]["across"].as_str().unwrap_or("SocketsCores") {
                "CoresThreads" => (cores, threads) = (vcpus / ratio, ratio),
                "SocketsCoresThreads" => {
                    (sockets, cores, threads) = (vcpus / ratio / THREADS_OF_A_CORE, ratio, THREADS_OF_A_CORE);
                }
                _ => (sockets, cores) = (vcpus / ratio, ratio),
            }
        }
        _ => sockets = vcpus,
    }
    if sockets * cores * threads != vcpus {
        return Err(format!(
            "{vcpus} vCPUs cannot be spread as the preference says: {sockets} sockets of {cores} cores of {threads} threads"
        ));
    }
    Ok(json!({"sockets": sockets, "cores": cores, "threads": threads}))
}
