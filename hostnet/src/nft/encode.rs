//! Elements of sets and maps in bytes.

use super::encoding::{NftError, pad};
use super::{Element, ElementData, ElementKey, Set, SetData, Verdict};

/// A set's element in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) key: Vec<u8>,
    pub(crate) key_end: Option<Vec<u8>>,
    pub(crate) data: Option<EncodedData>,
}

/// What a map yields, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EncodedData {
    Value(Vec<u8>),
    Verdict(Verdict),
}

/// Encodes an element after its set's declaration.
pub(crate) fn encode_element(set: &Set, element: &Element) -> Result<Encoded, NftError> {
    let place = format!("set {}", set.name);
    let wrong = |why: &str| NftError::Other(format!("an element of {place} {why}"));
    if element.key.len() != set.key.len() {
        return Err(wrong("has not as many parts as the set's key"));
    }
    let (mut key, mut end, mut is_range) = (Vec::new(), Vec::new(), false);
    for (kind, part) in set.key.iter().zip(&element.key) {
        let (from, to) = match part {
            ElementKey::Is(value) => (value, value),
            ElementKey::Range(from, to) => {
                is_range = true;
                (from, to)
            }
        };
        let encode = |value| {
            kind.encoding().encode(value, &place).map(|bytes| if set.key.len() > 1 { pad(bytes) } else { bytes })
        };
        key.extend(encode(from)?);
        end.extend(encode(to)?);
    }
    if is_range && !set.flags.interval {
        return Err(wrong("is a range, but the set takes none"));
    }
    let data = match (&set.data, &element.data) {
        (None, None) => None,
        (Some(SetData::Verdict), Some(ElementData::Verdict(verdict))) => Some(EncodedData::Verdict(verdict.clone())),
        (Some(SetData::Values(kinds)), Some(ElementData::Values(values))) if kinds.len() == values.len() => {
            let parts = kinds.iter().zip(values).map(|(kind, value)| {
                kind.encoding().encode(value, &place).map(|bytes| if kinds.len() > 1 { pad(bytes) } else { bytes })
            });
            Some(EncodedData::Value(parts.collect::<Result<Vec<_>, _>>()?.concat()))
        }
        // A removal names the key alone.
        (Some(_), None) => None,
        _ => return Err(wrong("does not yield what the map is declared to yield")),
    };
    Ok(Encoded { key, key_end: set.flags.interval.then_some(end), data })
}
