//! What is derived from names, so that it survives a restart.

use sha2::{Digest, Sha256};
use terms::{IfName, Invalid, MacAddr, ObjectKey};

use crate::encoding::hex;

/// The name of a secondary network's interface in the pod: `pod` and 11 digits of the network name's hash, as KubeVirt
/// names it.
pub(super) fn secondary_interface(network: &str) -> Result<IfName, Invalid> {
    let digits = hex(&Sha256::digest(network));
    format!("pod{}", &digits[..11]).parse()
}

/// A locally administered address of an interface; `vm` identifies the VM.
pub(super) fn mac(vm: &str, interface: &str) -> MacAddr {
    let derived = |salt: &str| {
        let hash = Sha256::digest(format!("{vm}/{interface}{salt}"));
        let mut bytes = [0; 5];
        bytes.copy_from_slice(&hash[..5]);
        bytes
    };
    // All zeros is the gateway's address; the chance is one in 2⁴⁰, the cost of excluding it one line.
    let bytes = derived("");
    MacAddr::local(if bytes == [0; 5] { derived("/") } else { bytes })
}

/// A UUID of version 8, made of a name by SHA-256 as RFC 9562 appendix B.2 shows; version 5 would need SHA-1.
pub(super) fn uuid(key: &ObjectKey) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(format!("tapvisor.io/vm/{key}"))[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(&bytes);
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    groups.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secondary_interfaces_are_kubevirts() {
        assert_eq!(secondary_interface("blue").unwrap().as_str(), "pod16477688c0e");
    }

    #[test]
    fn identities_differ_by_namespace_name_and_interface_and_are_well_formed() {
        let (web, other) = (ObjectKey::new("default", "web").unwrap(), ObjectKey::new("test", "web").unwrap());
        assert_ne!(mac("default/web", "default"), mac("default/web", "blue"));
        assert_ne!(mac("default/web", "default"), mac("test/web", "default"));
        assert_eq!(mac("default/web", "default").bytes()[0], 2);
        assert_ne!(super::uuid(&web), super::uuid(&other));
        let uuid = uuid(&web);
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "8"));
        assert!(matches!(&uuid[19..20], "8" | "9" | "a" | "b"), "{uuid}");
    }
}
