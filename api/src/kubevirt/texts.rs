//! Texts of one shape that several fields have: names, addresses, paths.

use std::net::Ipv4Addr;

use crate::reader::{Fields, Node};

/// A name may stand in interface names, in cni-args and in annotations.
pub(super) fn read_name(interface: &Fields<'_>) -> Option<String> {
    let node = interface.required("name")?;
    let text = node.text()?;
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if text.is_empty() || text.len() > 63 || !text.bytes().all(good) {
        node.expected("1 to 63 letters, digits, '-' and '_'");
        return None;
    }
    Some(text.to_owned())
}

/// An IANA service name (RFC 6335 §5.1).
pub(crate) fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// An IPv4 address, as KubeVirt and older fields of Kubernetes read it: leading zeros are dropped, `10.10.010.0` is 10.10.10.0.
pub(super) fn lenient_ipv4(text: &str) -> Option<Ipv4Addr> {
    let octet = |octet: &str| octet.bytes().all(|b| b.is_ascii_digit()).then(|| octet.parse::<u8>().ok())?;
    let octets: Option<Vec<_>> = text.split('.').map(octet).collect();
    <[u8; 4]>::try_from(octets?).ok().map(Ipv4Addr::from)
}

/// An absolute path within a container image, without `..`.
pub(super) fn read_path(node: &Node<'_>) -> Option<String> {
    let text = node.text()?;
    if !text.starts_with('/') || text.ends_with('/') || text.contains('\0') || text.split('/').any(|part| part == "..")
    {
        node.expected("the absolute path of a file, without \"..\"");
        return None;
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: DHCP-12
    #[test]
    fn leading_zeros_in_an_ipv4_address_are_decimal() {
        let read = |text: &str| lenient_ipv4(text).map(|address| address.to_string());
        assert_eq!(read("10.10.010.0").as_deref(), Some("10.10.10.0"));
        assert_eq!(read("01.1.0010.255").as_deref(), Some("1.1.10.255"));
    }

    #[test]
    fn what_is_no_ipv4_address_is_none() {
        for wrong in ["", "1.1.1", "1.1.1.", "1.1.1.1.1", "1.1.1.256", "1.1.1.+1", "+1.1.1.1", "10..1.1", "0x1.1.1.1"] {
            assert_eq!(lenient_ipv4(wrong), None, "{wrong:?}");
        }
    }
}
