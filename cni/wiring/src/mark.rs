//! The commit mark: the last thing ADD writes, in the alias of the VM tap, readable by anybody.
//!
//! Shape: `tapvisor/<generation> <16 hex digits of the request's digest>[ <key>=<value>]…`, at most 255 bytes (IFALIASZ less
//! the closing NUL). The generation is that of what a wiring is made of, [`GENERATION`]. The pairs are the plugin's notes: what DEL must put back, what CHECK must know; neither keys nor values hold spaces.
//!
//! ADD also writes a provisional mark, whose digest is all zeros, when it makes the tap and before it changes what the pairs
//! record: an ADD that is killed in between leaves a tap that says what to undo, and that no launcher accepts.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::{Digest, Family};

/// The number of what plugin and launcher must agree on beyond the request: names of devices, what the rules hand to the
/// service tap and what they take from it, which addresses lie on a tap. A change of any of it raises the number; then a
/// launcher refuses what a plugin of another release has wired, instead of waiting for frames that never come.
pub const GENERATION: u32 = 3;

/// The key of the guest's address of a family, which a mark has where the pod interface has several.
#[must_use]
pub const fn address_key(family: Family) -> &'static str {
    match family {
        Family::V4 => "address4",
        Family::V6 => "address6",
    }
}

/// The key of the MTU that a tap was made with, in bytes.
pub const MTU_KEY: &str = "mtu";

const HEAD: &str = "tapvisor/";

/// A committed wiring and what undoing it must restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    generation: u32,
    digest: Digest,
    restore: BTreeMap<String, String>,
}

/// Why an alias is not a mark, or a mark no alias.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// The alias was written by something else.
    #[error("link alias {0:?} is not a tapvisor mark")]
    Foreign(String),
    /// The text would not fit the kernel's 255 bytes.
    #[error("the commit mark needs {0} bytes and an interface alias holds 255")]
    TooLong(usize),
}

impl Mark {
    /// Longest alias in bytes: IFALIASZ of `linux/if.h` less the closing NUL.
    pub const MAX_BYTES: usize = 255;

    /// A mark for a request, with the earlier values that DEL puts back.
    ///
    /// # Errors
    /// When its text is longer than an alias can be.
    pub fn new(digest: Digest, restore: BTreeMap<String, String>) -> Result<Self, MarkError> {
        let mark = Self { generation: GENERATION, digest, restore };
        match mark.to_string().len() {
            bytes if bytes > Self::MAX_BYTES => Err(MarkError::TooLong(bytes)),
            _ => Ok(mark),
        }
    }

    /// The mark of a wiring that is not finished.
    ///
    /// # Errors
    /// As [`Mark::new`].
    pub fn provisional(restore: BTreeMap<String, String>) -> Result<Self, MarkError> {
        Self::new(Digest::NONE, restore)
    }

    /// The same for a wiring that is finished.
    #[must_use]
    pub fn committed(self, digest: Digest) -> Self {
        Self { digest, ..self }
    }

    /// Whether the wiring is finished.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.digest != Digest::NONE
    }

    /// The generation of what was wired; not always ours, for another release may have done it.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The digest of the request that was met.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The guest's address of a family, where the plugin had a choice.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        let address: IpAddr = self.restore.get(address_key(family))?.parse().ok()?;
        (Family::of(address) == family).then_some(address)
    }

    /// The MTU that the tap was made with, in bytes.
    #[must_use]
    pub fn mtu_bytes(&self) -> Option<u32> {
        self.restore.get(MTU_KEY)?.parse().ok()
    }

    /// Earlier values by what they belong to.
    #[must_use]
    pub fn restore(&self) -> &BTreeMap<String, String> {
        &self.restore
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        self.generation.fmt(f)?;
        f.write_str(" ")?;
        self.digest.fmt(f)?;
        let mut parts = self.restore.iter().flat_map(|(key, value)| [" ", key, "=", value]);
        parts.try_for_each(|part| f.write_str(part))
    }
}

impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(alias: &str) -> Result<Self, MarkError> {
        parse(alias).ok_or_else(|| MarkError::Foreign(alias.to_owned()))
    }
}

fn parse(alias: &str) -> Option<Mark> {
    let mut words = alias.split(' ');
    let generation = words.next()?.strip_prefix(HEAD)?;
    let is_plain = generation.bytes().all(|byte| byte.is_ascii_digit()) && !generation.starts_with('0');
    let generation = generation.parse().ok().filter(|_| is_plain)?;
    let digest = words.next()?.parse().ok()?;
    // One by one: to collect would sort first, with code of its own.
    let mut restore = BTreeMap::new();
    for word in words {
        let (key, value) = word.split_once('=')?;
        restore.insert(key.to_owned(), value.to_owned());
    }
    Some(Mark { generation, digest, restore })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let digest: Digest = "00112233445566ff".parse().unwrap();
        let restore = BTreeMap::from([("ip_forward".to_owned(), "0".to_owned())]);
        let mark = Mark::new(digest, restore).unwrap();
        assert_eq!(mark.to_string(), "tapvisor/3 00112233445566ff ip_forward=0");
        assert_eq!(mark.to_string().parse::<Mark>().unwrap(), mark);
    }

    #[test]
    fn the_guests_address_is_of_the_family_that_is_asked_for() {
        let mark: Mark = "tapvisor/2 00112233445566ff address4=fd00::1 address6=fd00::1".parse().unwrap();
        assert_eq!((mark.address(Family::V4), mark.address(Family::V6)), (None, "fd00::1".parse().ok()));
    }

    #[test]
    fn a_provisional_mark_keeps_its_pairs_when_it_is_committed() {
        let restore = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let mark = Mark::provisional(restore.clone()).unwrap();
        assert!(!mark.is_committed() && mark.to_string().starts_with("tapvisor/3 0000000000000000 "));
        let mark = mark.committed("00112233445566ff".parse().unwrap());
        assert!(mark.is_committed() && *mark.restore() == restore);
    }

    #[test]
    fn a_mark_of_another_release_is_read_with_its_generation() {
        let text = "tapvisor/7 00112233445566ff k=v";
        let mark: Mark = text.parse().unwrap();
        assert_eq!((mark.generation(), mark.to_string().as_str()), (7, text));
        assert_ne!(mark.generation(), GENERATION);
    }

    #[test]
    fn other_peoples_aliases_are_foreign() {
        for alias in [
            "",
            "uplink",
            "tapvisor/ 00112233445566ff",
            "tapvisor/+1 00112233445566ff",
            "tapvisor/01 00112233445566ff",
            "tapvisor/99999999999 00112233445566ff",
            "tapvisor/1",
            "tapvisor/1 xyz",
            "tapvisor/1 00112233445566ff word",
        ] {
            assert_eq!(alias.parse::<Mark>(), Err(MarkError::Foreign(alias.to_owned())));
        }
    }

    #[test]
    fn a_mark_that_does_not_fit_is_refused() {
        let restore = BTreeMap::from([("k".to_owned(), "v".repeat(256))]);
        assert_eq!(Mark::new("00112233445566ff".parse().unwrap(), restore), Err(MarkError::TooLong(286)));
    }
}
