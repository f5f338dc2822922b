//! Whether the host masquerades what the VM sends beyond it, as its network's configuration has it.

use std::net::IpAddr;

use hostnet::nft::{ChainFacts, ElementKey, Hook, RuleFacts, Statement, TableFacts, Test, Value};
use wiring::Family;

use super::{Case, Findings, NicView, Words};
use crate::explanation::{Code, Severity};
use crate::{condition, firewall};

pub(super) fn diagnose(case: &Case<'_>, nic: &NicView<'_>, findings: &mut Findings) {
    let configured = case.seen.networks.iter().find(|network| network.ifname == nic.interface.pod_interface);
    let Some(network) = configured.filter(|network| has_ip_masq(&network.config)) else { return };
    // What the older iptables holds cannot be read here.
    if case.seen.has_older_nat {
        return;
    }
    let routed = |address: &&IpAddr| case.is_routed_by_host(nic, Family::of(**address));
    let bare = nic.addresses.iter().filter(routed).find(|address| !is_masqueraded(&case.seen.host.tables, **address));
    let Some(address) = bare else { return };
    let words = Words::new(
        format!(
            "no rule of the host masquerades what {address} sends, though network {} is configured so (ipMasq)",
            network.network()
        ),
        "It leaves the host under the VM's own address, and answers find no way back.",
        format!("{} Find the program that flushed nft or iptables.", case.status().rewire()),
    );
    findings.add(Severity::Error, Code::MasqueradeGone, Some(&nic.interface.name), "host", words);
}

fn has_ip_masq(config: &serde_json::Value) -> bool {
    config.to_string().contains("\"ipMasq\":true")
}

/// Whether a rule names the address, or masquerades whatever address there is or those of a set that holds it, in a table with
/// a chain at the hook behind routing. The reference plugins make a rule for each address, `tapvisor-bridge` an element.
fn is_masqueraded(tables: &[TableFacts], address: IpAddr) -> bool {
    let is_behind_routing = |chain: &ChainFacts| chain.base.as_ref().is_some_and(|base| base.hook == Hook::Postrouting);
    let concerned = tables.iter().filter(|table| firewall::concerns(table.id.family, address));
    let rules = concerned
        .filter(|table| table.chains.iter().any(is_behind_routing))
        .flat_map(|table| table.chains.iter().flat_map(|chain| &chain.rules).map(move |rule| (table, rule)));
    let names_it = |rule: &RuleFacts| rule.statements.iter().any(|one| condition::names_address(one, address));
    rules
        .into_iter()
        .any(|(table, rule)| names_it(rule) || masquerades_any(rule) || masquerades_in_set(table, rule, address))
}

/// Whether a rule masquerades the addresses of a set, and the set holds this one.
fn masquerades_in_set(table: &TableFacts, rule: &RuleFacts, address: IpAddr) -> bool {
    let holds = |name: &str| {
        let sets = table.sets.iter().filter(|set| set.name == name);
        sets.flat_map(|set| &set.elements).any(|element| element.key.contains(&ElementKey::Is(Value::Ip(address))))
    };
    let is_in_set = |one: &Statement| matches!(one, Statement::Match { test: Test::InSet(name), .. } if holds(name));
    rule.statements.contains(&Statement::Masquerade) && rule.statements.iter().any(is_in_set)
}

/// Whether a rule masquerades, by nft or by MASQUERADE of iptables, and asks for no part of the packet.
fn masquerades_any(rule: &RuleFacts) -> bool {
    let masquerades = |one: &Statement| {
        *one == Statement::Masquerade
            || condition::is_foreign(one, "masq")
            || condition::is_extension(one, "target", "MASQUERADE")
    };
    let asks_packet = |one: &Statement| match one {
        Statement::Match { fields, .. } => fields.iter().any(|field| field.is_in_packet()),
        _ => false,
    };
    rule.statements.iter().any(masquerades) && !rule.statements.iter().any(asks_packet)
}
