//! Disk images of a manifest that are made on the host where there are none yet.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use api::translate::HostFile;

use super::files::{FileError, at};

/// Makes disk images that are not there yet, sparse, with the folders above them, and returns all that it made.
///
/// # Errors
/// When one cannot be made; those made before are removed again.
pub fn make_host_files(wanted: &[HostFile]) -> Result<Vec<PathBuf>, FileError> {
    let mut made = Vec::new();
    for file in wanted.iter().filter(|file| !file.path.exists()) {
        if let Err(error) = make_host_file(file, &mut made) {
            remove_host_files(&made);
            return Err(error);
        }
    }
    Ok(made)
}

fn make_host_file(file: &HostFile, made: &mut Vec<PathBuf>) -> Result<(), FileError> {
    let absent: Vec<_> = file.path.ancestors().skip(1).take_while(|folder| !folder.exists()).collect();
    for folder in absent.into_iter().rev() {
        std::fs::create_dir(folder).map_err(at("make folder", folder))?;
        made.push(folder.to_owned());
    }
    // The launcher is handed a descriptor; the guest's data is nobody else's business.
    let created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file.path);
    let sized = created.and_then(|image| {
        made.push(file.path.clone());
        image.set_len(file.capacity_bytes)
    });
    sized.map_err(at("make the disk image", &file.path))
}

/// Removes disk images that were just made and never used, and their folders unless somebody else has put something there.
pub fn remove_host_files(made: &[PathBuf]) {
    for path in made.iter().rev() {
        let removed = if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
        if let Err(error) = removed {
            tracing::warn!("cannot remove {}: {error}", path.display());
        }
    }
}
