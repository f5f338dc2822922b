//! Removes from the store what no image and no VM needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::ImageError;
use super::blob::BlobName;
use super::system;

/// Files taken out of images that VMs need, each with the name of the VM.
pub type InUse = BTreeMap<PathBuf, String>;

/// One sweep, under the store's lock.
pub(super) struct Sweep<'a> {
    pub(super) folder: &'a Path,
    /// Every blob of every image.
    pub(super) parts: &'a BTreeSet<BlobName>,
    /// Unknown users keep every file that was taken out.
    pub(super) in_use: Option<&'a InUse>,
}

impl Sweep<'_> {
    /// Returns how many bytes are free again.
    pub(super) fn run(&self) -> Result<u64, ImageError> {
        let mut freed = 0;
        let needed: BTreeSet<&str> = self.parts.iter().map(BlobName::hex).collect();
        let is_needed =
            |path: &Path| path.file_name().and_then(|name| name.to_str()).is_some_and(|n| needed.contains(n));
        for path in entries(&self.folder.join("blobs/sha256"))? {
            if !is_needed(&path) {
                freed += bytes(&path);
                fs::remove_file(&path).map_err(system("remove", &path))?;
            }
        }
        let Some(in_use) = self.in_use else { return Ok(freed) };
        for folder in entries(&self.folder.join("files"))? {
            if is_needed(&folder) || in_use.keys().any(|path| path.starts_with(&folder)) {
                continue;
            }
            freed += entries(&folder)?.iter().map(|path| bytes(path)).sum::<u64>();
            fs::remove_dir_all(&folder).map_err(system("remove", &folder))?;
        }
        Ok(freed)
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let listing = fs::read_dir(folder).map_err(system("list", folder))?;
    listing.map(|entry| entry.map(|entry| entry.path()).map_err(system("list", folder))).collect()
}

/// What removing a file frees.
fn bytes(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |found| if found.nlink() == 1 { found.blocks() * 512 } else { 0 })
}
