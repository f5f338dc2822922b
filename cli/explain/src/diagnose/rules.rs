//! Our nft rules and settings in the VM's namespace, and what they have counted.

use binding::names::{GUARD, PREROUTING, RuleName};
use binding::{Drift, drift};
use hostnet::nft::Family as TableFamily;
use wiring::Family;

use super::{Case, Findings, Words};
use crate::explanation::{Code, Severity};

pub(super) fn diagnose(case: &Case<'_>, findings: &mut Findings) {
    diagnose_drift(case, findings);
    diagnose_counters(case, findings);
}

fn diagnose_drift(case: &Case<'_>, findings: &mut Findings) {
    // Where an interface or its address is gone, that was said, and what the rules should be cannot be.
    if findings.has(Code::AddressGone) || case.nics.iter().any(|nic| nic.pod_link.is_none()) {
        return;
    }
    let Some(Ok(drift)) = case.pod.map(|pod| drift(&case.seen.request, pod)) else { return };
    for drift in drift {
        let words = drift.to_string();
        let (severity, code, words) = match drift {
            Drift::Table(table) if table.is_addition() => (
                Severity::Warning,
                Code::RuleAdded,
                Words::new(
                    words,
                    "A rule of another program, or one of ours for addresses and routes that the pod no longer has, may act on the VM's packets.",
                    "Find the program that changes tables named tapvisor.",
                ),
            ),
            Drift::Setting { key, expected, .. } => {
                let (code, consequence) = match key.path().ends_with("forward") || key.path().ends_with("forwarding") {
                    true => {
                        (Code::ForwardingOff, "The VM's namespace passes nothing on between its NIC and the guest.")
                    }
                    false => (Code::SettingChanged, "What that setting is needed for does not work."),
                };
                // `sysctl` takes slashes; they are right for links with dots in their names, too.
                let remedy = format!("`{} sysctl -w {key}={expected}`", case.enter());
                (Severity::Error, code, Words::new(words, consequence, remedy))
            }
            _ => (
                Severity::Error,
                Code::RuleGone,
                Words::new(
                    words,
                    "What that rule let through, translated or kept out is no longer.",
                    format!("{} Find the program that changes tables named tapvisor.", case.status().rewire()),
                ),
            ),
        };
        findings.add(severity, code, None, "rules", words);
    }
}

fn diagnose_counters(case: &Case<'_>, findings: &mut Findings) {
    for nic in case.nics.iter().filter(|nic| nic.is_masqueraded()) {
        let name = Some(nic.interface.name.as_str());
        let declared: Vec<_> =
            nic.interface.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect();
        let wanted = case.seen.wanted_ports.iter().filter(|wanted| {
            !nic.interface.ports.is_empty() && !nic.interface.ports.iter().any(|port| port.port == **wanted)
        });
        for port in wanted {
            let words = Words::new(
                format!(
                    "port {port} is not among the declared ports of interface {}: {}",
                    nic.interface.name,
                    declared.join(", ")
                ),
                "Only declared ports reach the guest; the pod itself refuses connections to this one.",
                format!(
                    "Add it to `ports` of interface {} in the manifest, or declare none to open all.",
                    nic.interface.name
                ),
            );
            findings.add(Severity::Error, Code::PortNotDeclared, name, "rules", words);
        }
        let of_both = |name: fn(Family) -> RuleName| [Family::V4, Family::V6].map(name);
        let refused = case.sum(nic, TableFamily::Inet, PREROUTING, &of_both(RuleName::Undeclared));
        if refused > 0 {
            let words = Words::new(
                format!("{refused} packets came for ports that are not declared; declared are {}", declared.join(", ")),
                "They were refused by the pod itself and never reached the guest.",
                format!(
                    "If they should, add their port to `ports` of interface {} in the manifest.",
                    nic.interface.name
                ),
            );
            findings.add(Severity::Warning, Code::PortNotDeclared, name, "rules", words);
        }
        let foreign = case.sum(nic, TableFamily::Inet, GUARD, &of_both(RuleName::NotFromGuest));
        if foreign > 0 {
            let words = Words::new(
                format!("{foreign} packets of the guest came from addresses that are not its own, and were dropped"),
                "What runs behind the guest, or on another address than DHCP gave it, has no network.",
                "Let the guest masquerade what it routes, or use bridge binding.",
            );
            findings.add(Severity::Warning, Code::ForeignSource, name, "rules", words);
        }
    }
}
