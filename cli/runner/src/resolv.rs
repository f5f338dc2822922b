//! The name servers of a VM: its network's own, else the host's as far as the VM could reach them, and what its manifest says.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use api::kubevirt::{DnsConfig, DnsPolicy};

/// Where a host's servers stand. With systemd-resolved the first names a server on the loopback alone; the second names those
/// that it asks, and is what kubelet is given on such a host.
const HOST_FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The content of a resolv.conf(5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolv {
    /// Servers in the order they are asked.
    pub servers: Vec<IpAddr>,
    /// Domains tried for short names.
    pub search: Vec<String>,
    /// Options of the resolver, such as `ndots:5`.
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

    /// This host's servers, below a root folder: of the first file that names one which a VM could reach.
    #[must_use]
    pub fn of_host_below(root: &Path) -> Self {
        let read = |file: &str| std::fs::read_to_string(root.join(file.trim_start_matches('/'))).unwrap_or_default();
        let [first, second] = HOST_FILES.map(|file| Self::of_host(&read(file)));
        if first.servers.is_empty() && !second.servers.is_empty() { second } else { first }
    }

    /// What `dnsPolicy` and `dnsConfig` make of the network's servers and the host's, as kubelet does for a pod: what is given
    /// comes after what there is, and an option replaces that of its name.
    #[must_use]
    pub fn of_vm(dns: &DnsConfig, network: &Self, host: impl FnOnce() -> Self) -> Self {
        let mut resolv = match dns.policy {
            DnsPolicy::None => Self::default(),
            DnsPolicy::ClusterFirst | DnsPolicy::ClusterFirstWithHostNet if !network.servers.is_empty() => {
                network.clone()
            }
            DnsPolicy::ClusterFirst | DnsPolicy::ClusterFirstWithHostNet | DnsPolicy::Default => host(),
        };
        add_missing(&mut resolv.servers, &dns.nameservers);
        add_missing(&mut resolv.search, &dns.searches);
        let name = |option: &String| option.split(':').next().map(str::to_owned);
        resolv.options.retain(|old| !dns.options.iter().any(|new| name(new) == name(old)));
        resolv.options.extend_from_slice(&dns.options);
        resolv
    }

    /// The content of a file: one keyword per line.
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

fn add_missing<T: Clone + PartialEq>(list: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
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

    // spec: DHCP-12
    #[test]
    fn behind_a_resolver_on_the_loopback_the_servers_that_it_asks_are_taken() {
        let root = tempfile::tempdir().unwrap();
        let servers = || Resolv::of_host_below(root.path()).servers;
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(servers(), [] as [IpAddr; 0]);
        write("etc/resolv.conf", "nameserver 127.0.0.53\n");
        assert_eq!(servers(), [] as [IpAddr; 0]);
        write("run/systemd/resolve/resolv.conf", "nameserver 192.0.2.53\n");
        assert_eq!(servers(), ["192.0.2.53".parse::<IpAddr>().unwrap()]);
        write("etc/resolv.conf", "nameserver 127.0.0.53\nnameserver 192.0.2.54\n");
        assert_eq!(servers(), ["192.0.2.54".parse::<IpAddr>().unwrap()]);
    }

    // spec: DHCP-12
    #[test]
    fn a_manifests_policy_and_servers_are_obeyed() {
        let [network, host] = ["192.0.2.1", "192.0.2.2"]
            .map(|server| Resolv::of_host(&format!("nameserver {server}\nsearch lan\noptions ndots:1 edns0\n")));
        let text = |policy, network: &Resolv| {
            let dns = DnsConfig {
                policy,
                nameservers: vec!["192.0.2.2".parse().unwrap(), "192.0.2.3".parse().unwrap()],
                searches: vec!["lan".to_owned(), "example.org".to_owned()],
                options: vec!["ndots:5".to_owned()],
            };
            Resolv::of_vm(&dns, network, || host.clone()).to_text()
        };
        let [first, second, third] = ["1", "2", "3"].map(|last| format!("nameserver 192.0.2.{last}\n"));
        let searches = "search lan example.org\n";
        let added = format!("{second}{third}{searches}options edns0 ndots:5\n");
        assert_eq!(text(DnsPolicy::ClusterFirst, &network), format!("{first}{added}"));
        assert_eq!(text(DnsPolicy::ClusterFirst, &Resolv::default()), added, "the network has none");
        assert_eq!(text(DnsPolicy::Default, &network), added);
        assert_eq!(text(DnsPolicy::None, &network), format!("{second}{third}{searches}options ndots:5\n"));
        assert_eq!(Resolv::of_vm(&DnsConfig::default(), &network, || host.clone()), network);
    }

    #[test]
    fn a_host_without_servers_gives_none() {
        assert_eq!(Resolv::of_host("nameserver 127.0.0.1\nnameserver\nnameserver nonsense\n").servers.len(), 0);
        assert_eq!(Resolv::of_host("domain a.example\nsearch b.example\n").search, ["b.example"]);
    }
}
