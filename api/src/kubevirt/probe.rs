//! Probes: how the guest's readiness and liveness are asked for.

use std::time::Duration;

use terms::Protocol;

use super::texts::is_port_name;
use super::{Network, Nic};
use crate::reader::{Fields, Node};

/// A question asked at intervals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub action: ProbeAction,
    /// Time from the start to the first question.
    pub initial_delay: Duration,
    /// Time between questions.
    pub period: Duration,
    /// Time to wait for an answer.
    pub timeout: Duration,
    /// Good answers in a row that make it succeed.
    pub success_threshold: u32,
    /// Bad answers in a row that make it fail.
    pub failure_threshold: u32,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAction {
    /// Whether a TCP connection is accepted.
    TcpSocket {
        /// The host, if it is not the machine.
        host: Option<String>,
        /// The port.
        port: u16,
    },
    /// Whether an HTTP GET is answered with a status from 200 to 399.
    HttpGet {
        /// The host, if it is not the machine.
        host: Option<String>,
        /// The port.
        port: u16,
        /// With or without TLS.
        scheme: Scheme,
        /// Path and query, with a `/` at its start.
        path: String,
        /// Extra headers.
        headers: Vec<(String, String)>,
    },
    /// Whether a program in the guest ends with code 0, executed by the guest's agent.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// Whether the guest's agent answers.
    AgentPing,
}

impl ProbeAction {
    /// Whether the guest's agent is asked, and not the network.
    #[must_use]
    pub fn is_by_agent(&self) -> bool {
        matches!(self, Self::Exec { .. } | Self::AgentPing)
    }
}

/// Scheme of an HTTP probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS, whose certificate is not checked.
    Https,
}

/// Reads a readiness probe; named ports are those of `nics`.
pub(super) fn read(node: &Node<'_>, nics: &[Nic]) -> Option<Probe> {
    let probe = node.fields(|fields| read_fields(fields, nics))??;
    if !probe.action.is_by_agent() && !nics.iter().any(|nic| matches!(nic.network, Network::Pod { .. })) {
        node.refuse("asks over the pod network, and no interface is on it");
        return None;
    }
    Some(probe)
}

/// Reads a liveness probe, which succeeds at the first good answer.
pub(super) fn read_liveness(node: &Node<'_>, nics: &[Nic]) -> Option<Probe> {
    let probe = read(node, nics)?;
    if probe.success_threshold != 1 {
        node.named("successThreshold").refuse("must be 1 for liveness");
        return None;
    }
    Some(probe)
}

fn read_fields(probe: &Fields<'_>, nics: &[Nic]) -> Option<Probe> {
    let given: Vec<_> = ["tcpSocket", "httpGet", "exec", "guestAgentPing"]
        .into_iter()
        .filter(|name| probe.field(name).is_some())
        .collect();
    match given.len() {
        1 => {}
        0 => probe.node().refuse("needs tcpSocket, httpGet, exec or guestAgentPing"),
        _ => probe.node().refuse(format!("asks more than one thing: {}", given.join(", "))),
    }
    let tcp = probe.field("tcpSocket").and_then(|node| node.fields(|tcp| read_tcp(tcp, nics))?);
    let http = probe.field("httpGet").and_then(|node| node.fields(|http| read_http(http, nics))?);
    let exec = probe.field("exec").and_then(|node| node.fields(read_exec)?);
    let ping = probe.field("guestAgentPing").and_then(|node| node.fields(|_| ProbeAction::AgentPing));
    let count =
        |name, low, default| probe.integer(name, low..=u32::try_from(i32::MAX).unwrap_or(u32::MAX)).unwrap_or(default);
    let seconds = |name, low, default| Duration::from_secs(count(name, low, default).into());
    // Kubernetes reads a zero as its default.
    let at_least_one =
        |duration: Duration, default| if duration.is_zero() { Duration::from_secs(default) } else { duration };
    let (initial_delay, period, timeout) =
        (seconds("initialDelaySeconds", 0, 0), seconds("periodSeconds", 0, 10), seconds("timeoutSeconds", 0, 1));
    let (success, failure) = (count("successThreshold", 0, 1), count("failureThreshold", 0, 3));
    Some(Probe {
        action: tcp.or(http).or(exec).or(ping)?,
        initial_delay,
        period: at_least_one(period, 10),
        timeout: at_least_one(timeout, 1),
        success_threshold: if success == 0 { 1 } else { success },
        failure_threshold: if failure == 0 { 3 } else { failure },
    })
}

fn read_tcp(tcp: &Fields<'_>, nics: &[Nic]) -> Option<ProbeAction> {
    let host = tcp.filled_text("host").map(str::to_owned);
    Some(ProbeAction::TcpSocket { host, port: read_port(&tcp.required("port")?, nics)? })
}

fn read_exec(exec: &Fields<'_>) -> Option<ProbeAction> {
    let command = exec.required("command")?;
    let words: Option<Vec<_>> = command.items().iter().map(|word| word.text().map(str::to_owned)).collect();
    if words.as_ref().is_some_and(Vec::is_empty) {
        command.refuse("needs a program");
    }
    Some(ProbeAction::Exec { command: words.filter(|words| !words.is_empty())? })
}

fn read_http(http: &Fields<'_>, nics: &[Nic]) -> Option<ProbeAction> {
    let host = http.filled_text("host").map(str::to_owned);
    let scheme = http.one_of("scheme", &[("HTTP", Scheme::Http), ("HTTPS", Scheme::Https)], &[]);
    let path = http.set("path").and_then(|node| read_path(&node)).unwrap_or_else(|| "/".to_owned());
    let headers = http.items("httpHeaders").iter().filter_map(|node| node.fields(read_header)?).collect();
    let port = read_port(&http.required("port")?, nics)?;
    Some(ProbeAction::HttpGet { host, port, scheme: scheme.unwrap_or(Scheme::Http), path, headers })
}

fn read_path(node: &Node<'_>) -> Option<String> {
    let path = node.text()?;
    if path.contains(|c: char| c.is_control() || c == ' ') {
        node.expected("without spaces and control characters");
    }
    Some(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

fn read_header(header: &Fields<'_>) -> Option<(String, String)> {
    let value = header.text("value").unwrap_or_default();
    let name = header.required("name")?;
    let text = name.text()?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || !text.bytes().all(token) {
        name.expected("an HTTP header's name");
    }
    if value.contains(['\r', '\n', '\0']) {
        // Without the value: headers carry passwords.
        header.node().named("value").refuse("must be one line");
    }
    Some((text.to_owned(), value.to_owned()))
}

fn read_port(node: &Node<'_>, nics: &[Nic]) -> Option<u16> {
    let Some(name) = node.value().as_str() else { return node.integer(1..=u16::MAX) };
    let ports = nics.iter().flat_map(|nic| &nic.ports);
    let found = ports.filter(|port| port.protocol == Protocol::Tcp).find(|port| port.name.as_deref() == Some(name));
    match found {
        Some(port) => Some(port.port),
        None if is_port_name(name) => {
            node.refuse(format!("no interface has a TCP port named {name:?}"));
            None
        }
        None => {
            node.expected("a number from 1 to 65535 or the name of a port");
            None
        }
    }
}
