//! `fuzz-targets`: runs the fuzzers that the nested workspace built, one after the other, and says what they found.
#![expect(clippy::print_stdout, reason = "its report goes to the terminal")]

mod session;

use std::path::PathBuf;
use std::process::ExitCode;

use fuzz_targets::{TARGETS, Target};
use session::{Session, Verdict};

const USAGE: &str = "usage: fuzz-targets --fuzzers FOLDER --work FOLDER [--seconds N] [--only NAME]… [--keep]
  --fuzzers FOLDER  where the fuzzers are: a program per target
  --work FOLDER     where inputs that were worth keeping, logs and findings go; the next run begins with them
  --seconds N       time for each target, 60 unless told otherwise
  --only NAME       only this target, may be repeated
  --keep            write what widened the coverage into fuzz/corpus
Exits with 1 when there was a finding.";

struct Options {
    session: Session,
    only: Vec<String>,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(words) => {
            eprintln!("{words}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let is_wanted = |target: &&Target| options.only.is_empty() || options.only.iter().any(|name| name == target.name);
    let (mut executions, mut findings) = (0, 0);
    for target in TARGETS.iter().filter(is_wanted) {
        match options.session.run(target) {
            Ok(Verdict { executed, a_second, edges, found }) => {
                println!("{:<10} {executed:>11} executions {a_second:>7} a second {edges:>6} edges", target.name);
                for (what, place) in &found {
                    println!("{:<10} FINDING: {what}\n           the input: {}", "", place.display());
                }
                executions += executed;
                findings += found.len();
            }
            Err(trouble) => {
                eprintln!("{}: {trouble}", target.name);
                return ExitCode::FAILURE;
            }
        }
    }
    println!("fuzz: {executions} executions, {findings} findings");
    if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut fuzzers, mut work, mut seconds, mut only, mut keep) = (None, None, 60, Vec::new(), false);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--fuzzers" => fuzzers = Some(PathBuf::from(value()?)),
            "--work" => work = Some(PathBuf::from(value()?)),
            "--seconds" => {
                let text = value()?;
                seconds = text.parse().map_err(|_| format!("--seconds {text}: not a number of seconds"))?;
            }
            "--only" => only.push(value()?),
            "--keep" => keep = true,
            _ => return Err(format!("{arg} is no option")),
        }
    }
    if let Some(name) = only.iter().find(|name| TARGETS.iter().all(|target| target.name != **name)) {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        return Err(format!("--only {name}: the targets are {}", names.join(", ")));
    }
    let fuzzers = fuzzers.ok_or("--fuzzers is missing")?;
    let work = work.ok_or("--work is missing")?;
    Ok(Options { session: Session { fuzzers, work, seconds, keep }, only })
}
