//! A network namespace inside a world: commands, closures and snapshots in it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use crate::{Ran, Snapshot, World, settle};

/// A network namespace of a world, known by its name under `/run/netns`.
#[derive(Debug)]
pub struct Ns<'w> {
    world: &'w World,
    name: String,
}

impl<'w> Ns<'w> {
    pub(crate) fn new(world: &'w World, name: &str) -> Self {
        Self { world, name: name.to_owned() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The world it lies in.
    #[must_use]
    pub fn world(&self) -> &'w World {
        self.world
    }

    /// Its path as programs in the world know it, for instance for `CNI_NETNS`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// A command in it, with a `/sys` of this namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.world.command("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
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

    /// Its network as other people's tools tell it.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(|line| self.run(line))
    }

    /// Waits until the kernel is done with what it does by itself after links came up, so that two snapshots compare.
    ///
    /// # Panics
    /// When it is not done within a minute.
    pub fn settle(&self) {
        settle::settle(|line| self.run(line));
    }

    /// Waits until a link of it passes frames on.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub fn wait_carrier(&self, link: &str) {
        settle::carrier(link, |line| self.run(line));
    }

    /// Does something in it, on a thread of its own: sockets and descriptors made there stay there.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        enter(&self.outer_path(), act)
    }

    /// Deletes it; what lies in it dies with it.
    ///
    /// # Panics
    /// When it is not there.
    pub fn delete(self) {
        self.world.run(&["ip", "netns", "delete", &self.name]).assert_ok();
    }

    fn outer_path(&self) -> PathBuf {
        self.world.path(self.path())
    }
}

/// Runs `act` on a thread of its own in the network namespace behind `path`.
pub(crate) fn enter<T: Send>(path: &Path, act: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(path).unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
    let work = || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
        act()
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
