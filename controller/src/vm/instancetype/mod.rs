//! Instancetypes and preferences: the size of a machine and the values it has unless it says otherwise.
//!
//! Flow: a machine → [`resolve`] finds what it names, as it was when the machine first used it → [`apply`] puts it into the
//! template.
//! Guarantees: [`apply`] is pure; a later change of an instancetype does not change a machine that uses it.

mod apply;
mod cpu;
mod matcher;
mod path;
mod preference;
pub(crate) mod resolve;
#[cfg(test)]
mod tests;
