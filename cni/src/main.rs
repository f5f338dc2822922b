//! The plugin `tapvisor`, in a file named `tapvisor-cni`: the binding of VMs.

mod program;
mod sys;

use std::ffi::OsString;
use std::process::ExitCode;

use binding::Tapvisor;

fn main() -> ExitCode {
    match plugin(std::env::args_os().skip(1)) {
        Ok(plugin) => program::run("tapvisor-cni", &plugin),
        Err(message) => {
            eprintln!("tapvisor-cni: {message}");
            ExitCode::from(2)
        }
    }
}

/// The plugin with what the arguments ask for, which are for trials.
fn plugin(mut arguments: impl Iterator<Item = OsString>) -> Result<Tapvisor, String> {
    let mut plugin = Tapvisor::default();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--dry-run") => plugin.dry_run = true,
            Some("--record") => plugin.record = Some(arguments.next().ok_or("--record needs a file")?.into()),
            _ => {
                let known = "--dry-run (ADD only plans) and --record FILE (writes down every call to the kernel)";
                return Err(format!("unknown argument {argument:?}; for trials there are {known}"));
            }
        }
    }
    Ok(plugin)
}
