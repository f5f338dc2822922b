//! A supervisor with a pod that is made up and a launcher that is a shell script.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::run_strategy::{FinalPhase, RunStrategy};

use super::*;
use crate::child::Child;
use crate::fixtures::{key, owner, status};
use crate::layout::Layout;
use crate::network::Wired;
use crate::protocol::{Report, Request};
use crate::record::{Attachments, OnHost, Phase};
use crate::store::{HostLock, NewVm};

/// Counts what is asked of it; its launcher is `sh -c script` in the launcher's folder.
#[derive(Debug, Clone)]
struct FakePod {
    script: &'static str,
    folder: PathBuf,
    attaching: Duration,
    /// How long an update of Services takes.
    serving: Duration,
    /// Whether links are followed, by a netlink socket for each run.
    follows: bool,
    launched: Arc<AtomicUsize>,
    detached: Arc<AtomicUsize>,
}

impl Pod for FakePod {
    fn attach(&self) -> Result<Wired, StartFailure> {
        std::thread::sleep(self.attaching);
        Ok(Wired::default())
    }

    fn detach(&self) -> Result<(), String> {
        self.detached.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn launch(&self) -> Result<Child, StartFailure> {
        self.launched.fetch_add(1, Ordering::SeqCst);
        let mut command = std::process::Command::new("sh");
        let started = command.args(["-c", self.script]).current_dir(&self.folder).spawn();
        let pid = started.map(|child| nix::unistd::Pid::from_raw(child.id().cast_signed()));
        pid.and_then(Child::of).map_err(|error| StartFailure::failed(error.to_string()))
    }

    fn follow_links(&self) -> Option<LinkWatch> {
        self.follows.then(|| links::follow_here(Vec::new()).unwrap())
    }

    fn serve(&self) {
        std::thread::sleep(self.serving);
    }

    fn release_host(&self, _: &HostLock) -> Result<(), StartFailure> {
        Ok(())
    }
}

/// Runs until the test has seen what it wanted to see, or it is asked to stop; no longer than half a minute, because a
/// test that fails leaves it behind.
const UNTIL_SEEN: &str =
    "n=0; until rm seen 2>/dev/null || [ -e stopped ] || [ $n = 1500 ]; do n=$((n + 1)); sleep 0.02; done";

/// The same, and then it is killed, once.
const KILLED_WHEN_SEEN: &str = "[ -e second ] && sleep 60; touch second; \
    n=0; until [ -e seen ] || [ $n = 1500 ]; do n=$((n + 1)); sleep 0.02; done; kill -9 $$";

/// A supervisor at work on a thread of its own, and the line to it.
struct Bench {
    _root: tempfile::TempDir,
    store: Store,
    pod: FakePod,
    line: UnixStream,
    thread: std::thread::JoinHandle<u8>,
}

fn bench(strategy: RunStrategy, kept: bool, script: &'static str) -> Bench {
    bench_with(|_| {}, None, strategy, kept, script)
}

/// With another pod, and a request that is sent before it begins.
fn bench_with(
    change: impl FnOnce(&mut FakePod),
    asked: Option<Request>,
    strategy: RunStrategy,
    kept: bool,
    script: &'static str,
) -> Bench {
    let root = tempfile::tempdir().unwrap();
    let store = Store::new(Layout::below(root.path()));
    let (key, host) = (key("web"), store.lock_host().unwrap());
    let status = Status { strategy, kept, grace_period_seconds: 1, ..status("web") };
    let new = NewVm {
        key: &key,
        status: &status,
        object: &serde_json::json!({}),
        machine: b"{}",
        wiring: b"{}",
        attachments: &Attachments::default(),
        owner: owner(),
    };
    let lock = store.create(&host, &new).unwrap();
    drop(host);
    let folder = store.layout().vm(&key).launcher_dir();
    let mut pod = FakePod {
        script,
        folder,
        attaching: Duration::ZERO,
        serving: Duration::ZERO,
        follows: false,
        launched: Arc::default(),
        detached: Arc::default(),
    };
    change(&mut pod);
    let (line, starter) = UnixStream::pair().unwrap();
    line.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    asked.into_iter().for_each(|request| say(&line, request));
    let parts = Parts { store: store.clone(), key, lock, pod: pod.clone(), clock: || 1, spread: 0.0 };
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Supervisor::new(parts).unwrap().run(Some(starter))).unwrap()
    });
    Bench { _root: root, store, pod, line, thread }
}

fn say(mut line: &UnixStream, request: Request) {
    line.write_all((serde_json::to_string(&request).unwrap() + "\n").as_bytes()).unwrap();
}

