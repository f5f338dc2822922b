//! When and on what was measured.

use std::process::Command;

/// Date, processors, kernel and how busy the machine was.
pub(crate) fn today_and_here() -> String {
    let date = said("date", &["--utc", "+%Y-%m-%d %H:%M UTC"]);
    let kernel = said("uname", &["-r"]);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let model = processor();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    format!("{date}, {cpus} × {model}, kernel {kernel}, load average at the end {load}")
}

/// The processor's model as the kernel names it.
pub(crate) fn processor() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unnamed processor");
    model.trim_start_matches([' ', '\t', ':']).to_owned()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| "?".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
