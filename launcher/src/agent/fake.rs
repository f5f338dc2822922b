//! An agent for tests: answers each line that it reads by a function of the line and its number.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

/// The host's end of the channel, and the agent, which returns the lines that it has read when the host closes.
pub(super) fn agent(
    mut answer: impl FnMut(&str, usize) -> Vec<u8> + Send + 'static,
) -> (UnixStream, JoinHandle<Vec<String>>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let reading = BufReader::new(theirs.try_clone().unwrap());
    let agent = thread::spawn(move || {
        let mut lines = Vec::new();
        for line in reading.split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).trim_start_matches('\u{fffd}').to_owned();
            let bytes = answer(&line, lines.len());
            lines.push(line);
            // A host that is gone reads no answer.
            drop(theirs.write_all(&bytes));
        }
        lines
    });
    (ours, agent)
}

/// An agent that is in order: synchronizes, and answers commands by `answer`, which returns the whole object.
pub(super) fn honest(
    mut answer: impl FnMut(&str, &serde_json::Value) -> serde_json::Value + Send + 'static,
) -> (UnixStream, JoinHandle<Vec<String>>) {
    agent(move |line, _| {
        let request: serde_json::Value = serde_json::from_str(line).unwrap();
        let (command, arguments) = (request["execute"].as_str().unwrap(), &request["arguments"]);
        match command {
            "guest-sync-delimited" => format!("\u{0}{{\"return\": {}}}\n", arguments["id"]).into_bytes(),
            command => format!("{}\n", answer(command, arguments)).into_bytes(),
        }
        .into_iter()
        .map(|byte| if byte == 0 { 0xFF } else { byte })
        .collect()
    })
}
