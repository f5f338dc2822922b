//! `tapvisor completion`: the script of a shell; in bash it also knows the VMs.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::arguments::Arguments;
use super::failure::Failure;
use super::{names, terminal};
use runner::layout::Layout;
use runner::store::Store;

/// Comes after clap's own script and asks it for everything that is not a VM's name.
const NAMES_IN_BASH: &str = include_str!("completion.bash");

/// Prints the completion script of a shell: clap's own, for bash with the names of VMs.
pub(crate) fn completion(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "tapvisor", &mut script);
    if shell == Shell::Bash {
        script.extend(NAMES_IN_BASH.as_bytes());
    }
    terminal::line(String::from_utf8_lossy(&script).trim_end());
}

/// Prints the names of VMs as the command line takes them. Needs no root and repairs nothing: it is asked at each Tab.
pub(crate) fn all_names() -> Result<ExitCode, Failure> {
    for key in Store::new(Layout::default()).keys()? {
        terminal::line(&names::argument(&key));
    }
    Ok(ExitCode::SUCCESS)
}
