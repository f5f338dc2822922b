//! Expressions that compare what was loaded.

use std::net::IpAddr;

use terms::IpNetwork;

use super::super::element_bytes::{Encoded, EncodedData};
use super::super::encoding::{Bytes, Encoding};
use super::super::expression::libc_u32;
use super::super::uapi::{cmp, lookup, range};
use super::super::{Field, Statement, Test, Value, Verdict, VerdictMap};
use super::attributes::Attributes;
use super::{Content, Decoder, is_whole};
use crate::attributes::text;

impl Decoder<'_, '_> {
    pub(super) fn compare(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[cmp::SREG, cmp::OP, cmp::DATA])?;
        let is_equal = match inside.number(cmp::OP) {
            op if op == libc_u32(libc::NFT_CMP_EQ) => true,
            op if op == libc_u32(libc::NFT_CMP_NEQ) => false,
            _ => return None,
        };
        let data = inside.value(cmp::DATA)?;
        let Content::Field { field, bytes, mask } = self.take(inside.slot(cmp::SREG)?)? else { return None };
        let test = match mask {
            Some(mask) => masked(field, &mask, data, is_equal)?,
            None => plain(field, bytes, data, is_equal)?,
        };
        if matches!(test, Test::Is(_)) {
            self.known.extend(Bytes::of(data).map(|bytes| (field, bytes)));
        }
        self.push(&[field], Statement::Match { fields: vec![field], test });
        Some(())
    }

    pub(super) fn range(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[range::SREG, range::OP, range::FROM, range::TO])?;
        let (from, to) = (inside.value(range::FROM)?, inside.value(range::TO)?);
        let field = self.take_field(inside.slot(range::SREG)?)?;
        if inside.number(range::OP) != libc_u32(libc::NFT_RANGE_EQ) || !is_whole(field, from.len()) {
            return None;
        }
        let decode = |bytes| field.encoding().decode(bytes);
        let test = Test::Range(decode(from), decode(to));
        self.push(&[field], Statement::Match { fields: vec![field], test });
        Some(())
    }

    pub(super) fn look_up(&mut self, inside: Attributes<'_>) -> Option<()> {
        inside.only(&[lookup::SET, lookup::SREG, lookup::DREG, lookup::SET_ID, lookup::FLAGS])?;
        // NFT_LOOKUP_F_INV
        let is_negated = match inside.number(lookup::FLAGS) {
            0 => false,
            1 => true,
            _ => return None,
        };
        let name = text(inside.bytes(lookup::SET)?);
        let number = inside.bytes(lookup::SET_ID).map(|_| inside.number(lookup::SET_ID));
        // The kernel names what `__set%d` and `__map%d` asked it to name; sets of users cannot be called so.
        let is_unnamed = name.starts_with("__set") || name.starts_with("__map");
        let elements = is_unnamed.then(|| (self.context.unnamed)(&name, number).unwrap_or_default());
        let fields = self.key(inside.slot(lookup::SREG)?);
        if inside.bytes(lookup::DREG).is_some() {
            return match inside.slot(lookup::DREG) {
                // What a map yields where the key is not in it: no kernel takes that.
                _ if is_negated => None,
                Some(slot) if elements.is_none() => {
                    self.put(slot, Content::Mapped { fields: fields?, map: name });
                    Some(())
                }
                Some(_) => None,
                None if !inside.is_verdict(lookup::DREG) => None,
                None => {
                    let fields = fields.unwrap_or_default();
                    let map = elements
                        .map_or(VerdictMap::Named(name), |elements| VerdictMap::Inline(verdicts(&fields, elements)));
                    self.push(&fields.clone(), Statement::VerdictMap { fields, map });
                    Some(())
                }
            };
        }
        let fields = fields?;
        let test = match (elements, is_negated) {
            (None, false) => Test::InSet(name),
            (None, true) => Test::NotInSet(name),
            (Some(elements), false) => Test::OneOf(values(&fields, elements)?),
            (Some(elements), true) => Test::NoneOf(values(&fields, elements)?),
        };
        self.push(&fields.clone(), Statement::Match { fields, test });
        Some(())
    }
}

