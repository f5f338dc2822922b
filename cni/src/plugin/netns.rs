//! The namespace a call names: there, gone, or the plugin's own.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::spec::{Code, Error};

const OWN: &str = "/proc/self/ns/net";

/// A path that was a namespace other than our own when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Netns(PathBuf);

impl Netns {
    /// Looks at the path: `None` when no namespace is there (any more).
    ///
    /// # Errors
    /// When the path is the namespace this process is in, and that is not allowed: a stale `/proc/<pid>` path can point
    /// at the host's, and everything after this would change the host.
    pub(super) fn look(path: OsString, own_allowed: bool) -> Result<Option<Self>, Error> {
        let path = PathBuf::from(path);
        let Ok(found) = std::fs::metadata(&path) else { return Ok(None) };
        if statfs(&path).is_ok_and(|fs| fs.filesystem_type() != NSFS_MAGIC) {
            return Ok(None);
        }
        let own = std::fs::metadata(OWN).map_err(|error| Error::new(Code::IO, format!("{OWN}: {error}")))?;
        if !own_allowed && (found.dev(), found.ino()) == (own.dev(), own.ino()) {
            let msg = format!("CNI_NETNS: {} is the namespace this plugin runs in", path.display());
            return Err(Error::new(Code::INVALID_NETNS, msg));
        }
        Ok(Some(Self(path)))
    }

    /// The path, verbatim as `CNI_NETNS` had it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_path_and_a_plain_file_are_no_namespace() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Netns::look("/nonexistent/netns".into(), false), Ok(None));
        assert_eq!(Netns::look(file.path().into(), false), Ok(None));
    }

    #[test]
    fn our_own_namespace_is_refused_unless_allowed() {
        assert_eq!(Netns::look(OWN.into(), false).unwrap_err().code, Code::INVALID_NETNS);
        assert!(Netns::look(OWN.into(), true).unwrap().is_some());
    }
}
