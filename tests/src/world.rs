//! A host of one's own: network, mount and process namespaces that die with the test.
//!
//! *Guarantees*: whatever runs in a world can change links, sysctls, nft, `/run`, `/etc`, `/var` and `/opt` without the
//! machine noticing, and all of it, processes included, ends when the world is dropped or the test is killed: the
//! world's first process reads a pipe that only the test holds open, and the kernel ends the others with it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::stat::{Mode, umask};

use crate::{Ns, Outside, Ran, Snapshot};

/// Longest any command in a world may take, in seconds.
const COMMAND_LIMIT: &str = "180";

/// What the world's first process does before it waits for its end.
const INIT: &str = include_str!("world_init.sh");

/// The settings that tests depend on, whatever the machine has, and the loopback up.
const PLAIN_SETTINGS: &str = include_str!("plain_settings.sh");

/// A host for one test.
#[derive(Debug)]
pub struct World {
    first: Child,
    pid: u32,
    outside: Option<Outside>,
}

impl World {
    /// A host with an uplink: addresses 192.0.2.2/24 and 2001:db8:1::2/64, an IPv4 default route, an IPv6 one learned
    /// from a router advertisement, and beyond it the [`Outside`].
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let mut world = Self::bare();
        world.outside = Some(Outside::of(&world));
        world
    }

    /// A host with nothing but its loopback.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn bare() -> Self {
        // As on a fresh machine, whatever the umask of who runs the tests.
        umask(Mode::S_IWGRP | Mode::S_IWOTH);
        let mut first = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--", "bash", "-euc", INIT])
            .env("PLAIN_SETTINGS", PLAIN_SETTINGS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare (package util-linux) starts");
        let mut line = String::new();
        let stdout = first.stdout.as_mut().expect("stdout was asked for");
        BufReader::new(stdout).read_line(&mut line).expect("the world's first process speaks");
        let Ok(pid) = line.trim().parse() else {
            let mut complaint = String::new();
            let _ = first.stderr.take().expect("stderr was asked for").read_to_string(&mut complaint);
            panic!("the world did not come up: {line}{complaint}");
        };
        Self { first, pid, outside: None }
    }

    /// What lies beyond the uplink.
    ///
    /// # Panics
    /// In a bare world.
    #[must_use]
    pub fn outside(&self) -> &Outside {
        self.outside.as_ref().expect("a bare world has no outside")
    }

    /// The number of its first process, as the test knows it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A command in this world, ended after three minutes whatever it does.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.command_without_limit("timeout");
        command.args(["-k", "5", COMMAND_LIMIT]).arg(program);
        command
    }

    /// A command in this world that ends when it likes, at the latest with the world.
    #[must_use]
    pub fn command_without_limit(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "--uts", "--ipc", "--pid", "--target"]).arg(self.pid.to_string());
        command.arg("--").arg(program);
        command
    }

    /// Runs a command line, the program first.
    #[must_use]
    pub fn run(&self, line: &[&str]) -> Ran {
        let (program, arguments) = line.split_first().expect("a command line names a program");
        Ran::of(self.command(program).args(arguments))
    }

    /// Runs a shell script that ends at its first failure.
    #[must_use]
    pub fn sh(&self, script: &str) -> Ran {
        self.run(&["bash", "-euo", "pipefail", "-c", script])
    }

    /// Runs the built `tapvisor`.
    #[must_use]
    pub fn tapvisor(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(crate::dist_file("tapvisor")).args(arguments))
    }

    /// Takes the images that the examples boot into this host's store.
    ///
    /// # Panics
    /// When they were not prepared or are refused.
    pub fn bring_guest(&self) {
        let images = crate::cache_file("guest/images").display().to_string();
        self.tapvisor(&["image", "import", &images]).assert_ok();
    }

    /// Makes a network namespace, as `ip netns add` does, with a new machine's settings and its loopback up.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn ns(&self, name: &str) -> Ns<'_> {
        self.run(&["ip", "netns", "add", name]).assert_ok();
        let ns = self.named(name);
        ns.sh(PLAIN_SETTINGS).assert_ok();
        ns
    }

    /// A network namespace that another program made under `/run/netns`.
    #[must_use]
    pub fn named(&self, name: &str) -> Ns<'_> {
        Ns::new(self, name)
    }

    /// The names under `/run/netns`, sorted.
    ///
    /// # Panics
    /// When the folder cannot be read.
    #[must_use]
    pub fn ns_names(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path("/run/netns")) else { return Vec::new() };
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("folder is readable").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    /// Where the test reaches what the world calls `inside`.
    #[must_use]
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref().strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.pid.to_string()).join("root").join(inside)
    }

    /// Writes a file as the world sees it, making its folders.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, inside: &str, content: impl AsRef<[u8]>) {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folders can be made");
        std::fs::write(path, content).unwrap_or_else(|error| panic!("cannot write {inside}: {error}"));
    }

    /// The network of this host as other people's tools tell it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(|line| self.run(line))
    }

    /// Waits until the kernel is done with what it does by itself after links of the host came up.
    ///
    /// # Panics
    /// When it is not done within a minute.
    pub fn settle(&self) {
        crate::settle::settle(|line| self.run(line));
    }

    /// Waits until a link of the host passes frames on.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub fn wait_carrier(&self, link: &str) {
        crate::settle::carrier(link, |line| self.run(line));
    }

    /// Copies a program to where the world's programs find it. A program does that, for what this process writes a child begun
    /// meanwhile by another thread holds open too, and the kernel executes no file that is being written.
    ///
    /// # Panics
    /// When it cannot be copied.
    pub fn install(&self, program: &Path, inside: &str) {
        self.run(&["install", "-D", "-m", "0755", &program.display().to_string(), inside]).assert_ok();
    }

    /// Does something in the host's network namespace.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        crate::ns::enter(&Path::new("/proc").join(self.pid.to_string()).join("ns/net"), act)
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.first.stdin.take());
        let _ = self.first.wait();
    }
}
