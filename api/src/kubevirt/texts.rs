//! Texts of one shape that several fields have: names, addresses, paths.

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

/// An IPv4 address without the leading zeros that KubeVirt accepts and drops: `10.10.010.0` is 10.10.10.0.
pub(super) fn plain_ipv4(text: &str) -> Option<String> {
    let octets: Option<Vec<String>> = text
        .split('.')
        .map(|octet| {
            let digits = !octet.is_empty() && octet.len() <= 8 && octet.bytes().all(|b| b.is_ascii_digit());
            octet.parse::<u32>().ok().filter(|_| digits).map(|number| number.to_string())
        })
        .collect();
    octets.map(|octets| octets.join("."))
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
