//! A VM's pod networks: which configurations, in which order, and attaching and detaching them.
//!
//! *Order.* The primary network as `eth0`, then each secondary in the order of the manifest, then one trailing attachment
//! of our own binding plugin, which wires all NICs: what Multus does in a cluster when the launcher pod's last network is
//! ours. With or without secondaries it is the same list, and DEL goes through it backwards.

mod choice;
mod conf;
mod plugins;
mod pod;
mod preflight;

pub use choice::{ChoiceError, Choices};
pub use conf::{BINDING_KEY, DEFAULT_NETWORK, binding, built_in, ranges};
pub use plugins::{MissingPlugin, PluginFolders};
pub use pod::{NetworkError, PodNetwork, Wired};
pub(crate) use preflight::reserved;
pub use preflight::{NetworkFault, Preflight, has_link};
