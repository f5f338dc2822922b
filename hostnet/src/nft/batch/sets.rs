//! Sets and their elements in a batch.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};

use super::super::element_bytes::{Encoded, EncodedData, encode_element};
use super::super::encoding::{NftError, key_bytes, type_number};
use super::super::expression::{libc_u32, value, verdict_data};
use super::super::uapi::{self, data, desc, element, elements, list, set};
use super::super::{Set, SetData, TableId, ValueKind};
use super::{Batch, comment_bytes, write_comment};
use crate::attributes::Writer;

/// Elements that travel in one message: well below the 64 KiB that an attribute can hold.
const ELEMENTS_PER_MESSAGE: usize = 200;

/// For `nft list`, which takes a bare number to be in network order: type 0 (key byte order), length, 1 (host order), of
/// nftables' `udata.h`.
const HOST_ORDER: [u8; 6] = {
    let [a, b, c, d] = 1u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};

impl Batch<'_> {
    pub(super) fn set(&mut self, id: &TableId, new: &Set, number: Option<u32>, extra: u32) -> Result<(), NftError> {
        let number = number.unwrap_or_else(|| self.set_number());
        // For ranges of concatenations the kernel takes another kind of set (pipapo), if flag and part lengths say so.
        let ranges_of_parts = new.flags.interval && new.key.len() > 1;
        let flags = flags(new) | extra | if ranges_of_parts { uapi::SET_CONCAT } else { 0 };
        if new.key.is_empty() {
            return Err(NftError::Other(format!("set {id} {} has no key", new.name)));
        }
        let place = || format!("set {id} {}", new.name);
        self.message(libc::NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_EXCL, id.family, place, |writer| {
            writer.text(set::TABLE, &id.name);
            writer.text(set::NAME, &new.name);
            writer.numbers([
                (set::FLAGS, flags),
                (set::KEY_TYPE, type_number(&new.key)),
                (set::KEY_LEN, key_bytes(&new.key)),
            ]);
            match &new.data {
                Some(SetData::Verdict) => {
                    writer.numbers([(set::DATA_TYPE, libc::NFT_DATA_VERDICT), (set::DATA_LEN, 0)]);
                }
                Some(SetData::Values(kinds)) => {
                    writer.numbers([(set::DATA_TYPE, type_number(kinds)), (set::DATA_LEN, key_bytes(kinds))]);
                }
                None => {}
            }
            writer.u32(set::ID, number);
            if let Some(seconds) = new.timeout_seconds {
                writer.u64(set::TIMEOUT, u64::from(seconds) * 1000);
            }
            if new.key == [ValueKind::Number] {
                writer.raw(set::USERDATA, &HOST_ORDER);
            }
            if ranges_of_parts || new.size.is_some() {
                writer.nest(set::DESC, |writer| describe(writer, new, ranges_of_parts));
            }
        });
        Ok(())
    }

    pub(super) fn set_number(&mut self) -> u32 {
        self.next_set += 1;
        self.next_set
    }

    pub(super) fn elements(
        &mut self,
        kind: libc::c_int,
        flags: u16,
        id: &TableId,
        set: &Set,
        number: Option<u32>,
    ) -> Result<(), NftError> {
        for portion in set.elements.chunks(ELEMENTS_PER_MESSAGE) {
            let encoded = portion.iter().map(|element| {
                let comment =
                    element.comment.as_deref().map(|comment| Ok((comment, comment_bytes(comment)?))).transpose()?;
                encode_element(set, element).map(|encoded| (encoded, comment))
            });
            let encoded = encoded.collect::<Result<Vec<_>, NftError>>()?;
            let place = || format!("elements of set {id} {}", set.name);
            self.message(kind, flags, id.family, place, |writer| {
                writer.text(elements::TABLE, &id.name);
                writer.text(elements::SET, &set.name);
                if let Some(number) = number {
                    writer.u32(elements::SET_ID, number);
                }
                writer.nest(elements::ELEMENTS, |writer| {
                    for (encoded, comment) in &encoded {
                        write_element(writer, encoded, *comment, set.key.len() > 1);
                    }
                });
            });
        }
        Ok(())
    }
}

fn flags(set: &Set) -> u32 {
    let flags = [
        (set.flags.interval, libc::NFT_SET_INTERVAL),
        (set.flags.dynamic, libc::NFT_SET_EVAL),
        (set.data.is_some(), libc::NFT_SET_MAP),
        (set.timeout_seconds.is_some(), libc::NFT_SET_TIMEOUT),
    ];
    flags.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | libc_u32(flag))
}

fn describe(writer: &mut Writer, set: &Set, parts: bool) {
    if let Some(size) = set.size {
        writer.u32(desc::SIZE, size);
    }
    if parts {
        writer.nest(desc::CONCAT, |writer| {
            for kind in &set.key {
                let bytes = u32::try_from(kind.encoding().bytes()).unwrap_or(u32::MAX);
                writer.nest(list::ELEM, |writer| writer.u32(uapi::field::LEN, bytes));
            }
        });
    }
}

/// A range of a lone part is two elements, the second of which says "from here on no more"; a range of a concatenation is one
/// element with two keys.
fn write_element(writer: &mut Writer, encoded: &Encoded, comment: Option<(&str, u8)>, concatenation: bool) {
    writer.nest(list::ELEM, |writer| {
        value(writer, element::KEY, &encoded.key);
        if let (Some(end), true) = (&encoded.key_end, concatenation) {
            value(writer, element::KEY_END, end);
        }
        match &encoded.data {
            Some(EncodedData::Value(bytes)) => value(writer, element::DATA, bytes),
            Some(EncodedData::Verdict(verdict)) => {
                writer.nest(element::DATA, |writer| verdict_data(writer, verdict));
            }
            None => {}
        }
        if let Some((comment, length)) = comment {
            write_comment(writer, element::USERDATA, comment, length);
        }
    });
    // No second element where the range reaches the highest value: nothing is behind it.
    if let (Some(after), false) = (encoded.key_end.as_deref().and_then(successor), concatenation) {
        writer.nest(list::ELEM, |writer| {
            writer.nest(element::KEY, |writer| writer.raw(data::VALUE, &after));
            writer.u32(element::FLAGS, libc_u32(libc::NFT_SET_ELEM_INTERVAL_END));
        });
    }
}

/// The next higher value of a number in network order; `None` after the highest.
pub(crate) fn successor(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return Some(next);
        }
    }
    None
}
