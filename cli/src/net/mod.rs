//! `tapvisor net`: the segments of this host, and who is on them. Changes nothing.

mod picture;
mod segment;

use std::process::ExitCode;

use hostnet::{Ask, Kernel as _, Linux};
use serde_json::json;

use super::arguments::Output;
use super::failure::{Exit, Failure};
use super::{open_store_to_read, terminal};
use protocol::chain::chain;
use runner::store::StoreError;
use segment::{Segment, Vms, segments};

/// `tapvisor net ls`
pub(crate) fn ls(output: Output) -> Result<ExitCode, Failure> {
    let segments = gather()?;
    match output {
        Output::Json => print_json(&segments),
        Output::Table => {
            let rows: Vec<_> = segments.iter().map(picture::row).collect();
            terminal::table(&picture::HEAD, &rows);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `tapvisor net inspect`: by the name of a bridge, of a network, or of the host's end of a cable.
pub(crate) fn inspect(name: &str, output: Output) -> Result<ExitCode, Failure> {
    let mut segments = gather()?;
    segments.retain(|segment| segment.answers_to(name));
    if segments.is_empty() {
        let message = format!("{name}: no bridge and no network of tapvisor-bridge here: `tapvisor net ls` lists them");
        return Err(Failure::new(Exit::NotFound, message));
    }
    match output {
        Output::Json => print_json(&segments),
        Output::Table => segments.iter().flat_map(picture::lines).for_each(|line| terminal::line(&line)),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_json(segments: &[Segment]) {
    terminal::listing("SegmentList", &segments.iter().map(|segment| json!(segment)).collect::<Vec<_>>());
}

fn gather() -> Result<Vec<Segment>, Failure> {
    let store = open_store_to_read()?;
    let mut vms = Vms::new();
    for key in store.keys()? {
        match store.status(&key) {
            Ok(status) => drop(vms.insert(status.container_id.to_string(), key.to_string())),
            // Removed between the listing and the look, or unreadable, which `ps` reports.
            Err(StoreError::NotFound(_)) => {}
            Err(error) => terminal::say(&format!("tapvisor: {key}: {}", chain(&error))),
        }
    }
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Failed, chain(error));
    let attached = bridge::attachments().map_err(|error| failed(&error))?;
    let ask = Ask { links: true, addresses: true, bridging: true, vlans: true, forwarding: true, ..Ask::default() };
    let facts = Linux::here().gather(&ask).map_err(|error| failed(&error))?;
    Ok(segments(&facts, &attached, &vms))
}
