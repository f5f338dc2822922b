//! The lease database: a file of lines that only grows, and is replaced by a shorter one now and then.
//!
//! *Format.* A line is the CRC-32 of the rest as eight hexadecimal digits, a space, and a record as JSON; the last record of an
//! address counts.
//! *Guarantees.* What [`LeaseLog::append`] returned for is on the disk. A line that was cut short by a crash is dropped: its lease
//! was never acknowledged. Any other damage keeps the old file under another name, and all records that are whole.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dhcp::pool::{LeaseState, Record};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

const NAME: &str = "leases.log";
const LOCK: &str = "lock";
/// Lines that a file may have beyond twice its leases.
const SPARE_LINES: usize = 4096;

/// The database of one server.
#[derive(Debug)]
pub(crate) struct LeaseLog {
    folder: PathBuf,
    file: File,
    /// Bytes that are whole and durable.
    length: u64,
    lines: usize,
    /// The folder's lock, held as long as the database is open.
    _lock: Flock<File>,
}

/// What a database held when it was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The last record of each address.
    pub(crate) records: Vec<Record>,
    /// Where a damaged file was kept, and how many of its lines are no records.
    pub(crate) damaged: Option<(PathBuf, usize)>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseLogError {
    #[error("lease database {path}: cannot {what}")]
    System { path: PathBuf, what: &'static str, source: std::io::Error },
    #[error("lease database {0}: another server uses it")]
    Locked(PathBuf),
}

/// A record as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    address: Ipv4Addr,
    client: String,
    mac: String,
    state: State,
    until: u64,
    /// Seconds; absent in what an earlier release wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    granted: Option<u64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    hostname: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Leased,
    Released,
    Declined,
}

impl LeaseLog {
    /// Opens the database in the folder, which is made if it is missing.
    ///
    /// # Errors
    /// When the folder cannot be used, or another server uses it.
    pub(crate) fn open(folder: &Path) -> Result<(Self, Recovered), LeaseLogError> {
        let failed = |what| move |source| LeaseLogError::System { path: folder.to_owned(), what, source };
        std::fs::create_dir_all(folder).map_err(failed("make the folder"))?;
        let options = || OpenOptions::new().read(true).append(true).create(true).to_owned();
        let lock = options().open(folder.join(LOCK)).map_err(failed("open its lock"))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::Error::EWOULDBLOCK => LeaseLogError::Locked(folder.to_owned()),
            errno => failed("lock it")(errno.into()),
        })?;
        let mut file = options().open(folder.join(NAME)).map_err(failed("open its file"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read its file"))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let (records, lines, damaged) = read(bytes.get(..whole).unwrap_or_default());
        let length = u64::try_from(whole).unwrap_or(u64::MAX);
        let mut log = Self { folder: folder.to_owned(), file, length, lines, _lock: lock };
        let mut recovered = Recovered { records, damaged: None };
        if damaged > 0 {
            let kept = log.keep_aside()?;
            log.replace(&recovered.records)?;
            recovered.damaged = Some((kept, damaged));
        } else {
            log.cut()?;
        }
        // The file's own entry in its folder.
        log.sync_folder()?;
        Ok((log, recovered))
    }

    /// Adds records; they are on the disk when this returns.
    ///
    /// # Errors
    /// When they could not be made durable; nothing of them is kept then.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), LeaseLogError> {
        let bytes: Vec<u8> = records.iter().flat_map(line).collect();
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // What was written of them must not end up in the middle of the file.
            self.cut()?;
            return Err(self.failed("add a lease", source));
        }
        self.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.lines += records.len();
        Ok(())
    }

    /// Whether it has many more lines than leases.
    pub(crate) fn is_long(&self, leases: usize) -> bool {
        self.lines > 2 * leases + SPARE_LINES
    }

    /// Replaces the file by one that has only these records.
    ///
    /// # Errors
    /// When the new file could not be made; the old one is kept then.
    pub(crate) fn replace(&mut self, records: &[Record]) -> Result<(), LeaseLogError> {
        let (path, new) = (self.folder.join(NAME), self.folder.join(format!("{NAME}.new")));
        let bytes: Vec<u8> = records.iter().flat_map(line).collect();
        let write = || {
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, &path)?;
            OpenOptions::new().read(true).append(true).open(&path)
        };
        self.file = write().map_err(|source| self.failed("write a shorter file", source))?;
        self.length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.lines = records.len();
        self.sync_folder()
    }

    fn cut(&mut self) -> Result<(), LeaseLogError> {
        self.file.set_len(self.length).map_err(|source| self.failed("cut off an unfinished line", source))
    }

    /// Gives the file a second name that no other has.
    fn keep_aside(&self) -> Result<PathBuf, LeaseLogError> {
        let names = (1_u32..).map(|number| self.folder.join(format!("{NAME}.damaged-{number}")));
        for kept in names {
            match std::fs::hard_link(self.folder.join(NAME), &kept) {
                Ok(()) => return Ok(kept),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(self.failed("keep the damaged file under another name", source)),
            }
        }
        Err(self.failed("find a name for the damaged file", std::io::ErrorKind::AlreadyExists.into()))
    }

    fn sync_folder(&self) -> Result<(), LeaseLogError> {
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| self.failed("make its folder durable", source))
    }

    fn failed(&self, what: &'static str, source: std::io::Error) -> LeaseLogError {
        LeaseLogError::System { path: self.folder.clone(), what, source }
    }
}

/// The last record of each address, the number of lines, and how many of them are no records.
fn read(bytes: &[u8]) -> (Vec<Record>, usize, usize) {
    let (mut last, mut lines, mut damaged) = (BTreeMap::new(), 0, 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        lines += 1;
        match record(line.strip_suffix(b"\n").unwrap_or(line)) {
            Some(record) => drop(last.insert(record.address, record)),
            None => damaged += 1,
        }
    }
    (last.into_values().collect(), lines, damaged)
}

