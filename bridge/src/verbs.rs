//! ADD and CHECK over both namespaces: read, plan, change.

use std::time::Duration;

use cni_protocol::spec::CniResult;
use hostnet::sysctl::Sysctl;
use hostnet::{Ask, Both, Facts, KernelPair, LockKind, PairFacts, PairPlan, Step, pair};
use terms::IfName;

use super::desired::Desired;
use super::error::{BridgeError, Refusal};
use super::plan::{self, NewMacs};
use super::{check, existing, reply, uplink};

/// Refuses a pod that has such a link already.
pub(crate) fn refuse_occupied(kernels: &mut impl KernelPair, pod_end: &IfName) -> Result<(), BridgeError> {
    let facts = kernels.gather(&Both { host: Ask::default(), pod: existing::pod_ask(pod_end) })?;
    match facts.pod.link(pod_end) {
        Some(_) => Err(Refusal::Occupied(pod_end.clone()).into()),
        None => Ok(()),
    }
}

/// Records what the uplink is like, unless it is a port already. The attachment's own record must be there: from then on no
/// other DEL takes the uplink out.
pub(crate) fn remember_uplink<L>(
    kernels: &mut impl KernelPair,
    desired: &Desired<'_>,
    hold: impl Fn(LockKind) -> Result<L, BridgeError>,
) -> Result<(), BridgeError> {
    if desired.conf.uplink.is_none() { Ok(()) } else { remember(kernels, desired, hold) }
}

#[cold]
fn remember<L>(
    kernels: &mut impl KernelPair,
    desired: &Desired<'_>,
    hold: impl Fn(LockKind) -> Result<L, BridgeError>,
) -> Result<(), BridgeError> {
    for kind in [LockKind::Shared, LockKind::Exclusive] {
        let _held = hold(kind)?;
        let host = host_facts(kernels, desired)?.host;
        if uplink::is_port(desired, &host)? {
            return Ok(());
        }
        if kind == LockKind::Exclusive {
            uplink::record(desired, &host)?;
        }
    }
    Ok(())
}

/// What ADD must know of the host.
fn host_facts(kernels: &mut impl KernelPair, desired: &Desired<'_>) -> Result<PairFacts, BridgeError> {
    let mut facts = kernels.gather(&Both { host: existing::host_ask(desired)?, pod: Ask::default() })?;
    let forwarding = existing::forwarding(false);
    if facts.host.sysctl(&forwarding).is_some_and(|value| value == "0") {
        add_advertised(kernels, &mut facts.host)?;
    }
    if uplink::is_to_join(desired, &facts.host) {
        add_network(kernels, &mut facts.host)?;
    }
    Ok(facts)
}

/// Adds all links, addresses and routes of the host: what an uplink is used for.
#[cold]
fn add_network(kernels: &mut impl KernelPair, host: &mut Facts) -> Result<(), BridgeError> {
    let ask = Both { host: Ask { bridging: true, ..Ask::network() }, pod: Ask::default() };
    let all = kernels.gather(&ask)?.host;
    (host.links, host.addresses, host.routes) = (all.links, all.addresses, all.routes);
    Ok(())
}

/// Adds the routes of the host, and whether their links accept router advertisements.
#[cold]
fn add_advertised(kernels: &mut impl KernelPair, host: &mut Facts) -> Result<(), BridgeError> {
    let ask = |host| Both { host, pod: Ask::default() };
    let routes = kernels.gather(&ask(Ask { routes: true, ..Ask::default() }))?.host;
    host.routes = routes.routes;
    let keys = plan::advertised_links(host).into_iter().map(|link| Sysctl::ipv6_conf(&link, "accept_ra"));
    let ask_sysctls = Ask::default().with_sysctls(keys);
    let sysctls = kernels.gather(&ask(ask_sysctls))?.host;
    host.sysctls.extend(sysctls.sysctls);
    let links = routes.links.into_iter().filter(|link| host.link(&link.name).is_none()).collect::<Vec<_>>();
    host.links.extend(links);
    Ok(())
}

