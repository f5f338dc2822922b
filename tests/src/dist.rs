//! Where the programs under test and what the set-up prepared are found.

use std::path::PathBuf;

/// The root of the source tree.
///
/// # Panics
/// Never: this package lies one folder below the root.
#[must_use]
pub fn workspace() -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_path_buf()
}

/// A program as `make build` leaves it: `tapvisor`, `tapvisor-launcher`, `tapvisor-cni`.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn dist_file(name: &str) -> PathBuf {
    existing(dist_path(name), "make build")
}

/// Where that program will be once it is built.
pub(crate) fn dist_path(name: &str) -> PathBuf {
    std::env::var_os("TAPVISOR_DIST").map_or_else(|| workspace().join("target/dist"), PathBuf::from).join(name)
}

/// A file that `make setup` prepared: `guest/vmlinuz`, `guest/initrd.img`, `go/cnitool/cnitool`, `go/plugins/bridge`, …
///
/// # Panics
/// When it was not prepared.
#[must_use]
pub fn cache_file(name: &str) -> PathBuf {
    existing(cache_path(name).expect("HOME is set"), "make setup")
}

/// Where that file will be once it is prepared; `None` for a user without a home.
pub(crate) fn cache_path(name: &str) -> Option<PathBuf> {
    let user = || std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let told = std::env::var_os("TAPVISOR_CACHE").map(PathBuf::from);
    let folder = told.or_else(|| user().or_else(home).map(|cache| cache.join("tapvisor")))?;
    Some(folder.join(name))
}

fn existing(path: PathBuf, remedy: &str) -> PathBuf {
    assert!(path.exists(), "{} is missing: {remedy}", path.display());
    path
}
