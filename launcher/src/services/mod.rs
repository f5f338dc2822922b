//! Services on one machine: VMs reached under a Service's addresses as they are in a cluster.

mod frontend;
mod table;
mod update;

pub use frontend::Frontend;
pub use table::Services;
