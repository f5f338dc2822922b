//! Whether the guest has booted far enough for findings about it.

use super::{Case, Findings, NicView, Words};
use crate::explanation::{Code, Severity};

/// A guest that has sent nothing for so long does not boot, it hangs or has no driver: emulated ones take a minute and more.
const SILENT_SECONDS: u64 = 300;
/// Between a NIC that is up and the first DHCP message lie seconds.
const QUIET_SECONDS: u64 = 15;

/// Whether the guest has booted. While it boots, that is the only finding about it.
pub(super) fn diagnose(case: &Case<'_>, nics: &[&NicView<'_>], findings: &mut Findings) -> bool {
    let services = || nics.iter().filter_map(|nic| nic.launcher?.service.as_ref());
    let mut leases = services().flat_map(|service| [&service.ipv4, &service.ipv6]).flatten().peekable();
    // A guest without DHCP never asks: what it has or has not is not known.
    let is_served = leases.peek().is_some();
    let has_asked = leases.any(|lease| lease.asked > 0 || lease.grants > 0);
    let Some(since) = case.seen.status.running_since_unix_seconds.filter(|_| is_served && !has_asked) else {
        return true;
    };
    let seconds = case.seen.now_unix_seconds.saturating_sub(since);
    let has_sent = nics.iter().any(|nic| nic.sent_packets(case) > 0);
    if seconds >= if has_sent { QUIET_SECONDS } else { SILENT_SECONDS } {
        return true;
    }
    let seen = match has_sent {
        true => format!("the guest has run for {seconds} s and has not asked for an address yet"),
        false => format!("the guest has run for {seconds} s and has sent nothing yet"),
    };
    let words = Words::new(
        seen,
        "It still boots; its addresses and ports do not answer until it is up.",
        format!("Wait, and see its console meanwhile: {}.", case.status().console()),
    );
    findings.add(Severity::Warning, Code::GuestBoots, None, "guest", words);
    false
}
