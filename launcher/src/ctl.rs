//! `tapvisor-launcher ctl`: what the control and console sockets offer, by standard input and output, for `kubectl exec`.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::chain::chain;
use protocol::control::{Answer, Report, Request, State, Verb};
use protocol::socket;

use crate::console::RawTerminal;

/// How `ctl` is used.
pub const USAGE: &str = "\
Usage: tapvisor-launcher ctl [--dir DIR] COMMAND

Asks the launcher whose folder is DIR (/run/tapvisor if absent), as root or as the launcher's user.

  status          print what the machine is and does, as JSON
  probe           succeed once the machine runs or is paused: a pod's startup probe
  events          print the status and then every event until the machine ends, a line of JSON each
  powerdown       press the power button once
  stop [SECONDS]  press it and end the machine by force after its grace period, or SECONDS
  pause, unpause  halt the processors, or let them go on
  reset           reset the machine
  reboot          press the power button once and reset the machine when the guest has shut down
  console         the serial console, on standard input and output; a read-only one without standard input
";

/// Where a launcher pod has its folder.
const DIR: &str = "/run/tapvisor";
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer that is read.
const MAX_LINE_BYTES: u64 = 64 << 10;
/// How long a console waits for more of the guest after its input has ended.
const SILENCE: Duration = Duration::from_secs(2);

/// What `ctl` was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// One request; its answer is printed if it is a status.
    Ask(Verb, Option<u64>),
    Probe,
    Events,
    Console,
}

/// Executes `ctl` with these arguments. The exit code is 1 when the launcher refuses or none answers, 2 for wrong arguments.
#[must_use]
pub fn ctl(arguments: &[OsString]) -> ExitCode {
    let Some((dir, command)) = parse(arguments) else {
        return fail(USAGE, 2);
    };
    let control = dir.join("control.sock");
    let done = match command {
        Command::Ask(verb, grace) => ask(&control, verb, grace).and_then(|report| print(&report)),
        Command::Probe => ask(&control, Verb::Status, None).and_then(|report| expect_running(&report)),
        Command::Events => events(&control),
        Command::Console => console(&dir.join("console.sock")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("tapvisor-launcher: {}: {}\n", dir.display(), chain(&error)), 1),
    }
}

fn parse(arguments: &[OsString]) -> Option<(PathBuf, Command)> {
    let mut words = arguments.iter().map(OsString::as_os_str).peekable();
    let mut dir = PathBuf::from(DIR);
    if words.next_if_eq(&OsStr::new("--dir")).is_some() {
        dir = words.next()?.into();
    }
    let word = words.next()?;
    let number = words.peek().and_then(|word| word.to_str()?.parse().ok());
    let command = match word.to_str()? {
        "status" => Command::Ask(Verb::Status, None),
        "powerdown" => Command::Ask(Verb::Powerdown, None),
        "stop" => {
            words.next_if(|_| number.is_some());
            Command::Ask(Verb::Stop, number)
        }
        "pause" => Command::Ask(Verb::Pause, None),
        "unpause" => Command::Ask(Verb::Resume, None),
        "reset" => Command::Ask(Verb::Reset, None),
        "reboot" => Command::Ask(Verb::Reboot, None),
        "probe" => Command::Probe,
        "events" => Command::Events,
        "console" => Command::Console,
        _ => return None,
    };
    words.next().is_none().then_some((dir, command))
}

fn ask(control: &Path, verb: Verb, grace_seconds: Option<u64>) -> io::Result<Report> {
    let mut stream = socket::connect_to_peer(control)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&Request { grace_seconds, ..Request::new(1, verb) }.to_line())?;
    let mut line = Vec::new();
    BufReader::new(stream).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    match serde_json::from_slice(&line)? {
        Answer::Ok { ok, .. } => Ok(ok),
        Answer::Error { error, .. } => Err(io::Error::other(error)),
    }
}

fn print(report: &Report) -> io::Result<()> {
    let Report::Status(status) = report else { return Ok(()) };
    let mut line = serde_json::to_vec(status)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}

fn expect_running(report: &Report) -> io::Result<()> {
    match report {
        Report::Status(status) if status.state != State::Starting => Ok(()),
        _ => Err(io::Error::other("the machine does not run yet")),
    }
}

