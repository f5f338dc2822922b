//! Opens a machine's disks and makes those that end with it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use machine::{Cache, Disk, DiskSource, Machine};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{DiskError, Format, Layer, OpenDisk, qcow2};
use crate::cloud_init;

const SECTOR: u64 = 512;

/// Images that were opened by somebody with more rights, by disk name.
pub type Given = BTreeMap<String, OwnedFd>;

/// Opens every disk of a machine; overlays, empty disks and cloud-init volumes are made anew in `scratch`.
///
/// A given descriptor takes the place of opening the image's path. It is open for reading alone when the disk is
/// read-only or an overlay, else for reading and writing.
///
/// # Errors
/// The first disk that cannot be used, and why.
pub fn open_all(machine: &Machine, scratch: &Path, mut given: Given) -> Result<Vec<OpenDisk>, DiskError> {
    let disks = machine.disks.iter().enumerate();
    let open = |(index, disk): (usize, &Disk)| {
        let given = given.remove(&disk.name);
        let of = Of { disk, given, scratch: scratch.join(format!("disk-{index}")) };
        match &disk.source {
            DiskSource::File { path } => of.file(path),
            DiskSource::Overlay { path } => of.overlay(path),
            DiskSource::Empty { capacity_bytes } => of.empty(*capacity_bytes),
            DiskSource::NoCloud(content) => of.made("img", |file| cloud_init::write_volume(file, machine, content)),
        }
    };
    disks.map(open).collect()
}

/// Looks whether a disk's image is there and holds a disk, without keeping it open or making anything.
///
/// # Errors
/// Why it cannot be used.
pub fn examine(disk: &Disk) -> Result<(), DiskError> {
    match &disk.source {
        DiskSource::File { path } | DiskSource::Overlay { path } => {
            Of { disk, given: None, scratch: PathBuf::new() }.image(path, true).map(drop)
        }
        DiskSource::Empty { .. } | DiskSource::NoCloud(_) => Ok(()),
    }
}

/// One disk on its way.
struct Of<'a> {
    disk: &'a Disk,
    given: Option<OwnedFd>,
    /// Path of what is made for it, without ending.
    scratch: PathBuf,
}

