//! One fuzzer's run: seeds in, executions and findings out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fuzz_targets::{Target, inputs};
use sha2::{Digest as _, Sha256};

/// An input that takes longer is a finding; an honest one takes less than a millisecond.
const SLOWEST_SECONDS: u32 = 10;
/// Memory of a fuzzer: what it keeps of its own, and an input's.
const MOST_MEMORY_MIB: u32 = 2048;
/// One allocation: no reader has a reason for more.
const LARGEST_ALLOCATION_MIB: u32 = 256;
/// Text that one run may add to a target's kept corpus.
const MOST_KEPT_BYTES: usize = 32 * 1024;

/// Where the fuzzers are and how long each runs.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) fuzzers: PathBuf,
    pub(crate) work: PathBuf,
    pub(crate) seconds: u32,
    pub(crate) keep: bool,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) executed: u64,
    pub(crate) a_second: u64,
    pub(crate) edges: u64,
    /// What was wrong, and the file with the input.
    pub(crate) found: Vec<(String, PathBuf)>,
}

impl Session {
    pub(crate) fn run(&self, target: &Target) -> Result<Verdict, String> {
        let folder = self.work.join(target.name);
        let (corpus, found) = (folder.join("corpus"), folder.join("found"));
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        sow(target, &corpus)?;
        let earlier = files(&found)?;
        let log = folder.join("log");
        let status = self
            .fuzzer(target, &log)?
            .arg(format!("-max_total_time={}", self.seconds))
            .arg(format!("-max_len={}", target.max_bytes))
            .arg(format!("-timeout={SLOWEST_SECONDS}"))
            .arg(format!("-rss_limit_mb={MOST_MEMORY_MIB}"))
            .arg(format!("-malloc_limit_mb={LARGEST_ALLOCATION_MIB}"))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .args(["-print_final_stats=1"])
            .arg(&corpus)
            .status()
            .map_err(|error| format!("its fuzzer does not start: {error}"))?;
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        let mut verdict = verdict(&text);
        for file in files(&found)?.into_iter().filter(|file| !earlier.contains(file)) {
            let what = wrong(&text);
            verdict.found.push((what.clone(), describe(target, &file, &what)?));
        }
        if !status.success() && verdict.found.is_empty() {
            return Err(format!("its fuzzer ended with {status}, see {}", log.display()));
        }
        if self.keep {
            self.keep(target, &folder)?;
        }
        Ok(verdict)
    }

    fn fuzzer(&self, target: &Target, log: &Path) -> Result<Command, String> {
        let log = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let mut command = Command::new(self.fuzzers.join(target.name));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(command)
    }

    /// Adds inputs that reach what the others do not, as text.
    fn keep(&self, target: &Target, folder: &Path) -> Result<(), String> {
        let least = folder.join("least");
        drop(fs::remove_dir_all(&least));
        fs::create_dir_all(&least).map_err(|error| format!("{}: {error}", least.display()))?;
        let merged = self
            .fuzzer(target, &folder.join("merge.log"))?
            .arg("-merge=1")
            .args([&least, &folder.join("corpus")])
            .status()
            .map_err(|error| format!("its fuzzer does not start: {error}"))?;
        if !merged.success() {
            return Err(format!("its fuzzer could not merge: {merged}, see {}", folder.join("merge.log").display()));
        }
        let path = inputs::folder().join("corpus").join(format!("{}.txt", target.name));
        let known: Vec<_> = inputs::read(&path)?.into_iter().map(|input| input.bytes).collect();
        let mut text = fs::read_to_string(&path).unwrap_or_default();
        let mut fresh: Vec<_> = files(&least)?.iter().filter_map(|file| fs::read(file).ok()).collect();
        fresh.retain(|bytes| !known.contains(bytes));
        fresh.sort_by_key(Vec::len);
        if !fresh.is_empty() && !text.contains(FOUND_BY_FUZZER) {
            text.push_str(FOUND_BY_FUZZER);
        }
        let lines: Vec<_> = fresh.iter().map(|bytes| inputs::line(bytes)).collect();
        // Of all sizes alike: the smallest alone would all be refused early.
        let step = lines.iter().map(String::len).sum::<usize>().div_ceil(MOST_KEPT_BYTES).max(1);
        for line in lines.iter().step_by(step) {
            text.push_str(line);
            text.push('\n');
        }
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

const FOUND_BY_FUZZER: &str = "\n# Invented by the fuzzer: each reaches code that the others do not.\n";

/// Writes what is known already where the fuzzer begins.
fn sow(target: &Target, corpus: &Path) -> Result<(), String> {
    let mut seeds = (target.seeds)();
    for folder in ["corpus", "findings"] {
        let kept = inputs::read(&inputs::folder().join(folder).join(format!("{}.txt", target.name)))?;
        seeds.extend(kept.into_iter().map(|input| input.bytes));
    }
    for seed in seeds {
        let name = Sha256::digest(&seed).iter().take(10).fold(String::new(), |name, byte| format!("{name}{byte:02x}"));
        fs::write(corpus.join(name), seed).map_err(|error| format!("{}: {error}", corpus.display()))?;
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

/// The input as a line for `findings/`, next to the bytes.
fn describe(target: &Target, file: &Path, what: &str) -> Result<PathBuf, String> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let place = file.with_extension("txt");
    let words = format!(
        "# {what}\n# (say what it was and how it was mended, and append this to fuzz/findings/{}.txt)\n",
        target.name
    );
    fs::write(&place, format!("{words}{}\n", inputs::line(&bytes)))
        .map_err(|error| format!("{}: {error}", place.display()))?;
    Ok(place)
}

fn verdict(log: &str) -> Verdict {
    let number = |name: &str| {
        let after = log.rsplit_once(name).map(|(_, after)| after.trim_start());
        after.and_then(|after| after.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    Verdict {
        executed: number("stat::number_of_executed_units:"),
        a_second: number("stat::average_exec_per_sec:"),
        edges: number("cov:"),
        found: Vec::new(),
    }
}

/// The line of a log that says what was wrong.
fn wrong(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    if let Some(at) = lines.iter().position(|line| line.contains("panicked at")) {
        let words: Vec<_> = lines.iter().skip(at).take(2).map(|line| line.trim()).collect();
        return words.join(" ").chars().take(400).collect();
    }
    let is_verdict = |line: &&&str| line.starts_with("SUMMARY:") || line.contains("ERROR: ");
    lines.iter().find(is_verdict).map_or("the fuzzer stopped", |line| line.trim()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_says_how_much_was_done_and_what_was_wrong() {
        let log = "#2 INITED cov: 10 ft: 3\n#9 NEW cov: 27 ft: 8\nthread 'main' panicked at src/a.rs:1:2:\nno\nnote\n\
            stat::number_of_executed_units: 901\nstat::average_exec_per_sec:     30\n";
        let verdict = verdict(log);
        assert_eq!((verdict.executed, verdict.a_second, verdict.edges), (901, 30, 27));
        assert_eq!(wrong(log), "thread 'main' panicked at src/a.rs:1:2: no");
        assert_eq!(
            wrong("x\n==1== ERROR: libFuzzer: out-of-memory (malloc(9))\n"),
            "==1== ERROR: libFuzzer: out-of-memory (malloc(9))"
        );
    }
}
