//! Makes an image of a disk's file: one layer with the disk as its only file in `/disk`, as KubeVirt has container disks.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;
use serde_json::json;

use super::blob::{self, BlobName, Hashing};
use super::staging::Staging;
use super::{ImageError, system};

const BLOCK: u64 = 512;
const HOLE_BYTES: usize = 64 << 10;

/// Packs the disk at `path` and returns its image.
pub(super) fn disk(path: &Path, kind: &str, staging: &Staging) -> Result<Descriptor, ImageError> {
    let file = File::open(path).map_err(system("open", path))?;
    let bytes = file.metadata().map_err(system("examine", path))?.len();
    let mut header = tar::Header::new_gnu();
    let named = header.set_path(format!("disk/disk.{kind}"));
    named.map_err(|error| ImageError::malformed(path.display().to_string(), error.to_string()))?;
    header.set_mode(0o440);
    header.set_size(bytes);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    let end = (BLOCK - bytes % BLOCK) % BLOCK + 2 * BLOCK;
    let mut archive = header.as_bytes().as_slice().chain(file.take(bytes)).chain(io::repeat(0).take(end));
    let (layer, layer_bytes) = blob(&mut archive, staging)?;
    if layer_bytes != BLOCK + bytes + end {
        return Err(ImageError::malformed(path.display().to_string(), "changes while it is read"));
    }
    let config = json!({"architecture": blob::architecture(), "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.to_string()]}});
    let (config, config_bytes) = blob(&mut config.to_string().as_bytes(), staging)?;
    let descriptor = |kind: &str, name: &BlobName, bytes: u64| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": name.to_string(), "size": bytes});
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config, config_bytes),
        "layers": [descriptor("layer.v1.tar", &layer, layer_bytes)]});
    let (manifest, manifest_bytes) = blob(&mut manifest.to_string().as_bytes(), staging)?;
    serde_json::from_value(descriptor("manifest.v1+json", &manifest, manifest_bytes))
        .map_err(|error| ImageError::malformed("descriptor", error.to_string()))
}

/// Stores a blob whose name is only known in the end. Zeroes become holes.
fn blob(content: &mut dyn Read, staging: &Staging) -> Result<(BlobName, u64), ImageError> {
    let (path, mut file) = staging.file()?;
    let mut hashing = Hashing::new(content);
    let bytes = copy(&mut hashing, &mut file).map_err(system("write", &path))?;
    let name = hashing.name()?;
    place(&path, &name.path(staging.path()))?;
    Ok((name, bytes))
}

fn place(from: &Path, to: &PathBuf) -> Result<(), ImageError> {
    fs::rename(from, to).map_err(system("name", to))
}

fn copy(from: &mut impl Read, to: &mut File) -> io::Result<u64> {
    let mut block = vec![0; HOLE_BYTES];
    let mut bytes = 0;
    loop {
        let read = from.read(&mut block)?;
        let piece = block.get(..read).unwrap_or_default();
        if piece.iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(bytes))?;
            to.write_all(piece)?;
        }
        bytes += read as u64;
        if read == 0 {
            to.set_len(bytes)?;
            to.sync_all()?;
            return Ok(bytes);
        }
    }
}
