//! The control socket's messages, one JSON object a line, for both ends.
//!
//! A client sends requests, each is answered by one [`Answer`]; after [`Verb::Events`] there are [`Message::Event`] lines as
//! well. The two ends may be of two releases: readers ignore fields that they do not know, and what was added after
//! [`VERSION`] 1 has a default.

use machine::WatchdogAction;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;

use crate::agent::{Execute, Executed, GuestInfo};
use crate::counters::Counters;
use crate::outcome::Outcome;
pub use crate::status::{
    Accelerator, ConfinementStatus, EngineKind, LeaseStatus, NicStatus, ServiceStatus, State, Status, VERSION,
};

/// The verb of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Reports the machine's state: [`Report::Status`].
    Status,
    /// Reports what the machine has used: [`Report::Counters`].
    Counters,
    /// Presses the power button once.
    Powerdown,
    /// Presses the power button; ends the machine by force after the grace period.
    Stop,
    /// Stops the processors until [`Verb::Resume`].
    Pause,
    /// Lets the processors run again.
    Resume,
    /// Resets the machine at once, without asking the guest.
    Reset,
    /// Reboots the guest by its agent; without one, presses the power button and resets the machine once the guest has shut down.
    Reboot,
    /// Succeeds if the guest's agent answers.
    AgentPing,
    /// Reports what the guest's agent says of the guest.
    AgentInfo,
    /// Executes a program in the guest, by its agent.
    AgentExecute,
    /// Freezes the guest's file systems, by its agent.
    Freeze,
    /// Thaws the guest's file systems, by its agent.
    Unfreeze,
    /// Gives the guest's link of a NIC a carrier, or takes it.
    SetLink,
    /// Sends every event from now on, one line each.
    Events,
}

/// One line from a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Request {
    /// Any value; the answer repeats it.
    #[serde(default)]
    pub id: Value,
    /// What the launcher is to do.
    pub verb: Verb,
    /// `stop` only: instead of the machine's own grace period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// `freeze` only: when the launcher thaws the file systems itself, if not before; 0 or absent is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfreeze_seconds: Option<u64>,
    /// `agentExecute` only: what is executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execute: Option<Execute>,
    /// `setLink` only: which link, and its carrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Link>,
}

/// A NIC's link and whether it has a carrier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Link {
    /// Name of the interface in the manifest.
    pub nic: String,
    /// Whether it has a carrier from now on.
    pub up: bool,
}

impl Request {
    /// A request with a number.
    #[must_use]
    pub fn new(id: u32, verb: Verb) -> Self {
        Self { id: id.into(), verb, grace_seconds: None, unfreeze_seconds: None, execute: None, link: None }
    }

    /// The request as it is sent.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        to_line(self)
    }
}

/// One line from the launcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// An event, for clients that sent [`Verb::Events`].
    Event {
        /// The event, tagged by its `type`.
        event: Event,
    },
    /// The answer to a request.
    Answer(Answer),
}

impl Message {
    /// The message as it is sent.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        to_line(self)
    }
}

fn to_line(message: &impl Serialize) -> Vec<u8> {
    // Nothing in these types refuses to be JSON: names are text and numbers are finite.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// The request was executed, or accepted where its end is an event.
    Ok {
        /// The id of the request; null if it had none.
        #[serde(default)]
        id: Value,
        /// The report for the verb.
        ok: Report,
    },
    /// The request was refused or has failed.
    Error {
        /// The id of the request; null if it had none or could not be read.
        #[serde(default)]
        id: Value,
        /// The reason, as a message for users.
        error: String,
    },
}

/// The report of an executed request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Report {
    /// Answer to [`Verb::Status`] and [`Verb::Events`]: the machine's state.
    Status(Box<Status>),
    /// Answer to [`Verb::AgentInfo`].
    Guest {
        /// What the agent says of its guest.
        guest: Box<GuestInfo>,
    },
    /// Answer to [`Verb::AgentExecute`].
    Executed {
        /// How the program ended in the guest, and what it wrote.
        executed: Executed,
    },
    /// Answer to [`Verb::Counters`].
    Counters {
        /// What the machine has used.
        counters: Box<Counters>,
    },
    /// For all other verbs: an empty object.
    Done {},
}

