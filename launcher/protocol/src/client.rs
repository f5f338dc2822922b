//! The other side of the control socket, for commands: one question, one answer.
//!
//! The launcher is another user's process: its answer is bounded in size and time.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::control::{Answer, Request, Verb};
use crate::socket;

/// Asks the launcher that serves `control` and returns its answer.
///
/// # Errors
/// When nobody listens, or what comes within `patience` is no answer.
pub fn ask(control: &Path, verb: Verb, patience: Duration) -> io::Result<Answer> {
    const MOST_BYTES: u64 = 64 << 10;
    let mut stream = socket::connect(control)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&Request::new(1, verb).to_line())?;
    let mut line = Vec::new();
    BufReader::new(stream).take(MOST_BYTES).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Report;

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
