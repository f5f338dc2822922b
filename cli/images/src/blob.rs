//! Blobs: named by their SHA-256, hashed whenever they are read.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::read::MultiGzDecoder;
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType, Os};
use sha2::{Digest as _, Sha256};

use super::{ImageError, system};

/// `sha256:` and 64 lower-case hexadecimal digits; the only algorithm OCI demands and the only one in use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlobName(String);

impl BlobName {
    /// The 64 hex digits, without `sha256:`.
    pub(super) fn hex(&self) -> &str {
        &self.0
    }

    /// Its file below a layout.
    pub(super) fn path(&self, layout: &Path) -> PathBuf {
        layout.join("blobs/sha256").join(&self.0)
    }
}

impl FromStr for BlobName {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        if digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(digits.to_owned()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(ImageError::malformed(
            format!("digest {shown:?}"),
            "is invalid, expected sha256: and 64 hexadecimal digits",
        ))
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Hashes the bytes that are read through it.
#[derive(Debug)]
pub(super) struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    /// Reads what is left and compares.
    pub(super) fn finish(mut self, expected: &BlobName) -> Result<(), ImageError> {
        let rest = io::copy(&mut self, &mut io::sink());
        rest.map_err(|error| ImageError::malformed(format!("blob {expected}"), error.to_string()))?;
        let found = self.name()?;
        if found == *expected {
            return Ok(());
        }
        Err(ImageError::Digest { expected: expected.to_string(), found: found.to_string() })
    }

    /// The name of what has passed through.
    pub(super) fn name(self) -> Result<BlobName, ImageError> {
        let mut found = "sha256:".to_owned();
        for byte in self.hash.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(found, "{byte:02x}");
        }
        found.parse()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Reads a small blob whole.
pub(super) fn read_small(layout: &Path, name: &BlobName) -> Result<Vec<u8>, ImageError> {
    let path = name.path(layout);
    let file = File::open(&path).map_err(system("open blob", &path))?;
    let mut reader = Hashing::new(file);
    let mut bytes = Vec::new();
    reader.by_ref().take(super::MAX_JSON_BYTES + 1).read_to_end(&mut bytes).map_err(system("read", &path))?;
    if bytes.len() as u64 > super::MAX_JSON_BYTES {
        return Err(ImageError::malformed(format!("blob {name}"), "larger than any honest manifest"));
    }
    reader.finish(name)?;
    Ok(bytes)
}

/// Whether a blob is there and is what its name says.
pub(super) fn is_whole(path: &Path, name: &BlobName) -> bool {
    File::open(path).is_ok_and(|file| Hashing::new(file).finish(name).is_ok())
}

/// What a blob that a descriptor calls an image is.
#[derive(Debug)]
pub(super) enum Described {
    /// The manifest of one image.
    Manifest(Box<ImageManifest>),
    /// Images of several architectures: the one for this machine, if there is one.
    Index(Option<BlobName>),
}

/// Reads a manifest or an index.
pub(super) fn described(layout: &Path, name: &BlobName) -> Result<Described, ImageError> {
    let bytes = read_small(layout, name)?;
    let flawed = |error: serde_json::Error| ImageError::malformed(format!("blob {name}"), error.to_string());
    // Descriptors lie about the type, and contents need not say it: an index alone has a list of manifests.
    let kind: IndexOrManifest = serde_json::from_slice(&bytes).map_err(flawed)?;
    if kind.manifests.is_none() {
        let manifest: ImageManifest = serde_json::from_slice(&bytes).map_err(flawed)?;
        if manifest.layers().len() > MAX_LAYERS {
            return Err(ImageError::malformed(format!("blob {name}"), format!("has more than {MAX_LAYERS} layers")));
        }
        return Ok(Described::Manifest(Box::new(manifest)));
    }
    let index: ImageIndex = serde_json::from_slice(&bytes).map_err(flawed)?;
    let inner = index.manifests().iter().find(|inner| is_for_this_machine(inner));
    Ok(Described::Index(inner.map(|inner| inner.digest().as_ref().parse()).transpose()?))
}

/// The configuration and the layers of an image.
pub(super) fn parts(manifest: &ImageManifest) -> Result<Vec<BlobName>, ImageError> {
    let parts = std::iter::once(manifest.config()).chain(manifest.layers());
    parts.map(|part| part.digest().as_ref().parse()).collect()
}

/// The field that an index has and a manifest does not.
#[derive(serde::Deserialize)]
struct IndexOrManifest {
    manifests: Option<serde::de::IgnoredAny>,
}

/// Layers of one image: container runtimes allow 127.
const MAX_LAYERS: usize = 500;

fn is_for_this_machine(inner: &Descriptor) -> bool {
    inner
        .platform()
        .as_ref()
        .is_none_or(|platform| platform.architecture().to_string() == architecture() && *platform.os() == Os::Linux)
}

/// This machine's architecture, as OCI calls it.
pub(super) fn architecture() -> String {
    match std::env::consts::ARCH {
        "x86_64" => Arch::Amd64.to_string(),
        "aarch64" => Arch::ARM64.to_string(),
        other => other.to_owned(),
    }
}

/// Refuses an image whose configuration is for another machine; one that says nothing may be for any.
pub(super) fn expect_architecture(layout: &Path, manifest: &ImageManifest) -> Result<(), ImageError> {
    #[derive(serde::Deserialize)]
    struct Platform {
        architecture: Option<String>,
        os: Option<String>,
    }
    if !matches!(manifest.config().media_type(), MediaType::ImageConfig)
        && !manifest.config().media_type().to_string().ends_with("container.image.v1+json")
    {
        return Ok(());
    }
    let name: BlobName = manifest.config().digest().as_ref().parse()?;
    let bytes = read_small(layout, &name)?;
    let read = serde_json::from_slice(&bytes);
    let read: Platform = read.map_err(|error| ImageError::malformed(format!("blob {name}"), error.to_string()))?;
    let (ours, os) = (architecture(), "linux");
    let found = (read.architecture.unwrap_or_default(), read.os.unwrap_or_default());
    let is_ours = |found: &str, ours: &str| found.is_empty() || found == ours;
    if is_ours(&found.0, &ours) && is_ours(&found.1, os) {
        return Ok(());
    }
    let shown = |text: &str| text.chars().take(40).collect::<String>().escape_debug().to_string();
    let flaw = format!("is for {}/{}, this machine runs {os}/{ours}", shown(&found.1), shown(&found.0));
    Err(ImageError::malformed(format!("image configuration {name}"), flaw))
}

/// A reader of the content, whether it is compressed by gzip, zstd or not at all: told by its first bytes.
pub(super) fn decompressed<'a, R: Read + 'a>(inner: R) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(128 << 10, inner);
    let first = io::BufRead::fill_buf(&mut reader)?;
    if first.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(reader)));
    }
    if first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = ruzstd::decoding::StreamingDecoder::new(reader);
        return decoder.map(|decoder| Box::new(decoder) as Box<dyn Read + 'a>).map_err(io::Error::other);
    }
    Ok(Box::new(reader))
}