/// A comparison of all that was loaded.
fn plain(field: Field, loaded: usize, data: &[u8], is_equal: bool) -> Option<Test> {
    let encoding = field.encoding();
    if !is_whole(field, loaded) {
        // The beginning of an address.
        let bits = u8::try_from(loaded * 8).ok().filter(|_| data.len() == loaded)?;
        return Some(within(network(encoding, data, bits)?, is_equal));
    }
    let test = match data {
        _ if data.len() == loaded || matches!(encoding, Encoding::Bytes(_)) => encoding.decode(data),
        // iptables compares a name with its NUL, or without it if only the beginning must be the same.
        [name @ .., 0] if encoding == Encoding::Name && !name.contains(&0) => {
            let whole = [data, &[0; 16]].concat();
            encoding.decode(whole.get(..encoding.bytes())?)
        }
        start if encoding == Encoding::Name && is_equal && !start.contains(&0) => {
            return Some(Test::NameStart(String::from_utf8(start.to_vec()).ok()?));
        }
        _ => return None,
    };
    Some(if is_equal { Test::Is(test) } else { Test::IsNot(test) })
}

/// A comparison of some bits of what was loaded.
fn masked(field: Field, mask: &[u8], data: &[u8], is_equal: bool) -> Option<Test> {
    // A bit outside of the mask is never set: such a rule never applies.
    if data.len() != mask.len() || data.iter().zip(mask).any(|(data, mask)| data & !mask != 0) {
        return None;
    }
    let encoding = field.encoding();
    if matches!(encoding, Encoding::Ipv4 | Encoding::Ipv6) {
        return Some(within(network(encoding, data, prefix(mask)?)?, is_equal));
    }
    let number = |bytes| match encoding.decode(bytes) {
        Value::Number(number) => Some(number),
        _ => None,
    };
    match (number(mask)?, number(data)?, is_equal) {
        (mask, 0, true) => Some(Test::NoBit(mask)),
        (mask, 0, false) => Some(Test::AnyBit(mask)),
        (mask, value, true) => Some(Test::Bits { mask, value }),
        _ => None,
    }
}

fn within(network: IpNetwork, is_equal: bool) -> Test {
    if is_equal { Test::Within(network) } else { Test::NotWithin(network) }
}

/// The network of an address whose first bytes are known.
fn network(encoding: Encoding, start: &[u8], prefix: u8) -> Option<IpNetwork> {
    let whole = [start, &[0; 16]].concat();
    let address: IpAddr = match encoding {
        Encoding::Ipv4 => <[u8; 4]>::try_from(whole.get(..4)?).ok()?.into(),
        Encoding::Ipv6 => <[u8; 16]>::try_from(whole.get(..16)?).ok()?.into(),
        _ => return None,
    };
    IpNetwork::new(address, prefix).ok()
}

/// The length of a mask's prefix; `None` if set bits follow clear ones.
fn prefix(mask: &[u8]) -> Option<u8> {
    let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
    let set: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let first_gap = mask.iter().position(|byte| *byte != 0xff).unwrap_or(mask.len());
    let is_contiguous = ones == set && mask.iter().skip(first_gap + 1).all(|byte| *byte == 0);
    is_contiguous.then(|| u8::try_from(ones).ok())?
}

/// The elements of a set without a name, in order; `None` where one is no single value of the field.
#[cold]
fn values(fields: &[Field], elements: &[Encoded]) -> Option<Vec<Value>> {
    let [field] = fields else { return None };
    let is_single = |element: &Encoded| element.key_end.as_ref().is_none_or(|end| *end == element.key);
    let values = elements.iter().map(|one| is_single(one).then(|| field.encoding().decode(&one.key)));
    let mut values = values.collect::<Option<Vec<_>>>()?;
    values.sort();
    Some(values)
}

/// The pairs of a map without a name, in order.
fn verdicts(fields: &[Field], elements: &[Encoded]) -> Vec<(Vec<Value>, Verdict)> {
    let pair = |element: &Encoded| match &element.data {
        Some(EncodedData::Verdict(verdict)) => Some((key(fields, element), verdict.clone())),
        _ => None,
    };
    let mut pairs: Vec<_> = elements.iter().filter_map(pair).collect();
    pairs.sort();
    pairs
}

fn key(fields: &[Field], element: &Encoded) -> Vec<Value> {
    if element.key_end.as_ref().is_some_and(|end| *end != element.key) {
        return vec![Value::Bytes([element.key.as_slice(), element.key_end.as_deref().unwrap_or_default()].concat())];
    }
    let (mut rest, mut values) = (element.key.as_slice(), Vec::new());
    for field in fields {
        let (bytes, is_last) = (field.encoding().bytes(), fields.len() == 1);
        let padded = if is_last { bytes } else { bytes.next_multiple_of(4) };
        let Some((part, more)) = rest.split_at_checked(padded) else { break };
        values.push(field.encoding().decode(part.get(..bytes).unwrap_or_default()));
        rest = more;
    }
    if rest.is_empty() && !values.is_empty() { values } else { vec![Value::Bytes(element.key.clone())] }
}
