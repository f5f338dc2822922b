//! `supervisor.log`: the log of a supervisor and its launcher, with a limit on its size and on the launcher's rate.
//!
//! *Flow.* The supervisor's own messages and the lines of its launcher, which come through a pipe, go into one file. At
//! its limit the file becomes `supervisor.log.1` and a new one begins. *Guarantees.* The log takes at most
//! twice the limit on the disk. Output of a launcher beyond its rate is read, dropped and counted in the log: it never blocks
//! the launcher and does not displace the supervisor's messages within minutes. *Assumptions.* A guest may have taken over its
//! launcher: its output is text for people, written without control characters.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use protocol::rate_limit::RateLimit;

/// Size at which the log is turned over.
const MOST_BYTES: u64 = 1 << 20;
/// What a launcher may say at once, and in each second after that.
const LAUNCHER_BURST: u64 = 64 << 10;
const LAUNCHER_PER_SECOND: u64 = 1 << 10;
/// The same for the supervisor, which tells of what launcher and guest do.
const OWN_BURST: u64 = 256 << 10;
const OWN_PER_SECOND: u64 = 2 << 10;
/// A longer line is cut into pieces.
const MOST_LINE_BYTES: u64 = 4 << 10;

/// The log, shared by all that write to it.
#[derive(Debug, Clone)]
pub struct SupervisorLog(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    bytes: u64,
    most_bytes: u64,
    begun: Instant,
    own: RateLimit,
}

impl SupervisorLog {
    /// Opens it; what an earlier supervisor wrote stays.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, MOST_BYTES)
    }

    fn with_limit(path: &Path, most_bytes: u64) -> io::Result<Self> {
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        let own = RateLimit::new(OWN_BURST, OWN_PER_SECOND);
        let inner = Inner { path: path.to_owned(), file, bytes, most_bytes, begun: now(), own };
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    /// The writing end of a pipe whose lines go into the log until all copies of it are closed.
    ///
    /// # Errors
    /// When there is no pipe or no thread.
    pub(crate) fn pipe(&self) -> io::Result<OwnedFd> {
        let (reading, writing) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let log = self.clone();
        let follow = move || log.follow(File::from(reading));
        std::thread::Builder::new().name("launcher-log".into()).spawn(follow)?;
        Ok(writing)
    }

    fn follow(&self, output: File) {
        let mut limit = RateLimit::new(LAUNCHER_BURST, LAUNCHER_PER_SECOND);
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            match output.by_ref().take(MOST_LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The end, or a pipe that cannot be read: it is over either way.
                _ => return,
            }
            let mut inner = self.lock();
            let now = inner.begun.elapsed();
            if let Some(left_out) = limit.take(now, line.len() as u64) {
                inner.say_left_out("the VM process", left_out);
                inner.append(printable(&line).as_bytes());
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The supervisor's own messages; those beyond the rate are left out and counted.
impl Write for SupervisorLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.lock();
        let now = inner.begun.elapsed();
        if let Some(left_out) = inner.own.take(now, bytes.len() as u64) {
            inner.say_left_out("the supervisor", left_out);
            inner.append(printable(bytes).as_bytes());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Inner {
    fn say_left_out(&mut self, whose: &str, bytes: u64) {
        if bytes > 0 {
            self.append(
                format!("({bytes} bytes of {whose} were left out: more than the log takes in that time)\n").as_bytes(),
            );
        }
    }

    /// A full disk costs the log and never the VM; there is no other place to say so.
    fn append(&mut self, bytes: &[u8]) {
        if self.bytes.saturating_add(bytes.len() as u64) > self.most_bytes {
            self.turn_over();
        }
        if self.file.write_all(bytes).is_ok() {
            self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        }
    }

    fn turn_over(&mut self) {
        let mut earlier = self.path.clone().into_os_string();
        earlier.push(".1");
        // Once the VM is removed its folder is too, and the last lines go to a file without a name.
        let Ok(file) = std::fs::rename(&self.path, earlier).and_then(|()| append(&self.path)) else { return };
        // What a panic says goes there too.
        let _ = nix::unistd::dup2_stderr(&file);
        (self.file, self.bytes) = (file, 0);
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Text without what a terminal would obey.
fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n");
    let shown = text.chars().flat_map(|c| {
        let is_control = c.is_control() && !matches!(c, '\n' | '\t');
        let escaped = is_control.then(|| c.escape_default()).into_iter().flatten();
        escaped.chain((!is_control).then_some(c))
    });
    shown.collect()
}

#[expect(clippy::disallowed_methods, reason = "the edge: the log's clock starts with it")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How long what is in a pipe may take to reach the log.
    const SOON: Duration = Duration::from_secs(10);

    fn log(most_bytes: u64) -> (tempfile::TempDir, PathBuf, SupervisorLog) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("supervisor.log");
        let log = SupervisorLog::with_limit(&path, most_bytes).unwrap();
        (folder, path, log)
    }

    fn wait_for(path: &Path, text: &str) -> String {
        let begun = now();
        loop {
            let content = std::fs::read_to_string(path).unwrap();
            if content.contains(text) {
                return content;
            }
            assert!(begun.elapsed() < SOON, "{text:?} is not in {content:?}");
            std::thread::yield_now();
        }
    }

    // spec: ISO-7
    #[test]
    fn a_log_is_turned_over_at_its_limit() {
        let (folder, path, mut log) = log(100);
        for _ in 0..1000 {
            log.write_all(b"0123456789\n").unwrap();
        }
        let sizes = [&path, &folder.path().join("supervisor.log.1")].map(|path| std::fs::metadata(path).unwrap().len());
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    // spec: ISO-7
    #[test]
    fn a_launcher_that_floods_its_log_leaves_few_bytes_and_never_blocks() {
        let (folder, path, mut log) = log(MOST_BYTES);
        log.write_all(b"supervisor: begins\n").unwrap();
        let mut pipe = File::from(log.pipe().unwrap());
        let line = b"qemu: virtio: bogus descriptor or out of resources\n".repeat(1000);
        for _ in 0..400 {
            pipe.write_all(&line).unwrap();
        }
        drop(pipe);
        // Twenty megabytes came; the rest of the second that this takes brings little more than the burst.
        log.write_all(b"supervisor: ends\n").unwrap();
        let content = wait_for(&path, "supervisor: ends");
        let bytes = content.len() as u64;
        assert!(bytes < LAUNCHER_BURST + 60 * LAUNCHER_PER_SECOND, "{bytes}");
        assert!(content.starts_with("supervisor: begins\n"), "{content}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_launcher_says_has_no_control_sequences_and_no_endless_lines() {
        let (_folder, path, log) = log(MOST_BYTES);
        let mut pipe = File::from(log.pipe().unwrap());
        pipe.write_all(b"\x1b]0;title\x07red\tas it is\r\n\xff\n").unwrap();
        pipe.write_all(&b"x".repeat(10_000)).unwrap();
        pipe.write_all(b"\nend\n").unwrap();
        drop(pipe);
        let content = wait_for(&path, "end\n");
        assert!(content.starts_with("\\u{1b}]0;title\\u{7}red\tas it is\n\u{fffd}\nxxx"), "{content:?}");
    }
}
