//! The annotation that demands an engine.

use machine::EngineDemand;

use crate::metadata::Labels;
use crate::reader::{Fields, Scope};

const ENGINE: &str = "tapvisor.io/engine";

/// The demand of an instance. `object` has the metadata.
pub(super) fn read(object: &Fields<'_>, annotations: &Labels) -> EngineDemand {
    let Some(value) = annotations.get(ENGINE) else { return EngineDemand::Auto };
    let known = EngineDemand::WORDS.iter().find(|(word, _)| word == value);
    if let Some((_, demand)) = known {
        return *demand;
    }
    let other: String = value.chars().take(40).collect();
    let node = object.node().named("metadata").named("annotations").named(ENGINE);
    node.refuse(format!("must be auto, kvm or qemu, found {other:?}"));
    EngineDemand::Auto
}

/// Annotations of a VirtualMachine do not reach its instances.
pub(super) fn warn(object: &Fields<'_>, annotations: &Labels) {
    if annotations.contains_key(ENGINE) {
        let node = object.node().named("metadata").named("annotations").named(ENGINE);
        node.warn(Scope::Everywhere, "annotations of instances stand in spec.template.metadata");
    }
}
