//! Group 11: at every kernel step of every verb the plugin is killed, or the step fails; DEL alone must clean up.

use nix::errno::Errno;
use serde_json::json;

use super::{Case, scripts};
use crate::conformance::attachment::{Attachment, Farewell};
use crate::conformance::call::Call;
use crate::conformance::facts::Snapshot;
use crate::conformance::findings::Findings;
use crate::conformance::stepper::{self, Fault, Run, Step, StepKind};
use crate::conformance::subject::Build;
use crate::conformance::trouble::Trouble;

/// Errors that the kernel plausibly answers. Not those that mean "it is so already" (EEXIST, ENOENT, ENODEV): a plugin
/// may rightly take them for success.
fn errnos(kind: &StepKind) -> &'static [Errno] {
    match kind {
        StepKind::Netlink { .. } => &[Errno::EPERM, Errno::ENOMEM, Errno::EBUSY, Errno::EOPNOTSUPP],
        StepKind::Ioctl => &[Errno::EPERM, Errno::EBUSY, Errno::ENOMEM],
        StepKind::File => &[Errno::ENOSPC, Errno::EACCES, Errno::EROFS, Errno::EIO],
        StepKind::Door => &[Errno::EMFILE, Errno::EPERM],
        StepKind::Answer => &[],
    }
}

/// How often a run is repeated that took other steps than the one before it.
const ATTEMPTS: u32 = 5;

/// An attachment that is used again as long as nothing was left of it.
struct Bench<'a> {
    case: &'a Case<'a>,
    attachment: Attachment<'a>,
    before: Snapshot,
    used: usize,
}

