//! `tapvisor`: virtual machines on Kubernetes networks, with or without a cluster.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use launcher::vm::{LaunchArgs, launch};
use tracing_subscriber::EnvFilter;

#[derive(Debug, Parser)]
#[command(name = "tapvisor", version, about)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Launch(LaunchArgs),
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match CommandLine::parse().verb {
        Verb::Launch(args) => launch(&args),
    }
}
