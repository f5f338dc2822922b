//! PCI addresses of NICs and disks.

use machine::PciAddress;

use crate::reader::Node;

/// Reads an address.
pub(super) fn read_pci(node: &Node<'_>) -> Option<PciAddress> {
    match node.text()?.parse() {
        Ok(address) => Some(address),
        Err(error) => {
            node.refuse(error);
            None
        }
    }
}

/// Reports addresses that exclude one of those before them; each with the node of its field.
pub(super) fn check(given: &[(Node<'_>, PciAddress)]) {
    for (index, (node, address)) in given.iter().enumerate() {
        let before = given.iter().take(index);
        let mut conflicts = before.filter_map(|(other, taken)| Some((address.conflict(taken)?, other)));
        if let Some((why, other)) = conflicts.next() {
            node.refuse(format!("{why}, see {}", other.path()));
        }
    }
}
