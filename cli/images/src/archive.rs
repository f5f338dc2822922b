//! Reads tar archives entry by entry (POSIX pax, ustar, GNU), with a bound on everything that an archive can make a reader keep.
//!
//! A reader of our own because the crate `tar` reads long names and pax headers of any size into memory and does not know pax'
//! sparse files. Its types for headers are used.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use tar::{EntryType, GnuSparseHeader, Header};

use super::sparse::{self, Extent};

const BLOCK: u64 = 512;
/// Linux' PATH_MAX: no file system has longer ones.
const MAX_PATH_BYTES: u64 = 4096;
/// Bytes of one pax header.
const MAX_PAX_BYTES: u64 = 1 << 20;
const HOLE_BYTES: usize = 64 << 10;

/// The kind of a tar entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink,
    Symlink,
    Folder,
    /// A device or a pipe.
    Other,
}

/// The next entry; its content is read from the archive until the one after it is asked for.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) path: Vec<u8>,
    /// What a link leads to.
    pub(super) link: Vec<u8>,
    /// Size of the file's content in bytes.
    pub(super) bytes: u64,
    /// Where the content lies in a sparse file.
    extents: Option<Vec<Extent>>,
}

/// An archive while it is read.
#[derive(Debug)]
pub(super) struct Archive<R> {
    inner: R,
    /// Bytes of the entry's content that were not read yet, and the zeroes that follow it.
    content: u64,
    padding: u64,
    is_begun: bool,
}

/// What extension headers say of the entry that follows them.
#[derive(Debug, Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    bytes: Option<u64>,
    sparse: sparse::PaxKeys,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, content: 0, padding: 0, is_begun: false }
    }

    /// The next entry.
    ///
    /// # Errors
    /// `InvalidData` with the flaw as the end of a sentence, or the reader's.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let kind = header.entry_type();
            let bytes = header.entry_size().map_err(|_| flaw("has an entry whose size is no number"))?;
            match kind {
                EntryType::GNULongName => extensions.path = Some(self.long_name(bytes)?),
                EntryType::GNULongLink => extensions.link = Some(self.long_name(bytes)?),
                EntryType::XHeader => extensions = self.pax(bytes)?,
                EntryType::XGlobalHeader => self.begin(bytes),
                _ => return self.entry(&header, kind, bytes, extensions).map(Some),
            }
        }
    }

    /// Writes the entry's content; zeroes become holes.
    pub(super) fn copy_to(&mut self, entry: &Entry, to: &mut File) -> io::Result<()> {
        match &entry.extents {
            None => copy_with_holes(&mut self.exactly(entry.bytes), to, 0)?,
            Some(extents) => {
                for extent in extents {
                    copy_with_holes(&mut self.exactly(extent.bytes), to, extent.offset)?;
                }
            }
        }
        to.set_len(entry.bytes)
    }

    /// The entry's content, as it lies in the archive.
    pub(super) fn content(&mut self, entry: &Entry) -> impl Read {
        self.exactly(entry.bytes)
    }

    /// Reads the next `bytes` of the content; fewer are an error.
    fn exactly(&mut self, bytes: u64) -> Exactly<'_, R> {
        Exactly { archive: self, left: bytes }
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        self.skip()?;
        let mut header = Header::new_old();
        let filled = fill(&mut self.inner, header.as_mut_bytes())?;
        // Two blocks of zeroes end an archive; after one nothing can follow either.
        if filled == 0 || header.as_bytes().iter().all(|byte| *byte == 0) && filled as u64 == BLOCK {
            return Ok(None);
        }
        let sum = |header: &Header| {
            let [before @ .., _, _, _, _, _, _, _, _] = &header.as_bytes()[..156] else { return 0 };
            let sum = before.iter().chain(&header.as_bytes()[156..]).fold(0, |sum, byte| sum + u32::from(*byte));
            sum + 8 * u32::from(b' ')
        };
        let is_whole = filled as u64 == BLOCK && header.cksum().is_ok_and(|found| found == sum(&header));
        match (is_whole, self.is_begun) {
            (true, _) => {
                self.is_begun = true;
                Ok(Some(header))
            }
            (false, false) => Err(flaw("is no tar archive")),
            (false, true) => Err(flaw("is damaged: an entry's header is cut off or has a wrong checksum")),
        }
    }

    fn entry(&mut self, header: &Header, kind: EntryType, bytes: u64, more: Extensions) -> io::Result<Entry> {
        let mut path = more.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = more.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned())).unwrap_or_default();
        let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse);
        // Only files have a content, whatever the header says: so the container runtimes' reader has it.
        self.begin(if is_file { more.bytes.unwrap_or(bytes) } else { 0 });
        let mut entry = Entry { kind: Kind::File, path: Vec::new(), link, bytes: self.content, extents: None };
        entry.kind = match kind {
            // How archives older than ustar write a folder.
            EntryType::Regular if path.ends_with(b"/") => Kind::Folder,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Link => Kind::HardLink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Directory => Kind::Folder,
            _ => Kind::Other,
        };
        let sparse = match kind {
            EntryType::GNUSparse => Some(self.gnu_sparse(header)?),
            _ if is_file => more.sparse.read(&mut SparseContent(self))?,
            _ => None,
        };
        if let Some(sparse) = sparse {
            sparse::check(&sparse.extents, sparse.bytes, self.content).map_err(flaw)?;
            path = sparse.name.unwrap_or(path);
            (entry.bytes, entry.extents) = (sparse.bytes, Some(sparse.extents));
        }
        if path.len() as u64 > MAX_PATH_BYTES || entry.link.len() as u64 > MAX_PATH_BYTES {
            return Err(flaw("has a name of more than 4096 bytes"));
        }
        if path.contains(&0) || entry.link.contains(&0) {
            return Err(flaw("has a name with a zero byte"));
        }
        Ok(Entry { path, ..entry })
    }

    /// The map of a sparse file as GNU tar's own format has it: four parts in the header, more in blocks behind it.
    fn gnu_sparse(&mut self, header: &Header) -> io::Result<sparse::Sparse> {
        let broken = || flaw("has a sparse entry in GNU format whose header is damaged");
        let gnu = header.as_gnu().ok_or_else(broken)?;
        let bytes = gnu.real_size().map_err(|_| broken())?;
        let mut extents = Vec::new();
        let mut take = |parts: &[GnuSparseHeader]| {
            for part in parts.iter().filter(|part| !part.is_empty()) {
                let (offset, bytes) = (part.offset().map_err(|_| broken())?, part.length().map_err(|_| broken())?);
                sparse::push(&mut extents, Extent { offset, bytes }).map_err(flaw)?;
            }
            Ok::<_, io::Error>(())
        };
        take(&gnu.sparse)?;
        let mut is_extended = gnu.is_extended();
        while is_extended {
            let mut block = tar::GnuExtSparseHeader::new();
            self.inner.read_exact(block.as_mut_bytes())?;
            take(&block.sparse)?;
            is_extended = block.is_extended();
        }
        Ok(sparse::Sparse { name: None, bytes, extents })
    }

    fn long_name(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        let mut name = self.small(bytes, MAX_PATH_BYTES + 1, "has a name of more than 4096 bytes")?;
        while name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }

    fn pax(&mut self, bytes: u64) -> io::Result<Extensions> {
        let text = self.small(bytes, MAX_PAX_BYTES, "has a pax header of more than 1 MiB")?;
        let mut extensions = Extensions::default();
        for record in pax_records(&text) {
            let (key, value) = record.ok_or_else(|| flaw("has a pax header that is damaged"))?;
            let number = || sparse::number(value).ok_or_else(|| flaw("has a pax header with a size that is no number"));
            match key {
                b"path" => extensions.path = Some(value.to_owned()),
                b"linkpath" => extensions.link = Some(value.to_owned()),
                b"size" => extensions.bytes = Some(number()?),
                _ => extensions.sparse.take(key, value).map_err(flaw)?,
            }
        }
        Ok(extensions)
    }

    /// The content of an extension header, which is held in memory.
    fn small(&mut self, bytes: u64, most: u64, too_long: &'static str) -> io::Result<Vec<u8>> {
        if bytes > most {
            return Err(flaw(too_long));
        }
        self.begin(bytes);
        let mut content = Vec::new();
        self.exactly(bytes).read_to_end(&mut content)?;
        Ok(content)
    }

    fn begin(&mut self, bytes: u64) {
        self.content = bytes;
        self.padding = (BLOCK - bytes % BLOCK) % BLOCK;
    }

    fn skip(&mut self) -> io::Result<()> {
        let left = self.content.saturating_add(self.padding);
        let skipped = io::copy(&mut Read::by_ref(&mut self.inner).take(left), &mut io::sink())?;
        // The last entry's padding is often left away.
        let is_cut = skipped < self.content;
        self.begin(0);
        if is_cut { Err(cut_off()) } else { Ok(()) }
    }
}