impl Bench {
    /// A launcher's control socket that reports a running guest and accepts every request.
    fn guest_runs(&self) {
        self.guest_says("{\"id\":1,\"ok\":{\"state\":\"running\"}}\n");
    }

    /// A launcher's control socket that answers so. Asked to stop the guest it makes the file `stopped`, and is gone.
    fn guest_says(&self, answer: &'static str) {
        let vm = self.store.layout().vm(&key("web"));
        let (path, stopped) = (vm.control_socket(), vm.launcher_dir().join("stopped"));
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, path, stopped) = (stream.unwrap(), path.clone(), stopped.clone());
                std::thread::spawn(move || {
                    for request in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                        if request.contains("stop") {
                            std::fs::remove_file(&path).unwrap();
                            std::fs::write(&stopped, "").unwrap();
                        }
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    /// Lets a launcher end that runs until something was seen.
    fn is_seen(&self) {
        std::fs::write(self.pod.folder.join("seen"), "").unwrap();
    }

    fn ask(&self, request: Request) {
        say(&self.line, request);
    }

    /// Everything that the supervisor reports.
    fn reports(&self) -> impl Iterator<Item = Report> + '_ {
        let lines = BufReader::with_capacity(1, &self.line).lines();
        lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap())
    }

    /// The next report that tells of an event.
    fn report(&self) -> Report {
        let mut events =
            self.reports().filter(|report| !matches!(report, Report::Progress { .. } | Report::Note { .. }));
        events.next().expect("the supervisor said nothing more")
    }

    /// Stops the guest and waits until nothing is left of the supervisor.
    fn end(self) {
        self.ask(Request::Stop { grace_seconds: Some(0), remove: true });
        self.thread.join().unwrap();
    }

    fn is_known(&self) -> bool {
        self.store.exists(&key("web"))
    }

    fn detached(&self) -> usize {
        self.pod.detached.load(Ordering::SeqCst)
    }
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let bench = bench(
        RunStrategy::Always,
        false,
        r#"echo '{"outcome":"failed","reason":"no engine","requested":false}' > outcome.json; exit 6"#,
    );
    assert_eq!(bench.report(), Report::Failed { exit_code: 6, message: "no engine".to_owned() });
    let (detached, known) = (bench.pod.detached.clone(), bench.store.clone());
    assert_eq!(bench.thread.join().unwrap(), 6);
    assert_eq!(detached.load(Ordering::SeqCst), 1);
    assert!(!known.exists(&key("web")));
}

#[test]
fn a_guest_that_no_name_server_is_known_for_is_told_of() {
    let bench = bench(RunStrategy::Always, true, "sleep 60");
    let noted = bench.reports().find_map(|report| if let Report::Note { text } = report { Some(text) } else { None });
    assert_eq!(
        noted.as_deref(),
        Some("no name server: neither manifest, network nor host names one that the VM could reach")
    );
    bench.end();
}

#[test]
fn a_guest_that_powers_off_is_started_again_until_it_is_stopped() {
    let bench = bench(RunStrategy::Always, true, UNTIL_SEEN);
    bench.guest_runs();
    assert_eq!(bench.report(), Report::Running);
    bench.is_seen();
    assert!(matches!(bench.report(), Report::Again { after_seconds: 0, .. }));
    assert_eq!(bench.report(), Report::Running);
    bench.ask(Request::Stop { grace_seconds: None, remove: false });
    let ended = bench.report();
    assert!(matches!(ended, Report::Ended { end: FinalPhase::Stopped, .. }), "{ended:?}");
    assert_eq!(bench.report(), Report::Done { phase: Phase::Stopped });
    let status = bench.store.status(&key("web")).unwrap();
    assert_eq!((status.strategy, status.on_host), (RunStrategy::Halted, OnHost::Absent));
    assert!(bench.pod.launched.load(Ordering::SeqCst) >= 2);
    assert_eq!(bench.detached(), 1, "a restart keeps the network");
}

#[test]
fn a_starter_that_dies_before_the_guest_runs_takes_everything_back() {
    let bench = bench(RunStrategy::Always, false, "trap '' TERM; sleep 60");
    while bench.pod.launched.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (store, detached) = (bench.store.clone(), bench.pod.detached.clone());
    drop(bench.line);
    assert_eq!(bench.thread.join().unwrap(), 130);
    assert_eq!(detached.load(Ordering::SeqCst), 1);
    assert!(!store.exists(&key("web")));
}

