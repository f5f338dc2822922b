//! The launcher's start: which descriptors it is handed, with which options it is told of them, and what it sees.
//!
//! Everything that needs root is opened here: the launcher's user could open neither `/dev/net/tun` nor, in general, a
//! disk of the user's, and the modes of the host's files are never changed.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use block::path::PathError;
use hostnet::netns::{Netns, NetnsError};
use machine::{Boot, DiskSource};
use nix::errno::Errno;
use protocol::launch_file::LaunchFile;
use protocol::options::LaunchOptions;
use wiring::Binding;

use super::child::Child;
use super::files::{self, FileError};
use super::isolation::{self, View};
use super::kvm_node::{Access, KVM, Node};
use super::launcher::{LAUNCHER, LauncherFile};
use super::layout::VmLayout;
use crate::sys::confined::{Refused, Start};

const TUN: &str = "/dev/net/tun";
const VHOST_NET: &str = "/dev/vhost-net";

/// Why a launcher could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// /dev/net/tun cannot be opened, without which there are no taps.
    #[error("cannot open {TUN}: `modprobe tun` loads the driver")]
    Tun(#[source] io::Error),
    /// A disk's file cannot be opened.
    #[error("disk {disk}: cannot open {path}")]
    Disk {
        /// Name of the disk in the manifest.
        disk: String,
        /// Path of the disk's file.
        path: PathBuf,
        /// The error of opening it.
        #[source]
        source: io::Error,
    },
    /// A disk's file is something else, or may be another user's doing.
    #[error("disk {disk}: {path} {source}")]
    DiskRefused {
        /// Name of the disk in the manifest.
        disk: String,
        /// What was to be its file.
        path: PathBuf,
        /// Why it is not opened.
        #[source]
        source: PathError,
    },
    /// The VM's network namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Its output, or another descriptor.
    #[error("cannot prepare the launcher's output")]
    Output(#[source] io::Error),
    /// A file or folder of the VM cannot be prepared.
    #[error(transparent)]
    File(#[from] FileError),
    /// The launcher's file cannot be opened or duplicated.
    #[error("cannot open the launcher's program")]
    Program(#[source] io::Error),
    /// The started process cannot be followed, and was killed.
    #[error("the launcher cannot be followed")]
    Follow(#[source] io::Error),
    /// The kernel refused a step of starting it.
    #[error("the launcher {program} as user {user}{}", hint(source))]
    Refused {
        /// Path of the launcher's file.
        program: PathBuf,
        /// Number of the VM's user.
        user: u32,
        /// The step that was refused, and the error.
        #[source]
        source: Refused,
    },
}

impl LaunchError {
    /// 3 the manifest names what is not there or no disk, 6 the host lacks something, 1 otherwise.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Tun(_) => 6,
            Self::Disk { source, .. } if source.kind() == io::ErrorKind::NotFound => 3,
            Self::DiskRefused { .. } => 3,
            _ => 1,
        }
    }
}

/// What to do about it, where that is known.
fn hint(refused: &Refused) -> &'static str {
    match refused.errno() {
        Errno::EACCES => " (the file and its libraries must be executable for all: mode 0755)",
        Errno::EINVAL => " (in a user namespace, /etc/tapvisor/uids must name numbers of /proc/self/uid_map)",
        _ => "",
    }
}

/// Looks whether taps can be had at all.
///
/// # Errors
/// When the driver's node cannot be opened.
pub fn expect_tun() -> Result<(), LaunchError> {
    open_node(TUN).map(drop).map_err(LaunchError::Tun)
}

/// Descriptors that the launcher inherits.
#[derive(Debug, Default)]
struct Handover {
    tun: Vec<OwnedFd>,
    kvm: Option<OwnedFd>,
    vhost_net: Vec<OwnedFd>,
    disks: Vec<(String, OwnedFd)>,
}

/// Starts the launcher of a machine in its network namespace, as its user, with everything it needs already open.
///
/// # Errors
/// When something cannot be opened, or the kernel refuses the process; nothing was changed then.
pub(crate) fn start(
    launcher: &LauncherFile,
    file: &LaunchFile,
    vm: &VmLayout,
    netns: &Path,
    scratch: &Path,
    own_folders: &[&Path],
    output: OwnedFd,
) -> Result<Child, LaunchError> {
    let netns = Netns::open(netns)?;
    let handover = open_all(file, &netns, own_folders)?;
    let mut options = LaunchOptions::new(vm.machine(), vm.launcher_dir());
    (options.scratch, options.resolv_conf) = (Some(scratch.to_owned()), vm.resolv_conf());
    options.nic_resolv_conf = nic_resolv_confs(file, vm);
    handover.name_in(&mut options);
    let owner = file.wiring.owner();
    let (machine, folder, resolv) = (vm.machine(), vm.launcher_dir(), vm.resolv_conf());
    let own = [LAUNCHER, "launch"].map(OsString::from);
    let arguments = own.into_iter().chain(options.to_arguments());
    let arguments = arguments.map(|argument| text(&argument)).collect();
    // For the host's own node, which the process sees where the kernel forbids to make one.
    let group = handover.kvm.as_ref().and_then(|_| match Node::kvm().ok()?.access(owner) {
        Access::Group(group) => Some(group),
        Access::Open | Access::Closed => None,
    });
    let with_kvm = handover.kvm.is_some();
    let start = Start {
        program: launcher.to_execute().map_err(LaunchError::Program)?,
        arguments,
        environment: environment(),
        input: File::open("/dev/null").map_err(LaunchError::Output)?.into(),
        output,
        netns: File::open(netns.path()).map_err(LaunchError::Output)?.into(),
        owner,
        group,
        descriptors: handover.into_descriptors(),
    };
    let (stage, boot) = (vm.stage(), boot_files(&file.machine.boot));
    files::make_dir(&stage, 0o700)?;
    let of_nics = options.nic_resolv_conf.iter().map(|(_, file)| file.as_path());
    let read = [machine.as_path(), &resolv].into_iter().chain(of_nics).chain(boot).collect();
    let path = std::env::var_os("PATH");
    let view = View { stage: &stage, owner, with_kvm, read, write: vec![&folder, scratch], path };
    let started = isolation::start(&start, &view, |missing| tracing::warn!(missing, "the VM process is less isolated"));
    let refused = |source| LaunchError::Refused { program: launcher.path().to_owned(), user: owner.uid, source };
    Child::of(started.map_err(refused)?).map_err(LaunchError::Follow)
}

/// What QEMU opens by its path.
fn boot_files(boot: &Boot) -> Vec<&Path> {
    match boot {
        Boot::Kernel { kernel, initrd, .. } => {
            [Some(kernel), initrd.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect()
        }
        Boot::Bios => Vec::new(),
    }
}

/// The environment that a launcher has of ours.
fn environment() -> Vec<CString> {
    let wanted = std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "RUST_LOG");
    let pair = |(name, value): (OsString, OsString)| text(&[name, value].join(OsStr::new("=")));
    wanted.map(pair).collect()
}

/// Nothing of ours holds a zero byte: it came as an argument, a variable or a path.
fn text(text: &OsStr) -> CString {
    CString::new(text.as_bytes()).unwrap_or_default()
}

fn nic_resolv_confs(file: &LaunchFile, vm: &VmLayout) -> Vec<(String, PathBuf)> {
    let of_nics = file.nics().map(|(nic, interface)| (nic.name.clone(), vm.nic_resolv_conf(&interface.pod_interface)));
    of_nics.filter(|(_, path)| path.exists()).collect()
}

fn open_all(file: &LaunchFile, netns: &Netns, own_folders: &[&Path]) -> Result<Handover, LaunchError> {
    let interfaces = file.nics().map(|(_, interface)| interface);
    let with_tap: Vec<_> = interfaces.filter(|interface| interface.binding != Binding::Sriov).collect();
    let queues: usize = with_tap.iter().map(|interface| usize::from(interface.queues.value())).sum();
    let tuns = queues + with_tap.len();
    // A tun descriptor belongs to the namespace it was opened in.
    let tun = netns.run(|| (0..tuns).map(|_| open_node(TUN)).collect::<io::Result<_>>())?.map_err(LaunchError::Tun)?;
    // Without these two the launcher has other ways; why they are not there is `doctor`'s to say.
    let kvm = open_node(KVM).ok();
    let vhost_net = (0..queues).map(|_| open_node(VHOST_NET)).collect::<io::Result<_>>().unwrap_or_default();
    let disks = file.machine.disks.iter().filter_map(|disk| {
        let (path, writable, own_folders) = match &disk.source {
            DiskSource::File { path, .. } => (path, !disk.read_only, own_folders),
            // A file of the image store.
            DiskSource::Overlay { path, .. } => (path, false, &[][..]),
            // A claim is of a cluster; the others are made by the launcher.
            _ => return None,
        };
        Some(open_disk(&disk.name, path, writable, own_folders).map(|open| (disk.name.clone(), open)))
    });
    Ok(Handover { tun, kvm, vhost_net, disks: disks.collect::<Result<_, _>>()? })
}

fn open_node(path: &str) -> io::Result<OwnedFd> {
    OpenOptions::new().read(true).write(true).open(path).map(OwnedFd::from)
}

/// Opens a disk's file, the only time for this start: what was looked at is what the launcher is handed.
fn open_disk(disk: &str, path: &Path, writable: bool, own_folders: &[&Path]) -> Result<OwnedFd, LaunchError> {
    let (disk_name, to) = (|| disk.to_owned(), || path.to_owned());
    block::path::open(path, writable, own_folders).map(OwnedFd::from).map_err(|error| match error {
        PathError::System(source) => LaunchError::Disk { disk: disk_name(), path: to(), source },
        source => LaunchError::DiskRefused { disk: disk_name(), path: to(), source },
    })
}

impl Handover {
    fn name_in(&self, options: &mut LaunchOptions) {
        let numbers = |all: &[OwnedFd]| all.iter().map(AsRawFd::as_raw_fd).collect();
        options.tun_fds = numbers(&self.tun);
        options.kvm_fd = self.kvm.as_ref().map(AsRawFd::as_raw_fd);
        options.vhost_net_fds = numbers(&self.vhost_net);
        options.disk_fds = self.disks.iter().map(|(name, disk)| (name.clone(), disk.as_raw_fd())).collect();
    }

    fn into_descriptors(self) -> Vec<OwnedFd> {
        let disks = self.disks.into_iter().map(|(_, disk)| disk);
        self.tun.into_iter().chain(self.kvm).chain(self.vhost_net).chain(disks).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_launcher_is_told_of_every_descriptor_by_its_number() {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        let handover = Handover {
            tun: vec![null(), null()],
            kvm: None,
            vhost_net: Vec::new(),
            disks: vec![("root".to_owned(), null())],
        };
        let mut options = LaunchOptions::new("/m".into(), "/d".into());
        handover.name_in(&mut options);
        let numbers: Vec<_> = handover.into_descriptors().iter().map(AsRawFd::as_raw_fd).collect();
        let expected = LaunchOptions {
            tun_fds: numbers[..2].to_vec(),
            disk_fds: vec![("root".to_owned(), numbers[2])],
            ..LaunchOptions::new("/m".into(), "/d".into())
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn what_is_no_disk_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = open_disk("root", &fifo, false, &[]).unwrap_err().to_string();
        assert!(
            error.starts_with("disk root: ") && error.ends_with("neither a regular file nor a block device"),
            "{error}"
        );
        let absent = open_disk("root", &dir.path().join("absent"), true, &[]).unwrap_err();
        assert!(matches!(absent, LaunchError::Disk { .. }), "{absent}");
    }
}
