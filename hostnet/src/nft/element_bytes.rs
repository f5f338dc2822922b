//! Elements of sets and maps in bytes, and back.

use super::encoding::NftError;
use super::uapi::{data, verdict};
use super::{Element, ElementData, ElementFacts, ElementKey, Set, SetData, Value, ValueKind, Verdict};
use crate::attributes::{attribute, text};

/// A set's element in bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Encoded {
    pub(crate) key: Vec<u8>,
    pub(crate) key_end: Option<Vec<u8>>,
    pub(crate) data: Option<EncodedData>,
}

/// What a map yields, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EncodedData {
    Value(Vec<u8>),
    Verdict(Verdict),
}

/// Encodes an element after its set's declaration.
pub(crate) fn encode_element(set: &Set, element: &Element) -> Result<Encoded, NftError> {
    let place = SetName(&set.name);
    let wrong = |why: &str| NftError::Other(format!("an element of {place:?} {why}"));
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
        let is_part = set.key.len() > 1;
        append(&mut key, &kind.encoding().encode(from, &place)?, is_part);
        if set.flags.interval {
            append(&mut end, &kind.encoding().encode(to, &place)?, is_part);
        }
    }
    if is_range && !set.flags.interval {
        return Err(wrong("is a range, but the set takes none"));
    }
    let data = match (&set.data, &element.data) {
        (None, None) => None,
        (Some(SetData::Verdict), Some(ElementData::Verdict(verdict))) => Some(EncodedData::Verdict(verdict.clone())),
        (Some(SetData::Values(kinds)), Some(ElementData::Values(values))) if kinds.len() == values.len() => {
            let mut bytes = Vec::new();
            for (kind, value) in kinds.iter().zip(values) {
                append(&mut bytes, &kind.encoding().encode(value, &place)?, kinds.len() > 1);
            }
            Some(EncodedData::Value(bytes))
        }
        // A removal names the key alone.
        (Some(_), None) => None,
        _ => return Err(wrong("does not yield what the map is declared to yield")),
    };
    Ok(Encoded { key, key_end: set.flags.interval.then_some(end), data })
}

/// A set's name as errors show it.
struct SetName<'a>(&'a str);

impl std::fmt::Debug for SetName<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "set {}", self.0)
    }
}

/// Appends a value; a part of a concatenation fills whole registers.
fn append(whole: &mut Vec<u8>, part: &[u8], is_part: bool) {
    whole.extend_from_slice(part);
    if is_part {
        whole.resize(whole.len().next_multiple_of(4), 0);
    }
}

/// What an attribute with data (`struct nft_data`) holds; `None` for a verdict that this program does not know.
pub(crate) fn decode_data(inside: &[u8]) -> Option<EncodedData> {
    if let Some(bytes) = attribute(inside, data::VALUE) {
        return Some(EncodedData::Value(bytes.to_vec()));
    }
    let inside = attribute(inside, data::VERDICT)?;
    let chain = || attribute(inside, verdict::CHAIN).map(text).unwrap_or_default();
    let code = attribute(inside, verdict::CODE)?.first_chunk().copied().map(i32::from_be_bytes)?;
    Some(EncodedData::Verdict(match code {
        libc::NF_ACCEPT => Verdict::Accept,
        libc::NF_DROP => Verdict::Drop,
        libc::NFT_RETURN => Verdict::Return,
        libc::NFT_CONTINUE => Verdict::Continue,
        libc::NFT_JUMP => Verdict::Jump(chain()),
        libc::NFT_GOTO => Verdict::Goto(chain()),
        _ => return None,
    }))
}

/// What the bytes of a set's elements are; `None` where a type is one that only other programs use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ElementKinds {
    pub(crate) key: Option<Vec<ValueKind>>,
    pub(crate) data: Option<Vec<ValueKind>>,
}

impl ElementKinds {
    /// Those of a set as it is declared.
    pub(crate) fn of(set: &Set) -> Self {
        let data = match &set.data {
            Some(SetData::Values(kinds)) => Some(kinds.clone()),
            Some(SetData::Verdict) | None => None,
        };
        Self { key: Some(set.key.clone()), data }
    }

    /// The element that the kernel lists with these bytes.
    #[cold]
    pub(crate) fn decode(&self, encoded: &Encoded) -> ElementFacts {
        let from = values(self.key.as_deref(), &encoded.key);
        let key = match &encoded.key_end {
            Some(end) if *end != encoded.key => {
                let to = values(self.key.as_deref(), end);
                let part = |(from, to)| if from == to { ElementKey::Is(from) } else { ElementKey::Range(from, to) };
                from.into_iter().zip(to).map(part).collect()
            }
            _ => from.into_iter().map(ElementKey::Is).collect(),
        };
        let data = encoded.data.as_ref().map(|data| match data {
            EncodedData::Value(bytes) => ElementData::Values(values(self.data.as_deref(), bytes)),
            EncodedData::Verdict(verdict) => ElementData::Verdict(verdict.clone()),
        });
        ElementFacts { key, data, expires_milliseconds: None }
    }
}

/// The parts of a key or datum, those of a concatenation padded; all of it as bytes where the kinds do not fit.
fn values(kinds: Option<&[ValueKind]>, bytes: &[u8]) -> Vec<Value> {
    let (mut rest, mut values) = (bytes, Vec::new());
    for kind in kinds.unwrap_or_default() {
        let wanted = kind.encoding().bytes();
        let padded = if kinds.is_some_and(|kinds| kinds.len() > 1) { wanted.next_multiple_of(4) } else { wanted };
        let Some((part, more)) = rest.split_at_checked(padded) else { break };
        values.push(kind.encoding().decode(part.get(..wanted).unwrap_or_default()));
        rest = more;
    }
    let fits = rest.is_empty() && kinds.is_some_and(|kinds| kinds.len() == values.len());
    if fits { values } else { vec![Value::Bytes(bytes.to_vec())] }
}
