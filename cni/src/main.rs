//! The multi-call plugin binary: the name it is called by says which plugin it is.

mod sys;

use std::ffi::OsString;
use std::process::ExitCode;

use binding::Tapvisor;
use bridge::Bridge;
use cni_protocol::plugin::{Environment, Plugin, serve};

#[global_allocator]
static MEMORY: sys::Bump<ARENA_BYTES> = sys::Bump::new();

/// Several times what an ADD takes, and what the largest request does.
const ARENA_BYTES: usize = 1 << 20;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    let plugin = match plugin(&called, arguments) {
        Ok(plugin) => plugin,
        Err(message) => {
            eprintln!("tapvisor-cni: {message}");
            return ExitCode::from(2);
        }
    };
    let served =
        serve(&*plugin, &Environment::of_process(), &mut std::io::stdin().lock(), &mut std::io::stdout().lock());
    match served {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tapvisor-cni: the answer cannot be written to stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The plugin that argv[0] names; the file's own name means the binding plugin.
fn plugin(called: &OsString, arguments: impl Iterator<Item = OsString>) -> Result<Box<dyn Plugin>, String> {
    // Not `Path::file_name`: its code is among that of backtraces, which would be in memory with it.
    let called = called.to_string_lossy();
    match called.rsplit('/').next().unwrap_or_default() {
        "tapvisor" | "tapvisor-cni" => tapvisor(arguments),
        "tapvisor-bridge" => Ok(Box::new(Bridge)),
        other => {
            Err(format!("there is no plugin {other:?} in this file, there are \"tapvisor\" and \"tapvisor-bridge\""))
        }
    }
}

fn tapvisor(mut arguments: impl Iterator<Item = OsString>) -> Result<Box<dyn Plugin>, String> {
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
    Ok(Box::new(plugin))
}
