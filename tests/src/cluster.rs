//! A Kubernetes cluster of two nodes on this machine, in a world of its own: it ends with the test, also when that is killed.
//!
//! *Guarantees*: everything runs in the world's namespaces and below its tmpfs. Outside remain only what the kernel has once for
//! the whole machine, control groups and loop devices: they carry the cluster's name and are removed at its end and before
//! its start. One cluster of a name runs at a time.
//! *Assumes*: `tests/setup cluster` has built the programs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Ran, World, cache_file, dist_file, wait_for, workspace};

/// Longest from the first process to ready nodes, on a machine with other things to do: twenty times what it takes alone.
const BOOT: Duration = Duration::from_secs(600);

/// Guests are emulated.
const CONFIGURATION: &str = r#"{"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"namespace": "tapvisor", "name": "kubevirt"},
    "spec": {"configuration": {"developerConfiguration": {"useEmulation": true}}}}"#;

/// The images of an installation.
const IMAGES: [&str; 3] = ["controller.tar", "node.tar", "launcher.tar"];

/// The nodes.
pub const NODES: [&str; 2] = ["node1", "node2"];

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    world: World,
    host: Child,
    name: String,
    programs: PathBuf,
    lock: UnixListener,
}

impl Cluster {
    /// Starts a cluster and waits until its nodes and its DNS are ready. Logs go to [`Self::logs`].
    ///
    /// # Panics
    /// When another cluster of this name runs, or this one does not come up.
    #[must_use]
    pub fn start(name: &str) -> Self {
        let lock = UnixListener::bind_addr(&address(name))
            .unwrap_or_else(|error| panic!("a cluster {name} runs already, or its name cannot be taken: {error}"));
        clean(name);
        let programs = cache_file("cluster/bin");
        let logs = logs(name);
        let _ = std::fs::remove_dir_all(&logs);
        std::fs::create_dir_all(&logs).unwrap_or_else(|error| panic!("{}: {error}", logs.display()));
        let world = World::bare();
        let log = File::create(logs.join("host.log")).expect("the folder was just made");
        let mut command = world.command_without_limit(bed("host"));
        command.arg(&programs).arg(&logs).arg(cgroup(name)).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a descriptor can be copied")).stderr(log);
        let host = command.spawn().expect("nsenter (package util-linux) starts");
        let mut cluster = Self { world, host, name: name.to_owned(), programs, lock };
        cluster.wait_ready();
        cluster
    }

