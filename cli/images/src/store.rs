//! The store: an OCI layout of our own, and the files taken out of its images.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use locks::{Lock, Locks};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use super::blob::{self, BlobName, Described};
use super::extract::{self, Reader, Source, Wanted};
use super::import::{self, Import};
use super::staging::Staging;
use super::sweep::{InUse, Sweep};
use super::{ImageError, pack, reference, system};

/// Where tools put an image's name: the layout's own annotation, and containerd's.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Indices within indices that are followed.
const MAX_DEPTH: usize = 3;
/// Bytes of our own index.
const MAX_INDEX_BYTES: u64 = 16 << 20;
/// How long a command waits for another one that changes the store.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with images, and the locks for changing it.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    locks: Locks,
}

/// An image of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its names, with their tags.
    pub names: BTreeSet<String>,
    /// Digest of its manifest or index.
    pub digest: String,
    /// Size of its layers as stored.
    pub bytes: u64,
    /// Why it cannot be used.
    pub flaw: Option<String>,
}

/// What was removed from a store.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Images, by name, or by digest where they have none.
    pub images: Vec<String>,
    /// Bytes of the file system that are free again.
    pub bytes: u64,
}

impl Store {
    /// Opens a store, making an empty one if there is none.
    ///
    /// # Errors
    /// When the folder cannot be made or holds something else.
    pub fn open(folder: impl Into<PathBuf>, locks: Locks) -> Result<Self, ImageError> {
        let store = Self { folder: folder.into(), locks };
        // An engine passes through to the files it may read; root alone lists folders and reads the rest.
        for (name, mode) in [("", 0o711), ("files", 0o711), ("blobs", 0o700), ("incoming", 0o700)] {
            let folder = store.folder.join(name);
            fs::create_dir_all(&folder).map_err(system("make folder", &folder))?;
            let set = fs::set_permissions(&folder, Permissions::from_mode(mode));
            set.map_err(system("set the mode of", &folder))?;
        }
        let blobs = store.folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(system("make folder", &blobs))?;
        let (marker, index) = (store.folder.join("oci-layout"), store.folder.join("index.json"));
        if !marker.exists() || !index.exists() {
            let _lock = store.lock()?;
            fs::write(&marker, r#"{"imageLayoutVersion":"1.0.0"}"#).map_err(system("write", &marker))?;
            if !index.exists() {
                store.write_index(&[])?;
            }
        }
        Ok(store)
    }

    /// Takes in every image of an OCI layout, a folder or a tar archive of one (plain, gzip or zstd). Images are known
    /// by the names their layout gives them, or by `name` when it is given; a name moves to the newest image, and what no
    /// name needs any more is removed.
    ///
    /// # Errors
    /// When it is no layout, an image has no name, a blob is missing or not what its digest says, there is no room, or
    /// `name` is given for several images.
    pub fn import(&self, path: &Path, name: Option<&str>, in_use: Option<&InUse>) -> Result<Vec<Image>, ImageError> {
        let staging = Staging::new(&self.folder, &self.locks)?;
        let index = Import { from: path, store: &self.folder, staging: &staging }.blobs()?;
        let images: BTreeSet<&str> = index.manifests().iter().map(|image| image.digest().as_ref()).collect();
        if let (Some(name), images @ 2..) = (name, images.len()) {
            return Err(ImageError::SeveralForName { place: path.to_owned(), name: name.to_owned(), images });
        }
        let given = name.map(reference::normalised);
        let names_of = |descriptor: &Descriptor| match &given {
            Some(name) => BTreeSet::from([name.clone()]),
            None => names(descriptor),
        };
        let named: Vec<_> = index.manifests().iter().map(|descriptor| (descriptor, names_of(descriptor))).collect();
        let unnamed = named
            .iter()
            .filter(|(_, names)| names.is_empty())
            .map(|(image, _)| image.digest().as_ref())
            .collect::<BTreeSet<&str>>();
        if !unnamed.is_empty() {
            return Err(ImageError::Unnamed { place: path.to_owned(), images: unnamed.len() });
        }
        self.commit(&staging, &named, in_use)
    }

    /// Takes in a disk's file as an image of its own; `kind` is its ending, as in `disk.qcow2`.
    ///
    /// # Errors
    /// When it cannot be read or there is no room.
    pub fn import_disk(
        &self,
        path: &Path,
        kind: &str,
        name: &str,
        in_use: Option<&InUse>,
    ) -> Result<Image, ImageError> {
        let staging = Staging::new(&self.folder, &self.locks)?;
        let descriptor = pack::disk(path, kind, &staging)?;
        let names = BTreeSet::from([reference::normalised(name)]);
        let mut images = self.commit(&staging, &[(&descriptor, names)], in_use)?;
        images.pop().ok_or_else(|| ImageError::malformed("image", "was not stored"))
    }

    /// Whether a file is, or may be, an archive of images rather than a disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_archive(path: &Path) -> Result<bool, ImageError> {
        import::is_archive(path)
    }