/// An event of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// The processors run, for the first time or again.
    Running,
    /// The processors are halted, by a request or after a disk failed.
    Paused,
    /// The machine was reset and boots again.
    Reset {
        /// `true` if the guest reset itself, `false` after [`Verb::Reset`].
        by_guest: bool,
    },
    /// The guest did not feed its watchdog in time.
    Watchdog {
        /// The action that the manifest gives the watchdog.
        action: WatchdogAction,
    },
    /// A disk could not be read or written.
    DiskFailed {
        /// The disk's name in the manifest.
        disk: String,
        /// The host's error, as text.
        reason: String,
        /// Whether the machine is halted until it is resumed.
        paused: bool,
    },
    /// The guest has a new or renewed lease.
    Lease {
        /// The NIC's name in the manifest.
        nic: String,
        /// The leased address, of either family.
        address: IpAddr,
    },
    /// The status has news of the guest's agent.
    Agent,
    /// A link has got its carrier or lost it, on request.
    Link {
        /// The NIC's name in the manifest.
        nic: String,
        /// Whether it has a carrier now.
        up: bool,
    },
    /// The machine has ended; the last event.
    Ended {
        /// How it ended; `None` if the engine did not report it.
        outcome: Option<Outcome>,
    },
    /// One that this release does not know.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use terms::IfName;

    use super::*;
    use crate::agent::{AgentStatus, CredentialsStatus, GuestInterface, GuestOs};
    use crate::counters::{NicCounters, ProcessCounters, TrafficCounters};
    use crate::outcome::Verdict;

    fn golden(messages: &[String]) {
        let text: String = messages.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(text, include_str!("../tests/golden/control.txt"));
    }

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }

    fn agent() -> AgentStatus {
        AgentStatus {
            connected: true,
            version: "7.2.22".to_owned(),
            lacks: vec!["guest-get-time".to_owned()],
            os: Some(GuestOs { id: "debian".to_owned(), version_id: "12".to_owned(), ..GuestOs::default() }),
            interfaces: vec![GuestInterface {
                name: "enp1s0".to_owned(),
                mac: "02:11:22:33:44:55".parse().unwrap(),
                addresses: vec![[10, 0, 2, 2].into()],
            }],
            frozen: true,
            credentials: Some(CredentialsStatus { synchronized: false, message: "no user".to_owned() }),
        }
    }

    fn counters() -> Counters {
        let received = TrafficCounters { bytes: 4242, packets: 42, dropped: 2, errors: 1 };
        let nic = NicCounters { name: "default".to_owned(), received, ..NicCounters::default() };
        let process = ProcessCounters { user_milliseconds: 1500, system_milliseconds: 20, resident_bytes: 6 << 20 };
        Counters { memory_bytes: 1 << 20, process: Some(process), nics: vec![nic] }
    }

    fn status() -> Status {
        let lease = LeaseStatus { address: [10, 0, 2, 2].into(), asked: 2, answered: 2, leased: true, grants: 1 };
        let service = ServiceStatus { ipv4: Some(lease), router_solicitations: 1, ..ServiceStatus::default() };
        let nic = NicStatus {
            tap: Some(name("k6t-eth0")),
            mtu_bytes: 1450,
            queues: 1,
            service: Some(service),
            ..NicStatus::new("default", "02:11:22:33:44:55".parse().unwrap())
        };
        Status {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            uuid: "5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f".to_owned(),
            engine: Some(EngineKind::Qemu(Accelerator::Tcg)),
            kvm: "/dev/kvm only interprets".to_owned(),
            nics: vec![nic],
            confinement: Some(ConfinementStatus { landlock: true, seccomp: true }),
            agent: Some(agent()),
            ..Status::new(State::Running)
        }
    }

    // spec: LAUNCH-2
    #[test]
    fn messages_have_the_documented_texts_and_read_back() {
        let stop = Request { grace_seconds: Some(3), ..Request::new(1, Verb::Stop) };
        let outcome = Outcome { outcome: Verdict::Crashed, reason: "panic".to_owned(), requested: false };
        let id = || Value::from(1);
        let events = [
            Event::Running,
            Event::Paused,
            Event::Reset { by_guest: true },
            Event::Watchdog { action: WatchdogAction::Poweroff },
            Event::DiskFailed { disk: "root".to_owned(), reason: "no room".to_owned(), paused: true },
            Event::Lease { nic: "default".to_owned(), address: [10, 0, 2, 2].into() },
            Event::Agent,
            Event::Link { nic: "default".to_owned(), up: false },
            Event::Ended { outcome: Some(outcome) },
        ];
        let executed = Executed { exit_code: 3, output: "no".to_owned() };
        let answers = [
            Answer::Ok { id: id(), ok: Report::Done {} },
            Answer::Error { id: id(), error: "the machine is paused already".to_owned() },
            Answer::Ok { id: id(), ok: Report::Status(Box::new(status())) },
            Answer::Ok { id: id(), ok: Report::Guest { guest: Box::default() } },
            Answer::Ok { id: id(), ok: Report::Executed { executed } },
            Answer::Ok { id: id(), ok: Report::Counters { counters: Box::new(counters()) } },
        ];
        let messages = answers.map(Message::Answer).into_iter();
        let messages: Vec<_> = messages.chain(events.map(|event| Message::Event { event })).collect();
        let lines: Vec<_> = messages.iter().map(|message| String::from_utf8(message.to_line()).unwrap()).collect();
        let read: Vec<Message> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, messages);
        let request = String::from_utf8(stop.to_line()).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&request).unwrap(), stop);
        let trimmed = |line: &String| line.trim_end().to_owned();
        golden(&std::iter::once(&request).chain(&lines).map(trimmed).collect::<Vec<_>>());
    }

    // spec: LAUNCH-2
    #[test]
    fn a_message_of_another_release_is_understood_as_far_as_it_is_known() {
        let read = |line: &str| serde_json::from_str::<Message>(line).unwrap();
        let later = read(r#"{"event":{"type":"migrated","to":"b"}}"#);
        assert_eq!(later, Message::Event { event: Event::Unknown });
        let Message::Answer(Answer::Ok { ok: Report::Status(status), .. }) =
            read(r#"{"id":2,"ok":{"state":"paused","later":1,"nics":[{"name":"a","mac":"02:00:00:00:00:01"}]}}"#)
        else {
            panic!("no status")
        };
        assert_eq!(
            (status.state, status.version, status.engine, status.nics[0].mtu_bytes),
            (State::Paused, 0, None, 0)
        );
        assert!(serde_json::from_str::<Request>(r#"{"id":1,"verb":"status","force":true}"#).is_err());
    }
}
