//! `tapvisor-copier`: takes disk images and kernels out of a container image, inside that image.
//!
//! Guarantees: a file is complete under its name or not there; parts that hold only zeros take no room.

mod copy;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "tapvisor-copier install FILE: puts this program there\n\
                     tapvisor-copier copy FOLDER PATH...: copies files, and the files in folders, to their paths below FOLDER";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let done = match &arguments[..] {
        [verb, file] if verb == "install" => copy::file(Path::new("/proc/self/exe"), Path::new(file), 0o555),
        [verb, folder, paths @ ..] if verb == "copy" && !paths.is_empty() => {
            paths.iter().try_for_each(|path| copy::below(Path::new(folder), Path::new(path)))
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
