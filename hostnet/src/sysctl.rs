//! Names of kernel settings under `/proc/sys/net`.

use std::fmt;
use std::str::FromStr;

use terms::{IfName, Invalid};

/// A setting of the network namespace, written as its path below `/proc/sys`: `net/ipv4/conf/eth0.5/forwarding`.
///
/// Slashes, not dots: an interface's name may hold dots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sysctl(String);

impl Sysctl {
    /// A setting of IPv4 on one link: `net/ipv4/conf/<link>/<setting>`.
    #[must_use]
    pub fn ipv4_conf(link: &IfName, setting: &'static str) -> Self {
        Self(["net/ipv4/conf/", link.as_str(), "/", setting].concat())
    }

    /// A setting of IPv6 on one link: `net/ipv6/conf/<link>/<setting>`.
    #[must_use]
    pub fn ipv6_conf(link: &IfName, setting: &'static str) -> Self {
        Self(["net/ipv6/conf/", link.as_str(), "/", setting].concat())
    }

    /// A setting of the whole namespace, such as `ipv4/ip_forward` or `bridge/bridge-nf-call-iptables`.
    #[must_use]
    pub fn net(setting: &'static str) -> Self {
        Self(["net/", setting].concat())
    }

    /// The path below `/proc/sys`, with slashes and without one in front.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0
    }

    /// The link it belongs to, if it is one link's (and not `all` or `default`).
    #[must_use]
    pub fn link(&self) -> Option<IfName> {
        let mut parts = self.0.split('/').skip(2);
        match (parts.next(), parts.next()) {
            (Some("conf" | "neigh"), Some("all" | "default")) => None,
            (Some("conf" | "neigh"), Some(link)) => link.parse().ok(),
            _ => None,
        }
    }
}

impl FromStr for Sysctl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |rule| Err(Invalid::new("sysctl", text, rule));
        if !text.starts_with("net/") {
            return refuse("must start with net/");
        }
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) || text.contains(char::is_control) {
            return refuse("must be a path below /proc/sys without empty, '.' or '..' parts");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Sysctl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Sysctl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_with_dots_stays_one_part() {
        let key = Sysctl::ipv4_conf(&"eth0.5".parse().unwrap(), "forwarding");
        assert_eq!(key.path(), "net/ipv4/conf/eth0.5/forwarding");
        assert_eq!(key.link().unwrap().as_str(), "eth0.5");
        assert_eq!("net/ipv6/conf/all/forwarding".parse::<Sysctl>().unwrap().link(), None);
        assert_eq!(Sysctl::net("ipv4/ip_forward").link(), None);
    }

    #[test]
    fn paths_that_leave_net_are_refused() {
        for text in ["kernel/hostname", "net/../kernel/hostname", "net//x", "net/ipv4/\n"] {
            assert!(text.parse::<Sysctl>().is_err(), "{text:?}");
        }
    }
}
