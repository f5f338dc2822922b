//! Finds faults from evidence alone, without I/O: one file for each part of the path.

mod boot;
mod guest;
mod hops;
mod leases;
mod life;
mod links;
mod routes;
mod rules;
mod source;
mod told;
mod ways;

#[cfg(test)]
pub(super) mod fixtures;
#[cfg(test)]
mod tests;

use super::case::{Case, NicView};
use super::evidence::Evidence;
use super::explanation::{Code, Explanation, Finding, NicPath, Severity};

/// Findings as they are found.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

/// What is seen of something wrong, what that means, and what to do.
struct Words {
    seen: String,
    consequence: String,
    remedy: String,
}

impl Words {
    fn new(seen: impl Into<String>, consequence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { seen: seen.into(), consequence: consequence.into(), remedy: remedy.into() }
    }
}

impl Findings {
    fn add(&mut self, severity: Severity, code: Code, nic: Option<&str>, hop: impl ToString, words: Words) {
        let Words { seen, consequence, remedy } = words;
        let (nic, hop) = (nic.map(str::to_owned), hop.to_string());
        self.0.push(Finding { code, severity, nic, hop, seen, consequence, remedy });
    }

    fn has(&self, code: Code) -> bool {
        self.0.iter().any(|finding| finding.code == code)
    }
}

/// Turns evidence into the path of each NIC and the findings on it; pure.
#[must_use]
pub fn diagnose(seen: &Evidence) -> Explanation {
    let case = Case::of(seen);
    let mut findings = Findings::default();
    life::diagnose(&case, &mut findings);
    if case.pod.is_some() {
        links::diagnose(&case, &mut findings);
        rules::diagnose(&case, &mut findings);
        routes::diagnose(&case, &mut findings);
        ways::diagnose(&case, &mut findings);
        if case.runs() {
            // Of a guest without a cable neither questions nor answers are to be expected.
            let (unplugged, plugged): (Vec<_>, Vec<_>) = case.nics.iter().partition(|nic| nic.is_unplugged());
            unplugged.into_iter().for_each(|nic| guest::unplugged(nic, &mut findings));
            // All else that is to be seen of a guest that boots follows from that.
            if boot::diagnose(&case, &plugged, &mut findings) {
                plugged.iter().for_each(|nic| leases::diagnose(&case, nic, &mut findings));
                plugged.iter().for_each(|nic| guest::diagnose(&case, nic, &mut findings));
            }
        }
        case.nics.iter().for_each(|nic| told::diagnose(nic, &mut findings));
    }
    let mut findings = findings.0;
    findings.sort_by_key(|finding| finding.severity);
    let nics = case.nics.iter().map(|nic| NicPath {
        name: nic.interface.name.clone(),
        binding: nic.interface.binding,
        pod_interface: nic.interface.pod_interface.clone(),
        mac: nic.launcher.map(|nic| nic.mac),
        hops: hops::of(&case, nic),
    });
    Explanation {
        namespace: seen.status.namespace.clone(),
        name: seen.status.name.clone(),
        status: format!("{:?}", seen.status.phase),
        reason: seen.status.reason.clone(),
        node: seen.status.node().map(str::to_owned),
        netns: case.netns(),
        nics: nics.collect(),
        findings,
    }
}
