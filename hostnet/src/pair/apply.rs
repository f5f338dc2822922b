//! Carrying out a plan over two namespaces, undoing it if it fails, and tearing down.

use super::{Both, KernelPair, PairFacts, PairPlan, Step};
use crate::apply::{ApplyError, is_of_a_link, joined, spare};
use crate::facts::Ask;
use crate::kernel::{Failure, KernelError};

/// Carries out `plan`, which was made on the snapshot `before`; on failure puts everything back as it was.
///
/// # Errors
/// The step that failed, and what of the plan could not be undone.
pub fn apply(kernels: &mut (impl KernelPair + ?Sized), before: &PairFacts, plan: &PairPlan) -> Result<(), ApplyError> {
    let Err(cause) = kernels.execute(&plan.steps) else { return Ok(()) };
    let left = undo(kernels, before, plan).unwrap_or_else(|error| vec![format!("the kernel cannot be read: {error}")]);
    Err(ApplyError { cause: Box::new(cause), left })
}

/// Puts back what a plan changed, however far it came; returns what could not be undone, in words.
///
/// # Errors
/// When the fresh snapshot cannot be taken.
#[cold]
pub fn undo(
    kernels: &mut (impl KernelPair + ?Sized),
    before: &PairFacts,
    plan: &PairPlan,
) -> Result<Vec<String>, KernelError> {
    let mut ask = Both::<Ask>::default();
    for step in &plan.steps {
        step.op.concerns(ask.at_mut(step.at));
        step.op.concerns_away(ask.at_mut(step.at.other()));
    }
    let now = kernels.gather(&ask)?;
    let mut inverse: Vec<Step> = plan.steps.iter().rev().flat_map(|step| step.inverse(before, &now)).collect();
    let mut left = Vec::new();
    let ops = plan.steps.iter().map(|step| &step.op).collect::<Vec<_>>();
    inverse.retain(|step| spare(joined(&step.op, &ops, now.at(step.at)), &mut left));
    left.extend(tear_down(kernels, &inverse).into_iter().map(|failure| format!("{failure}: {}", failure.error)));
    Ok(left)
}

/// Carries out every step whatever became of the others; what is gone already counts as removed, and what was to be set on a
/// link that is gone as set.
pub fn tear_down(kernels: &mut (impl KernelPair + ?Sized), steps: &[Step]) -> Vec<Failure> {
    steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| match kernels.execute(std::slice::from_ref(step)) {
            Err(failure) if !(is_of_a_link(&step.op) && failure.error.is_absent()) => {
                Some(Failure { index, ..failure })
            }
            _ => None,
        })
        .collect()
}
