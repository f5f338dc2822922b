//! From the kernel's expressions back to the statements of a rule.
//!
//! Flow: loads fill registers; comparisons, look-ups and actions take from them and become statements; a test that the next
//! field presupposes is left out again, as `nft list` does.
//! Guarantees: rules that act differently become different statements; what this program writes becomes what it was written
//! from, and anything else [`Statement::Foreign`] or a field without a name. Input of any shape is read without panic.

mod act;
mod attributes;
mod load;
mod test;
#[cfg(test)]
mod tests;

use self::attributes::Attributes;
use super::element_bytes::Encoded;
use super::presupposition::{Presupposition, is_established, presupposed};
use super::uapi::{expr, list};
use super::{Counter, Family, Field, LinkIndices, Statement, Test};
use crate::attributes::{attribute, attributes_of, text};

/// How the elements of a set without a name are found: by the kernel's name for it, or by its number in our transaction.
pub(crate) type Unnamed<'a> = dyn Fn(&str, Option<u32>) -> Option<&'a [Encoded]> + 'a;

/// What the expressions of a rule refer to.
pub(crate) struct DecodeContext<'a, 'u> {
    pub(crate) family: Family,
    pub(crate) links: &'a dyn LinkIndices,
    pub(crate) unnamed: &'a Unnamed<'u>,
}

/// The statements of a rule (NFTA_RULE_EXPRESSIONS), and what its first counter has seen.
#[cold]
pub(crate) fn decode(expressions: &[u8], context: &DecodeContext<'_, '_>) -> (Vec<Statement>, Option<Counter>) {
    let mut decoder =
        Decoder { context, registers: Vec::new(), known: Vec::new(), statements: Vec::new(), counter: None };
    for (_, one) in attributes_of(expressions).filter(|(kind, _)| *kind == list::ELEM) {
        let name = attribute(one, expr::NAME).and_then(|name| name.strip_suffix(b"\0")).unwrap_or_default();
        let inside = Attributes(attribute(one, expr::DATA).unwrap_or_default());
        if decoder.expression(name, inside).is_none() {
            decoder.foreign(name, inside);
        }
    }
    (decoder.statements, decoder.counter)
}

/// What a register holds after the expressions so far.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// A field, of which so many bytes were loaded and perhaps the bits of a mask kept.
    Field {
        field: Field,
        bytes: usize,
        mask: Option<Vec<u8>>,
    },
    Constant(Vec<u8>),
    /// What a map yields for a key.
    Mapped {
        fields: Vec<Field>,
        map: String,
    },
}

struct Decoder<'a, 'u> {
    context: &'a DecodeContext<'a, 'u>,
    /// By the slot of four bytes where the content begins.
    registers: Vec<(u32, Content)>,
    /// What earlier tests of the rule established.
    known: Vec<Presupposition>,
    statements: Vec<Statement>,
    counter: Option<Counter>,
}

impl Decoder<'_, '_> {
    /// Reads one expression; `None` if it is none that this program writes.
    fn expression(&mut self, name: &[u8], inside: Attributes<'_>) -> Option<()> {
        match name {
            b"meta" | b"ct" | b"payload" if inside.is_write(name) => self.write(name, inside),
            b"meta" => self.load_meta(inside),
            b"ct" => self.load_ct(inside),
            b"payload" => self.load_payload(inside),
            b"fib" => self.load_fib(inside),
            b"numgen" => self.load_number(inside),
            b"immediate" => self.immediate(inside),
            b"bitwise" => self.mask(inside),
            b"cmp" => self.compare(inside),
            b"range" => self.range(inside),
            b"lookup" => self.look_up(inside),
            b"counter" => self.count(inside),
            b"nat" => self.translate(inside),
            b"masq" => inside.only(&[]).map(|()| self.statements.push(Statement::Masquerade)),
            b"notrack" => inside.only(&[]).map(|()| self.statements.push(Statement::Notrack)),
            b"redir" => self.redirect(inside),
            b"fwd" | b"dup" => self.by_device(name, inside),
            b"reject" => self.reject(inside),
            b"dynset" => self.update_set(inside),
            b"limit" => self.limit(inside),
            _ => None,
        }
    }

    /// Keeps an expression of another program. What the registers hold afterwards is unknown.
    fn foreign(&mut self, name: &[u8], inside: Attributes<'_>) {
        // NFTA_MATCH_NAME and NFTA_TARGET_NAME of `linux/netfilter/nf_tables_compat.h`.
        const EXTENSION: u16 = 1;
        let extension = matches!(name, b"match" | b"target").then(|| inside.bytes(EXTENSION).map(text)).flatten();
        self.registers.clear();
        self.statements.push(Statement::Foreign { expression: text(name), extension });
    }

    /// Puts something into the registers from `slot` on, in place of what was there.
    fn put(&mut self, slot: u32, content: Content) {
        let end = slot + slots(&content);
        self.registers.retain(|(at, held)| at + slots(held) <= slot || end <= *at);
        self.registers.push((slot, content));
    }

    /// Takes what begins in a slot.
    fn take(&mut self, slot: u32) -> Option<Content> {
        let at = self.registers.iter().position(|(at, _)| *at == slot)?;
        Some(self.registers.swap_remove(at).1)
    }

    /// Takes a whole field without mask.
    fn take_field(&mut self, slot: u32) -> Option<Field> {
        match self.take(slot)? {
            Content::Field { field, bytes, mask: None } if is_whole(field, bytes) => Some(field),
            _ => None,
        }
    }

    /// Takes a key: the fields that follow one another from `slot` on. All other registers lose what they hold, too.
    fn key(&mut self, slot: u32) -> Option<Vec<Field>> {
        let (mut fields, mut at) = (Vec::new(), slot);
        while self.registers.iter().any(|(held, _)| *held == at) {
            let field = self.take_field(at)?;
            at += field.encoding().slots();
            fields.push(field);
        }
        self.registers.clear();
        (!fields.is_empty()).then_some(fields)
    }

    /// Adds a statement about fields, without the tests before it that these presuppose.
    fn push(&mut self, fields: &[Field], statement: Statement) {
        for field in fields.iter().rev() {
            let needed = presupposed(self.context.family, *field);
            if let Some((needed, bytes)) = needed
                && let Some(Statement::Match { fields, test: Test::Is(value) }) = self.statements.last()
                && *fields == [needed]
                && *value == needed.encoding().decode(&bytes)
            {
                self.statements.pop();
            }
        }
        self.statements.push(statement);
    }

    /// Whether the tests so far let a rule look at a field.
    fn is_usable(&self, field: Field) -> bool {
        presupposed(self.context.family, field).is_none_or(|needed| is_established(&needed, &self.known))
    }
}

fn is_whole(field: Field, bytes: usize) -> bool {
    field.encoding().bytes() == bytes
}

/// Registers of four bytes that something fills.
fn slots(content: &Content) -> u32 {
    let bytes = match content {
        Content::Field { bytes, .. } => *bytes,
        Content::Constant(bytes) => bytes.len(),
        // An address and a port at most.
        Content::Mapped { .. } => 20,
    };
    u32::try_from(bytes.div_ceil(4)).unwrap_or(u32::MAX).clamp(1, 16)
}
