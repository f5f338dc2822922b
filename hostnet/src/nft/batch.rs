//! A transaction as one nfnetlink batch.

mod sets;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use terms::IfName;

use super::compile::{TranslateContext, compile};
use super::encoding::NftError;
use super::expression::libc_u32;
use super::uapi::{chain, elements, hook, rule, set, table};
use super::{Chain, Command, Family, Policy, Rule, Set, Table, TableId, Transaction};
use crate::attributes::Writer;

/// Length and flags of `struct nlmsghdr`.
const LENGTH: std::ops::Range<usize> = 0..4;
const FLAGS: std::ops::Range<usize> = 6..8;

pub(crate) use sets::successor;

/// Room for all of a wiring, and for a rule of it: memory that stays unused costs nothing.
const BATCH_BYTES: usize = 32 * 1024;
const RULE_BYTES: usize = 2048;

/// How the index of a link is found.
pub(crate) type IndexOf<'a> = dyn FnMut(&IfName) -> Result<u32, NftError> + 'a;

pub(crate) struct Batch<'a> {
    writer: Writer,
    first: u32,
    count: u32,
    last_start: usize,
    /// The message whose description is wanted, and the description.
    wanted: Option<u32>,
    found: Option<String>,
    next_set: u32,
    /// The expressions of the rule being compiled: sets without a name go into the batch before it.
    expressions: Writer,
    index_of: &'a mut IndexOf<'a>,
}
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    /// Number of the last command, which is acknowledged.
    pub(crate) last: u32,
    /// Sequence numbers that the messages used, the two brackets included.
    pub(crate) count: u32,
    /// What the wanted message does.
    pub(crate) found: Option<String>,
}

/// Writes a transaction, numbering messages from `first`; `wanted` asks for the description of one.
pub(crate) fn write<'a>(
    transaction: &Transaction,
    first: u32,
    wanted: Option<u32>,
    index_of: &'a mut IndexOf<'a>,
) -> Result<Written, NftError> {
    let writer = Writer { bytes: Vec::with_capacity(BATCH_BYTES) };
    let mut batch = Batch {
        writer,
        first,
        count: 0,
        last_start: 0,
        wanted,
        found: None,
        next_set: 0,
        expressions: Writer { bytes: Vec::with_capacity(RULE_BYTES) },
        index_of,
    };
    batch.bracket(libc::NFNL_MSG_BATCH_BEGIN);
    transaction.commands.iter().try_for_each(|command| batch.command(command))?;
    batch.acknowledge_last();
    let last = first.wrapping_add(batch.count).wrapping_sub(1);
    batch.bracket(libc::NFNL_MSG_BATCH_END);
    Ok(Written { bytes: batch.writer.bytes, last, count: batch.count, found: batch.found })
}

