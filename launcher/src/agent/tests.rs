//! The agent from the launcher's side: with guests that answer, refuse, are silent or make no sense.

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use machine::{Content, FileSet, SshKeys};
use protocol::agent::Execute;
use protocol::control::Request;
use serde_json::{Value, json};

use super::fake::{agent, honest};
use super::*;

/// An agent's answers by command, and what the launcher is told.
fn started(stream: UnixStream, used: AgentUse) -> (Agent, Receiver<News>) {
    let (tell, news) = mpsc::channel();
    let agent = Agent::start(stream, used, move |news| tell.send(news).is_ok()).unwrap();
    (agent, news)
}

fn answer(command: &str, _: &Value) -> Value {
    json!({"return": match command {
        "guest-info" => json!({"version": "7.2.22", "supported_commands": [{"name": "guest-ping", "enabled": true}]}),
        "guest-get-osinfo" => json!({"id": "debian", "version-id": "12"}),
        "guest-network-get-interfaces" => json!([{"name": "eth0", "hardware-address": "02:00:00:00:00:11", "ip-addresses": [{"ip-address": "10.0.2.2"}]}]),
        "guest-fsfreeze-status" => json!("thawed"),
        "guest-get-users" => json!([{"user": "fedora", "login-time": 1.5}]),
        "guest-exec" => json!({"pid": 7}),
        "guest-exec-status" => json!({"exited": true, "exitcode": 3, "err-data": "bm8K"}),
        _ => json!({}),
    }})
}

fn until(agent: &Agent, news: &Receiver<News>, what: impl Fn(&AgentStatus) -> bool) -> AgentStatus {
    loop {
        let status = agent.status();
        if what(&status) {
            return status;
        }
        news.recv_timeout(Duration::from_secs(20)).expect("no news of the agent");
    }
}

