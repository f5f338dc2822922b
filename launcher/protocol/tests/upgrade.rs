//! Launchers and their starters of two releases: what an earlier one wrote, kept in `earlier/` as it was written. A file there is
//! added with a release and never changed.

use protocol::control::{Answer, Event, Message, Report, Request, State};
use protocol::launch_file::LaunchFile;
use serde_json::Value;

const EARLIER: &str = include_str!("earlier/control-0.1.txt");
const NOW: &str = include_str!("golden/control.txt");
const EARLIER_FILE: &str = include_str!("earlier/launch-0.1.json");

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Whether `all` has every field of `part`, with the same values.
fn contains(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => {
            part.iter().all(|(key, part)| all.get(key).is_some_and(|all| contains(all, part)))
        }
        (Value::Array(all), Value::Array(part)) => {
            all.len() == part.len() && all.iter().zip(part).all(|(all, part)| contains(all, part))
        }
        _ => all == part,
    }
}

// spec: OPS-7
#[test]
fn messages_of_an_earlier_launcher_are_understood() {
    let [request, messages @ ..] = &lines(EARLIER)[..] else { panic!("no line") };
    assert_eq!(serde_json::from_value::<Request>(request.clone()).unwrap().grace_seconds, Some(3));
    let messages: Vec<Message> =
        messages.iter().map(|message| serde_json::from_value(message.clone()).unwrap()).collect();
    let is_unknown = |message: &&Message| matches!(message, Message::Event { event: Event::Unknown });
    assert_eq!(messages.iter().find(is_unknown), None);
    let status = messages.iter().find_map(|message| match message {
        Message::Answer(Answer::Ok { ok: Report::Status(status), .. }) => Some(status),
        _ => None,
    });
    let status = status.expect("an earlier launcher reports its status");
    let service = status.nics[0].service.as_ref().unwrap();
    assert_eq!((status.state, &*status.name, status.nics[0].mtu_bytes), (State::Running, "web", 1450));
    assert!(service.ipv4.as_ref().unwrap().leased && status.agent.as_ref().unwrap().connected);
}

// spec: OPS-7
#[test]
fn what_an_earlier_client_reads_is_still_written() {
    let now = lines(NOW);
    let missing: Vec<_> =
        lines(EARLIER).into_iter().filter(|earlier| !now.iter().any(|now| contains(now, earlier))).collect();
    assert!(missing.is_empty(), "no message of today has all of {missing:#?}");
}

// spec: OPS-7
#[test]
fn a_launch_file_of_an_earlier_starter_starts_the_same_machine() {
    let earlier = LaunchFile::parse(EARLIER_FILE.as_bytes()).unwrap();
    let now = LaunchFile::parse(include_bytes!("golden/launch.json")).unwrap();
    assert_eq!(earlier.machine.name, now.machine.name);
    assert_eq!(earlier.wiring, now.wiring);
}

#[test]
fn a_field_that_is_gone_or_differs_is_found() {
    let all = serde_json::json!({"a": {"b": [{"c": 1, "new": 2}]}, "new": 3});
    assert!(contains(&all, &serde_json::json!({"a": {"b": [{"c": 1}]}})));
    assert!(!contains(&all, &serde_json::json!({"a": {"b": [{"c": 2}]}})));
    assert!(!contains(&all, &serde_json::json!({"a": {"b": []}})));
    assert!(!contains(&all, &serde_json::json!({"old": 3})));
}
