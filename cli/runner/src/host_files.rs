//! Disk images of a manifest that are made on the host where there are none yet.

use std::path::PathBuf;

use api::translate::HostFile;
use block::path::{self, PathError};

use super::files::{FileError, at};
use super::layout::Layout;

/// A disk image that was made, and how many folders were made for it.
#[derive(Debug)]
pub struct MadeFile {
    path: PathBuf,
    folders: usize,
}

/// Makes disk images that are not there yet, sparse, with the folders above them, and returns all that it made.
///
/// # Errors
/// When one cannot be made; those made before are removed again.
pub fn make_host_files(layout: &Layout, wanted: &[HostFile]) -> Result<Vec<MadeFile>, FileError> {
    let mut made = Vec::new();
    for file in wanted {
        if let Err(error) = make_host_file(layout, file, &mut made) {
            remove_host_files(layout, &made);
            return Err(error);
        }
    }
    Ok(made)
}

fn make_host_file(layout: &Layout, file: &HostFile, made: &mut Vec<MadeFile>) -> Result<(), FileError> {
    let own = layout.own_folders();
    let failed = |error| match error {
        PathError::System(source) => at("make the disk image", &file.path)(source),
        refused => at("make the disk image", &file.path)(std::io::Error::other(refused)),
    };
    if path::examine(&file.path, &own).map_err(failed)?.is_some() {
        return Ok(());
    }
    // The launcher is handed a descriptor; the guest's data is for no other user.
    let (mut image, folders) = path::create(&file.path, &own).map_err(failed)?;
    made.push(MadeFile { path: file.path.clone(), folders });
    block::make(&mut image, file.capacity_bytes, file.format).map_err(at("make the disk image", &file.path))
}

/// Removes disk images that were just made and never used, and their folders unless something else is in them.
pub fn remove_host_files(layout: &Layout, made: &[MadeFile]) {
    for file in made.iter().rev() {
        if let Err(error) = path::remove(&file.path, file.folders, &layout.own_folders()) {
            tracing::warn!(path = %file.path.display(), %error, "a new disk file cannot be removed");
        }
    }
}
