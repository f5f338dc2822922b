//! Takes one file out of an image's layers.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use oci_spec::image::ImageManifest;
use sha2::{Digest, Sha256};

use super::archive::{Archive, Entry, Kind};
use super::blob::{self, BlobName, Hashing};
use super::staging::Staging;
use super::tree::{Found, Item, Place, Tree};
use super::{ImageError, system};

/// Where a container disk's image lies by KubeVirt's convention.
const DISK_FOLDER: &str = "disk";
/// Files that are copied in the hope that they are the one; any other is found by reading its layer again.
const MAX_GUESSES: usize = 2;
/// Names that are listed in a message.
const MAX_LISTED: usize = 8;

/// Which file of an image is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The only file of `/disk`.
    Disk,
    /// The file at this path.
    File(String),
}

impl Wanted {
    /// A path in the image, or the convention when there is none.
    pub(super) fn new(path: Option<&str>) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self::Disk) };
        let names: Vec<_> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if names.is_empty() || names.contains(&"..") {
            return Err(format!("{path:?} is no path of a file in an image"));
        }
        Ok(Self::File(names.join("/")))
    }

    /// Whether an entry of this name may well be the file.
    fn is_likely(&self, path: &[u8]) -> bool {
        let path = path.strip_prefix(b"./").unwrap_or(path);
        let path = path.strip_prefix(b"/").unwrap_or(path);
        match self {
            Self::File(wanted) => path == wanted.as_bytes(),
            Self::Disk => path.strip_prefix(b"disk/").is_some_and(|name| !name.contains(&b'/')),
        }
    }

    /// A name of our own for what was asked for: nothing of an archive's names reaches the file system.
    fn cache_name(&self, reader: Reader) -> String {
        let text = match self {
            Self::Disk => format!("only {DISK_FOLDER}"),
            Self::File(path) => format!("file {path}"),
        };
        let digest = Sha256::digest(text);
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        match reader {
            Reader::Root => name,
            Reader::Engine => format!("{name}-engine"),
        }
    }
}

/// Who opens a file that was taken out of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Root, which hands it on as a descriptor.
    Root,
    /// Any VM's engine, as the user of that VM: each VM has another.
    Engine,
}

/// What files are taken from.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// Folder of the OCI layout.
    pub(super) layout: &'a Path,
    pub(super) manifest: &'a ImageManifest,
    /// The image, as it was asked for.
    pub(super) reference: &'a str,
}

/// Takes the file into `folder`, unless it is there already; a group may read it, or root alone.
pub(super) fn file(
    source: &Source<'_>,
    wanted: &Wanted,
    folder: &Path,
    reader: Reader,
    staging: impl FnOnce() -> Result<Staging, ImageError>,
) -> Result<PathBuf, ImageError> {
    let target = folder.join(wanted.cache_name(reader));
    if target.exists() {
        give(&target, reader).map_err(system("set the mode of", &target))?;
        return Ok(target);
    }
    // Passed through by an engine that is to read a file by its name, listed by root alone.
    let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(folder);
    made.map_err(system("make folder", folder))?;
    let staging = staging()?;
    let fresh = source.extracted(wanted, &staging)?;
    give(&fresh, reader).map_err(system("set the mode of", &fresh))?;
    fs::rename(&fresh, &target).map_err(system("name", &target))?;
    Ok(target)
}

fn give(path: &Path, reader: Reader) -> io::Result<()> {
    let mode = match reader {
        Reader::Root => 0o400,
        Reader::Engine => 0o444,
    };
    fs::set_permissions(path, Permissions::from_mode(mode))
}

