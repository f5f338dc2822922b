//! `tapvisor ps`.

use std::process::ExitCode;

use serde_json::{Value, json};
use terms::ObjectKey;

use super::arguments::{Output, Ps};
use super::failure::Failure;
use super::{open_store, terminal};
use runner::chain;
use runner::clock::unix_seconds;
use runner::record::Status;
use runner::store::StoreError;

/// Lists VMs.
pub(crate) fn ps(arguments: &Ps) -> Result<ExitCode, Failure> {
    let (store, _) = open_store()?;
    let mut vms = Vec::new();
    for key in store.keys()? {
        match store.status(&key) {
            Ok(status) => vms.push(Vm::Known(Box::new(status))),
            // Removed between the listing and the look.
            Err(StoreError::NotFound(_)) => {}
            // One VM's; the others are listed.
            Err(error) => vms.push(Vm::Damaged { key, reason: chain(&error) }),
        }
    }
    match arguments.output {
        Output::Json => terminal::listing("VMList", &vms.iter().map(Vm::item).collect::<Vec<_>>()),
        Output::Table => {
            let now = unix_seconds();
            let rows: Vec<_> = vms.iter().map(|vm| vm.row(now)).collect();
            terminal::table(&["NAMESPACE", "NAME", "STATUS", "RESTARTS", "AGE", "ADDRESSES", "REASON"], &rows);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A VM as it is listed.
enum Vm {
    Known(Box<Status>),
    /// Its record cannot be read.
    Damaged {
        key: ObjectKey,
        reason: String,
    },
}

impl Vm {
    fn item(&self) -> Value {
        match self {
            Self::Known(status) => item(status),
            Self::Damaged { key, reason } => {
                json!({"namespace": key.namespace(), "name": key.name(), "status": "Damaged", "reason": reason})
            }
        }
    }

    fn row(&self, now_unix_seconds: u64) -> Vec<String> {
        match self {
            Self::Known(status) => row(status, now_unix_seconds),
            Self::Damaged { key, reason } => {
                let cells = [key.namespace(), key.name(), "Damaged", "-", "-", "-", reason];
                cells.map(str::to_owned).to_vec()
            }
        }
    }
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
