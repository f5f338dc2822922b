//! The words of the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use machine::EngineDemand;

const AFTER_HELP: &str = "\
To begin:
  tapvisor doctor                what this host lacks
  tapvisor run -f vm.yaml        a kubevirt.io/v1 manifest, with Services and NetworkAttachmentDefinitions
  tapvisor explain NAME          why a VM cannot be reached, and what to do

Folders:
  /etc/tapvisor/net.d            networks: configuration lists by name
  /var/cache/tapvisor/images     images, imported by `tapvisor image import`
  /run/tapvisor                  VMs and Services, until the host restarts
  CNI_PATH                       folders of plugins, by default /opt/cni/bin:/usr/lib/cni

Exit codes:
  0 done, 1 failed, 2 usage, 3 invalid input, 4 not found, 5 exists already,
  6 the host lacks something, 7 the guest failed, 130 interrupted";

const RUN_HELP: &str = "\
Until the VMs run, Ctrl-C or a closed terminal removes everything again. If the manifest has one VM, this terminal becomes its
console: Ctrl-] leaves it and the VM keeps running, all other keys go to the guest. With several VMs, Ctrl-C stops them. If the
terminal closes while VMs run, they keep running.";

/// Run KVM virtual machines of kubevirt.io/v1 manifests on the networks of CNI plugins, without a cluster.
#[derive(Debug, Parser)]
#[command(name = "tapvisor", version, disable_help_subcommand = true, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the VMs of a manifest
    Run(Run),
    /// List VMs
    Ps(Ps),
    /// Attach to a VM's serial console; Ctrl-] detaches
    Console {
        /// The VM: NAME or NAMESPACE/NAME
        name: String,
    },
    /// Show what a VM wrote to its serial console
    Logs {
        /// The VM: NAME or NAMESPACE/NAME
        name: String,
        /// Follow the output
        #[arg(short, long)]
        follow: bool,
        /// Keep the guest's control sequences, which may change the terminal
        #[arg(long)]
        raw: bool,
    },
    /// Stop a VM: press its power button; end it by force after the grace period
    Stop(Stop),
    /// Start a VM that is stopped
    Start {
        /// The VM: NAME or NAMESPACE/NAME
        name: String,
    },
    /// Stop a VM and start it again
    Restart {
        /// The VM: NAME or NAMESPACE/NAME
        name: String,
        /// Time the guest has to power off, instead of the manifest's
        #[arg(long, value_name = "SECONDS")]
        grace: Option<u64>,
    },
    /// Halt a VM's processors
    Pause {
        /// The VM: NAME or NAMESPACE/NAME
        name: String,
    },
    /// Resume a VM's processors
    Unpause {
        /// The VM: NAME or NAMESPACE/NAME
        name: String,
    },
    /// List Services and the VMs behind their ports
    Services {
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// List the host's bridges, or draw one: ports, VLANs, addresses, forwarding entries
    #[command(subcommand)]
    Net(Net),
    /// Remove VMs and Services; VMs that run are stopped first
    Rm(Rm),
    /// Import and list images of container disks and kernels
    #[command(subcommand)]
    Image(Image),
    /// Serve addresses and boot files to VMs that boot from a network, until interrupted
    ///
    /// For a network of type bridge without IPAM. Every file of the folder can be read by TFTP and HTTP on that network.
    Netboot(Netboot),
    /// Draw a VM's network from the host to the guest, with counters, and name each fault
    ///
    /// Connects once to each declared port, from the host and from the VM's namespace, and closes the connection at once.
    /// The exit code is 0 if no fault breaks traffic, 1 otherwise.
    Explain(Explain),
    /// Report what this host lacks for running VMs, with consequence and remedy
    ///
    /// The exit code is 0 if VMs can run, even with warnings, and 6 if they cannot.
    Doctor(Doctor),
    /// Print the completion script of a shell
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
    /// The names of VMs, for shells
    #[command(hide = true)]
    Names,
    /// The VM process: executes tapvisor-launcher
    #[command(hide = true, disable_help_flag = true)]
    Launch {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// The process behind a VM
    #[command(hide = true)]
    Supervise(Supervise),
}

#[derive(Debug, Args)]
#[command(after_help = RUN_HELP)]
pub(crate) struct Run {
    /// The manifest, YAML or JSON; - reads standard input
    #[arg(short, long, required_unless_present = "operand")]
    pub(crate) file: Option<PathBuf>,
    /// A manifest without `-f`, to report the correct command
    #[arg(hide = true)]
    pub(crate) operand: Option<PathBuf>,
    /// Return once the VMs run
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// The pod network instead of the built-in one, or a network that VMs request by name: a configuration file, or a name in
    /// /etc/tapvisor/net.d; may be given more than once
    #[arg(long, value_name = "CONF")]
    pub(crate) network: Vec<String>,
    /// Which engine runs the VMs, instead of what their annotation tapvisor.io/engine says
    #[arg(long)]
    pub(crate) engine: Option<Engine>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// Our own machine on KVM where that works and has all that the VM asks for, else QEMU
    Auto,
    /// Our own machine on KVM
    Kvm,
    /// QEMU, with KVM where that works
    Qemu,
}

impl From<Engine> for EngineDemand {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Auto => Self::Auto,
            Engine::Kvm => Self::Kvm,
            Engine::Qemu => Self::Qemu,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Net {
    /// List the bridges with their networks, and the cables of networks without a bridge
    Ls {
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Draw a bridge: its ports and who is behind them, VLANs, leases and the forwarding database
    Inspect {
        /// The bridge, or a network of tapvisor-bridge
        name: String,
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// How to print
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The VM: NAME or NAMESPACE/NAME
    pub(crate) name: String,
    /// Time the guest has to power off, instead of the manifest's
    #[arg(long, value_name = "SECONDS", conflicts_with = "force")]
    pub(crate) grace: Option<u64>,
    /// End the VM at once
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// What to remove: NAME or vm/NAME, a Service svc/NAME, with a namespace NAMESPACE/NAME
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub(crate) names: Vec<String>,
    /// Remove every VM and Service of this manifest
    #[arg(short, long)]
    pub(crate) file: Option<PathBuf>,
    /// End the guest at once, and remove the VM even if not everything of it can be removed from the host
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("cluster").args(["context", "kubeconfig"]).multiple(true)))]
pub(crate) struct Explain {
    /// The VM: NAME or NAMESPACE/NAME
    pub(crate) name: String,
    /// A VM in a cluster: the context of a kubeconfig file. Needs kubectl
    #[arg(long, conflicts_with = "port")]
    pub(crate) context: Option<String>,
    /// A VM in a cluster: the kubeconfig file. Needs kubectl
    #[arg(long, value_name = "FILE", conflicts_with = "port")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The namespace of a VM in a cluster; the context's if absent
    #[arg(short, long, requires = "cluster")]
    pub(crate) namespace: Option<String>,
    /// How to print
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Output,
    /// Report changes until interrupted; with JSON, one object per line
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// A TCP port to test in addition to the declared ones; may be given more than once
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Vec<u16>,
    /// Send no packets: do not connect to ports
    #[arg(long)]
    pub(crate) passive: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// How to print
    #[arg(short, long, default_value = "table")]
    pub(crate) output: Output,
    /// Exit with 1 on warnings
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Netboot {
    /// The network: a configuration file, or a name in /etc/tapvisor/net.d
    #[arg(long, value_name = "CONF")]
    pub(crate) network: String,
    /// The folder of files to boot from
    #[arg(long, value_name = "DIR")]
    pub(crate) root: PathBuf,
    /// The file that VMs boot, by its name in the folder
    #[arg(long, value_name = "FILE", default_value = "boot.ipxe")]
    pub(crate) boot: String,
    /// The server's address with its prefix length, if the network's bridge has none
    #[arg(long, value_name = "ADDRESS", default_value = "10.77.0.1/24")]
    pub(crate) address: terms::Ipv4Network,
}

#[derive(Debug, Args)]
pub(crate) struct Supervise {
    pub(crate) name: String,
    #[arg(long)]
    pub(crate) lock_fd: i32,
    #[arg(long)]
    pub(crate) starter_fd: i32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Image {
    /// Import the images of an OCI layout (a folder, or a tar archive, plain, gzip or zstd), or a raw or qcow2 disk
    Import {
        /// The layout or the disk
        path: PathBuf,
        /// The image's name, instead of the one in the layout: for a single image, and for a disk
        name: Option<String>,
    },
    /// Remove images by name or digest
    Rm {
        /// Names or digests
        #[arg(required = true)]
        references: Vec<String>,
    },
    /// Remove what is left of interrupted imports and of images without a name
    Prune {
        /// Also images that no VM uses
        #[arg(short, long)]
        all: bool,
    },
    /// List images
    Ls {
        /// How to print
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Exit;
    use runner::layout::Layout;
    use runner::network::{PluginFolders, ranges};

    /// What the help has no room for.
    const PAGE: &str = include_str!("../RUNNING.md");

    // spec: CLI-16
    #[test]
    fn help_and_page_have_every_exit_code() {
        let after_success = [
            Exit::Failed,
            Exit::Usage,
            Exit::Invalid,
            Exit::NotFound,
            Exit::Exists,
            Exit::HostLacks,
            Exit::GuestFailed,
            Exit::Interrupted,
        ];
        let codes: Vec<_> = std::iter::once(0).chain(after_success.map(|exit| exit as u8)).collect();
        let first_word = |text: &str| text.trim().split(' ').next().and_then(|word| word.parse::<u8>().ok());
        let (_, helped) = AFTER_HELP.split_once("Exit codes:\n").unwrap();
        assert_eq!(helped.split(',').filter_map(first_word).collect::<Vec<_>>(), codes);
        let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| "));
        assert_eq!(rows.filter_map(first_word).collect::<Vec<_>>(), codes);
    }

    // spec: CLI-16
    #[test]
    fn help_and_page_name_the_folders_and_ranges_there_are() {
        let layout = Layout::default();
        let told = |text: &str, path: &Path| assert!(text.contains(&path.display().to_string()), "{}", path.display());
        [layout.run(), layout.networks(), &layout.images()].into_iter().for_each(|folder| told(AFTER_HELP, folder));
        let folders = [layout.vms(), layout.services(), layout.ipam(), layout.cni_cache(), layout.scratch()];
        folders.iter().for_each(|folder| told(PAGE, folder));
        [layout.networks(), &layout.images(), &layout.host_state()].into_iter().for_each(|path| told(PAGE, path));
        let plugins = PluginFolders::new(Path::new("/l"), Path::new("/b"), None).list();
        let plugins = plugins[1..].iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
        assert!(AFTER_HELP.contains(&plugins) && PAGE.contains(&plugins), "{plugins}");
        let ranges = ranges().into_iter().chain(runner::service_store::ranges());
        ranges.for_each(|range| assert!(PAGE.contains(&range.to_string()), "{range}"));
    }
}
