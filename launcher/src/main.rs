//! The `tapvisor` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::cli::main()
}
