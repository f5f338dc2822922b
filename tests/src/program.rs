//! Whole processes, timed from `posix_spawn` to the end.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{UsageWho, getrusage};

/// A program with all that it is given.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its file.
    pub path: PathBuf,
    /// Its arguments, without its name.
    pub arguments: Vec<String>,
    /// Its environment in addition to PATH.
    pub environment: Vec<(&'static str, String)>,
    /// Its standard input.
    pub input: Vec<u8>,
}

/// What a run took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Took {
    /// From start to end.
    pub wall: Duration,
    /// In user space and in the kernel, children that were waited for included.
    pub cpu: Duration,
}

impl Program {
    /// Without environment and input.
    #[must_use]
    pub fn new(path: impl AsRef<Path>, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { path: path.as_ref().to_owned(), arguments, environment: Vec::new(), input: Vec::new() }
    }

    /// Its input, to be read from the beginning.
    ///
    /// # Panics
    /// When no file can be made in memory.
    #[must_use]
    pub fn input(&self) -> File {
        let mut input = in_memory();
        input.write_all(&self.input).and_then(|()| input.seek(SeekFrom::Start(0))).expect("it can be written");
        input
    }

    /// The program with its input on standard input and standard output in the file that is returned.
    ///
    /// # Panics
    /// When no file can be made in memory.
    #[must_use]
    pub fn command(&self) -> (Command, File) {
        let output = in_memory();
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        command
            .stdin(self.input())
            .stdout(output.try_clone().expect("a descriptor can be copied"))
            .stderr(Stdio::inherit());
        (command, output)
    }

    /// Runs it.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self) -> (Took, String) {
        let (mut command, mut output) = self.command();
        let before = children_cpu();
        let start = Instant::now();
        let status = command.status().unwrap_or_else(|error| panic!("cannot start {}: {error}", self.path.display()));
        let took = Took { wall: start.elapsed(), cpu: children_cpu().saturating_sub(before) };
        let mut text = String::new();
        output.seek(SeekFrom::Start(0)).and_then(|_| output.read_to_string(&mut text)).expect("output can be read");
        assert!(status.success(), "{} {:?} ended with {status}: {text}", self.path.display(), self.arguments);
        (took, text)
    }
}

/// A file on no disk: how busy that is must not show.
fn in_memory() -> File {
    memfd_create(c"bench", MFdFlags::MFD_CLOEXEC).expect("a file in memory can be made").into()
}

/// CPU time of all children so far that ended.
fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage of one's children is known");
    let duration = |time: nix::sys::time::TimeVal| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    };
    duration(usage.user_time()) + duration(usage.system_time())
}
