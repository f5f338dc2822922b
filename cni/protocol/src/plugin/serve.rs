//! Serving one call: which verb, with what, answered how.

use std::io::{Read, Write};

use serde_json::{Value, json};
use terms::{ContainerId, IfName};

use super::env::Target;
use super::{Args, Environment, NetConf, Netns, Verb};
use crate::spec::{CniResult, Code, Error, Version};

/// What a plugin does for each verb. All of a call is checked before one of these is called.
pub trait Plugin {
    /// One or two lines for a person who runs the file by hand.
    fn about(&self) -> String;

    /// Attaches.
    ///
    /// # Errors
    /// When the attachment could not be made; nothing is left of it.
    fn add(&self, call: &Add) -> Result<Added, Error>;

    /// Detaches; what is already gone is not an error.
    ///
    /// # Errors
    /// When something that is there could not be removed.
    fn del(&self, call: &Del) -> Result<(), Error>;

    /// Compares the attachment with what ADD made.
    ///
    /// # Errors
    /// Names what is missing or altered.
    fn check(&self, call: &Check) -> Result<(), Error>;

    /// Removes what belongs to no listed attachment.
    ///
    /// # Errors
    /// When something could not be removed.
    fn gc(&self, call: &Collect) -> Result<(), Error>;

    /// Whether ADD could be served.
    ///
    /// # Errors
    /// Says what is missing.
    fn status(&self, call: &Status) -> Result<(), Error>;
}

/// The parameters that identify an attachment.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// CNI_CONTAINERID, validated.
    pub container_id: ContainerId,
    /// CNI_IFNAME, validated.
    pub if_name: IfName,
    /// The pairs of CNI_ARGS; empty if the variable is absent.
    pub args: Args,
}

/// What ADD and CHECK are called with.
#[derive(Debug)]
pub struct Add {
    /// CNI_CONTAINERID, CNI_IFNAME and CNI_ARGS.
    pub attachment: Attachment,
    /// CNI_NETNS, opened: not the namespace of this process.
    pub netns: Netns,
    /// The network configuration from stdin.
    pub conf: NetConf,
    /// The result of the plugins before us.
    pub previous: Option<CniResult>,
    /// The version that the previous result names.
    pub previous_version: Option<Version>,
}

/// A CHECK has all that its ADD had.
pub type Check = Add;

/// What DEL is called with.
#[derive(Debug)]
pub struct Del {
    /// CNI_CONTAINERID, CNI_IFNAME and CNI_ARGS.
    pub attachment: Attachment,
    /// Where; `None` when it was not said or is gone.
    pub netns: Option<Netns>,
    /// The network configuration from stdin: the one of ADD, as the specification demands.
    pub conf: NetConf,
}

/// What GC is called with.
#[derive(Debug, Clone)]
pub struct Collect {
    /// Holds the list of what must stay.
    pub conf: NetConf,
}

/// What STATUS is called with.
#[derive(Debug, Clone)]
pub struct Status {
    /// The network configuration from stdin; no container is named.
    pub conf: NetConf,
}

/// The answer to an ADD that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub enum Added {
    /// The result of the plugins before us as it came; an empty one if there is none.
    Unchanged,
    /// The result of the plugins before us with a change of ours; all its other fields are kept.
    Previous(Value),
    /// A result of our own.
    Result(CniResult),
    /// Text for a person, where a trial was asked for and nothing was attached.
    Text(String),
}

/// Answers one call and returns the exit code: 0, or 1 with an error document on `stdout`.
///
/// # Errors
/// Only when `stdout` cannot be written, so that no error document can be either.
pub fn serve(
    plugin: &dyn Plugin,
    env: &Environment,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
) -> std::io::Result<u8> {
    let mut version = Version::NEWEST;
    let answer = answer(plugin, env, stdin, &mut version);
    let (document, exit) = match answer {
        Ok(Answer::Nothing) => return Ok(0),
        Ok(Answer::Text(text)) => {
            writeln!(stdout, "{}", text.trim_end())?;
            return Ok(0);
        }
        Ok(Answer::Document(document)) => (document, 0),
        Err(error) => (error.to_document(version), 1),
    };
    // One buffer and one call to the kernel.
    let mut text = serde_json::to_vec(&document)?;
    text.push(b'\n');
    stdout.write_all(&text)?;
    stdout.flush()?;
    Ok(exit)
}

enum Answer {
    Nothing,
    Text(String),
    Document(Value),
}

