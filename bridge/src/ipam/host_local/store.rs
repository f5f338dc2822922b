//! Reservations as files: one for each address, with its owner in it, as the reference plugin writes them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_protocol::plugin::AttachmentKey;
use hostnet::{LockKind, lock_file};
use terms::NetworkName;

/// Where the reference plugin keeps reservations unless it is told otherwise.
const REFERENCE_FOLDER: &str = "/var/lib/cni/networks";
/// On tmpfs: where ours are unless it is told otherwise.
const OWN_FOLDER: &str = "/run/tapvisor/networks";

/// How long another holder of the lock is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The reservations of a network.
#[derive(Debug, Clone)]
pub(super) struct Store {
    folder: PathBuf,
}

/// What a reservation's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    text: String,
    /// Without the interface, as releases before 0.7 wrote it.
    old_text: String,
}

/// Why a reservation could not be made, read or removed.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Another process holds the lock.
    #[error("another process has held {path} for {} s", PATIENCE.as_secs())]
    Busy { path: PathBuf },
    /// The system failed.
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Owner {
    pub(super) fn of(attachment: &AttachmentKey) -> Self {
        let old_text = attachment.container_id.to_string();
        Self { text: format!("{old_text}\r\n{}", attachment.if_name), old_text }
    }

    fn is(&self, text: &str) -> bool {
        text.trim() == self.text || text.trim() == self.old_text
    }
}

impl Store {
    /// In the folder that is configured; else in the reference plugin's, where that has reservations of this network; else in
    /// ours.
    pub(super) fn of(network: &NetworkName, data_dir: Option<&Path>) -> Self {
        Self::shared(network, data_dir).unwrap_or_else(|| Self::at(Path::new(OWN_FOLDER).join(network.as_str())))
    }

    /// The folder that the reference plugin may use as well, if there is one.
    pub(super) fn shared(network: &NetworkName, data_dir: Option<&Path>) -> Option<Self> {
        if let Some(folder) = data_dir {
            return Some(Self::at(folder.join(network.as_str())));
        }
        let store = Self::at(Path::new(REFERENCE_FOLDER).join(network.as_str()));
        let mut entries = fs::read_dir(&store.folder).into_iter().flatten().flatten();
        let is_used = entries.any(|entry| address_of(&entry.path()).is_some());
        is_used.then_some(store)
    }

    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the reference plugin's lock, until the result is dropped or the process ends.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&self.folder);
        made.map_err(failed("make folder", &self.folder))?;
        let path = self.folder.join("lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(&path);
        let file = opened.map_err(failed("open", &path))?;
        match lock_file(&file, LockKind::Exclusive, PATIENCE).map_err(failed("lock", &path))? {
            true => Ok(file),
            false => Err(StoreError::Busy { path }),
        }
    }

    pub(super) fn is_free(&self, address: IpAddr) -> bool {
        fs::symlink_metadata(self.path(address)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Reserves an address under the lock and remembers it as the last of its range set.
    pub(super) fn reserve(&self, address: IpAddr, owner: &Owner, set: usize) -> Result<(), StoreError> {
        create(&self.path(address), &owner.text)?;
        // Removed and created again: a file that is truncated instead is flushed to the disk when it is closed (auto_da_alloc of
        // ext4), which takes a tenth of a second on a busy one.
        let path = self.last_path(set);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path)(error)),
            _ => {}
        }
        create(&path, &address.to_string())
    }

    /// The address that was reserved last from a range set.
    pub(super) fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        fs::read_to_string(self.last_path(set)).ok()?.trim().parse().ok()
    }

    pub(super) fn is_owned(&self, address: IpAddr, owner: &Owner) -> bool {
        fs::read_to_string(self.path(address)).is_ok_and(|text| owner.is(&text))
    }

    /// Releases an address, if it is still this owner's; one cut off by a full disk is its maker's.
    pub(super) fn release(&self, address: IpAddr, owner: &Owner) -> Result<(), StoreError> {
        let path = self.path(address);
        match fs::read_to_string(&path) {
            Ok(text) if owner.is(&text) || owner.text.starts_with(&text) => remove(&path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// The addresses of an owner, found by reading all reservations.
    pub(super) fn owned(&self, owner: &Owner) -> Result<Vec<IpAddr>, StoreError> {
        let all = self.all()?.into_iter();
        Ok(all.filter(|(_, text)| owner.is(text)).map(|(address, _)| address).collect())
    }

    /// Releases the addresses of an owner, found by reading all reservations.
    pub(super) fn release_owned(&self, owner: &Owner) -> Result<(), StoreError> {
        self.owned(owner)?.into_iter().try_for_each(|address| remove(&self.path(address)))
    }

    /// Releases the addresses of all but these owners.
    pub(super) fn release_others(&self, valid: &[Owner]) -> Result<(), StoreError> {
        let all = self.all()?.into_iter();
        let mut others = all.filter(|(_, text)| !valid.iter().any(|owner| owner.is(text)));
        others.try_for_each(|(address, _)| remove(&self.path(address)))
    }

    /// Every reservation with what is in its file.
    fn all(&self) -> Result<Vec<(IpAddr, String)>, StoreError> {
        let listing = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing.map_err(failed("list", &self.folder))?,
        };
        let mut all = Vec::new();
        for entry in listing {
            let path = entry.map_err(failed("list", &self.folder))?.path();
            let Some(address) = address_of(&path) else { continue };
            match fs::read_to_string(&path) {
                Ok(text) => all.push((address, text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("read", &path)(error)),
            }
        }
        Ok(all)
    }

    fn path(&self, address: IpAddr) -> PathBuf {
        self.folder.join(address.to_string())
    }

    fn last_path(&self, set: usize) -> PathBuf {
        self.folder.join(format!("last_reserved_ip.{set}"))
    }
}

fn create(path: &Path, text: &str) -> Result<(), StoreError> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    made.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed("write", path))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// A file that is named for an address is a reservation.
fn address_of(path: &Path) -> Option<IpAddr> {
    path.file_name()?.to_str()?.parse().ok()
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |source| StoreError::Io { action, path: path.to_owned(), source }
}
