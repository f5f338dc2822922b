//! Talking to supervisors.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use terms::ObjectKey;

use super::failure::{Exit, Failure};
use protocol::socket;
use runner::protocol::{Report, Request};
use runner::record::Phase;
use runner::store::Store;

/// A supervisor on the other end of a line.
#[derive(Debug)]
pub(crate) struct Line {
    reader: BufReader<UnixStream>,
    /// The beginning of a line that has not come whole yet.
    line: Vec<u8>,
    key: ObjectKey,
}

/// How long a supervisor that is at work takes to answer a ping at most.
const PING_PATIENCE: Duration = Duration::from_secs(10);

impl Line {
    /// The line that a supervisor was started with.
    pub(crate) fn with(key: ObjectKey, stream: UnixStream) -> Self {
        Self { reader: BufReader::new(stream), line: Vec::new(), key }
    }

    /// A line to a VM's supervisor, also to one that is only beginning; `None` when the VM has none, or none any more.
    pub(crate) fn to(store: &Store, key: &ObjectKey) -> Option<Self> {
        const STEP: Duration = Duration::from_millis(10);
        const STEPS: usize = 1000;
        let path = store.layout().vm(key).supervisor_socket();
        for _ in 0..STEPS {
            if let Ok(stream) = socket::connect(&path) {
                return Some(Self::with(key.clone(), stream));
            }
            // Between its start and its first word, and between its last one and its end, it holds the VM's lock.
            if !store.is_claimed(key) {
                return None;
            }
            std::thread::sleep(STEP);
        }
        None
    }

    pub(crate) fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// Another handle to send requests with while this one waits for reports.
    pub(crate) fn sender(&self) -> Result<Sender, Failure> {
        Ok(Sender(self.reader.get_ref().try_clone()?))
    }

    /// The next report; `None` when the supervisor is gone.
    pub(crate) fn next(&mut self) -> Option<Report> {
        loop {
            match self.read() {
                Read::Report(report) => return Some(report),
                Read::Other | Read::Silent => {}
                Read::Closed => return None,
            }
        }
    }

    /// Sends a request and waits until it is carried out, for as long as the supervisor shows that it is at work.
    ///
    /// # Errors
    /// When it refuses, has ended, or does not answer: it may be stopped by a signal.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Phase, AskError> {
        self.ask_within(request, PING_PATIENCE)
    }

    fn ask_within(&mut self, request: Request, patience: Duration) -> Result<Phase, AskError> {
        let gone = |_| AskError::Gone(self.key.clone());
        let mut sender = self.sender().map_err(gone)?;
        self.reader.get_ref().set_read_timeout(Some(patience)).map_err(|error| gone(error.into()))?;
        sender.send(request).map_err(gone)?;
        let mut is_pinged = false;
        loop {
            match self.read() {
                Read::Report(Report::Done { phase }) => return Ok(phase),
                // A supervisor of a version without pings: that is an answer as well.
                Read::Report(Report::Refused { message }) if is_pinged && message.starts_with("request: ") => {
                    is_pinged = false;
                }
                Read::Report(Report::Refused { message }) => {
                    return Err(AskError::Refused { key: self.key.clone(), message });
                }
                Read::Report(_) | Read::Other => is_pinged = false,
                Read::Silent if is_pinged => return Err(AskError::NoAnswer(self.key.clone())),
                Read::Silent => {
                    sender.send(Request::Ping).map_err(|_| AskError::Gone(self.key.clone()))?;
                    is_pinged = true;
                }
                Read::Closed => return Err(AskError::Gone(self.key.clone())),
            }
        }
    }

    fn read(&mut self) -> Read {
        match self.reader.read_until(b'\n', &mut self.line) {
            Ok(0) => return Read::Closed,
            Ok(_) => {}
            // What came of a line so far is kept.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Read::Silent,
            Err(_) => return Read::Closed,
        }
        let report = serde_json::from_slice(&self.line);
        self.line.clear();
        report.map_or_else(
            |error| {
                tracing::debug!(%error, "a report that is not understood");
                Read::Other
            },
            Read::Report,
        )
    }
}

/// What comes over a line.
enum Read {
    Report(Report),
    /// A report of a later version.
    Other,
    /// Nothing in the time that was set.
    Silent,
    Closed,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// The supervisor answered that it cannot carry it out.
    #[error("{key}: {message}")]
    Refused { key: ObjectKey, message: String },
    /// The supervisor has ended before it answered.
    #[error("{0}: its supervisor is gone")]
    Gone(ObjectKey),
    /// It is there, and does not answer or has no socket.
    #[error("{0}: its supervisor does not answer; `tapvisor stop --force {0}` or `tapvisor rm --force {0}` ends it")]
    NoAnswer(ObjectKey),
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

/// Sends requests to a supervisor.
#[derive(Debug)]
pub(crate) struct Sender(UnixStream);

impl Sender {
    /// Sends a request; the reader of the line gets its answer.
    pub(crate) fn send(&mut self, request: Request) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(&request).map_err(std::io::Error::from)?;
        line.push(b'\n');
        Ok(self.0.write_all(&line)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name).unwrap()
    }

    const STOP: Request = Request::Stop { grace_seconds: None, remove: false };
    const SOON: Duration = Duration::from_millis(100);

    /// A line to a supervisor that answers the requests it is sent, in order, by these lines.
    fn line<const N: usize>(answers: [&'static str; N]) -> (Line, std::thread::JoinHandle<Vec<String>>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let supervisor = std::thread::spawn(move || {
            let mut requests = BufReader::new(theirs.try_clone().unwrap()).lines();
            let mut asked = Vec::new();
            for answer in answers {
                let Some(Ok(request)) = requests.next() else { return asked };
                asked.push(request);
                theirs.write_all(answer.as_bytes()).unwrap();
            }
            asked.extend(requests.map_while(Result::ok));
            asked
        });
        (Line::with(key("web"), ours), supervisor)
    }

    // spec: RUN-9
    #[test]
    fn a_supervisor_that_does_not_answer_is_not_waited_for() {
        let (mut line, supervisor) = line([]);
        assert_eq!(line.ask_within(STOP, SOON), Err(AskError::NoAnswer(key("web"))));
        drop(line);
        assert_eq!(supervisor.join().unwrap().len(), 2, "the request and a ping");
    }

    // spec: RUN-9
    #[test]
    fn a_supervisor_at_work_is_waited_for_as_long_as_it_answers_pings() {
        let alive = "{\"event\":\"alive\"}\n";
        let earlier = "{\"event\":\"refused\",\"message\":\"request: unknown variant `ping`\"}\n";
        let (mut line, supervisor) =
            line(["{\"event\":", "\"later\"}\n", alive, earlier, "{\"event\":\"done\",\"phase\":\"Stopped\"}\n"]);
        assert_eq!(line.ask_within(STOP, SOON), Ok(Phase::Stopped));
        drop(line);
        assert_eq!(supervisor.join().unwrap().len(), 5);
    }

    #[test]
    fn a_refusal_and_an_end_are_reported_as_such() {
        let (mut refused, _) = line(["{\"event\":\"refused\",\"message\":\"no\"}\n"]);
        let refusal = AskError::Refused { key: key("web"), message: "no".to_owned() };
        assert_eq!(refused.ask_within(STOP, SOON), Err(refusal));
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(Line::with(key("web"), ours).ask_within(STOP, SOON), Err(AskError::Gone(key("web"))));
    }
}
