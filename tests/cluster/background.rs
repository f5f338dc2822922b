//! Programs that go on next to a trial.

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};

use tests::Cluster;

/// A program in the cluster's world until this is dropped, with what it writes in a file of the cluster's logs.
pub(crate) struct Background {
    child: Child,
    file: PathBuf,
}

impl Background {
    pub(crate) fn start(cluster: &Cluster, log: &str, program: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        let file = cluster.logs().join(log);
        let output = File::create(&file).expect("a file can be made");
        let mut command = cluster.command_without_limit(program);
        command.args(arguments).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a descriptor can be copied")).stderr(output);
        Self { child: command.spawn().expect("nsenter (package util-linux) starts"), file }
    }

    pub(crate) fn wrote(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// How it ended, if it has.
    pub(crate) fn end(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
