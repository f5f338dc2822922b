//! A log of bounded size: at its limit it becomes `<name>.1` and a new one begins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Size at which the log is turned over; twice as much may lie on the disk.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Debug)]
pub(crate) struct RotatingLog {
    path: PathBuf,
    file: File,
    bytes: u64,
    max_bytes: u64,
    is_broken: bool,
}

impl RotatingLog {
    /// Opens it; what an earlier run wrote stays.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, MAX_BYTES)
    }

    fn with_limit(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, bytes, max_bytes, is_broken: false })
    }

    /// Appends. A full disk costs the log, said once, and never the guest.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        match self.try_append(bytes) {
            Ok(()) => self.is_broken = false,
            Err(error) if !self.is_broken => {
                self.is_broken = true;
                tracing::warn!(path = %self.path.display(), %error, "the console log is losing output");
            }
            Err(_) => {}
        }
    }

    fn try_append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes + bytes.len() as u64 > self.max_bytes {
            let mut turned = self.path.clone().into_os_string();
            turned.push(".1");
            fs::rename(&self.path, turned)?;
            self.file = OpenOptions::new().append(true).create(true).open(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_turns_over_at_its_limit_and_continues_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        fs::write(&path, "early ").unwrap();
        let mut log = RotatingLog::with_limit(&path, 16).unwrap();
        log.append(b"0123456789");
        assert_eq!(fs::read_to_string(&path).unwrap(), "early 0123456789");
        log.append(b"x");
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
        assert_eq!(fs::read_to_string(folder.path().join("console.log.1")).unwrap(), "early 0123456789");
    }
}
