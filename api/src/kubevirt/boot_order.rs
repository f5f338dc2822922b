//! `bootOrder` of disks and interfaces, which share its numbers.

use std::collections::BTreeMap;

use crate::reader::Fields;

/// Boot order numbers in use, with the path of the device that has each.
#[derive(Default)]
pub(super) struct BootOrders(BTreeMap<u32, String>);

impl BootOrders {
    /// Reads `bootOrder` of a disk or an interface.
    pub(super) fn read(&mut self, device: &Fields<'_>) -> Option<u32> {
        let node = device.field("bootOrder")?;
        let order = node.integer(1..=u32::MAX)?;
        if let Some(other) = self.0.insert(order, device.node().path().to_owned()) {
            node.refuse(format!("{order} is taken by {other}"));
        }
        Some(order)
    }
}
