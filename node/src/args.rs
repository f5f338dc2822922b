//! The agent's command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::cni::Mode;
use crate::plugin::Access;

/// The node agent of Tapvisor.
#[derive(Debug, Parser)]
#[command(name = "tapvisor-node", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Find out which devices launchers can use, and write it to a file. The only step that needs the host's devices
    Prepare {
        /// The file
        #[arg(long, default_value = "/run/tapvisor-node/devices.json")]
        found: PathBuf,
        /// The launcher, for its probe of /dev/kvm
        #[arg(long, default_value = "/usr/bin/tapvisor-launcher")]
        launcher: PathBuf,
    },
    /// Serve the node until SIGTERM
    Run(RunArgs),
    /// Explain the networks of pods to the agent on this node, until SIGTERM. In the host's network namespace
    Explain(ExplainArgs),
    /// Explain one network: a task on standard input, the answer on standard output
    #[command(hide = true)]
    ExplainOne(ExplainArgs),
    /// Undo what `run` has changed on the host
    Uninstall(HostArgs),
}

/// Where networks are explained.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExplainArgs {
    /// The socket that the agent asks at
    #[arg(long, default_value = crate::explain::SOCKET)]
    pub(crate) socket: PathBuf,
    /// The runtime's folder of network namespaces
    #[arg(long, default_value = "/run/netns")]
    pub(crate) namespaces: PathBuf,
}

/// Places on the host.
#[derive(Debug, Clone, Args)]
pub(crate) struct HostArgs {
    /// The runtime's folder of network configurations
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,
    /// The runtime's folder of CNI plugins
    #[arg(long, default_value = "/opt/cni/bin")]
    pub(crate) cni_bin_dir: PathBuf,
    /// The runtime's folder of CDI specifications
    #[arg(long, default_value = "/var/run/cdi")]
    pub(crate) cdi_dir: PathBuf,
    /// How the CNI plugin is chained
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) chain: Mode,
}

/// How to serve the node.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// Places on the host
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// The Node object's name
    #[arg(long, env = "NODE_NAME")]
    pub(crate) node_name: String,
    /// What `prepare` wrote
    #[arg(long, default_value = "/run/tapvisor-node/devices.json")]
    pub(crate) found: PathBuf,
    /// How containers get devices; chosen by the runtime's version if absent
    #[arg(long, value_enum)]
    pub(crate) devices: Option<Access>,
    /// The folder with the CNI plugins to install
    #[arg(long, default_value = "/usr/lib/tapvisor")]
    pub(crate) plugins: PathBuf,
    /// kubelet's folder
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub(crate) kubelet_root: PathBuf,
    /// The runtime's socket; containerd's or CRI-O's if absent
    #[arg(long)]
    pub(crate) cri_socket: Option<PathBuf>,
    /// Folder with tls.crt, tls.key and ca.crt
    #[arg(long, default_value = "/etc/tapvisor/tls")]
    pub(crate) certificates: PathBuf,
}
