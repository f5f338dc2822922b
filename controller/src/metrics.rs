//! What the program counts, in the text format of Prometheus.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The stream of a node agent, counted until this is dropped.
#[derive(Debug)]
pub(crate) struct AgentStream(Arc<Metrics>);

impl Drop for AgentStream {
    fn drop(&mut self) {
        self.0.agents.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counters of one replica.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    leading: AtomicBool,
    passes: AtomicU64,
    failed_passes: AtomicU64,
    agents: AtomicU64,
}

impl Metrics {
    /// Whether this replica holds the Lease.
    pub(crate) fn leading(&self, leads: bool) {
        self.leading.store(leads, Ordering::Relaxed);
    }

    /// One pass over an instance has ended.
    pub(crate) fn passed(&self, is_ok: bool) {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.failed_passes.fetch_add(u64::from(!is_ok), Ordering::Relaxed);
    }

    /// The stream of a node agent has said all that the agent knew.
    pub(crate) fn agent_stream(self: &Arc<Self>) -> AgentStream {
        self.agents.fetch_add(1, Ordering::Relaxed);
        AgentStream(Arc::clone(self))
    }

    /// All of them.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, value: u64| {
            // Writing to a String does not fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        };
        let leading = u64::from(self.leading.load(Ordering::Relaxed));
        add("tapvisor_controller_leading", "gauge", "Whether this replica holds the Lease.", leading);
        let (passes, failed) = (self.passes.load(Ordering::Relaxed), self.failed_passes.load(Ordering::Relaxed));
        add("tapvisor_controller_reconciliations_total", "counter", "Passes over instances.", passes);
        add("tapvisor_controller_reconciliation_errors_total", "counter", "Passes that failed.", failed);
        let agents = self.agents.load(Ordering::Relaxed);
        add("tapvisor_controller_node_agents", "gauge", "Node agents whose reports this replica follows.", agents);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_written_in_the_text_format() {
        let metrics = Arc::new(Metrics::default());
        let streams = [metrics.agent_stream(), metrics.agent_stream()];
        assert!(metrics.text().contains("\ntapvisor_controller_node_agents 2\n"));
        drop(streams);
        metrics.leading(true);
        metrics.passed(true);
        metrics.passed(false);
        let text = metrics.text();
        assert!(text.contains("# TYPE tapvisor_controller_leading gauge\ntapvisor_controller_leading 1\n"), "{text}");
        assert!(text.contains("\ntapvisor_controller_node_agents 0\n"), "{text}");
        assert!(text.contains("\ntapvisor_controller_reconciliations_total 2\n"), "{text}");
        assert!(text.contains("\ntapvisor_controller_reconciliation_errors_total 1\n"), "{text}");
    }
}
