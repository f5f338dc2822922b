//! The environment of a call: the verb and the attachment it is about.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use terms::{ContainerId, IfName};

use super::Args;
use crate::spec::{Code, Error};

/// The `CNI_*` variables of one call.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

/// The value of CNI_COMMAND (specification section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Attach a container to the network, or change what an earlier plugin attached.
    Add,
    /// Undo ADD; succeeds also if nothing is left to undo.
    Del,
    /// Is the attachment as ADD left it?
    Check,
    /// Remove what belongs to no listed attachment.
    Gc,
    /// Could ADD be served now? An error says why not.
    Status,
    /// Which versions are spoken? Needs no container.
    Version,
}

impl Verb {
    /// The value in `CNI_COMMAND`: upper case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The variables without which the verb means nothing. `CNI_PATH` is not among them: no delegate is executed.
    const fn required(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc | Self::Status | Self::Version => &[],
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version]
            .into_iter()
            .find(|verb| verb.as_str() == word)
    }
}

/// Container, interface and arguments as the environment names them.
pub(super) struct Target {
    pub(super) container_id: ContainerId,
    pub(super) if_name: IfName,
    pub(super) netns: Option<OsString>,
    pub(super) args: Args,
}

impl Environment {
    /// The variables of this process.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The verb; `None` without CNI_COMMAND: the program was not called by a container runtime.
    pub(super) fn verb(&self) -> Result<Option<Verb>, Error> {
        let Some(word) = self.text("CNI_COMMAND")? else { return Ok(None) };
        let verb = Verb::parse(word).ok_or_else(|| {
            let word: String = word.chars().take(80).collect();
            bad(format!("CNI_COMMAND: {word:?} must be ADD, DEL, CHECK, GC, STATUS or VERSION"))
        })?;
        Ok(Some(verb))
    }

    /// Complains about all that is missing for a verb in one error.
    pub(super) fn require(&self, verb: Verb) -> Result<(), Error> {
        let missing: Vec<_> = verb.required().iter().copied().filter(|name| self.raw(name).is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(bad(format!("{} needs the environment variables {}", verb.as_str(), missing.join(", "))))
    }

    /// The attachment that a verb is about.
    pub(super) fn target(&self, verb: Verb) -> Result<Target, Error> {
        let container_id = self.text("CNI_CONTAINERID")?.unwrap_or_default();
        let if_name = self.text("CNI_IFNAME")?.unwrap_or_default();
        Ok(Target {
            container_id: container_id.parse().map_err(|error| bad(format!("CNI_CONTAINERID: {error}")))?,
            if_name: if_name.parse().map_err(|error| bad(format!("CNI_IFNAME: {error}")))?,
            netns: self.raw("CNI_NETNS").map(OsStr::to_owned),
            args: match verb {
                // Nothing that is to be taken away hangs on them.
                Verb::Del => self.args().unwrap_or_default(),
                _ => self.args()?,
            },
        })
    }

    fn args(&self) -> Result<Args, Error> {
        Args::parse(self.text("CNI_ARGS")?.unwrap_or_default()).map_err(|error| bad(error.to_string()))
    }

    /// Whether the caller allows CNI_NETNS to be the plugin's own namespace (undocumented, from the reference library).
    pub(super) fn own_netns_allowed(&self) -> bool {
        self.raw("CNI_NETNS_OVERRIDE")
            .and_then(OsStr::to_str)
            .is_some_and(|text| matches!(text.to_ascii_lowercase().as_str(), "1" | "true"))
    }

    /// An empty variable is an absent one.
    fn raw(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        self.raw(name).map(|value| value.to_str().ok_or_else(|| bad(format!("{name}: is not UTF-8")))).transpose()
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(variables: T) -> Self {
        let variables = variables.into_iter().map(|(key, value)| (key.into(), value.into()));
        // One by one: to collect would sort first, with code of its own.
        let mut kept = BTreeMap::new();
        for (key, value) in variables.filter(|(key, _)| key.as_encoded_bytes().starts_with(b"CNI_")) {
            kept.insert(key, value);
        }
        Self { variables: kept }
    }
}

fn bad(msg: String) -> Error {
    Error::new(Code::INVALID_ENVIRONMENT, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().copied().collect()
    }

    fn refusal(if_name: &str, container_id: &str) -> Error {
        let env = env(&[("CNI_CONTAINERID", container_id), ("CNI_IFNAME", if_name)]);
        env.target(Verb::Add).err().unwrap()
    }

    #[test]
    fn all_missing_variables_are_named_in_one_error() {
        let error = env(&[("CNI_NETNS", "")]).require(Verb::Add).unwrap_err();
        assert_eq!(error.code, Code::INVALID_ENVIRONMENT);
        assert_eq!(error.msg, "ADD needs the environment variables CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME");
        assert!(env(&[]).require(Verb::Status).is_ok());
    }

    #[test]
    fn interface_names_and_container_ids_are_checked() {
        for name in ["abcdefghijklmnop", ".", "..", "a/b", "a:b", "a b"] {
            assert!(refusal(name, "c1").msg.starts_with("CNI_IFNAME: "), "{name}");
        }
        for id in ["-a", "a/b", "a b"] {
            assert!(refusal("eth0", id).msg.starts_with("CNI_CONTAINERID: "), "{id}");
        }
    }

    // spec: CNI-DEL-4
    #[test]
    fn malformed_arguments_stop_every_verb_but_del() {
        let env = env(&[("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_ARGS", "garbage")]);
        for verb in [Verb::Add, Verb::Check] {
            assert_eq!(env.target(verb).err().unwrap().code, Code::INVALID_ENVIRONMENT);
        }
        assert_eq!(env.target(Verb::Del).unwrap().args, Args::default());
    }

    #[test]
    fn an_unknown_verb_is_answered_with_the_known_ones() {
        let error = env(&[("CNI_COMMAND", "add")]).verb().unwrap_err();
        assert_eq!(error.code, Code::INVALID_ENVIRONMENT);
        assert!(error.msg.contains("ADD, DEL"), "{error}");
        assert_eq!(env(&[]).verb(), Ok(None));
    }

    #[test]
    fn other_variables_are_not_kept() {
        assert!(env(&[("HOME", "/root")]).variables.is_empty());
    }
}
