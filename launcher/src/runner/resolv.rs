//! The name servers of a VM: its network's own, else the host's as far as the VM could reach them.

use std::fmt::Write as _;
use std::net::IpAddr;

/// What a resolv.conf says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolv {
    /// Servers in the order they are asked.
    pub servers: Vec<IpAddr>,
    /// Domains tried for short names.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

impl Resolv {
    /// The host's servers without those that only the host itself reaches: loopback, unspecified, and link-local
    /// ones, whose zone is a link the VM does not have.
    #[must_use]
    pub fn of_host(text: &str) -> Self {
        let mut resolv = Self::default();
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => resolv.servers.extend(words.next().and_then(reachable)),
                // The last of these lines counts (resolv.conf(5)).
                Some("search" | "domain") => resolv.search = words.map(str::to_owned).collect(),
                Some("options") => resolv.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolv
    }

    /// As a file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        for (keyword, words) in [("search", &self.search), ("options", &self.options)] {
            if !words.is_empty() {
                let _ = writeln!(text, "{keyword} {}", words.join(" "));
            }
        }
        text
    }
}

fn reachable(text: &str) -> Option<IpAddr> {
    // A zone (`fe80::1%eth0`) does not parse: link-local.
    let server: IpAddr = text.parse().ok()?;
    let link_local = matches!(server, IpAddr::V6(address) if address.is_unicast_link_local());
    (!server.is_loopback() && !server.is_unspecified() && !link_local).then_some(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_only_the_host_reaches_are_left_out() {
        let host = "# systemd\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n\
                    nameserver ::1\nnameserver 2001:db8::53\nsearch lan example.org\noptions edns0 trust-ad\n";
        let expected =
            "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch lan example.org\noptions edns0 trust-ad\n";
        assert_eq!(Resolv::of_host(host).to_text(), expected);
    }

    #[test]
    fn a_host_without_servers_gives_none() {
        assert_eq!(Resolv::of_host("nameserver 127.0.0.1\nnameserver\nnameserver nonsense\n").servers.len(), 0);
        assert_eq!(Resolv::of_host("domain a.example\nsearch b.example\n").search, ["b.example"]);
    }
}
