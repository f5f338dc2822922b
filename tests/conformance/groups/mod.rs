//! The groups of checks, numbered once for all, and how one is run for a subject.

mod address;
mod churn;
mod del;
mod environment;
mod fault;
mod gc;
mod input;
mod interop;
mod manners;
mod netns;
mod order;
mod parallel;
mod result;
mod runtime_options;
pub(super) mod scripts;
mod status;
mod version;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use super::findings::Findings;
use super::node::{Node, shell};
use super::results::at_least;
use super::subject::{Role, Subject};
use super::table::Cell;
use super::trouble::Trouble;

/// How much of what can be repeated is done.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Every errno with every farewell, where else they take turns.
    pub is_exhaustive: bool,
    /// Stop group 11 at its first failed check: enough for a mutant.
    pub stops_early: bool,
    /// Attachments at once in group 20.
    pub parallel: usize,
    /// ADD/DEL cycles with random kills in group 20.
    pub cycles: usize,
    /// Random operations in group 21.
    pub operations: usize,
    /// Seed of all that is random.
    pub seed: u64,
    /// How long the kernel has to finish what it does by itself, before what is left counts: on a busy machine it takes seconds to
    /// take down a namespace when others go before it.
    pub patience: Duration,
}

/// One subject with one version on one node.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) subject: &'a Subject,
    pub(crate) version: &'static str,
    pub(crate) node: &'a Node,
    /// The binary under the name of its type.
    pub(crate) program: PathBuf,
    pub(crate) effort: Effort,
}

/// With which versions a group runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Versions {
    Each,
    Newest,
}

/// A group of checks.
#[derive(Debug)]
pub struct Group {
    /// Its number, one for all time.
    pub number: u8,
    /// What it asks.
    pub title: &'static str,
    versions: Versions,
    /// Why such a subject cannot be asked.
    spares: fn(&Subject) -> Option<&'static str>,
    run: fn(&Case<'_>, &mut Findings) -> Result<(), Trouble>,
}

impl Group {
    /// Why such a subject cannot be asked.
    pub(super) fn spares(&self, subject: &Subject) -> Option<&'static str> {
        (self.spares)(subject)
    }

    /// Makes the checks of one case.
    pub(super) fn run(&self, case: &Case<'_>, findings: &mut Findings) -> Result<(), Trouble> {
        (self.run)(case, findings)
    }
}

