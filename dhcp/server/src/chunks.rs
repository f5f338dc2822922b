//! A file in large pieces, read where it blocks no other transfer.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use hyper::body::Bytes;

use crate::files::Served;

/// Bytes that are read at once, and kept for each transfer.
const CHUNK_BYTES: u64 = 128 * 1024;

/// A file that is read from front to back, with the last piece kept for what is sent again.
#[derive(Debug)]
pub(crate) struct Chunks {
    served: Served,
    offset: u64,
    bytes: Bytes,
}

impl Chunks {
    pub(crate) fn new(served: Served) -> Self {
        Self { served, offset: 0, bytes: Bytes::new() }
    }

    /// The file's bytes from `offset` on, as many as `most` and as are read at once; at least one before the file's end.
    ///
    /// # Errors
    /// When the file cannot be read, or has become shorter.
    pub(crate) async fn at(&mut self, offset: u64, most: u64) -> std::io::Result<Bytes> {
        let kept = offset.checked_sub(self.offset).and_then(|from| usize::try_from(from).ok());
        let kept = kept.filter(|from| *from < self.bytes.len()).map(|from| self.bytes.slice(from..));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if let Some(kept) = kept.filter(|kept| kept.len() >= most) {
            return Ok(kept.slice(..most));
        }
        let length = usize::try_from(CHUNK_BYTES.min(self.served.size.saturating_sub(offset))).unwrap_or_default();
        let file = Arc::clone(&self.served.file);
        let read = move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset).map(|()| bytes)
        };
        self.bytes = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)??.into();
        self.offset = offset;
        Ok(self.bytes.slice(..most.min(self.bytes.len())))
    }
}
