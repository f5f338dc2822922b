//! Taking an attachment away by its key and its record.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_protocol::spec::Error;
use hostnet::nft::{Command, TableId, Transaction};
use hostnet::{Ask, Kernel, LockKind, Op, Records, tear_down};
use terms::{IfName, NetworkName};

use super::error::BridgeError;
use super::names::Key;
use super::record::{PATIENCE, Record, records};

/// Removes what is on the host; the pod's end goes with the cable. Goes on past failures and returns them in words.
pub(crate) fn links(kernel: &mut impl Kernel, key: &Key) -> Vec<String> {
    match key.host_end() {
        Ok(link) => in_words(kernel, &[Op::DeleteLink { link }]),
        Err(error) => vec![error.to_string()],
    }
}

/// Removes an attachment's elements from the host's tables.
///
/// Another attachment may have the same address behind the same bridge: its element is the same one, and stays.
pub(crate) fn elements(
    kernel: &mut impl Kernel,
    records: &Records,
    network: &NetworkName,
    key: &Key,
    record: &Record,
) -> Result<Vec<String>, BridgeError> {
    let mut all = record.elements(&key.host_end().map_err(super::error::Refusal::from)?);
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let _lock = records.lock(PATIENCE)?;
    if !all.masqueraded.is_empty() {
        let shared = shared(records, network, key)?;
        all.masqueraded.retain(|element| !shared.contains(element));
    }
    Ok(in_words(kernel, &all.removals()))
}

/// What other attachments have masqueraded.
fn shared(records: &Records, network: &NetworkName, key: &Key) -> Result<BTreeSet<(IfName, IpAddr)>, BridgeError> {
    let mut all = BTreeSet::new();
    for (other, of) in records.all()? {
        if other == *network && of == key.as_str() {
            continue;
        }
        let record = records.read(&other, &of)?.and_then(|bytes| Record::from_bytes(&bytes));
        let Some(record) = record else { continue };
        let link = record.gateway_link.iter();
        all.extend(link.flat_map(|link| record.masqueraded.iter().map(|ip| (link.clone(), *ip))));
    }
    Ok(all)
}

/// Removes tables of the plugin that no attachment has elements in. Nothing else ever does: they are shared.
///
/// # Errors
/// When the kernel cannot be read or refuses, or other calls do not end.
pub fn remove_unused(kernel: &mut impl Kernel, tables: &[TableId]) -> Result<(), Error> {
    let read = |kernel: &mut dyn Kernel| {
        let facts = kernel.gather(&Ask::default().with_tables(tables.iter().cloned()));
        let mut found = facts.map_err(BridgeError::from)?.tables;
        found.retain(|table| table.sets.iter().all(|set| set.elements.is_empty()));
        Ok::<_, Error>(found)
    };
    if read(kernel)?.is_empty() {
        return Ok(());
    }
    let _alone = records().hold(LockKind::Exclusive, PATIENCE).map_err(BridgeError::from)?;
    let unused: Vec<_> = read(kernel)?.into_iter().map(|table| Command::DeleteTable(table.id)).collect();
    if unused.is_empty() {
        return Ok(());
    }
    kernel.execute(&[Op::Nft(Transaction { commands: unused })]).map_err(|failure| BridgeError::from(failure.error))?;
    Ok(())
}

fn in_words(kernel: &mut impl Kernel, ops: &[Op]) -> Vec<String> {
    let failures = tear_down(kernel, ops).into_iter();
    // An element, or its table, that is gone is as good as removed.
    let is_gone = |op: Option<&Op>| {
        matches!(op, Some(Op::Nft(transaction))
            if transaction.commands.iter().all(|command| matches!(command, Command::DeleteElements { .. })))
    };
    let left = failures.filter(|failure| !(is_gone(ops.get(failure.index)) && failure.error.is_absent()));
    left.map(|failure| format!("{failure}: {}", failure.error)).collect()
}
