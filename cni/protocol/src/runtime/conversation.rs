//! A plugin's process from its start to its end: configuration in, answer out, and no longer than the caller is patient.

use std::io::{Read, Write as _};
use std::process::{Child, ExitStatus, Output};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// Most that is read of either stream; no honest answer is as long as the longest configuration.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

pub(super) enum End {
    /// The plugin ended by itself; its output may still be an error.
    Answered(Output),
    /// It was killed, with all it had started; what it wrote to stderr until then.
    Late(Vec<u8>),
}

enum News {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    Exited,
}

/// Writes while it reads, for either side may be longer than a pipe holds, and waits for the exit and for both streams
/// to close. The child must lead a process group, which is killed when that takes longer than `patience`.
pub(super) fn converse(mut child: Child, conf: Vec<u8>, patience: Duration) -> std::io::Result<End> {
    let (tell, news) = mpsc::channel();
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that does not read to the end breaks the pipe; its answer tells why, not our error.
        thread::spawn(move || stdin.write_all(&conf));
    }
    listen(child.stdout.take(), tell.clone(), News::Stdout);
    listen(child.stderr.take(), tell.clone(), News::Stderr);
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(std::io::Error::other)?);
    thread::spawn(move || {
        // Not reaped: until the group is certainly no longer wanted, its number must not become another's.
        let _exited = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        drop(tell.send(News::Exited));
    });

    let deadline = now().checked_add(patience);
    let (mut stdout, mut stderr, mut exited) = (None, None, false);
    while stdout.is_none() || stderr.is_none() || !exited {
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now()));
        match news.recv_timeout(left) {
            Ok(News::Stdout(text)) => stdout = Some(text),
            Ok(News::Stderr(text)) => stderr = Some(text),
            Ok(News::Exited) => exited = true,
            Err(RecvTimeoutError::Timeout) => {
                let _killed = killpg(pid, Signal::SIGKILL);
                // One that hangs in the kernel does not even die: it is left behind rather than waited for.
                thread::spawn(move || child.wait());
                return Ok(End::Late(stderr.unwrap_or_default()));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status: ExitStatus = child.wait()?;
    Ok(End::Answered(Output { status, stdout: stdout.unwrap_or_default(), stderr: stderr.unwrap_or_default() }))
}

fn listen(stream: Option<impl Read + Send + 'static>, tell: Sender<News>, news: fn(Vec<u8>) -> News) {
    thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(stream) = stream {
            // What was read before a failure still counts.
            drop(stream.take(MOST_BYTES).read_to_end(&mut text));
        }
        drop(tell.send(news(text)));
    });
}

#[expect(clippy::disallowed_methods, reason = "another process is waited for: this is the program's edge")]
fn now() -> Instant {
    Instant::now()
}
