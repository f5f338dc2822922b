//! nft tables read back from the kernel.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use terms::IfName;

use super::Linux;
use super::steps::Bus;
use crate::attributes::Writer;
use crate::attributes::{attribute, attributes_of, text};
use crate::facts::{Ask, Facts};
use crate::kernel::KernelError;
use crate::nft::batch::{message_start, successor};
use crate::nft::decode::{DecodeContext, decode};
use crate::nft::element_bytes::{ElementKinds, Encoded, decode_data};
use crate::nft::encoding::kinds_of;
use crate::nft::uapi::{chain, data, element, elements, hook, list, rule, set, table};
use crate::nft::{
    Base, ChainFacts, ChainKind, ElementFacts, Family, Hook, LinkIndices, Policy, RuleFacts, SetFacts, TableFacts,
    TableId,
};

/// `struct nfgenmsg`.
pub(super) const GENERIC_BYTES: usize = 4;

/// NFPROTO_UNSPEC of `linux/netfilter.h`.
const ALL_FAMILIES: u8 = 0;

/// A set as listed, its elements in bytes.
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) unnamed: bool,
    /// In the order of their keys.
    pub(super) elements: Vec<Encoded>,
    /// Milliseconds until each vanishes, in the same order.
    expires: Vec<Option<u64>>,
    kinds: (u32, u32),
    dynamic: bool,
    interval: bool,
}

impl Listed {
    fn facts(self) -> SetFacts {
        let kinds = ElementKinds { key: kinds_of(self.kinds.0), data: kinds_of(self.kinds.1) };
        let elements = self.elements.iter().zip(self.expires);
        let elements = elements
            .map(|(element, expires_milliseconds)| ElementFacts { expires_milliseconds, ..kinds.decode(element) });
        SetFacts { name: self.name, dynamic: self.dynamic, elements: elements.collect() }
    }
}