impl Source<'_> {
    fn extracted(&self, wanted: &Wanted, staging: &Staging) -> Result<PathBuf, ImageError> {
        let (mut tree, mut guesses) = (Tree::new(), BTreeMap::new());
        for layer in 0..self.manifest.layers().len() {
            self.lay(layer, &mut tree, wanted, &mut guesses, staging)?;
        }
        let place = self.place(&mut tree, wanted)?;
        match guesses.remove(&place) {
            Some(path) => Ok(path),
            None => self.copied(place, staging),
        }
    }

    /// Reads a layer into the tree.
    fn lay(
        &self,
        layer: usize,
        tree: &mut Tree,
        wanted: &Wanted,
        guesses: &mut BTreeMap<Place, PathBuf>,
        staging: &Staging,
    ) -> Result<(), ImageError> {
        self.read(layer, |entry, index, archive, name| {
            let place = Place { layer, entry: index };
            if entry.kind == Kind::File && guesses.len() < MAX_GUESSES && wanted.is_likely(&entry.path) {
                guesses.insert(place, written(entry, archive, name, staging)?);
            }
            let item = match entry.kind {
                Kind::File => Item::File(place),
                Kind::Folder => Item::Folder,
                Kind::Symlink => Item::Symlink(entry.link.clone()),
                Kind::HardLink => Item::HardLink(entry.link.clone()),
                Kind::Other => Item::Other,
            };
            tree.add(layer, &entry.path, item).map_err(|flaw| ImageError::malformed(format!("layer {name}"), flaw))?;
            Ok(true)
        })
    }

    /// Reads a layer again, for one of its files.
    fn copied(&self, place: Place, staging: &Staging) -> Result<PathBuf, ImageError> {
        let mut found = None;
        self.read(place.layer, |entry, index, archive, name| {
            if index == place.entry {
                found = Some(written(entry, archive, name, staging)?);
            }
            Ok(found.is_none())
        })?;
        found.ok_or_else(|| ImageError::malformed(format!("image {:?}", self.reference), "changes while it is read"))
    }

    /// Hands the entries of a layer to `take` until that has enough, and proves the layer's digest.
    fn read(
        &self,
        layer: usize,
        mut take: impl FnMut(&Entry, usize, &mut Archive<&mut dyn io::Read>, &BlobName) -> Result<bool, ImageError>,
    ) -> Result<(), ImageError> {
        let Some(descriptor) = self.manifest.layers().get(layer) else { return Ok(()) };
        let name: BlobName = descriptor.digest().as_ref().parse()?;
        let path = name.path(self.layout);
        let mut hashing = Hashing::new(File::open(&path).map_err(system("open layer", &path))?);
        let damaged = |error: io::Error| ImageError::malformed(format!("layer {name}"), error.to_string());
        {
            let mut reader = blob::decompressed(&mut hashing).map_err(damaged)?;
            let mut archive = Archive::new(&mut *reader as &mut dyn io::Read);
            let mut index = 0;
            while let Some(entry) = archive.next().map_err(damaged)? {
                if !take(&entry, index, &mut archive, &name)? {
                    break;
                }
                index += 1;
            }
        }
        hashing.finish(&name)
    }

    fn place(&self, tree: &mut Tree, wanted: &Wanted) -> Result<Place, ImageError> {
        let no_file = |flaw: String| ImageError::NoFile { reference: self.reference.to_owned(), flaw };
        let of_links = |flaw: &str| no_file(flaw.to_owned());
        let path = match wanted {
            Wanted::File(path) => path,
            Wanted::Disk => return self.only_file(tree),
        };
        match tree.find(None, path.as_bytes()).map_err(of_links)? {
            Found::File(place) => Ok(place),
            Found::Nothing => Err(no_file(format!("holds no file /{path}"))),
            Found::Folder(_) | Found::Other => Err(no_file(format!("/{path} is no regular file"))),
        }
    }

    fn only_file(&self, tree: &mut Tree) -> Result<Place, ImageError> {
        let no_file = |flaw: String| ImageError::NoFile { reference: self.reference.to_owned(), flaw };
        let of_links = |flaw: &str| no_file(flaw.to_owned());
        let none = || no_file(format!("holds no file in /{DISK_FOLDER}"));
        let Found::Folder(folder) = tree.find(None, DISK_FOLDER.as_bytes()).map_err(of_links)? else {
            return Err(none());
        };
        let mut found = Vec::new();
        for name in tree.names(folder) {
            match tree.find(Some(folder), &name).map_err(of_links)? {
                Found::Folder(_) => {}
                other => found.push((name, other)),
            }
        }
        let shown = |name: &[u8]| format!("{DISK_FOLDER}/{}", String::from_utf8_lossy(name).escape_debug());
        match found.as_slice() {
            [] => Err(none()),
            [(_, Found::File(place))] => Ok(*place),
            [(name, _)] => Err(no_file(format!("/{} is no regular file", shown(name)))),
            several => {
                let names: Vec<_> = several.iter().take(MAX_LISTED).map(|(name, _)| shown(name)).collect();
                let more = several.len() - names.len();
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let names = names.join(", ");
                Err(no_file(format!("/{DISK_FOLDER} should hold one file and holds {names}{more}")))
            }
        }
    }
}

/// An entry's content in a file of its own.
fn written(
    entry: &Entry,
    archive: &mut Archive<&mut dyn io::Read>,
    layer: &BlobName,
    staging: &Staging,
) -> Result<PathBuf, ImageError> {
    let (path, mut file) = staging.file()?;
    let copied = archive.copy_to(entry, &mut file).and_then(|()| file.sync_all());
    copied.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            ImageError::malformed(format!("layer {layer}"), error.to_string())
        }
        _ => system("write", &path)(error),
    })?;
    Ok(path)
}
