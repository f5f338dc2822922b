//! The qcow2 header (QEMU's docs/interop/qcow2.txt): read with suspicion, and written for an overlay.

use std::io::{self, Read, Seek, SeekFrom, Write};

const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Clusters of 64 KiB, the format's default.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Most bytes of mapping tables that are read to see whether the file is whole: enough for 4 TiB of 64 KiB clusters.
const MAX_TABLE_BYTES: u64 = 512 << 20;
/// Largest L1 table that QEMU opens (its QCOW_MAX_L1_SIZE).
const MAX_L1_BYTES: u64 = 32 << 20;
/// Bytes of a table that are in memory at once.
const PIECE_BYTES: u64 = 64 << 10;
/// Bits 9 to 55 of a table entry are the offset in the file.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// Incompatible features that change what may be done with a file; the others are left to the reader.
const DATA_FILE: u64 = 1 << 2;
const CORRUPT: u64 = 1 << 1;
const EXTENDED_L2: u64 = 1 << 4;

/// What an image's first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Size of the disk that the guest sees, in bytes.
    pub(super) virtual_bytes: u64,
    cluster_bits: u32,
    l1_entries: u32,
    l1_offset: u64,
    is_extended: bool,
}

/// Reads the header of a file that begins with qcow2's magic.
///
/// # Errors
/// The flaw, as the end of a sentence that starts with the file's name.
pub(super) fn read(file: &mut (impl Read + Seek), file_bytes: u64) -> Result<Header, String> {
    let mut raw = [0; 104];
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "is a truncated qcow2 image: its header is cut off".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    file.read_exact(&mut raw[..72]).map_err(io)?;
    let version = be32(&raw, 4);
    if !(2..=3).contains(&version) {
        return Err(format!("is qcow2 version {version}, 2 and 3 are supported"));
    }
    if version == 3 {
        file.read_exact(&mut raw[72..]).map_err(io)?;
    }
    if be64(&raw, 8) != 0 {
        return Err("is a qcow2 image with a backing file, which is refused: it names a file of the host. \
            Flatten it with `qemu-img convert`"
            .to_owned());
    }
    if be32(&raw, 32) != 0 {
        return Err("is an encrypted qcow2 image, which is not supported".to_owned());
    }
    let features = be64(&raw, 72);
    if features & DATA_FILE != 0 {
        return Err("is a qcow2 image with an external data file, which is refused: it names a file of the host".into());
    }
    if features & CORRUPT != 0 {
        return Err("is a qcow2 image marked corrupt; `qemu-img check -r all` may repair it".to_owned());
    }
    let header = Header {
        virtual_bytes: be64(&raw, 24),
        cluster_bits: be32(&raw, 20),
        l1_entries: be32(&raw, 36),
        l1_offset: be64(&raw, 40),
        is_extended: features & EXTENDED_L2 != 0,
    };
    header.check(file_bytes)?;
    Ok(header)
}

impl Header {
    fn check(&self, file_bytes: u64) -> Result<(), String> {
        if !(9..=21).contains(&self.cluster_bits) {
            return Err(format!("has clusters of 2^{} bytes, qcow2 allows 2^9 to 2^21", self.cluster_bits));
        }
        if self.virtual_bytes == 0 {
            return Err("is a qcow2 image of a disk of 0 bytes".to_owned());
        }
        let l1_bytes = u64::from(self.l1_entries) * 8;
        if l1_bytes > MAX_L1_BYTES {
            return Err(format!("has an L1 table of {l1_bytes} bytes, QEMU opens at most {MAX_L1_BYTES}"));
        }
        let end = self.l1_offset.checked_add(u64::from(self.l1_entries) * 8);
        match end {
            Some(end) if end <= file_bytes => Ok(()),
            _ => Err(self.truncated(end.unwrap_or(u64::MAX), file_bytes)),
        }
    }

    fn truncated(&self, needed: u64, found: u64) -> String {
        format!("is a truncated qcow2 image: its tables reach to byte {needed}, the file has {found} bytes")
    }

