//! `tapvisor logs`: what the guest wrote to its serial console.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::failure::{Exit, Failure};
use super::{names, open_store};
use runner::files;
use runner::record::OnHost;
use runner::store::StoreError;

/// Prints the log, and with `follow` what is added to it until the VM has ended.
pub(crate) fn logs(name: &str, follow: bool) -> Result<ExitCode, Failure> {
    const PAUSE: Duration = Duration::from_millis(100);
    let (store, _) = open_store()?;
    let key = names::vm(name)?;
    store.status(&key)?;
    let path = store.layout().vm(&key).console_log();
    let mut log = match files::open_regular(&path) {
        Err(error) if error.is_absent() && !follow => return Ok(ExitCode::SUCCESS),
        Err(error) if error.is_absent() => None,
        file => Some(file?),
    };
    loop {
        // The state is read before the log: what is written before the end is then never missed.
        let has_ended = match store.status(&key) {
            Ok(status) => status.on_host == OnHost::Absent,
            Err(StoreError::NotFound(_)) => true,
            Err(error) => return Err(error.into()),
        };
        match print(&mut log) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            result => result.map_err(|error| Failure::new(Exit::Failed, format!("{}: {error}", path.display())))?,
        }
        if !follow || has_ended {
            return Ok(ExitCode::SUCCESS);
        }
        reopen_if_turned_over(&mut log, &path);
        std::thread::sleep(PAUSE);
    }
}

fn print(log: &mut Option<File>) -> io::Result<()> {
    let Some(log) = log else { return Ok(()) };
    let mut out = io::stdout().lock();
    io::copy(log, &mut out)?;
    out.flush()
}

/// At its limit the launcher begins a new log under the same name.
fn reopen_if_turned_over(log: &mut Option<File>, path: &Path) {
    let Ok(there) = files::open_regular(path) else { return };
    let id = |file: &File| file.metadata().map(|metadata| metadata.ino()).ok();
    if log.as_ref().and_then(id) != id(&there) {
        *log = Some(there);
    }
}
