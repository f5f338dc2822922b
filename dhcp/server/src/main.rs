//! `tapvisor-dhcp`: a boot server on one interface.
//!
//! Flow: read the configuration, open every socket and the lease database, give up all rights that only that took, then serve DHCP
//! in a thread of its own, and TFTP and HTTP in others, until SIGTERM.
//! Guarantees: a lease is on the disk before it is acknowledged; no file outside the folders of the configuration is served.

mod arguments;
mod chunks;
mod clock;
mod conf;
mod confine;
mod control;
mod counts;
mod dhcpv4;
mod files;
mod http;
mod interface;
mod lease_log;
mod packets;
mod reload;
mod seccomp;
mod serve;
mod tftp;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let done = match arguments.command {
        Command::Serve { config, until_end_of_input } => serve::serve(&config, until_end_of_input),
        Command::Check { config } => conf::read(&config).map(drop).map_err(serve::ServeError::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
