//! Rules and elements in canonical text, equal for what we would write and what the kernel lists.

use super::encode::{Encoded, EncodedData};
use super::uapi::{counter, data, expr, list, lookup, verdict};
use super::{Counter, ElementFacts, Verdict};
use crate::attributes::{attribute, attributes_of, text};
use crate::hex::hex;

/// NFTA_DYNSET_SET_ID: like NFTA_LOOKUP_SET_ID it means something in its own transaction only.
pub(crate) const DYNSET_SET_ID: u16 = 2;

/// How the elements of a set made on the fly are found: by its name, and by its number where there is one.
pub(crate) type Contents<'a> = dyn Fn(&str, Option<u32>) -> Option<String> + 'a;

/// The lines of a rule's expressions, and what its first counter has seen.
pub(crate) fn body(expressions: &[u8], contents: &Contents<'_>) -> (Vec<String>, Option<Counter>) {
    let mut first_counter = None;
    let lines = attributes_of(expressions).filter(|(kind, _)| *kind == list::ELEM).map(|(_, expression)| {
        let name = attribute(expression, expr::NAME).map(text).unwrap_or_default();
        let inside = attribute(expression, expr::DATA).unwrap_or_default();
        if name == "counter" {
            let number = |kind| attribute(inside, kind).and_then(|bytes| bytes.first_chunk().copied());
            first_counter = first_counter.or(Some(Counter {
                packets: number(counter::PACKETS).map_or(0, u64::from_be_bytes),
                bytes: number(counter::BYTES).map_or(0, u64::from_be_bytes),
            }));
            return name;
        }
        line(&name, inside, contents)
    });
    (lines.collect(), first_counter)
}

/// One expression: its attributes by number, without those that are zero (absent and zero mean the same to nf_tables).
fn line(name: &str, inside: &[u8], contents: &Contents<'_>) -> String {
    let mut attributes: Vec<_> =
        attributes_of(inside).filter(|(_, value)| value.iter().any(|byte| *byte != 0)).collect();
    attributes.sort_by_key(|(kind, _)| *kind);
    let mut line = name.to_owned();
    for (kind, value) in attributes {
        match (name, kind) {
            ("lookup", lookup::SET_ID) | ("dynset", DYNSET_SET_ID) => {}
            ("lookup", lookup::SET) => {
                let set = text(value);
                let number = attribute(inside, lookup::SET_ID).and_then(|bytes| bytes.first_chunk().copied());
                // The kernel numbers what `__set%d` and `__map%d` asked it to name.
                if set.starts_with("__set") || set.starts_with("__map") {
                    let found = contents(&set, number.map(u32::from_be_bytes));
                    line.push_str(&format!(" {{{}}}", found.unwrap_or_default()));
                } else {
                    line.push_str(&format!(" @{set}"));
                }
            }
            _ => line.push_str(&format!(" {kind}={}", hex(value))),
        }
    }
    line
}

/// Elements as one text, for sets made on the fly.
pub(crate) fn joined(elements: &[ElementFacts]) -> String {
    let mut words: Vec<_> = elements
        .iter()
        .map(|element| {
            let end = element.key_end.as_ref().map(|end| format!("-{end}")).unwrap_or_default();
            let data = element.data.as_ref().map(|data| format!(":{data}")).unwrap_or_default();
            format!("{}{end}{data}", element.key)
        })
        .collect();
    words.sort();
    words.join(",")
}

/// The facts that an element will be.
pub(crate) fn element_facts(encoded: &Encoded) -> ElementFacts {
    ElementFacts {
        key: hex(&encoded.key),
        key_end: encoded.key_end.as_deref().map(hex),
        data: encoded.data.as_ref().map(|data| match data {
            EncodedData::Value(bytes) => hex(bytes),
            EncodedData::Verdict(verdict) => verdict_text(verdict),
        }),
        expires_milliseconds: None,
    }
}

/// What an attribute with data (struct nft_data) holds.
pub(crate) fn data_text(inside: &[u8]) -> Option<String> {
    if let Some(bytes) = attribute(inside, data::VALUE) {
        return Some(hex(bytes));
    }
    let inside = attribute(inside, data::VERDICT)?;
    let code = attribute(inside, verdict::CODE)?.first_chunk().copied().map(i32::from_be_bytes)?;
    let chain = || attribute(inside, verdict::CHAIN).map(text).unwrap_or_default();
    let verdict = match code {
        libc::NF_ACCEPT => Verdict::Accept,
        libc::NF_DROP => Verdict::Drop,
        libc::NFT_RETURN => Verdict::Return,
        libc::NFT_CONTINUE => Verdict::Continue,
        libc::NFT_JUMP => Verdict::Jump(chain()),
        libc::NFT_GOTO => Verdict::Goto(chain()),
        other => return Some(format!("verdict {other}")),
    };
    Some(verdict_text(&verdict))
}

fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}
