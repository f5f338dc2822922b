//! Which engine runs a machine: what the machine demands, and what /dev/kvm turned out to be.

use std::os::fd::OwnedFd;

use machine::Emulation as Demand;
use protocol::control::Accelerator;
use protocol::probe::Verdict;

use super::emulation::Emulation;
use super::engine::Engine;
use crate::sys::kvm_probe::{self, NODE};

/// The choice and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    accelerator: Accelerator,
    kvm: String,
}

/// Probes KVM where the answer matters.
///
/// # Errors
/// Why there is no KVM, for a machine that must have it.
pub(crate) fn choose(demand: Demand, kvm: Option<OwnedFd>) -> Result<Choice, String> {
    if demand == Demand::Required {
        return decide(demand, None);
    }
    let verdict = match kvm_probe::probe(kvm) {
        // QEMU opens the node itself; a descriptor is not something it takes.
        Verdict::Usable if !can_open_node() => {
            let reason = format!("{NODE} executes, but QEMU would have to open it as this user and may not");
            Verdict::Unusable { reason }
        }
        verdict => verdict,
    };
    decide(demand, Some(verdict)).inspect(|choice| tracing::info!(engine = %choice.engine().kind(), kvm = choice.kvm))
}

fn can_open_node() -> bool {
    std::fs::File::options().read(true).write(true).open(NODE).is_ok()
}

fn decide(demand: Demand, verdict: Option<Verdict>) -> Result<Choice, String> {
    match (demand, verdict) {
        (_, None) => {
            Ok(Choice { accelerator: Accelerator::Tcg, kvm: "not tried: the machine demands emulation".into() })
        }
        (_, Some(Verdict::Usable)) => Ok(Choice { accelerator: Accelerator::Kvm, kvm: "/dev/kvm executes".into() }),
        (Demand::Forbidden, Some(Verdict::Unusable { reason })) => Err(reason),
        (_, Some(Verdict::Unusable { reason })) => Ok(Choice { accelerator: Accelerator::Tcg, kvm: reason }),
    }
}

impl Choice {
    /// The engine that was chosen.
    pub(crate) fn engine(&self) -> impl Engine + use<> {
        Emulation { accelerator: self.accelerator }
    }

    /// Whether the kernel can move the guest's packets.
    pub(crate) fn wants_vhost(&self) -> bool {
        self.accelerator == Accelerator::Kvm
    }

    /// What was found out about /dev/kvm.
    pub(crate) fn kvm(&self) -> &str {
        &self.kvm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interprets_only() -> Option<Verdict> {
        Some(Verdict::Unusable { reason: "/dev/kvm only interprets".into() })
    }

    #[test]
    fn demand_and_probe_decide_together() {
        let accelerator = |demand, verdict| decide(demand, verdict).map(|choice| choice.accelerator);
        assert_eq!(accelerator(Demand::Allowed, Some(Verdict::Usable)), Ok(Accelerator::Kvm));
        assert_eq!(accelerator(Demand::Allowed, interprets_only()), Ok(Accelerator::Tcg));
        assert_eq!(accelerator(Demand::Forbidden, Some(Verdict::Usable)), Ok(Accelerator::Kvm));
        assert_eq!(accelerator(Demand::Forbidden, interprets_only()), Err("/dev/kvm only interprets".into()));
        assert_eq!(accelerator(Demand::Required, None), Ok(Accelerator::Tcg));
    }
}
