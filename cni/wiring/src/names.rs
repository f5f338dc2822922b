//! Names of the devices that the plugin makes in a pod, derived from the pod interface alone.

use terms::IfName;

/// Digits of the network's hash in a secondary pod interface's name.
const HASH_DIGITS: usize = 11;

/// The `<nic>` of `k6t-<nic>`, `tap<nic>` and `svc-<nic>`.
///
/// A secondary interface `pod<11 hex digits>` is known by its digits, any other by its whole name, which may then be
/// at most 11 bytes long so that every derived name fits the kernel's 15.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NicKey {
    text: String,
    is_hash: bool,
}

/// A pod interface whose name leaves no room for the names derived from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pod interface {0} is longer than 11 bytes and is not \"pod\" followed by 11 hexadecimal digits")]
pub struct NicNameError(IfName);

impl NicKey {
    /// Derives the key of a pod interface.
    ///
    /// # Errors
    /// When the name is too long to derive others from it.
    pub fn of(pod_interface: &IfName) -> Result<Self, NicNameError> {
        let name = pod_interface.as_str();
        let hash = name
            .strip_prefix("pod")
            .filter(|rest| rest.len() == HASH_DIGITS && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        match hash {
            Some(hash) => Ok(Self { text: hash.to_owned(), is_hash: true }),
            None if name.len() <= HASH_DIGITS => Ok(Self { text: name.to_owned(), is_hash: false }),
            None => Err(NicNameError(pod_interface.clone())),
        }
    }

    /// The tap of a masquerade NIC, the name that service meshes and operators know: `k6t-<nic>`.
    #[must_use]
    pub fn masquerade_tap(&self) -> IfName {
        derived(format!("k6t-{}", self.text))
    }

    /// The tap of a bridge-bound NIC: `tap0` for `eth0`, `tap<hash>` for a secondary, `tap-<nic>` for any other name.
    #[must_use]
    pub fn bridge_tap(&self) -> IfName {
        derived(match self.text.as_str() {
            "eth0" => "tap0".to_owned(),
            hash if self.is_hash => format!("tap{hash}"),
            name => format!("tap-{name}"),
        })
    }

    /// The tap on which the launcher answers DHCP and router solicitations: `svc-<nic>`.
    #[must_use]
    pub fn service_tap(&self) -> IfName {
        derived(format!("svc-{}", self.text))
    }
}

#[expect(clippy::expect_used, reason = "at most 4 bytes before at most 11 bytes of a valid name are a valid name")]
fn derived(name: String) -> IfName {
    name.parse().expect("a prefix of at most 4 bytes and a key of at most 11 make a valid interface name")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> NicKey {
        NicKey::of(&name.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_primary_keeps_its_name() {
        let eth0 = key("eth0");
        assert_eq!(eth0.masquerade_tap().as_str(), "k6t-eth0");
        assert_eq!(eth0.bridge_tap().as_str(), "tap0");
        assert_eq!(eth0.service_tap().as_str(), "svc-eth0");
    }

    #[test]
    fn a_secondary_is_known_by_its_hash() {
        let blue = key("pod16477688c0e");
        assert_eq!(blue.masquerade_tap().as_str(), "k6t-16477688c0e");
        assert_eq!(blue.bridge_tap().as_str(), "tap16477688c0e");
        assert_eq!(blue.service_tap().as_str(), "svc-16477688c0e");
    }

    #[test]
    fn a_long_name_without_a_hash_is_refused() {
        assert_eq!(key("net1").bridge_tap().as_str(), "tap-net1");
        let long = "pod16477688C0E".parse().unwrap();
        assert!(NicKey::of(&long).unwrap_err().to_string().contains("pod16477688C0E"));
    }
}
