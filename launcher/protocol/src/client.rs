//! The other side of the control socket, for commands: one question, one answer.
//!
//! The launcher is another user's process: its answer is bounded in size and time.

use std::io::{self, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::control::{Answer, Request, Verb};
use crate::socket;

/// Asks the launcher that serves `control` and returns its answer.
///
/// # Errors
/// When no process listens on `control`, or no valid answer has arrived whole within `patience`.
pub fn ask(control: &Path, verb: Verb, patience: Duration) -> io::Result<Answer> {
    ask_with(control, &Request::new(1, verb), patience)
}

/// Sends a whole request to the launcher that serves `control` and returns its answer.
///
/// # Errors
/// As [`ask`].
pub fn ask_with(control: &Path, request: &Request, patience: Duration) -> io::Result<Answer> {
    let deadline = now() + patience;
    let mut stream = socket::connect(control)?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&request.to_line())?;
    Ok(serde_json::from_slice(&read_line(&mut stream, deadline)?)?)
}

/// Reads up to a newline. A peer that sends one byte at a time does not move the deadline.
fn read_line(stream: &mut UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    const MOST_BYTES: usize = 64 << 10;
    let mut line = Vec::new();
    let mut part = [0; 4096];
    while line.len() < MOST_BYTES {
        let left = deadline.saturating_duration_since(now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => match part[..count].iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    line.extend(&part[..end]);
                    break;
                }
                None => line.extend(&part[..count]),
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(line)
}

#[expect(clippy::disallowed_methods, reason = "a bound on waiting for another process")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::sync::mpsc;

    use super::*;
    use crate::control::Report;

    #[test]
    fn an_answer_byte_by_byte_does_not_move_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = socket::listen(&path).unwrap();
        let (ended, asked) = mpsc::channel::<()>();
        let launcher = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Ends when the client has gone, long before the limit on bytes.
            while asked.recv_timeout(Duration::from_millis(20)).is_err() {
                if stream.write_all(b" ").is_err() {
                    return true;
                }
            }
            false
        });
        let error = ask(&path, Verb::Pause, Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error}");
        assert!(launcher.join().unwrap(), "the launcher still writes");
        drop(ended);
    }

    #[test]
    fn a_launcher_is_asked_in_the_words_it_reads_and_nonsense_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = socket::listen(&path).unwrap();
        let launcher = std::thread::spawn(move || {
            for answer in ["{\"id\":1,\"ok\":{}}\n", "nonsense\n", ""] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                assert_eq!(line, "{\"id\":1,\"verb\":\"pause\"}\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let patience = Duration::from_secs(5);
        let done = Answer::Ok { id: 1.into(), ok: Report::Done {} };
        assert_eq!(ask(&path, Verb::Pause, patience).unwrap(), done);
        assert!(ask(&path, Verb::Pause, patience).is_err());
        assert!(ask(&path, Verb::Pause, patience).is_err());
        launcher.join().unwrap();
    }
}
