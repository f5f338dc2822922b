//! `tapvisor logs`: what the guest wrote to its serial console.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::failure::{Exit, Failure};
use super::screen::Plain;
use super::{names, open_store_to_read, terminal};
use explain::size;
use runner::files;
use runner::record::OnHost;
use runner::store::StoreError;

/// Prints the log, and with `follow` what is added to it until the VM has ended; `raw` with the guest's control sequences.
pub(crate) fn logs(name: &str, follow: bool, raw: bool) -> Result<ExitCode, Failure> {
    const PAUSE: Duration = Duration::from_millis(100);
    let store = open_store_to_read()?;
    let key = names::vm(name)?;
    store.status(&key)?;
    let path = store.layout().vm(&key).console_log();
    let mut log = match files::open_regular(&path) {
        Err(error) if error.is_absent() && !follow => return Ok(ExitCode::SUCCESS),
        Err(error) if error.is_absent() => None,
        file => Some(file?),
    };
    let mut plain = (!raw).then(Plain::default);
    if log.is_some() {
        print_older(&path, &mut plain)?;
    }
    loop {
        // The state is read before the log: what is written before the end is then never missed.
        let has_ended = match store.status(&key) {
            Ok(status) => status.on_host == OnHost::Absent,
            Err(StoreError::NotFound(_)) => true,
            Err(error) => return Err(error.into()),
        };
        print(&mut log, &path, &mut plain)?;
        if !follow || has_ended || terminal::is_lost() {
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(next) = turned_over(log.as_ref(), &path) {
            // What came between the last look and the turn.
            print(&mut log, &path, &mut plain)?;
            log = Some(next);
        }
        std::thread::sleep(PAUSE);
    }
}

/// What the launcher has turned over to make room: it keeps one such part, and earlier ones are gone.
fn print_older(path: &Path, plain: &mut Option<Plain>) -> Result<(), Failure> {
    let mut older = path.as_os_str().to_owned();
    older.push(".1");
    let mut log = match files::open_regular(Path::new(&older)) {
        Err(error) if error.is_absent() => return Ok(()),
        file => Some(file?),
    };
    let bytes = log.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
    terminal::say(&format!(
        "tapvisor: the log was rotated: its last {} before the present part follow, older lines are gone",
        size(bytes)
    ));
    print(&mut log, Path::new(&older), plain)
}

fn print(log: &mut Option<File>, path: &Path, plain: &mut Option<Plain>) -> Result<(), Failure> {
    let Some(log) = log else { return Ok(()) };
    let mut buffer = vec![0; 64 << 10];
    while !terminal::is_lost() {
        let read = match log.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", path.display())))?,
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        match plain {
            Some(plain) => terminal::write_out(&plain.text(bytes)),
            None => terminal::write_out(bytes),
        }
    }
    Ok(())
}

/// The new log that the launcher has begun under the same name, at the limit of the one that is read.
fn turned_over(log: Option<&File>, path: &Path) -> Option<File> {
    let there = files::open_regular(path).ok()?;
    let id = |file: &File| file.metadata().map(|metadata| metadata.ino()).ok();
    (log.and_then(id) != id(&there)).then_some(there)
}
