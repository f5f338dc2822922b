//! Carrying out a plan, undoing it if it fails, and tearing down.

use std::fmt;

use crate::facts::{Ask, Facts};
use crate::kernel::{Failure, Kernel, KernelError};
use crate::op::{Op, Plan};
use terms::IfName;

/// A plan that failed, and how undoing it went.
#[derive(Debug, thiserror::Error)]
pub struct ApplyError {
    /// The first operation that failed; it is not undone.
    #[source]
    pub cause: Box<Failure>,
    /// What could not be undone; empty if everything is as it was.
    pub left: Vec<String>,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.left.as_slice() {
            [] => write!(f, "the plan failed and was undone"),
            left => write!(f, "the plan failed and could not be undone: {}", left.join("; ")),
        }
    }
}

/// Carries out `plan`, which was made on the snapshot `before`; on failure puts everything back as it was.
///
/// Undoing goes by a fresh snapshot: what of the plan is there that was not, goes; what was and is not, comes back. Messages
/// that the kernel took after the failed one are so undone too. A bridge that another link has joined meanwhile stays.
///
/// # Errors
/// The operation that failed, and what of the plan could not be undone.
pub fn apply(kernel: &mut (impl Kernel + ?Sized), before: &Facts, plan: &Plan) -> Result<(), ApplyError> {
    let Err(cause) = kernel.execute(&plan.ops) else { return Ok(()) };
    let left = undo(kernel, before, plan).unwrap_or_else(|error| vec![format!("the kernel cannot be read: {error}")]);
    Err(ApplyError { cause: Box::new(cause), left })
}

/// Puts back what a plan changed, however far it came: also the way to clean up after a process that was killed.
///
/// Returns what could not be undone, in words.
///
/// # Errors
/// When the fresh snapshot cannot be taken.
pub fn undo(kernel: &mut (impl Kernel + ?Sized), before: &Facts, plan: &Plan) -> Result<Vec<String>, KernelError> {
    let mut ask = Ask::default();
    plan.ops.iter().for_each(|op| op.concerns(&mut ask));
    let now = kernel.gather(&ask)?;
    let mut inverse: Vec<Op> = plan.ops.iter().rev().filter_map(|op| op.inverse(before, &now)).collect();
    let mut left = Vec::new();
    inverse.retain(|op| spare(joined(op, &plan.ops.iter().collect::<Vec<_>>(), &now), &mut left));
    left.extend(tear_down(kernel, &inverse).into_iter().map(|failure| in_words(&failure)));
    Ok(left)
}

/// A link whose removal would undo a creation, and a port of it that is not the plan's: it joined after the creation, so the
/// link is in use and stays.
pub(crate) fn joined(undo: &Op, plan: &[&Op], now: &Facts) -> Option<(IfName, IfName)> {
    let Op::DeleteLink { link } = undo else { return None };
    let is_own = |port: &IfName| plan.iter().any(|op| op.joins() == Some(port));
    let mut ports = now.links.iter().filter(|port| port.master.as_ref() == Some(link));
    ports.find(|port| !is_own(&port.name)).map(|port| (link.clone(), port.name.clone()))
}

/// Whether a step of undoing is carried out; notes what stays.
pub(crate) fn spare(joined: Option<(IfName, IfName)>, left: &mut Vec<String>) -> bool {
    left.extend(joined.iter().map(|(link, port)| format!("{link} stays: {port} joined it meanwhile")));
    joined.is_none()
}

/// Carries out every operation whatever became of the others; what is gone already counts as removed, and what was to be set on
/// a link that is gone as set.
pub fn tear_down(kernel: &mut (impl Kernel + ?Sized), ops: &[Op]) -> Vec<Failure> {
    ops.iter()
        .enumerate()
        .filter_map(|(index, op)| match kernel.execute(std::slice::from_ref(op)) {
            Err(failure) if !(is_of_a_link(op) && failure.error.is_absent()) => Some(Failure { index, ..failure }),
            _ => None,
        })
        .collect()
}

/// Whether an operation is moot without the link or entry that it names.
pub(crate) fn is_of_a_link(op: &Op) -> bool {
    op.removes()
        || match op {
            Op::SetLink { .. } | Op::RenameLink { .. } | Op::MoveLink { .. } | Op::AddVlans(_) => true,
            Op::WriteSysctl { key, .. } => key.link().is_some(),
            _ => false,
        }
}

fn in_words(failure: &Failure) -> String {
    format!("{failure}: {}", failure.error)
}
