//! Brings the blobs of another OCI layout into a folder of the store, each checked against its name.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use oci_spec::image::ImageIndex;

use super::archive::{Archive, Kind};
use super::blob::{self, BlobName, Described};
use super::staging::Staging;
use super::{ImageError, MAX_JSON_BYTES, system};

/// Where blobs come from and go to.
pub(super) struct Import<'a> {
    pub(super) from: &'a Path,
    /// Our layout, whose blobs are not copied again.
    pub(super) store: &'a Path,
    pub(super) staging: &'a Staging,
}

impl Import<'_> {
    /// Copies the blobs of the layout, a folder or an archive of one, and returns its index.
    pub(super) fn blobs(&self) -> Result<ImageIndex, ImageError> {
        let from = self.from;
        let is_url = from.to_str().is_some_and(|text| text.contains("://"));
        let kind = match fs::metadata(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_url => return Err(not_pulled(from)),
            kind => kind.map_err(system("import", from))?,
        };
        if kind.is_dir() { self.copy_folder() } else { self.read_archive() }
    }

    /// A folder may be another user's: nothing in it is followed out of it, and no pipe is waited for.
    fn copy_folder(&self) -> Result<ImageIndex, ImageError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = nix::fcntl::open(self.from, flags, nix::sys::stat::Mode::empty());
        let folder = folder.map_err(|errno| system("open", self.from)(errno.into()))?;
        let open = |name: &str| self.regular(&folder, name);
        let file = match open("index.json") {
            Err(ImageError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(no_layout(self.from));
            }
            file => file?,
        };
        let index = read_index(file, MAX_JSON_BYTES, &self.from.join("index.json"))?;
        let mut seen = BTreeSet::new();
        let mut names: Vec<_> = digests(&index)?.into_iter().map(|name| (name, true)).collect();
        while let Some((name, is_image)) = names.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            match self.staging.store(&name, self.store, || open(&format!("blobs/sha256/{}", name.hex()))) {
                // Whether it is missed is seen when the image is described.
                Err(ImageError::System { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                stored => stored?,
            }
            if is_image {
                names.extend(children(self.staging.path(), &name)?);
            }
        }
        Ok(index)
    }

    fn regular(&self, folder: &OwnedFd, name: &str) -> Result<File, ImageError> {
        let path = self.from.join(name);
        let inside =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(inside);
        let file = match openat2(folder.as_fd(), name, how) {
            Err(nix::errno::Errno::ELOOP) => {
                return Err(ImageError::malformed(
                    path.display().to_string(),
                    "is a link, or below one: it is not followed",
                ));
            }
            file => File::from(file.map_err(|errno| system("open", &path)(errno.into()))?),
        };
        match file.metadata().map_err(system("examine", &path))?.is_file() {
            true => Ok(file),
            false => Err(ImageError::malformed(path.display().to_string(), "is no regular file")),
        }
    }

    fn read_archive(&self) -> Result<ImageIndex, ImageError> {
        let from = self.from;
        let file = File::open(from).map_err(system("open", from))?;
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::Other => {
                ImageError::malformed(from.display().to_string(), error.to_string())
            }
            _ => system("read", from)(error),
        };
        let reader = blob::decompressed(file).map_err(failed)?;
        let mut archive = Archive::new(reader);
        // The archive is read once from its beginning: blobs are stored as they come, perhaps before the index that names them.
        let (mut index, mut is_dockers) = (None, false);
        while let Some(entry) = archive.next().map_err(failed)? {
            if entry.kind != Kind::File {
                continue;
            }
            let path = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
            let digits = path.strip_prefix(b"blobs/sha256/").and_then(|digits| std::str::from_utf8(digits).ok());
            if path == b"index.json" {
                index = Some(read_index(archive.content(&entry), MAX_JSON_BYTES, &from.join("index.json"))?);
            } else if let Some(Ok(name)) = digits.map(|digits| format!("sha256:{digits}").parse::<BlobName>()) {
                self.staging.store(&name, self.store, || Ok(archive.content(&entry)))?;
            }
            is_dockers |= path == b"manifest.json";
        }
        index.ok_or_else(|| if is_dockers { dockers(from) } else { no_layout(from) })
    }
}

/// Whether a file is a tar archive, packed or not. What is packed and no archive is an error.
pub(super) fn is_archive(path: &Path) -> Result<bool, ImageError> {
    let file = File::open(path).map_err(system("open", path))?;
    if !file.metadata().map_err(system("examine", path))?.is_file() {
        return Ok(true);
    }
    let unreadable = |error: io::Error| ImageError::malformed(path.display().to_string(), error.to_string());
    let mut archive = Archive::new(blob::decompressed(file).map_err(unreadable)?);
    match archive.next() {
        Ok(Some(_)) => Ok(true),
        // Zeroes end an archive, and begin many a disk.
        Ok(None) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
        Err(error) => Err(unreadable(error)),
    }
}

/// The blobs that an image consists of, and whether they are images themselves.
fn children(layout: &Path, name: &BlobName) -> Result<Vec<(BlobName, bool)>, ImageError> {
    Ok(match blob::described(layout, name)? {
        Described::Index(inner) => inner.into_iter().map(|inner| (inner, true)).collect(),
        Described::Manifest(manifest) => blob::parts(&manifest)?.into_iter().map(|part| (part, false)).collect(),
    })
}

/// The digests of an index' images.
fn digests(index: &ImageIndex) -> Result<Vec<BlobName>, ImageError> {
    index.manifests().iter().map(|descriptor| descriptor.digest().as_ref().parse()).collect()
}

fn not_pulled(from: &Path) -> ImageError {
    let from = from.display().to_string();
    let flaw = format!("images are not pulled: `skopeo copy {from} oci-archive:image.tar` makes a file to import");
    ImageError::malformed(from, flaw)
}

fn dockers(from: &Path) -> ImageError {
    let from = from.display().to_string();
    let flaw = format!(
        "is an archive of Docker's own format, not OCI's: `skopeo copy docker-archive:{from} oci-archive:image.tar` makes one to import"
    );
    ImageError::malformed(from, flaw)
}

fn no_layout(from: &Path) -> ImageError {
    ImageError::malformed(from.display().to_string(), "is no OCI layout: it has no index.json")
}

/// Reads an index, which is bounded wherever it comes from.
pub(super) fn read_index(from: impl Read, most: u64, path: &Path) -> Result<ImageIndex, ImageError> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes).map_err(system("read", path))?;
    if bytes.len() as u64 > most {
        let flaw = format!("has more than {most} bytes");
        return Err(ImageError::malformed(path.display().to_string(), flaw));
    }
    serde_json::from_slice(&bytes).map_err(|error| ImageError::malformed(path.display().to_string(), error.to_string()))
}
