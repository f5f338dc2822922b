//! Names that an attachment's parts on the host have: by them DEL knows them without a file.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use terms::{ContainerId, IfName, Invalid, NetworkName, VlanId};

/// What names an attachment, as hexadecimal digits of a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// The key of a container's interface in a network.
    pub(crate) fn of(network: &NetworkName, container: &ContainerId, if_name: &IfName) -> Self {
        Self(digits(&format!("{network}/{container}/{if_name}")))
    }

    /// A key that a record is filed under.
    pub(crate) fn recorded(text: String) -> Self {
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The host's end of the attachment's cable. Network managers leave links alone that are named so.
    pub(crate) fn host_end(&self) -> Result<IfName, Invalid> {
        host_end(&self.0)
    }
}

/// The link that holds a VLAN's gateway, and the port of the bridge that it is joined by.
pub(crate) fn vlan_gateway(bridge: &IfName, vlan: VlanId) -> Result<(IfName, IfName), Invalid> {
    let name: IfName = format!("{bridge}.{vlan}").parse()?;
    let port = host_end(&digits(&format!("gateway/{name}")))?;
    Ok((name, port))
}

/// A link's name has room for eleven digits behind `veth`.
fn host_end(digits: &str) -> Result<IfName, Invalid> {
    let short: String = digits.chars().take(11).collect();
    format!("veth{short}").parse()
}

fn digits(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().take(16).fold(String::new(), |mut digits, byte| {
        let _infallible = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_has_a_name_of_its_own_that_fits() {
        let key = |container: &str, if_name: &str| {
            Key::of(&"net".parse().unwrap(), &container.parse().unwrap(), &if_name.parse().unwrap())
        };
        let one = key("c1", "eth0");
        assert_eq!(one, key("c1", "eth0"));
        assert_ne!(one.host_end().unwrap(), key("c1", "eth1").host_end().unwrap());
        assert_ne!(one.host_end().unwrap(), key("c2", "eth0").host_end().unwrap());
        assert_eq!(one.host_end().unwrap().as_str().len(), 15);
        let long = "a-long-bridge12".parse().unwrap();
        assert!(vlan_gateway(&long, 4000.try_into().unwrap()).is_err());
    }
}
