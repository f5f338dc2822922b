//! The folders of all VMs: made whole or not at all, locked by who works on them, listed, removed.
//!
//! *Guarantees.* A VM's folder appears by one rename, complete and already locked, and goes by one. Its lock is free only when its
//! supervisor and every plugin executed for it have ended. *Assumptions.* `/run` is on one file system, and only root
//! writes to `/run/tapvisor`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::launch_file::LaunchFile;
use terms::ObjectKey;
use wiring::Owner;

use super::chain;
use super::files::{self, FileError, at};
use super::layout::{LAUNCHER_FILES, Layout, VmLayout};
use super::process::Process;
use super::quota;
use super::record::{Attachments, OnHost, Status};

/// How long a command waits for another one that is at work on the host's shared state.
const HOST_LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Why the folders cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of a VM cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is a VM of that name.
    #[error("{0} exists already: `tapvisor rm {0}` removes it")]
    Exists(ObjectKey),
    /// No VM of that name is recorded.
    #[error("there is no VM {0}")]
    NotFound(ObjectKey),
    /// What was recorded of a VM cannot be used.
    #[error("the record of {key} is damaged: {what}; `tapvisor rm {key}` removes it")]
    Damaged {
        /// Namespace and name of the VM.
        key: ObjectKey,
        /// What is wrong with the record, as text.
        what: String,
    },
    /// Another process works on the VM and does not stop.
    #[error("{path} is locked by another tapvisor process")]
    Busy {
        /// Path of the lock.
        path: PathBuf,
    },
}

/// The folders of all VMs.
#[derive(Debug, Clone)]
pub struct Store {
    layout: Layout,
}

