//! What a VM's processes see of the host: their own process numbers, the system's programs, and their VM's folders.
//!
//! *Guarantees.* Everything is read-only but the launcher's folder and that of the VM's own disks; no other VM's files, no
//! home, no configuration and no socket of the host has a name in it; `/dev` holds what is needed and no more. Where the
//! kernel refuses a part, the VM runs without it, and the log and `doctor` name the part.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use wiring::Owner;

use super::files;
use super::kvm_node::KVM;
use super::launcher::LauncherFile;
use super::layout::Layout;
use crate::sys::confined::{self, Refused, Start, Walls};
use crate::sys::mounts::{Limits, Step};

/// Where distributions keep programs, libraries and firmware.
const SYSTEM: [&str; 10] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store", "/etc/qemu"];
/// What programs of the system need of its configuration.
const SETTINGS: [&str; 5] =
    ["/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"];
/// Of the folders of PATH, those with this are seen too: others may be an administrator's own.
const ENGINE: &str = "qemu-system-x86_64";
/// What every program may open.
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// The file systems of one VM's processes.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// An empty folder that is only root's, to put it together on.
    pub(crate) stage: &'a Path,
    /// User and group of the VM's processes.
    pub(crate) owner: Owner,
    /// Whether `/dev/kvm` is there, owned by this user.
    pub(crate) with_kvm: bool,
    /// Files and folders it may read.
    pub(crate) read: Vec<&'a Path>,
    /// Folders it may write to.
    pub(crate) write: Vec<&'a Path>,
    /// PATH, searched for QEMU outside the system's folders.
    pub(crate) path: Option<OsString>,
}

impl View<'_> {
    /// The steps that put the root together, in the order to be taken.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut plan = Plan { stage: self.stage, steps: vec![Step::Private], made: BTreeSet::new() };
        let stage = plan.inside(Path::new("/"));
        plan.mount(Path::new("/"), "tmpfs", MsFlags::MS_NODEV, "mode=0755,size=1m,nr_inodes=512");
        SYSTEM.into_iter().chain(SETTINGS).for_each(|place| plan.bind(Path::new(place), Limits::ReadOnly));
        let folders = std::env::split_paths(self.path.as_deref().unwrap_or(OsStr::new("")));
        let is_system = |folder: &PathBuf| SYSTEM.iter().any(|place| folder.starts_with(place));
        let elsewhere = |folder: &PathBuf| folder.is_absolute() && !is_system(folder) && folder.join(ENGINE).exists();
        folders.filter(elsewhere).for_each(|folder| plan.bind(&folder, Limits::ReadOnly));
        self.read.iter().for_each(|place| plan.bind(place, Limits::ReadOnly));
        self.write.iter().for_each(|place| plan.bind(place, Limits::NoPrograms));
        plan.folders(Path::new("/proc"));
        plan.mount(Path::new("/proc"), "proc", MsFlags::MS_NODEV, "");
        self.devices(&mut plan);
        plan.steps.extend([Step::Close(stage.clone()), Step::Enter(stage)]);
        plan.steps
    }

    fn devices(&self, plan: &mut Plan<'_>) {
        let folder = Path::new("/dev");
        plan.folders(folder);
        plan.mount(folder, "tmpfs", MsFlags::empty(), "mode=0755,size=64k,nr_inodes=32");
        const ROOT: Owner = Owner { uid: 0, gid: 0 };
        let everyones = DEVICES.into_iter().map(|device| (device, ROOT, 0o666));
        let own = self.with_kvm.then_some((KVM, self.owner, 0o600));
        for (device, owner, mode) in everyones.chain(own) {
            let Ok(found) = fs::metadata(device) else { continue };
            let (at, from) = (plan.inside(Path::new(device)), name(Path::new(device)));
            let mode = Mode::from_bits_truncate(mode);
            plan.steps.push(Step::Device { at, from, number: found.rdev(), owner, mode });
        }
        let folder = plan.inside(folder);
        plan.steps.push(Step::Close(folder));
    }
}

struct Plan<'a> {
    stage: &'a Path,
    steps: Vec<Step>,
    made: BTreeSet<PathBuf>,
}

impl Plan<'_> {
    /// Where a path of the process' lies while its root is put together.
    fn inside(&self, path: &Path) -> CString {
        name(&self.stage.join(path.strip_prefix("/").unwrap_or(path)))
    }

    fn mount(&mut self, at: &Path, kind: &str, flags: MsFlags, options: &str) {
        let text = |text: &str| CString::new(text).unwrap_or_default();
        self.steps.push(Step::Mount { at: self.inside(at), kind: text(kind), flags, options: text(options) });
    }

    /// The folder and those above it.
    fn folders(&mut self, path: &Path) {
        let mut folders: Vec<_> = path.ancestors().filter(|folder| *folder != Path::new("/")).collect();
        folders.reverse();
        for folder in folders {
            if self.made.insert(folder.to_owned()) {
                let at = self.inside(folder);
                self.steps.push(Step::Folder(at));
            }
        }
    }

    /// What the host has at a path, at the same path; nothing where it has nothing there, or where it is there already.
    fn bind(&mut self, path: &Path, limits: Limits) {
        let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let Ok(found) = fs::symlink_metadata(path) else { return };
        if !is_plain || self.made.contains(path) {
            return;
        }
        let above = path.parent().unwrap_or(Path::new("/"));
        let at = self.inside(path);
        let is_link = found.file_type().is_symlink();
        // Where /usr is merged, `/bin` and `/lib` are links into it: the same links are made.
        match fs::read_link(path) {
            Ok(to) if is_link && SYSTEM.iter().any(|place| Path::new(place) == path) => {
                self.folders(above);
                self.made.insert(path.to_owned());
                self.steps.push(Step::Link { at, to: name(&to) });
                return;
            }
            _ => {}
        }
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => self.folders(path),
            Ok(_) => {
                self.folders(above);
                self.made.insert(path.to_owned());
                self.steps.push(Step::File(at.clone()));
            }
            Err(_) => return,
        }
        self.steps.push(Step::Bind { from: name(path), at, limits });
    }
}

