//! What the guest is not told, and who else is told its address.

use super::{Findings, NicView, Words};
use crate::explanation::{Code, Severity};

/// Findings of one NIC; the launcher has them from the guest's network, whose size is bounded, but is not relied on for that.
const MOST: usize = 32;

pub(super) fn diagnose(nic: &NicView<'_>, findings: &mut Findings) {
    let Some(launcher) = nic.launcher else { return };
    let name = Some(nic.interface.name.as_str());
    for what in launcher.not_told.iter().take(MOST) {
        let words = Words::new(
            format!("the guest is not told: {what}"),
            "The guest does not know of it unless it is configured otherwise.",
            "Configure it in the guest, by cloud-init for example, or change the network.",
        );
        findings.add(Severity::Warning, Code::NotTold, name, &nic.service_tap, words);
    }
    let clients = launcher.service.as_ref().map(|service| service.clients.as_slice()).unwrap_or_default();
    if clients.len() > 1 {
        let all: Vec<_> = clients.iter().map(ToString::to_string).collect();
        let words = Words::new(
            format!("{} Ethernet addresses ask for an address: {}", clients.len(), all.join(", ")),
            "All of them get the guest's one address, so two machines in the guest may use it at once.",
            "Let one client in the guest ask: a bridge or container network in it needs addresses of its own.",
        );
        findings.add(Severity::Warning, Code::SeveralClients, name, &nic.service_tap, words);
    }
}