/// Makes an attachment and says what the runtime is told.
///
/// What all attachments share is made by one call at a time, and stays when the rest of the call fails: another attachment may
/// be on it by then. Nearly every call finds it as it must be. While one makes it, and takes it back where it cannot, no other
/// reads it or builds on it.
pub(crate) fn add<L>(
    kernels: &mut impl KernelPair,
    desired: &Desired<'_>,
    ipam: CniResult,
    (sandbox, macs): (&str, &NewMacs),
    hold: impl Fn(LockKind) -> Result<L, BridgeError>,
) -> Result<CniResult, BridgeError> {
    let mut held = hold(LockKind::Shared)?;
    let mut facts = host_facts(kernels, desired)?;
    if !plan::shared(desired, &facts.host, macs)?.is_empty() {
        drop(held);
        let alone = hold(LockKind::Exclusive)?;
        make_shared(kernels, desired, macs)?;
        drop(alone);
        held = hold(LockKind::Shared)?;
        facts = host_facts(kernels, desired)?;
    }
    let _held = held;
    pair::apply(kernels, &facts, &plan::own(desired, &facts, macs))?;
    Ok(reply::result(desired, ipam, (sandbox, macs.host_end), &facts.host)?)
}

/// Makes what is shared from what is there now, under the lock.
#[cold]
pub(crate) fn make_shared(
    kernels: &mut impl KernelPair,
    desired: &Desired<'_>,
    macs: &NewMacs,
) -> Result<(), BridgeError> {
    let facts = host_facts(kernels, desired)?;
    let ops = plan::shared(desired, &facts.host, macs)?;
    let plan = PairPlan { steps: ops.into_iter().map(Step::host).collect() };
    Ok(pair::apply(kernels, &facts, &plan)?)
}

/// Waits until no address of the pod is checked for duplicates any more.
#[cold]
pub(crate) fn await_addresses(kernels: &mut impl KernelPair, desired: &Desired<'_>) -> Result<(), BridgeError> {
    const STEP: Duration = Duration::from_millis(20);
    const ATTEMPTS: u32 = 500;
    let ask = || Ask { addresses: true, ..existing::pod_ask(&desired.pod_end) };
    let mut pending = None;
    for _ in 0..ATTEMPTS {
        let pod = kernels.gather(&Both { host: Ask::default(), pod: ask() })?.pod;
        let of = |state: fn(&hostnet::facts::AddressFlags) -> bool| {
            let ours = |wanted: &&hostnet::facts::Address| {
                pod.addresses_of(&desired.pod_end).any(|held| held.address == wanted.address && state(&held.flags))
            };
            desired.addresses.iter().find(ours).map(|wanted| wanted.address)
        };
        if let Some(duplicate) = of(|flags| flags.dad_failed) {
            return Err(BridgeError::Duplicate(duplicate));
        }
        pending = of(|flags| flags.tentative);
        if pending.is_none() {
            return Ok(());
        }
        std::thread::sleep(STEP);
    }
    pending.map_or(Ok(()), |address| Err(BridgeError::Duplicate(address)))
}

/// Compares what is with what ADD made.
pub(crate) fn check(kernels: &mut impl KernelPair, desired: &Desired<'_>) -> Result<(), BridgeError> {
    let host = existing::host_ask(desired)?.with_tables(existing::tables_of(desired));
    let pod = Ask::network();
    let of_cable = desired.conf.point_to_point;
    let host = Ask { table_ids: false, addresses: host.addresses || of_cable, routes: of_cable, ..host };
    let facts = kernels.gather(&Both { host, pod })?;
    let differences = check::differences(desired, &facts)?;
    if differences.is_empty() { Ok(()) } else { Err(BridgeError::Drift(differences)) }
}
