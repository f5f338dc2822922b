//! The user and group of each VM's processes: an unused number from a range that the host's owner can set.
//!
//! *Flow.* `run` chooses a number under the host lock and writes it into the VM's record before anything else is made.
//! *Guarantees.* No two VMs share a number, and none is given out again while a record, a folder of disks or a process
//! of the earlier VM is left. Numbers that an account, a group or a subordinate range of the host has are passed over.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};
use terms::ObjectKey;
use wiring::Owner;

use super::files::{self, FileError};
use super::layout::Layout;
use super::process;
pub use super::process::POD_OWNER;
use super::store::{Store, StoreError};

/// Beyond the numbers that distributions, systemd and container engines give out (systemd's "Users, Groups, UIDs and
/// GIDs"), and below the sign bit, which some programs mistake.
pub const DEFAULT_RANGE: OwnerRange = OwnerRange { first: 1_900_000_000, last: 1_900_004_095 };

/// Below are the accounts of the system itself.
const LOWEST: u32 = 1000;
/// The numbers that the kernel and NFS give to what they cannot name.
const OVERFLOW_IDS: [u32; 2] = [65_534, 65_535];

/// Numbers for VMs, each a uid and a gid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerRange {
    first: u32,
    last: u32,
}

/// Why a VM cannot be given a user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The file with the range.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not hold one valid range.
    #[error(
        "{path}: {text:?} is invalid, expected one line FIRST-LAST with 1000 ≤ FIRST ≤ LAST < 2147483648, without 65534 and 65535"
    )]
    Range {
        /// Path of the file.
        path: PathBuf,
        /// Text of the file.
        text: String,
    },
    /// No number of the range is free.
    #[error(
        "no uid is left for {vm}: all of {range} are in use or not in this user namespace; {path} sets another range"
    )]
    Exhausted {
        /// The VM that needs one, as NAMESPACE/NAME.
        vm: String,
        /// The range of numbers for VMs.
        range: OwnerRange,
        /// The file that sets it.
        path: PathBuf,
    },
    /// The records of VMs cannot be read.
    #[error(transparent)]
    Store(#[from] Box<StoreError>),
}

impl std::fmt::Display for OwnerRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl OwnerRange {
    /// The range of a host: that of its file, or the default.
    ///
    /// # Errors
    /// When the file cannot be read or does not hold a range.
    pub fn of(layout: &Layout) -> Result<Self, OwnerError> {
        let path = layout.owners();
        let text = match files::read(path) {
            Err(error) if error.is_absent() => return Ok(DEFAULT_RANGE),
            text => String::from_utf8_lossy(&text?).into_owned(),
        };
        Self::parse(&text).ok_or_else(|| {
            let text = text.trim().chars().take(80).collect();
            OwnerError::Range { path: path.to_owned(), text }
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.trim().split_once('-')?;
        let range = Self { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
        let is_sound = (LOWEST..=range.last).contains(&range.first)
            && range.last <= i32::MAX.cast_unsigned()
            && !OVERFLOW_IDS.iter().any(|id| range.contains(*id));
        is_sound.then_some(range)
    }

    /// Whether a number is in it.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        (self.first..=self.last).contains(&number)
    }

    /// The first of it: what a VM is likely to get.
    #[must_use]
    pub fn first(&self) -> Owner {
        Owner { uid: self.first, gid: self.first }
    }

    /// The lowest number that is not in use.
    fn choose(self, taken: &BTreeSet<u32>, accounts: &Accounts, mapped: &Mapped) -> Option<Owner> {
        let mut numbers = self.first..=self.last;
        let is_taken = |number: u32| taken.contains(&number) || accounts.has(number) || is_named(number);
        numbers
            .find(|number| mapped.has(*number) && !is_taken(*number))
            .map(|number| Owner { uid: number, gid: number })
    }
}

/// A network's directory may know accounts that are in no file.
fn is_named(number: u32) -> bool {
    let user = User::from_uid(Uid::from_raw(number));
    let group = Group::from_gid(Gid::from_raw(number));
    matches!(user, Ok(Some(_))) || matches!(group, Ok(Some(_)))
}

/// Numbers that the host's files give to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts(Vec<Account>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    file: &'static str,
    name: String,
    first: u64,
    count: u64,
}

impl Accounts {
    /// What the files below `root`/etc say; one that is absent says nothing.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        let read = |name: &str| fs::read_to_string(root.join("etc").join(name)).unwrap_or_default();
        let singles = ["passwd", "group"].into_iter().flat_map(|file| accounts(file, &read(file), 2));
        let ranges = ["subuid", "subgid"].into_iter().flat_map(|file| accounts(file, &read(file), 1));
        Self(singles.chain(ranges).collect())
    }