/// A path of the kernel's never holds a zero byte.
fn name(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// Starts a process behind as many walls as the kernel allows; those that it does not are told to `missing`.
///
/// # Errors
/// When it cannot be started at all.
pub(crate) fn start(start: &Start, view: &View<'_>, mut missing: impl FnMut(String)) -> Result<Pid, Refused> {
    let without_mounts = "VM processes have no mount namespace of their own and see the host's files";
    let without_processes = "VM processes have no PID namespace of their own";
    match confined::start(start, &Walls::All(view.steps())) {
        Err(refused) if refused.is_a_wall => missing(format!("{without_mounts}: {}", crate::chain(&refused))),
        started => return started,
    }
    match confined::start(start, &Walls::Processes) {
        Err(refused) if refused.is_a_wall => missing(format!("{without_processes}: {}", crate::chain(&refused))),
        started => return started,
    }
    confined::start(start, &Walls::None)
}

/// Starts the launcher behind all walls, to say its version, and returns what the kernel refused of them.
///
/// # Errors
/// When it cannot be started, or not go on behind them, in words.
pub fn try_out(layout: &Layout, launcher: &LauncherFile, owner: Owner) -> Result<Vec<String>, String> {
    let stage = layout.root().join("run/tapvisor-doctor");
    let words = |error: io::Error| error.to_string();
    let open = |path: &str| File::options().read(true).write(true).open(path).map(OwnedFd::from);
    let start_of = || {
        Ok::<_, io::Error>(Start {
            program: launcher.to_execute()?,
            arguments: vec![c"tapvisor-launcher".to_owned(), c"--version".to_owned()],
            environment: Vec::new(),
            input: open("/dev/null")?,
            output: open("/dev/null")?,
            netns: File::open("/proc/self/ns/net")?.into(),
            owner,
            group: None,
            descriptors: Vec::new(),
        })
    };
    let started = start_of().map_err(words)?;
    files::make_dir(&stage, 0o700).map_err(|error| crate::chain(&error))?;
    let path = std::env::var_os("PATH");
    let view = View { stage: &stage, owner, with_kvm: true, read: Vec::new(), write: Vec::new(), path };
    let mut refused = Vec::new();
    let ended = start(&started, &view, |missing| refused.push(missing));
    let ended = ended.map_err(|error| crate::chain(&error)).map(|pid| waitpid(pid, None));
    files::remove_dir(&stage).map_err(|error| crate::chain(&error))?;
    match ended? {
        Ok(WaitStatus::Exited(_, 0)) => Ok(refused),
        Ok(other) => Err(format!("the launcher does not run behind them: {other:?}")),
        Err(errno) => Err(errno.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: ISO-3
    #[test]
    fn a_vm_sees_the_system_and_its_own_and_writes_only_to_its_own() {
        let root = tempfile::tempdir().unwrap();
        let names = ["stage", "own", "other", "machine.json", "programs"];
        let [stage, own, other, file, programs] = names.map(|name| root.path().join(name));
        [&stage, &own, &other, &programs].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
        fs::write(&file, "{}").unwrap();
        fs::write(programs.join(ENGINE), "").unwrap();
        let view = View {
            stage: &stage,
            owner: Owner { uid: 1, gid: 1 },
            with_kvm: false,
            read: vec![&file, Path::new("/absent"), Path::new("/usr/../etc")],
            write: vec![&own],
            path: Some(format!("/usr/bin:relative:/absent:{}:{}", other.display(), programs.display()).into()),
        };
        let steps = view.steps();
        let writable = |step: &&Step| matches!(step, Step::Bind { limits: Limits::NoPrograms, .. });
        let writable: Vec<_> = steps.iter().filter(writable).map(ToString::to_string).collect();
        let inside = |path: &Path| stage.join(path.strip_prefix("/").unwrap());
        assert_eq!(writable, [format!("mounting {} on {}", own.display(), inside(&own).display())]);
        let all: Vec<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(all.first().map(String::as_str), Some("making mounts private"));
        assert_eq!(all.last(), Some(&format!("making {}/ the root", stage.display())));
        let mounted = |what: &str| all.iter().any(|step| step.starts_with(&format!("mounting {what} on ")));
        assert!(mounted(&programs.display().to_string()), "{all:#?}");
        assert!(mounted("/usr") && mounted("proc") && mounted(&file.display().to_string()), "{all:#?}");
        for never in [&other.display().to_string(), "/etc", "/run", "/home", "/root", "/dev", "/absent", "/usr/../etc"]
        {
            assert!(!mounted(never), "{never} in {all:#?}");
        }
        assert!(!all.iter().any(|step| step.contains("/dev/kvm") || step.contains("/dev/net")), "{all:#?}");
    }
}