    /// All images.
    ///
    /// # Errors
    /// When the index is damaged; an image that is says so itself.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let image = |descriptor: &Descriptor| {
            let (names, digest) = (names(descriptor), descriptor.digest().to_string());
            match self.describe(&self.folder, descriptor) {
                Ok(bytes) => Image { names, digest, bytes, flaw: None },
                Err(error) => Image { names, digest, bytes: 0, flaw: Some(error.to_string()) },
            }
        };
        Ok(self.index()?.manifests().iter().map(image).collect())
    }

    /// A file of an image, on this host: `path` in the image, or the only file in `/disk` when `None`. It is taken out
    /// at the first call, for `reader` to read.
    ///
    /// # Errors
    /// When there is no such image or file, the image is damaged, or there is no room.
    pub fn resolve(&self, reference: &str, path: Option<&str>, reader: Reader) -> Result<PathBuf, ImageError> {
        let descriptor = self.find(&self.index()?, reference)?;
        let (digest, manifest) = manifest(&self.folder, descriptor.digest().as_ref().parse()?, MAX_DEPTH)?;
        let wanted = Wanted::new(path).map_err(|flaw| ImageError::NoFile { reference: reference.into(), flaw })?;
        let folder = self.folder.join("files").join(digest.hex());
        let source = Source { layout: &self.folder, manifest: &manifest, reference };
        extract::file(&source, &wanted, &folder, reader, || Staging::new(&self.folder, &self.locks))
    }

    /// Removes an image by its name or, with all its names, by its digest; then what no image needs.
    ///
    /// # Errors
    /// When there is none, or a VM needs it.
    pub fn remove(&self, reference: &str, in_use: &InUse) -> Result<Removed, ImageError> {
        let _lock = self.lock()?;
        let index = self.index()?;
        let found = self.find(&index, reference)?;
        let by_digest = reference::digest(reference).is_some() || names(&found).is_empty();
        let is_meant = |other: &Descriptor| {
            other.digest() == found.digest() && (by_digest || !names(other).is_disjoint(&names(&found)))
        };
        let (gone, kept): (Vec<_>, Vec<_>) = index.manifests().iter().cloned().partition(is_meant);
        if !kept.iter().any(|other| other.digest() == found.digest())
            && let Some(user) = self.user(&found, in_use)
        {
            return Err(ImageError::InUse { reference: reference.to_owned(), user });
        }
        self.write_index(&kept)?;
        let bytes = self.sweep(&kept, Some(in_use))?;
        Ok(Removed { images: gone.iter().flat_map(shown).collect(), bytes })
    }

    /// Removes what is left of interrupted imports and of images that have lost their name; with `unused`, also images
    /// that no VM needs.
    ///
    /// # Errors
    /// When the store is damaged or the system refuses.
    pub fn prune(&self, unused: bool, in_use: &InUse) -> Result<Removed, ImageError> {
        drop(Staging::new(&self.folder, &self.locks)?);
        let _lock = self.lock()?;
        let is_kept = |image: &Descriptor| match unused {
            false => !names(image).is_empty() || self.user(image, in_use).is_some(),
            true => self.user(image, in_use).is_some(),
        };
        let (kept, gone): (Vec<_>, Vec<_>) = self.index()?.manifests().iter().cloned().partition(is_kept);
        self.write_index(&kept)?;
        let bytes = self.sweep(&kept, Some(in_use))?;
        Ok(Removed { images: gone.iter().flat_map(shown).collect(), bytes })
    }

    /// Makes images that are whole in `staging` ours.
    fn commit(
        &self,
        staging: &Staging,
        images: &[(&Descriptor, BTreeSet<String>)],
        in_use: Option<&InUse>,
    ) -> Result<Vec<Image>, ImageError> {
        let mut described: BTreeMap<&str, u64> = BTreeMap::new();
        for (descriptor, _) in images {
            if !described.contains_key(descriptor.digest().as_ref()) {
                described.insert(descriptor.digest().as_ref(), self.describe(staging.path(), descriptor)?);
            }
        }
        let _lock = self.lock()?;
        let mut parts = BTreeSet::new();
        for digest in described.keys() {
            parts.extend(all_parts(staging.path(), digest.parse()?)?);
        }
        for part in &parts {
            // Over one that may be damaged; the same file under both names stays, and goes with the folder.
            fs::rename(part.path(staging.path()), part.path(&self.folder))
                .map_err(system("name", part.path(&self.folder)))?;
        }
        let taken: BTreeSet<&String> = images.iter().flat_map(|(_, names)| names).collect();
        let mut kept = self.index()?.manifests().clone();
        kept.retain(|other| {
            let names = names(other);
            !(names.iter().any(|name| taken.contains(name))
                || names.is_empty() && described.contains_key(other.digest().as_ref()))
        });
        kept.extend(newest(images));
        self.write_index(&kept)?;
        self.sweep(&kept, in_use)?;
        let image = |(descriptor, names): &(&Descriptor, BTreeSet<String>)| Image {
            names: names.clone(),
            digest: descriptor.digest().to_string(),
            bytes: described.get(descriptor.digest().as_ref()).copied().unwrap_or_default(),
            flaw: None,
        };
        Ok(images.iter().map(image).collect())
    }

    /// Removes what `kept` does not need. Files that were taken out stay while a VM may use them. Returns the freed bytes.
    fn sweep(&self, kept: &[Descriptor], in_use: Option<&InUse>) -> Result<u64, ImageError> {
        let mut parts = BTreeSet::new();
        let digests: BTreeSet<&str> = kept.iter().map(|descriptor| descriptor.digest().as_ref()).collect();
        for digest in digests {
            match digest.parse().and_then(|name| all_parts(&self.folder, name)) {
                Ok(found) => parts.extend(found),
                // What it needs is not known: nothing is removed until it is imported again, or removed.
                Err(error) => {
                    tracing::warn!("nothing is removed from {}: {}", self.folder.display(), error);
                    return Ok(0);
                }
            }
        }
        Sweep { folder: &self.folder, parts: &parts, in_use }.run()
    }

    /// Who needs a file of an image.
    fn user(&self, descriptor: &Descriptor, in_use: &InUse) -> Option<String> {
        let name = descriptor.digest().as_ref().parse().ok()?;
        let (digest, _) = manifest(&self.folder, name, MAX_DEPTH).ok()?;
        let folder = self.folder.join("files").join(digest.hex());
        in_use.iter().find(|(path, _)| path.starts_with(&folder)).map(|(_, user)| user.clone())
    }

    fn find(&self, index: &ImageIndex, wanted: &str) -> Result<Descriptor, ImageError> {
        let full = reference::normalised(wanted);
        let digest = reference::digest(wanted).or_else(|| wanted.starts_with("sha256:").then_some(wanted));
        let is_wanted = |descriptor: &&Descriptor| match digest {
            Some(digest) => descriptor.digest().as_ref() == digest,
            None => names(descriptor).contains(&full),
        };
        if let Some(found) = index.manifests().iter().find(is_wanted) {
            return Ok(found.clone());
        }
        let is_meant = |other: &&Descriptor| names(other).iter().any(|name| reference::is_short_for(&full, name));
        let meant: Vec<_> = index.manifests().iter().filter(is_meant).collect();
        match meant.as_slice() {
            [] => Err(ImageError::Unknown { reference: wanted.to_owned(), store: self.folder.clone() }),
            [first, others @ ..] if others.iter().all(|other| other.digest() == first.digest()) => Ok((*first).clone()),
            several => {
                let names = several.iter().flat_map(|one| names(one)).collect();
                Err(ImageError::Ambiguous { reference: wanted.to_owned(), names })
            }
        }
    }

    /// Looks whether an image is whole and for this machine, and returns the size of its layers.
    fn describe(&self, layout: &Path, descriptor: &Descriptor) -> Result<u64, ImageError> {
        let (_, manifest) = manifest(layout, descriptor.digest().as_ref().parse()?, MAX_DEPTH)?;
        for layer in manifest.layers() {
            let name: BlobName = layer.digest().as_ref().parse()?;
            let path = name.path(layout);
            fs::metadata(&path).map_err(system("find layer", path))?;
        }
        let config: BlobName = manifest.config().digest().as_ref().parse()?;
        fs::metadata(config.path(layout)).map_err(system("find configuration", config.path(layout)))?;
        Ok(manifest.layers().iter().map(Descriptor::size).fold(0, u64::saturating_add))
    }

    fn index(&self) -> Result<ImageIndex, ImageError> {
        let path = self.folder.join("index.json");
        import::read_index(File::open(&path).map_err(system("open", &path))?, MAX_INDEX_BYTES, &path)
    }

    fn write_index(&self, manifests: &[Descriptor]) -> Result<(), ImageError> {
        let (fresh, path) = (self.folder.join("index.json.new"), self.folder.join("index.json"));
        let mut index = ImageIndex::default();
        index.set_manifests(manifests.to_vec());
        let text = serde_json::to_vec(&index).map_err(|error| ImageError::malformed("index", error.to_string()))?;
        if text.len() as u64 > MAX_INDEX_BYTES {
            let flaw = format!("would have {} names, more than its index holds", manifests.len());
            return Err(ImageError::malformed(self.folder.display().to_string(), flaw));
        }
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system("remove", &fresh)(error)),
            _ => {}
        }
        let mut file =
            File::options().write(true).create_new(true).mode(0o600).open(&fresh).map_err(system("make", &fresh))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(system("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(system("replace", path))
    }

    fn lock(&self) -> Result<Lock, ImageError> {
        let target = fs::metadata(&self.folder).map_err(system("examine", &self.folder))?;
        let failed = |source| ImageError::Locked { store: self.folder.clone(), source };
        self.locks.lock(&target, PATIENCE).map_err(failed)
    }
}

