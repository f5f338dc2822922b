//! kubevirt.io/v1 manifests as checked types, and the machine and wiring request they describe.
//!
//! Flow: text → [`manifest::parse`] → objects that obey every rule → [`translate::translate`] → [`translate::Translation`].
//! Guarantees: nothing in a manifest is ignored without a word; every complaint names document and field.
//! There is no I/O here: texts, secrets and the paths of fetched images are handed in.

mod encoding;
mod reader;

pub mod attachment;
pub mod kubevirt;
pub mod manifest;
pub mod metadata;
pub mod quantity;
pub mod run_strategy;
pub mod secret;
pub mod service;
pub mod translate;

pub use reader::{Problem, Scope, Warning};
