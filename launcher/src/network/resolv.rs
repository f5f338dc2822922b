//! What `/etc/resolv.conf` says (resolv.conf(5)), as far as a guest can be told of it.

use std::net::IpAddr;

use dhcp::DomainName;

/// As many as the DHCP engine takes.
const MAX_SERVERS: usize = 16;
const MAX_SEARCH: usize = 32;

/// Name servers and search list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// Servers a guest can reach.
    pub(crate) servers: Vec<IpAddr>,
    search: Vec<DomainName>,
}

impl ResolvConf {
    /// Reads it; lines that are not understood are other resolvers' business. The last `search` or `domain` wins.
    pub(crate) fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => found.add_server(words.next().unwrap_or_default()),
                Some("search" | "domain") => found.search = names(words),
                _ => {}
            }
        }
        found.servers.truncate(MAX_SERVERS);
        found
    }

    fn add_server(&mut self, text: &str) {
        // A scope (fe80::1%eth0) names a link of the host's; a loopback address is the host's own resolver.
        match text.parse::<IpAddr>() {
            Ok(server) if server.is_loopback() => {
                tracing::warn!(%server, "the guest is not told of a name server on the loopback");
            }
            Ok(server) => self.servers.push(server),
            Err(_) => tracing::warn!(server = text, "the guest is not told of a name server that is no plain address"),
        }
    }

    /// The search list, with the domain of the VM's headless Service in front when it has a subdomain and the list
    /// tells the cluster's domain (`svc.<domain>`).
    pub(crate) fn search_with(&self, subdomain: Option<&str>, namespace: &str) -> Vec<DomainName> {
        let cluster = self.search.iter().find(|name| name.as_str().starts_with("svc."));
        let own = subdomain
            .zip(cluster)
            .and_then(|(subdomain, cluster)| format!("{subdomain}.{namespace}.{cluster}").parse::<DomainName>().ok());
        let mut search: Vec<_> = own.into_iter().collect();
        for name in &self.search {
            if !search.contains(name) && search.len() < MAX_SEARCH {
                search.push(name.clone());
            }
        }
        search
    }
}

fn names<'a>(words: impl Iterator<Item = &'a str>) -> Vec<DomainName> {
    let parsed = words.filter(|word| *word != ".").filter_map(|word| match word.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            tracing::warn!(%error, "the guest is not told of a search domain");
            None
        }
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "search default.svc.cluster.local svc.cluster.local cluster.local\n\
        nameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n";

    fn texts(names: &[DomainName]) -> Vec<&str> {
        names.iter().map(DomainName::as_str).collect()
    }

    #[test]
    fn a_pods_file_is_read() {
        let found = ResolvConf::parse(CLUSTER);
        assert_eq!(found.servers.len(), 2);
        let search = found.search_with(None, "default");
        assert_eq!(texts(&search), ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
    }

    #[test]
    fn a_subdomain_comes_first_where_the_cluster_is_known() {
        let search = ResolvConf::parse(CLUSTER).search_with(Some("db"), "default");
        assert_eq!(texts(&search)[0], "db.default.svc.cluster.local");
        assert_eq!(search.len(), 4);
        assert_eq!(ResolvConf::parse("search lan\n").search_with(Some("db"), "default").len(), 1);
    }

    #[test]
    fn what_a_guest_cannot_use_is_left_out() {
        let found = ResolvConf::parse(
            "nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver\n; nameserver 1.1.1.1\n\
            nameserver 192.0.2.1 # one\ndomain old\nsearch . a_b.example bad..name\n",
        );
        assert_eq!(found.servers, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(texts(&found.search_with(None, "default")), ["a_b.example"]);
    }
}