fn record(line: &[u8]) -> Option<Record> {
    let (sum, json) = line.split_at_checked(9)?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?.strip_suffix(' ')?, 16).ok()?;
    if crc32fast::hash(json) != sum {
        return None;
    }
    let line: Line = serde_json::from_slice(json).ok()?;
    let state = match line.state {
        State::Leased => LeaseState::Leased,
        State::Released => LeaseState::Released,
        State::Declined => LeaseState::Declined,
    };
    let octets: Option<Vec<u8>> = line.mac.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    let mac = octets?.try_into().ok()?;
    let (client, until) = (line.client.parse().ok()?, Duration::from_secs(line.until));
    let granted = line.granted.map(Duration::from_secs);
    Some(Record { address: line.address, client, mac, state, until, granted, hostname: line.hostname })
}

fn line(record: &Record) -> Vec<u8> {
    let state = match record.state {
        LeaseState::Leased => State::Leased,
        LeaseState::Released => State::Released,
        LeaseState::Declined => State::Declined,
    };
    let line = Line {
        address: record.address,
        client: record.client.to_string(),
        mac: crate::mac_text(record.mac),
        state,
        // Never earlier than what the client was told.
        until: record.until.as_secs() + u64::from(record.until.subsec_nanos() > 0),
        granted: record.granted.map(|granted| granted.as_secs()),
        hostname: record.hostname.clone(),
    };
    let json = serde_json::to_vec(&line).unwrap_or_default();
    [format!("{:08x} ", crc32fast::hash(&json)).as_bytes(), &json, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(last: u8, until: u64) -> Record {
        Record {
            address: [10, 9, 0, last].into(),
            client: format!("0102000000{last:04x}").parse().unwrap(),
            mac: [2, 0, 0, 0, 0, last],
            state: LeaseState::Leased,
            until: Duration::from_secs(until),
            granted: Some(Duration::from_secs(60)),
            hostname: "vm \"x\"".to_owned(),
        }
    }

    fn open(folder: &Path) -> (LeaseLog, Recovered) {
        LeaseLog::open(folder).unwrap()
    }

    fn content(folder: &Path) -> Vec<u8> {
        std::fs::read(folder.join(NAME)).unwrap()
    }

    // spec: BOOT-3
    #[test]
    fn a_database_cut_at_any_byte_has_every_whole_record() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, recovered) = open(folder.path());
        assert_eq!(recovered, Recovered::default());
        let records = [lease(7, 100), lease(8, 200), lease(7, 300)];
        let mut ends = vec![0];
        for record in &records {
            log.append(std::slice::from_ref(record)).unwrap();
            ends.push(content(folder.path()).len());
        }
        drop(log);
        let whole = content(folder.path());
        for cut in 0..=whole.len() {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(NAME), &whole[..cut]).unwrap();
            let (mut log, recovered) = open(folder.path());
            let count = ends.iter().rposition(|end| *end <= cut).unwrap();
            let (expected, _, _) = read(&whole[..ends[count]]);
            assert_eq!(recovered, Recovered { records: expected, damaged: None }, "cut at {cut}");
            // The next record does not grow together with what was cut.
            log.append(&[lease(9, 400)]).unwrap();
            drop(log);
            let again = open(folder.path()).1;
            assert_eq!((again.damaged, again.records.last()), (None, Some(&lease(9, 400))), "cut at {cut}");
        }
    }

    // spec: BOOT-3
    #[test]
    fn a_damaged_database_is_kept_aside_with_all_whole_records() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = open(folder.path());
        log.append(&[lease(7, 100), lease(8, 200), lease(9, 300)]).unwrap();
        drop(log);
        let whole = content(folder.path());
        let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 20;
        for (number, change) in [0x01, 0x80].into_iter().enumerate() {
            let mut damaged = whole.clone();
            damaged[second] ^= change;
            std::fs::write(folder.path().join(NAME), &damaged).unwrap();
            let (log, recovered) = open(folder.path());
            assert_eq!(recovered.records, [lease(7, 100), lease(9, 300)]);
            let (kept, lines) = recovered.damaged.unwrap();
            assert_eq!((kept.clone(), lines), (folder.path().join(format!("{NAME}.damaged-{}", number + 1)), 1));
            assert_eq!(std::fs::read(kept).unwrap(), damaged);
            drop(log);
            assert_eq!(open(folder.path()).1, Recovered { records: recovered.records, damaged: None });
        }
    }

    // spec: BOOT-3
    #[test]
    fn a_long_database_is_replaced_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = open(folder.path());
        for until in 0..3 * SPARE_LINES as u64 / 2 {
            log.lines += 1;
            log.append(&[lease(7, until)]).unwrap();
            if log.is_long(1) {
                break;
            }
        }
        assert!(log.is_long(1));
        // What an earlier try left is no obstacle.
        std::fs::write(folder.path().join(format!("{NAME}.new")), b"left").unwrap();
        log.replace(&[lease(7, 9)]).unwrap();
        log.append(&[lease(8, 10)]).unwrap();
        drop(log);
        assert_eq!(content(folder.path()).iter().filter(|byte| **byte == b'\n').count(), 2);
        assert_eq!(open(folder.path()).1.records, [lease(7, 9), lease(8, 10)]);
    }

    #[test]
    fn two_servers_cannot_use_one_database() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path());
        let error = LeaseLog::open(folder.path()).unwrap_err();
        assert!(matches!(error, LeaseLogError::Locked(_)), "{error}");
        drop(first);
        open(folder.path());
    }
}