#[test]
fn an_attached_guest_is_removed_when_it_ends_and_kept_on_request() {
    let once = bench(RunStrategy::Once, false, UNTIL_SEEN);
    once.guest_runs();
    assert_eq!(once.report(), Report::Running);
    once.is_seen();
    assert!(matches!(once.report(), Report::Ended { end: FinalPhase::Succeeded, .. }));
    assert!(!once.is_known());

    let kept = bench(RunStrategy::Once, false, UNTIL_SEEN);
    kept.guest_runs();
    assert_eq!(kept.report(), Report::Running);
    kept.ask(Request::Keep);
    assert_eq!(kept.report(), Report::Done { phase: Phase::Running });
    kept.is_seen();
    assert!(matches!(kept.report(), Report::Ended { end: FinalPhase::Succeeded, .. }));
    assert_eq!(kept.store.status(&key("web")).unwrap().phase, Phase::Succeeded);
}

#[test]
fn a_killed_launcher_is_restarted_and_a_restart_answered_when_it_runs() {
    let bench = bench(RunStrategy::RerunOnFailure, true, KILLED_WHEN_SEEN);
    bench.guest_runs();
    assert_eq!(bench.report(), Report::Running);
    bench.is_seen();
    let Report::Again { reason, after_seconds: 0 } = bench.report() else { panic!("not again") };
    assert!(reason.contains("SIGKILL"), "{reason}");
    assert_eq!(bench.report(), Report::Running);
    bench.ask(Request::Stop { grace_seconds: Some(0), remove: true });
    // The fake control socket accepts the request and the guest does not end: the launcher is killed in the end.
    assert!(matches!(bench.report(), Report::Ended { .. }));
    assert!(!bench.is_known());
}

/// No longer than half a minute: a test that fails leaves it behind.
const UNTIL_STOPPED: &str = "n=0; until [ -e stopped ] || [ $n = 1500 ]; do n=$((n + 1)); sleep 0.02; done";

/// Runs until it is asked to stop, and the second time not at all.
const ONCE_AND_NEVER_AGAIN: &str = r#"
    [ -e second ] && { echo '{"outcome":"failed","reason":"no disk","requested":false}' > outcome.json; exit 3; }
    touch second; n=0; until [ -e stopped ] || [ $n = 1500 ]; do n=$((n + 1)); sleep 0.02; done"#;

// spec: RUN-14
#[test]
fn a_restart_during_attach_is_answered_when_the_guest_runs() {
    let asked = Request::Restart { grace_seconds: None };
    let bench = bench_with(
        |pod| pod.attaching = Duration::from_millis(300),
        Some(asked),
        RunStrategy::Always,
        true,
        UNTIL_STOPPED,
    );
    bench.guest_runs();
    assert_eq!(bench.report(), Report::Running);
    assert_eq!(bench.report(), Report::Done { phase: Phase::Running });
    assert_eq!(bench.store.status(&key("web")).unwrap().phase, Phase::Running);
    assert_eq!(bench.pod.launched.load(Ordering::SeqCst), 1, "it had not begun: there is nothing to start again");
    bench.end();
}

// spec: RUN-14
#[test]
fn a_restart_that_fails_says_why_and_a_stop_ends_the_retries() {
    let bench = bench(RunStrategy::Always, true, ONCE_AND_NEVER_AGAIN);
    bench.guest_runs();
    assert_eq!(bench.report(), Report::Running);
    bench.ask(Request::Restart { grace_seconds: None });
    assert!(matches!(bench.report(), Report::Again { after_seconds: 0, .. }));
    assert_eq!(bench.report(), Report::Again { reason: "no disk".to_owned(), after_seconds: 10 });
    assert_eq!(bench.report(), Report::Refused { message: "no disk; starting again in 10 s".to_owned() });
    assert_eq!(bench.store.status(&key("web")).unwrap().phase, Phase::CrashLoopBackOff);
    bench.ask(Request::Stop { grace_seconds: None, remove: false });
    assert!(matches!(bench.report(), Report::Ended { end: FinalPhase::Stopped, .. }));
    assert_eq!(bench.report(), Report::Done { phase: Phase::Stopped });
    assert_eq!(bench.store.status(&key("web")).unwrap().strategy, RunStrategy::Halted);
}

// spec: RUN-14
#[test]
fn a_restart_whose_guest_is_not_tried_again_says_why() {
    let bench = bench(RunStrategy::Manual, true, ONCE_AND_NEVER_AGAIN);
    bench.guest_runs();
    assert_eq!(bench.report(), Report::Running);
    bench.ask(Request::Restart { grace_seconds: None });
    assert!(matches!(bench.report(), Report::Again { .. }));
    assert_eq!(bench.report(), Report::Ended { end: FinalPhase::Failed, reason: Some("no disk".to_owned()) });
    assert_eq!(bench.report(), Report::Refused { message: "it has ended: no disk".to_owned() });
}

