//! Target `cni`: one call of the plugin, as a runtime makes it. An input is lines `NAME=VALUE` of the environment, an
//! empty line, and standard input. The namespace is always this process' own, and nothing is done in it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use binding::requested;
use cni_protocol::plugin::{Add, Added, Check, Collect, Del, Environment, NetConf, Plugin, Status, serve};
use cni_protocol::runtime::ConfigList;
use cni_protocol::spec::{CniResult, Error, Version};
use serde_json::Value;

/// Longest answer to a call that is refused: names of fields and shortened values.
const LONGEST_REFUSAL_BYTES: usize = 2048;

/// Reads an input and panics when a promise is broken.
pub fn check(input: &[u8]) {
    let (head, stdin) = match input.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&input[..at], &input[at + 2..]),
        None => (input, &[][..]),
    };
    let mut stdout = Vec::new();
    let exit = serve(&Reader, &environment(head), &mut &stdin[..], &mut stdout).expect("a buffer can be written");
    verify(exit, &stdout, stdin);
    verify_as_a_runtime(stdin);
}

fn environment(head: &[u8]) -> Environment {
    let pair = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        Some((OsStr::from_bytes(&line[..at]).to_owned(), OsStr::from_bytes(&line[at + 1..]).to_owned()))
    };
    let fixed = [("CNI_NETNS", "/proc/self/ns/net"), ("CNI_NETNS_OVERRIDE", "1")];
    let fixed = fixed.map(|(name, value)| (name.into(), value.into()));
    head.split(|byte| *byte == b'\n').filter_map(pair).chain(fixed).collect()
}

fn verify(exit: u8, stdout: &[u8], stdin: &[u8]) {
    if exit == 0 {
        if let Ok(document) = serde_json::from_slice::<Value>(stdout) {
            assert!(document["cniVersion"].as_str().is_some_and(|text| text.parse::<Version>().is_ok()), "{document}");
            assert!(stdout.len() <= 2 * stdin.len() + 4096, "the result is larger than all that was said");
        }
        return;
    }
    assert_eq!(exit, 1);
    let document: Value = serde_json::from_slice(stdout).expect("a refusal is one JSON document");
    assert!(document["code"].as_u64().is_some_and(|code| code > 0), "{document}");
    assert!(document["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{document}");
    crate::assert_short(&document.to_string(), LONGEST_REFUSAL_BYTES);
}

/// The same text as a runtime would load and keep it.
fn verify_as_a_runtime(text: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(text) else { return };
    match ConfigList::from_value(document.clone()) {
        Ok(list) => {
            let again = ConfigList::from_value(list.to_document()).expect("a list that was written can be read");
            assert_eq!(again.to_document(), list.to_document());
        }
        Err(error) => crate::assert_short(&error.to_string(), LONGEST_REFUSAL_BYTES),
    }
    if let Ok(result) = CniResult::from_document(&document, Version::NEWEST) {
        for version in Version::ALL {
            let written = result.to_document(version);
            let read = CniResult::from_document(&written, version).expect("a result that was written can be read");
            assert_eq!(read.ips, result.ips);
        }
        let again = CniResult::from_document(&result.to_document(Version::NEWEST), Version::NEWEST);
        assert_eq!(again.as_ref(), Ok(&result));
    }
}

/// Reads all that the plugin reads and changes nothing.
#[derive(Debug)]
struct Reader;

impl Reader {
    fn read(conf: &NetConf) -> Result<(), Error> {
        conf.prev_result()?;
        if let Some(request) = requested(conf)? {
            crate::wiring::verify(&request);
        }
        Ok(())
    }
}

impl Plugin for Reader {
    fn about(&self) -> String {
        String::new()
    }

    fn add(&self, call: &Add) -> Result<Added, Error> {
        Self::read(&call.conf)?;
        // Half of the inputs take the path of a result that goes on as text, half that of one that was changed.
        let is_changed = call.conf.name().as_str().len().is_multiple_of(2);
        let text = call.conf.prev_text().filter(|_| is_changed);
        Ok(text.map_or(Added::Unchanged, |text| {
            Added::Previous(serde_json::from_str(text).expect("the configuration was read as JSON"))
        }))
    }

    fn del(&self, call: &Del) -> Result<(), Error> {
        Self::read(&call.conf)
    }

    fn check(&self, call: &Check) -> Result<(), Error> {
        Self::read(&call.conf)
    }

    fn gc(&self, call: &Collect) -> Result<(), Error> {
        let listed = call.conf.valid_attachments().unwrap_or_default();
        assert!(listed.iter().all(|one| !one.container_id.as_str().contains('/')));
        Ok(())
    }

    fn status(&self, call: &Status) -> Result<(), Error> {
        Self::read(&call.conf)
    }
}