/// Exclusive right to the list of VMs and to the host's own network settings, until dropped.
#[derive(Debug)]
pub struct HostLock(#[expect(dead_code, reason = "the lock lasts as long as the open file")] File);

/// Exclusive right to one VM, until this and every descriptor inherited from it are closed.
#[derive(Debug)]
pub struct VmLock {
    key: ObjectKey,
    file: File,
}

impl VmLock {
    /// The lock of a VM that a parent process left open for us.
    pub(crate) fn inherited(key: ObjectKey, file: File) -> Self {
        Self { key, file }
    }

    /// The locked file, to be left open in a child.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

/// Everything a VM's folder holds from its first moment on.
#[derive(Debug)]
pub struct NewVm<'a> {
    /// Namespace and name of the VM.
    pub key: &'a ObjectKey,
    /// The status that it begins with.
    pub status: &'a Status,
    /// The object as it was given.
    pub object: &'a serde_json::Value,
    /// Content of `machine.json`, as bytes.
    pub machine: &'a [u8],
    /// Content of `wiring.json`, as bytes.
    pub wiring: &'a [u8],
    /// Content of the file with its networks' configuration lists.
    pub attachments: &'a Attachments,
    /// The launcher's user and group.
    pub owner: Owner,
}

impl Store {
    /// The store of a layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// The folders and files of this host.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Waits for the host-wide lock.
    ///
    /// # Errors
    /// When it cannot be made, or another command holds it for a minute.
    pub fn lock_host(&self) -> Result<HostLock, StoreError> {
        let busy = || StoreError::Busy { path: self.layout.host_lock() };
        self.lock_host_within(HOST_LOCK_PATIENCE)?.ok_or_else(busy)
    }

    /// [`Self::lock_host`] for work that another command does later if the lock is not free soon.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn lock_host_soon(&self) -> Result<Option<HostLock>, StoreError> {
        const SOON: Duration = Duration::from_secs(2);
        self.lock_host_within(SOON)
    }

    fn lock_host_within(&self, patience: Duration) -> Result<Option<HostLock>, StoreError> {
        files::make_dir(self.layout.run(), 0o755)?;
        let path = self.layout.host_lock();
        let file = open_lock(&path, true).map_err(at("open", &path))?;
        Ok(lock_within(file, &path, patience)?.map(HostLock))
    }

    /// The VMs there are, by name; folders that are no VM's are passed over.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn keys(&self) -> Result<Vec<ObjectKey>, StoreError> {
        let paths = files::entries(&self.layout.vms())?;
        let key_of = |path: &PathBuf| {
            let (namespace, name) = path.file_name()?.to_str()?.split_once('.')?;
            ObjectKey::new(namespace, name).ok()
        };
        Ok(paths.iter().filter_map(key_of).collect())
    }

    /// Whether there is a VM of this name.
    #[must_use]
    pub fn exists(&self, key: &ObjectKey) -> bool {
        self.layout.vm(key).dir().exists()
    }

    /// Whether anything of any VM is on the host; what cannot be read may well be there.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn is_any_on_host(&self) -> Result<bool, StoreError> {
        let is_present = |key: &ObjectKey| self.status(key).map_or(true, |status| status.on_host == OnHost::Present);
        Ok(self.keys()?.iter().any(is_present))
    }

    /// Whether a process works on a VM, or is about to: its supervisor, or a command.
    #[must_use]
    pub fn is_claimed(&self, key: &ObjectKey) -> bool {
        let lock = open_lock(&self.layout.vm(key).lock(), false);
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// What is known of a VM.
    ///
    /// # Errors
    /// When there is no such VM or its status is damaged.
    pub fn status(&self, key: &ObjectKey) -> Result<Status, StoreError> {
        files::read_json(&self.layout.vm(key).status()).map_err(|error| match error {
            FileError::Content { .. } | FileError::NotAFile { .. } => {
                StoreError::Damaged { key: key.clone(), what: chain(&error) }
            }
            error if error.is_absent() => self.absent(key, &self.layout.vm(key).status()),
            error => error.into(),
        })
    }

    /// There is no VM, or one that lacks a file that is there from its first moment on.
    fn absent(&self, key: &ObjectKey, path: &Path) -> StoreError {
        // Looked at last: a folder goes at once, with all that is in it.
        match !path.exists() && self.exists(key) {
            true => StoreError::Damaged { key: key.clone(), what: format!("{} is missing", path.display()) },
            false => StoreError::NotFound(key.clone()),
        }
    }

    /// The supervisor of a VM, by its record, if it is alive.
    #[must_use]
    pub fn supervisor(&self, key: &ObjectKey) -> Option<Process> {
        let recorded = match self.status(key) {
            Ok(status) => status.supervisor,
            Err(_) => self.supervisor_by_pid(key),
        };
        recorded.filter(|process| process.is_alive())
    }

    /// A damaged status names no process; its number is in a file of its own, and its arguments say whether it is still it.
    fn supervisor_by_pid(&self, key: &ObjectKey) -> Option<Process> {
        let pid = String::from_utf8(files::read(&self.layout.vm(key).pid()).ok()?).ok()?.trim().parse().ok()?;
        let process = Process::noted(pid)?;
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut arguments = arguments.split(|byte| *byte == 0);
        let is_it = arguments.nth(1) == Some(b"supervise") && arguments.next() == Some(key.to_string().as_bytes());
        is_it.then_some(process)
    }

    /// Replaces the status of the VM whose lock this is.
    ///
    /// # Errors
    /// When the file cannot be written; the earlier status is then still there.
    pub fn put_status(&self, lock: &VmLock, status: &Status) -> Result<(), StoreError> {
        Ok(files::replace_json(&self.layout.vm(&lock.key).status(), status)?)
    }

    /// What the launcher of a VM reads.
    ///
    /// # Errors
    /// When there is no such VM or the file is damaged.
    pub fn machine(&self, key: &ObjectKey) -> Result<LaunchFile, StoreError> {
        match files::read_json(&self.layout.vm(key).machine()) {
            Err(error) if error.is_absent() => Err(StoreError::NotFound(key.clone())),
            result => Ok(result?),
        }
    }

    /// The networks of a VM.
    ///
    /// # Errors
    /// When the file is absent or damaged.
    pub fn attachments(&self, key: &ObjectKey) -> Result<Attachments, StoreError> {
        Ok(files::read_json(&self.layout.vm(key).attachments())?)
    }

    /// Takes a VM's lock if it is free.
    ///
    /// # Errors
    /// When there is no such VM.
    pub fn try_lock(&self, key: &ObjectKey) -> Result<Option<VmLock>, StoreError> {
        self.lock_vm(key, Duration::ZERO)
    }

    /// Takes a VM's lock as soon as it is free, `None` when that takes too long.
    ///
    /// # Errors
    /// When there is no such VM.
    pub fn lock_vm(&self, key: &ObjectKey, patience: Duration) -> Result<Option<VmLock>, StoreError> {
        let path = self.layout.vm(key).lock();
        let file = match open_lock(&path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.absent(key, &path)),
            file => file.map_err(at("open", &path))?,
        };
        let Some(lock) = lock_within(file, &path, patience)? else { return Ok(None) };
        // While we waited, the VM may have been removed, and another one of its name made.
        let same = |now: fs::Metadata| lock.metadata().is_ok_and(|ours| ours.ino() == now.ino());
        match fs::metadata(&path).is_ok_and(same) {
            true => Ok(Some(VmLock { key: key.clone(), file: lock })),
            false => Err(StoreError::NotFound(key.clone())),
        }
    }

    /// Takes the lock of a VM whose lock file was removed, unless its supervisor is alive and has the file still open.
    ///
    /// # Errors
    /// When there is no such VM, or the file cannot be made.
    pub fn lock_damaged(&self, _host: &HostLock, key: &ObjectKey) -> Result<Option<VmLock>, StoreError> {
        if !self.exists(key) {
            return Err(StoreError::NotFound(key.clone()));
        }
        if self.supervisor(key).is_some() {
            return Ok(None);
        }
        let path = self.layout.vm(key).lock();
        let file = open_lock(&path, true).map_err(at("make", &path))?;
        Ok(lock_within(file, &path, Duration::ZERO)?.map(|file| VmLock { key: key.clone(), file }))
    }

    /// Makes a VM's folder with all in it, locked.
    ///
    /// # Errors
    /// When there is a VM of that name, or the system refuses; nothing of the new one is left then.
    pub fn create(&self, _host: &HostLock, new: &NewVm<'_>) -> Result<VmLock, StoreError> {
        let vm = self.layout.vm(new.key);
        if vm.dir().exists() {
            return Err(StoreError::Exists(new.key.clone()));
        }
        files::make_dir(&self.layout.vms(), 0o755)?;
        let draft = self.draft(new.key);
        let made = fill(&draft, new).and_then(|lock| {
            fs::rename(draft.dir(), vm.dir()).map_err(at("make folder", vm.dir()))?;
            Ok(lock)
        });
        made.map_err(|error| {
            let _ = remove_folder(&draft);
            StoreError::from(error)
        })
    }

    /// Folders that are being made or removed, or whose maker or remover was killed. Both is done under the host lock alone.
    ///
    /// # Errors
    /// When the folder of VMs cannot be listed.
    pub fn drafts(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut paths = files::entries(&self.layout.vms())?;
        paths.retain(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(DRAFT.as_bytes())));
        Ok(paths)
    }

    /// Removes what commands and supervisors left that were killed while making or removing a folder. One that cannot be
    /// removed is a warning: it is no VM's.
    ///
    /// # Errors
    /// When the folder of VMs cannot be listed.
    pub fn remove_drafts(&self, _host: &HostLock) -> Result<(), StoreError> {
        for path in self.drafts()? {
            if let Err(error) = remove_folder(&VmLayout::at(path)) {
                tracing::warn!(error = %chain(&error), "a partial folder cannot be removed");
            }
        }
        Ok(())
    }

    /// Removes a VM's folder: at once, then what was in it. Who is killed in between leaves no half of a VM.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, _host: &HostLock, key: &ObjectKey, _lock: &VmLock) -> Result<(), StoreError> {
        let (vm, draft) = (self.layout.vm(key), self.draft(key));
        remove_folder(&draft)?;
        match fs::rename(vm.dir(), draft.dir()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            moved => {
                moved.map_err(at("remove", vm.dir()))?;
                Ok(remove_folder(&draft)?)
            }
        }
    }

    fn draft(&self, key: &ObjectKey) -> VmLayout {
        VmLayout::at(self.layout.vms().join(format!("{DRAFT}{}.{}", key.namespace(), key.name())))
    }
}

