//! Builders for tests.

use machine::Machine;

/// A small machine: one masquerade NIC, no disk, a kernel.
pub(crate) fn machine_for_tests() -> Machine {
    serde_json::from_str(include_str!("../../machine/fixtures/web.json")).unwrap()
}
