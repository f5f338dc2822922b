//! Images of container disks and kernels in a local OCI layout: imported, found by reference, one file taken out of each.
//!
//! *Guarantees.* Every blob is checked against its digest when it comes in and again when a file is taken out; nothing is
//! written anywhere but under names of our own, whatever an archive calls its entries; a store that is killed in the
//! middle holds either the old or the new state. Memory is bounded whatever an image says, and no file of the store can be
//! opened by users that it is not for.

mod archive;
mod blob;
mod extract;
mod import;
mod pack;
mod reference;
mod sparse;
mod staging;
mod store;
mod sweep;
mod tree;

use std::io;
use std::path::PathBuf;

use locks::LockError;

pub use extract::Reader;
pub use store::{Image, Removed, Store};
pub use sweep::InUse;

/// Largest index, manifest or configuration that is read.
const MAX_JSON_BYTES: u64 = 8 << 20;

/// Why an image could not be stored or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No image of that name.
    #[error("image {reference:?} is not in {store:?}; {}", hint(.reference))]
    Unknown {
        /// The name or digest that was asked for.
        reference: String,
        /// Folder of the store.
        store: PathBuf,
    },
    /// A name without registry that several registries' images have.
    #[error("image {reference:?} matches several images ({}): add its registry", .names.join(", "))]
    Ambiguous {
        /// The name that was asked for.
        reference: String,
        /// Full names of the images that it matches.
        names: Vec<String>,
    },
    /// Several images for one name.
    #[error("{place:?} holds {images} images: {name:?} can be the name of one alone")]
    SeveralForName {
        /// Path of the layout or archive.
        place: PathBuf,
        /// The name that was to be given.
        name: String,
        /// Number of images in it.
        images: usize,
    },
    /// An image that nothing names.
    #[error("{place} holds {images} image{s} without a name: `tapvisor image import {place} NAME` gives one", s = if *images == 1 { "" } else { "s" }, place = .place.display())]
    Unnamed {
        /// Path of the layout or archive.
        place: PathBuf,
        /// Number of images in it.
        images: usize,
    },
    /// A VM needs a file of it.
    #[error("image {reference:?} is used by {user}: remove that first")]
    InUse {
        /// Name or digest of the image.
        reference: String,
        /// The VM that uses it.
        user: String,
    },
    /// Another command changes the store.
    #[error("cannot lock {store:?}")]
    Locked {
        /// Folder of the store.
        store: PathBuf,
        /// Which process holds the lock, or what failed.
        #[source]
        source: LockError,
    },
    /// No such file in it.
    #[error("image {reference:?}: {flaw}")]
    NoFile {
        /// Name or digest of the image.
        reference: String,
        /// What was looked for and what was found.
        flaw: String,
    },
    /// Not an OCI layout, or one that contradicts itself.
    #[error("{place}: {flaw}")]
    Malformed {
        /// The file's path, or `blob` and its digest.
        place: String,
        /// What is wrong with it.
        flaw: String,
    },
    /// A blob is not what its name says.
    #[error("blob {expected}: its content has digest {found}")]
    Digest {
        /// The digest it is named by.
        expected: String,
        /// The digest of what is there.
        found: String,
    },
    /// A system call on the path failed.
    #[error("cannot {what} {path:?}")]
    System {
        /// What was tried, as the rest of "cannot …".
        what: &'static str,
        /// The file or folder that was accessed.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
}

/// How an image comes into the store.
fn hint(reference: &str) -> String {
    match reference.split_once("://") {
        Some((scheme, name)) => format!(
            "a reference has no {scheme}://, and nothing is pulled: `skopeo copy {reference} oci-archive:image.tar`, `tapvisor image import image.tar {name}`"
        ),
        None => "`tapvisor image import` takes in images".to_owned(),
    }
}

impl ImageError {
    fn malformed(place: impl Into<String>, flaw: impl Into<String>) -> Self {
        Self::Malformed { place: place.into(), flaw: flaw.into() }
    }
}

fn system(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.into();
    move |source| ImageError::System { what, path, source }
}
