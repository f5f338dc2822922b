//! `tapvisor ps`.

use std::net::IpAddr;
use std::process::ExitCode;

use serde_json::{Value, json};
use terms::ObjectKey;

use super::arguments::{Output, Ps};
use super::failure::Failure;
use super::{open_store_to_read, terminal};
use runner::chain;
use runner::clock::unix_seconds;
use runner::record::Status;
use runner::store::StoreError;

/// `tapvisor ps`: a damaged record is listed as such and does not hide other VMs.
pub(crate) fn ps(arguments: &Ps) -> Result<ExitCode, Failure> {
    let store = open_store_to_read()?;
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
            lines(&vms, now, terminal::columns()).iter().for_each(|line| terminal::line(line));
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
            Self::Damaged { key, .. } => {
                [key.namespace(), key.name(), "Damaged", "-", "-", "-", "-"].map(str::to_owned).to_vec()
            }
        }
    }

    fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Known(status) => &status.addresses,
            Self::Damaged { .. } => &[],
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Known(status) => {
                [&status.reason, &status.left].into_iter().flatten().cloned().collect::<Vec<_>>().join("; ")
            }
            Self::Damaged { reason, .. } => reason.clone(),
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
        "engine": status.engine,
        "engineReason": status.engine_reason,
        "left": status.left,
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

const HEAD: [&str; 7] = ["NAMESPACE", "NAME", "STATUS", "RESTARTS", "AGE", "ENGINE", "ADDRESSES"];

/// Columns that are always there.
const FEWEST: usize = 5;

/// A table of at most `columns`: the addresses of a VM one below the other, beneath its row where they do not fit in it, and
/// the reason for its state beneath that.
fn lines(vms: &[Vm], now_unix_seconds: u64, columns: usize) -> Vec<String> {
    let mut rows: Vec<_> = vms.iter().map(|vm| vm.row(now_unix_seconds)).collect();
    let mut head = &HEAD[..];
    let is_wide = |head: &[&str], rows: &[Vec<String>]| {
        terminal::table_lines(head, rows).iter().any(|line| line.chars().count() > columns)
    };
    let are_beneath = is_wide(head, &rows);
    // First the addresses, then the engine, which `-o json` shows with its reason.
    while head.len() > FEWEST && is_wide(head, &rows) {
        head = &head[..head.len() - 1];
        rows.iter_mut().for_each(|row| row.truncate(head.len()));
    }
    // Rows are made together, so that their columns agree, and taken one by one by their heights.
    let mut made = terminal::table_lines(head, &rows).into_iter();
    let mut lines: Vec<_> = made.next().into_iter().collect();
    for (vm, row) in vms.iter().zip(&rows) {
        let height = row.iter().map(|cell| cell.split('\n').count()).max().unwrap_or(1);
        lines.extend(made.by_ref().take(height));
        let addresses = vm.addresses().iter().map(ToString::to_string).filter(|_| are_beneath);
        let reason = terms::visible(&vm.reason()).replace('\n', " ");
        let reason = wrapped(&reason, columns.saturating_sub(4));
        lines.extend(addresses.chain(reason).map(|text| format!("    {text}")));
    }
    lines
}

/// Text in lines of at most `width` characters, broken at spaces where there are some.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn row(status: &Status, now_unix_seconds: u64) -> Vec<String> {
    let addresses: Vec<_> = status.addresses.iter().map(ToString::to_string).collect();
    vec![
        status.namespace.clone(),
        status.name.clone(),
        format!("{:?}", status.phase),
        status.restarts.to_string(),
        age(now_unix_seconds.saturating_sub(status.created_unix_seconds)),
        status.engine.clone().unwrap_or_else(|| "-".to_owned()),
        if addresses.is_empty() { "-".to_owned() } else { addresses.join("\n") },
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

    // spec: CLI-9
    #[test]
    fn a_list_fits_eighty_columns_with_every_address_and_reason() {
        let status = |name: &str| -> Status {
            serde_json::from_value(
                json!({"namespace": "default", "name": name, "kind": "VirtualMachine", "strategy": "Always",
                "phase": "CrashLoopBackOff", "onHost": "present", "kept": true, "containerId": "ab".repeat(32),
                "netns": "/run/netns/tv-000000000000", "gracePeriodSeconds": 30, "createdUnixSeconds": 0, "restarts": 0,
                "ready": false}),
            )
            .unwrap()
        };
        let mut web = status("web");
        web.addresses =
            ["10.244.107.103", "fd00:1111:2222:3333:4444:5555:6666:7777"].map(|a| a.parse().unwrap()).into();
        let mut db = status("a-virtual-machine-with-a-long-name");
        db.addresses = web.addresses.clone();
        db.reason = Some("the guest's watchdog fired ".repeat(6));
        let known = |status: &Status| Vm::Known(Box::new(status.clone()));
        for vms in [vec![known(&web)], vec![known(&web), known(&db)]] {
            let lines = lines(&vms, 0, 80);
            assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
            let text = lines.join("\n");
            assert_eq!(text.matches("10.244.107.103").count(), vms.len(), "{text}");
            assert_eq!(text.matches("fd00:1111:2222:3333:4444:5555:6666:7777").count(), vms.len(), "{text}");
            assert!(vms.len() == 1 || text.matches("watchdog").count() == 6, "{text}");
        }
    }

    #[test]
    fn ages_have_at_most_two_units() {
        let ages = [0, 119, 120, 3_599, 3_600, 90_061].map(age);
        assert_eq!(ages, ["0s", "119s", "2m0s", "59m59s", "1h0m", "1d1h"]);
    }
}
