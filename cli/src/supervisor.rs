//! Talking to supervisors.

use std::io::{BufRead as _, BufReader, Write as _};
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
    key: ObjectKey,
}

impl Line {
    /// The line that a supervisor was started with.
    pub(crate) fn with(key: ObjectKey, stream: UnixStream) -> Self {
        Self { reader: BufReader::new(stream), key }
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

    /// Whose supervisor it is.
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
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) | Err(_) => return None,
                // A report of a later version is passed over.
                Ok(_) => match serde_json::from_str(&line) {
                    Ok(report) => return Some(report),
                    Err(error) => tracing::debug!(%error, "a report that is not understood"),
                },
            }
        }
    }

    /// Asks and waits until it is done.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Phase, Failure> {
        self.sender()?.send(request)?;
        loop {
            match self.next() {
                Some(Report::Done { phase }) => return Ok(phase),
                Some(Report::Refused { message }) => {
                    return Err(Failure::new(Exit::Failed, format!("{}: {message}", self.key)));
                }
                Some(_) => {}
                None => return Err(Failure::new(Exit::Failed, format!("{}: its supervisor is gone", self.key))),
            }
        }
    }
}

/// Sends requests to a supervisor.
#[derive(Debug)]
pub(crate) struct Sender(UnixStream);

impl Sender {
    /// Sends a request; its answer comes to whoever reads.
    pub(crate) fn send(&mut self, request: Request) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(&request).map_err(std::io::Error::from)?;
        line.push(b'\n');
        Ok(self.0.write_all(&line)?)
    }
}
