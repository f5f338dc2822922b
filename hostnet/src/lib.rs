//! The host's network as data (facts, operations, nft tables) and the only code that changes it in the kernel.

pub mod apply;
pub mod facts;
pub mod kernel;
pub mod nft;
pub mod op;
pub mod sysctl;

pub use apply::{ApplyError, apply, tear_down};
pub use facts::{Ask, Facts};
pub use kernel::{Failure, Kernel, KernelError};
pub use op::{Op, Plan};
