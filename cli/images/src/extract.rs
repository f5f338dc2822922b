//! Takes one file out of an image's layers, which are archives laid over one another (OCI image specification, layer.md).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use oci_spec::image::ImageManifest;
use sha2::{Digest, Sha256};
use tar::{Archive, Entry, EntryType};

use super::blob::{self, BlobName, Hashing};
use super::temporary::{Temporary, temporary};
use super::{ImageError, system};

/// Where a container disk's image lies by KubeVirt's convention.
const DISK_FOLDER: &str = "disk";
/// Entries of all layers together.
const MAX_ENTRIES: usize = 2_000_000;
/// Links that are followed to a file.
const MAX_LINKS: usize = 8;
const HOLE_BYTES: usize = 64 << 10;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The only file of a folder.
    OnlyFileIn(PathBuf),
    /// This file.
    File(PathBuf),
}

impl Wanted {
    /// A path in the image, or the convention when there is none.
    pub(super) fn new(path: Option<&str>) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self::OnlyFileIn(DISK_FOLDER.into())) };
        let inner = inside(Path::new(path)).filter(|inner| inner.components().next().is_some());
        inner.map(Self::File).ok_or_else(|| format!("{path:?} is no path of a file in an image"))
    }

    fn is_met_by(&self, path: &Path) -> bool {
        match self {
            Self::OnlyFileIn(folder) => path.parent() == Some(folder),
            Self::File(file) => path == file,
        }
    }

    fn key(&self) -> &Path {
        match self {
            Self::OnlyFileIn(path) | Self::File(path) => path,
        }
    }
}

/// What the layers so far hold under a wanted path.
#[derive(Debug)]
enum Found {
    Content(Temporary),
    Link(PathBuf),
    /// A few hundred bytes that may stand for more zeroes than anybody can read to the end.
    Sparse,
    Other,
}

/// Takes the file out of `layout`'s blobs into `folder`, unless it lies there already.
pub(super) fn file(
    layout: &Path,
    manifest: &ImageManifest,
    wanted: &Wanted,
    folder: &Path,
    reference: &str,
) -> Result<PathBuf, ImageError> {
    let target = folder.join(cache_name(wanted));
    if target.exists() {
        return Ok(target);
    }
    fs::create_dir_all(folder).map_err(system("make folder", folder))?;
    let no_file = |flaw: String| ImageError::NoFile { reference: reference.to_owned(), flaw };
    let mut wanted = wanted.clone();
    for _ in 0..MAX_LINKS {
        let mut found = scan(layout, manifest, &wanted, &target)?;
        if found.len() > 1 {
            let names: Vec<_> = found.keys().map(|path| path.display().to_string()).collect();
            return Err(no_file(format!(
                "/{} should hold one file and holds {}",
                wanted.key().display(),
                names.join(", ")
            )));
        }
        match found.pop_first() {
            None => return Err(no_file(format!("holds no file {}", describe(&wanted)))),
            Some((path, Found::Sparse)) => {
                return Err(no_file(format!(
                    "/{} is a sparse entry of an archive, which layers should not hold: pack it as a plain file",
                    path.display()
                )));
            }
            Some((path, Found::Other)) => return Err(no_file(format!("/{} is no regular file", path.display()))),
            Some((_, Found::Link(to))) => wanted = Wanted::File(to),
            Some((_, Found::Content(temporary))) => {
                temporary.keep_as(&target).map_err(system("name", &target))?;
                return Ok(target);
            }
        }
    }
    Err(no_file(format!("{} is a chain of more than {MAX_LINKS} links", describe(&wanted))))
}

fn describe(wanted: &Wanted) -> String {
    match wanted {
        Wanted::OnlyFileIn(folder) => format!("in /{}", folder.display()),
        Wanted::File(path) => format!("/{}", path.display()),
    }
}