struct Exactly<'a, R> {
    archive: &'a mut Archive<R>,
    left: u64,
}

impl<R: Read> Read for Exactly<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left.min(self.archive.content)).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return if self.left == 0 || buffer.is_empty() { Ok(0) } else { Err(cut_off()) };
        }
        let read = self.archive.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        if read == 0 {
            return Err(cut_off());
        }
        self.left -= read as u64;
        self.archive.content -= read as u64;
        Ok(read)
    }
}

/// The content of a sparse file, which may begin with its map.
struct SparseContent<'a, R>(&'a mut Archive<R>);

impl<R: Read> sparse::Blocks for SparseContent<'_, R> {
    fn block(&mut self) -> io::Result<[u8; 512]> {
        let mut block = [0; 512];
        self.0.exactly(BLOCK).read_exact(&mut block)?;
        Ok(block)
    }
}

/// Records of the form `LENGTH KEY=VALUE\n`; `None` is a malformed record, and the last item.
fn pax_records(mut text: &[u8]) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let record = || {
            let space = text.iter().take(20).position(|byte| *byte == b' ')?;
            let length = usize::try_from(sparse::number(text.get(..space)?)?).ok()?;
            let (inner, rest) = (text.get(space + 1..length.checked_sub(1)?)?, text.get(length..)?);
            let equals = inner.iter().position(|byte| *byte == b'=')?;
            (text.get(length - 1) == Some(&b'\n')).then_some(((&inner[..equals], &inner[equals + 1..]), rest))
        };
        let found = record();
        text = found.map(|(_, rest)| rest).unwrap_or_default();
        Some(found.map(|(record, _)| record))
    })
}

/// Copies to `offset`; a piece of nothing but zeroes is left out.
fn copy_with_holes(from: &mut impl Read, to: &mut File, mut offset: u64) -> io::Result<()> {
    let mut block = vec![0; HOLE_BYTES];
    loop {
        let filled = fill(from, &mut block)?;
        let piece = block.get(..filled).unwrap_or_default();
        if piece.iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(offset))?;
            to.write_all(piece)?;
        }
        offset += filled as u64;
        if filled < block.len() {
            return Ok(());
        }
    }
}

/// Reads until the buffer is full or nothing more comes.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What is wrong with the archive, as the end of a sentence that begins with its name.
fn flaw(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn cut_off() -> io::Error {
    flaw("is cut off in the middle of an entry")
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
