//! The suite as a rung: our plugins pass every group that applies, and the committed table says so.

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tests::conformance::proofs::{self, Mutant};
use tests::conformance::{
    Build, Cell, Effort, GROUPS, Group, Subject, Table, Trouble, results_file, run_group, subjects,
};

/// In CI: errnos and farewells take turns; `cni-conformance` does all of it. `CHURN` in the environment says how many
/// cycles with random kills there are.
const EFFORT: Effort = Effort {
    is_exhaustive: false,
    stops_early: false,
    parallel: 100,
    cycles: 100,
    operations: 60,
    seed: 1,
    patience: Duration::from_secs(60),
};

/// For mutants, which fail soon, and leave for good what they leave.
const LITTLE: Effort =
    Effort { stops_early: true, parallel: 4, cycles: 8, operations: 40, patience: Duration::from_secs(1), ..EFFORT };

fn effort() -> Result<Effort, String> {
    let Ok(text) = std::env::var("CHURN") else { return Ok(EFFORT) };
    let cycles = text.parse().map_err(|_| format!("CHURN={text}: not a number of cycles"))?;
    Ok(Effort { cycles, ..EFFORT })
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // More at a time wait for each other: one kernel thread removes all namespaces.
    arguments.test_threads.get_or_insert(2);
    let ours = || subjects().into_iter().filter(|subject| subject.build == Build::Ours);
    let mut trials: Vec<Trial> =
        ours().flat_map(|subject| GROUPS.iter().map(move |group| trial(subject.clone(), group))).collect();
    trials.extend(proofs::STEPPER.iter().map(|(name, proof)| Trial::ignorable_test(*name, move || proven(proof()))));
    let masquerade = ours().find(|subject| subject.name == "tapvisor masquerade");
    trials.extend(
        masquerade.into_iter().flat_map(|subject| proofs::MUTANTS.iter().map(move |m| mutant(subject.clone(), m))),
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(subject: Subject, group: &'static Group) -> Trial {
    let name = format!("{} · group {} {}", subject.name, group.number, group.title);
    Trial::ignorable_test(name, move || {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Completion::ignored_with("needs root to make namespaces"));
        }
        // The rung builds our plugin first: without it nothing would be looked at.
        subject.program().map_err(Failed::from)?;
        let cell = run_group(&subject, group, effort()?);
        let mut table = Table::default();
        table.set(&subject.name, group.number, cell.clone());
        match cell {
            Cell::Pass { .. } => recorded(&subject, group, &table),
            Cell::NotApplicable(_) => recorded(&subject, group, &table),
            Cell::CannotRun(reason) => Ok(Completion::ignored_with(reason)),
            Cell::Fail { .. } => Err(Failed::from(table.failures())),
        }
    })
}

fn proven(wrong: Result<Option<String>, Trouble>) -> Result<Completion, Failed> {
    match wrong {
        Ok(None) => Ok(Completion::Completed),
        Ok(Some(wrong)) => Err(Failed::from(wrong)),
        Err(trouble) => Err(Failed::from(trouble.chain())),
    }
}

/// A plugin that does one thing wrong must be caught by every group that asks for it.
fn mutant(subject: Subject, mutant: &'static Mutant) -> Trial {
    Trial::ignorable_test(format!("caught: a plugin that {}", mutant.what), move || {
        let escapes = proofs::escapes(&subject, mutant, LITTLE).map_err(|trouble| Failed::from(trouble.chain()))?;
        let wrong = (!escapes.is_empty()).then(|| format!("not noticed by group {escapes:?}"));
        proven(Ok(wrong))
    })
}

/// The committed table must say the same of this cell.
fn recorded(subject: &Subject, group: &Group, now: &Table) -> Result<Completion, Failed> {
    let document = std::fs::read_to_string(results_file()).map_err(|error| format!("RESULTS.md: {error}"))?;
    let (now, then) = (
        Table::mark(&now.markdown(), &subject.name, group.number),
        Table::mark(&document, &subject.name, group.number),
    );
    if now == then {
        return Ok(Completion::Completed);
    }
    Err(Failed::from(format!("RESULTS.md says {then:?}, now it is {now:?}: run cni-conformance --write and commit")))
}