    fn wait_ready(&mut self) {
        let path = self.logs().join("host.log");
        wait_for("the cluster to be ready", BOOT, || {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let ended = self.host.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "the cluster did not come up; logs are in {}:\n{log}", self.logs().display());
            log.lines().any(|line| line == "ready").then_some(())
        });
    }

    /// Where its components' logs and the API server's audit log are.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        logs(&self.name)
    }

    /// The host its control plane runs on, with a route to nodes and pods.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What a command in the world needs to find the cluster's programs and to be its administrator.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let path = std::env::var("PATH").unwrap_or_default();
        [
            ("PATH", format!("{}:{path}", self.programs.display())),
            ("KUBECONFIG", "/run/cluster/pki/admin.kubeconfig".to_owned()),
        ]
    }

    /// A command in the world with [`Self::environment`].
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.world.command(program);
        command.envs(self.environment());
        command
    }

    /// The same for a program that goes on for as long as its caller wants.
    #[must_use]
    pub fn command_without_limit(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.world.command_without_limit(program);
        command.envs(self.environment());
        command
    }

    /// Runs kubectl as the administrator.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command("kubectl").args(arguments))
    }

    /// Applies a manifest, YAML or JSON.
    #[must_use]
    pub fn apply(&self, manifest: &str) -> Ran {
        Ran::with_input(self.command("kubectl").args(["apply", "--server-side", "-f", "-"]), manifest.as_bytes())
    }

    /// A command on a node, as its root.
    ///
    /// # Panics
    /// When the node has not come up.
    #[must_use]
    pub fn on_node(&self, node: &str, program: &str) -> Command {
        let pid = std::fs::read_to_string(self.world.path(format!("/run/cluster/{node}.pid")));
        let pid = pid.unwrap_or_else(|error| panic!("{node} has not come up: {error}"));
        let mut command = self.command("nsenter");
        command.args(["--net", "--mount", "--uts", "--ipc", "--pid", "--target", pid.trim(), "--", program]);
        command
    }

    /// A shell in the world with [`Self::environment`].
    #[must_use]
    pub fn shell(&self) -> Command {
        let mut command = self.world.command_without_limit("env");
        command.args(self.environment().map(|(name, value)| format!("{name}={value}"))).arg("bash");
        command
    }

    /// Answers every client of the cluster's socket with a text, for ever.
    pub fn answer(&self, text: &str) -> ! {
        loop {
            // A client that is gone again needs no answer.
            let _ = self.lock.accept().and_then(|(mut client, _)| client.write_all(text.as_bytes()));
        }
    }

    /// Installs the product as a user does: the images of `make images`, the manifest, and a configuration for nodes without
    /// KVM. Returns when controller and agents are ready. A second call changes nothing.
    ///
    /// # Panics
    /// When it was not built or cannot be installed.
    pub fn install_product(&self) {
        let images = dist_file("images");
        for image in IMAGES {
            self.import(&images.join(image));
        }
        let manifest = workspace().join("deploy/tapvisor.yaml");
        self.install(&std::fs::read_to_string(&manifest).unwrap_or_else(|e| panic!("{}: {e}", manifest.display())));
    }

    /// Installs the release of a manifest, whose images the nodes have, or upgrades to it. Returns when controller and agents
    /// are ready.
    ///
    /// # Panics
    /// When it cannot be installed.
    pub fn install(&self, manifest: &str) {
        self.apply(manifest).assert_ok();
        for kind in ["virtualmachineinstances", "kubevirts"] {
            let name = format!("crd/{kind}.kubevirt.io");
            self.kubectl(&["wait", "--for=condition=Established", &name, "--timeout=60s"]).assert_ok();
        }
        self.apply(CONFIGURATION).assert_ok();
        for workload in ["deployment/tapvisor-controller", "daemonset/tapvisor-node", "daemonset/tapvisor-explain"] {
            let rollout = || self.kubectl(&["-n", "tapvisor", "rollout", "status", workload, "--timeout=20s"]);
            wait_for(&format!("{workload} to be ready"), BOOT, || rollout().is_ok().then_some(()));
        }
    }

    /// Imports the images of a release under another tag than the 1 that they carry.
    ///
    /// # Panics
    /// When they cannot be imported.
    pub fn import_release(&self, images: &Path, tag: &str) {
        for image in IMAGES {
            self.import(&images.join(image));
            let name = format!("localhost/tapvisor/{}", image.trim_end_matches(".tar"));
            let line =
                r#"ctr --namespace k8s.io images tag --force "$0:1" "$0:$1"; ctr --namespace k8s.io images rm "$0:1""#;
            for node in NODES {
                Ran::of(self.on_node(node, "bash").args(["-euo", "pipefail", "-c", line, &name, tag])).assert_ok();
            }
        }
    }

    /// Imports an OCI archive, or the folder of an OCI layout, on every node.
    ///
    /// # Panics
    /// When it cannot be imported.
    pub fn import(&self, images: &Path) {
        let read = if images.is_dir() { "tar -C \"$0\" -c ." } else { "cat \"$0\"" };
        let line = format!("{read} | ctr --namespace k8s.io images import -");
        for node in NODES {
            Ran::of(self.on_node(node, "bash").args(["-euo", "pipefail", "-c", &line]).arg(images)).assert_ok();
        }
    }

    /// Ends it and removes what it has outside its world.
    pub fn end(self) {
        let Self { world, mut host, name, lock, .. } = self;
        drop(world);
        let _ = host.wait();
        clean(&name);
        drop(lock);
    }
}

/// The socket that a cluster of this name holds while it runs: the kernel lets go of it with the process.
#[must_use]
pub fn address(name: &str) -> SocketAddr {
    SocketAddr::from_abstract_name(cgroup(name)).expect("a short name")
}

/// Removes what a cluster whose processes are gone has left.
///
/// # Panics
/// When something cannot be removed.
pub fn clean(name: &str) {
    Ran::of(Command::new(bed("clean")).arg(cgroup(name))).assert_ok();
}

/// The name of its control groups, without the node's.
#[must_use]
pub fn cgroup(name: &str) -> String {
    format!("tapvisor-cluster-{name}")
}

/// Where the logs of a cluster of this name are.
#[must_use]
pub fn logs(name: &str) -> PathBuf {
    workspace().join("target/cluster").join(name)
}

fn bed(script: &str) -> PathBuf {
    workspace().join("tests/cluster/bed").join(script)
}