impl Linux<'_> {
    /// A table with all it holds; `None` if there is none of that name.
    #[cold]
    pub(super) fn read_table(&mut self, id: &TableId) -> Result<Option<TableFacts>, KernelError> {
        let there = self.list(id, libc::NFT_MSG_GETTABLE, NLM_F_ACK, &[(table::NAME, &id.name)], |_| Some(()));
        match there {
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
            other => other?,
        };
        let sets = self.read_sets(id)?;
        // Only there do rules name devices by their index.
        let links = if id.family == Family::Netdev { self.read_links(&Ask::default())? } else { Vec::new() };
        let links = Facts { links, ..Facts::default() };
        let mut chains: Vec<ChainFacts> =
            self.list(id, libc::NFT_MSG_GETCHAIN, NLM_F_DUMP, &[(chain::TABLE, &id.name)], |bytes| {
                // The kernel lists the chains of all tables of the family.
                (attribute(bytes, chain::TABLE).map(text)? == id.name).then(|| read_chain(bytes, id.family))
            })?;
        let rules = self.list(id, libc::NFT_MSG_GETRULE, NLM_F_DUMP, &[(rule::TABLE, &id.name)], |bytes| {
            Some((attribute(bytes, rule::CHAIN).map(text)?, read_rule(bytes, id.family, &sets, &links)))
        })?;
        for (name, rule) in rules {
            if let Some(chain) = chains.iter_mut().find(|chain| chain.name == name) {
                chain.rules.push(rule);
            }
        }
        let sets = sets.into_iter().filter(|set| !set.unnamed).map(Listed::facts).collect();
        Ok(Some(TableFacts { id: id.clone(), chains, sets }))
    }

    /// The tables of all families and owners that have a chain at one of some hooks, without what they hold.
    ///
    /// # Errors
    /// When the kernel refuses, for want of nf_tables or CAP_NET_ADMIN.
    pub fn tables_at(&mut self, wanted: &[Hook]) -> Result<Vec<TableId>, KernelError> {
        let sequence = self.channel.next_sequence();
        let (subsystem, kind) = (libc::NFNL_SUBSYS_NFTABLES.to_le_bytes()[0], libc::NFT_MSG_GETCHAIN.to_le_bytes()[0]);
        let ask = request(subsystem, kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, ALL_FAMILIES, |_| {});
        let mut found = self.channel.dump(Bus::Netfilter, &ask, sequence, |frame| {
            let bytes = frame.payload.get(GENERIC_BYTES..).unwrap_or_default();
            let Some(family) = frame.payload.first().and_then(|number| Family::of(*number)) else { return Ok(None) };
            let is_there = read_chain(bytes, family).base.is_some_and(|base| wanted.contains(&base.hook));
            let name = attribute(bytes, chain::TABLE).map(text).filter(|_| is_there);
            Ok(name.map(|name| TableId { family, name }))
        })?;
        found.sort();
        found.dedup();
        Ok(found)
    }

    pub(super) fn read_sets(&mut self, id: &TableId) -> Result<Vec<Listed>, KernelError> {
        let mut sets = self.list(id, libc::NFT_MSG_GETSET, NLM_F_DUMP, &[(set::TABLE, &id.name)], |bytes| {
            let number = |kind| attribute(bytes, kind)?.first_chunk().copied().map(u32::from_be_bytes);
            let flags = number(set::FLAGS).unwrap_or_default();
            let has = |flag: libc::c_int| flags & flag.cast_unsigned() != 0;
            let name = attribute(bytes, set::NAME).map(text)?;
            Some(Listed {
                name,
                unnamed: has(libc::NFT_SET_ANONYMOUS),
                elements: Vec::new(),
                expires: Vec::new(),
                kinds: (number(set::KEY_TYPE).unwrap_or_default(), number(set::DATA_TYPE).unwrap_or_default()),
                dynamic: has(libc::NFT_SET_EVAL),
                interval: has(libc::NFT_SET_INTERVAL),
            })
        })?;
        for set in &mut sets {
            let wanted = [(elements::TABLE, id.name.as_str()), (elements::SET, set.name.as_str())];
            let mut found = Vec::new();
            self.list(id, libc::NFT_MSG_GETSETELEM, NLM_F_DUMP, &wanted, |bytes| {
                let all = attributes_of(attribute(bytes, elements::ELEMENTS)?);
                found.extend(all.filter(|(kind, _)| *kind == list::ELEM).filter_map(|(_, one)| read_element(one)));
                None::<()>
            })?;
            (set.elements, set.expires) = paired(found, set.interval).into_iter().unzip();
        }
        Ok(sets)
    }

    /// The tables of all families.
    pub(super) fn read_table_ids(&mut self) -> Result<Vec<TableId>, KernelError> {
        let sequence = self.channel.next_sequence();
        let (subsystem, kind) = (libc::NFNL_SUBSYS_NFTABLES.to_le_bytes()[0], libc::NFT_MSG_GETTABLE.to_le_bytes()[0]);
        let ask = request(subsystem, kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, ALL_FAMILIES, |_| {});
        self.channel.dump(Bus::Netfilter, &ask, sequence, |frame| {
            let family = frame.payload.first().copied().and_then(Family::of);
            let attributes = frame.payload.get(GENERIC_BYTES..).unwrap_or_default();
            Ok(family
                .zip(attribute(attributes, table::NAME))
                .map(|(family, name)| TableId { family, name: text(name) }))
        })
    }

    /// Asks nf_tables for a list and reads the attributes of each answer.
    pub(super) fn list<T>(
        &mut self,
        id: &TableId,
        kind: libc::c_int,
        flags: u16,
        wanted: &[(u16, &str)],
        mut read: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        let sequence = self.channel.next_sequence();
        let (subsystem, kind) = (libc::NFNL_SUBSYS_NFTABLES.to_le_bytes()[0], kind.to_le_bytes()[0]);
        let ask = request(subsystem, kind, NLM_F_REQUEST | flags, sequence, id.family.number(), |writer| {
            wanted.iter().for_each(|(kind, name)| writer.text(*kind, name));
        });
        self.channel.dump(Bus::Netfilter, &ask, sequence, |frame| {
            Ok(read(frame.payload.get(GENERIC_BYTES..).unwrap_or_default()))
        })
    }
}

/// One nfnetlink message outside a batch.
pub(super) fn request(
    subsystem: u8,
    kind: u8,
    flags: u16,
    sequence: u32,
    family: u8,
    fill: impl FnOnce(&mut Writer),
) -> Vec<u8> {
    /// The longest name that a table or set may have, twice: what requests name.
    const ROOM_BYTES: usize = 512;
    let mut writer = Writer { bytes: Vec::with_capacity(ROOM_BYTES) };
    let kind = u16::from_be_bytes([subsystem, kind]);
    writer.bytes.extend_from_slice(&message_start([kind, flags], sequence, [family, 0], 0));
    fill(&mut writer);
    let length = u32::try_from(writer.bytes.len()).unwrap_or(u32::MAX).to_ne_bytes();
    writer.bytes.iter_mut().zip(length).for_each(|(place, byte)| *place = byte);
    writer.bytes
}

