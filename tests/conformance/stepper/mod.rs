//! Executes a plugin under ptrace and, at one chosen kernel step, kills it or makes that step fail.
//!
//! Flow: a shell stops itself, is seized, and becomes the plugin; each system call of each of its threads and children
//! stops twice. [`step`] says which calls are kernel steps; [`Fault`] says what happens at which.
//! Guarantees: works on unchanged binaries, also multi-threaded ones; a killed call has not run; a refused netlink
//! message has been refused by the kernel itself, with the rest of its batch treated as the kernel treats it.
//! Assumptions: `x86_64` register names; the tracer's thread has no other children.

mod memory;
mod netlink;
mod step;
mod tracer;

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) use step::{Step, StepKind};

use super::call::{Answer, Call};
use super::trouble::Trouble;

/// What happens to a run; steps count from 0 in the order in which they are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: only list the steps.
    Nothing,
    /// SIGKILL for the plugin and its children in place of this step.
    KillBefore { step: usize },
    /// Only so many messages of this rtnetlink batch are sent, then SIGKILL.
    KillInBatch { step: usize, messages: usize },
    /// The step fails; of a netlink batch, the message with this index.
    Refuse { step: usize, message: usize, errno: Errno },
}

impl Fault {
    pub(crate) fn step(self) -> Option<usize> {
        match self {
            Self::Nothing => None,
            Self::KillBefore { step } | Self::KillInBatch { step, .. } | Self::Refuse { step, .. } => Some(step),
        }
    }
}

/// A finished run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) answer: Answer,
    pub(crate) steps: Vec<Step>,
    /// Whether the run came as far as the fault.
    pub(crate) struck: bool,
}

/// Executes a call with a fault.
pub(crate) fn run(call: &Call, fault: Fault) -> Result<Run, Trouble> {
    // A thread of its own, so that its only children are the plugin's processes.
    thread::scope(|scope| scope.spawn(|| run_here(call, fault)).join())
        .unwrap_or_else(|_| Err(Trouble::Words("the tracer's thread panicked".to_owned())))
}

fn run_here(call: &Call, fault: Fault) -> Result<Run, Trouble> {
    let mut child = stopped_shell(call)?;
    let pid = Pid::from_raw(child.id().cast_signed());
    if let Some(mut stdin) = child.stdin.take() {
        // A configuration fits into the pipe; the write does not wait for a reader.
        stdin.write_all(&call.stdin).map_err(Trouble::system("write the plugin's configuration"))?;
    }
    let (finished, watched) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        watched.recv_timeout(Duration::from_secs(60)).is_err() && kill(pid, Signal::SIGKILL).is_ok()
    });
    let traced = tracer::trace(pid, fault);
    let _gone_if_it_hung = finished.send(());
    let hung = watch.join().unwrap_or(false);
    let traced = traced?;
    let output = output(&mut child, traced.status)?;
    Ok(Run { answer: Answer::new(&output, hung), steps: traced.steps, struck: traced.struck })
}

/// A shell that has stopped itself and, continued, becomes the plugin.
fn stopped_shell(call: &Call) -> Result<Child, Trouble> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "kill -STOP $$; exec \"$0\""]).arg(&call.program);
    command.env_clear().envs(&call.env).current_dir(&call.folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(Trouble::system("start the plugin's shell"))
}

fn output(child: &mut Child, raw_status: i32) -> Result<Output, Trouble> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    if let (Some(out), Some(err)) = (child.stdout.as_mut(), child.stderr.as_mut()) {
        out.read_to_end(&mut stdout).map_err(Trouble::system("read the plugin's stdout"))?;
        err.read_to_end(&mut stderr).map_err(Trouble::system("read the plugin's stderr"))?;
    }
    Ok(Output { status: ExitStatus::from_raw(raw_status), stdout, stderr })
}
