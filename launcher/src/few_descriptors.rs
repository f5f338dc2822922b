//! For tests: a process that may open few files.

use std::fs::File;
use std::process::Command;

const INSIDE: &str = "TAPVISOR_TEST_FEW_DESCRIPTORS";

/// Runs the test `name` of `module` again in a process of its own that may have 64 descriptors, and expects it to pass.
/// Returns whether this is that process.
pub(crate) fn inside(module: &str, name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let (_, module) = module.split_once("::").unwrap();
    let run = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("{module}::{name}")])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && output.contains("1 passed"), "{output}");
    print!("{output}");
    false
}

/// Opens files until no more can be opened.
pub(crate) fn all_descriptors() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}
