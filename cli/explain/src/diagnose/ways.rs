//! Ways that the kernel tells otherwise than routes alone do: rules, and routes that refuse.

use hostnet::Facts;
use hostnet::facts::Link;
use nix::libc;

use super::{Case, Findings, Words};
use crate::evidence::{AskedRoute, From, Purpose};
use crate::explanation::{Code, Severity};
use crate::fib;

/// Judged after routes and settings: what these account for is not said twice.
pub(super) fn diagnose(case: &Case<'_>, findings: &mut Findings) {
    for way in &case.seen.ways {
        match way.purpose {
            Purpose::ToVm => to_vm(case, way, findings),
            Purpose::Beyond => beyond(case, way, findings),
        }
    }
}

fn to_vm(case: &Case<'_>, way: &AskedRoute, findings: &mut Findings) {
    let Some(nic) = case.nics.iter().find(|nic| nic.interface.name == way.nic) else { return };
    let (facts, link) = match way.at {
        From::Host => (Some(&case.seen.host), nic.routed()),
        From::Pod => (case.pod, case.pod.and_then(|pod| pod.link(&nic.tap))),
    };
    let Some((facts, link)) = facts.zip(link).filter(|(_, link)| way.leads != Ok(link.index) && link.up) else {
        return;
    };
    // Routes that lead elsewhere by themselves were named, and where there are none there is no part to have in it.
    if !fib::route_to(facts, way.journey.to).is_some_and(|route| fib::leaves_by(route, link)) {
        return;
    }
    let to = way.journey.to;
    let packets = match &way.journey.passed_on {
        None => "",
        // What starts here suffers from the same, or forwarding is off, and that was said.
        Some(_) if findings.has(Code::ForwardingOff) || is_lost_from_here(case, way, link) => return,
        // Who else has a default route by another link than the main table's needs no other way in.
        Some(_) if way.leads == Err(Some(libc::EXDEV)) => return,
        Some(_) => " for what comes from beyond",
    };
    let words = Words::new(
        format!("the route to {to} leads to {}, but{packets} {}", link.name, elsewhere(way, facts)),
        "What is sent to the VM at that address does not arrive.",
        remedy(case, way),
    );
    findings.add(Severity::Error, Code::NoRoute, Some(&way.nic), hop(case, way), words);
}

/// Whether what starts in the same namespace does not get to the VM either.
fn is_lost_from_here(case: &Case<'_>, way: &AskedRoute, link: &Link) -> bool {
    let is_it = |other: &&AskedRoute| {
        let (here, there) = (&other.journey, &way.journey);
        (other.at, &other.nic, here.to) == (way.at, &way.nic, there.to) && here.passed_on.is_none()
    };
    case.seen.ways.iter().find(is_it).is_some_and(|other| other.leads != Ok(link.index))
}

fn beyond(case: &Case<'_>, way: &AskedRoute, findings: &mut Findings) {
    let Some((from, _)) = &way.journey.passed_on else { return };
    let Err(Some(errno)) = way.leads else { return };
    let is_named = |code| findings.has(code);
    let (code, was_said) = match errno {
        libc::EXDEV => (Code::RpFilter, is_named(Code::RpFilter)),
        _ => (Code::NoRoute, is_named(Code::ForwardingOff)),
    };
    let facts = if way.at == From::Host { Some(&case.seen.host) } else { case.pod };
    let Some(facts) = facts.filter(|_| !was_said) else { return };
    let words = Words::new(
        format!("what {from} sends is not passed on: {}", elsewhere(way, facts)),
        "The VM reaches nothing beyond, and answers to others find no way back.",
        remedy(case, way),
    );
    findings.add(Severity::Error, code, Some(&way.nic), hop(case, way), words);
}

fn hop(case: &Case<'_>, way: &AskedRoute) -> String {
    let nic = case.nics.iter().find(|nic| nic.interface.name == way.nic);
    match (way.at, nic) {
        (From::Pod, Some(nic)) if way.purpose == Purpose::ToVm => nic.tap.to_string(),
        (From::Pod, Some(nic)) => nic.interface.pod_interface.to_string(),
        _ => "host".to_owned(),
    }
}

/// What the kernel does with the packet.
fn elsewhere(way: &AskedRoute, facts: &Facts) -> String {
    match way.leads {
        Ok(index) => match facts.link_at(index) {
            Some(link) => format!("a rule or another table leads it to {}", link.name),
            None => "a rule or another table leads it elsewhere".to_owned(),
        },
        Err(Some(libc::EINVAL)) => "a route or rule drops it in silence (blackhole)".to_owned(),
        Err(Some(libc::EHOSTUNREACH)) => match &way.journey.passed_on {
            Some((_, link)) => format!("a route calls it unreachable, or {link} does not forward"),
            None => "a route calls it unreachable".to_owned(),
        },
        Err(Some(libc::EACCES)) => "a route or rule prohibits it".to_owned(),
        Err(Some(libc::ENETUNREACH)) => {
            "a rule calls it unreachable, or leads it to a table without a route for it".to_owned()
        }
        Err(Some(libc::EXDEV)) => "reverse-path filtering drops it".to_owned(),
        Err(Some(errno)) => format!("the kernel refuses it (errno {errno})"),
        Err(None) => "the kernel does not say where it goes".to_owned(),
    }
}

/// The question that was put to the kernel, as a person puts it.
fn remedy(case: &Case<'_>, way: &AskedRoute) -> String {
    let enter = if way.at == From::Pod { format!("{} ", case.enter()) } else { String::new() };
    let family = if way.journey.to.is_ipv4() { "-4" } else { "-6" };
    let passed_on = way.journey.passed_on.as_ref();
    let passed_on = passed_on.map(|(from, link)| format!(" from {from} iif {link}")).unwrap_or_default();
    format!(
        "`{enter}ip {family} route get {}{passed_on}` asks again; `{enter}ip {family} rule` and `{enter}ip {family} route show table all` tell what answers.",
        way.journey.to
    )
}
