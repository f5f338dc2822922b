//! `cni-conformance`: judges CNI plugins and prints the table of who passes what.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use tests::conformance::{Build, Cell, Effort, GROUPS, Table, results_file, run_group, subjects};

const USAGE: &str =
    "usage: cni-conformance [--subject WORDS] [--group N]… [--all-faults] [--cycles N] [--seed N] [--write]
  --subject WORDS  only subjects whose name contains WORDS
  --group N        only this group, may be repeated
  --all-faults     every errno with every kind of DEL, where else they take turns
  --cycles N       ADD/DEL cycles with random kills, 1000 unless told otherwise
  --seed N         seed of all that is random, 1 unless told otherwise
  --write          rewrite these subjects' part of tests/conformance/RESULTS.md; needs all groups
Exits with 1 when one of our own plugins fails a group.";

struct Options {
    subject: String,
    groups: Vec<u8>,
    effort: Effort,
    writes: bool,
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)) {
        Ok(options) => run(&options),
        Err(words) => {
            let _closed = writeln!(std::io::stderr(), "{words}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let effort = Effort {
        is_exhaustive: false,
        stops_early: false,
        parallel: 100,
        cycles: 1000,
        operations: 200,
        seed: 1,
        // Most of the reference plugins do leave something, and each time that is waited for in vain.
        patience: Duration::from_secs(2),
    };
    let mut options = Options { subject: String::new(), groups: Vec::new(), effort, writes: false };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--subject" => options.subject = value()?,
            "--group" => options.groups.push(number(&arg, &value()?)?),
            "--cycles" => options.effort.cycles = number(&arg, &value()?)?,
            "--seed" => options.effort.seed = number(&arg, &value()?)?,
            "--all-faults" => options.effort.is_exhaustive = true,
            "--write" => options.writes = true,
            _ => return Err(format!("{arg} is no option")),
        }
    }
    if options.writes && !options.groups.is_empty() {
        return Err("--write needs all groups".to_owned());
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(option: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{option} {text}: not a number it can be"))
}

fn run(options: &Options) -> ExitCode {
    let mut table = Table::default();
    let mut ours_fail = false;
    for subject in subjects().iter().filter(|subject| subject.name.contains(&options.subject)) {
        for group in GROUPS.iter().filter(|group| options.groups.is_empty() || options.groups.contains(&group.number)) {
            let cell = run_group(subject, group, options.effort);
            let _closed = writeln!(std::io::stderr(), "{} · {} {}: {cell}", subject.name, group.number, group.title);
            ours_fail |= subject.build == Build::Ours && !matches!(cell, Cell::Pass { .. } | Cell::NotApplicable(_));
            table.set(&subject.name, group.number, cell);
        }
    }
    let _closed = write!(std::io::stdout(), "{}\n{}", table.failures(), table.markdown());
    if options.writes
        && let Err(error) = record(&table)
    {
        let _closed = writeln!(std::io::stderr(), "cannot write {}: {error}", results_file().display());
        return ExitCode::FAILURE;
    }
    if ours_fail { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Rewrites the part of `RESULTS.md` of the subjects that were run.
fn record(table: &Table) -> std::io::Result<()> {
    let names: Vec<String> = subjects().into_iter().map(|subject| subject.name).collect();
    let old = std::fs::read_to_string(results_file()).unwrap_or_default();
    std::fs::write(results_file(), table.document(&names, &old))
}
