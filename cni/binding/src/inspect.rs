//! For `explain` and for tests: what ADD would do, and how what is there differs from what ADD made.

use hostnet::{Ask, Facts, Kernel, Plan};
use wiring::Request;

use super::desired::{Desired, refuse_impossible};
use super::drift::Drift;
use super::error::BindingError;
use super::existing::{self, WiringState};
use super::refusal::Refusal;
use super::{addresses, check, del, rules, verbs};

/// What ADD would do where `facts` are so; `group` is the link group of the attachment. Nothing if all is there already.
///
/// # Errors
/// When the request cannot be met there.
pub fn plan(request: &Request, group: u32, facts: &Facts) -> Result<Plan, Refusal> {
    let desired = Desired::of(request, group, facts)?;
    let existing = existing::of(&desired, facts)?;
    if existing != WiringState::Complete {
        refuse_impossible(request, &desired, facts)?;
    }
    match existing {
        WiringState::Complete => Ok(Plan::default()),
        WiringState::None => super::plan::plan(desired, &addresses::choices(request, &[], facts), facts),
        WiringState::Partial => Ok(del::plan(group, Some(request), facts)),
    }
}

/// Reads all that a wiring is compared with, in the namespace of `kernel`.
///
/// # Errors
/// When the kernel refuses.
pub fn read(kernel: &mut impl Kernel, request: &Request) -> Result<Facts, BindingError> {
    let facts = verbs::gather(kernel, request)?;
    Ok(Facts { tables: kernel.gather(&Ask::default().with_tables(rules::ids()))?.tables, ..facts })
}

/// Compares the tables and settings that [`read`] found with what `request` needs there. Pure; taps and marks are not compared.
///
/// # Errors
/// When it cannot be said what there should be: a pod interface is missing or has lost its addresses.
pub fn drift(request: &Request, facts: &Facts) -> Result<Vec<Drift>, Refusal> {
    // The group is one of the taps' properties.
    let desired = Desired::of(request, 0, facts)?;
    let mut found = check::table_differences(&desired, facts);
    found.extend(check::of_settings(&desired, facts));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use hostnet::nft::{Family, TableDrift, TableId};
    use hostnet::sysctl::Sysctl;

    use super::*;

    #[test]
    fn an_unwired_namespace_lacks_all_and_one_without_the_nic_is_an_error() {
        let request = r#"{"version":1,"owner":{"uid":107,"gid":107},
            "interfaces":[{"name":"default","podInterface":"eth0","binding":"masquerade","mac":"02:00:00:00:00:01"}]}"#;
        let request = Request::parse(request).unwrap();
        assert_eq!(drift(&request, &Facts::default()), Err(Refusal::Absent("eth0".parse().unwrap())));
        let facts = include_str!("../tests/golden/masquerade-dual-stack/facts.json");
        let drift = drift(&request, &serde_json::from_str(facts).unwrap()).unwrap();
        let table = TableDrift::TableMissing(TableId::new(Family::Inet, "tapvisor"));
        assert!(drift.contains(&Drift::Table(table)), "{drift:?}");
        let is_forwarding =
            |drift: &Drift| matches!(drift, Drift::Setting { key, .. } if *key == Sysctl::net("ipv4/ip_forward"));
        assert!(drift.iter().any(is_forwarding), "{drift:?}");
    }
}
