//! Agents and controllers of two releases: what an earlier agent sent, kept in `earlier/` as it was sent. A file there is added
//! with a release and never changed.

use node_protocol::Line;

const EARLIER: &str = include_str!("earlier/launchers-0.1.txt");

// spec: OPS-7
#[test]
fn the_stream_of_an_earlier_agent_is_understood() {
    let lines: Vec<_> = EARLIER.lines().map(|line| Line::parse(line.as_bytes()).unwrap()).collect();
    let [
        Line::Report(running),
        Line::Synced { synced: true },
        Line::Report(ended),
        Line::Report(silent),
        Line::Report(gone),
    ] = &lines[..]
    else {
        panic!("{lines:#?}")
    };
    assert!(running.status.is_some() && ended.outcome.is_some() && silent.problem.is_some() && gone.is_gone());
}

// spec: OPS-7
#[test]
fn an_earlier_controller_finds_in_the_stream_what_it_reads() {
    let now = include_str!("golden/launchers.txt");
    let fields = |line: &str| -> Vec<String> {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object().unwrap().keys().cloned().collect()
    };
    for (earlier, now) in EARLIER.lines().zip(now.lines()) {
        let (earlier, now) = (fields(earlier), fields(now));
        assert!(earlier.iter().all(|field| now.contains(field)), "{earlier:?} {now:?}");
    }
}