    /// Follows the mapping tables: every cluster must begin inside the file.
    ///
    /// # Errors
    /// The flaw, as [`read`].
    pub(super) fn check_mapping(&self, file: &mut (impl Read + Seek), file_bytes: u64) -> Result<(), String> {
        let l2_bytes = 1_u64 << self.cluster_bits;
        let mut budget = MAX_TABLE_BYTES;
        for l1 in pieces(self.l1_offset, u64::from(self.l1_entries) * 8) {
            for l2_offset in entries(file, l1)?.map(|entry| entry & OFFSET_MASK).filter(|offset| *offset != 0) {
                budget = budget.saturating_sub(l2_bytes);
                if budget == 0 {
                    tracing::warn!("mapping tables beyond {MAX_TABLE_BYTES} bytes are not checked");
                    return Ok(());
                }
                self.check_l2(file, file_bytes, l2_offset)?;
            }
        }
        Ok(())
    }

    fn check_l2(&self, file: &mut (impl Read + Seek), file_bytes: u64, offset: u64) -> Result<(), String> {
        let end = offset.saturating_add(1 << self.cluster_bits);
        if end > file_bytes {
            return Err(self.truncated(end, file_bytes));
        }
        // With extended entries every second word is a bitmap.
        let step = if self.is_extended { 2 } else { 1 };
        for l2 in pieces(offset, 1 << self.cluster_bits) {
            let mapped = entries(file, l2)?.step_by(step);
            let offsets = mapped.filter(|entry| entry & COMPRESSED == 0).map(|entry| entry & OFFSET_MASK);
            if let Some(beyond) = offsets.filter(|offset| *offset >= file_bytes).max() {
                return Err(self.truncated(beyond, file_bytes));
            }
        }
        Ok(())
    }
}

/// Offset and length of the pieces that a table is read in.
fn pieces(offset: u64, bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let begins = (0..bytes.div_ceil(PIECE_BYTES)).map(|piece| piece * PIECE_BYTES);
    begins.map(move |begin| (offset + begin, PIECE_BYTES.min(bytes - begin)))
}

/// Reads a piece of a table of 64-bit entries.
fn entries<F: Read + Seek>(
    file: &mut F,
    (offset, bytes): (u64, u64),
) -> Result<impl Iterator<Item = u64> + use<F>, String> {
    let io = |error: io::Error| format!("cannot be read: {error}");
    let mut raw = Vec::new();
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    file.take(bytes).read_to_end(&mut raw).map_err(io)?;
    Ok((0..raw.len() / 8).map(move |entry| be64(&raw, entry * 8)))
}

/// Writes an empty disk, or an overlay of another, cluster by cluster: header, refcount table, refcount block, L1 table.
///
/// The backing file's name is for tools that inspect the overlay; the launcher's engine gets it separately.
///
/// # Errors
/// The system's, or `InvalidInput` when the backing file's name is longer than the format's 1,023 bytes.
pub(super) fn write_overlay(
    file: &mut impl Write,
    virtual_bytes: u64,
    backing: &[u8],
    format: &[u8],
) -> io::Result<()> {
    if backing.len() > 1023 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "backing file name longer than 1023 bytes"));
    }
    let l1_entries = virtual_bytes.div_ceil(CLUSTER * CLUSTER / 8);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER).max(1);
    let used = 3 + l1_clusters;
    let entries = u32::try_from(l1_entries).ok().filter(|_| used <= CLUSTER / 2);
    let entries =
        entries.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "disk too large for an overlay"))?;
    let mut header = Vec::new();
    let extension_end = 104 + if format.is_empty() { 0 } else { 8 + padded(format.len()) } + 8;
    header.extend(MAGIC);
    header.extend(3_u32.to_be_bytes());
    let backing_offset = if backing.is_empty() { 0 } else { extension_end as u64 };
    header.extend(backing_offset.to_be_bytes());
    header.extend(u32::try_from(backing.len()).unwrap_or_default().to_be_bytes());
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(virtual_bytes.to_be_bytes());
    header.extend(0_u32.to_be_bytes()); // no encryption
    header.extend(entries.to_be_bytes());
    header.extend((3 * CLUSTER).to_be_bytes()); // L1 table
    header.extend(CLUSTER.to_be_bytes()); // refcount table
    header.extend(1_u32.to_be_bytes()); // of one cluster
    header.extend([0; 12]); // no snapshots
    header.extend([0; 24]); // no features
    header.extend(4_u32.to_be_bytes()); // refcounts of 2^4 bits
    header.extend(104_u32.to_be_bytes());
    if !format.is_empty() {
        header.extend(0xe279_2aca_u32.to_be_bytes()); // extension: format of the backing file
        header.extend(u32::try_from(format.len()).unwrap_or_default().to_be_bytes());
        header.extend(format);
        header.resize(104 + 8 + padded(format.len()), 0);
    }
    header.extend([0; 8]); // end of extensions
    header.extend(backing);
    write_padded(file, &header)?;
    write_padded(file, &(2 * CLUSTER).to_be_bytes())?;
    let counts: Vec<u8> = (0..used).flat_map(|_| 1_u16.to_be_bytes()).collect();
    write_padded(file, &counts)?;
    (0..l1_clusters).try_for_each(|_| write_padded(file, &[]))
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(8)
}

