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
pub mod pair;
pub mod records;
mod sys;
pub mod sysctl;
pub mod tap;

pub use apply::{ApplyError, apply, tear_down};
pub use facts::{Ask, Facts};
pub use fake::{Fake, FakePair};
pub use kernel::{Failure, Kernel, KernelError};
pub use linux::{Event, Events, Linux, LinuxPair, RouteQuery};
pub use locks::{Lock, LockError, LockKind, Locks, lock_file};
pub use netns::{Netns, NetnsError};
pub use op::{Op, Plan};
pub use pair::{Both, KernelPair, PairFacts, PairPlan, Place, Step};
pub use records::{RecordError, Records};
