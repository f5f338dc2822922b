//! ADD/DEL cycles, eight at a time, with the plugin killed at random moments: nothing may add up.

use std::io::Write as _;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::Case;
use crate::conformance::attachment::{Attachment, Farewell};
use crate::conformance::call::Call;
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::trouble::Trouble;

const WORKERS: usize = 8;
/// Kills fall into the time in which a plugin works, and a little after.
const LATEST_KILL_US: u64 = 12_000;

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    let mut attachments = Vec::new();
    for number in 0..WORKERS {
        attachments.push(Attachment::prepare(case, 30_000 + number)?);
    }
    let before = attachments.iter().map(|attachment| Snapshot::of(attachment)).collect::<Result<Vec<_>, _>>()?;
    let left = AtomicUsize::new(case.effort.cycles);
    let found = thread::scope(|scope| {
        let left = &left;
        let workers: Vec<_> = attachments
            .iter()
            .enumerate()
            .map(|(worker, attachment)| {
                scope.spawn(move || work(attachment, Random::new(case.effort.seed, worker), left))
            })
            .collect();
        let panicked = |_| Err(Trouble::Words("a thread of the suite panicked".to_owned()));
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(panicked)).collect::<Result<Vec<_>, _>>()
    })?;
    let wrong: Vec<String> = found.into_iter().flatten().collect();
    findings.expect("after a random kill DEL succeeds", wrong.is_empty(), || {
        format!(
            "{} times, first: {} (seed {})",
            wrong.len(),
            wrong.first().cloned().unwrap_or_default(),
            case.effort.seed
        )
    });
    for (attachment, before) in attachments.iter().zip(before) {
        let residue = before.difference(&attachment.pod)?.map(|text| format!("{text} (seed {})", case.effort.seed));
        findings.expect_none("cycles with random kills leave nothing", residue);
    }
    Ok(())
}

/// One worker's cycles: an ADD, perhaps killed, perhaps a DEL that is killed, and a DEL that must succeed.
fn work(attachment: &Attachment<'_>, mut random: Random, left: &AtomicUsize) -> Result<Vec<String>, Trouble> {
    let mut wrong = Vec::new();
    let takes_one = |left: usize| left.checked_sub(1);
    while left.try_update(Ordering::Relaxed, Ordering::Relaxed, takes_one).is_ok() {
        let mut attachment = attachment.clone();
        if random.below(2) == 0 {
            killed(&attachment.call("ADD"), random.below(LATEST_KILL_US))?;
        } else {
            attachment.add()?;
        }
        if random.below(4) == 0 {
            killed(&attachment.call("DEL"), random.below(LATEST_KILL_US))?;
        }
        let farewell = if random.below(2) == 0 { Farewell::Full } else { Farewell::WithoutResult };
        wrong.extend(attachment.del_as(farewell)?.wrong_as_silent_success());
    }
    Ok(wrong)
}

/// Runs a call and kills it after so many microseconds, if it is still there.
fn killed(call: &Call, after_us: u64) -> Result<(), Trouble> {
    let mut child: Child = call.command().spawn().map_err(Trouble::system("start the plugin"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _closed_early = stdin.write_all(&call.stdin);
    }
    thread::sleep(Duration::from_micros(after_us));
    let _gone = child.kill();
    child.wait().map(drop).map_err(Trouble::system("wait for the killed plugin"))
}

/// A small generator (xorshift64*), so that a seed names a run.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, stream: usize) -> Self {
        Self(seed.wrapping_add(stream as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 up to, but not including, `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % bound.max(1)
    }
}
