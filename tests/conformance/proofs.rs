//! Proofs that the suite can fail: the stepper does to known programs what it says, and mutants of a plugin are caught.

use std::collections::BTreeMap;
use std::path::Path;

use nix::errno::Errno;

use super::call::Call;
use super::findings::Findings;
use super::groups::{Case, Effort, GROUPS, scripts};
use super::node::{Node, shell};
use super::stepper::{self, Fault, StepKind};
use super::subject::Subject;
use super::trouble::Trouble;

/// Makes three devices, each by a message of its own.
const THREE: &str =
    "exec ip -batch - <<X\nlink add a0 type bridge\nlink add a1 type bridge\nlink add a2 type bridge\nX\n";

/// One rule set, applied whole or not at all.
const RULES: &str = "exec nft -f - <<X\ntable ip a {\nchain c {\naccept\n}\n}\nX\n";

/// A proof: its name, and what is wrong if it does not hold.
pub type Proof = (&'static str, fn() -> Result<Option<String>, Trouble>);

/// Proofs about the stepper.
pub const STEPPER: [Proof; 5] = [
    ("a kill before a step leaves exactly the steps before it", kills_before_each_step),
    ("a refused message reports its errno and has no effect", refuses_one_message),
    ("a refused message of a rule set undoes all of it", refuses_a_rule_set),
    ("a refused file has the errno and is not written", refuses_a_file),
    ("children are stepped and killed with their parent", steps_children),
];

fn kills_before_each_step() -> Result<Option<String>, Trouble> {
    for kept in 0..=3 {
        let (devices, struck) = Node::with(|_| {
            let call = script("three", THREE)?;
            let steps = changing(&call, 3)?;
            shell("ip link del a0; ip link del a1; ip link del a2", &[])?;
            let fault = steps.get(kept).map_or(Fault::Nothing, |step| Fault::KillBefore { step: *step });
            let run = stepper::run(&call, fault)?;
            Ok((devices()?, run.answer.signal == Some(9)))
        })?;
        let expected: Vec<String> = (0..kept).map(|number| format!("a{number}")).collect();
        if devices != expected || struck != (kept < 3) {
            return Ok(Some(format!("killed before step {kept}: {devices:?}, by a signal: {struck}")));
        }
    }
    Ok(None)
}

fn refuses_one_message() -> Result<Option<String>, Trouble> {
    Node::with(|_| {
        let call = script("three", THREE)?;
        let steps = changing(&call, 3)?;
        shell("ip link del a0; ip link del a1; ip link del a2", &[])?;
        let Some(step) = steps.get(1).copied() else { return Ok(Some("ip made less than two steps".to_owned())) };
        let run = stepper::run(&call, Fault::Refuse { step, message: 0, errno: Errno::ENOSPC })?;
        let holds = run.struck && run.answer.stderr.contains("No space left") && devices()? == ["a0"];
        Ok((!holds).then(|| format!("{:?}, {}", devices(), run.answer.shown())))
    })
}

fn refuses_a_rule_set() -> Result<Option<String>, Trouble> {
    Node::with(|_| {
        let call = script("rules", RULES)?;
        let run = stepper::run(&call, Fault::Nothing)?;
        shell("nft flush ruleset", &[])?;
        let is_rules =
            |kind: &StepKind| matches!(kind, StepKind::Netlink { is_nfnetlink: true, messages } if *messages > 3);
        let Some(step) = run.steps.iter().position(|step| is_rules(&step.kind)) else {
            return Ok(Some("nft sent no batch".to_owned()));
        };
        let run = stepper::run(&call, Fault::Refuse { step, message: 2, errno: Errno::ENOMEM })?;
        let left = shell("nft list ruleset", &[])?;
        let holds =
            run.struck && !run.answer.succeeded() && run.answer.stderr.contains("allocate memory") && left.is_empty();
        Ok((!holds).then(|| format!("{left:?}, {}", run.answer.shown())))
    })
}

fn refuses_a_file() -> Result<Option<String>, Trouble> {
    Node::with(|_| {
        let call = script("file", "echo 1 >/run/suite/written\n")?;
        let run = stepper::run(&call, Fault::Nothing)?;
        let opens = |step: &stepper::Step| step.kind == StepKind::File && step.to_string().contains("written");
        let Some(step) = run.steps.iter().position(opens) else { return Ok(Some("sh opened no file".to_owned())) };
        shell("rm /run/suite/written", &[])?;
        let run = stepper::run(&call, Fault::Refuse { step, message: 0, errno: Errno::EROFS })?;
        let holds = run.answer.stderr.contains("Read-only file system") && !Path::new("/run/suite/written").exists();
        Ok((!holds).then(|| run.answer.shown()))
    })
}

fn steps_children() -> Result<Option<String>, Trouble> {
    Node::with(|_| {
        let call = script("child", "ip link add a0 type bridge\nip link add a1 type bridge\nsleep 20\n")?;
        let quick = script("quick-child", "ip link add a0 type bridge\nip link add a1 type bridge\n")?;
        let steps = changing(&quick, 2)?;
        shell("ip link del a0; ip link del a1", &[])?;
        let Some(step) = steps.get(1).copied() else { return Ok(Some("ip made less than two steps".to_owned())) };
        let run = stepper::run(&call, Fault::KillBefore { step })?;
        let holds = devices()? == ["a0"] && run.answer.signal == Some(9) && !run.answer.hung;
        Ok((!holds).then(|| format!("{:?}, {}", devices(), run.answer.shown())))
    })
}

/// A script on the node and the call that executes it.
fn script(name: &str, body: &str) -> Result<Call, Trouble> {
    let path = scripts::script(name, body)?;
    Ok(Call::new(&path, "ADD").env("PATH", std::env::var("PATH").unwrap_or_default()))
}

/// The numbers of the steps that make `devices` devices, in a run without a fault: some releases of `ip` first ask something
/// that they word as a change.
fn changing(call: &Call, devices: usize) -> Result<Vec<usize>, Trouble> {
    let run = stepper::run(call, Fault::Nothing)?;
    let changes = |step: &stepper::Step| step.changes && matches!(step.kind, StepKind::Netlink { .. });
    let mut numbers: Vec<usize> = (0..run.steps.len()).filter(|number| changes(&run.steps[*number])).collect();
    if numbers.len() > devices {
        numbers.retain(|number| number.checked_sub(1).is_some_and(|before| run.steps[before].kind != StepKind::Door));
    }
    Ok(numbers)
}

fn devices() -> Result<Vec<String>, Trouble> {
    let listed = shell("ip -br link show type bridge | cut -d' ' -f1 | sort", &[])?;
    Ok(listed.lines().map(str::to_owned).collect())
}

/// A plugin that does one thing wrong, and the groups that must notice.
#[derive(Debug)]
pub struct Mutant {
    /// What it does wrong, in words.
    pub what: &'static str,
    /// Lines of a shell script; `plugin` runs the real one with all of stdin.
    body: &'static str,
    /// The groups whose checks must fail.
    pub caught_by: &'static [u8],
}

/// Mutants, at least one for each group that they can break.
pub const MUTANTS: [Mutant; 14] = [
    Mutant { what: "answers success to everything", body: "exit 0", caught_by: &[1, 2, 3, 4, 5, 7, 10, 16] },
    Mutant { what: "waits for input on VERSION", body: "cat >/dev/null; plugin </dev/null", caught_by: &[1] },
    Mutant { what: "greets on stdout", body: "echo hello; plugin", caught_by: &[5, 7] },
    Mutant {
        what: "leaves a process",
        body: "[ $CNI_COMMAND = ADD ] && { sleep 30 >/dev/null 2>&1 & }; plugin",
        caught_by: &[6],
    },
    Mutant {
        what: "leaves state that all may write",
        body: "[ $CNI_COMMAND = ADD ] && (umask 0; echo >/run/left); [ $CNI_COMMAND = DEL ] && rm -f /run/left; plugin",
        caught_by: &[6],
    },
    Mutant {
        what: "answers in another version",
        body: "plugin | sed 's/\"cniVersion\": *\"[0-9.]*\"/\"cniVersion\":\"0.2.0\"/'",
        caught_by: &[7],
    },
    Mutant {
        what: "reports another mac",
        body: "plugin | sed 's/\"mac\": *\"..:..:../\"mac\":\"02:02:02/'",
        caught_by: &[8],
    },
    Mutant { what: "drops the name servers", body: "plugin | sed 's/192.0.2.53/192.0.2.54/'", caught_by: &[13] },
    Mutant {
        what: "DEL does nothing",
        body: "[ $CNI_COMMAND = DEL ] && exit 0; plugin",
        caught_by: &[14, 15, 20, 21, 11],
    },
    Mutant {
        what: "DEL needs a previous result",
        body: "[ $CNI_COMMAND = DEL ] && ! grep -q prevResult $IN && exit 1; plugin",
        caught_by: &[14, 20, 21],
    },
    Mutant { what: "CHECK always passes", body: "[ $CNI_COMMAND = CHECK ] && exit 0; plugin", caught_by: &[16] },
    Mutant {
        what: "CHECK always fails",
        body: "[ $CNI_COMMAND = CHECK ] && exit 1; plugin",
        caught_by: &[5, 16, 17, 20, 21],
    },
    Mutant { what: "STATUS always passes", body: "[ $CNI_COMMAND = STATUS ] && exit 0; plugin", caught_by: &[18] },
    Mutant {
        what: "keeps a file for every ADD",
        body: "[ $CNI_COMMAND = ADD ] && echo >/run/left-$CNI_CONTAINERID; plugin",
        caught_by: &[6, 14, 19, 20, 22],
    },
];

/// The groups that should have caught the mutant of this subject and did not.
///
/// # Errors
/// When the mutant cannot be made.
pub fn escapes(subject: &Subject, mutant: &Mutant, effort: Effort) -> Result<BTreeMap<u8, String>, Trouble> {
    let mut escapes = BTreeMap::new();
    let program = subject.program().map_err(Trouble::Words)?;
    for group in GROUPS.iter().filter(|group| mutant.caught_by.contains(&group.number)) {
        if subject.exempt.contains_key(&group.number) || group.spares(subject).is_some() {
            continue;
        }
        let found = Node::with(|node| {
            let real = scripts::under_its_type(&program, subject.plugin)?;
            let wrapped = format!(
                "IN=$(mktemp -p /run/suite)\ntrap 'rm -f $IN' EXIT\ncat >$IN\nplugin() {{ {} <$IN; }}\n",
                real.display()
            );
            let waits = if mutant.caught_by.contains(&1) { "" } else { "[ $CNI_COMMAND = VERSION ] && exec real\n" };
            let body = format!(
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n{}{wrapped}{}\n",
                waits.replace("real", &real.display().to_string()),
                mutant.body
            );
            let program = scripts::script(&format!("mutant-{}", subject.plugin), &body)?;
            shell(subject.node, &[])?;
            let mut found = Findings::default();
            let case = Case { subject, version: subject.newest(), node, program, effort };
            group.run(&case, &mut found).map(|()| found)
        });
        match found {
            Ok(found) if found.failed().is_empty() => {
                drop(escapes.insert(group.number, format!("{} checks hold", found.made())))
            }
            // Not to be able to go on is a way of noticing.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(escapes)
}
