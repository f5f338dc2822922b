//! Where a wiring request comes from: the pod's annotation, `args.cni` of a trailing attachment, or the configuration.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use wiring::{ANNOTATION, Request, RequestError};

use cni_protocol::plugin::NetConf;
use cni_protocol::spec::{Code, Error};

/// The capability under which containerd and CRI-O hand all annotations of a pod to a plugin.
const POD_ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// A request and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundRequest {
    pub(crate) request: Request,
    pub(crate) source: Source,
    /// Further places that hold a request; the first in the order of [`Source`] counts.
    pub(crate) ignored: Vec<Source>,
}

/// A place for a request, the one that counts most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Annotation,
    CniArgs,
    Configuration,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Annotation => write!(f, "annotation {ANNOTATION}"),
            Self::CniArgs => write!(f, "args.cni.wiring"),
            Self::Configuration => write!(f, "wiring"),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    runtime_config: Option<RuntimeConfig>,
    args: Option<Args>,
    wiring: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct RuntimeConfig {
    #[serde(rename = "io.kubernetes.cri.pod-annotations", default)]
    annotations: Option<Annotations>,
}

#[derive(Deserialize)]
struct Args {
    #[serde(default)]
    cni: Option<CniArgs>,
}

#[derive(Deserialize)]
struct CniArgs {
    #[serde(default)]
    wiring: Option<Box<RawValue>>,
}

/// Ours among all annotations of the pod. The others may be hundreds of kilobytes and are skipped, not kept.
struct Annotations(Option<String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OursAlone).map(Self)
    }
}

struct OursAlone;

impl<'de> Visitor<'de> for OursAlone {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{POD_ANNOTATIONS}: a map of annotations")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut ours = None;
        while let Some(is_ours) = map.next_key::<IsOurs>()? {
            if is_ours.0 {
                ours = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(ours)
    }
}

/// Whether a key is our annotation, without keeping it.
struct IsOurs(bool);

impl<'de> Deserialize<'de> for IsOurs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = IsOurs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the key of an annotation")
            }

            fn visit_str<E>(self, key: &str) -> Result<IsOurs, E> {
                Ok(IsOurs(key == ANNOTATION))
            }
        }
        deserializer.deserialize_str(Key)
    }
}

/// The request of a call; `None` for a pod that has none.
pub(crate) fn find_request(conf: &NetConf) -> Result<Option<FoundRequest>, Error> {
    let raw: Raw = conf.own()?;
    let annotation = raw.runtime_config.and_then(|config| config.annotations).and_then(|annotations| annotations.0);
    let in_args = raw.args.and_then(|args| args.cni).and_then(|cni| cni.wiring);
    let found = [
        annotation.map(|text| (Source::Annotation, Request::parse(&text))),
        in_args.map(|text| (Source::CniArgs, Request::parse(text.get()))),
        raw.wiring.map(|text| (Source::Configuration, Request::parse(text.get()))),
    ];
    let mut found = found.into_iter().flatten();
    let Some((source, request)) = found.next() else { return Ok(None) };
    let request = request.map_err(|error| refusal(source, &error))?;
    Ok(Some(FoundRequest { request, source, ignored: found.map(|(source, _)| source).collect() }))
}

/// The wiring request of a configuration, as ADD reads it; `None` when the pod asks for nothing. Nothing is looked at or
/// changed.
///
/// # Errors
/// When the configuration has another shape or the request is refused; the message names the place and the field.
pub fn requested(conf: &NetConf) -> Result<Option<Request>, Error> {
    Ok(find_request(conf)?.map(|asked| asked.request))
}

/// The message names the field; what the pod's author wrote there is shown shortened.
fn refusal(source: Source, error: &RequestError) -> Error {
    const MOST: usize = 300;
    let text = error.to_string();
    let mut short: String = text.chars().take(MOST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    Error::new(Code::INVALID_CONFIG, format!("{source}: {short}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use cni_protocol::spec::Version;

    const REQUEST: &str = r#"{"version":1,"owner":{"uid":107,"gid":107},"interfaces":[]}"#;

    fn ask(more: &Value) -> Result<Option<FoundRequest>, Error> {
        let mut conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "tapvisor"});
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        find_request(&NetConf::parse(conf.to_string().into_bytes(), &mut { Version::NEWEST }).unwrap())
    }

    fn request() -> Value {
        serde_json::from_str(REQUEST).unwrap()
    }

    #[test]
    fn each_place_is_read() {
        let places = [
            (json!({"runtimeConfig": {POD_ANNOTATIONS: {"a": "b", ANNOTATION: REQUEST}}}), Source::Annotation),
            (json!({"args": {"cni": {"wiring": request(), "other": 1}}}), Source::CniArgs),
            (json!({"wiring": request()}), Source::Configuration),
        ];
        for (conf, source) in places {
            assert_eq!(ask(&conf).unwrap().unwrap().source, source);
        }
    }

    #[test]
    fn a_pod_without_a_request_has_none() {
        let none = [
            json!({}),
            json!({"runtimeConfig": {"mac": "x", POD_ANNOTATIONS: {"a": "b"}}}),
            json!({"runtimeConfig": {POD_ANNOTATIONS: null}, "args": {"cni": {}}, "wiring": null}),
        ];
        for conf in none {
            assert_eq!(ask(&conf).unwrap(), None, "{conf}");
        }
    }

    // spec: CNI-ADD-4
    #[test]
    fn the_annotation_precedes_arguments_and_these_the_configuration() {
        let all = json!({"runtimeConfig": {POD_ANNOTATIONS: {ANNOTATION: REQUEST}}, "args": {"cni": {"wiring": 1}}, "wiring": 2});
        let asked = ask(&all).unwrap().unwrap();
        assert_eq!((asked.source, asked.ignored), (Source::Annotation, vec![Source::CniArgs, Source::Configuration]));
    }

    #[test]
    fn a_refusal_names_place_and_field_and_does_not_echo() {
        let long = "x".repeat(50_000);
        let text = format!(r#"{{"version":1,"{long}":1}}"#);
        let error = ask(&json!({"runtimeConfig": {POD_ANNOTATIONS: {ANNOTATION: text}}})).unwrap_err();
        assert_eq!(error.code, Code::INVALID_CONFIG);
        assert!(error.msg.starts_with("annotation tapvisor.io/wiring: ") && error.msg.len() < 500, "{error}");
        let error =
            ask(&json!({"args": {"cni": {"wiring": {"version": 3, "owner": {"uid":1,"gid":1}, "interfaces": []}}}}))
                .unwrap_err();
        assert!(error.msg.starts_with("args.cni.wiring: version: 3"), "{error}");
    }

    // spec: CNI-CONF
    #[test]
    fn other_annotations_may_be_large_and_strange() {
        let annotations = json!({"a\u{7}": "y".repeat(400_000), ANNOTATION: REQUEST, "z": "\u{1f600}"});
        assert!(ask(&json!({"runtimeConfig": {POD_ANNOTATIONS: annotations}})).unwrap().is_some());
    }
}
