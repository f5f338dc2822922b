//! The plugin's side: one call is read from the environment and stdin, given to a [`Plugin`], and answered on stdout.
//!
//! Flow: environment → verb → attachment → configuration → namespace guard → plugin → document.
//! Guarantees: nothing is touched before all of the call is checked; stdout carries the answer and nothing else.

mod args;
mod conf;
mod env;
mod netns;
mod serve;

pub use args::{Args, ArgsError};
pub use conf::{AttachmentKey, NetConf};
pub use env::{Environment, Verb};
pub use netns::Netns;
pub use serve::{Add, Added, Attachment, Check, Collect, Del, Plugin, Status, serve};
