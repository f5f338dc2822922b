//! The namespace a call names: there, gone, or the plugin's own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use hostnet::NetnsError;

use crate::spec::{Code, Error};

/// A network namespace other than our own, open.
#[derive(Debug)]
pub struct Netns(hostnet::Netns);

impl Netns {
    /// Opens the path: `None` when no network namespace is there (any more).
    ///
    /// # Errors
    /// When the path is the namespace this process is in, and that is not allowed: a stale `/proc/<pid>` path can point
    /// at the host's, and everything after this would change the host. When what is there may not be opened.
    pub(super) fn find(path: OsString, own_allowed: bool) -> Result<Option<Self>, Error> {
        let path = PathBuf::from(path);
        let netns = match hostnet::Netns::open(&path) {
            Ok(netns) => netns,
            Err(NetnsError::Absent(_) | NetnsError::Foreign { .. }) => return Ok(None),
            Err(error) => return Err(Error::from_chain(Code::INVALID_NETNS, &error)),
        };
        let own = hostnet::Netns::current().map_err(|error| Error::from_chain(Code::IO, &error))?;
        if !own_allowed && netns == own {
            let msg = format!("CNI_NETNS: {} is the namespace this plugin runs in", path.display());
            return Err(Error::new(Code::INVALID_NETNS, msg));
        }
        Ok(Some(Self(netns)))
    }

    /// The path, verbatim as `CNI_NETNS` had it.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The namespace, to enter it.
    #[must_use]
    pub fn open(&self) -> &hostnet::Netns {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/proc/self/ns/net";

    #[test]
    fn a_missing_path_a_plain_file_and_another_kind_of_namespace_are_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = file.path().to_str().unwrap();
        for path in ["/nonexistent/netns", file, &format!("{file}/netns"), "/proc/self/ns/mnt"] {
            assert!(Netns::find(path.into(), false).unwrap().is_none(), "{path}");
        }
    }

    #[test]
    fn our_own_namespace_is_refused_unless_allowed() {
        assert_eq!(Netns::find(OWN.into(), false).unwrap_err().code, Code::INVALID_NETNS);
        assert!(Netns::find(OWN.into(), true).unwrap().is_some());
    }
}
