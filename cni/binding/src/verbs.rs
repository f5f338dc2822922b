//! The verbs inside a namespace: read, plan, change.
//!
//! Assumption: the process serves one call and ends. So facts and wirings are not freed (`ManuallyDrop`): that would take one
//! instruction in twenty.

use std::mem::ManuallyDrop;

use hostnet::sysctl::Sysctl;
use hostnet::{Ask, Facts, Kernel, Op, Plan, apply, tear_down};
use terms::{IfName, MacAddr};
use wiring::Request;

use super::addresses::{self, Choice, Given};
use super::desired::{Desired, refuse_impossible};
use super::error::BindingError;
use super::existing::{self, WiringState};
use super::pod::advertised_links;
use super::{check, del, plan, rules};

/// A verb and what it is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work<'a> {
    Add { request: &'a Request, given: &'a [Given], group: u32, dry: bool },
    Del { request: Option<&'a Request>, group: u32 },
    Check { request: &'a Request, group: u32 },
}

impl Work<'_> {
    /// Does it in the namespace of `kernel`; only ADD has an outcome.
    pub(crate) fn perform(self, kernel: &mut impl Kernel) -> Result<Option<Outcome>, BindingError> {
        match self {
            Self::Add { request, given, group, dry } => add(kernel, request, given, group, dry).map(Some),
            Self::Del { request, group } => del(kernel, request, group).map(|()| None),
            Self::Check { request, group } => check(kernel, request, group).map(|()| None),
        }
    }
}

/// The outcome of an ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What was done; empty when all was there already.
    pub(crate) plan: Plan,
    /// Pod interfaces whose Ethernet address is now the one that the request demands.
    pub(crate) macs: Vec<(IfName, MacAddr)>,
    /// Which address the guest gets where there are several.
    pub(crate) choices: Vec<Choice>,
}

/// Meets a request. `dry` only plans.
fn add(
    kernel: &mut impl Kernel,
    request: &Request,
    given: &[Given],
    group: u32,
    dry: bool,
) -> Result<Outcome, BindingError> {
    let mut facts = ManuallyDrop::new(gather(kernel, request)?);
    let mut desired = Desired::of(request, group, &facts)?;
    let existing = existing::of(&desired, &facts)?;
    if existing != WiringState::Complete {
        refuse_impossible(request, &desired, &facts)?;
    }
    if existing == WiringState::Partial && !dry {
        // An earlier ADD was killed halfway; the marks of its taps record what it had changed.
        remove(kernel, &del::plan(group, Some(request), &facts))?;
        facts = ManuallyDrop::new(gather(kernel, request)?);
        desired = Desired::of(request, group, &facts)?;
    }
    let macs = desired.nics.iter().filter_map(|nic| Some((nic.pod_interface.clone(), nic.pod_mac?))).collect();
    if existing == WiringState::Complete {
        return Ok(Outcome { macs, ..Outcome::default() });
    }
    let choices = addresses::choices(request, given, &facts);
    let plan = plan::plan(desired, &choices, &facts)?;
    if !dry {
        apply(kernel, &facts, &plan)?;
    }
    Ok(Outcome { plan, macs, choices })
}

/// Removes an attachment, whatever is left of it.
fn del(kernel: &mut impl Kernel, request: Option<&Request>, group: u32) -> Result<(), BindingError> {
    let links = kernel.gather(&Ask { links: true, ..Ask::default() })?;
    let nothing = links.links.iter().all(|link| link.group != group) && request.is_none();
    if nothing {
        return Ok(());
    }
    let table_ids = match kernel.gather(&Ask { table_ids: true, ..Ask::default() }) {
        Ok(tables) => tables.table_ids,
        // Without nf_tables there are none to remove.
        Err(error) if error.lacks_subsystem() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let facts = Facts { table_ids, ..links };
    remove(kernel, &del::plan(group, request, &facts))
}

/// Compares what is with what ADD made.
fn check(kernel: &mut impl Kernel, request: &Request, group: u32) -> Result<(), BindingError> {
    let mut facts = ManuallyDrop::new(gather(kernel, request)?);
    let desired = ManuallyDrop::new(Desired::of(request, group, &facts)?);
    let mut differences = check::differences(&desired, &facts);
    // Nearly always the tables are as they were; only to name what is not are they read.
    if !kernel.holds(&desired.tables, &facts)? {
        facts.tables = kernel.gather(&Ask::default().with_tables(rules::ids()))?.tables;
        differences.extend(check::table_differences(&desired, &facts));
    }
    if differences.is_empty() { Ok(()) } else { Err(BindingError::Drift(differences)) }
}

/// Carries out the plan of a DEL. The taps tell what is to be restored: they stay until that is done, for a later DEL.
fn remove(kernel: &mut impl Kernel, plan: &Plan) -> Result<(), BindingError> {
    let takes_links = |op: &Op| matches!(op, Op::DeleteLink { .. } | Op::DeleteGroup { .. });
    let links = plan.ops.iter().position(takes_links).unwrap_or(plan.ops.len());
    let (restoring, links) = plan.ops.split_at(links);
    for part in [restoring, links] {
        let failures = tear_down(kernel, part);
        if !failures.is_empty() {
            return Err(BindingError::TearDown(failures));
        }
    }
    Ok(())
}

/// All that planning looks at; of the tables only which there are. Which links' settings matter shows only when the routes are known.
pub(crate) fn gather(kernel: &mut impl Kernel, request: &Request) -> Result<Facts, BindingError> {
    let fixed = ["ipv4/ip_forward", "ipv6/conf/all/forwarding", plan::IPV6_OFF_BY_DEFAULT].map(Sysctl::net);
    let ask = Ask { table_ids: true, ..Ask::network().with_sysctls(fixed) };
    let mut facts = kernel.gather(&ask)?;
    let of_routers = advertised_links(&facts).into_iter().map(|link| Sysctl::ipv6_conf(&link, "accept_ra"));
    let of_taps = existing::names(request).into_iter().filter(|name| facts.link(name).is_some());
    let more: Vec<_> = of_routers.chain(of_taps.map(|tap| Sysctl::ipv4_conf(&tap, "route_localnet"))).collect();
    if !more.is_empty() {
        facts.sysctls.extend(kernel.gather(&Ask::default().with_sysctls(more))?.sysctls);
    }
    Ok(facts)
}

#[cfg(test)]
mod tests;
