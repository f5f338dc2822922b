//! One plugin, one process: configuration in, answer out.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::Attachment;
use super::conversation::{End, converse};
use crate::plugin::Verb;
use crate::spec;

/// Why a plugin gave no answer, or a bad one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum ExecError {
    /// No folder of the plugin path holds a file of that name.
    #[error("plugin {plugin}: not found in {dirs}")]
    NotFound {
        plugin: String,
        /// Where it was looked for.
        dirs: String,
    },
    /// It could not be started or waited for.
    #[error("plugin {plugin}: {path} could not be executed")]
    Start {
        plugin: String,
        path: PathBuf,
        /// The error of starting the process or waiting for it.
        source: std::io::Error,
    },
    /// It answered with an error.
    #[error("plugin {plugin}: {verb} failed", verb = verb.as_str())]
    Refused { plugin: String, verb: Verb, source: spec::Error },
    /// It failed without saying why in the way of the specification.
    #[error("plugin {plugin}: {verb} ended with {status} and {said}", verb = verb.as_str())]
    Failed {
        plugin: String,
        verb: Verb,
        /// The exit status or signal, as `std::process::ExitStatus` prints it.
        status: String,
        /// Which stream it wrote to and at most 500 characters of that; stdout is preferred.
        said: String,
    },
    /// It did not end, and was killed.
    #[error("plugin {plugin}: {verb} did not end within {patience:?} and was killed{said}", verb = verb.as_str())]
    Late {
        plugin: String,
        verb: Verb,
        /// How long it was waited for.
        patience: Duration,
        /// What it wrote to stderr, shortened; empty or with the words before it.
        said: String,
    },
    /// Its answer is not JSON.
    #[error("plugin {plugin}: {verb} answered with something else than JSON", verb = verb.as_str())]
    Answer {
        plugin: String,
        verb: Verb,
        /// The JSON error, with line and column.
        source: serde_json::Error,
    },
}

/// Receives what plugins write to stderr: the plugin's type and one line.
pub(super) type Log = dyn Fn(&str, &str) + Send + Sync;

/// How plugins are found and executed.
pub(super) struct Executor {
    pub(super) bin_dirs: Vec<PathBuf>,
    pub(super) log: Box<Log>,
    /// How long a plugin may take.
    pub(super) patience: Duration,
}

impl Executor {
    /// Runs a plugin to its end. The answer of ADD and VERSION is a document; the other verbs have none.
    pub(super) fn run(
        &self,
        plugin: &str,
        verb: Verb,
        attachment: Option<(&Attachment, &str)>,
        conf: &Value,
    ) -> Result<Option<Value>, ExecError> {
        let path = self.find(plugin)?;
        let command = self.command(&path, verb, attachment);
        self.execute(plugin, verb, &path, command, conf.to_string().into_bytes())
    }

    /// Executes a command of a plugin to its end.
    pub(super) fn execute(
        &self,
        plugin: &str,
        verb: Verb,
        path: &Path,
        mut command: Command,
        conf: Vec<u8>,
    ) -> Result<Option<Value>, ExecError> {
        let start = |source| ExecError::Start { plugin: plugin.to_owned(), path: path.to_owned(), source };
        // A group of its own: Ctrl-C at the terminal ends the caller, who then undoes; a plugin cut in half could not.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = spawn(&mut command).map_err(start)?;
        let end = converse(child, conf, self.patience).map_err(start)?;
        let (End::Answered(Output { stderr, .. }) | End::Late(stderr)) = &end;
        String::from_utf8_lossy(stderr).lines().for_each(|line| (self.log)(plugin, line));
        let output = match end {
            End::Answered(output) => output,
            End::Late(stderr) => return Err(self.late(plugin, verb, &stderr)),
        };
        if !output.status.success() {
            return Err(failure(plugin, verb, &output));
        }
        match verb {
            Verb::Add | Verb::Version => serde_json::from_slice(&output.stdout)
                .map(Some)
                .map_err(|source| ExecError::Answer { plugin: plugin.to_owned(), verb, source }),
            _ => Ok(None),
        }
    }

    fn late(&self, plugin: &str, verb: Verb, stderr: &[u8]) -> ExecError {
        let said = match shortened(stderr) {
            words if words.is_empty() => words,
            words => format!(", after this on stderr: {words}"),
        };
        ExecError::Late { plugin: plugin.to_owned(), verb, patience: self.patience, said }
    }

    /// The file of a plugin.
    pub(super) fn find(&self, plugin: &str) -> Result<PathBuf, ExecError> {
        let executable = |path: &PathBuf| {
            std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        self.bin_dirs
            .iter()
            .map(|dir| dir.join(plugin))
            .find(executable)
            .ok_or_else(|| ExecError::NotFound { plugin: plugin.to_owned(), dirs: self.cni_path() })
    }

    /// Our environment is not the plugin's business, but for PATH: some execute `iptables` or `nft`.
    fn command(&self, path: &Path, verb: Verb, attachment: Option<(&Attachment, &str)>) -> Command {
        let mut command = Command::new(path);
        command.env_clear().env("CNI_COMMAND", verb.as_str()).env("CNI_PATH", self.cni_path());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if let Some((attachment, args)) = attachment {
            command
                .env("CNI_CONTAINERID", attachment.container_id.as_str())
                .env("CNI_IFNAME", attachment.if_name.as_str())
                .env("CNI_NETNS", attachment.netns.as_deref().unwrap_or(Path::new("")))
                .env("CNI_ARGS", args);
        }
        command
    }

    fn cni_path(&self) -> String {
        self.bin_dirs.iter().map(|dir| dir.to_string_lossy()).collect::<Vec<_>>().join(":")
    }
}

/// A file that is just being installed is busy for a moment.
fn spawn(command: &mut Command) -> std::io::Result<Child> {
    const ATTEMPTS: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(25);
    for _ in 1..ATTEMPTS {
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
    command.spawn()
}

fn failure(plugin: &str, verb: Verb, output: &Output) -> ExecError {
    let plugin = plugin.to_owned();
    if let Ok(source) = serde_json::from_slice::<spec::Error>(&output.stdout) {
        return ExecError::Refused { plugin, verb, source };
    }
    let said = match (shortened(&output.stdout), shortened(&output.stderr)) {
        (out, err) if out.is_empty() && err.is_empty() => "no message".to_owned(),
        (out, err) if out.is_empty() => format!("this on stderr: {err}"),
        (out, _) => format!("this on stdout: {out}"),
    };
    ExecError::Failed { plugin, verb, status: output.status.to_string(), said }
}

fn shortened(text: &[u8]) -> String {
    const MOST: usize = 500;
    String::from_utf8_lossy(text).trim().chars().take(MOST).collect()
}