    fn has(&self, number: u32) -> bool {
        self.0.iter().any(|account| account.meets(number, number))
    }

    /// What of a range is given to others, in words.
    #[must_use]
    pub fn within(&self, range: OwnerRange) -> Vec<String> {
        let met = self.0.iter().filter(|account| account.meets(range.first, range.last));
        met.map(|account| format!("{} in /etc/{}", account.name, account.file)).collect()
    }
}

impl Account {
    fn meets(&self, first: u32, last: u32) -> bool {
        self.first <= u64::from(last) && u64::from(first) < self.first.saturating_add(self.count)
    }
}

/// Lines `name:…:number…`, with the first number in the field `at` and, in files of ranges, the count after it.
fn accounts(file: &'static str, text: &str, at: usize) -> Vec<Account> {
    let account = |line: &str| {
        let fields: Vec<_> = line.split(':').collect();
        let first = fields.get(at)?.trim().parse().ok()?;
        let count = if at == 1 { fields.get(2)?.trim().parse().ok()? } else { 1 };
        Some(Account { file, name: (*fields.first()?).to_owned(), first, count })
    };
    text.lines().filter_map(account).collect()
}

/// Numbers that this user namespace has, as users and as groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    users: Vec<(u64, u64)>,
    groups: Vec<(u64, u64)>,
}

impl Mapped {
    /// Those of this process (user_namespaces(7)).
    #[must_use]
    pub fn here() -> Self {
        let read = |file: &str| spans(&fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default());
        Self { users: read("uid_map"), groups: read("gid_map") }
    }

    fn has(&self, number: u32) -> bool {
        let number = u64::from(number);
        let is_in = |spans: &[(u64, u64)]| spans.iter().any(|(first, end)| (*first..*end).contains(&number));
        is_in(&self.users) && is_in(&self.groups)
    }

    /// Whether it has the first number of a range, and so most likely all of it.
    #[must_use]
    pub fn has_first_of(&self, range: OwnerRange) -> bool {
        self.has(range.first)
    }
}

fn spans(map: &str) -> Vec<(u64, u64)> {
    let span = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let first = numbers.next()?.ok()?;
        Some((first, first.saturating_add(numbers.nth(1)?.ok()?)))
    };
    map.lines().filter_map(span).collect()
}

/// Gives out numbers while the host lock is held.
#[derive(Debug)]
pub(crate) struct Owners {
    range: OwnerRange,
    path: PathBuf,
    taken: BTreeSet<u32>,
    accounts: Accounts,
    mapped: Mapped,
}

impl Owners {
    /// Looks at what is in use.
    ///
    /// # Errors
    /// When the range is none, or the VMs cannot be listed.
    pub(crate) fn of(store: &Store) -> Result<Self, OwnerError> {
        let layout = store.layout();
        let range = OwnerRange::of(layout)?;
        let taken = taken(store).map_err(Box::new)?;
        Ok(Self {
            range,
            path: layout.owners().to_owned(),
            taken,
            accounts: Accounts::below(layout.root()),
            mapped: Mapped::here(),
        })
    }

    /// The next unused number.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn next(&mut self, vm: &str) -> Result<Owner, OwnerError> {
        let exhausted = || OwnerError::Exhausted { vm: vm.to_owned(), range: self.range, path: self.path.clone() };
        let owner = self.range.choose(&self.taken, &self.accounts, &self.mapped).ok_or_else(exhausted)?;
        self.taken.insert(owner.uid);
        Ok(owner)
    }
}

/// Numbers of VMs that are known, of disks that are left of others, and of processes.
fn taken(store: &Store) -> Result<BTreeSet<u32>, StoreError> {
    let layout = store.layout();
    let mut taken = BTreeSet::new();
    for key in store.keys()? {
        // A record that cannot be read still has its folder, which is the launcher's.
        taken.extend(store.status(&key).ok().map(|status| status.owner.uid));
        taken.extend(owner_of(&layout.vm(&key).launcher_dir()));
    }
    taken.extend(files::entries(&layout.scratch())?.iter().filter_map(|folder| owner_of(folder)));
    taken.extend(process::users());
    Ok(taken)
}

