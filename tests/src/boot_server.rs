//! `tapvisor-dhcp serve` in a namespace, its log and its end.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::{Ns, dist_file, wait_for_or};

/// Nothing that a server does takes so long, however busy the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running boot server. Its log is `/run/boot/log` of the world, its leases are in `/run/boot/leases`.
#[derive(Debug)]
pub struct BootServer<'w> {
    ns: Ns<'w>,
    child: Child,
}

impl<'w> BootServer<'w> {
    /// Starts it with a configuration that leaves out where leases are kept, and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(ns: &Ns<'w>, configuration: &str) -> Self {
        let world = ns.world();
        world.write("/run/boot/conf.yaml", whole(configuration));
        let ns = world.named(ns.name());
        let child = launch(&ns);
        let server = Self { ns, child };
        server.wait_log("ready");
        server
    }

    /// All that its servers wrote so far, that of earlier ones too.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.ns.world().path("/run/boot/log")).unwrap_or_default()
    }

    /// Waits for a line that holds all these words.
    ///
    /// # Panics
    /// When there is none in time.
    pub fn wait_line(&self, words: &[&str]) {
        let has = || self.log().lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(());
        wait_for_or(&format!("{words:?} in the log"), PATIENCE, has, || self.log());
    }

    /// Replaces its configuration by another file, as editors do, and asks for a reload.
    ///
    /// # Panics
    /// When it does not run.
    pub fn reload(&self, configuration: &str) {
        self.ns.world().write("/run/boot/conf.new", whole(configuration));
        self.ns.sh("mv /run/boot/conf.new /run/boot/conf.yaml; kill -HUP $(pidof tapvisor-dhcp)").assert_ok();
    }

    fn wait_log(&self, word: &str) {
        self.wait_line(&[word]);
    }

    /// Kills it without a warning.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        // It is the child's child: the numbers of its own world find it.
        self.ns.sh("kill -9 $(pidof tapvisor-dhcp)").assert_ok();
        let _ = self.child.wait();
    }

    /// Starts it again, with what it left.
    ///
    /// # Panics
    /// When it does not serve again.
    pub fn start_again(&mut self) {
        let started = self.log().matches(": ready").count();
        self.child = launch(&self.ns);
        let again = || (self.log().matches(": ready").count() > started).then_some(());
        wait_for_or("the server to serve again", PATIENCE, again, || self.log());
    }
}

fn whole(configuration: &str) -> String {
    format!("leases: /run/boot/leases\n{configuration}")
}

fn launch(ns: &Ns<'_>) -> Child {
    let program = dist_file("tapvisor-dhcp").display().to_string();
    let script =
        format!("mkdir -p /run/boot; exec '{program}' serve --config /run/boot/conf.yaml >>/run/boot/log 2>&1");
    let mut command = ns.command("sh");
    command.args(["-euc", &script]).stdin(Stdio::null()).process_group(0);
    command.spawn().expect("the world starts programs")
}

impl Drop for BootServer<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
