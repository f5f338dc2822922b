//! A node of its own for one case, and pods on it: namespaces that live no longer than the thread that made them.
//!
//! The mount namespace hides `/run`, `/var/lib/cni` and `/sys` behind fresh ones, so that state folders are empty at the
//! start of a case, whatever paths a plugin has compiled in.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::trouble::Trouble;

/// The calling thread's own network namespace; `/proc/self` would be the main thread's.
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

/// A node: only the thread inside [`Node::with`] and those it starts are on it.
#[derive(Debug)]
pub(crate) struct Node {
    pods: AtomicU32,
}

/// A pod's network namespace, bound to a file below `/run/netns`.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    path: PathBuf,
}

impl Node {
    /// Runs `work` on a fresh node.
    pub(crate) fn with<T: Send>(work: impl FnOnce(&Self) -> Result<T, Trouble> + Send) -> Result<T, Trouble> {
        on_a_thread(|| {
            enter_fresh_namespaces()?;
            work(&Self { pods: AtomicU32::new(0) })
        })
    }

    /// A fresh pod: only a loopback device, up.
    pub(crate) fn pod(&self) -> Result<Pod, Trouble> {
        let path = PathBuf::from(format!("/run/netns/pod{}", self.pods.fetch_add(1, Ordering::Relaxed)));
        File::create(&path).map_err(Trouble::system(format!("create {}", path.display())))?;
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(Trouble::system("unshare the pod's network"))?;
            quiet_kernel()?;
            bind(OWN_NETNS.as_ref(), &path)
        })?;
        Ok(Pod { path })
    }

    /// Binds the node's own network namespace to a file, as a stale `/proc/<pid>/ns/net` would be.
    pub(crate) fn own_netns_file(&self) -> Result<PathBuf, Trouble> {
        let path = PathBuf::from("/run/netns/node");
        File::create(&path).map_err(Trouble::system("create /run/netns/node"))?;
        bind(OWN_NETNS.as_ref(), &path).map(|()| path)
    }
}

impl Pod {
    /// What the runtime passes as `CNI_NETNS`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on a thread inside the pod's network namespace.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T, Trouble> + Send) -> Result<T, Trouble> {
        on_a_thread(|| {
            let file = File::open(&self.path).map_err(Trouble::system(format!("open {}", self.path.display())))?;
            setns(file, CloneFlags::CLONE_NEWNET).map_err(Trouble::system("enter the pod's network"))?;
            work()
        })
    }

    /// Unbinds and removes the file: the namespace dies with all in it. Once more is no harm.
    pub(crate) fn vanish(&self) -> Result<(), Trouble> {
        if !self.path.exists() {
            return Ok(());
        }
        umount2(&self.path, MntFlags::MNT_DETACH).map_err(Trouble::system("unbind the pod's namespace"))?;
        std::fs::remove_file(&self.path).map_err(Trouble::system(format!("remove {}", self.path.display())))
    }
}

/// Runs a shell line in the calling thread's namespaces, with extra environment.
pub(crate) fn shell(line: &str, env: &[(&str, &str)]) -> Result<String, Trouble> {
    let output = Command::new("sh")
        .args(["-ec", line])
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .map_err(Trouble::system("start sh"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(Trouble::Program { program: line.to_owned(), output: said.trim().to_owned() })
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> Result<T, Trouble> + Send) -> Result<T, Trouble> {
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(Trouble::Words("a thread of the suite panicked".to_owned())))
}

fn enter_fresh_namespaces() -> Result<(), Trouble> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).map_err(Trouble::system("unshare (root is needed)"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(Trouble::system("make / private"))?;
    std::fs::create_dir_all("/var/lib/cni").map_err(Trouble::system("create /var/lib/cni"))?;
    for (kind, at) in [("tmpfs", "/run"), ("tmpfs", "/var/lib/cni"), ("sysfs", "/sys")] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .map_err(Trouble::system(format!("mount {kind} on {at}")))?;
    }
    std::fs::create_dir("/run/netns").map_err(Trouble::system("create /run/netns"))?;
    quiet_kernel()
}

/// Loopback up, and duplicate address detection off: its timers would make facts depend on when they are read.
fn quiet_kernel() -> Result<(), Trouble> {
    for name in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{name}/accept_dad");
        std::fs::write(&path, "0").map_err(Trouble::system(format!("write {path}")))?;
    }
    shell("ip link set lo up", &[]).map(drop)
}

fn bind(from: &Path, to: &Path) -> Result<(), Trouble> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(Trouble::system(format!("bind a namespace to {}", to.display())))
}
