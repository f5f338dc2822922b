//! The status of an instance as it is put together: each change keeps the times that clients watch.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use protocol::agent::{AgentStatus, BASIC_COMMANDS, CredentialsStatus, PASSWORD_COMMAND};

use super::launch::LAUNCHER_ID;
use crate::objects::{Condition, InstanceStatus, InterfaceStatus, Phase, PhaseTransition};

/// A status and the time of the changes to it.
pub(super) struct StatusWriter {
    status: InstanceStatus,
    now: Timestamp,
}

impl StatusWriter {
    pub(super) fn new(status: InstanceStatus, now: Timestamp) -> Self {
        Self { status, now }
    }

    pub(super) fn into_status(self) -> InstanceStatus {
        self.status
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        self.status.phase
    }

    pub(super) fn since(&self, earlier: Timestamp) -> Duration {
        self.now.duration_since(earlier).try_into().unwrap_or_default()
    }

    pub(super) fn until(&self, later: Timestamp) -> Duration {
        later.duration_since(self.now).try_into().unwrap_or_default()
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        if self.status.phase != Some(phase) {
            self.status.phase = Some(phase);
            let phase_transition_timestamp = Time(self.now);
            self.status.phase_transition_timestamps.push(PhaseTransition { phase, phase_transition_timestamp });
        }
    }

    /// Takes over node, quality of service and identity of a pod that has a node.
    pub(super) fn place(&mut self, pod: &Pod) {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { return };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.status.active_pods = [(uid, node.clone())].into();
        self.status.qos_class = pod.status.as_ref().and_then(|status| status.qos_class.clone());
        self.status.runtime_user = Some(i64::from(LAUNCHER_ID));
        self.status.node_name = Some(node);
    }

    /// The guest's NICs.
    pub(super) fn interfaces(&mut self, interfaces: Vec<InterfaceStatus>) {
        self.status.interfaces = interfaces;
    }

    /// What the guest's agent says. What it said last of the operating system stays when it is gone.
    pub(super) fn agent(&mut self, agent: &AgentStatus) {
        if let Some(os) = &agent.os {
            self.status.guest_os_info = Some(os.clone());
        }
        self.status.fs_freeze_status = agent.frozen.then(|| "frozen".to_owned());
        match agent.connected {
            true => self.condition("AgentConnected", "True", "", ""),
            false => self.remove_conditions(&["AgentConnected"]),
        }
        match lacking(agent) {
            Some(why) => self.condition("AgentVersionNotSupported", "True", why, &agent.lacks.join(", ")),
            None => self.remove_conditions(&["AgentVersionNotSupported"]),
        }
        if let Some(CredentialsStatus { synchronized, message }) = &agent.credentials {
            let status = if *synchronized { "True" } else { "False" };
            self.condition("AccessCredentialsSynchronized", status, "", message);
        }
    }

    /// Sets a condition; its time changes only with its status. Empty texts are left out.
    pub(super) fn condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let conditions = &mut self.status.conditions;
        let earlier = conditions.iter().position(|condition| condition.kind == kind);
        let since = earlier
            .filter(|at| conditions[*at].status == status)
            .and_then(|at| conditions[at].last_transition_time.clone());
        let condition = Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: text(reason),
            message: text(message),
            last_transition_time: Some(since.unwrap_or(Time(self.now))),
        };
        match earlier {
            Some(at) => conditions[at] = condition,
            None => conditions.push(condition),
        }
    }

    /// The message of a condition that is `False` for a reason.
    pub(super) fn message(&self, kind: &str, reason: &str) -> Option<String> {
        let mut conditions = self.status.conditions.iter();
        let is_it = |condition: &&Condition| {
            condition.kind == kind && condition.status == "False" && condition.reason.as_deref() == Some(reason)
        };
        conditions.find(is_it)?.message.clone()
    }

    pub(super) fn remove_conditions(&mut self, kinds: &[&str]) {
        self.status.conditions.retain(|condition| !kinds.contains(&condition.kind.as_str()));
    }
}

/// Why an agent is not supported, as KubeVirt words it.
fn lacking(agent: &AgentStatus) -> Option<&'static str> {
    let lacks = |is_it: &dyn Fn(&str) -> bool| agent.lacks.iter().any(|command| is_it(command));
    if !agent.connected || agent.lacks.is_empty() {
        None
    } else if lacks(&|command| BASIC_COMMANDS.contains(&command)) {
        Some("This guest agent doesn't support required basic commands")
    } else if lacks(&|command| command == PASSWORD_COMMAND) {
        Some("This guest agent doesn't support required password commands")
    } else {
        Some("This guest agent doesn't support required public key commands")
    }
}
