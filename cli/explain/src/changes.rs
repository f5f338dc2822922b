//! What became different between two looks at a VM, in lines.

use super::explanation::{Explanation, Finding, Hop, Severity, Traffic};
use super::picture::size;

/// The lines that tell `after` from `before`; none if nothing is worth a word.
#[must_use]
pub fn changes(before: &Explanation, after: &Explanation) -> Vec<String> {
    let mut lines = Vec::new();
    if (&before.status, &before.reason) != (&after.status, &after.reason) {
        let reason = after.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        lines.push(format!("{}/{} is {}{reason}", after.namespace, after.name, after.status));
    }
    for nic in &after.nics {
        let earlier = before.nics.iter().find(|other| other.name == nic.name);
        for hop in &nic.hops {
            let earlier = earlier.and_then(|nic| nic.hops.iter().find(|other| other.name == hop.name));
            if let Some(words) = earlier.and_then(|earlier| of_hop(earlier, hop)) {
                lines.push(format!("{}: {}: {words}", nic.name, hop.name));
            }
        }
    }
    // What is the same but for a number in its words is no news.
    let is_among = |finding: &Finding, all: &[Finding]| {
        all.iter().any(|other| (other.code, &other.nic, &other.hop) == (finding.code, &finding.nic, &finding.hop))
    };
    let gone = before.findings.iter().filter(|finding| !is_among(finding, &after.findings));
    lines.extend(gone.map(|finding| format!("mended: {}", line(finding))));
    let new = after.findings.iter().filter(|finding| !is_among(finding, &before.findings));
    lines.extend(new.map(|finding| {
        let weight = if finding.severity == Severity::Error { "wrong" } else { "doubtful" };
        format!("{weight}: {}; {}", line(finding), finding.remedy)
    }));
    lines
}

fn line(finding: &Finding) -> String {
    let code = serde_json::to_value(finding.code).unwrap_or_default();
    format!("{} at {}: {}", code.as_str().unwrap_or_default(), finding.hop, finding.seen)
}

fn of_hop(before: &Hop, after: &Hop) -> Option<String> {
    let mut words = Vec::new();
    if before.state != after.state {
        words.extend(after.state.clone());
    }
    if before.mtu_bytes != after.mtu_bytes {
        words.extend(after.mtu_bytes.map(|mtu| format!("MTU {mtu}")));
    }
    words.extend(new_among(&before.addresses, &after.addresses, "has"));
    words.extend(new_among(&after.addresses, &before.addresses, "lost"));
    words.extend(new_among(&before.notes, &after.notes, "now"));
    words.extend(before.traffic.zip(after.traffic).and_then(|(before, after)| passed(before, after)));
    for counter in &after.counters {
        let earlier = before.counters.iter().find(|other| other.name == counter.name).map_or(0, |other| other.count);
        // A new launcher and new rules count from zero.
        if counter.count > earlier {
            words.push(format!("{} +{}", counter.name, counter.count - earlier));
        }
    }
    (!words.is_empty()).then(|| words.join(", "))
}

fn new_among(before: &[String], after: &[String], word: &str) -> Option<String> {
    let new: Vec<_> = after.iter().filter(|item| !before.contains(item)).map(String::as_str).collect();
    (!new.is_empty()).then(|| format!("{word} {}", new.join(", ")))
}

fn passed(before: Traffic, after: Traffic) -> Option<String> {
    let ways = [
        ("to guest", before.to_guest_packets, after.to_guest_packets, before.to_guest_bytes, after.to_guest_bytes),
        (
            "from guest",
            before.from_guest_packets,
            after.from_guest_packets,
            before.from_guest_bytes,
            after.from_guest_bytes,
        ),
    ];
    let moved = ways.into_iter().filter(|(_, before, after, ..)| after > before);
    let words = moved.map(|(way, packets, packets_now, bytes, bytes_now)| {
        format!("{way} +{} packets, {}", packets_now - packets, size(bytes_now.saturating_sub(bytes)))
    });
    let dropped = after.dropped_packets.checked_sub(before.dropped_packets).filter(|count| *count > 0);
    let words: Vec<_> = words.chain(dropped.map(|count| format!("dropped +{count}"))).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose;
    use crate::diagnose::fixtures::{masquerade, name};
    use crate::evidence::Evidence;
    use crate::record::Phase;

    fn tap_down(evidence: &mut Evidence) {
        let tap = name("k6t-eth0");
        let pod = evidence.pod.as_mut().unwrap();
        pod.links.iter_mut().find(|link| link.name == tap).unwrap().up = false;
    }

    fn after(change: impl FnOnce(&mut Evidence)) -> (Explanation, Explanation) {
        let mut evidence = masquerade();
        let before = diagnose(&evidence);
        change(&mut evidence);
        (before, diagnose(&evidence))
    }

    #[test]
    fn nothing_new_is_no_word() {
        let (before, after) = after(|evidence| evidence.now_unix_seconds += 1);
        assert_eq!(changes(&before, &after), Vec::<String>::new());
    }

    // spec: EXPL-10
    #[test]
    fn what_breaks_and_what_is_mended_is_told_once() {
        let (good, bad) = after(tap_down);
        let lines = changes(&good, &bad);
        assert_eq!(lines[0], "default: k6t-eth0: down");
        assert!(lines[1].starts_with("wrong: tapDown at k6t-eth0: k6t-eth0 is down; `ip netns exec "), "{lines:?}");
        assert_eq!(changes(&bad, &bad), Vec::<String>::new());
        let lines = changes(&bad, &good);
        assert_eq!(lines, ["default: k6t-eth0: up", "mended: tapDown at k6t-eth0: k6t-eth0 is down"]);
    }

    #[test]
    fn counters_are_shown_as_their_increase_and_a_reset_to_zero_is_not_shown() {
        let (before, after) = after(|evidence| {
            let pod = evidence.pod.as_mut().unwrap();
            let tap = name("k6t-eth0");
            let link = pod.links.iter_mut().find(|link| link.name == tap).unwrap();
            let statistics = link.statistics.as_mut().unwrap();
            (statistics.tx_packets, statistics.tx_bytes) = (4, 4096);
            let service = evidence.launcher.as_mut().unwrap().nics[0].service.as_mut().unwrap();
            service.ipv4.as_mut().unwrap().asked += 1;
        });
        let lines = changes(&before, &after);
        assert_eq!(lines, ["default: k6t-eth0: to guest +4 packets, 4.0 kB", "default: svc-eth0: DHCPv4 asked +1"]);
        assert_eq!(changes(&after, &before), Vec::<String>::new());
    }

    #[test]
    fn a_vm_that_ends_is_told() {
        let (before, after) = after(|evidence| evidence.status.phase = Phase::Stopped);
        assert_eq!(changes(&before, &after)[0], "default/web is Stopped");
    }
}