const fn group(
    number: u8,
    title: &'static str,
    versions: Versions,
    spares: fn(&Subject) -> Option<&'static str>,
    run: fn(&Case<'_>, &mut Findings) -> Result<(), Trouble>,
) -> Group {
    Group { number, title, versions, spares, run }
}

/// All groups that this suite runs; costs (25) are a benchmark's matter.
pub const GROUPS: [Group; 24] = [
    group(1, "VERSION", Versions::Newest, no_exemption, version::run),
    group(2, "missing environment", Versions::Each, no_exemption, environment::missing),
    group(3, "bad names", Versions::Each, no_exemption, environment::bad_names),
    group(4, "bad input", Versions::Each, no_exemption, input::run),
    group(5, "only the result on stdout", Versions::Each, no_exemption, manners::output),
    group(6, "no traces in the process world", Versions::Newest, no_exemption, manners::traces),
    group(7, "ADD: result of its version", Versions::Each, no_exemption, result::schema),
    group(8, "ADD: result is true", Versions::Each, no_interfaces, result::truth),
    group(9, "ADD: existing interface", Versions::Newest, nothing_to_occupy, result::occupied),
    group(10, "ADD: unusable namespace", Versions::Newest, ipam, netns::run),
    // spec: CNI-UNDO-1, L2-UNDO, L2-UPLINK-1
    group(11, "faults at every kernel step", Versions::Newest, no_exemption, fault::run),
    // spec: L2-IPAM-2
    group(12, "ADD: IPAM fails", Versions::Newest, no_delegate, address::run),
    // spec: CNI-PASS, CNI-PREV
    group(13, "chained: previous result", Versions::Each, not_chained, result::chained),
    // spec: L2-DEL
    group(14, "DEL in every situation", Versions::Each, no_exemption, del::situations),
    // spec: L2-DEL
    group(15, "DEL spares others", Versions::Newest, no_exemption, del::others),
    // spec: L2-CHECK
    group(16, "CHECK notices", Versions::Each, no_breakages, watch::notices),
    // spec: L2-CHECK
    group(17, "CHECK tolerates", Versions::Newest, no_tolerances, watch::tolerates),
    // spec: CNI-STATUS, L2-GC
    group(18, "STATUS", Versions::Newest, before_1_1, status::run),
    // spec: L2-GC
    group(19, "GC", Versions::Newest, before_1_1, gc::run),
    // spec: CNI-UNDO-2, L2-UNDO
    group(20, "many at once", Versions::Newest, no_exemption, parallel::run),
    group(21, "any order", Versions::Newest, no_exemption, order::run),
    // spec: CNI-PASS
    group(22, "runtimeConfig", Versions::Newest, no_options, runtime_options::run),
    group(23, "versions agree", Versions::Newest, no_exemption, result::versions_agree),
    // spec: CNI-CHAIN
    group(24, "through cnitool", Versions::Newest, ipam, interop::run),
];

/// Runs one group against one subject and says what goes into the table's cell.
#[must_use]
pub fn run_group(subject: &Subject, group: &Group, effort: Effort) -> Cell {
    if let Some(reason) = subject.exempt.get(&group.number).copied().or_else(|| (group.spares)(subject)) {
        return Cell::NotApplicable(reason.to_owned());
    }
    let program = match subject.program() {
        Ok(program) => program,
        Err(reason) => return Cell::CannotRun(reason),
    };
    if group.number == 24
        && let Err(reason) = interop::cnitool()
    {
        return Cell::CannotRun(reason);
    }
    let versions = match group.versions {
        Versions::Each => subject.versions,
        Versions::Newest => subject.versions.last().map(std::slice::from_ref).unwrap_or_default(),
    };
    let mut findings = Findings::default();
    for version in versions {
        let found = Node::with(|node| {
            let program = scripts::under_its_type(&program, subject.plugin)?;
            shell(subject.node, &[])?;
            let mut found = Findings::default();
            let case = Case { subject, version, node, program, effort };
            (group.run)(&case, &mut found)?;
            Ok(found)
        });
        match found {
            Ok(found) => findings.absorb(found, version),
            Err(trouble) => findings.fail("the group can be carried out", format!("{version}: {}", trouble.chain())),
        }
    }
    Cell::from(findings)
}

impl Case<'_> {
    /// Whether the version has a verb.
    pub(crate) fn has(&self, verb: &str) -> bool {
        match verb {
            "CHECK" => at_least(self.version, "0.4.0"),
            // spec: CNI-STATUS
            "STATUS" | "GC" => at_least(self.version, "1.1.0"),
            _ => true,
        }
    }
}

fn no_exemption(_: &Subject) -> Option<&'static str> {
    None
}

fn ipam(subject: &Subject) -> Option<&'static str> {
    (subject.role == Role::Ipam).then_some("an IPAM plugin does not look at the namespace")
}

fn no_interfaces(subject: &Subject) -> Option<&'static str> {
    match subject.role {
        Role::Ipam => Some("an IPAM plugin makes no interface"),
        Role::Trailing => Some("the result of a trailing attachment is empty: it makes no interface of its own"),
        Role::Main | Role::Chained => None,
    }
}

fn nothing_to_occupy(subject: &Subject) -> Option<&'static str> {
    subject.occupied.is_none().then_some("it makes no device whose name could be taken")
}

fn no_delegate(subject: &Subject) -> Option<&'static str> {
    (subject.role != Role::Main).then_some("it calls no IPAM plugin")
}

fn not_chained(subject: &Subject) -> Option<&'static str> {
    match subject.role {
        Role::Main | Role::Ipam => Some("it is the first of its chain and gets no previous result"),
        Role::Trailing => Some("a trailing attachment has no previous result"),
        Role::Chained => None,
    }
}

fn no_breakages(subject: &Subject) -> Option<&'static str> {
    subject.breakages.is_empty().then_some("it changes nothing that could break")
}

fn no_tolerances(subject: &Subject) -> Option<&'static str> {
    subject.tolerances.is_empty().then_some("nothing that others may change lies in its hands")
}

fn before_1_1(subject: &Subject) -> Option<&'static str> {
    (!subject.has_1_1()).then_some("its newest version is older than 1.1.0, which brought the verb")
}

fn no_options(subject: &Subject) -> Option<&'static str> {
    subject.runtime_options.is_empty().then_some("it takes nothing from the runtime")
}
