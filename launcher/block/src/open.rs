//! Opens a machine's disks and makes those that end with it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use machine::{Bus, Cache, Disk, DiskSource, Machine};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statvfs::statvfs;

use super::path::{self, PathError};
use super::{DiskError, Format, Layer, OpenDisk, magic, qcow2};
use crate::{cloud_init, content, iso9660};

const SECTOR: u64 = 512;
/// The block of storage that has no smaller one, in bytes.
const LARGEST_BLOCK: u64 = 4096;
/// The disk in a folder, as KubeVirt names it in a claim with a file system.
const DISK_FILE: &str = "disk.img";
/// Its name until it has its size.
const UNFINISHED: &str = "disk.img.unfinished";
/// Sizes of disks that are made in a folder are multiples of this.
const SIZE_STEP: u64 = 1 << 20;

/// Images that were opened by a process with more rights, by disk name.
pub type Given = BTreeMap<String, OwnedFd>;

/// Opens every disk of a machine; overlays, empty disks and cloud-init volumes are made in `scratch`.
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
        let mut of = Of { disk, given, scratch: scratch.join(format!("disk-{index}")), own: &[] };
        // A cloud-init volume has the place and the name that KubeVirt's has, in whose pods people and tests look for it.
        let cloud_init_folder = || scratch.join("cloud-init-data").join(&machine.namespace).join(&machine.name);
        match &disk.source {
            DiskSource::File { path, format } => of.file(path, *format),
            DiskSource::Overlay { path, format } => of.overlay(path, *format),
            DiskSource::Folder { path, capacity_bytes } => of.folder(path, *capacity_bytes),
            DiskSource::Empty { capacity_bytes } => of.empty(*capacity_bytes),
            DiskSource::NoCloud(content) => {
                of.move_to(&cloud_init_folder(), "noCloud")?;
                of.made("iso", |file| cloud_init::write_volume(file, machine, content))
            }
            DiskSource::ConfigDrive(content) => {
                of.move_to(&cloud_init_folder(), "configdrive")?;
                of.made("iso", |file| {
                    iso9660::write(file, cloud_init::CONFIG_DRIVE_LABEL, &cloud_init::config_drive(machine, content)?)
                })
            }
            DiskSource::Files { label, files } => {
                of.made("iso", |file| iso9660::write(file, label, &content::files_of(files)?))
            }
        }
    };
    disks.map(open).collect()
}

/// What is expected of a disk's file before its VM is started for the first time.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Folders that no disk may lie in.
    pub own: &'a [&'a Path],
    /// Whether the user named the format, so that what the file looks like does not matter.
    pub is_format_given: bool,
}

/// Looks whether a disk's image is there and holds a disk, without keeping it open or making anything. Returns a warning.
///
/// # Errors
/// Why it cannot be used.
pub fn examine(disk: &Disk, expected: &Expected<'_>) -> Result<Option<String>, DiskError> {
    let (path, format, own) = match &disk.source {
        DiskSource::File { path, format } => (path, Some(*format), expected.own),
        DiskSource::Overlay { path, format } => (path, *format, &[][..]),
        // Those that are made, or may be still to be made.
        _ => return Ok(None),
    };
    let of = Of { disk, given: None, scratch: PathBuf::new(), own };
    let only_file = if format.is_none() { of.only_file(path)? } else { None };
    let path = only_file.as_ref().unwrap_or(path);
    let (format, is_given) = match format {
        Some(format) => (format, expected.is_format_given),
        None => (of.probed(path)?, true),
    };
    let file = of.opened(path, true)?;
    let bytes = of.bytes(&file, path)?;
    let kind = magic::kind(&file, bytes).map_err(|source| of.system("read", path, source))?;
    if format == Format::Raw && !is_given {
        if let Some(flaw) = kind.and_then(magic::Kind::refusal) {
            let flaw =
                format!("{flaw}. If it is a raw disk, annotation tapvisor.io/disk-format.{}: raw says so", disk.name);
            return Err(of.unfit(path, flaw));
        }
        if kind == Some(magic::Kind::Qcow2) {
            return Ok(Some(format!("disk {:?}: {path:?} {}", disk.name, raw_with_header(&disk.name))));
        }
    }
    of.checked(file, path, format).map(|_| None)
}

