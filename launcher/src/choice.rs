//! Which engine runs a machine: what is demanded, what /dev/kvm turned out to be, and what our machine lacks.

use std::fs::File;
use std::os::fd::OwnedFd;

use machine::{Emulation as Demand, EngineDemand};
use protocol::control::{Accelerator, EngineKind};
use protocol::launch_file::LaunchFile;
use protocol::probe::Verdict;

use super::emulation::Emulation;
use super::engine::Engine;
use super::kvm::{self, OwnMachine};
use crate::sys::kvm_probe::{self, NODE};

/// The choice and its reason.
#[derive(Debug)]
pub(crate) struct Choice {
    decision: Decision,
    kvm: Option<OwnedFd>,
}

/// Why no engine can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChoiceError {
    /// Emulation is forbidden and there is no KVM.
    #[error("this machine must run on KVM (emulation is forbidden): {0}")]
    NoKvm(String),
    /// Our machine is demanded and there is no KVM.
    #[error("machine.engine: kvm is demanded: {0}")]
    NoEngine(String),
    /// Our machine is demanded, and emulation.
    #[error("machine.engine: kvm is demanded, and machine.emulation demands emulation")]
    Contradiction,
    /// Our machine is demanded and lacks something.
    #[error("{0}; machine.engine demands this engine, with auto or qemu QEMU runs the machine")]
    Lacks(String),
    /// The descriptor of /dev/kvm could not be duplicated for the probe.
    #[error("no second descriptor for /dev/kvm: {0}")]
    Descriptor(std::io::ErrorKind),
}

/// Probes KVM where the answer matters.
///
/// # Errors
/// Why no engine can run the machine as demanded.
pub(crate) fn choose(file: &LaunchFile, kvm: Option<OwnedFd>) -> Result<Choice, ChoiceError> {
    let demands = Demands { emulation: file.machine.emulation, engine: file.machine.engine };
    let (kvm, found) = if demands.emulation == Demand::Required {
        (None, None)
    } else {
        let kvm = kvm.or_else(|| open_node().ok());
        let copy = kvm.as_ref().map(OwnedFd::try_clone).transpose();
        let copy = copy.map_err(|error| ChoiceError::Descriptor(error.kind()))?;
        let verdict = kvm_probe::probe(copy);
        (kvm, Some(Found { verdict, qemu_may_open: open_node().is_ok() }))
    };
    let decision = decide(demands, found, || kvm::lacks(&file.machine, file.nics()))?;
    tracing::info!(engine = %decision.kind, reason = decision.reason, kvm = decision.kvm, "chosen");
    let kvm = kvm.filter(|_| decision.kind == EngineKind::Kvm);
    Ok(Choice { decision, kvm })
}

fn open_node() -> std::io::Result<OwnedFd> {
    File::options().read(true).write(true).open(NODE).map(OwnedFd::from)
}

/// What the machine's author demands.
#[derive(Debug, Clone, Copy)]
struct Demands {
    emulation: Demand,
    engine: EngineDemand,
}

/// What is known of KVM.
#[derive(Debug)]
struct Found {
    verdict: Verdict,
    /// QEMU opens the node itself; a descriptor is not something it takes.
    qemu_may_open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    kind: EngineKind,
    /// Why it is this engine.
    reason: String,
    /// What was found out about /dev/kvm.
    kvm: String,
}

const EXECUTES: &str = "/dev/kvm executes";

fn decide(
    demands: Demands,
    found: Option<Found>,
    lacks: impl FnOnce() -> Option<String>,
) -> Result<Decision, ChoiceError> {
    let tcg = |reason: &str, kvm: &str| Decision {
        kind: EngineKind::Qemu(Accelerator::Tcg),
        reason: reason.to_owned(),
        kvm: kvm.to_owned(),
    };
    let Some(Found { verdict, qemu_may_open }) = found else {
        let untried = "not tried: the machine demands emulation";
        let is_kvm = demands.engine == EngineDemand::Kvm;
        return if is_kvm {
            Err(ChoiceError::Contradiction)
        } else {
            Ok(tcg("the machine demands emulation", untried))
        };
    };
    let reason = match (verdict, demands.engine) {
        (Verdict::Unusable { reason }, EngineDemand::Kvm) => return Err(ChoiceError::NoEngine(reason)),
        (Verdict::Unusable { reason }, _) if demands.emulation == Demand::Forbidden => {
            return Err(ChoiceError::NoKvm(reason));
        }
        (Verdict::Unusable { reason }, _) => return Ok(tcg(&reason, &reason)),
        (Verdict::Usable, EngineDemand::Qemu) => "engine qemu is demanded".to_owned(),
        (Verdict::Usable, demand) => match lacks() {
            Some(lack) if demand == EngineDemand::Kvm => return Err(ChoiceError::Lacks(lack)),
            Some(lack) => lack,
            None => {
                let reason = match demand {
                    EngineDemand::Kvm => "engine kvm is demanded",
                    _ => "KVM works, and engine kvm has all that the machine asks for",
                };
                return Ok(Decision { kind: EngineKind::Kvm, reason: reason.to_owned(), kvm: EXECUTES.to_owned() });
            }
        },
    };
    // QEMU opens the node by its path, as this user; our own machine uses the descriptor that it was given.
    if qemu_may_open {
        return Ok(Decision { kind: EngineKind::Qemu(Accelerator::Kvm), reason, kvm: EXECUTES.to_owned() });
    }
    let withheld = format!("{NODE} executes, but QEMU would have to open it as this user and may not");
    match demands.emulation {
        Demand::Forbidden => Err(ChoiceError::NoKvm(withheld)),
        _ => Ok(tcg(&format!("{reason}; {withheld}"), &withheld)),
    }
}

