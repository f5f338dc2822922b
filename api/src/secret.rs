//! Secret and ConfigMap of v1, as far as manifests refer to them.

use std::collections::BTreeMap;

use crate::metadata::{self, Metadata};
use crate::reader::Fields;

/// Named contents that are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Identity, labels and annotations.
    pub metadata: Metadata,
    /// Contents by key, decoded.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// Named contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMap {
    /// Identity, labels and annotations.
    pub metadata: Metadata,
    /// Contents by key, decoded.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys: Vec<_> = self.data.keys().collect();
        f.debug_struct("Secret").field("metadata", &self.metadata).field("keys", &keys).finish_non_exhaustive()
    }
}

impl Secret {
    pub(crate) fn read(object: &Fields<'_>) -> Option<Self> {
        let metadata = metadata::read(object);
        object.text("type");
        object.boolean("immutable");
        let mut data = decoded(object, "data");
        // stringData wins where both have a key.
        data.extend(texts(object, "stringData"));
        Some(Self { metadata: metadata?, data })
    }
}

impl ConfigMap {
    pub(crate) fn read(object: &Fields<'_>) -> Option<Self> {
        let metadata = metadata::read(object);
        object.boolean("immutable");
        let mut data = decoded(object, "binaryData");
        for (key, value) in texts(object, "data") {
            if data.insert(key.clone(), value).is_some() {
                object.node().named("binaryData").named(&key).refuse("is in data too");
            }
        }
        Some(Self { metadata: metadata?, data })
    }
}

fn texts(object: &Fields<'_>, name: &'static str) -> BTreeMap<String, Vec<u8>> {
    metadata::texts(object, name).into_iter().map(|(key, text)| (key, text.into_bytes())).collect()
}

fn decoded(object: &Fields<'_>, name: &'static str) -> BTreeMap<String, Vec<u8>> {
    let entries = object.field(name).map(|node| node.entries()).unwrap_or_default();
    let decode = |(key, node): (&str, crate::reader::Node<'_>)| {
        let bytes = machine::base64::decode(node.text()?);
        if bytes.is_none() {
            node.refuse("must be base64");
        }
        Some((key.to_owned(), bytes?))
    };
    entries.into_iter().filter_map(decode).collect()
}
