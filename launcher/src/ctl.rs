//! `tapvisor-launcher ctl`: what the control and console sockets offer, by standard input and output, for `kubectl exec`.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocol::agent::Execute;
use protocol::chain::chain;
use protocol::control::{Answer, Link, Report, Request, State, Verb};
use protocol::socket;

use crate::console::RawTerminal;

/// The help text of `ctl`, one command per line.
pub const USAGE: &str = "\
Usage: tapvisor-launcher ctl [--dir DIR] COMMAND

Asks the launcher whose folder is DIR (/run/tapvisor if absent), as root or as the launcher's user.

  status          print what the machine is and does, as JSON
  counters        print what the machine has used and each NIC's traffic, as JSON
  probe           succeed once the machine runs or is paused: a pod's startup probe
  events          print the status and then every event until the machine ends, a line of JSON each
  powerdown       press the power button once
  stop [SECONDS]  press it and end the machine by force after its grace period, or SECONDS
  pause, unpause  halt the processors, or let them go on
  reset           reset the machine
  reboot          reboot the guest by its agent; without one press the power button and reset it when it has shut down
  freeze [SECONDS]  freeze the guest's file systems by its agent, for SECONDS if given
  unfreeze        thaw them
  link NIC up|down  give the guest's link of a NIC a carrier, or take it
  agent-ping      succeed if the guest's agent answers
  agent-info      print what the guest's agent says, as JSON
  agent-execute SECONDS COMMAND [ARGUMENT...]
                  execute a program in the guest by its agent, for SECONDS at most, with the same output and exit code
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
#[derive(Debug, Clone, PartialEq)]
enum Command {
    /// One request; its answer is printed unless it is empty.
    Ask(Request),
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
        Command::Ask(request) => ask(&control, &request).and_then(|report| print(&report)),
        Command::Probe => ask(&control, &request(Verb::Status)).and_then(|report| expect_running(&report)),
        Command::Events => events(&control).map(|()| 0),
        Command::Console => console(&dir.join("console.sock")).map(|()| 0),
    };
    match done {
        Ok(code) => ExitCode::from(code),
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
    let simple = |verb| Command::Ask(request(verb));
    let command = match word.to_str()? {
        "status" => simple(Verb::Status),
        "counters" => simple(Verb::Counters),
        "powerdown" => simple(Verb::Powerdown),
        "stop" => {
            words.next_if(|_| number.is_some());
            Command::Ask(Request { grace_seconds: number, ..request(Verb::Stop) })
        }
        "pause" => simple(Verb::Pause),
        "unpause" => simple(Verb::Resume),
        "reset" => simple(Verb::Reset),
        "reboot" => simple(Verb::Reboot),
        "freeze" => {
            words.next_if(|_| number.is_some());
            Command::Ask(Request { unfreeze_seconds: number, ..request(Verb::Freeze) })
        }
        "unfreeze" => simple(Verb::Unfreeze),
        "link" => {
            let nic = words.next()?.to_str()?.to_owned();
            let up = match words.next()?.to_str()? {
                "up" => true,
                "down" => false,
                _ => return None,
            };
            Command::Ask(Request { link: Some(Link { nic, up }), ..request(Verb::SetLink) })
        }
        "agent-ping" => simple(Verb::AgentPing),
        "agent-info" => simple(Verb::AgentInfo),
        "agent-execute" => {
            words.next();
            let command: Option<Vec<_>> = words.by_ref().map(|word| word.to_str().map(str::to_owned)).collect();
            let command = command.filter(|command| !command.is_empty())?;
            let execute = Some(Execute { command, timeout_seconds: number? });
            Command::Ask(Request { execute, ..request(Verb::AgentExecute) })
        }
        "probe" => Command::Probe,
        "events" => Command::Events,
        "console" => Command::Console,
        _ => return None,
    };
    words.next().is_none().then_some((dir, command))
}

