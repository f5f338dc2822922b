//! One launcher: connects, asks for events, and asks for the status again after each, not more often than the limit.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use node_protocol::{PodUid, names};
use protocol::control::{Answer, Event, Message, Report, Request, Verb};
use protocol::outcome::Outcome;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, timeout};

use super::folder::{self, Socket};
use super::reports::Reports;

/// The longest message that a launcher may send, with its end.
const MAX_LINE_BYTES: u64 = 64 << 10;
/// How long a launcher may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two messages that are read: a launcher that sends faster is slowed down.
const PACE: Duration = Duration::from_millis(20);
/// Between two questions for the status.
const REFRESH: Duration = Duration::from_millis(500);
/// Before a launcher that does not answer as it should is asked again, at first and at most.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Follows the launcher of a pod; ends when the machine has ended.
pub(super) async fn follow(pods: PathBuf, pod: PodUid, reports: Arc<Reports>) {
    let mut pause = RETRY;
    loop {
        let started = Instant::now();
        let ended = converse(&pods, &pod, &reports).await;
        // The event of the end may have been lost: the file says it as well.
        let ended = match ended {
            Ok(Some(outcome)) => Ok(Some(outcome)),
            Ok(None) => folder::outcome(&pods, &pod).map_err(|error| format!("outcome.json: {error}")),
            Err(problem) => match folder::outcome(&pods, &pod) {
                Ok(Some(outcome)) => Ok(Some(outcome)),
                _ => Err(problem),
            },
        };
        match ended {
            Ok(Some(outcome)) => {
                reports.update(&pod, |report| (report.outcome, report.problem) = (Some(outcome), None));
                return;
            }
            Ok(None) => {
                reports.update(&pod, |report| report.problem = Some("the launcher has left no outcome".to_owned()))
            }
            Err(problem) => reports.update(&pod, |report| report.problem = Some(problem)),
        }
        pause = if started.elapsed() > MAX_RETRY { RETRY } else { (pause * 2).min(MAX_RETRY) };
        tokio::time::sleep(pause).await;
    }
}