fn answer(
    plugin: &dyn Plugin,
    env: &Environment,
    stdin: &mut dyn Read,
    version: &mut Version,
) -> Result<Answer, Error> {
    let Some(verb) = env.verb()? else { return Ok(Answer::Text(plugin.about())) };
    if verb == Verb::Version {
        // stdin is not read: callers exist that leave it open.
        let supported = Version::ALL.map(Version::as_str);
        return Ok(Answer::Document(json!({"cniVersion": Version::NEWEST.as_str(), "supportedVersions": supported})));
    }
    env.require(verb)?;
    let own_allowed = env.own_netns_allowed();
    let target = matches!(verb, Verb::Add | Verb::Del | Verb::Check).then(|| env.target(verb)).transpose()?;
    let conf = NetConf::parse(read(stdin)?, version)?;
    expect_verb(verb, conf.version())?;
    match (verb, target) {
        (Verb::Add, Some(target)) => {
            let call = present(target, conf, own_allowed)?;
            match plugin.add(&call)? {
                Added::Text(text) => Ok(Answer::Text(text)),
                Added::Result(result) => Ok(Answer::Document(result.to_document(*version))),
                Added::Unchanged => unchanged(&call, *version),
                Added::Previous(document) => Ok(Answer::Document(previous_document(document, *version)?)),
            }
        }
        (Verb::Check, Some(target)) => {
            let call = present(target, conf, own_allowed)?;
            if call.conf.prev_text().is_none() {
                let msg = "CHECK needs the result of ADD, and there is no prevResult";
                return Err(Error::new(Code::INVALID_CONFIG, msg));
            }
            plugin.check(&call).map(|()| Answer::Nothing)
        }
        (Verb::Del, Some(Target { container_id, if_name, netns, args })) => {
            let netns = netns.map(|path| Netns::find(path, own_allowed)).transpose()?.flatten();
            let attachment = Attachment { container_id, if_name, args };
            plugin.del(&Del { attachment, netns, conf }).map(|()| Answer::Nothing)
        }
        (Verb::Gc, _) => plugin.gc(&Collect { conf }).map(|()| Answer::Nothing),
        _ => plugin.status(&Status { conf }).map(|()| Answer::Nothing),
    }
}

fn read(stdin: &mut dyn Read) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let limit = NetConf::MAX_BYTES as u64 + 1;
    stdin
        .take(limit)
        .read_to_end(&mut text)
        .map_err(|error| Error::new(Code::IO, format!("network configuration on stdin: {error}")))?;
    Ok(text)
}

fn expect_verb(verb: Verb, version: Version) -> Result<(), Error> {
    let (spoken, since) = match verb {
        Verb::Check => (version.has_check(), Version::V0_4_0),
        Verb::Gc | Verb::Status => (version.has_gc_and_status(), Version::V1_1_0),
        Verb::Add | Verb::Del | Verb::Version => (true, version),
    };
    if spoken {
        return Ok(());
    }
    let msg = format!("{} came with CNI {since} and the configuration is of {version}", verb.as_str());
    Err(Error::new(Code::INCOMPATIBLE_VERSION, msg))
}

/// What ADD and CHECK need beyond the rest: a namespace that is there, and a previous result, if any, that is one.
fn present(target: Target, conf: NetConf, own_allowed: bool) -> Result<Add, Error> {
    let (previous, previous_version) = conf.prev_result()?.unzip();
    let Target { container_id, if_name, netns, args } = target;
    let path = netns.unwrap_or_default();
    let shown = path.display().to_string();
    let netns = Netns::find(path, own_allowed)?
        .ok_or_else(|| Error::new(Code::INVALID_NETNS, format!("CNI_NETNS: {shown} is not a network namespace")))?;
    Ok(Add {
        attachment: Attachment { container_id, if_name, args },
        netns,
        conf,
        previous,
        previous_version: previous_version.flatten(),
    })
}

/// The previous result as text, if it is of the answer's version and says so.
fn unchanged(call: &Add, version: Version) -> Result<Answer, Error> {
    match call.conf.prev_text() {
        None => Ok(Answer::Document(CniResult::default().to_document(version))),
        Some(text) if call.previous_version == Some(version) => Ok(Answer::Text(text.to_owned())),
        Some(text) => Ok(Answer::Document(previous_document(serde_json::from_str(text).unwrap_or_default(), version)?)),
    }
}

/// A previous result already of the answer's version goes out with every field it came with.
fn previous_document(mut document: Value, version: Version) -> Result<Value, Error> {
    let written_in = CniResult::version_of(&document, version)?;
    if written_in != version {
        return Ok(CniResult::from_document(&document, version)?.to_document(version));
    }
    if let Some(document) = document.as_object_mut() {
        document.insert("cniVersion".to_owned(), version.as_str().into());
    }
    Ok(document)
}

#[cfg(test)]
mod tests;
