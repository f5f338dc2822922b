//! Whether the guest asked for its addresses, and whether it got them.

use binding::names::{self, RuleName};
use hostnet::facts::NeighbourState;
use hostnet::nft::Family as TableFamily;
use wiring::Family;

use super::{Case, Findings, NicView, Words};
use crate::explanation::{Code, Severity};
use crate::launcher::LeaseStatus;

/// A guest that ran this long after the wiring was made is not the first on it: rules have counted others' questions.
const START_SECONDS: u64 = 60;

pub(super) fn diagnose(case: &Case<'_>, nic: &NicView<'_>, findings: &mut Findings) {
    for family in [Family::V4, Family::V6] {
        if let Some(lease) = nic.lease(family) {
            diagnose_lease(case, nic, family, lease, findings);
        }
    }
}

fn diagnose_lease(case: &Case<'_>, nic: &NicView<'_>, family: Family, lease: &LeaseStatus, findings: &mut Findings) {
    if lease.grants > 0 {
        return;
    }
    let name = Some(nic.interface.name.as_str());
    let protocol = if family == Family::V4 { "DHCPv4" } else { "DHCPv6" };
    let sent = sent_by_guest(case, nic, family);
    let strangers = nic.launcher.and_then(|nic| nic.service.as_ref()).map_or(0, |service| service.strangers_ignored);
    // A guest that speaks one family alone, or has its address from elsewhere, is not broken.
    let is_served =
        [Family::V4, Family::V6].iter().any(|other| nic.lease(*other).is_some_and(|lease| lease.grants > 0));
    let severity = if is_served || answers_at(case, nic, family) { Severity::Warning } else { Severity::Error };
    let mac = nic.launcher.map(|nic| nic.mac.to_string()).unwrap_or_default();
    if lease.asked == 0 && sent == 0 {
        let since = case.seen.status.running_since_unix_seconds;
        let seconds = since.map_or(0, |since| case.seen.now_unix_seconds.saturating_sub(since));
        let words = Words::new(
            format!("the guest has never asked for an address by {protocol} in the {seconds} s that it runs"),
            format!("It has no {} unless it was given one otherwise.", lease.address),
            format!(
                "See whether it has booted ({}), has a driver for its NIC {mac}, and configures it by {protocol}.",
                case.status().logs()
            ),
        );
        findings.add(severity, Code::DhcpNeverAsked, name, "guest", words);
        return;
    }
    let (seen, remedy) = match (lease.asked, lease.answered) {
        (0, _) if strangers > 0 => (
            format!("the guest asked {sent} times by {protocol} from another Ethernet address than its NIC's {mac}"),
            "Do not change the NIC's Ethernet address in the guest, or set that address in the manifest.".to_owned(),
        ),
        (0, _) => (
            format!("the guest asked {sent} times by {protocol}, and nothing of it reached the launcher"),
            format!(
                "See what is wrong with {} and the rules of `netdev tapvisor`. {}",
                nic.service_tap,
                case.status().rewire()
            ),
        ),
        (asked, 0) => (
            format!("the guest asked {asked} times by {protocol}, and the launcher had no answer"),
            "The guest asks for what is not served; tcpdump on its tap shows what.".to_owned(),
        ),
        (asked, answered) => (
            format!(
                "the guest asked {asked} times by {protocol}, was answered {answered} times, and never took the address"
            ),
            format!(
                "The answers are lost on the way from {} to {}, or by the guest's own firewall.",
                nic.service_tap, nic.tap
            ),
        ),
    };
    let consequence = format!("It has no {} unless it was given one otherwise.", lease.address);
    findings.add(severity, Code::DhcpNeverAnswered, name, &nic.service_tap, Words::new(seen, consequence, remedy));
}

/// What the rules saw the guest ask, as far as it was this guest.
fn sent_by_guest(case: &Case<'_>, nic: &NicView<'_>, family: Family) -> u64 {
    let status = &case.seen.status;
    let since = status.running_since_unix_seconds.unwrap_or(case.seen.now_unix_seconds);
    let is_first = status.restarts == 0 && since.saturating_sub(case.seen.wired_unix_seconds) < START_SECONDS;
    let pod = &nic.interface.pod_interface;
    let count = || case.sum(nic, TableFamily::Netdev, &names::from_vm(pod), &[RuleName::Dhcp(family)]);
    if is_first { count() } else { 0 }
}

/// Whether a host answers for the guest's address of a family.
fn answers_at(case: &Case<'_>, nic: &NicView<'_>, family: Family) -> bool {
    let (facts, link) = match nic.is_masqueraded() {
        true => (case.pod, Some(&nic.tap)),
        false => (Some(&case.seen.host), nic.routed().map(|link| &link.name)),
    };
    let Some((facts, link)) = facts.zip(link) else { return false };
    let guests = nic.guest_addresses();
    facts.neighbours.iter().any(|neighbour| {
        neighbour.link == *link
            && Family::of(neighbour.address) == family
            && guests.contains(&neighbour.address)
            && matches!(neighbour.state, NeighbourState::Reachable | NeighbourState::Delay)
    })
}
