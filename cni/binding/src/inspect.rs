//! For people who ask what is wrong with a wiring: what it should be made of, against what is there.

use hostnet::{Ask, Facts, Kernel};
use wiring::Request;

use super::desired::Desired;
use super::error::BindingError;
use super::refusal::Refusal;
use super::{check, rules, verbs};

/// What of a wiring's rules and settings is not as ADD made it, in the words of CHECK.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// Kernel settings.
    pub settings: Vec<String>,
    /// Tables, chains, sets and rules.
    pub rules: Vec<String>,
}

/// Reads all that a wiring is compared with, in the namespace of `kernel`.
///
/// # Errors
/// When the kernel refuses.
pub fn read(kernel: &mut impl Kernel, request: &Request) -> Result<Facts, BindingError> {
    let facts = verbs::gather(kernel, request)?;
    Ok(Facts { tables: kernel.gather(&Ask::default().with_tables(rules::ids()))?.tables, ..facts })
}

/// Compares what [`read`] found with what `request` comes to there. Pure; taps and marks are not looked at.
///
/// # Errors
/// When it cannot be said what there should be: a pod interface is missing or has lost its addresses.
pub fn drift(request: &Request, facts: &Facts) -> Result<Drift, Refusal> {
    // The group is one of the taps' properties.
    let desired = Desired::of(request, 0, facts)?;
    Ok(Drift { settings: check::of_settings(&desired, facts), rules: check::table_differences(&desired, facts) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_was_never_wired_lacks_all_and_one_without_the_interface_cannot_be_judged() {
        let request = r#"{"version":1,"owner":{"uid":107,"gid":107},
            "interfaces":[{"name":"default","podInterface":"eth0","binding":"masquerade","mac":"02:00:00:00:00:01"}]}"#;
        let request = Request::parse(request).unwrap();
        assert_eq!(drift(&request, &Facts::default()), Err(Refusal::Absent("eth0".parse().unwrap())));
        let facts = include_str!("../tests/golden/masquerade-dual-stack/facts.json");
        let drift = drift(&request, &serde_json::from_str(facts).unwrap()).unwrap();
        assert!(drift.rules.contains(&"nft table inet tapvisor is missing".to_owned()), "{drift:?}");
        assert!(drift.settings.iter().any(|words| words.starts_with("sysctl net/ipv4/ip_forward is ")), "{drift:?}");
    }
}
