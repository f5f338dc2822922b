//! Gives up what only the start needed: capabilities, files other than those served and the lease database, and system calls.

use std::path::{Path, PathBuf};

use caps::CapSet;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetStatus,
};

use crate::seccomp;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfineError {
    #[error("cannot give up access to files")]
    Landlock(#[from] landlock::RulesetError),
    #[error("cannot open {path} to keep access to it")]
    Path { path: PathBuf, source: landlock::PathFdError },
    #[error("cannot give up capabilities")]
    Capabilities(#[from] caps::errors::CapsError),
}

/// Confines this process to reading `read` and changing `write`, for all threads it starts from now on. No TCP port can be bound
/// or connected to afterwards, and no capability is left. What the kernel lacks is reported in the log.
///
/// # Errors
/// When a folder is missing, or the kernel refuses what it has.
pub(crate) fn confine(read: &[&Path], write: &Path) -> Result<(), ConfineError> {
    let abi = ABI::V4;
    let beneath = |path: &Path, access| -> Result<_, ConfineError> {
        let folder = PathFd::new(path).map_err(|source| ConfineError::Path { path: path.to_owned(), source })?;
        Ok(PathBeneath::new(folder, access))
    };
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .create()?
        .add_rule(beneath(write, AccessFs::from_all(abi))?)?;
    for path in read {
        rules = rules.add_rule(beneath(path, AccessFs::ReadFile | AccessFs::ReadDir)?)?;
    }
    if rules.restrict_self()?.ruleset != RulesetStatus::FullyEnforced {
        tracing::warn!(
            "this kernel does not have all of Landlock: the server could read other files if it were taken over"
        );
    }
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set)?;
    }
    if let Err(reason) = seccomp::restrict() {
        tracing::warn!(reason, "the server runs without seccomp");
    }
    Ok(())
}
