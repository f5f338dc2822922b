//! Asks all launchers of the node what their machines have used.

use std::time::Duration;

use futures_util::StreamExt as _;
use node_protocol::{LauncherCounters, NodeCounters, PodUid};
use protocol::control::{Answer, Report, Request, Verb};

use super::{Launchers, Reports};

/// How long all of them may take: a scrape waits for it.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many are asked at once.
const AT_ONCE: usize = 16;

/// The counters of every launcher that answers in time. One that hangs costs its own counters alone.
pub(crate) async fn of_all(reports: &Reports, launchers: &Launchers) -> NodeCounters {
    let asked = futures_util::stream::iter(reports.answering()).map(|pod| of(pod, launchers)).buffer_unordered(AT_ONCE);
    let launchers = asked.filter_map(std::future::ready).collect().await;
    NodeCounters { launchers }
}

async fn of(pod_uid: PodUid, launchers: &Launchers) -> Option<LauncherCounters> {
    let request = Request::new(1, Verb::Counters);
    match tokio::time::timeout(PATIENCE, launchers.ask(&pod_uid, &request)).await {
        Ok(Ok(Answer::Ok { ok: Report::Counters { counters }, .. })) => {
            Some(LauncherCounters { pod_uid, counters: *counters })
        }
        other => {
            tracing::debug!(pod = pod_uid.as_str(), ?other, "a launcher answers without counters");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    use protocol::control::{State, Status};

    use super::super::folder::tests::kubelet;
    use super::*;

    // spec: OPS-1
    #[tokio::test]
    async fn a_launcher_without_counters_is_missing_and_one_with_is_not() {
        let (folder, pod, volume) = kubelet();
        let listener = UnixListener::bind(volume.join("control.sock")).unwrap();
        let answers =
            ["{\"id\":1,\"error\":\"unknown verb\"}\n", "{\"id\":1,\"ok\":{\"counters\":{\"memoryBytes\":7}}}\n"];
        let launcher = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut asked = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
                assert!(asked.contains("\"verb\":\"counters\""), "{asked}");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let (reports, launchers) = (Reports::new("node1"), Launchers::new(folder.path().to_owned()));
        assert_eq!(of_all(&reports, &launchers).await, NodeCounters::default(), "no launcher is known yet");
        reports.update(&pod, |report| report.status = Some(Status::new(State::Running)));
        assert_eq!(of_all(&reports, &launchers).await, NodeCounters::default());
        let counted = of_all(&reports, &launchers).await.launchers;
        let counted: Vec<_> = counted.iter().map(|one| (one.pod_uid.clone(), one.counters.memory_bytes)).collect();
        assert_eq!(counted, [(pod, 7)]);
        launcher.join().unwrap();
    }
}