pub(super) fn read_chain(bytes: &[u8], family: Family) -> ChainFacts {
    let base = attribute(bytes, chain::HOOK).and_then(|inside| {
        let number = |kind| attribute(inside, kind)?.first_chunk().copied().map(u32::from_be_bytes);
        let policy = attribute(bytes, chain::POLICY).and_then(|policy| policy.first_chunk().copied());
        Some(Base {
            kind: match attribute(bytes, chain::TYPE).map(text)?.as_str() {
                "nat" => ChainKind::Nat,
                "route" => ChainKind::Route,
                _ => ChainKind::Filter,
            },
            hook: Hook::of(number(hook::NUMBER)?, family)?,
            priority: number(hook::PRIORITY)?.cast_signed(),
            device: attribute(inside, hook::DEVICE).and_then(|name| text(name).parse::<IfName>().ok()),
            policy: match policy.map(i32::from_be_bytes) {
                Some(libc::NF_DROP) => Policy::Drop,
                _ => Policy::Accept,
            },
        })
    });
    ChainFacts { name: attribute(bytes, chain::NAME).map(text).unwrap_or_default(), base, rules: Vec::new() }
}

fn read_rule(bytes: &[u8], family: Family, sets: &[Listed], links: &dyn LinkIndices) -> RuleFacts {
    let unnamed =
        |name: &str, _| sets.iter().find(|set| set.unnamed && set.name == name).map(|set| set.elements.as_slice());
    let expressions = attribute(bytes, rule::EXPRESSIONS).unwrap_or_default();
    let (statements, counter) = decode(expressions, &DecodeContext { family, links, unnamed: &unnamed });
    // Type 0, length, text with closing NUL (nftables' `udata.h`).
    let comment = attribute(bytes, rule::USERDATA).and_then(|data| match data {
        [0, length, words @ ..] => words.get(..usize::from(*length)).map(text),
        _ => None,
    });
    let handle = attribute(bytes, rule::HANDLE).and_then(|handle| handle.first_chunk().copied());
    RuleFacts { handle: handle.map_or(0, u64::from_be_bytes), comment, counter, statements }
}
struct ListedElement {
    encoded: Encoded,
    expires_milliseconds: Option<u64>,
    /// It only says that a range ends before it.
    is_end: bool,
}

fn read_element(bytes: &[u8]) -> Option<ListedElement> {
    let flags = attribute(bytes, element::FLAGS).and_then(|flags| flags.first_chunk().copied());
    let expiration = attribute(bytes, element::EXPIRATION).and_then(|time| time.first_chunk().copied());
    let encoded = Encoded {
        key: attribute(attribute(bytes, element::KEY)?, data::VALUE)?.to_vec(),
        key_end: attribute(bytes, element::KEY_END).and_then(|end| attribute(end, data::VALUE)).map(<[u8]>::to_vec),
        data: attribute(bytes, element::DATA).and_then(decode_data),
    };
    let is_end = flags.map_or(0, u32::from_be_bytes) & libc::NFT_SET_ELEM_INTERVAL_END.cast_unsigned() != 0;
    Some(ListedElement { encoded, expires_milliseconds: expiration.map(u64::from_be_bytes), is_end })
}

/// Sorts elements by key and joins each range's two halves; with each, the milliseconds until it vanishes.
fn paired(mut found: Vec<ListedElement>, interval: bool) -> Vec<(Encoded, Option<u64>)> {
    // Of equal keys the end of one range comes before the beginning of the next.
    found.sort_by(|one, other| one.encoded.key.cmp(&other.encoded.key).then(other.is_end.cmp(&one.is_end)));
    let is_whole = |one: &ListedElement| !interval || one.encoded.key_end.is_some();
    let ends: Vec<_> = found.iter().filter(|one| one.is_end).map(|one| one.encoded.key.clone()).collect();
    let starts = found.into_iter().filter(|one| !one.is_end);
    let starts = starts.map(|mut one| {
        if !is_whole(&one) {
            let key = &one.encoded.key;
            let end = ends.iter().find(|end| *end > key).and_then(|end| predecessor(end));
            one.encoded.key_end = Some(end.unwrap_or_else(|| vec![0xff; key.len()]));
        }
        (one.encoded, one.expires_milliseconds)
    });
    starts.collect()
}

/// The next lower value of a number in network order; `None` before the lowest.
fn predecessor(bytes: &[u8]) -> Option<Vec<u8>> {
    let complement = |bytes: &[u8]| bytes.iter().map(|byte| !byte).collect::<Vec<_>>();
    successor(&complement(bytes)).map(|next| complement(&next))
}
