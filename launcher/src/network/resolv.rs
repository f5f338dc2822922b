//! What `/etc/resolv.conf` says (resolv.conf(5)), as far as a guest can be told of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dhcp::DomainName;

/// As many as the DHCP engine takes.
const MAX_SERVERS: usize = 16;
const MAX_SEARCH: usize = 32;

/// The name servers of the pod, and those that the networks of single NICs give, by the NIC's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolvers {
    pub(crate) of_pod: ResolvConf,
    pub(crate) of_nics: BTreeMap<String, ResolvConf>,
}

/// Name servers and search list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// Servers a guest can reach.
    pub(crate) servers: Vec<IpAddr>,
    /// What a guest cannot be told of it, in words.
    pub(crate) not_told: Vec<String>,
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
                Some("search" | "domain") => found.search = found.names(words),
                _ => {}
            }
        }
        if found.servers.len() > MAX_SERVERS {
            found.leave_out(format!("{} name servers: it is told of the first {MAX_SERVERS}", found.servers.len()));
        }
        found.servers.truncate(MAX_SERVERS);
        found
    }

    fn add_server(&mut self, text: &str) {
        // A scope (fe80::1%eth0) names a link of the host's; a loopback address is the host's own resolver.
        match text.parse::<IpAddr>() {
            Ok(server) if server.is_loopback() => {
                self.leave_out(format!("the name server {server}: that is the loopback"));
            }
            Ok(server) => self.servers.push(server),
            Err(_) => self.leave_out(format!("the name server {text:?}: that is no plain address")),
        }
    }

    fn leave_out(&mut self, what: String) {
        self.not_told.push(what);
    }

    fn names<'a>(&mut self, words: impl Iterator<Item = &'a str>) -> Vec<DomainName> {
        let parsed = words.filter(|word| *word != ".").filter_map(|word| match word.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.leave_out(format!("a search domain: {error}"));
                None
            }
        });
        parsed.collect()
    }

    /// The search list, with the domain of the VM's headless Service in front when it has a subdomain and the list
    /// tells the cluster's domain (`svc.<domain>`); and in words what the guest is not told of it.
    pub(crate) fn search_with(&self, subdomain: Option<&str>, namespace: &str) -> (Vec<DomainName>, Option<String>) {
        let cluster = self.search.iter().find(|name| name.as_str().starts_with("svc."));
        let own = subdomain
            .zip(cluster)
            .and_then(|(subdomain, cluster)| format!("{subdomain}.{namespace}.{cluster}").parse::<DomainName>().ok());
        let mut search: Vec<_> = own.into_iter().collect();
        for name in &self.search {
            if !search.contains(name) {
                search.push(name.clone());
            }
        }
        let names = search.len();
        search.truncate(MAX_SEARCH);
        let left_out = names.checked_sub(MAX_SEARCH).filter(|more| *more > 0);
        (search, left_out.map(|more| format!("the last {more} names of the search list: {MAX_SEARCH} can be told")))
    }
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
        let search = found.search_with(None, "default").0;
        assert_eq!(texts(&search), ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
    }

    #[test]
    fn a_subdomain_comes_first_where_the_cluster_is_known() {
        let search = ResolvConf::parse(CLUSTER).search_with(Some("db"), "default").0;
        assert_eq!(texts(&search)[0], "db.default.svc.cluster.local");
        assert_eq!(search.len(), 4);
        assert_eq!(ResolvConf::parse("search lan\n").search_with(Some("db"), "default").0.len(), 1);
        let long: String = (0..40).map(|n| format!(" n{n}.example")).collect();
        let (search, left_out) = ResolvConf::parse(&format!("search{long}\n")).search_with(None, "default");
        assert_eq!((search.len(), search[31].as_str()), (32, "n31.example"));
        assert_eq!(left_out.unwrap(), "the last 8 names of the search list: 32 can be told");
    }

    #[test]
    fn what_a_guest_cannot_use_is_left_out() {
        let found = ResolvConf::parse(
            "nameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver\n; nameserver 1.1.1.1\n\
            nameserver 192.0.2.1 # one\ndomain old\nsearch . a_b.example bad..name\n",
        );
        assert_eq!(found.servers, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(texts(&found.search_with(None, "default").0), ["a_b.example"]);
        assert_eq!(found.not_told.len(), 4, "{:?}", found.not_told);
    }
}
