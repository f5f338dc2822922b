//! Blobs: named by their SHA-256, hashed whenever they are read.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::{ImageError, system};

/// `sha256:` and 64 lower-case hexadecimal digits; the only algorithm OCI demands and the only one in use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BlobName(String);

impl BlobName {
    /// The digits alone.
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
        Err(ImageError::malformed(format!("digest {shown:?}"), "should be sha256: and 64 hexadecimal digits"))
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Hashes what passes through.
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
        let mut found = String::new();
        for byte in self.hash.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(found, "{byte:02x}");
        }
        if found == expected.0 {
            return Ok(());
        }
        Err(ImageError::Digest { expected: expected.to_string(), found: format!("sha256:{found}") })
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
