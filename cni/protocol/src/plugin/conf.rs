//! The network configuration on stdin: what the protocol itself reads of it. The plugin reads the rest from the same text.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use terms::{ContainerId, IfName, NetworkName};

use crate::spec::{CniResult, Code, Error, Version};

/// A configuration of the right version with a valid name.
#[derive(Debug, Clone)]
pub struct NetConf {
    version: Version,
    name: NetworkName,
    prev_result: Option<Box<RawValue>>,
    valid_attachments: Option<Vec<AttachmentKey>>,
    text: Vec<u8>,
}

/// An attachment as GC lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, serde::Serialize)]
pub struct AttachmentKey {
    /// The CNI_CONTAINERID that its ADD was called with.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// The CNI_IFNAME that its ADD was called with.
    #[serde(rename = "ifname")]
    pub if_name: IfName,
}

/// Unknown keys are other people's and pass (specification section 1: plugins may add fields of their own).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    cni_version: Option<String>,
    name: Option<String>,
    prev_result: Option<Box<RawValue>>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<AttachmentKey>>,
    /// What an old draft called it; libcni sends both.
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Vec<AttachmentKey>>,
}

impl NetConf {
    /// Most bytes of configuration that are read; Kubernetes allows 256 KiB of annotations per pod.
    pub const MAX_BYTES: usize = 4 * 1024 * 1024;

    /// Reads what stdin held. `version` becomes that of the text as soon as it is known, for the answer to what is wrong after.
    ///
    /// # Errors
    /// When it is too large, no JSON object of the known shape, of an unknown version or without a valid name.
    pub fn parse(text: Vec<u8>, version: &mut Version) -> Result<Self, Error> {
        if text.len() > Self::MAX_BYTES {
            let limit = Self::MAX_BYTES;
            return Err(invalid(format!("network configuration: more than {limit} bytes")));
        }
        let raw: Raw = decode(&text).inspect_err(|_| *version = version_alone(&text).unwrap_or(*version))?;
        *version = raw
            .cni_version
            .as_deref()
            .filter(|version| !version.is_empty())
            .ok_or_else(|| {
                let msg = "network configuration: no cniVersion, which means 0.1.0, and that is not supported";
                Error::new(Code::INCOMPATIBLE_VERSION, msg)
            })?
            .parse()?;
        let name = raw.name.ok_or_else(|| invalid("network configuration: name is missing".to_owned()))?;
        let name = name.parse().map_err(|error| invalid(format!("network configuration: name: {error}")))?;
        Ok(Self {
            version: *version,
            name,
            prev_result: raw.prev_result,
            valid_attachments: raw.valid_attachments.or(raw.attachments),
            text,
        })
    }

    /// The whole text as it came, for plugins that are executed on behalf of this one.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The version of the configuration and of the answer.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The name of the network: with container and interface it names an attachment.
    #[must_use]
    pub fn name(&self) -> &NetworkName {
        &self.name
    }

    /// The result of the plugins before us as text, as it came, if there is one.
    #[must_use]
    pub fn prev_text(&self) -> Option<&str> {
        self.prev_result.as_deref().map(RawValue::get)
    }

    /// The result of the plugins before us, and the version that it names.
    ///
    /// # Errors
    /// When it is of an unknown version or no result.
    pub fn prev_result(&self) -> Result<Option<(CniResult, Option<Version>)>, Error> {
        self.prev_text()
            .map(|text| CniResult::from_text(text, self.version))
            .transpose()
            .map_err(|error| Error::from(error).with_details("in prevResult"))
    }

    /// What GC must keep. `None` when nothing was said, which is not the same as an empty list.
    #[must_use]
    pub fn valid_attachments(&self) -> Option<&[AttachmentKey]> {
        self.valid_attachments.as_deref()
    }

    /// Reads the plugin's own part of the configuration.
    ///
    /// # Errors
    /// When a key that `T` names has another shape.
    pub fn own<T: DeserializeOwned>(&self) -> Result<T, Error> {
        decode(&self.text)
    }
}

/// The version of a text whose other fields are not as they must be.
fn version_alone(text: &[u8]) -> Option<Version> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Alone {
        cni_version: String,
    }
    serde_json::from_slice::<Alone>(text).ok()?.cni_version.parse().ok()
}

/// A JSON error never quotes more than the name of a field and the kind of what it found: the text is not ours to echo.
fn decode<T: DeserializeOwned>(text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|error| {
        let reason = error.to_string();
        let path = terms::json_path(text, error.line(), error.column(), &reason);
        let msg = format!("network configuration: {}: {}", shorten(&path), shorten(&reason));
        Error::new(Code::DECODE, msg)
    })
}

fn shorten(reason: &str) -> String {
    const MOST: usize = 300;
    let mut short: String = reason.chars().take(MOST).collect();
    if short.len() < reason.len() {
        short.push('…');
    }
    short
}

fn invalid(msg: String) -> Error {
    Error::new(Code::INVALID_CONFIG, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NetConf, Error> {
        NetConf::parse(text.as_bytes().to_vec(), &mut { Version::NEWEST })
    }

    fn code(text: &str) -> Code {
        parse(text).unwrap_err().code
    }

    #[test]
    fn unknown_keys_pass() {
        let conf = parse(r#"{"cniVersion":"1.0.0","name":"n","type":"t","x":{"y":[1]},"prevResult":null}"#).unwrap();
        assert_eq!((conf.version(), conf.name().as_str(), conf.prev_text()), (Version::V1_0_0, "n", None));
    }

    #[test]
    fn each_kind_of_bad_configuration_has_its_code() {
        for text in ["", "{", "[]", r#"{"cniVersion":1}"#, r#"{"cniVersion":"1.0.0","name":"n"} trailing"#] {
            assert_eq!(code(text), Code::DECODE, "{text}");
        }
        for text in [r#"{"cniVersion":"9.9.9","name":"n"}"#, r#"{"name":"n"}"#, r#"{"cniVersion":"0.2.0","name":"n"}"#]
        {
            assert_eq!(code(text), Code::INCOMPATIBLE_VERSION, "{text}");
        }
        for text in [r#"{"cniVersion":"1.0.0"}"#, r#"{"cniVersion":"1.0.0","name":"a b"}"#] {
            assert_eq!(code(text), Code::INVALID_CONFIG, "{text}");
        }
        assert_eq!(code(&" ".repeat(NetConf::MAX_BYTES + 1)), Code::INVALID_CONFIG);
    }

    #[test]
    fn no_list_is_not_an_empty_list() {
        let valid = |list: &str| {
            let text = format!(r#"{{"cniVersion":"1.1.0","name":"n"{list}}}"#);
            parse(&text).unwrap().valid_attachments().map(<[_]>::len)
        };
        assert_eq!(valid(""), None);
        assert_eq!(valid(r#","cni.dev/valid-attachments":null"#), None);
        assert_eq!(valid(r#","cni.dev/valid-attachments":[]"#), Some(0));
        assert_eq!(valid(r#","cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}]"#), Some(1));
    }

    // spec: CNI-CONF
    #[test]
    fn foreign_text_is_not_echoed_at_length() {
        let text = format!(
            r#"{{"cniVersion":"1.0.0","name":"n","prevResult":1,"cni.dev/attachments":"{}"}}"#,
            "x".repeat(100_000)
        );
        assert!(parse(&text).unwrap_err().msg.len() < 500);
    }
}
