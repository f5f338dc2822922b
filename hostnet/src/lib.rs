//! The host's network as data (facts, operations, nft tables) and the only code that changes it in the kernel.

pub mod apply;
mod attributes;
pub mod facts;
pub mod fake;
mod hex;
pub mod kernel;
pub mod linux;
pub mod netns;
pub mod nft;
mod omit;
pub mod op;
mod sys;
pub mod sysctl;
pub mod tap;

pub use apply::{ApplyError, apply, tear_down};
pub use facts::{Ask, Facts};
pub use fake::Fake;
pub use kernel::{Failure, Kernel, KernelError};
pub use linux::{Event, Events, Linux, RouteQuery};
pub use locks::{Lock, LockError, Locks};
pub use netns::{Netns, NetnsError};
pub use op::{Op, Plan};
