//! The process that explains one network: its limits, as the kernel shows and enforces them.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

const SIGALRM: i32 = 14;

/// Asks until there is an answer, for ten times as long as the child may live.
fn wait_for<T>(ask: impl FnMut() -> Option<T>) -> Option<T> {
    const PERIOD: Duration = Duration::from_millis(20);
    std::iter::repeat_with(ask).take(4500).find_map(|answer| {
        if answer.is_none() {
            std::thread::sleep(PERIOD);
        }
        answer
    })
}

// spec: EXPL-20
#[test]
fn a_child_without_a_task_ends_in_time_and_has_a_limit_of_memory() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapvisor-node"));
    let mut child = command.arg("explain-one").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Open until the end: the task never comes.
    let task = child.stdin.take().unwrap();
    let limits = format!("/proc/{}/limits", child.id());
    let limited = wait_for(|| {
        let limits = std::fs::read_to_string(&limits).unwrap();
        let data = limits.lines().find(|line| line.starts_with("Max data size")).unwrap().to_owned();
        let is_set = data.split_whitespace().filter(|word| *word == (96 << 20).to_string()).count() == 2;
        is_set.then_some(())
    });
    assert!(limited.is_some(), "no limit of memory");
    let ended = wait_for(|| child.try_wait().unwrap()).expect("the child ends in time");
    assert_eq!(ended.signal(), Some(SIGALRM), "{ended}");
    drop(task);
}
