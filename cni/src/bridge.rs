//! The plugin `tapvisor-bridge`: layer-2 networks and their addresses.

mod program;
mod sys;

use std::process::ExitCode;

use bridge::Bridge;

fn main() -> ExitCode {
    program::run("tapvisor-bridge", &Bridge)
}
