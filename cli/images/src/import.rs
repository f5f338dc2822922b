//! Brings the blobs of somebody else's OCI layout into ours, each checked against its name.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use oci_spec::image::ImageIndex;

use super::blob::{self, BlobName, Hashing};
use super::temporary::temporary;
use super::{ImageError, MAX_JSON_BYTES, system};

/// Copies all blobs of the layout at `from` into the layout `to` and returns its index.
pub(super) fn copy_blobs(from: &Path, to: &Path) -> Result<ImageIndex, ImageError> {
    let kind = fs::metadata(from).map_err(system("import", from))?;
    if kind.is_dir() { from_folder(from, to) } else { from_archive(from, to) }
}

fn from_folder(from: &Path, to: &Path) -> Result<ImageIndex, ImageError> {
    let path = from.join("index.json");
    let index = match fs::read(&path) {
        Ok(bytes) => parse_index(&bytes, &path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_layout(from)),
        Err(error) => return Err(system("read", path)(error)),
    };
    let blobs = from.join("blobs/sha256");
    for entry in fs::read_dir(&blobs).map_err(system("list", &blobs))? {
        let entry = entry.map_err(system("list", &blobs))?;
        let Ok(name) = format!("sha256:{}", entry.file_name().display()).parse::<BlobName>() else { continue };
        store(&name, to, || File::open(entry.path()).map_err(system("open", entry.path())))?;
    }
    Ok(index)
}

fn from_archive(from: &Path, to: &Path) -> Result<ImageIndex, ImageError> {
    let file = File::open(from).map_err(system("open", from))?;
    let reader = blob::decompressed(file).map_err(system("read", from))?;
    let mut archive = tar::Archive::new(reader);
    let mut index = None;
    for entry in archive.entries().map_err(system("read", from))? {
        let mut entry = entry.map_err(system("read", from))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().map_err(system("read", from))?.into_owned();
        let path = path.strip_prefix(".").unwrap_or(&path);
        if path == Path::new("index.json") {
            let mut bytes = Vec::new();
            entry.take(MAX_JSON_BYTES).read_to_end(&mut bytes).map_err(system("read", from))?;
            index = Some(parse_index(&bytes, &from.join("index.json"))?);
        } else if let Ok(digits) = path.strip_prefix("blobs/sha256")
            && let Ok(name) = format!("sha256:{}", digits.display()).parse::<BlobName>()
        {
            store(&name, to, || Ok(&mut entry))?;
        }
    }
    index.ok_or_else(|| no_layout(from))
}

fn no_layout(from: &Path) -> ImageError {
    ImageError::malformed(from.display().to_string(), "is no OCI layout: it has no index.json")
}

pub(super) fn parse_index(bytes: &[u8], path: &Path) -> Result<ImageIndex, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::malformed(path.display().to_string(), error.to_string()))
}

/// Writes a blob under a name of our own, and under its digest only once that is proven.
fn store<R: Read>(name: &BlobName, to: &Path, open: impl FnOnce() -> Result<R, ImageError>) -> Result<(), ImageError> {
    let path = name.path(to);
    if path.exists() {
        return Ok(());
    }
    let (fresh, mut file) = temporary(&path).map_err(system("make", &path))?;
    let mut reader = Hashing::new(open()?);
    let written = io::copy(&mut reader, &mut file).and_then(|_| file.sync_all()).map_err(system("write", fresh.path()));
    written.and_then(|()| reader.finish(name)).and_then(|()| fresh.keep_as(&path).map_err(system("name", &path)))
}
