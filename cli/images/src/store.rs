//! The store: an OCI layout of our own, and the files taken out of its images.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType, Os};

use super::blob::{self, BlobName};
use super::{ImageError, extract, import, reference, system};

/// Where tools put an image's name: the layout's own annotation, and containerd's.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// Indices within indices that are followed.
const MAX_DEPTH: usize = 3;

/// A folder with images.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
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
}

impl Store {
    /// Opens a store, making an empty one if there is none.
    ///
    /// # Errors
    /// When the folder cannot be made or holds something else.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let store = Self { folder: folder.into() };
        let blobs = store.folder.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(system("make folder", &blobs))?;
        let _lock = store.lock()?;
        let marker = store.folder.join("oci-layout");
        if !marker.exists() {
            fs::write(&marker, r#"{"imageLayoutVersion":"1.0.0"}"#).map_err(system("write", &marker))?;
        }
        if !store.folder.join("index.json").exists() {
            store.write_index(&ImageIndex::default())?;
        }
        Ok(store)
    }

    /// Takes in every image of an OCI layout, a folder or a tar archive of one (plain, gzip or zstd). Images are known
    /// by the names their layout gives them, or by `name` when it is given; a name moves to the newest image.
    ///
    /// # Errors
    /// When it is no layout, a blob is missing or not what its digest says, there is no room, or `name` is given for
    /// several images.
    pub fn import(&self, path: &Path, name: Option<&str>) -> Result<Vec<Image>, ImageError> {
        let index = import::copy_blobs(path, &self.folder)?;
        let images: BTreeSet<&str> = index.manifests().iter().map(|image| image.digest().as_ref()).collect();
        if let (Some(name), images @ 2..) = (name, images.len()) {
            return Err(ImageError::SeveralForName { place: path.to_owned(), name: name.to_owned(), images });
        }
        let _lock = self.lock()?;
        let mut ours = self.index()?;
        let mut kept: Vec<_> = ours.manifests().clone();
        let mut imported = Vec::new();
        for descriptor in index.manifests() {
            let names = match name {
                Some(name) => BTreeSet::from([reference::normalised(name)]),
                None => names(descriptor),
            };
            // Also the proof that the image is whole.
            imported.push(self.describe(names.clone(), descriptor)?);
            kept.retain(|other| {
                self::names(other).is_disjoint(&names) && !(names.is_empty() && other.digest() == descriptor.digest())
            });
            kept.extend(named(descriptor, &names));
        }
        ours.set_manifests(kept);
        self.write_index(&ours)?;
        Ok(imported)
    }

    /// All images.
    ///
    /// # Errors
    /// When the store is damaged.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        self.index()?.manifests().iter().map(|descriptor| self.describe(names(descriptor), descriptor)).collect()
    }

    /// A file of an image, on this host: `path` in the image, or the only file in `/disk` when `None`. It is taken out
    /// at the first call; it is read-only and stays as long as the store.
    ///
    /// # Errors
    /// When there is no such image or file, the image is damaged, or there is no room.
    pub fn resolve(&self, reference: &str, path: Option<&str>) -> Result<PathBuf, ImageError> {
        let descriptor = self.find(reference)?;
        let (digest, manifest) = self.manifest(&descriptor, MAX_DEPTH)?;
        let wanted =
            extract::Wanted::new(path).map_err(|flaw| ImageError::NoFile { reference: reference.into(), flaw })?;
        let folder = self.folder.join("files").join(digest.hex());
        extract::file(&self.folder, &manifest, &wanted, &folder, reference)
    }

    fn find(&self, wanted: &str) -> Result<Descriptor, ImageError> {
        let full = reference::normalised(wanted);
        let digest = reference::digest(wanted);
        let is_wanted = |descriptor: &&Descriptor| match digest {
            Some(digest) => descriptor.digest().as_ref() == digest,
            None => names(descriptor).contains(&full),
        };
        let index = self.index()?;
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

    /// The manifest for this machine's architecture.
    fn manifest(&self, descriptor: &Descriptor, depth: usize) -> Result<(BlobName, ImageManifest), ImageError> {
        let name: BlobName = descriptor.digest().as_ref().parse()?;
        let bytes = blob::read_small(&self.folder, &name)?;
        let flawed = |flaw: String| ImageError::malformed(format!("blob {name}"), flaw);
        if !is_index(descriptor.media_type()) {
            let manifest = serde_json::from_slice(&bytes).map_err(|error| flawed(error.to_string()))?;
            return Ok((name, manifest));
        }
        let index: ImageIndex = serde_json::from_slice(&bytes).map_err(|error| flawed(error.to_string()))?;
        let fits = |inner: &&Descriptor| {
            inner.platform().as_ref().is_none_or(|p| *p.architecture() == Arch::Amd64 && *p.os() == Os::Linux)
        };
        match (index.manifests().iter().find(fits), depth) {
            (_, 0) => Err(flawed("indices are nested too deeply".to_owned())),
            (None, _) => Err(flawed("holds no image for linux/amd64".to_owned())),
            (Some(inner), depth) => self.manifest(inner, depth - 1),
        }
    }

    fn describe(&self, names: BTreeSet<String>, descriptor: &Descriptor) -> Result<Image, ImageError> {
        let (_, manifest) = self.manifest(descriptor, MAX_DEPTH)?;
        for layer in manifest.layers() {
            let name: BlobName = layer.digest().as_ref().parse()?;
            let path = name.path(&self.folder);
            fs::metadata(&path).map_err(system("find layer", path))?;
        }
        let bytes = manifest.layers().iter().map(Descriptor::size).sum();
        Ok(Image { names, digest: descriptor.digest().to_string(), bytes })
    }

    fn index(&self) -> Result<ImageIndex, ImageError> {
        let path = self.folder.join("index.json");
        import::parse_index(&fs::read(&path).map_err(system("read", &path))?, &path)
    }

    fn write_index(&self, index: &ImageIndex) -> Result<(), ImageError> {
        let (fresh, path) = (self.folder.join("index.json.new"), self.folder.join("index.json"));
        let text =
            serde_json::to_vec_pretty(index).map_err(|error| ImageError::malformed("index", error.to_string()))?;
        let mut file = File::create(&fresh).map_err(system("make", &fresh))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(system("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(system("replace", path))
    }

    fn lock(&self) -> Result<Flock<File>, ImageError> {
        let path = self.folder.join("lock");
        let file = File::options().create(true).append(true).open(&path).map_err(system("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| system("lock", path)(errno.into()))
    }
}

fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex
        || matches!(media_type, MediaType::Other(other) if other.ends_with("manifest.list.v2+json"))
}

/// A descriptor's names, completed. A bare tag (`latest`) names nothing by itself.
fn names(descriptor: &Descriptor) -> BTreeSet<String> {
    let annotations = descriptor.annotations().iter().flatten();
    let named = annotations.filter(|(key, _)| [REF_NAME, CONTAINERD_NAME].contains(&key.as_str()));
    named.filter(|(_, name)| name.contains(['/', ':'])).map(|(_, name)| reference::normalised(name)).collect()
}

/// One descriptor for each name, or the descriptor as it is when there is none.
fn named(descriptor: &Descriptor, names: &BTreeSet<String>) -> Vec<Descriptor> {
    if names.is_empty() {
        return vec![descriptor.clone()];
    }
    let with_name = |name: &String| {
        let mut named = descriptor.clone();
        named.set_annotations(Some([(REF_NAME.to_owned(), name.clone())].into()));
        named
    };
    names.iter().map(with_name).collect()
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
