//! DNS: where the machine's names are resolved.

use std::net::IpAddr;

use super::texts::lenient_ipv4;
use crate::reader::{Fields, Node, Scope};

/// Where names are resolved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsConfig {
    /// What the rest is added to.
    pub policy: DnsPolicy,
    /// Servers.
    pub nameservers: Vec<IpAddr>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options of resolv.conf, as `name` or `name:value`.
    pub options: Vec<String>,
}

/// What a pod's resolver configuration starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnsPolicy {
    /// The cluster's server and domains.
    #[default]
    ClusterFirst,
    /// The cluster's, on the host's network too.
    ClusterFirstWithHostNet,
    /// The node's own.
    Default,
    /// Nothing.
    None,
}

const POLICIES: &[(&str, DnsPolicy)] = &[
    ("ClusterFirst", DnsPolicy::ClusterFirst),
    ("ClusterFirstWithHostNet", DnsPolicy::ClusterFirstWithHostNet),
    ("Default", DnsPolicy::Default),
    ("None", DnsPolicy::None),
];

/// Reads `dnsPolicy` and `dnsConfig`.
pub(super) fn read(spec: &Fields<'_>) -> DnsConfig {
    let policy = spec.one_of("dnsPolicy", POLICIES, &[]).unwrap_or_default();
    let config = spec.field("dnsConfig").and_then(|node| node.fields(|config| read_config(config, policy)));
    let config = config.unwrap_or(DnsConfig { policy, ..DnsConfig::default() });
    if policy == DnsPolicy::None && config.nameservers.is_empty() {
        spec.node().named("dnsConfig").named("nameservers").refuse("must have a server when dnsPolicy is None");
    }
    config
}

fn read_config(config: &Fields<'_>, policy: DnsPolicy) -> DnsConfig {
    // The bounds of Kubernetes' own validation.
    bounded(config, "nameservers", 3);
    bounded(config, "searches", 32);
    config.ignored(
        Scope::Everywhere,
        "a guest learns its servers by DHCP, which has no place for options",
        &["options"],
    );
    DnsConfig {
        policy,
        nameservers: config.items("nameservers").iter().filter_map(read_server).collect(),
        searches: config.items("searches").iter().filter_map(|node| read_word(node, "a domain")).collect(),
        options: config.items("options").iter().filter_map(|node| node.fields(read_option)?).collect(),
    }
}

fn read_server(node: &Node<'_>) -> Option<IpAddr> {
    let text = node.text()?;
    let server = text.parse().ok().or_else(|| lenient_ipv4(text).map(IpAddr::V4));
    if server.is_none() {
        node.expected("an IP address");
    }
    server
}

fn bounded(config: &Fields<'_>, name: &'static str, most: usize) {
    if let Some(node) = config.items(name).get(most) {
        node.refuse(format!("there can be at most {most}"));
    }
}

fn read_option(option: &Fields<'_>) -> Option<String> {
    let value = option.set("value").and_then(|node| read_word(&node, "a value"));
    let name = read_word(&option.required("name")?, "an option")?;
    Some(value.map_or(name.clone(), |value| format!("{name}:{value}")))
}

/// A word that is written to resolv.conf, where spaces and line ends separate.
fn read_word(node: &Node<'_>, what: &str) -> Option<String> {
    let text = node.text()?;
    if text.is_empty() || text.len() > 253 || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        node.expected(format_args!("{what} of 1 to 253 bytes without spaces"));
        return None;
    }
    Some(text.to_owned())
}
