//! The command line of `tapvisor launch`.

use std::os::fd::RawFd;
use std::path::PathBuf;

/// Runs one virtual machine on a network that is already wired. Started by `tapvisor run` and by launcher pods.
#[derive(Debug, Clone, clap::Args)]
pub struct LaunchArgs {
    /// Machine and wiring request (JSON).
    #[arg(long, value_name = "FILE")]
    pub machine: PathBuf,
    /// Folder for control.sock, console.sock, console.log and outcome.json.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Folder for overlays, empty disks and cloud-init volumes; DIR if absent.
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Unattached tun descriptors: for each NIC one per queue and one for its service tap. Without them /dev/net/tun is opened.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub tun_fds: Vec<RawFd>,
    /// An open /dev/kvm.
    #[arg(long, value_name = "N")]
    pub kvm_fd: Option<RawFd>,
    /// Open /dev/vhost-net descriptors, one for each queue of each virtio NIC.
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub vhost_net_fds: Vec<RawFd>,
    /// An open image for the disk NAME: read-only for read-only disks and overlays, else read-write.
    #[arg(long, value_name = "NAME=N", value_parser = disk_fd)]
    pub disk_fd: Vec<(String, RawFd)>,
    /// Name servers and search list for the guest.
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Make standard input and output the guest's serial console, as is done on a terminal anyway.
    #[arg(long)]
    pub console_stdio: bool,
}

fn disk_fd(text: &str) -> Result<(String, RawFd), String> {
    let (name, number) = text.rsplit_once('=').ok_or_else(|| format!("{text:?} should be NAME=N"))?;
    let number = number.parse().map_err(|_| format!("{number:?} is no descriptor number"))?;
    Ok((name.to_owned(), number))
}
