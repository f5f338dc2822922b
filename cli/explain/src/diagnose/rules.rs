//! Our nft rules and settings in the VM's namespace, and what they have counted.

use binding::drift;
use hostnet::nft::Family as TableFamily;
use wiring::Family;

use super::{Case, Findings, Words};
use crate::explanation::{Code, Severity};

/// How CHECK's words end that tell of something more than was made.
const STRANGE: [&str; 2] = ["that was not asked for", "was added by somebody"];

pub(super) fn judge(case: &Case<'_>, findings: &mut Findings) {
    judge_drift(case, findings);
    judge_counters(case, findings);
}

fn judge_drift(case: &Case<'_>, findings: &mut Findings) {
    // Where an interface or its address is gone, that was said, and what the rules should be cannot be.
    if findings.has(Code::AddressGone) || case.nics.iter().any(|nic| nic.pod_link.is_none()) {
        return;
    }
    let Some(Ok(drift)) = case.pod.map(|pod| drift(&case.seen.request, pod)) else { return };
    let (strange, gone): (Vec<_>, Vec<_>) =
        drift.rules.into_iter().partition(|words| STRANGE.iter().any(|strange| words.ends_with(strange)));
    for words in strange {
        let words = Words::new(
            words,
            "Somebody else's rule, or one of ours for addresses and routes that the pod no longer has, may act on the VM's packets.",
            "Find out who changes tables that are called tapvisor.",
        );
        findings.add(Severity::Warning, Code::RuleAdded, None, "rules", words);
    }
    for words in gone {
        let words = Words::new(
            words,
            "What that rule let through, translated or kept out is no longer.",
            format!("{} Find out who changes tables that are called tapvisor.", case.wire_anew()),
        );
        findings.add(Severity::Error, Code::RuleGone, None, "rules", words);
    }
    for words in drift.settings {
        let is_forwarding = words.contains("ip_forward") || words.contains("forwarding");
        let (code, consequence) = match is_forwarding {
            true => (Code::ForwardingOff, "The VM's namespace passes nothing on between its NIC and the guest."),
            false => (Code::SettingChanged, "What that setting is needed for does not work."),
        };
        let remedy = match setting(&words) {
            Some((key, value)) => format!("`{} sysctl -w {key}={value}`", case.enter()),
            None => case.wire_anew(),
        };
        findings.add(Severity::Error, code, None, "rules", Words::new(words, consequence, remedy));
    }
}

/// Key and wanted value of "sysctl KEY is X, not WANTED".
fn setting(words: &str) -> Option<(String, &str)> {
    let (rest, wanted) = words.split_once(", not ")?;
    let key = rest.strip_prefix("sysctl ")?.split(' ').next()?;
    // `sysctl` takes slashes; they are right for links with dots in their names, too.
    Some((key.to_owned(), wanted))
}

fn judge_counters(case: &Case<'_>, findings: &mut Findings) {
    for nic in case.nics.iter().filter(|nic| nic.is_masqueraded()) {
        let (name, pod) = (Some(nic.interface.name.as_str()), &nic.interface.pod_interface);
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
                "Only declared ports reach the guest; whoever asks for this one is refused by the pod itself.",
                format!(
                    "Add it to `ports` of interface {} in the manifest, or declare none to open all.",
                    nic.interface.name
                ),
            );
            findings.add(Severity::Error, Code::PortNotDeclared, name, "rules", words);
        }
        let refused: u64 = [Family::V4, Family::V6]
            .iter()
            .filter_map(|family| {
                case.counted(TableFamily::Inet, "prerouting", &format!("{pod}: undeclared {family:?}"))
            })
            .sum();
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
        let foreign: u64 = case
            .rules(TableFamily::Inet, "guard")
            .filter(|rule| {
                rule.comment.as_deref().is_some_and(|comment| comment.starts_with(&format!("{pod}: not from")))
            })
            .filter_map(|rule| rule.counter.map(|counter| counter.packets))
            .sum();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_setting_is_written_back_by_its_own_words() {
        let words = "sysctl net/ipv4/ip_forward is 0, not 1";
        assert_eq!(setting(words), Some(("net/ipv4/ip_forward".to_owned(), "1")));
        assert_eq!(setting("nft table inet tapvisor is missing"), None);
    }
}
