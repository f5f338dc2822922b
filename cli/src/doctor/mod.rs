//! `tapvisor doctor`: what this host has, what that means for VMs, and what to do about it.
//!
//! *Flow:* gather (changes nothing but a namespace, which it removes) → diagnose, which is pure → print. The exit code is 0 when VMs can
//! run, with whatever warnings, and 6 when they cannot; with `--strict` a warning makes it 1.

mod diagnose;
mod gather;

use std::process::ExitCode;

use serde_json::json;

use self::diagnose::{Finding, Severity, diagnose, exit_code};
use super::arguments::{Doctor, Output};
use super::failure::Failure;
use super::terminal;

/// `tapvisor doctor`: gathers, diagnoses and prints; the exit code follows the worst finding.
#[expect(clippy::unnecessary_wraps, reason = "every command has this shape")]
pub(crate) fn doctor(arguments: &Doctor) -> Result<ExitCode, Failure> {
    let findings = diagnose(&gather::gather());
    match arguments.output {
        Output::Json => terminal::listing("Report", &findings.iter().map(|finding| json!(finding)).collect::<Vec<_>>()),
        Output::Table => findings.iter().for_each(print),
    }
    let severities = findings.iter().map(|finding| finding.severity);
    Ok(ExitCode::from(exit_code(severities, arguments.strict)))
}

fn print(finding: &Finding) {
    let mark = match finding.severity {
        Severity::Ok => "ok     ",
        Severity::Warning => "warning",
        Severity::Error => "error  ",
    };
    terminal::line(&format!("{mark}  {}: {}", finding.check, finding.found));
    for text in [&finding.consequence, &finding.remedy].into_iter().flatten() {
        terminal::line(&format!("           {text}"));
    }
}
