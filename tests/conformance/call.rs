//! One execution of a plugin, as a runtime does it: verb and names in the environment, configuration on stdin.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use super::trouble::Trouble;

/// Longer than any plugin needs on a busy machine; one that hangs is killed and judged so.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is executed with which environment and input.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) program: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) folder: PathBuf,
    /// Leave stdin open and silent.
    pub(crate) holds_stdin: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) hung: bool,
}

impl Call {
    pub(crate) fn new(program: &Path, verb: &str) -> Self {
        let env = BTreeMap::from([("CNI_COMMAND".to_owned(), verb.to_owned())]);
        Self { program: program.to_owned(), env, stdin: Vec::new(), folder: "/".into(), holds_stdin: false }
    }

    pub(crate) fn env(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.env.remove(key);
        self
    }

    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.stdin = input.into();
        self
    }

    /// The command without its input, for a caller that traces the process.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(&self.env).current_dir(&self.folder);
        // A group of its own: what hangs is ended with its children, who may hold our pipes.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Executes and waits.
    pub(crate) fn run(&self) -> Result<Answer, Trouble> {
        let shown = || format!("start {}", self.program.display());
        let mut child = self.command().spawn().map_err(Trouble::system(shown()))?;
        let pid = Pid::from_raw(child.id().cast_signed());
        let (finished, watched) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let watch =
                scope.spawn(move || watched.recv_timeout(PATIENCE).is_err() && killpg(pid, Signal::SIGKILL).is_ok());
            let output = self.feed_and_wait(&mut child, scope);
            let _gone_if_it_hung = finished.send(());
            let hung = watch.join().unwrap_or(false);
            output.map(|output| Answer::new(&output, hung))
        })
    }

    fn feed_and_wait<'scope, 'env: 'scope>(
        &'env self,
        child: &mut Child,
        scope: &'scope thread::Scope<'scope, 'env>,
    ) -> Result<Output, Trouble> {
        let stdin = child.stdin.take();
        let held = if self.holds_stdin {
            stdin
        } else {
            // A plugin that has read enough closes its end: no matter of ours.
            scope.spawn(move || stdin.is_none_or(|mut pipe| pipe.write_all(&self.stdin).is_ok()));
            None
        };
        let output = output_of(child).map_err(Trouble::system(format!("wait for {}", self.program.display())));
        drop(held);
        output
    }
}

fn output_of(child: &mut Child) -> std::io::Result<Output> {
    use std::io::Read as _;
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        scope.spawn(|| err.as_mut().map(|pipe| pipe.read_to_end(&mut stderr)));
        out.as_mut().map_or(Ok(0), |pipe| pipe.read_to_end(&mut stdout)).map(drop)
    })?;
    Ok(Output { status: child.wait()?, stdout, stderr })
}

impl Answer {
    pub(crate) fn new(output: &Output, hung: bool) -> Self {
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            hung,
        }
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// The error object, if the plugin failed and printed one with a code.
    pub(crate) fn error(&self) -> Option<Value> {
        let value: Value = serde_json::from_str(&self.stdout).ok()?;
        (!self.succeeded() && value.get("code").is_some_and(Value::is_u64)).then_some(value)
    }

    /// The error's code.
    pub(crate) fn error_code(&self) -> Option<u64> {
        self.error()?.get("code")?.as_u64()
    }

    /// What is wrong with this as a failure: it must exit non-zero of itself, with an error object that has words.
    pub(crate) fn wrong_as_failure(&self) -> Option<String> {
        let words = |error: &Value| error.get("msg").and_then(Value::as_str).is_some_and(|msg| !msg.is_empty());
        (!self.error().as_ref().is_some_and(words)).then(|| self.shown())
    }

    /// What is wrong with this as a success without output.
    pub(crate) fn wrong_as_silent_success(&self) -> Option<String> {
        (!self.succeeded() || !self.stdout.is_empty()).then(|| self.shown())
    }

    /// Everything in one short line.
    pub(crate) fn shown(&self) -> String {
        let short =
            |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect::<String>();
        let end = match (self.hung, self.code, self.signal) {
            (true, ..) => "hung".to_owned(),
            (_, Some(code), _) => format!("exit {code}"),
            (_, _, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        format!("{end}, stdout {:?}, stderr {:?}", short(&self.stdout), short(&self.stderr))
    }
}
