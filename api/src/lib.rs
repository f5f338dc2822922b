//! kubevirt.io/v1 manifests as checked types, and the machine and wiring request they describe.

pub mod machine;