/// A name of our own for what was asked for: nothing of an archive's names reaches the file system.
fn cache_name(wanted: &Wanted) -> String {
    let kind = if matches!(wanted, Wanted::OnlyFileIn(_)) { "only" } else { "file" };
    let digest = Sha256::digest(format!("{kind} {}", wanted.key().display()));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Goes through all layers, the lowest first, so that what is left in the end is what a container would see.
fn scan(
    layout: &Path,
    manifest: &ImageManifest,
    wanted: &Wanted,
    target: &Path,
) -> Result<BTreeMap<PathBuf, Found>, ImageError> {
    let mut found = BTreeMap::new();
    let mut entries = 0;
    for layer in manifest.layers() {
        let name: BlobName = layer.digest().as_ref().parse()?;
        let path = name.path(layout);
        let mut hashing = Hashing::new(File::open(&path).map_err(system("open layer", &path))?);
        let reader = blob::decompressed(&mut hashing).map_err(system("read layer", &path))?;
        let mut archive = Archive::new(reader);
        let damaged = |error: io::Error| ImageError::malformed(format!("layer {name}"), error.to_string());
        // Whiteouts are for the layers below alone, whatever their place in this one.
        let mut of_this_layer = BTreeMap::new();
        for entry in archive.entries().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(ImageError::malformed(format!("layer {name}"), "too many entries"));
            }
            let Some(path) = entry.path().ok().and_then(|path| inside(&path)) else { continue };
            apply_whiteout(&path, &mut found);
            if wanted.is_met_by(&path)
                && let Some(what) = take(&mut entry, &path, target).map_err(|error| taking(error, target))?
            {
                of_this_layer.insert(path, what);
            }
        }
        found.append(&mut of_this_layer);
        drop(archive);
        hashing.finish(&name)?;
    }
    Ok(found)
}

fn taking(error: io::Error, target: &Path) -> ImageError {
    system("write", target)(error)
}

/// `.wh.NAME` takes away NAME and all below it, `.wh..wh..opq` all of its folder.
fn apply_whiteout(path: &Path, found: &mut BTreeMap<PathBuf, Found>) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    match name.strip_prefix(".wh.") {
        Some(".wh..opq") => found.retain(|path, _| !path.starts_with(folder)),
        Some(hidden) => {
            let hidden = folder.join(hidden);
            found.retain(|path, _| !path.starts_with(&hidden));
        }
        None => {}
    }
}

/// What an entry is; a regular file's content is kept beside `target`. Folders and whiteouts are nothing.
fn take<R: Read>(entry: &mut Entry<'_, R>, path: &Path, target: &Path) -> io::Result<Option<Found>> {
    let is_whiteout = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(".wh."));
    let link = |base: &Path, entry: &Entry<'_, R>| -> io::Result<Option<Found>> {
        let to = entry.link_name()?.and_then(|to| inside(&base.join(to)));
        Ok(Some(to.map_or(Found::Other, Found::Link)))
    };
    match entry.header().entry_type() {
        _ if is_whiteout => Ok(None),
        EntryType::Directory => Ok(None),
        EntryType::GNUSparse => Ok(Some(Found::Sparse)),
        EntryType::Regular | EntryType::Continuous => {
            let (temporary, mut file) = temporary(target)?;
            copy_with_holes(entry, &mut file)?;
            file.set_permissions(fs::Permissions::from_mode(0o444))?;
            file.sync_all()?;
            Ok(Some(Found::Content(temporary)))
        }
        // A symbolic link counts from its folder, a hard link from the image's root.
        EntryType::Symlink => link(path.parent().unwrap_or(Path::new("")), entry),
        EntryType::Link => link(Path::new(""), entry),
        _ => Ok(Some(Found::Other)),
    }
}

/// Disk images are full of zeroes: they become holes.
fn copy_with_holes(from: &mut impl Read, to: &mut File) -> io::Result<()> {
    let mut block = vec![0; HOLE_BYTES];
    let mut length = 0;
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match from.read(block.get_mut(filled..).unwrap_or_default())? {
                0 => break,
                read => filled += read,
            }
        }
        let piece = block.get(..filled).unwrap_or_default();
        length += filled as u64;
        if piece.iter().any(|byte| *byte != 0) {
            to.write_all(piece)?;
        } else {
            to.seek(SeekFrom::Start(length))?;
        }
        if filled < block.len() {
            return to.set_len(length);
        }
    }
}

/// A path as one below the image's root, without `.`, and with `..` stopping at the root as it does in a container.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut inner = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inner.push(name),
            Component::ParentDir => drop(inner.pop()),
            Component::CurDir | Component::RootDir => {}
            Component::Prefix(_) => return None,
        }
    }
    Some(inner)
}