fn request(verb: Verb) -> Request {
    Request::new(1, verb)
}

fn ask(control: &Path, request: &Request) -> io::Result<Report> {
    let mut stream = socket::connect_to_peer(control)?;
    let executes = request.execute.as_ref().map_or(0, |execute| execute.timeout_seconds);
    stream.set_read_timeout(Some(PATIENCE.saturating_add(Duration::from_secs(executes))))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&request.to_line())?;
    let mut line = Vec::new();
    BufReader::new(stream).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    match serde_json::from_slice(&line)? {
        Answer::Ok { ok, .. } => Ok(ok),
        Answer::Error { error, .. } => Err(io::Error::other(error)),
    }
}

/// Prints a report; returns the exit code.
fn print(report: &Report) -> io::Result<u8> {
    let mut line = match report {
        Report::Status(status) => serde_json::to_vec(status)?,
        Report::Counters { counters } => serde_json::to_vec(counters)?,
        Report::Guest { guest } => serde_json::to_vec(guest)?,
        Report::Executed { executed } => {
            io::stdout().write_all(executed.output.as_bytes())?;
            return Ok(u8::try_from(executed.exit_code).unwrap_or(u8::MAX));
        }
        Report::Done {} => return Ok(0),
    };
    line.push(b'\n');
    io::stdout().write_all(&line).map(|()| 0)
}

fn expect_running(report: &Report) -> io::Result<u8> {
    match report {
        Report::Status(status) if status.state != State::Starting => Ok(0),
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
        let pod = |request| Some((PathBuf::from(DIR), Command::Ask(request)));
        assert_eq!(parsed("status"), pod(request(Verb::Status)));
        assert_eq!(parsed("counters"), pod(request(Verb::Counters)));
        assert_eq!(parsed("unpause"), pod(request(Verb::Resume)));
        assert_eq!(parsed("stop"), pod(request(Verb::Stop)));
        assert_eq!(parsed("stop 5"), pod(Request { grace_seconds: Some(5), ..request(Verb::Stop) }));
        assert_eq!(parsed("freeze 9"), pod(Request { unfreeze_seconds: Some(9), ..request(Verb::Freeze) }));
        let link = Some(Link { nic: "blue".to_owned(), up: false });
        assert_eq!(parsed("link blue down"), pod(Request { link, ..request(Verb::SetLink) }));
        let execute = Execute { command: vec!["cat".to_owned(), "--".to_owned()], timeout_seconds: 3 };
        let execute = Request { execute: Some(execute), ..request(Verb::AgentExecute) };
        assert_eq!(parsed("agent-execute 3 cat --"), pod(execute));
        assert_eq!(parsed("--dir /d console"), Some(("/d".into(), Command::Console)));
        for wrong in [
            "",
            "explode",
            "--dir",
            "--dir /d",
            "status now",
            "stop soon",
            "stop 5 6",
            "console --dir /d",
            "agent-execute",
            "agent-execute 3",
            "agent-execute cat",
            "agent-ping now",
            "link blue",
            "link blue off",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
        for word in [
            "status",
            "probe",
            "events",
            "stop",
            "pause",
            "reset",
            "console",
            "freeze",
            "link",
            "agent-ping",
            "agent-execute",
        ] {
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
        let starting = ask(&path, &request(Verb::Status)).unwrap();
        assert!(expect_running(&starting).unwrap_err().to_string().contains("does not run yet"));
        let stop = Request { grace_seconds: Some(3), ..request(Verb::Stop) };
        assert_eq!(ask(&path, &stop).unwrap_err().to_string(), "paused already");
        let lines = launcher.join().unwrap();
        assert_eq!(lines[1], "{\"id\":1,\"verb\":\"stop\",\"graceSeconds\":3}\n");
        assert!(expect_running(&Report::Status(Box::new(protocol::control::Status::new(State::Paused)))).is_ok());
    }
}
