//! The `tapvisor` command line: one file for each group of commands, exit codes in `failure`.

mod arguments;
mod completion;
mod console;
mod doctor;
mod explain;
mod failure;
mod image;
mod interrupt;
mod lifecycle;
mod logs;
mod names;
mod net;
mod netboot;
mod plugins;
mod progress;
mod ps;
mod run;
mod screen;
mod services;
mod supervisor;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use nix::sys::stat::{Mode, umask};

use self::arguments::{Arguments, Command, Supervise};
use self::failure::{Exit, Failure};
use protocol::chain::chain;
use runner::launcher::launcher_path;
use runner::layout::Layout;
use runner::reap::{Reaped, in_need_of_repair, reap};
use runner::store::Store;
use runner::supervisor_log::SupervisorLog;

/// Reads the command line and does what it says.
fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8);
            // Help and version go to stdout and are no failure; nor is a closed pipe.
            return match error.print() {
                Err(error) if code == 0 && error.kind() != std::io::ErrorKind::BrokenPipe => {
                    Failure::new(Exit::Failed, format!("cannot write to standard output: {error}")).report()
                }
                _ => ExitCode::from(code),
            };
        }
    };
    if !matches!(arguments.command, Command::Launch { .. }) {
        let_the_launcher_read();
    }
    // The launcher and the supervisor are processes of their own and end in their own words.
    match arguments.command {
        Command::Launch { arguments } => launch(&arguments).report(),
        Command::Supervise(supervise) => {
            go_by_name();
            self::supervise(&supervise)
        }
        command => {
            let done = dispatch(command).and_then(|code| terminal::finish().map(|()| code));
            done.unwrap_or_else(|failure| failure.report())
        }
    }
}

/// Executes the VM process; returns only when that failed.
fn launch(arguments: &[OsString]) -> Failure {
    use std::os::unix::process::CommandExt as _;
    let program = launcher_path();
    let error = std::process::Command::new(&program).arg("launch").args(arguments).exec();
    Failure::new(Exit::HostLacks, format!("cannot execute {}: {error}", program.display()))
}

/// Sets a umask that lets the launcher's user read the folders and images made for it, whatever the caller's umask is.
/// Private files are made with a mode of their own.
fn let_the_launcher_read() {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
}

/// A supervisor logs to its VM's log; without one, to the standard error that its starter gave it.
fn supervise(arguments: &Supervise) -> ExitCode {
    let key = match names::vm(&arguments.name) {
        Ok(key) => key,
        Err(failure) => return failure.report(),
    };
    let log = SupervisorLog::open(&Layout::default().vm(&key).supervisor_log()).ok();
    match log.clone() {
        Some(log) => log_to("info", log),
        None => log_to_stderr("info"),
    }
    runner::supervise::supervise(&key, log, arguments.lock_fd, arguments.starter_fd)
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    log_to_stderr("warn");
    match command {
        Command::Run(run) => run::run(&run),
        Command::Ps(ps) => ps::ps(&ps),
        Command::Console { name } => console::console(&name),
        Command::Logs { name, follow, raw } => logs::logs(&name, follow, raw),
        Command::Stop(stop) => lifecycle::stop(&stop),
        Command::Start { name } => lifecycle::start(&name),
        Command::Restart { name, grace } => lifecycle::restart(&name, grace),
        Command::Pause { name } => lifecycle::pause(&name),
        Command::Unpause { name } => lifecycle::unpause(&name),
        Command::Services { output } => services::list(output),
        Command::Net(arguments::Net::Ls { output }) => net::ls(output),
        Command::Net(arguments::Net::Inspect { name, output }) => net::inspect(&name, output),
        Command::Rm(rm) => lifecycle::rm(&rm),
        Command::Image(command) => image::image(&command),
        Command::Netboot(netboot) => netboot::netboot(&netboot),
        Command::Explain(explain) => explain::explain(&explain),
        Command::Doctor(doctor) => doctor::doctor(&doctor),
        Command::Completion { shell } => {
            completion::completion(shell);
            Ok(ExitCode::SUCCESS)
        }
        Command::Names => completion::all_names(),
        Command::Version => {
            terminal::line(&format!("tapvisor {}", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
        Command::Launch { .. } | Command::Supervise(_) => Ok(ExitCode::SUCCESS),
    }
}

/// The store of this host, after what killed supervisors left was removed.
fn open_store() -> Result<(Store, Vec<Reaped>), Failure> {
    expect_root()?;
    let store = Store::new(Layout::default());
    let reaped = reap(&store)?;
    for vm in &reaped {
        let why = if vm.was_killed { "its supervisor was killed" } else { "it has ended" };
        match &vm.left {
            None => terminal::say(&format!("tapvisor: {}: {why}; what was left was removed", vm.key)),
            Some(left) => terminal::say(&format!(
                "tapvisor: {}: {why}, and not everything could be removed: {left}; `tapvisor rm --force {}` removes it",
                vm.key, vm.key
            )),
        }
    }
    Ok((store, reaped))
}

/// The store of this host for commands that change nothing: what needs repair is reported.
fn open_store_to_read() -> Result<Store, Failure> {
    expect_root()?;
    let store = Store::new(Layout::default());
    for status in in_need_of_repair(&store)? {
        let (namespace, name) = (&status.namespace, &status.name);
        let why = match &status.left {
            Some(left) => format!("not everything could be removed when it ended: {left}"),
            None if status.is_final() => "not everything was removed when it ended".to_owned(),
            None => "its supervisor was killed".to_owned(),
        };
        terminal::say(&format!(
            "tapvisor: {namespace}/{name}: {why}; the next command that changes something repairs it, as `tapvisor stop` or `rm`"
        ));
    }
    Ok(store)
}

/// Executed by a link, a process goes by the link's name; `top` and `ps` should say what it is.
fn go_by_name() {
    if let Err(error) = nix::sys::prctl::set_name(c"tapvisor") {
        tracing::debug!(%error, "goes by another name");
    }
}

fn expect_root() -> Result<(), Failure> {
    match nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => Err(Failure::new(Exit::HostLacks, "this command needs root: begin it with `sudo`")),
    }
}

/// Log lines hold words of plugins, engines and guests; the log may be a terminal, or be shown on one later.
struct VisibleStderr;

impl std::io::Write for VisibleStderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        std::io::stderr().write_all(terms::visible(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

fn log_to_stderr(level: &str) {
    log_with(level, || VisibleStderr);
}

/// What a supervisor says, into its log.
fn log_to(level: &str, log: SupervisorLog) {
    log_with(level, move || log.clone());
}

fn log_with<W>(level: &str, writer: W)
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    let set = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false)
        // It would tell of a log on a full disk by a macro that panics there.
        .log_internal_errors(false)
        .try_init();
    if let Err(error) = set {
        terminal::say(&format!("tapvisor: no log: {}", chain(&*error)));
    }
}
