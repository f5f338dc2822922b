//! `tapvisor console`: this terminal is the guest's serial console until Ctrl-], a signal, or the guest's end.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use terms::ObjectKey;

use super::failure::{Exit, Failure};
use super::interrupt::end_on_signal;
use super::{names, open_store, terminal};
use protocol::socket;
use runner::store::Store;

/// Ctrl-] as a terminal sends it, the key that telnet and virsh detach with.
const DETACH: u8 = 0x1d;

/// How a console session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// The user detached.
    Detached,
    /// The guest, or its launcher, is gone.
    Closed,
}

/// Attaches to a running VM.
pub(crate) fn console(name: &str) -> Result<ExitCode, Failure> {
    let (store, _) = open_store()?;
    let key = names::vm(name)?;
    store.status(&key)?;
    end_on_signal()?;
    attach(&store, &key).map(|_| ExitCode::SUCCESS)
}

/// Connects this terminal, or whatever stands in its place, to a VM's console.
pub(crate) fn attach(store: &Store, key: &ObjectKey) -> Result<Left, Failure> {
    let stream = socket::connect(&store.layout().vm(key).console_socket()).map_err(|error| {
        Failure::new(Exit::Failed, format!("{key} has no console to attach to: is it running? ({error})"))
    })?;
    let is_interactive = terminal::is_interactive();
    if is_interactive {
        terminal::say(&format!("tapvisor: console of {key}; Ctrl-] detaches"));
    }
    let raw = if is_interactive { Some(terminal::Raw::enter()?) } else { None };
    let left = relay(stream, is_interactive)?;
    drop(raw);
    if is_interactive {
        terminal::say("");
    }
    Ok(left)
}

fn relay(mut stream: UnixStream, detachable: bool) -> io::Result<Left> {
    let (stdin, mut stdout) = (io::stdin(), io::stdout());
    let (mut buffer, mut stdin_open) = ([0; 4096], true);
    loop {
        let watch = |wanted: bool| if wanted { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut ready = [PollFd::new(stream.as_fd(), PollFlags::POLLIN), PollFd::new(stdin.as_fd(), watch(stdin_open))];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            result => result?,
        };
        let [from_guest, from_user] = ready.map(|fd| fd.any().unwrap_or(false));
        if from_guest {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(Left::Closed),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Left::Closed),
                read => stdout.write_all(buffer.get(..read?).unwrap_or_default())?,
            }
            stdout.flush()?;
        }
        if from_user && stdin_open {
            let typed = nix::unistd::read(&stdin, &mut buffer)?;
            stdin_open = typed > 0;
            let typed = buffer.get(..typed).unwrap_or_default();
            let (typed, detach) = until_detach(typed, detachable);
            match stream.write_all(typed) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Left::Closed),
                result => result?,
            }
            if detach {
                return Ok(Left::Detached);
            }
        }
    }
}

/// What was typed before the key that detaches, and whether that was among it.
fn until_detach(typed: &[u8], detachable: bool) -> (&[u8], bool) {
    match typed.iter().position(|byte| detachable && *byte == DETACH) {
        Some(end) => (typed.get(..end).unwrap_or_default(), true),
        None => (typed, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_before_detaching_still_reaches_the_guest() {
        assert_eq!(until_detach(b"ls\x1dexit", true), (&b"ls"[..], true));
        assert_eq!(until_detach(b"ls\r", true), (&b"ls\r"[..], false));
        assert_eq!(until_detach(b"a\x1db", false), (&b"a\x1db"[..], false), "a file may hold any byte");
    }

    #[test]
    fn a_console_that_closes_ends_the_session() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(relay(ours, false).unwrap(), Left::Closed);
    }
}