impl Batch<'_> {
    /// NFNL_MSG_BATCH_BEGIN and _END, which carry the subsystem where others carry zero.
    fn bracket(&mut self, kind: libc::c_int) {
        let [low, high, ..] = kind.to_le_bytes();
        let subsystem = u16::from_le_bytes([libc::NFNL_SUBSYS_NFTABLES.to_le_bytes()[0], 0]);
        self.start(u16::from_le_bytes([low, high]), NLM_F_REQUEST, 0, subsystem);
        self.finish();
    }

    /// One message to nf_tables. `what` describes it, should the kernel refuse it.
    fn message(
        &mut self,
        kind: libc::c_int,
        flags: u16,
        family: Family,
        what: impl FnOnce() -> String,
        fill: impl FnOnce(&mut Writer),
    ) {
        if self.wanted == Some(self.first.wrapping_add(self.count)) {
            self.found = Some(what());
        }
        let subsystem = libc::NFNL_SUBSYS_NFTABLES.to_le_bytes()[0];
        let kind = u16::from_be_bytes([subsystem, kind.to_le_bytes()[0]]);
        self.start(kind, NLM_F_REQUEST | flags, family.number(), 0);
        fill(&mut self.writer);
        self.finish();
    }

    fn start(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.last_start = self.writer.bytes.len();
        let sequence = self.first.wrapping_add(self.count);
        self.writer.bytes.extend_from_slice(&message_start([kind, flags], sequence, [family, 0], resource));
        self.count = self.count.wrapping_add(1);
    }

    fn finish(&mut self) {
        let message = self.writer.bytes.get_mut(self.last_start..).unwrap_or_default();
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_ne_bytes();
        if let Some(place) = message.get_mut(LENGTH) {
            place.copy_from_slice(&length);
        }
    }

    /// Only the last command asks for an acknowledgement: refusals come unasked, and this one comes after them all.
    fn acknowledge_last(&mut self) {
        let message = self.writer.bytes.get_mut(self.last_start..).unwrap_or_default();
        if let Some(flags) = message.get_mut(FLAGS).and_then(|flags| flags.first_chunk_mut::<2>()) {
            *flags = (u16::from_ne_bytes(*flags) | NLM_F_ACK).to_ne_bytes();
        }
    }

    fn command(&mut self, command: &Command) -> Result<(), NftError> {
        match command {
            Command::AddTable(table) => {
                self.table(libc::NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, &table.id);
                self.contents(table)?;
            }
            Command::ReplaceTable(table) => {
                self.clear(&table.id);
                self.table(libc::NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, &table.id);
                self.contents(table)?;
            }
            Command::DeleteTable(table) => self.clear(table),
            Command::AddChain { table, chain } => {
                self.chain(table, chain)?;
                chain.rules.iter().try_for_each(|rule| self.rule(table, &chain.name, rule))?;
            }
            Command::DeleteChain { table, chain } => {
                self.flush(table, chain);
                self.message(
                    libc::NFT_MSG_DELCHAIN,
                    0,
                    table.family,
                    || command.to_string(),
                    |writer| {
                        writer.text(chain::TABLE, &table.name);
                        writer.text(chain::NAME, chain);
                    },
                );
            }
            Command::FlushChain { table, chain } => self.flush(table, chain),
            Command::AddRule { table, chain, rule } => self.rule(table, chain, rule)?,
            Command::DeleteRule { table, chain, handle } => {
                self.message(
                    libc::NFT_MSG_DELRULE,
                    0,
                    table.family,
                    || command.to_string(),
                    |writer| {
                        writer.text(rule::TABLE, &table.name);
                        writer.text(rule::CHAIN, chain);
                        writer.u64(rule::HANDLE, *handle);
                    },
                );
            }
            Command::AddElements { table, set } => {
                self.elements(libc::NFT_MSG_NEWSETELEM, NLM_F_CREATE, table, set, None)?;
            }
            Command::DeleteElements { table, set } => {
                self.elements(libc::NFT_MSG_DELSETELEM, 0, table, set, None)?;
            }
            Command::AddSet { table, set } => {
                self.set(table, set, None, 0)?;
                self.elements(libc::NFT_MSG_NEWSETELEM, NLM_F_CREATE, table, set, None)?;
            }
            Command::DeleteSet { table, set } => {
                self.message(
                    libc::NFT_MSG_DELSET,
                    0,
                    table.family,
                    || command.to_string(),
                    |writer| {
                        writer.text(set::TABLE, &table.name);
                        writer.text(set::NAME, set);
                    },
                );
            }
            Command::FlushSet { table, set } => {
                self.message(
                    libc::NFT_MSG_DELSETELEM,
                    0,
                    table.family,
                    || command.to_string(),
                    |writer| {
                        writer.text(elements::TABLE, &table.name);
                        writer.text(elements::SET, set);
                    },
                );
            }
        }
        Ok(())
    }

    fn table(&mut self, kind: libc::c_int, flags: u16, id: &TableId) {
        self.message(kind, flags, id.family, || format!("table {id}"), |writer| writer.text(table::NAME, &id.name));
    }

    /// Adding without NLM_F_EXCL and then deleting removes a table whether it was there or not; "destroy" needs kernel 6.3.
    fn clear(&mut self, id: &TableId) {
        self.table(libc::NFT_MSG_NEWTABLE, NLM_F_CREATE, id);
        self.table(libc::NFT_MSG_DELTABLE, 0, id);
    }

    /// Chains before what refers to them: elements of verdict maps, and rules.
    fn contents(&mut self, table: &Table) -> Result<(), NftError> {
        for declared in &table.sets {
            self.set(&table.id, declared, None, 0)?;
        }
        for chain in &table.chains {
            self.chain(&table.id, chain)?;
        }
        for declared in &table.sets {
            self.elements(libc::NFT_MSG_NEWSETELEM, NLM_F_CREATE, &table.id, declared, None)?;
        }
        for chain in &table.chains {
            for rule in &chain.rules {
                self.rule(&table.id, &chain.name, rule)?;
            }
        }
        Ok(())
    }

    fn chain(&mut self, id: &TableId, new: &Chain) -> Result<(), NftError> {
        let place = || format!("chain {id} {}", new.name);
        let base = new.base.as_ref().map(|base| {
            let number = base.hook.number(id.family);
            number.map(|number| (base, number)).ok_or_else(|| {
                NftError::Other(format!("{}: family {} has no hook {:?}", place(), id.family, base.hook))
            })
        });
        let base = base.transpose()?;
        self.message(libc::NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, id.family, place, |writer| {
            writer.text(chain::TABLE, &id.name);
            writer.text(chain::NAME, &new.name);
            let Some((base, number)) = base else { return };
            writer.nest(chain::HOOK, |writer| {
                writer.numbers([(hook::NUMBER, number), (hook::PRIORITY, base.priority.cast_unsigned())]);
                if let Some(device) = &base.device {
                    writer.text(hook::DEVICE, device.as_str());
                }
            });
            let policy = match base.policy {
                Policy::Accept => libc::NF_ACCEPT,
                Policy::Drop => libc::NF_DROP,
            };
            writer.u32(chain::POLICY, policy.cast_unsigned());
            writer.text(chain::TYPE, base.kind.name());
        });
        Ok(())
    }

    /// Deletes all rules of a chain: a removal that names no rule.
    fn flush(&mut self, id: &TableId, chain: &str) {
        self.message(
            libc::NFT_MSG_DELRULE,
            0,
            id.family,
            || format!("rules of chain {id} {chain}"),
            |writer| {
                writer.text(rule::TABLE, &id.name);
                writer.text(rule::CHAIN, chain);
            },
        );
    }

    fn rule(&mut self, id: &TableId, chain: &str, new: &Rule) -> Result<(), NftError> {
        let named = || format!("rule \"{}\" in chain {id} {chain}", new.comment.as_deref().unwrap_or_default());
        let mut body = std::mem::take(&mut self.expressions);
        body.bytes.clear();
        compile(&mut body, id.family, new, &mut InBatch { batch: self, table: id })
            .map_err(|error| NftError::Other(format!("{}: {error}", named())))?;
        let comment = new.comment.as_deref().map(|comment| Ok((comment, comment_bytes(comment)?))).transpose()?;
        self.message(libc::NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, id.family, named, |writer| {
            writer.text(rule::TABLE, &id.name);
            writer.text(rule::CHAIN, chain);
            writer.raw(rule::EXPRESSIONS, &body.bytes);
            if let Some((comment, length)) = comment {
                write_comment(writer, rule::USERDATA, comment, length);
            }
        });
        self.expressions = body;
        Ok(())
    }
}

