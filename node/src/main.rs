//! `tapvisor-node`: the node agent, one pod per node.
//!
//! Flow: `prepare` (privileged, ends at once) tries the devices; `run` installs and chains the CNI plugin, offers devices to
//! kubelet, labels the node, follows launchers and serves their reports. `explain` is a process of its own, in another pod.
//! Guarantees: the agent enters no namespace of a pod, and opens nothing of a pod but its control socket and its outcome, by a path that
//! holds no link.

mod agent;
mod api;
mod args;
mod cni;
mod devices;
mod explain;
mod files;
mod grpc;
mod health;
mod launchers;
mod node_object;
mod plugin;
mod probes;
mod processor;
mod tls;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser as _;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let done = match cli.command {
        Command::Prepare { found, launcher } => agent::prepare(&found, &launcher),
        Command::Uninstall(host) => agent::undo(&host),
        Command::Explain(args) => runtime()
            .and_then(|runtime| runtime.block_on(explain::serve(&args.socket, &args.namespaces)).map_err(explaining())),
        Command::ExplainOne(args) => explain::one(&args.namespaces).map_err(explaining()),
        Command::Run(args) => runtime().and_then(|runtime| runtime.block_on(agent::run(args))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %protocol::chain::chain(&error), "ended");
            ExitCode::FAILURE
        }
    }
}

fn explaining() -> impl FnOnce(std::io::Error) -> agent::AgentError {
    agent::AgentError::system("explain networks")
}

fn runtime() -> Result<tokio::runtime::Runtime, agent::AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(agent::AgentError::system("start tokio"))
}