pub(super) fn run(case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
    scripts::warm_up(case)?;
    let mut bench = Bench::new(case, 0)?;
    for verb in ["ADD", "DEL", "CHECK", "GC"].into_iter().filter(|verb| case.has(verb)) {
        let steps = bench.usual_steps(verb)?;
        for (turn, fault) in faults(&steps, case.effort.is_exhaustive).into_iter().enumerate() {
            bench.strike(verb, &steps, fault, turn, findings)?;
            if case.effort.stops_early && !findings.failed().is_empty() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Every fault worth making in a run with these steps.
fn faults(steps: &[Step], is_exhaustive: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (step, what) in steps.iter().enumerate() {
        if what.changes {
            faults.push(Fault::KillBefore { step });
        }
        let batch = match what.kind {
            StepKind::Netlink { messages, .. } => messages,
            _ => 1,
        };
        if matches!(what.kind, StepKind::Netlink { is_nfnetlink: false, .. }) && what.changes {
            faults.extend((1..batch).map(|messages| Fault::KillInBatch { step, messages }));
        }
        for message in 0..batch {
            let errnos = errnos(&what.kind);
            let turn = faults.len() % errnos.len().max(1);
            let chosen = if is_exhaustive { errnos } else { errnos.get(turn..=turn).unwrap_or_default() };
            faults.extend(chosen.iter().map(|errno| Fault::Refuse { step, message, errno: *errno }));
        }
    }
    faults
}

impl<'a> Bench<'a> {
    fn new(case: &'a Case<'a>, used: usize) -> Result<Self, Trouble> {
        let attachment = Attachment::prepare(case, 110_000 + used)?;
        let before = Snapshot::of(&attachment)?;
        Ok(Self { case, attachment, before, used })
    }

    /// The steps that two runs in a row have taken. A host's first call makes folders that all others find, and now and then
    /// the kernel lets a plugin read something twice: faults made by the steps of such a run would meet others.
    fn usual_steps(&mut self, verb: &str) -> Result<Vec<Step>, Trouble> {
        let mut before = self.rehearse(verb)?;
        for _ in 1..ATTEMPTS {
            let steps = self.rehearse(verb)?;
            if steps.iter().map(|step| &step.kind).eq(before.iter().map(|step| &step.kind)) {
                return Ok(steps);
            }
            before = steps;
        }
        Ok(before)
    }

    /// The steps of a run without a fault; leaves the attachment as it found it.
    fn rehearse(&mut self, verb: &str) -> Result<Vec<Step>, Trouble> {
        let call = self.ready(verb)?;
        let run = stepper::run(&call, Fault::Nothing)?;
        if !run.answer.succeeded() {
            return Err(Trouble::Words(format!("{verb} under the tracer: {}", run.answer.shown())));
        }
        self.attachment.del_as(Farewell::Full)?;
        Ok(run.steps)
    }

    /// Brings the attachment to where the verb makes sense, and gives the call.
    fn ready(&mut self, verb: &str) -> Result<Call, Trouble> {
        self.attachment.result = None;
        if verb != "ADD" {
            let answer = self.attachment.add()?;
            if !answer.succeeded() {
                return Err(Trouble::Words(format!("ADD before {verb}: {}", answer.shown())));
            }
        }
        if verb != "GC" {
            return Ok(self.attachment.call(verb));
        }
        let mut conf = self.attachment.conf("GC");
        crate::conformance::attachment::merge(
            &mut conf,
            &json!({"cni.dev/valid-attachments": [], "cni.dev/attachments": []}),
        );
        Ok(self.attachment.call("GC").input(conf.to_string()))
    }

    /// One fault in one run, and the DELs that must make up for it.
    fn strike(
        &mut self,
        verb: &str,
        steps: &[Step],
        fault: Fault,
        turn: usize,
        findings: &mut Findings,
    ) -> Result<(), Trouble> {
        let farewells =
            if self.case.effort.is_exhaustive { &Farewell::ALL[..] } else { &Farewell::ALL[turn % 4..=turn % 4] };
        for farewell in farewells {
            let place = describe(verb, steps, fault);
            let run = self.run_to_step(verb, steps, fault, *farewell, findings)?;
            if run.struck {
                self.judge_answer(verb, fault, &run, &place, findings)?;
            }
            self.clean_up(verb, *farewell, &place, findings)?;
        }
        Ok(())
    }

    /// Runs the verb until the fault meets the step that it was made for. One of ours that never does is a finding.
    fn run_to_step(
        &mut self,
        verb: &str,
        steps: &[Step],
        fault: Fault,
        farewell: Farewell,
        findings: &mut Findings,
    ) -> Result<Run, Trouble> {
        let place = describe(verb, steps, fault);
        let mut attempt = 1;
        loop {
            let call = self.ready(verb)?;
            let run = stepper::run(&call, fault)?;
            if verb == "ADD" && run.answer.succeeded() {
                self.attachment.result = serde_json::from_str(&run.answer.stdout).ok();
            }
            let is_ours = self.case.subject.build == Build::Ours;
            let wrong = is_ours.then(|| another_step(steps, &run, fault)).flatten();
            if wrong.is_none() || attempt == ATTEMPTS {
                let wrong = wrong.map(|wrong| format!("{place}: {wrong}"));
                findings.expect_none("a call takes the steps that it took before", wrong);
                return Ok(run);
            }
            self.clean_up(verb, farewell, &place, findings)?;
            attempt += 1;
        }
    }

    fn judge_answer(
        &self,
        verb: &str,
        fault: Fault,
        run: &Run,
        place: &str,
        findings: &mut Findings,
    ) -> Result<(), Trouble> {
        let Fault::Refuse { .. } = fault else { return Ok(()) };
        let answer = &run.answer;
        if answer.succeeded() {
            if verb == "DEL" {
                let residue = self.before.difference(&self.attachment.pod)?;
                findings.expect_none(
                    "a DEL that reports success after an error has cleaned up",
                    residue.map(|text| format!("{place}: {text}")),
                );
            }
            return Ok(());
        }
        let wrong = answer.wrong_as_failure().map(|wrong| format!("{place}: {wrong}"));
        findings.expect_none(format!("{verb} reports a failing step as an error object"), wrong);
        // Only ours has promised this; the others may leave it to the runtime's DEL.
        if verb == "ADD" && self.case.subject.build == Build::Ours {
            let residue = self.before.difference(&self.attachment.pod)?.map(|text| format!("{place}: {text}"));
            findings.expect_none("an ADD that fails by itself leaves nothing", residue);
        }
        Ok(())
    }

    fn clean_up(
        &mut self,
        verb: &str,
        farewell: Farewell,
        place: &str,
        findings: &mut Findings,
    ) -> Result<(), Trouble> {
        let told = |wrong: Option<String>| wrong.map(|wrong| format!("{place}: {wrong}"));
        let answer = self.attachment.del_as(farewell)?;
        let check = format!("after a fault in {verb}, DEL {} succeeds", farewell.name());
        findings.expect_none(check, told(answer.wrong_as_silent_success()));
        let residue = self.attachment.residue(&self.before, farewell)?;
        let is_clean = residue.is_none() && farewell.reaches_the_pod();
        findings.expect_none(format!("after a fault in {verb}, DEL {} leaves nothing", farewell.name()), told(residue));
        if !is_clean {
            self.attachment.pod.vanish()?;
            self.attachment.await_its_end()?;
            *self = Self::new(self.case, self.used + 1)?;
        }
        Ok(())
    }
}

/// The step that a fault met, where it is of another kind than the one that it was made for.
fn another_step(rehearsed: &[Step], run: &Run, fault: Fault) -> Option<String> {
    let at = fault.step()?;
    let (meant, met) = (rehearsed.get(at)?, run.steps.get(at)?);
    (meant.kind != met.kind).then(|| format!("met {met}"))
}

fn describe(verb: &str, steps: &[Step], fault: Fault) -> String {
    let name =
        |step: usize| format!("{verb} step {step} ({})", steps.get(step).map(ToString::to_string).unwrap_or_default());
    match fault {
        Fault::Nothing => verb.to_owned(),
        Fault::KillBefore { step } => format!("killed before {}", name(step)),
        Fault::KillInBatch { step, messages } => format!("killed after {messages} messages of {}", name(step)),
        Fault::Refuse { step, message, errno } => format!("{errno:?} for message {message} of {}", name(step)),
    }
}