/// How the name of a folder that is being filled or emptied begins; no namespace begins so.
const DRAFT: &str = ".new-";

/// Longest namespace and name that a folder can be called after, with the dot between them: a file's name has at most 255
/// bytes.
pub(crate) const MOST_KEY_BYTES: usize = 255 - DRAFT.len() - 1;

/// With the launcher's own file system, if that is mounted there.
fn remove_folder(vm: &VmLayout) -> Result<(), FileError> {
    let own = vm.launcher_dir();
    quota::unmount(&own).map_err(at("unmount", &own))?;
    files::remove_dir(vm.dir())
}

fn fill(vm: &VmLayout, new: &NewVm<'_>) -> Result<VmLock, FileError> {
    remove_folder(vm)?;
    files::make_dir(vm.dir(), 0o755)?;
    files::replace_json(&vm.status(), new.status)?;
    files::replace_json(&vm.object(), new.object)?;
    files::replace_json(&vm.attachments(), new.attachments)?;
    files::replace(&vm.wiring(), new.wiring, 0o600)?;
    // cloud-init's secrets are in it: for root and the launcher's group alone.
    files::replace(&vm.machine(), new.machine, 0o640)?;
    chown(vm.machine(), None, Some(new.owner.gid)).map_err(at("set the owner of", &vm.machine()))?;
    files::make_dir(&vm.launcher_dir(), 0o700)?;
    chown(vm.launcher_dir(), Some(new.owner.uid), Some(new.owner.gid))
        .map_err(at("set the owner of", &vm.launcher_dir()))?;
    for name in LAUNCHER_FILES {
        let link = vm.dir().join(name);
        symlink(Path::new("launcher").join(name), &link).map_err(at("make", &link))?;
    }
    let path = vm.lock();
    let lock = open_lock(&path, true).map_err(at("make", &path))?;
    lock.lock().map_err(at("lock", &path))?;
    Ok(VmLock { key: new.key.clone(), file: lock })
}

