//! Group 20: many attachments at once, and then many with random kills.

use std::collections::BTreeSet;
use std::thread;

use serde_json::Value;

use super::{Case, churn, scripts};
use crate::conformance::attachment::Attachment;
use crate::conformance::call::Answer;
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::subject::Role;
use crate::conformance::trouble::Trouble;

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    let mut attachments = Vec::new();
    for number in 0..case.effort.parallel {
        attachments.push(Attachment::prepare(case, 20_000 + number)?);
    }
    let Some(first) = attachments.first() else { return Ok(()) };
    let before = Snapshot::of(first)?;

    let added = at_once(&mut attachments, Attachment::add)?;
    all_succeeded("ADD", &added, findings);
    no_duplicate_addresses(case, &attachments, findings);
    if case.has("CHECK") {
        let checked = at_once(&mut attachments, |attachment| attachment.check())?;
        all_succeeded("CHECK", &checked, findings);
    }
    let deleted = at_once(&mut attachments, |attachment| attachment.del())?;
    all_succeeded("DEL", &deleted, findings);
    if let Some(first) = attachments.first() {
        findings.expect_none("after all is deleted the node is as before", before.difference(&first.pod)?);
    }
    churn::run(case, findings)
}

/// Runs a verb for all attachments, each on a thread of its own.
fn at_once<'a>(
    attachments: &mut [Attachment<'a>],
    verb: impl Fn(&mut Attachment<'a>) -> Result<Answer, Trouble> + Sync,
) -> Result<Vec<Answer>, Trouble> {
    let verb = &verb;
    thread::scope(|scope| {
        let running: Vec<_> = attachments.iter_mut().map(|attachment| scope.spawn(move || verb(attachment))).collect();
        let panicked = |_| Err(Trouble::Words("a thread of the suite panicked".to_owned()));
        running.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    })
}

fn all_succeeded(verb: &str, answers: &[Answer], findings: &mut Findings) {
    let failed: Vec<_> = answers.iter().filter(|answer| !answer.succeeded()).collect();
    findings.expect(format!("every {verb} at once succeeds"), failed.is_empty(), || {
        format!(
            "{} of {} failed, one: {}",
            failed.len(),
            answers.len(),
            failed.first().map_or(String::new(), |one| one.shown())
        )
    });
}

fn no_duplicate_addresses(case: &Case<'_>, attachments: &[Attachment<'_>], findings: &mut Findings) {
    if !matches!(case.subject.role, Role::Main | Role::Ipam) {
        return;
    }
    let addresses: Vec<&str> = attachments
        .iter()
        .filter_map(|attachment| attachment.result.as_ref()?.get("ips")?.as_array())
        .flatten()
        .filter_map(|ip| ip.get("address").and_then(Value::as_str))
        .collect();
    let different: BTreeSet<_> = addresses.iter().collect();
    findings.expect("no address is handed out twice", different.len() == addresses.len(), || {
        format!("{} addresses, {} different", addresses.len(), different.len())
    });
}