/// The manifest for this machine's architecture.
fn manifest(layout: &Path, name: BlobName, depth: usize) -> Result<(BlobName, ImageManifest), ImageError> {
    match (blob::described(layout, &name)?, depth) {
        (Described::Manifest(manifest), _) => {
            blob::expect_architecture(layout, &manifest)?;
            Ok((name, *manifest))
        }
        (Described::Index(_), 0) => Err(ImageError::malformed(format!("blob {name}"), "indices are nested too deeply")),
        (Described::Index(None), _) => {
            let flaw = format!("holds no image for linux/{}", blob::architecture());
            Err(ImageError::malformed(format!("blob {name}"), flaw))
        }
        (Described::Index(Some(inner)), depth) => manifest(layout, inner, depth - 1),
    }
}

/// Every blob that an image needs on this machine.
fn all_parts(layout: &Path, mut name: BlobName) -> Result<Vec<BlobName>, ImageError> {
    let mut parts = Vec::new();
    for _ in 0..=MAX_DEPTH {
        parts.push(name.clone());
        match blob::described(layout, &name)? {
            Described::Manifest(manifest) => parts.extend(blob::parts(&manifest)?),
            Described::Index(Some(inner)) => {
                name = inner;
                continue;
            }
            Described::Index(None) => {}
        }
        break;
    }
    Ok(parts)
}

