//! Group 21: random operations over a few containers, against a model that only knows which are attached.

use serde_json::{Value, json};

use super::churn::Random;
use super::{Case, gc, scripts};
use crate::conformance::attachment::{Attachment, Farewell};
use crate::conformance::facts::{Facts, settled};
use crate::conformance::findings::Findings;
use crate::conformance::trouble::Trouble;

const CONTAINERS: usize = 4;

/// A container with the facts of its pod when nothing is attached.
struct Container<'a> {
    attachment: Attachment<'a>,
    empty: Facts,
    is_attached: bool,
}

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    let mut containers = Vec::new();
    for number in 0..CONTAINERS {
        let attachment = Attachment::prepare(case, 40_000 + number)?;
        let empty = Facts::of(&attachment.pod)?;
        containers.push(Container { attachment, empty, is_attached: false });
    }
    let before = Facts::of_node(case.subject.shared)?;
    let mut random = Random::new(case.effort.seed, 21);
    let mut told = Vec::new();
    for _ in 0..case.effort.operations {
        let chosen = usize::try_from(random.below(CONTAINERS as u64)).unwrap_or_default();
        let (what, wrong) = operate(case, &mut containers, chosen, &mut random)?;
        told.push(format!("{what} {chosen}"));
        let story = || format!("seed {}, after {}", case.effort.seed, told.join(", "));
        findings.expect_none(
            format!("{what} answers as the model says"),
            wrong.map(|wrong| format!("{wrong}; {}", story())),
        );
        let wrong = disagreement(case, &containers)?;
        let stop = wrong.is_some();
        findings.expect_none("every pod is as the model says", wrong.map(|wrong| format!("{wrong}; {}", story())));
        if stop {
            return Ok(());
        }
    }
    for container in &containers {
        container.attachment.del_as(Farewell::Full)?;
    }
    let after = settled(case.effort.patience, || Ok(before.difference(&Facts::of_node(case.subject.shared)?)))?;
    findings.expect_none("at the end the node is as before", after);
    Ok(())
}

/// One operation: its name, and what is wrong with the answer.
fn operate(
    case: &Case<'_>,
    containers: &mut [Container<'_>],
    chosen: usize,
    random: &mut Random,
) -> Result<(&'static str, Option<String>), Trouble> {
    let dice = random.below(10);
    if dice == 9 && case.has("GC") {
        return collect(containers, chosen).map(|wrong| ("GC", wrong));
    }
    let Some(container) = containers.get_mut(chosen) else { return Ok(("nothing", None)) };
    match dice {
        0..=3 if !container.is_attached => {
            let answer = container.attachment.add()?;
            container.is_attached = answer.succeeded();
            Ok(("ADD", (!answer.succeeded()).then(|| answer.shown())))
        }
        4..=6 => {
            let farewell = if dice == 6 { Farewell::WithoutResult } else { Farewell::Full };
            let answer = container.attachment.del_as(farewell)?;
            (container.is_attached, container.attachment.result) = (false, None);
            Ok(("DEL", answer.wrong_as_silent_success()))
        }
        _ if container.is_attached && case.has("CHECK") => {
            Ok(("CHECK", container.attachment.check()?.wrong_as_silent_success()))
        }
        _ => Ok(("nothing", None)),
    }
}

/// GC that lists all attached ones but, if it is attached, the chosen one's namespace stays: only what lies on the node
/// may go, so the model deletes it afterwards.
fn collect(containers: &mut [Container<'_>], chosen: usize) -> Result<Option<String>, Trouble> {
    let entry = |container: &Container<'_>| json!({"containerID": container.attachment.container, "ifname": container.attachment.ifname()});
    let valid: Vec<Value> = containers.iter().filter(|container| container.is_attached).map(entry).collect();
    let Some(container) = containers.get(chosen) else { return Ok(None) };
    Ok(gc::collect(&container.attachment, Some(json!(valid)))?.wrong_as_silent_success())
}

fn disagreement(case: &Case<'_>, containers: &[Container<'_>]) -> Result<Option<String>, Trouble> {
    for (number, container) in containers.iter().enumerate() {
        let wrong = if container.is_attached {
            if case.has("CHECK") { container.attachment.check()?.wrong_as_silent_success() } else { None }
        } else {
            settled(case.effort.patience, || Ok(container.empty.difference(&Facts::of(&container.attachment.pod)?)))?
        };
        if let Some(wrong) = wrong {
            return Ok(Some(format!("container {number}: {wrong}")));
        }
    }
    Ok(None)
}
