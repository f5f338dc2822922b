//! Where the runner keeps things: one function per path, so that no path is spelled twice.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use terms::{IfName, ObjectKey};

/// The folders the runner works in.
///
/// Flow: `/run/tapvisor` holds everything that describes what runs, on tmpfs, so that it dies with the reboot that also
/// kills the devices it describes. Only what a guest writes to throw-away disks lies in `/var/cache`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
    run: PathBuf,
    netns: PathBuf,
    cache: PathBuf,
    config: PathBuf,
    owners: PathBuf,
}

impl Default for Layout {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl Layout {
    /// The usual folders below `root`, which is `/` outside tests.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            run: root.join("run/tapvisor"),
            netns: root.join("run/netns"),
            cache: root.join("var/cache/tapvisor"),
            config: root.join("etc/tapvisor/net.d"),
            owners: root.join("etc/tapvisor/uids"),
        }
    }

    /// Where all of it lies.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The range of numbers that VMs run as, one line `FIRST-LAST`; there need not be one.
    #[must_use]
    pub fn owners(&self) -> &Path {
        &self.owners
    }

    /// Everything that lives as long as the host runs.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The lock for all that VMs share: the list of VMs and the host's own network settings.
    #[must_use]
    pub fn host_lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// Locks of what other users can open: namespaces, the image store.
    #[must_use]
    pub fn locks(&self) -> PathBuf {
        self.run.join("locks")
    }

    /// The folders that are Tapvisor's own: no VM may have a disk in them.
    #[must_use]
    pub fn own_folders(&self) -> [&Path; 3] {
        [&self.run, &self.cache, self.config.parent().unwrap_or(&self.config)]
    }

    /// What the host's network was before the first VM.
    #[must_use]
    pub fn host_state(&self) -> PathBuf {
        self.run.join("host.json")
    }

    /// The folder that holds one folder per VM.
    #[must_use]
    pub fn vms(&self) -> PathBuf {
        self.run.join("vms")
    }

    /// The folder of one VM. A namespace holds no dot, so the first dot parts it from the name.
    #[must_use]
    pub fn vm(&self, key: &ObjectKey) -> VmLayout {
        VmLayout { dir: self.vms().join(format!("{}.{}", key.namespace(), key.name())) }
    }

    /// Services, one file for each.
    #[must_use]
    pub fn services(&self) -> PathBuf {
        self.run.join("services")
    }

    /// Where host-local of the default network keeps its leases.
    #[must_use]
    pub fn ipam(&self) -> PathBuf {
        self.run.join("ipam")
    }

    /// Our own copy of the cache that libcni keeps below `/var/lib/cni`: a GC of the node's network never sees it.
    #[must_use]
    pub fn cni_cache(&self) -> PathBuf {
        self.run.join("cni")
    }

    /// Plugins under the names that configurations use, as links to the files installed next to this program.
    #[must_use]
    pub fn plugin_links(&self) -> PathBuf {
        self.run.join("bin")
    }

    /// Network configurations and NetworkAttachmentDefinitions of the host's owner.
    #[must_use]
    pub fn networks(&self) -> &Path {
        &self.config
    }

    /// The store of container images.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.cache.join("images")
    }

    /// Disks that end with their VM.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.cache.join("scratch")
    }

    /// The folder in which namespaces have names that `ip netns` understands.
    #[must_use]
    pub fn netns_dir(&self) -> &Path {
        &self.netns
    }

    /// The network namespace of a VM: `tv-` and 12 hexadecimal digits of the SHA-256 of `ns/name`.
    #[must_use]
    pub fn netns(&self, key: &ObjectKey) -> PathBuf {
        let digits = hex(&Sha256::digest(key.to_string())[..6]);
        self.netns.join(format!("tv-{digits}"))
    }
}

/// The files of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmLayout {
    dir: PathBuf,
}

impl VmLayout {
    /// The files of a VM whose folder is not at its final place yet.
    #[must_use]
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The VM's folder, owned by root.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The lock that the supervisor, and every plugin it executes, holds while it lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// The file that names the supervisor's process.
    #[must_use]
    pub fn pid(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// The supervisor's own requests and answers.
    #[must_use]
    pub fn supervisor_socket(&self) -> PathBuf {
        self.dir.join("supervisor.sock")
    }

    /// What the supervisor has to say.
    #[must_use]
    pub fn supervisor_log(&self) -> PathBuf {
        self.dir.join("supervisor.log")
    }

    /// What is known of the VM, rewritten as it changes.
    #[must_use]
    pub fn status(&self) -> PathBuf {
        self.dir.join("status.json")
    }

    /// The networks the VM is attached to, written before the first of them is.
    #[must_use]
    pub fn attachments(&self) -> PathBuf {
        self.dir.join("attachments.json")
    }

    /// The object as it was given.
    #[must_use]
    pub fn object(&self) -> PathBuf {
        self.dir.join("object.json")
    }

    /// The launch file, which the launcher reads.
    #[must_use]
    pub fn machine(&self) -> PathBuf {
        self.dir.join("machine.json")
    }

    /// What the binding plugin reads.
    #[must_use]
    pub fn wiring(&self) -> PathBuf {
        self.dir.join("wiring.json")
    }

    /// The VM's name servers, for the launcher.
    #[must_use]
    pub fn resolv_conf(&self) -> PathBuf {
        self.dir.join("resolv.conf")
    }

    /// The name servers that the network of a pod interface gives, for the launcher.
    #[must_use]
    pub fn nic_resolv_conf(&self, pod_interface: &IfName) -> PathBuf {
        self.dir.join(format!("resolv.conf.{pod_interface}"))
    }

    /// The launcher's own folder, the only one it may write to. Its sockets and logs also have a link in [`Self::dir`].
    #[must_use]
    pub fn launcher_dir(&self) -> PathBuf {
        self.dir.join("launcher")
    }

    /// An empty folder on which the launcher's root is put together, in a mount namespace of the launcher's own.
    #[must_use]
    pub fn stage(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The launcher's control socket: requests and events, one JSON object per line.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.launcher_dir().join("control.sock")
    }

    /// The socket of the guest's serial console.
    #[must_use]
    pub fn console_socket(&self) -> PathBuf {
        self.launcher_dir().join("console.sock")
    }

    /// What the guest wrote to its serial console.
    #[must_use]
    pub fn console_log(&self) -> PathBuf {
        self.launcher_dir().join("console.log")
    }

    /// How the guest ended, in the launcher's words.
    #[must_use]
    pub fn outcome(&self) -> PathBuf {
        self.launcher_dir().join("outcome.json")
    }
}

/// Names of what the launcher makes in its folder and readers look for one level higher.
pub(crate) const LAUNCHER_FILES: [&str; 6] =
    ["control.sock", "console.sock", "console-live.sock", "vnc.sock", "console.log", "outcome.json"];

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_has_one_folder_and_one_namespace() {
        let layout = Layout::default();
        let key = ObjectKey::new("default", "web.1").unwrap();
        assert_eq!(layout.vm(&key).lock(), Path::new("/run/tapvisor/vms/default.web.1/lock"));
        // printf default/web.1 | sha256sum
        assert_eq!(layout.netns(&key), Path::new("/run/netns/tv-354f5c9f2d0a"));
    }

    #[test]
    fn nothing_is_spelled_outside_the_root() {
        let layout = Layout::below(Path::new("/elsewhere"));
        for path in [layout.host_lock(), layout.ipam(), layout.images(), layout.networks().to_path_buf()] {
            assert!(path.starts_with("/elsewhere"), "{}", path.display());
        }
    }
}
