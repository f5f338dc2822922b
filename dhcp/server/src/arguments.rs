//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The boot server of Tapvisor: DHCP with pools, TFTP and HTTP on one interface.
#[derive(Debug, Parser)]
#[command(name = "tapvisor-dhcp", version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve until SIGTERM
    Serve {
        /// The configuration file, YAML
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// End when standard input ends, as it does when the starter ends
        #[arg(long)]
        until_end_of_input: bool,
    },
    /// Read the configuration, report what is wrong with it, and change nothing
    Check {
        /// The configuration file, YAML
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
}