fn write_padded(file: &mut impl Write, content: &[u8]) -> io::Result<()> {
    let mut cluster = content.to_vec();
    cluster.resize(1 << CLUSTER_BITS, 0);
    file.write_all(&cluster)
}

fn be32(raw: &[u8], at: usize) -> u32 {
    raw.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn be64(raw: &[u8], at: usize) -> u64 {
    raw.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn overlay(virtual_bytes: u64, backing: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_overlay(&mut bytes, virtual_bytes, backing, b"raw").unwrap();
        bytes
    }

    fn refusal(image: &[u8]) -> String {
        let mut file = Cursor::new(image);
        let header = read(&mut file, image.len() as u64);
        header.and_then(|header| header.check_mapping(&mut file, image.len() as u64)).unwrap_err()
    }

    #[test]
    fn what_is_written_is_read() {
        let image = overlay(5 << 30, b"");
        let header = read(&mut Cursor::new(&image), image.len() as u64).unwrap();
        assert_eq!(header.virtual_bytes, 5 << 30);
        header.check_mapping(&mut Cursor::new(&image), image.len() as u64).unwrap();
    }

    #[test]
    fn names_of_other_files_are_refused() {
        assert!(refusal(&overlay(1 << 20, b"/etc/shadow")).contains("backing file"));
        let mut image = overlay(1 << 20, b"");
        image[79] = 4;
        assert!(refusal(&image).contains("external data file"));
    }

    #[test]
    fn every_truncation_is_found() {
        let mut image = overlay(1 << 30, b"");
        // One mapped cluster: an L2 table in cluster 4, its data in cluster 5.
        image.resize(6 << 16, 0);
        image[3 << 16..][..8].copy_from_slice(&(1 << 63 | 4_u64 << 16).to_be_bytes());
        image[4 << 16..][..8].copy_from_slice(&(1 << 63 | 5_u64 << 16).to_be_bytes());
        for bytes in [40, 80, 3 << 16, 4 << 16, (4 << 16) + 100, 5 << 16] {
            let flaw = refusal(&image[..bytes]);
            assert!(flaw.contains("truncated"), "{bytes}: {flaw}");
        }
        let mut whole = Cursor::new(&image);
        let header = read(&mut whole, image.len() as u64).unwrap();
        header.check_mapping(&mut whole, image.len() as u64).unwrap();
    }

    // spec: IMG-1
    #[test]
    fn a_huge_l1_table_is_refused_before_it_is_read() {
        let mut image = overlay(1 << 20, b"");
        image[36..40].copy_from_slice(&(64_u32 << 20).to_be_bytes());
        // As a sparse file of a terabyte has it: only its length is known.
        let flaw = read(&mut Cursor::new(&image), 1 << 40).unwrap_err();
        assert!(flaw.contains("has an L1 table of 536870912 bytes"), "{flaw}");
    }

    #[test]
    fn odd_headers_are_refused() {
        let with = |at: usize, value: u8| {
            let mut image = overlay(1 << 20, b"");
            image[at] = value;
            refusal(&image)
        };
        assert!(with(7, 9).contains("version 9"));
        assert!(with(23, 40).contains("2^40"));
        assert!(with(35, 1).contains("encrypted"));
        assert!(with(79, 2).contains("corrupt"));
        assert!(with(40, 0xff).contains("truncated"));
    }
}