fn raw_with_header(disk: &str) -> String {
    format!(
        "begins as a qcow2 image and is used as a raw disk, for a guest may have written that. If it is qcow2, annotation \
         tapvisor.io/disk-format.{disk}: qcow2 says so"
    )
}

/// Finds out the format of an image that no guest has written to.
///
/// # Errors
/// When it holds no disk, or one in another format.
pub fn probe(path: &Path) -> Result<Format, DiskError> {
    let unknown = Disk {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bus: Bus::Virtio,
        cdrom: true,
        read_only: true,
        serial: None,
        boot_order: None,
        pci: None,
        cache: Cache::Writeback,
        source: DiskSource::Empty { capacity_bytes: 0 },
    };
    let of = Of { disk: &unknown, given: None, scratch: PathBuf::new(), own: &[] };
    let file = File::open(path).map_err(|source| of.system("open", path, source))?;
    let bytes = of.bytes(&file, path)?;
    let kind = magic::kind(&file, bytes).map_err(|source| of.system("read", path, source))?;
    if let Some(flaw) = kind.and_then(magic::Kind::refusal) {
        return Err(of.unfit(path, flaw));
    }
    let format = if kind == Some(magic::Kind::Qcow2) { Format::Qcow2 } else { Format::Raw };
    of.checked(file, path, format).map(|_| format)
}

/// Makes an empty disk of a format in a new file.
///
/// # Errors
/// The system's.
pub fn make(file: &mut File, capacity_bytes: u64, format: Format) -> io::Result<()> {
    match format {
        Format::Raw => file.set_len(capacity_bytes.next_multiple_of(SECTOR)),
        Format::Qcow2 => qcow2::write_overlay(file, capacity_bytes.next_multiple_of(SECTOR), b"", b""),
    }
}

/// One disk on its way.
struct Of<'a> {
    disk: &'a Disk,
    given: Option<OwnedFd>,
    /// Path of what is made for it, without ending.
    scratch: PathBuf,
    /// Folders that it may not lie in.
    own: &'a [&'a Path],
}

