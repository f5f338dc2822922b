//! What files that hold no raw disk begin with.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// What a file's first bytes say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Qcow2,
    /// A disk in a format that is not read here.
    OtherDisk(&'static str),
    /// Something compressed, by which program.
    Compressed(&'static str),
}

/// Offset, bytes, and what a file with them is.
const MAGICS: [(u64, &[u8], Kind); 19] = [
    (0, b"QFI\xfb", Kind::Qcow2),
    (0, b"KDMV", Kind::OtherDisk("vmdk")),
    (0, b"COWD", Kind::OtherDisk("vmdk")),
    (0, b"# Disk DescriptorFile", Kind::OtherDisk("vmdk")),
    (0, b"vhdxfile", Kind::OtherDisk("vhdx")),
    (0, b"conectix", Kind::OtherDisk("vpc")),
    (64, b"\x7f\x10\xda\xbe", Kind::OtherDisk("vdi")),
    (0, b"QED\0", Kind::OtherDisk("qed")),
    (0, b"WithoutFreeSpace", Kind::OtherDisk("parallels")),
    (0, b"WithouFreSpacExt", Kind::OtherDisk("parallels")),
    (0, b"OOOM", Kind::OtherDisk("cow")),
    (0, b"\x1f\x8b\x08", Kind::Compressed("gzip")),
    (0, b"\xfd7zXZ\0", Kind::Compressed("xz")),
    (0, b"\x28\xb5\x2f\xfd", Kind::Compressed("zstd")),
    (0, b"BZh", Kind::Compressed("bzip2")),
    (0, b"\x04\x22\x4d\x18", Kind::Compressed("lz4")),
    (0, b"LZIP", Kind::Compressed("lzip")),
    (0, b"PK\x03\x04", Kind::Compressed("zip")),
    (0, b"7z\xbc\xaf\x27\x1c", Kind::Compressed("7z")),
];

/// What a file is, by its first bytes, and for fixed VPC disks by its last; `None` for anything else, a raw disk included.
pub(super) fn kind(file: &File, bytes: u64) -> io::Result<Option<Kind>> {
    let mut first = [0; 128];
    let read = read_at(file, &mut first, 0)?;
    let has = |offset: u64, magic: &[u8]| {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        first.get(..read).and_then(|first| first.get(from..)).is_some_and(|rest| rest.starts_with(magic))
    };
    if let Some((_, _, kind)) = MAGICS.into_iter().find(|(offset, magic, _)| has(*offset, magic)) {
        return Ok(Some(kind));
    }
    let mut footer = [0; 8];
    let is_fixed = bytes > 512 && read_at(file, &mut footer, bytes - 512)? == 8 && &footer == b"conectix";
    Ok(is_fixed.then_some(Kind::OtherDisk("vpc")))
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

impl Kind {
    /// Why a disk's file of this kind is refused, as the end of a sentence that begins with its name.
    pub(super) fn refusal(self) -> Option<String> {
        match self {
            Self::Qcow2 => None,
            Self::OtherDisk(format) => Some(format!(
                "is a {format} image, raw and qcow2 are supported: `qemu-img convert -O qcow2 IMAGE NEW.qcow2` makes one"
            )),
            Self::Compressed(program) => Some(format!("is compressed with {program}: unpack it first")),
        }
    }
}