/// A descriptor's names, completed. A bare tag (`latest`) names nothing by itself.
fn names(descriptor: &Descriptor) -> BTreeSet<String> {
    let annotations = descriptor.annotations().iter().flatten();
    let named = annotations.filter(|(key, _)| [REF_NAME, CONTAINERD_NAME].contains(&key.as_str()));
    let is_name = |name: &str| name.contains(['/', ':']) && reference::is_printable(name);
    named.filter(|(_, name)| is_name(name)).map(|(_, name)| reference::normalised(name)).collect()
}

/// One descriptor for each name; of several images with one name the last has it.
fn newest(images: &[(&Descriptor, BTreeSet<String>)]) -> Vec<Descriptor> {
    let owners: BTreeMap<&String, &Descriptor> =
        images.iter().flat_map(|(descriptor, names)| names.iter().map(|name| (name, *descriptor))).collect();
    let with_name = |(name, descriptor): (&String, &Descriptor)| {
        let mut named = descriptor.clone();
        named.set_annotations(Some([(REF_NAME.to_owned(), name.clone())].into()));
        named
    };
    owners.into_iter().map(with_name).collect()
}

fn shown(descriptor: &Descriptor) -> Vec<String> {
    let names = names(descriptor);
    if names.is_empty() { vec![descriptor.digest().to_string()] } else { names.into_iter().collect() }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