impl Choice {
    /// The engine that was chosen.
    pub(crate) fn engine(&self) -> Box<dyn Engine + '_> {
        match (self.decision.kind, &self.kvm) {
            (EngineKind::Qemu(accelerator), _) => Box::new(Emulation { accelerator }),
            (EngineKind::Kvm, kvm) => Box::new(OwnMachine { kvm: kvm.as_ref() }),
        }
    }

    pub(crate) fn kind(&self) -> EngineKind {
        self.decision.kind
    }

    /// Whether the kernel can move the guest's packets.
    pub(crate) fn wants_vhost(&self) -> bool {
        self.decision.kind != EngineKind::Qemu(Accelerator::Tcg)
    }

    /// The sentence that `status` reports as the reason of the choice.
    pub(crate) fn reason(&self) -> &str {
        &self.decision.reason
    }

    /// What was found out about /dev/kvm.
    pub(crate) fn kvm(&self) -> &str {
        &self.decision.kvm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCG: EngineKind = EngineKind::Qemu(Accelerator::Tcg);
    const QEMU_KVM: EngineKind = EngineKind::Qemu(Accelerator::Kvm);

    fn usable(qemu_may_open: bool) -> Option<Found> {
        Some(Found { verdict: Verdict::Usable, qemu_may_open })
    }

    fn interprets_only() -> Option<Found> {
        let verdict = Verdict::Unusable { reason: "only interprets".into() };
        Some(Found { verdict, qemu_may_open: true })
    }

    fn kind(
        emulation: Demand,
        engine: EngineDemand,
        found: Option<Found>,
        lack: Option<&str>,
    ) -> Result<EngineKind, ChoiceError> {
        decide(Demands { emulation, engine }, found, || lack.map(str::to_owned)).map(|decision| decision.kind)
    }

    // spec: ENGINE-1
    #[test]
    fn auto_takes_our_machine_then_qemu_with_kvm_then_emulation() {
        let auto = |emulation, found, lack| kind(emulation, EngineDemand::Auto, found, lack);
        assert_eq!(auto(Demand::Allowed, usable(true), None), Ok(EngineKind::Kvm));
        assert_eq!(auto(Demand::Allowed, usable(false), None), Ok(EngineKind::Kvm));
        assert_eq!(auto(Demand::Allowed, usable(true), Some("a disk")), Ok(QEMU_KVM));
        assert_eq!(auto(Demand::Allowed, usable(false), Some("a disk")), Ok(TCG));
        assert_eq!(auto(Demand::Allowed, interprets_only(), None), Ok(TCG));
        assert_eq!(auto(Demand::Required, None, None), Ok(TCG));
        assert_eq!(auto(Demand::Forbidden, usable(true), None), Ok(EngineKind::Kvm));
        let no_kvm = Err(ChoiceError::NoKvm("only interprets".into()));
        assert_eq!(auto(Demand::Forbidden, interprets_only(), None), no_kvm);
        assert!(matches!(auto(Demand::Forbidden, usable(false), Some("a disk")), Err(ChoiceError::NoKvm(_))));
    }

    // spec: ENGINE-1
    #[test]
    fn a_demanded_engine_is_taken_or_refused_and_never_replaced() {
        let demanded = |engine, found, lack| kind(Demand::Allowed, engine, found, lack);
        assert_eq!(demanded(EngineDemand::Kvm, usable(true), None), Ok(EngineKind::Kvm));
        assert_eq!(demanded(EngineDemand::Qemu, usable(true), None), Ok(QEMU_KVM));
        assert_eq!(demanded(EngineDemand::Qemu, interprets_only(), None), Ok(TCG));
        let lacks = demanded(EngineDemand::Kvm, usable(true), Some("machine.disks[0]: no")).unwrap_err();
        assert!(lacks.to_string().starts_with("machine.disks[0]: no; "), "{lacks}");
        let no_engine = Err(ChoiceError::NoEngine("only interprets".into()));
        assert_eq!(demanded(EngineDemand::Kvm, interprets_only(), None), no_engine);
        assert_eq!(kind(Demand::Required, EngineDemand::Kvm, None, None), Err(ChoiceError::Contradiction));
        assert_eq!(kind(Demand::Required, EngineDemand::Qemu, None, None), Ok(TCG));
    }

    // spec: ENGINE-1
    #[test]
    fn the_reason_names_what_decided() {
        let demands = Demands { emulation: Demand::Allowed, engine: EngineDemand::Auto };
        let decision = decide(demands, usable(true), || Some("machine.disks[0]: no".into())).unwrap();
        assert_eq!((decision.reason.as_str(), decision.kvm.as_str()), ("machine.disks[0]: no", EXECUTES));
        let decision = decide(demands, interprets_only(), || None).unwrap();
        assert_eq!((decision.reason.as_str(), decision.kvm.as_str()), ("only interprets", "only interprets"));
    }
}