/// The head of a message: `struct nlmsghdr` with its length still zero and no port, then `struct nfgenmsg` with the family,
/// version 0 and a resource.
pub(crate) fn message_start(
    [kind, flags]: [u16; 2],
    sequence: u32,
    [family, version]: [u8; 2],
    resource: u16,
) -> [u8; 20] {
    let ([a, b], [c, d], [e, f, g, h]) = (kind.to_ne_bytes(), flags.to_ne_bytes(), sequence.to_ne_bytes());
    let [i, j] = resource.to_be_bytes();
    [0, 0, 0, 0, a, b, c, d, e, f, g, h, 0, 0, 0, 0, family, version, i, j]
}

/// Bytes of a comment with its closing NUL.
fn comment_bytes(comment: &str) -> Result<u8, NftError> {
    // NFT_USERDATA_MAXLEN is 256, of which the type, the length and the NUL take three.
    let length = u8::try_from(comment.len() + 1).ok().filter(|length| *length <= 254);
    length.ok_or_else(|| NftError::Other(format!("the comment {comment:?} is longer than 253 bytes")))
}

/// A comment of so many bytes as `nft` keeps it in user data: type 0, length, text with closing NUL (nftables' `udata.h`).
fn write_comment(writer: &mut Writer, kind: u16, comment: &str, length: u8) {
    writer.header(kind, 2 + usize::from(length));
    writer.bytes.extend_from_slice(&[0, length]);
    writer.bytes.extend_from_slice(comment.as_bytes());
    writer.bytes.push(0);
    writer.pad();
}

/// A batch while a rule of it is compiled.
struct InBatch<'b, 'a> {
    batch: &'b mut Batch<'a>,
    table: &'b TableId,
}

impl TranslateContext for InBatch<'_, '_> {
    fn link_index(&mut self, link: &IfName) -> Result<u32, NftError> {
        (self.batch.index_of)(link)
    }

    fn unnamed_set(&mut self, set: Set) -> Result<u32, NftError> {
        let number = self.batch.set_number();
        let unnamed = libc_u32(libc::NFT_SET_ANONYMOUS | libc::NFT_SET_CONSTANT);
        self.batch.set(self.table, &set, Some(number), unnamed)?;
        self.batch.elements(libc::NFT_MSG_NEWSETELEM, NLM_F_CREATE, self.table, &set, Some(number))?;
        Ok(number)
    }
}
