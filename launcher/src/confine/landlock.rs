//! Landlock rules: which files a process may open from now on, whatever its user may.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

/// The newest rules that we know what they do; a kernel that has fewer enforces those it has.
const KNOWN: ABI = ABI::V6;

/// Where distributions keep programs, libraries and firmware, and what loading them reads.
const PROGRAMS: [&str; 11] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/qemu",
];

/// What may be opened. No rule covers what is open already. TCP and abstract sockets of others are refused to all.
#[derive(Debug, Clone, Default)]
pub struct Access<'a> {
    /// Read and executed, with all below.
    pub execute: Vec<PathBuf>,
    /// Files to be read, and folders with all below.
    pub read: Vec<&'a Path>,
    /// Read, written, made and removed below; nothing there is executed.
    pub write: Vec<&'a Path>,
    /// Opened for reading and writing, with ioctl.
    pub devices: Vec<&'a Path>,
    /// Whether it may signal processes that these rules do not bind.
    pub may_signal: bool,
}

/// The folders that a program of the system needs, with its own.
#[must_use]
pub fn programs(program: &Path) -> Vec<PathBuf> {
    let own = program.parent().map(Path::to_path_buf);
    PROGRAMS.into_iter().map(PathBuf::from).chain(own).collect()
}

/// The rules as a descriptor for landlock_restrict_self(2); `None` where the kernel has no Landlock.
///
/// # Errors
/// When the kernel has it and refuses, in words.
pub fn ruleset(access: &Access<'_>) -> Result<Option<OwnedFd>, String> {
    created(access).map(Option::<OwnedFd>::from).map_err(|error| protocol::chain::chain(&error))
}

/// Binds this thread, and all threads and programs that it starts from now on.
///
/// # Errors
/// When the kernel does not have Landlock, or refuses, in words.
pub fn restrict_thread(access: &Access<'_>) -> Result<(), String> {
    let restricted = created(access).and_then(RulesetCreated::restrict_self);
    match restricted.map_err(|error| protocol::chain::chain(&error))?.ruleset {
        RulesetStatus::NotEnforced => Err("this kernel does not have it".to_owned()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

fn created(access: &Access<'_>) -> Result<RulesetCreated, RulesetError> {
    let all = AccessFs::from_all(KNOWN);
    let execute = AccessFs::from_read(KNOWN);
    let read = execute & !AccessFs::Execute;
    let write = all & !(AccessFs::Execute | AccessFs::IoctlDev | AccessFs::MakeChar | AccessFs::MakeBlock);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut scope: BitFlags<Scope> = Scope::AbstractUnixSocket.into();
    if !access.may_signal {
        scope |= Scope::Signal;
    }
    let ruleset = Ruleset::default().handle_access(all)?.handle_access(AccessNet::from_all(KNOWN))?.scope(scope)?;
    let mut created = ruleset.create()?;
    let paths = access.execute.iter().map(|path| (path.as_path(), execute));
    let paths = paths.chain(access.read.iter().map(|path| (*path, read)));
    let paths = paths.chain(access.write.iter().map(|path| (*path, write)));
    for (path, rights) in paths.chain(access.devices.iter().map(|path| (*path, device))) {
        // What is not there cannot be opened.
        let Ok(opened) = PathFd::new(path) else { continue };
        let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(KNOWN) };
        created = created.add_rule(PathBeneath::new(opened, rights))?;
    }
    Ok(created)
}
