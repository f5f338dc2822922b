//! `tapvisor console`: this terminal is the guest's serial console until Ctrl-], a signal, or the guest's end.

use std::io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use terms::ObjectKey;

use super::failure::{Exit, Failure};
use super::interrupt::end_on_signal;
use super::{names, open_store, screen, terminal};
use protocol::socket;
use runner::record::{Kind, OnHost};
use runner::store::Store;

/// Ctrl-] as a terminal sends it, the key that telnet and virsh detach with.
const DETACH: u8 = 0x1d;

/// How a console session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// The user typed the detach key; the guest runs on.
    Detached,
    /// The guest, or its launcher, is gone.
    Closed,
}

/// Attaches to a running VM.
pub(crate) fn console(name: &str) -> Result<ExitCode, Failure> {
    let (store, _) = open_store()?;
    let key = names::vm(name)?;
    let status = store.status(&key)?;
    if status.on_host == OnHost::Absent {
        return Err(Failure::new(Exit::Failed, not_running(&key, status.kind)));
    }
    end_on_signal()?;
    attach(&store, &key).map(|_| ExitCode::SUCCESS)
}

fn not_running(key: &ObjectKey, kind: Kind) -> String {
    let remedy = match kind {
        Kind::VirtualMachine => format!("`tapvisor start {key}` starts it"),
        Kind::VirtualMachineInstance => "an instance runs once; `tapvisor run` it again".to_owned(),
    };
    format!("{key} does not run and has no console: {remedy}; `tapvisor logs {key}` shows what it wrote")
}

/// Connects standard input and output, a terminal or not, to a VM's console.
pub(crate) fn attach(store: &Store, key: &ObjectKey) -> Result<Left, Failure> {
    let stream = socket::connect(&store.layout().vm(key).console_socket()).map_err(|error| {
        Failure::new(Exit::Failed, format!("{key} has no console to attach to: is it running? ({error})"))
    })?;
    let is_interactive = terminal::is_interactive();
    if is_interactive {
        terminal::say(&format!(
            "tapvisor: console of {key}; Ctrl-] detaches and the VM stays, every other key is the guest's"
        ));
    }
    let raw = if is_interactive { Some(terminal::Raw::enter()?) } else { None };
    // Into a file or a pipe goes all that the guest writes.
    let screen = io::stdout().is_terminal().then(screen::Console::default);
    let left = relay(stream, is_interactive, screen)?;
    drop(raw);
    if is_interactive {
        terminal::say("");
    }
    Ok(left)
}

fn relay(mut stream: UnixStream, detachable: bool, mut screen: Option<screen::Console>) -> io::Result<Left> {
    let stdin = io::stdin();
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
                read => {
                    let bytes = buffer.get(..read?).unwrap_or_default();
                    match &mut screen {
                        Some(screen) => terminal::write_out(&screen.pass(bytes)),
                        None => terminal::write_out(bytes),
                    }
                }
            }
            // The terminal is gone; the command reports the reason when it ends.
            if terminal::is_lost() {
                return Ok(Left::Detached);
            }
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
        assert_eq!(relay(ours, false, None).unwrap(), Left::Closed);
    }
}
