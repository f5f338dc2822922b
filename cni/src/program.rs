//! What the plugins' programs have in common: memory of an arena, one call, its exit code.

use std::process::ExitCode;

use cni_protocol::plugin::{Environment, Plugin, serve};

use crate::sys;

#[global_allocator]
static MEMORY: sys::Bump<ARENA_BYTES> = sys::Bump::new();

/// Several times what an ADD takes, and what the largest request does.
const ARENA_BYTES: usize = 1 << 20;

/// Serves the call that environment and stdin describe.
pub(crate) fn run(program: &str, plugin: &dyn Plugin) -> ExitCode {
    let served = serve(plugin, &Environment::of_process(), &mut std::io::stdin().lock(), &mut std::io::stdout().lock());
    match served {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{program}: the answer cannot be written to stdout: {error}");
            ExitCode::FAILURE
        }
    }
}