// spec: RUN-13
#[test]
fn a_guest_paused_by_a_disk_is_reported_and_kept_with_the_disks_reason() {
    let paused = bench(RunStrategy::Always, false, UNTIL_STOPPED);
    paused.guest_says("{\"id\":1,\"ok\":{\"state\":\"paused\"}}\n");
    assert_eq!(paused.report(), Report::Paused { reason: None });
    let status = paused.store.status(&key("web")).unwrap();
    assert_eq!((status.phase, status.ready, status.running_since_unix_seconds), (Phase::Paused, false, None));
    paused.end();

    let full = bench(RunStrategy::Always, false, UNTIL_STOPPED);
    full.guest_says(concat!(
        r#"{"event":{"type":"diskFailed","disk":"root","reason":"No space left on device","paused":true}}"#,
        "\n",
        r#"{"event":{"type":"paused"}}"#,
        "\n"
    ));
    let reason = Some("disk root: No space left on device".to_owned());
    assert_eq!(full.report(), Report::Paused { reason: reason.clone() });
    assert_eq!(full.store.status(&key("web")).unwrap().reason, reason);
    full.end();
}

// spec: RUN-4
#[test]
fn a_full_disk_ends_no_guest_and_the_status_is_written_when_there_is_room() {
    let bench = bench(RunStrategy::Once, false, UNTIL_STOPPED);
    let path = bench.store.layout().vm(&key("web")).status();
    // A folder where the new status is written: as good as a full disk, also for root.
    let in_the_way = path.with_file_name("status.json.new");
    while bench.pod.launched.load(Ordering::SeqCst) == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    while std::fs::create_dir(&in_the_way).is_err() {
        // It was just being written.
        std::thread::sleep(Duration::from_millis(1));
    }
    bench.guest_runs();
    assert_eq!(bench.report(), Report::Running);
    bench.ask(Request::Keep);
    let Report::Refused { message } = bench.report() else { panic!("kept") };
    assert!(message.contains("cannot write"), "{message}");
    bench.ask(Request::Ping);
    assert_eq!(bench.report(), Report::Alive);
    std::fs::remove_dir(&in_the_way).unwrap();
    while bench.store.status(&key("web")).unwrap().phase != Phase::Running {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(bench.store.status(&key("web")).unwrap().kept, "what was refused is made up for");
    assert_eq!(bench.pod.launched.load(Ordering::SeqCst), 1);
    bench.end();
}

// spec: RUN-5
#[test]
fn services_that_take_their_time_hold_up_no_request() {
    let slow = |pod: &mut FakePod| pod.serving = Duration::from_secs(20);
    let bench = bench_with(slow, None, RunStrategy::Always, true, UNTIL_STOPPED);
    bench.guest_runs();
    while bench.store.status(&key("web")).unwrap().phase != Phase::Running {
        std::thread::sleep(Duration::from_millis(5));
    }
    bench.line.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    bench.ask(Request::Ping);
    assert_eq!(bench.report(), Report::Alive);
    bench.ask(Request::Stop { grace_seconds: Some(0), remove: false });
    assert_eq!(bench.report(), Report::Running);
    assert!(matches!(bench.report(), Report::Ended { end: FinalPhase::Stopped, .. }));
    assert_eq!(bench.report(), Report::Done { phase: Phase::Stopped });
}

/// Runs the test `name` again in a process of its own that may have 64 descriptors, and expects it to pass. Returns whether
/// this is that process.
fn has_few_descriptors(name: &str) -> bool {
    const INSIDE: &str = "TAPVISOR_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let run = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("{module}::{name}")])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && output.contains("1 passed"), "{output}");
    print!("{output}");
    false
}

// spec: RUN-7
#[test]
fn sixty_restarts_with_64_descriptors_leave_descriptors_and_memory_flat() {
    let name = "sixty_restarts_with_64_descriptors_leave_descriptors_and_memory_flat";
    if !has_few_descriptors(name) {
        return;
    }
    let follows = |pod: &mut FakePod| pod.follows = true;
    let bench = bench_with(follows, None, RunStrategy::Always, true, "sleep 0.1");
    bench.guest_runs();
    let after = |restarts| {
        let mut runs = bench.reports().filter(|report| *report == Report::Running);
        while bench.pod.launched.load(Ordering::SeqCst) <= restarts {
            runs.next().expect("it runs again");
        }
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        println!("after {restarts} restarts: {descriptors} descriptors, {} KiB resident", pages * 4);
        (descriptors, pages * 4)
    };
    let (early, late) = (after(10), after(60));
    // A run that ends while the next begins has a few of its own.
    assert!(late.0 <= early.0 + 8, "{early:?} {late:?}");
    assert!(late.1 <= early.1 + 2048, "{early:?} {late:?}");
    bench.end();
}