impl Of<'_> {
    /// Has what is made for it made in this folder, which is made first.
    fn move_to(&mut self, folder: &Path, name: &str) -> Result<(), DiskError> {
        std::fs::create_dir_all(folder).map_err(|source| self.system("make", folder, source))?;
        self.scratch = folder.join(name);
        Ok(())
    }

    fn file(self, path: &Path, format: Format) -> Result<OpenDisk, DiskError> {
        let path = &self.only_file(path)?.unwrap_or_else(|| path.to_owned());
        let (top, _) = self.image(path, format, self.disk.read_only)?;
        Ok(OpenDisk { top, base: None })
    }

    fn overlay(self, path: &Path, format: Option<Format>) -> Result<OpenDisk, DiskError> {
        let file = self.only_file(path)?;
        let (path, format) = match (&file, format) {
            (Some(file), _) => (&**file, self.probed(file)?),
            (None, Some(format)) => (path, format),
            (None, None) => (path, self.probed(path)?),
        };
        let (base, virtual_bytes) = self.image(path, format, true)?;
        if self.disk.read_only {
            return Ok(OpenDisk { top: base, base: None });
        }
        let (format, name) = (base.format.to_string(), path.as_os_str().as_encoded_bytes().to_vec());
        let write = |file: &mut File| qcow2::write_overlay(file, virtual_bytes, &name, format.as_bytes());
        let mut top = self.made("qcow2", write)?;
        top.top.format = Format::Qcow2;
        Ok(OpenDisk { base: Some(base), ..top })
    }

    /// The disk in a folder, made where there is none. It appears under its name with its size, whenever this is killed.
    fn folder(self, folder: &Path, capacity_bytes: u64) -> Result<OpenDisk, DiskError> {
        let path = folder.join(DISK_FILE);
        let failed = |source| self.system("make", &path, source);
        if !self.disk.read_only && !path.try_exists().map_err(failed)? {
            let room = statvfs(folder).map_err(|errno| failed(errno.into()))?;
            let room = room.blocks_available().saturating_mul(room.fragment_size());
            let bytes = capacity_bytes.min(room) / SIZE_STEP * SIZE_STEP;
            if bytes == 0 {
                return Err(DiskError::NoSpace { disk: self.disk.name.clone(), path });
            }
            let unfinished = folder.join(UNFINISHED);
            match std::fs::remove_file(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
            let mut options = OpenOptions::new();
            let made = options.read(true).write(true).create_new(true).mode(0o600).open(&unfinished);
            let made = made.and_then(|mut file| make(&mut file, bytes, Format::Raw).and_then(|()| file.sync_all()));
            made.and_then(|()| std::fs::rename(&unfinished, &path)).map_err(failed)?;
        }
        let (top, _) = self.image(&path, Format::Raw, self.disk.read_only)?;
        Ok(OpenDisk { top, base: None })
    }

    /// The only file in the folder at `path`; `None` when that is no folder, or the image was opened by another process.
    fn only_file(&self, path: &Path) -> Result<Option<PathBuf>, DiskError> {
        if self.given.is_some() || !path.is_dir() {
            return Ok(None);
        }
        let listed = std::fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut names: Vec<_> = match listed {
            // Every ext4 file system has this folder.
            Ok(entries) => {
                entries.iter().map(std::fs::DirEntry::file_name).filter(|name| name != "lost+found").collect()
            }
            Err(source) => return Err(self.not_opened(path, true, source)),
        };
        match (names.pop(), names.len()) {
            (Some(name), 0) => Ok(Some(path.join(name))),
            (found, more) => {
                let found = more + usize::from(found.is_some());
                Err(self.unfit(path, format!("is a folder with {found} files, expected exactly one, the disk")))
            }
        }
    }

    /// The format of an image that no guest has written to.
    fn probed(&self, path: &Path) -> Result<Format, DiskError> {
        let file = self.opened(path, true)?;
        let bytes = self.bytes(&file, path)?;
        let kind = magic::kind(&file, bytes).map_err(|source| self.system("read", path, source))?;
        match kind {
            Some(magic::Kind::Qcow2) => Ok(Format::Qcow2),
            Some(kind) => kind.refusal().map_or(Ok(Format::Raw), |flaw| Err(self.unfit(path, flaw.to_string()))),
            None => Ok(Format::Raw),
        }
    }

    fn empty(self, capacity_bytes: u64) -> Result<OpenDisk, DiskError> {
        self.made("img", |file| make(file, capacity_bytes, Format::Raw))
    }

    /// Makes a new raw file, filled by `fill`; replaces a file that an earlier run left under its name.
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
        let direct = self.direct(&file, self.disk.read_only);
        let top = Layer { file, format: Format::Raw, read_only: self.disk.read_only, is_device: false, direct };
        Ok(OpenDisk { top, base: None })
    }

    /// Opens an image and looks whether it holds a disk in its format, and of which size.
    fn image(&self, path: &Path, format: Format, read_only: bool) -> Result<(Layer, u64), DiskError> {
        let file = match &self.given {
            Some(descriptor) => {
                let file = self.reopened(descriptor, path, read_only)?;
                // An earlier start may have left the flag on it, and what is looked at here is not aligned.
                set_direct(&file, false);
                file
            }
            None => self.opened(path, read_only)?,
        };
        let kind = file.metadata().map_err(|source| self.system("look at", path, source))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(self.refused(path, PathError::NotADisk));
        }
        let (file, virtual_bytes) = self.checked(file, path, format)?;
        let direct = self.direct(&file, read_only);
        Ok((Layer { file, format, read_only, is_device: kind.is_block_device(), direct }, virtual_bytes))
    }

    /// The format comes from the launch file: a guest may write whatever header it likes at the beginning of its raw disk.
    fn checked(&self, mut file: File, path: &Path, format: Format) -> Result<(File, u64), DiskError> {
        let bytes = self.bytes(&file, path)?;
        let kind = magic::kind(&file, bytes).map_err(|source| self.system("read", path, source))?;
        let is_qcow2 = kind == Some(magic::Kind::Qcow2);
        match (format, is_qcow2) {
            (Format::Qcow2, true) => {
                let unfit = |flaw| self.unfit(path, flaw);
                let header = qcow2::read(&mut file, bytes).map_err(unfit)?;
                header.check_mapping(&mut file, bytes).map_err(unfit)?;
                return Ok((file, header.virtual_bytes));
            }
            (Format::Qcow2, false) => {
                let name = &self.disk.name;
                let hint = format!("annotation tapvisor.io/disk-format.{name}: raw says that it is raw");
                return Err(self.unfit(path, format!("is no qcow2 image, as its name or an annotation says; {hint}")));
            }
            (Format::Raw, true) => {
                tracing::warn!("disk {:?}: {path:?} {}", self.disk.name, raw_with_header(&self.disk.name))
            }
            (Format::Raw, false) => {}
        }
        match bytes {
            0 => Err(self.unfit(path, "is empty".to_owned())),
            bytes if bytes % SECTOR != 0 && !self.disk.cdrom => Err(self.unfit(
                path,
                format!("has {bytes} bytes, which is no whole number of {SECTOR}-byte sectors: a raw image cut short?"),
            )),
            bytes => Ok((file, bytes.next_multiple_of(SECTOR))),
        }
    }

    /// The size of the file, or of the block device.
    fn bytes(&self, mut file: &File, path: &Path) -> Result<u64, DiskError> {
        file.seek(SeekFrom::End(0)).map_err(|source| self.system("read", path, source))
    }

    fn opened(&self, path: &Path, read_only: bool) -> Result<File, DiskError> {
        path::open(path, !read_only, self.own).map_err(|error| match error {
            PathError::System(source) => self.not_opened(path, read_only, source),
            refused => self.refused(path, refused),
        })
    }

    fn not_opened(&self, path: &Path, read_only: bool, source: io::Error) -> DiskError {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                DiskError::Missing { disk: self.disk.name.clone(), path: path.to_owned() }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => self.denied(path, read_only),
            io::ErrorKind::ResourceBusy => DiskError::InUse { disk: self.disk.name.clone(), path: path.to_owned() },
            _ => self.system("open", path, source),
        }
    }

    fn refused(&self, path: &Path, source: PathError) -> DiskError {
        DiskError::Refused { disk: self.disk.name.clone(), path: path.to_owned(), source }
    }

    fn unfit(&self, path: &Path, flaw: String) -> DiskError {
        DiskError::Unfit { disk: self.disk.name.clone(), path: path.to_owned(), flaw }
    }

    /// A descriptor with exactly the access that is wanted: the engine hands out no other.
    fn reopened(&self, descriptor: &OwnedFd, shown: &Path, read_only: bool) -> Result<File, DiskError> {
        let system = |source: io::Error| self.system("use the descriptor of", shown, source);
        let flags = fcntl(descriptor, FcntlArg::F_GETFL).map_err(|errno| system(errno.into()))?;
        match (OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE, read_only) {
            (OFlag::O_RDONLY, true) | (OFlag::O_RDWR, false) => descriptor.try_clone().map(File::from).map_err(system),
            (OFlag::O_RDWR, true) => {
                let again = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
                File::open(again).map_err(|source| self.not_opened(shown, true, source))
            }
            _ => Err(self.denied(shown, read_only)),
        }
    }

    /// Bypasses the page cache if that is wanted and the file system can: it refuses the flag where it cannot. Of the
    /// descriptors it is given QEMU takes one that has the flag, from 9.1 on. QEMU refuses to write a file past the page cache
    /// whose size is no whole number of the storage's blocks.
    fn direct(&self, file: &File, read_only: bool) -> bool {
        let is_whole = || file.metadata().is_ok_and(|found| !found.is_file() || found.len() % LARGEST_BLOCK == 0);
        self.disk.cache == Cache::None && (read_only || is_whole()) && set_direct(file, true)
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