fn events(control: &Path) -> io::Result<()> {
    let mut stream = socket::connect_to_peer(control)?;
    stream.write_all(&Request::new(1, Verb::Events).to_line())?;
    io::copy(&mut stream, &mut io::stdout()).map(drop)
}

/// Ends with the console, or when standard input has ended after some input and the guest is silent. Input that was never there
/// does not count: it leaves a console that is only read.
fn console(path: &Path) -> io::Result<()> {
    let mut stream = socket::connect_to_peer(path)?;
    let _raw = io::stdin().is_terminal().then(RawTerminal::set).transpose()?;
    let typing = stream.try_clone()?;
    static IS_TYPED: AtomicBool = AtomicBool::new(false);
    std::thread::Builder::new().name("stdin".into()).spawn(move || type_all(typing, &IS_TYPED))?;
    let mut chunk = [0; 4 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                io::stdout().write_all(chunk.get(..read).unwrap_or_default()).and_then(|()| io::stdout().flush())?
            }
            Err(error) if is_timeout(&error) && IS_TYPED.load(Ordering::Acquire) => return Ok(()),
            Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Copies standard input to the guest; afterwards reads time out, and `is_typed` says that there was some.
fn type_all(mut to: UnixStream, is_typed: &AtomicBool) {
    let typed = io::copy(&mut io::stdin(), &mut to);
    if !matches!(typed, Ok(0)) {
        is_typed.store(true, Ordering::Release);
        // The two descriptors are one socket. A read that already waits has no limit: the guest's echo ends it.
        drop(to.set_read_timeout(Some(SILENCE)));
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn fail(text: &str, code: u8) -> ExitCode {
    // There is no other place for it.
    drop(io::stderr().write_all(text.as_bytes()));
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<(PathBuf, Command)> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    // spec: LAUNCH-9
    #[test]
    fn commands_are_read_and_everything_else_is_refused() {
        let pod = |command| Some((PathBuf::from(DIR), command));
        assert_eq!(parsed("status"), pod(Command::Ask(Verb::Status, None)));
        assert_eq!(parsed("unpause"), pod(Command::Ask(Verb::Resume, None)));
        assert_eq!(parsed("stop"), pod(Command::Ask(Verb::Stop, None)));
        assert_eq!(parsed("stop 5"), pod(Command::Ask(Verb::Stop, Some(5))));
        assert_eq!(parsed("--dir /d console"), Some(("/d".into(), Command::Console)));
        for wrong in ["", "explode", "--dir", "--dir /d", "status now", "stop soon", "stop 5 6", "console --dir /d"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
        for word in ["status", "probe", "events", "powerdown", "stop", "pause", "reset", "console"] {
            assert!(USAGE.contains(&format!("\n  {word}")), "{word}");
        }
    }

    // spec: LAUNCH-9
    #[test]
    fn a_request_is_answered_by_a_launcher_of_the_same_user_in_any_folder() {
        let folder = tempfile::tempdir().unwrap();
        if nix::unistd::geteuid().is_root() {
            // As kubelet's emptyDir: the folder is another user's.
            std::os::unix::fs::chown(folder.path(), Some(65534), None).unwrap();
        }
        let path = folder.path().join("control.sock");
        let listener = socket::listen(&path).unwrap();
        let launcher = std::thread::spawn(move || {
            let answers = ["{\"id\":1,\"ok\":{\"state\":\"starting\"}}\n", "{\"id\":1,\"error\":\"paused already\"}\n"];
            answers.map(|answer| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                line
            })
        });
        let starting = ask(&path, Verb::Status, None).unwrap();
        assert!(expect_running(&starting).unwrap_err().to_string().contains("does not run yet"));
        assert_eq!(ask(&path, Verb::Stop, Some(3)).unwrap_err().to_string(), "paused already");
        let lines = launcher.join().unwrap();
        assert_eq!(lines[1], "{\"id\":1,\"verb\":\"stop\",\"graceSeconds\":3}\n");
        assert!(expect_running(&Report::Status(Box::new(protocol::control::Status::new(State::Paused)))).is_ok());
    }
}