fn lock_within(file: File, path: &Path, patience: Duration) -> Result<Option<File>, FileError> {
    const STEP: Duration = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(source)) => return Err(at("lock", path)(source)),
            Err(TryLockError::WouldBlock) if waited >= patience => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(STEP),
        }
        waited += STEP;
    }
}

fn open_lock(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(create).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{key, owner, status};

    fn make(store: &Store, name: &str) -> Result<VmLock, StoreError> {
        let (key, host) = (key(name), store.lock_host().unwrap());
        store.create(
            &host,
            &NewVm {
                key: &key,
                status: &status(name),
                object: &serde_json::json!({"kind": "VirtualMachine"}),
                machine: b"{}",
                wiring: b"{}",
                attachments: &Attachments::default(),
                owner: owner(),
            },
        )
    }

    #[test]
    fn a_vm_appears_whole_and_locked_and_goes_without_a_trace() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        let lock = make(&store, "web").unwrap();
        assert_eq!(store.keys().unwrap(), [key("web")]);
        assert_eq!(store.status(&key("web")).unwrap(), status("web"));
        assert!(store.try_lock(&key("web")).unwrap().is_none(), "its maker holds it");
        let host = store.lock_host().unwrap();
        store.remove(&host, &key("web"), &lock).unwrap();
        assert!(files::entries(&store.layout().vms()).unwrap().is_empty());
        assert!(store.keys().unwrap().is_empty());
        assert!(matches!(store.try_lock(&key("web")), Err(StoreError::NotFound(_))));
    }

    #[test]
    fn a_second_vm_of_the_same_name_is_refused_and_the_first_untouched() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        let _first = make(&store, "web").unwrap();
        assert!(matches!(make(&store, "web"), Err(StoreError::Exists(_))));
        assert_eq!(files::entries(&store.layout().vms()).unwrap().len(), 1);
    }

    #[test]
    fn a_lock_waited_for_while_the_vm_was_replaced_is_not_the_new_vms() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        let old = make(&store, "web").unwrap();
        let waiting = {
            let store = store.clone();
            std::thread::spawn(move || store.lock_vm(&key("web"), Duration::from_secs(10)))
        };
        // Open here, and there.
        let path = store.layout().vm(&key("web")).lock();
        let is_it = |fd: &PathBuf| fs::read_link(fd).is_ok_and(|file| file == path);
        while files::entries(Path::new("/proc/self/fd")).unwrap().iter().filter(|fd| is_it(fd)).count() < 2 {
            std::thread::yield_now();
        }
        store.remove(&store.lock_host().unwrap(), &key("web"), &old).unwrap();
        let _new = make(&store, "web").unwrap();
        drop(old);
        assert!(matches!(waiting.join().unwrap(), Err(StoreError::NotFound(_))));
    }

    #[test]
    fn drafts_of_killed_commands_are_no_vms_and_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        let host = store.lock_host().unwrap();
        fs::create_dir_all(store.layout().vms().join(".new-default.web")).unwrap();
        assert!(store.keys().unwrap().is_empty());
        store.remove_drafts(&host).unwrap();
        assert!(files::entries(&store.layout().vms()).unwrap().is_empty());
    }

    // spec: RUN-10
    #[test]
    fn damage_to_a_record_is_named_with_the_vm_and_its_remedy() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        let lock = make(&store, "web").unwrap();
        let vm = store.layout().vm(&key("web"));
        let message = |error: StoreError| {
            let text = error.to_string();
            assert!(matches!(error, StoreError::Damaged { .. }), "{text}");
            assert!(text.contains("default/web") && text.contains("`tapvisor rm default/web`"), "{text}");
            text
        };
        fs::write(vm.status(), "{").unwrap();
        assert!(message(store.status(&key("web")).unwrap_err()).contains("status.json"));
        fs::remove_file(vm.status()).unwrap();
        assert!(message(store.status(&key("web")).unwrap_err()).contains("is missing"));
        fs::remove_file(vm.lock()).unwrap();
        drop(lock);
        assert!(message(store.lock_vm(&key("web"), Duration::ZERO).unwrap_err()).contains("is missing"));
        let host = store.lock_host().unwrap();
        let lock = store.lock_damaged(&host, &key("web")).unwrap().unwrap();
        assert!(store.lock_damaged(&host, &key("web")).unwrap().is_none(), "it is locked now");
        store.remove(&host, &key("web"), &lock).unwrap();
        assert!(matches!(store.status(&key("web")), Err(StoreError::NotFound(_))));
        assert!(matches!(store.lock_damaged(&host, &key("web")), Err(StoreError::NotFound(_))));
    }
}
