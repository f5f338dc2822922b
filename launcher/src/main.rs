//! `tapvisor-launcher`: runs one virtual machine, asks one that runs, or says what /dev/kvm can do.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use protocol::options::{LaunchOptions, USAGE};
use protocol::probe::Probe;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

const USAGE_CODE: u8 = 2;
const OTHERS: &str = "\
Usage: tapvisor-launcher probe

Runs code in /dev/kvm and says in JSON whether it is usable,
and what the launcher cannot confine itself with.

Usage: tapvisor-launcher fail

Ends with code 1, so that what its starter does about it can be tried.
";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().unwrap_or_default();
    let arguments: Vec<_> = arguments.collect();
    let wants_help = |argument: &OsString| argument == "--help" || argument == "-h";
    match command.to_str() {
        Some("launch") if !arguments.iter().any(wants_help) => launch(arguments),
        Some("ctl") if !arguments.iter().any(wants_help) => launcher::ctl::ctl(&arguments),
        Some("probe") if arguments.is_empty() => probe(),
        Some("fail") if arguments.is_empty() => fail(),
        Some("--version" | "version") => print(&format!("tapvisor-launcher {}\n", env!("CARGO_PKG_VERSION"))),
        Some("launch" | "ctl" | "--help" | "-h") => print(&usage()),
        _ => refuse(&usage()),
    }
}

fn launch(arguments: Vec<OsString>) -> ExitCode {
    let options = match LaunchOptions::parse(arguments) {
        Ok(options) => options,
        Err(error) => return refuse(&format!("tapvisor-launcher: {error}\n\n{USAGE}")),
    };
    if options.console_stdio && same_file() {
        return refuse(
            "tapvisor-launcher: --console-stdio: log and console would mix, for standard output and standard error are one \
                       file: add 2>FILE, or use `tapvisor-launcher ctl console`\n",
        );
    }
    log_to_stderr();
    // Executed by a descriptor, a process goes by its number; `top` and `ps` should say what it is.
    if let Err(error) = nix::sys::prctl::set_name(c"tapvisor-launch") {
        tracing::debug!(%error, "goes by another name");
    }
    launcher::launch(&options)
}

/// Whether standard output and standard error lead to the same place.
fn same_file() -> bool {
    let [out, error] = [nix::sys::stat::fstat(std::io::stdout()), nix::sys::stat::fstat(std::io::stderr())];
    out.is_ok_and(|out| error.is_ok_and(|error| (out.st_dev, out.st_ino) == (error.st_dev, error.st_ino)))
}

/// One JSON object, whatever /dev/kvm and the kernel are worth: a node that cannot be used is an answer, too.
fn probe() -> ExitCode {
    let probe = Probe { kvm: launcher::probe(None), lacks: launcher::confine::lacks() };
    match serde_json::to_string(&probe) {
        Ok(line) => print(&format!("{line}\n")),
        Err(error) => refuse(&format!("tapvisor-launcher: {error}\n")),
    }
}

/// A launcher that ends at once: what its starter does about it can be tried.
fn fail() -> ExitCode {
    drop(std::io::stderr().write_all(b"tapvisor-launcher: fails, as it was asked to\n"));
    ExitCode::FAILURE
}

fn usage() -> String {
    format!("{USAGE}\n{}\n{OTHERS}", launcher::ctl::USAGE)
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn refuse(text: &str) -> ExitCode {
    // There is nowhere else to say it.
    drop(std::io::stderr().write_all(text.as_bytes()));
    ExitCode::from(USAGE_CODE)
}

/// As `RUST_LOG` filters by target and level; the rest of its syntax is `tapvisor`'s alone.
fn log_to_stderr() {
    let given = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let filter = given.and_then(|text| text.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // It would tell of a log on a full disk by a macro that panics there.
        .log_internal_errors(false);
    if let Err(error) = tracing_subscriber::registry().with(to_stderr).with(filter).try_init() {
        let line = format!("tapvisor-launcher: no log: {}\n", protocol::chain::chain(&error));
        drop(std::io::stderr().write_all(line.as_bytes()));
    }
}
