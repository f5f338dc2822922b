//! `tapvisor explain`: a VM's network from the host to the guest, with counters, and what is wrong with it.
//!
//! The exit code is 0 when nothing is found that breaks traffic, and 1 when something is.

mod cluster;
mod follow;
mod record;

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;

use serde_json::json;

use super::arguments::{Explain, Output};
use super::failure::{Exit, Failure};
use super::{names, open_store_to_read, terminal};
use explain::{Asking, Explanation, GatherError, Style, diagnose, gather, picture};
use protocol::chain::chain;
use runner::clock::unix_seconds;

/// Columns of what is no terminal.
const PLAIN_WIDTH: usize = 120;

/// Looks, diagnoses, draws; and with `--watch` tells what changes until it is interrupted.
pub(crate) fn explain(arguments: &Explain) -> Result<ExitCode, Failure> {
    if arguments.context.is_some() || arguments.kubeconfig.is_some() {
        if arguments.watch {
            return cluster::watch(arguments);
        }
        return Ok(end(&cluster::explain(arguments)?, arguments.output));
    }
    let key = names::vm(&arguments.name)?;
    let store = open_store_to_read()?;
    if arguments.watch {
        return follow::watch(&store, &key, arguments);
    }
    let explanation = diagnose(&gather(record::read(&store, &key)?, asking(arguments, arguments.passive))?);
    Ok(end(&explanation, arguments.output))
}

fn end(explanation: &Explanation, output: Output) -> ExitCode {
    show(explanation, output);
    if explanation.is_broken() { ExitCode::from(Exit::Failed as u8) } else { ExitCode::SUCCESS }
}

fn asking(arguments: &Explain, is_passive: bool) -> Asking<'_> {
    Asking { ports: &arguments.port, is_passive, now_unix_seconds: unix_seconds() }
}

fn show(explanation: &Explanation, output: Output) {
    match output {
        Output::Json => terminal::listing("Explanation", &[json!(explanation)]),
        Output::Table => terminal::coloured(picture(explanation, style()).trim_end()),
    }
}

fn style() -> Style {
    if !stdout().is_terminal() {
        return Style { width: PLAIN_WIDTH, has_colour: false, has_unicode: false };
    }
    let named = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let locale = named("LC_ALL").or_else(|| named("LC_CTYPE")).or_else(|| named("LANG")).unwrap_or_default();
    let is_dumb = named("TERM").is_none_or(|term| term == "dumb");
    let width = terminal::columns();
    // https://no-color.org
    let has_colour = !is_dumb && named("NO_COLOR").is_none();
    let locale = locale.to_lowercase();
    Style { width, has_colour, has_unicode: locale.ends_with("utf-8") || locale.ends_with("utf8") }
}

impl From<GatherError> for Failure {
    fn from(error: GatherError) -> Self {
        Self::new(Exit::Failed, chain(&error))
    }
}
