//! The processors: what they are, how the first one starts, and the threads that run them.

mod apic;
mod cpuid;
mod gate;
mod model;
mod registers;
mod run;
mod state;

pub(crate) use cpuid::Topology;
pub use model::ModelError;
pub(crate) use run::{Processors, VcpuError, create};
pub(crate) use state::{ProcessorState, ProcessorStateError};