/// Speaks with the launcher until it closes; returns how the machine ended, if it said so.
async fn converse(pods: &Path, pod: &PodUid, reports: &Reports) -> Result<Option<Outcome>, String> {
    let mut launcher = Launcher::connect(pods, pod).await?;
    launcher.ask(&Request::new(1, Verb::Events)).await?;
    let mut is_asked = true;
    let mut asked_at = Instant::now();
    // Something has happened since the last question.
    let mut is_stale = false;
    loop {
        let wait = match (is_asked, is_stale) {
            (true, _) => PATIENCE.saturating_sub(asked_at.elapsed()),
            (false, true) => REFRESH.saturating_sub(asked_at.elapsed()),
            (false, false) => Duration::MAX,
        };
        match timeout(wait, launcher.line()).await {
            Err(_) if is_asked => return Err("the launcher does not answer".to_owned()),
            Err(_) => {
                launcher.ask(&Request::new(1, Verb::Status)).await?;
                (is_asked, is_stale, asked_at) = (true, false, Instant::now());
            }
            Ok(Err(problem)) => return Err(problem),
            Ok(Ok(None)) => return Ok(None),
            Ok(Ok(Some(Message::Event { event: Event::Ended { outcome: Some(outcome) } }))) => {
                return Ok(Some(outcome));
            }
            Ok(Ok(Some(Message::Event { .. }))) => is_stale = true,
            Ok(Ok(Some(Message::Answer(Answer::Ok { ok: Report::Status(status), .. })))) => {
                is_asked = false;
                reports.update(pod, |report| (report.status, report.problem) = (Some(*status), None));
            }
            Ok(Ok(Some(Message::Answer(Answer::Ok { .. })))) => {
                return Err("the launcher answers something else".to_owned());
            }
            Ok(Ok(Some(Message::Answer(Answer::Error { error, .. })))) => {
                return Err(format!("the launcher refuses: {}", short(&error)));
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

/// A launcher's text, as far as it is passed on.
fn short(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(200).collect()
}

/// Asks a launcher once, on a connection of its own.
///
/// # Errors
/// No launcher listens, or it does not answer as it should, as a message for users.
pub(super) async fn ask(pods: &Path, pod: &PodUid, request: &Request) -> Result<Answer, String> {
    let mut launcher = Launcher::connect(pods, pod).await?;
    launcher.ask(request).await?;
    match timeout(PATIENCE, launcher.line()).await.map_err(|_| "the launcher does not answer".to_owned())?? {
        Some(Message::Answer(Answer::Error { id, error })) => Ok(Answer::Error { id, error: short(&error) }),
        Some(Message::Answer(answer)) => Ok(answer),
        Some(Message::Event { .. }) => Err("the launcher answers something else".to_owned()),
        None => Err("the launcher closed the connection without an answer".to_owned()),
    }
}

struct Launcher {
    lines: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    /// What has come of the next line.
    line: Vec<u8>,
}

impl Launcher {
    async fn connect(pods: &Path, pod: &PodUid) -> Result<Self, String> {
        let at = |error: io::Error| format!("control.sock: {error}");
        let socket = Socket::open(pods, pod, names::CONTROL_SOCKET).map_err(at)?;
        let (read, write) = UnixStream::connect(socket.address()).await.map_err(at)?.into_split();
        Ok(Self { lines: BufReader::new(read), write, line: Vec::new() })
    }

    async fn ask(&mut self, request: &Request) -> Result<(), String> {
        let written = timeout(PATIENCE, self.write.write_all(&request.to_line())).await;
        written.map_err(|_| "the launcher does not read".to_owned())?.map_err(|error| format!("control.sock: {error}"))
    }

    /// The next message; `None` when the launcher has closed. It may be cancelled: what was read is kept for the next call.
    async fn line(&mut self) -> Result<Option<Message>, String> {
        let room = MAX_LINE_BYTES.saturating_sub(self.line.len() as u64);
        let read = (&mut self.lines).take(room).read_until(b'\n', &mut self.line).await;
        read.map_err(|error| format!("control.sock: {error}"))?;
        let line = std::mem::take(&mut self.line);
        match line.len() {
            0 => Ok(None),
            _ if !line.ends_with(b"\n") => {
                Err(format!("the launcher sends no whole line of at most {MAX_LINE_BYTES} bytes"))
            }
            _ => serde_json::from_slice(&line)
                .map(Some)
                .map_err(|error| format!("the launcher sends no message: {}", short(&error.to_string()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, Write as _};
    use std::os::unix::net::UnixListener;

    use protocol::outcome::Verdict;

    use super::super::folder::tests::kubelet;
    use super::*;

    const RUNNING: &str = "{\"id\":1,\"ok\":{\"state\":\"running\",\"name\":\"web\"}}\n";

    /// A launcher that answers each connection by its script: a request is read before each text.
    fn launcher(volume: &Path, script: Vec<Vec<String>>) -> std::thread::JoinHandle<()> {
        let listener = UnixListener::bind(volume.join("control.sock")).unwrap();
        std::thread::spawn(move || {
            for texts in script {
                let (mut stream, _) = listener.accept().unwrap();
                let mut requests = std::io::BufReader::new(stream.try_clone().unwrap());
                for text in texts {
                    requests.read_line(&mut String::new()).unwrap();
                    // A client that has cut the launcher off is what some of these tests are about.
                    drop(stream.write_all(text.as_bytes()));
                }
            }
        })
    }

    async fn conversed(texts: &[&str]) -> (Result<Option<Outcome>, String>, Option<node_protocol::LauncherReport>) {
        let (folder, pod, volume) = kubelet();
        let script = vec![texts.iter().map(|text| (*text).to_owned()).collect()];
        let thread = launcher(&volume, script);
        let reports = Reports::new("node1");
        let ended = converse(folder.path(), &pod, &reports).await;
        thread.join().unwrap();
        (ended, reports.unsent(&mut std::collections::BTreeMap::new()).pop())
    }

    #[tokio::test]
    async fn the_status_is_read_again_after_an_event_and_the_end_is_told() {
        let event = format!("{RUNNING}{{\"event\":{{\"type\":\"paused\"}}}}\n");
        let end = "{\"id\":1,\"ok\":{\"state\":\"paused\"}}\n{\"event\":{\"type\":\"ended\",\"outcome\":{\"outcome\":\"crashed\",\"reason\":\"panic\"}}}\n";
        let (ended, report) = conversed(&[&event, end]).await;
        assert_eq!(ended.unwrap().unwrap().outcome, Verdict::Crashed);
        let report = report.unwrap();
        assert_eq!(report.status.unwrap().state, protocol::control::State::Paused);
        assert_eq!(report.pod_uid.as_str(), super::super::folder::tests::POD);
    }

    // spec: NODE-6
    #[tokio::test]
    async fn messages_that_are_too_long_or_malformed_end_it() {
        let long = format!("{{\"id\":1,\"ok\":{{}},\"x\":\"{}\"}}\n", "a".repeat(70_000));
        assert!(conversed(&[&long]).await.0.unwrap_err().contains("at most 65536 bytes"));
        assert!(conversed(&["nonsense\n"]).await.0.unwrap_err().contains("no message"));
        assert_eq!(conversed(&[RUNNING]).await.0, Ok(None));
    }

    // spec: NODE-6
    #[tokio::test]
    async fn a_launcher_speaks_for_the_pod_of_its_folder_only() {
        let lie =
            RUNNING.replace("\"name\"", "\"podUid\":\"00000000-0000-0000-0000-000000000000\",\"uuid\":\"x\",\"name\"");
        let report = conversed(&[&lie]).await.1.unwrap();
        assert_eq!(report.pod_uid.as_str(), super::super::folder::tests::POD);
    }

    // spec: NODE-8
    #[tokio::test]
    async fn a_request_is_answered_by_the_launcher_and_a_silent_one_is_an_error() {
        let (folder, pod, volume) = kubelet();
        let done = "{\"id\":1,\"ok\":{}}\n".to_owned();
        let refused = "{\"id\":1,\"error\":\"the machine is \\u001bpaused already\"}\n".to_owned();
        let script = vec![
            vec![done],
            vec![refused],
            vec!["{\"event\":{\"type\":\"paused\"}}\n".to_owned()],
            vec![String::new()],
        ];
        let thread = launcher(&volume, script);
        let request = Request::new(1, Verb::Pause);
        let mut answers = Vec::new();
        for _ in 0..4 {
            answers.push(ask(folder.path(), &pod, &request).await);
        }
        thread.join().unwrap();
        assert_eq!(answers[0], Ok(Answer::Ok { id: 1.into(), ok: Report::Done {} }));
        assert_eq!(answers[1], Ok(Answer::Error { id: 1.into(), error: "the machine is paused already".to_owned() }));
        assert!(answers[2].as_ref().unwrap_err().contains("something else"));
        assert!(answers[3].as_ref().unwrap_err().contains("without an answer"));
        let gone = "00000000-1e0b-4b7c-9d1a-0c5b6a7d8e9f".parse().unwrap();
        assert!(ask(folder.path(), &gone, &request).await.unwrap_err().starts_with("control.sock: "));
    }

    #[tokio::test]
    async fn a_killed_launcher_is_a_problem_and_an_outcome_is_the_end() {
        let (folder, pod, volume) = kubelet();
        let reports = Arc::new(Reports::new("node1"));
        drop(UnixListener::bind(volume.join("control.sock")).unwrap());
        let task = tokio::spawn(follow(folder.path().to_owned(), pod.clone(), Arc::clone(&reports)));
        let mut sent = std::collections::BTreeMap::new();
        let mut changes = reports.changes();
        changes.changed().await.unwrap();
        assert!(reports.unsent(&mut sent)[0].problem.as_ref().unwrap().contains("refused"));
        Outcome::failed("no disk".to_owned()).write(&volume).unwrap();
        timeout(PATIENCE, task).await.unwrap().unwrap();
        let report = reports.unsent(&mut sent).remove(0);
        assert_eq!((report.outcome.unwrap().reason.as_str(), report.problem), ("no disk", None));
    }
}
