//! What the program counts, in the text format of Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

mod family;

pub(crate) use family::{CONTENT_TYPE, Family, Labels, text};

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
    pub(crate) fn families(&self) -> Vec<Family> {
        let count = |counter: &AtomicU64| u32::try_from(counter.load(Ordering::Relaxed)).unwrap_or(u32::MAX).into();
        let leading = f64::from(u8::from(self.leading.load(Ordering::Relaxed)));
        let (passes, failed) = (count(&self.passes), count(&self.failed_passes));
        vec![
            Family::of("tapvisor_controller_leading", "Whether this replica holds the Lease.", leading),
            Family::of("tapvisor_controller_reconciliations_total", "Passes over objects.", passes),
            Family::of("tapvisor_controller_reconciliation_errors_total", "Passes that failed.", failed),
            Family::of(
                "tapvisor_controller_node_agents",
                "Node agents whose reports this replica follows.",
                count(&self.agents),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_written_in_the_text_format() {
        let metrics = Arc::new(Metrics::default());
        let streams = [metrics.agent_stream(), metrics.agent_stream()];
        assert!(text(metrics.families()).contains("\ntapvisor_controller_node_agents 2.0\n"));
        drop(streams);
        metrics.leading(true);
        metrics.passed(true);
        metrics.passed(false);
        let text = text(metrics.families());
        assert!(text.contains("# TYPE tapvisor_controller_leading gauge\ntapvisor_controller_leading 1.0\n"), "{text}");
        assert!(text.contains("\ntapvisor_controller_node_agents 0.0\n"), "{text}");
        assert!(text.contains("\ntapvisor_controller_reconciliations_total 2.0\n"), "{text}");
        assert!(text.contains("\ntapvisor_controller_reconciliation_errors_total 1.0\n"), "{text}");
    }
}
