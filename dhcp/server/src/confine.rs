//! Gives up what only the start needed: capabilities, and files other than those served and the lease database.

use std::path::{Path, PathBuf};

use caps::CapSet;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetStatus,
};

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
/// or connected to afterwards, and no capability is left. Returns whether this kernel does all of it.
pub(crate) fn confine(read: &[&Path], write: &Path) -> Result<bool, ConfineError> {
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
    let is_whole = rules.restrict_self()?.ruleset == RulesetStatus::FullyEnforced;
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set)?;
    }
    Ok(is_whole)
}
