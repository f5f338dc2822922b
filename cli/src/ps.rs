//! `tapvisor ps`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::arguments::{Output, Ps};
use super::failure::Failure;
use super::{open_store, terminal};
use runner::clock::unix_seconds;
use runner::record::Status;

/// Lists VMs.
pub(crate) fn ps(arguments: &Ps) -> Result<ExitCode, Failure> {
    let (store, _) = open_store()?;
    let mut vms = Vec::new();
    for key in store.keys()? {
        match store.status(&key) {
            Ok(status) => vms.push(status),
            // Removed between the listing and the look.
            Err(runner::store::StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match arguments.output {
        Output::Json => terminal::listing("VMList", &vms.iter().map(item).collect::<Vec<_>>()),
        Output::Table => {
            let now = unix_seconds();
            let rows: Vec<_> = vms.iter().map(|status| row(status, now)).collect();
            terminal::table(&["NAMESPACE", "NAME", "STATUS", "RESTARTS", "AGE", "ADDRESSES", "REASON"], &rows);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn item(status: &Status) -> Value {
    json!({
        "namespace": status.namespace,
        "name": status.name,
        "kind": status.kind,
        "runStrategy": status.strategy,
        "status": status.phase,
        "reason": status.reason,
        "ready": status.ready,
        "restarts": status.restarts,
        "addresses": status.addresses,
        "network": status.network,
        "netns": status.netns,
        "containerId": status.container_id,
        "launcherPid": status.launcher.map(|launcher| launcher.pid),
        "createdUnixSeconds": status.created_unix_seconds,
        "runningSinceUnixSeconds": status.running_since_unix_seconds,
    })
}

fn row(status: &Status, now_unix_seconds: u64) -> Vec<String> {
    let addresses: Vec<_> = status.addresses.iter().map(ToString::to_string).collect();
    vec![
        status.namespace.clone(),
        status.name.clone(),
        format!("{:?}", status.phase),
        status.restarts.to_string(),
        age(now_unix_seconds.saturating_sub(status.created_unix_seconds)),
        if addresses.is_empty() { "-".to_owned() } else { addresses.join(",") },
        status.reason.clone().unwrap_or_default(),
    ]
}

/// As kubectl shows it: the largest two units at most.
fn age(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (0, 0, 0..=1) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{}m", minutes % 60),
        (days, hours, _) => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_at_most_two_units() {
        let ages = [0, 119, 120, 3_599, 3_600, 90_061].map(age);
        assert_eq!(ages, ["0s", "119s", "2m0s", "59m59s", "1h0m", "1d1h"]);
    }
}
