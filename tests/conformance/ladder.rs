//! The suite as a rung: our plugins pass every group that applies, and the committed table says so.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tests::conformance::{Build, Cell, Effort, GROUPS, Group, Subject, Table, judge, results_file, subjects};

/// In CI: errnos and farewells take turns; `cni-conformance` does all of it.
const EFFORT: Effort = Effort { is_exhaustive: false, parallel: 100, cycles: 200, operations: 60, seed: 1 };

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(2);
    let ours = || subjects().into_iter().filter(|subject| subject.build == Build::Ours);
    let trials = ours().flat_map(|subject| GROUPS.iter().map(move |group| trial(subject.clone(), group))).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(subject: Subject, group: &'static Group) -> Trial {
    let name = format!("{} · group {} {}", subject.name, group.number, group.title);
    Trial::ignorable_test(name, move || {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Completion::ignored_with("needs root to make namespaces"));
        }
        let cell = judge(&subject, group, EFFORT);
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