/// The answer to a request, as its line.
fn asked(agent: &Agent, request: Request) -> Value {
    let (call, mut lines) = Call::of(request);
    assert!(agent.ask(call).is_none());
    for _ in 0..1000 {
        if let Some(line) = lines.next() {
            return serde_json::from_str(&line).unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no answer")
}

fn verb(verb: Verb) -> Request {
    Request::new(1, verb)
}

// spec: AGENT-1
#[test]
fn an_agent_that_opens_its_end_is_asked_and_its_answers_are_known() {
    let (stream, _guest) = honest(answer);
    let (agent, news) = started(stream, AgentUse::default());
    assert_eq!(asked(&agent, verb(Verb::AgentPing))["error"], "no guest agent is connected");
    agent.on_running(true);
    agent.on_port(true);
    let status = until(&agent, &news, |status| status.connected);
    assert_eq!((status.version.as_str(), status.frozen, status.credentials), ("7.2.22", false, None));
    assert_eq!((status.os.unwrap().id.as_str(), status.interfaces[0].name.as_str()), ("debian", "eth0"));
    assert!(status.lacks.contains(&"guest-shutdown".to_owned()) && !status.lacks.contains(&"guest-ping".to_owned()));
    assert_eq!(asked(&agent, verb(Verb::AgentPing))["ok"], json!({}));
    let info = asked(&agent, verb(Verb::AgentInfo));
    assert_eq!(info["ok"]["guest"]["users"], json!([{"userName": "fedora", "loginTime": 1.5}]));
    agent.on_port(false);
    let status = until(&agent, &news, |status| !status.connected);
    assert!(status.interfaces.is_empty() && status.os.is_some(), "the system is the same, its addresses are not known");
}

// spec: AGENT-4
#[test]
fn file_systems_are_thawed_at_the_end_of_their_time_and_status_says_it() {
    let (seen, commands) = mpsc::channel();
    let mut is_frozen = false;
    let (stream, _guest) = honest(move |command, arguments| {
        match command {
            "guest-fsfreeze-freeze" => is_frozen = true,
            "guest-fsfreeze-thaw" => is_frozen = false,
            "guest-fsfreeze-status" if is_frozen => return json!({"return": "frozen"}),
            _ => return answer(command, arguments),
        }
        seen.send(command.to_owned()).unwrap();
        json!({"return": 1})
    });
    let (agent, news) = started(stream, AgentUse::default());
    agent.on_running(true);
    agent.on_port(true);
    until(&agent, &news, |status| status.connected);
    let freeze = Request { unfreeze_seconds: Some(1), ..verb(Verb::Freeze) };
    for _ in 0..2 {
        assert_eq!(asked(&agent, freeze.clone())["ok"], json!({}));
        until(&agent, &news, |status| status.frozen);
    }
    until(&agent, &news, |status| !status.frozen);
    assert_eq!(asked(&agent, verb(Verb::Unfreeze))["ok"], json!({}));
    assert_eq!(commands.try_iter().collect::<Vec<_>>(), ["guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]);
}

// spec: AGENT-5
#[test]
fn a_program_in_the_guest_is_waited_for_with_its_code_and_output() {
    let (stream, _guest) = honest(answer);
    let (agent, _news) = started(stream, AgentUse::default());
    agent.on_running(true);
    agent.on_port(true);
    let execute = |timeout_seconds| {
        let command = vec!["/bin/false".to_owned(), "--no".to_owned()];
        Request { execute: Some(Execute { command, timeout_seconds }), ..verb(Verb::AgentExecute) }
    };
    assert_eq!(asked(&agent, execute(5))["ok"]["executed"], json!({"exitCode": 3, "output": "no\n"}));
    assert_eq!(asked(&agent, verb(Verb::AgentExecute))["error"], "execute: required by the verb agentExecute");
    agent.on_running(false);
    assert_eq!(asked(&agent, execute(5))["error"], "the machine is paused: resume it first");
}

#[test]
fn a_program_that_does_not_end_in_time_fails_and_delays_no_others() {
    let (stream, _guest) = honest(|command, arguments| match command {
        "guest-exec-status" => json!({"return": {"exited": false}}),
        _ => answer(command, arguments),
    });
    let (agent, _news) = started(stream, AgentUse::default());
    agent.on_running(true);
    agent.on_port(true);
    let execute = Execute { command: vec!["sleep".to_owned()], timeout_seconds: 1 };
    let (call, mut lines) = Call::of(Request { execute: Some(execute), ..verb(Verb::AgentExecute) });
    assert!(agent.ask(call).is_none());
    assert_eq!(asked(&agent, verb(Verb::AgentPing))["ok"], json!({}));
    assert!(lines.next().is_none(), "answered before its time");
    std::thread::sleep(Duration::from_millis(1500));
    assert!(lines.next().unwrap().contains("the program did not end in time"));
}

// spec: AGENT-3
#[test]
fn a_reboot_that_the_agent_cannot_do_comes_back_for_the_power_button() {
    let (stream, _guest) = honest(|command, arguments| match command {
        "guest-shutdown" => json!({"error": {"desc": "no /sbin/shutdown"}}),
        _ => answer(command, arguments),
    });
    let (agent, news) = started(stream, AgentUse::default());
    let (call, _) = Call::of(verb(Verb::Reboot));
    let call = agent.ask(call).expect("no agent could reboot it");
    agent.on_running(true);
    agent.on_port(true);
    assert!(agent.ask(call).is_none());
    while !matches!(news.recv_timeout(Duration::from_secs(20)).unwrap(), News::NotRebooted(_)) {}
}

// spec: AGENT-2
#[test]
fn a_silent_guest_and_one_of_wrong_types_leave_requests_with_an_answer() {
    let (stream, _guest) = agent(|_, _| Vec::new());
    let (silent, _news) = started(stream, AgentUse::default());
    silent.on_running(true);
    silent.on_port(true);
    let answer = asked(&silent, verb(Verb::AgentPing));
    assert!(
        answer["error"].as_str().unwrap().contains("does not answer")
            || answer["error"] == "the guest agent is busy with earlier requests"
    );
    assert!(!silent.status().connected);
    let (stream, _guest) = honest(|_, _| json!({"return": [7, {"exited": "no", "pid": "x"}]}));
    let (odd, news) = started(stream, AgentUse::default());
    odd.on_running(true);
    odd.on_port(true);
    let freeze = asked(&odd, verb(Verb::Freeze));
    assert_eq!(freeze["error"], "the guest agent's answer to guest-fsfreeze-status is not understood");
    drop((odd, news));
}

// spec: AGENT-6
#[test]
fn credentials_that_the_guest_has_are_in_the_status() {
    let (stream, _guest) = honest(answer);
    let files = FileSet::Listed([("key".to_owned(), Content::Bytes(b"ssh-ed25519 A".to_vec()))].into());
    let used = AgentUse { ssh_keys: vec![SshKeys { users: vec!["fedora".to_owned()], files }], ..AgentUse::default() };
    let (agent, news) = started(stream, used);
    agent.on_running(true);
    agent.on_port(true);
    let status = until(&agent, &news, |status| status.credentials.is_some());
    assert!(status.credentials.unwrap().synchronized);
    assert!(status.lacks.contains(&"guest-ssh-add-authorized-keys".to_owned()));
}