impl Of<'_> {
    fn file(self, path: &Path) -> Result<OpenDisk, DiskError> {
        let (top, _) = self.image(path, self.disk.read_only)?;
        Ok(OpenDisk { top, base: None })
    }

    fn overlay(self, path: &Path) -> Result<OpenDisk, DiskError> {
        let (base, virtual_bytes) = self.image(path, true)?;
        if self.disk.read_only {
            return Ok(OpenDisk { top: base, base: None });
        }
        let format: &[u8] = match base.format {
            Format::Raw => b"raw",
            Format::Qcow2 => b"qcow2",
        };
        let name = path.as_os_str().as_encoded_bytes().to_vec();
        let mut top = self.made("qcow2", |file| qcow2::write_overlay(file, virtual_bytes, &name, format))?;
        top.top.format = Format::Qcow2;
        Ok(OpenDisk { base: Some(base), ..top })
    }

    fn empty(self, capacity_bytes: u64) -> Result<OpenDisk, DiskError> {
        self.made("img", |file| file.set_len(capacity_bytes.next_multiple_of(SECTOR)))
    }

    /// Makes a raw file anew, filled by `fill`, whatever an earlier run left under its name.
    fn made(&self, ending: &str, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<OpenDisk, DiskError> {
        let path = self.scratch.with_extension(ending);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                DiskError::NoSpace { disk: self.disk.name.clone(), path: path.clone() }
            }
            _ => self.system("make", &path, source),
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        fill(&mut file).and_then(|()| file.flush()).map_err(failed)?;
        if self.disk.read_only {
            file = File::open(&path).map_err(failed)?;
        }
        let direct = self.direct(&file);
        let top = Layer { file, format: Format::Raw, read_only: self.disk.read_only, direct };
        Ok(OpenDisk { top, base: None })
    }

    /// Opens an image and finds out its format and the disk's size.
    fn image(&self, path: &Path, read_only: bool) -> Result<(Layer, u64), DiskError> {
        let mut file = match &self.given {
            Some(descriptor) => {
                let file = self.reopened(descriptor, path, read_only)?;
                // An earlier start may have left the flag on it, and what is looked at here is not aligned.
                set_direct(&file, false);
                file
            }
            None => self.opened(path, path, read_only)?,
        };
        let kind = file.metadata().map_err(|source| self.system("look at", path, source))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DiskError::NotADisk { disk: self.disk.name.clone(), path: path.to_owned() });
        }
        let (format, virtual_bytes) = self.examined(&mut file, path)?;
        let direct = self.direct(&file);
        Ok((Layer { file, format, read_only, direct }, virtual_bytes))
    }

    /// A raw image that its guest filled with a qcow2 header counts as qcow2 from the next start on. That harms only the
    /// guest: headers that name other files are refused.
    fn examined(&self, file: &mut File, path: &Path) -> Result<(Format, u64), DiskError> {
        let system = |source| self.system("read", path, source);
        let unfit = |flaw| DiskError::Unfit { disk: self.disk.name.clone(), path: path.to_owned(), flaw };
        let bytes = file.seek(SeekFrom::End(0)).map_err(system)?;
        let mut first = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(system)?;
        Read::by_ref(file).take(4).read_to_end(&mut first).map_err(system)?;
        if qcow2::is_qcow2(&first) {
            let header = qcow2::read(file, bytes).map_err(unfit)?;
            header.check_mapping(file, bytes).map_err(unfit)?;
            return Ok((Format::Qcow2, header.virtual_bytes));
        }
        match bytes {
            0 => Err(unfit("is empty".to_owned())),
            bytes if bytes % SECTOR != 0 && !self.disk.cdrom => Err(unfit(format!(
                "has {bytes} bytes, which is no whole number of {SECTOR}-byte sectors: a raw image cut short?"
            ))),
            bytes => Ok((Format::Raw, bytes.next_multiple_of(SECTOR))),
        }
    }

    fn opened(&self, real: &Path, shown: &Path, read_only: bool) -> Result<File, DiskError> {
        // Without O_NONBLOCK a pipe in the place of an image would be waited for.
        let mut options = OpenOptions::new();
        options.read(true).write(!read_only).custom_flags(OFlag::O_NONBLOCK.bits());
        options.open(real).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                DiskError::Missing { disk: self.disk.name.clone(), path: shown.to_owned() }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => self.denied(shown, read_only),
            io::ErrorKind::IsADirectory => DiskError::NotADisk { disk: self.disk.name.clone(), path: shown.to_owned() },
            _ => self.system("open", shown, source),
        })
    }

    /// A descriptor with exactly the access that is wanted: the engine hands out no other.
    fn reopened(&self, descriptor: &OwnedFd, shown: &Path, read_only: bool) -> Result<File, DiskError> {
        let system = |source: io::Error| self.system("use the descriptor of", shown, source);
        let flags = fcntl(descriptor, FcntlArg::F_GETFL).map_err(|errno| system(errno.into()))?;
        match (OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE, read_only) {
            (OFlag::O_RDONLY, true) | (OFlag::O_RDWR, false) => descriptor.try_clone().map(File::from).map_err(system),
            (OFlag::O_RDWR, true) => {
                let again = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
                self.opened(&again, shown, true)
            }
            _ => Err(self.denied(shown, read_only)),
        }
    }

    /// Bypasses the page cache if that is wanted and the file system can: it refuses the flag where it cannot. Of the
    /// descriptors it is given QEMU takes one that has the flag, from 9.1 on.
    fn direct(&self, file: &File) -> bool {
        self.disk.cache == Cache::None && set_direct(file, true)
    }

    fn denied(&self, path: &Path, read_only: bool) -> DiskError {
        DiskError::Denied {
            disk: self.disk.name.clone(),
            path: path.to_owned(),
            access: if read_only { "reading" } else { "reading and writing" },
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        }
    }

    fn system(&self, what: &'static str, path: &Path, source: io::Error) -> DiskError {
        DiskError::System { disk: self.disk.name.clone(), what, path: path.to_owned(), source }
    }
}

fn set_direct(file: impl AsFd, direct: bool) -> bool {
    let Ok(flags) = fcntl(&file, FcntlArg::F_GETFL) else { return false };
    let mut flags = OFlag::from_bits_truncate(flags);
    flags.set(OFlag::O_DIRECT, direct);
    fcntl(&file, FcntlArg::F_SETFL(flags)).is_ok()
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