fn owner_of(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().map(|found| found.uid())
}

/// The user of a VM: as it was recorded, or, where the record cannot be read, as its folder has it. Never root.
pub(crate) fn recorded(store: &Store, key: &ObjectKey) -> Owner {
    let in_record = || store.status(key).ok().map(|status| status.owner);
    let of_folder = || {
        let found = fs::symlink_metadata(store.layout().vm(key).launcher_dir()).ok()?;
        Some(Owner { uid: found.uid(), gid: found.gid() })
    };
    in_record().or_else(of_folder).filter(|owner| owner.uid != 0).unwrap_or(POD_OWNER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Option<OwnerRange> {
        OwnerRange::parse(text)
    }

    #[test]
    fn a_range_is_one_line_outside_the_systems_own_numbers() {
        assert_eq!(range("1900000000-1900004095\n"), Some(DEFAULT_RANGE));
        assert_eq!(range("2000-2000"), Some(OwnerRange { first: 2000, last: 2000 }));
        for bad in ["", "5", "1-5", "0-4000", "999-2000", "3000-2000", "60000-70000", "1000-2147483648", "a-b", "1 2"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }

    // spec: ISO-1
    #[test]
    fn numbers_of_vms_accounts_and_subordinate_ranges_are_passed_over() {
        let accounts = Accounts(
            [
                accounts("passwd", "root:x:0:0::/:/bin/sh\nalice:x:2000:2000::/:/bin/sh\nbroken\n", 2),
                accounts("group", "staff:x:2001:alice\n", 2),
                accounts("subuid", "alice:2002:3\n", 1),
                accounts("subgid", "bob:2005:1\n", 1),
            ]
            .concat(),
        );
        let range = OwnerRange { first: 2000, last: 2007 };
        let taken = BTreeSet::from([2006]);
        let mapped = |map: &str| Mapped { users: spans(map), groups: spans(map) };
        let all = mapped("0 0 4294967295\n");
        assert_eq!(range.choose(&taken, &accounts, &all), Some(Owner { uid: 2007, gid: 2007 }));
        assert_eq!(range.choose(&BTreeSet::from([2006, 2007]), &accounts, &all), None);
        assert_eq!(range.choose(&taken, &accounts, &mapped("0 1000 1\n1 100000 2006\n")), None);
        let met = ["alice in /etc/passwd", "staff in /etc/group", "alice in /etc/subuid", "bob in /etc/subgid"];
        assert_eq!(accounts.within(range), met);
        assert!(accounts.within(DEFAULT_RANGE).is_empty());
    }

    // spec: ISO-1
    #[test]
    fn a_number_is_given_out_once_and_not_while_anything_of_its_vm_is_left() {
        use std::os::unix::fs::chown;
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(Layout::below(root.path()));
        fs::create_dir_all(root.path().join("etc/tapvisor")).unwrap();
        // Not the default range: VMs of this machine may run meanwhile.
        let me = nix::unistd::geteuid().as_raw();
        fs::write(store.layout().owners(), "1990000000-1990000001").unwrap();
        let mut owners = Owners::of(&store).unwrap();
        assert_eq!(owners.next("a").unwrap().uid, 1_990_000_000);
        assert_eq!(owners.next("b").unwrap().uid, 1_990_000_001);
        let error = owners.next("default/web").unwrap_err().to_string();
        assert!(error.contains("default/web") && error.contains("1990000000-1990000001"), "{error}");
        if me == 0 {
            let left = store.layout().scratch().join("left");
            fs::create_dir_all(&left).unwrap();
            chown(&left, Some(1_990_000_000), None).unwrap();
            assert_eq!(Owners::of(&store).unwrap().next("c").unwrap().uid, 1_990_000_001);
        }
        fs::write(store.layout().owners(), "7-9").unwrap();
        let error = Owners::of(&store).unwrap_err().to_string();
        assert!(error.contains("etc/tapvisor/uids: \"7-9\""), "{error}");
    }
}
