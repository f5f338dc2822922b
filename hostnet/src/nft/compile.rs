//! From a rule's statements to the kernel's expressions.

mod act;

use terms::IfName;

use super::encoding::{Encoding, NftError};
use super::expression::{
    self, Head, LONG, NUMBER, SetRef, begin, decide, head, libc_u32, load, look_up, register, zeroes,
};
use super::presupposition::{Presupposition, is_established, presupposed};
use super::uapi;
use super::{Element, Family, Field, Rule, Set, Statement, Test, UpdateSet, Value, Verdict, VerdictMap};
use crate::attributes::Writer;

/// Names that the kernel is asked to number.
const UNNAMED_SET: &str = "__set%d";
const UNNAMED_MAP: &str = "__map%d";

const COUNTER: Head<20> = head("counter");
const DYNSET: Head<20> = head("dynset");
const MASQ: Head<20> = head("masq");
const NOTRACK: Head<20> = head("notrack");

/// What compiling a rule needs of its surroundings.
pub(crate) trait TranslateContext {
    /// The index of a link.
    fn link_index(&mut self, link: &IfName) -> Result<u32, NftError>;

    /// Makes a set without a name and returns its number in the transaction.
    fn unnamed_set(&mut self, set: Set) -> Result<u32, NftError>;
}

/// Writes a rule's expressions; fails on a value that does not fit its field or the family.
pub(crate) fn compile(
    writer: &mut Writer,
    family: Family,
    rule: &Rule,
    around: &mut dyn TranslateContext,
) -> Result<(), NftError> {
    let mut compiler = Compiler { writer, family, known: Vec::new(), around };
    rule.statements.iter().try_for_each(|statement| compiler.statement(statement))
}

struct Compiler<'a> {
    writer: &'a mut Writer,
    family: Family,
    /// What earlier tests of the rule established.
    known: Vec<Presupposition>,
    around: &'a mut dyn TranslateContext,
}

impl Compiler<'_> {
    fn statement(&mut self, statement: &Statement) -> Result<(), NftError> {
        match statement {
            Statement::Match { fields, test } => self.test(fields, test)?,
            Statement::Counter => {
                begin(self.writer, &COUNTER, 2 * LONG);
                self.writer.u64(uapi::counter::BYTES, 0);
                self.writer.u64(uapi::counter::PACKETS, 0);
            }
            Statement::Verdict(verdict) => decide(self.writer, verdict),
            Statement::VerdictMap { fields, map } => {
                let set = self.verdict_map(fields, map)?;
                self.key(fields)?;
                look_up(self.writer, &set, Some(libc_u32(libc::NFT_REG_VERDICT)), false);
            }
            Statement::Set { field, value } => self.set(*field, value)?,
            Statement::Masquerade => begin(self.writer, &MASQ, 0),
            Statement::Dnat { version, to } => self.nat(libc::NFT_NAT_DNAT, *version, to)?,
            Statement::Snat { version, to } => self.nat(libc::NFT_NAT_SNAT, *version, to)?,
            Statement::Redirect { port } => self.redirect(*port),
            Statement::Forward { to } => self.by_device(&act::FWD, uapi::fwd::SREG_DEV, to)?,
            Statement::Duplicate { to } => self.by_device(&act::DUP, uapi::dup::SREG_DEV, to)?,
            Statement::Reject(how) => self.reject(*how),
            Statement::Notrack => begin(self.writer, &NOTRACK, 0),
            Statement::UpdateSet(update) => self.update_set(update)?,
            Statement::Limit(limit) => self.limit(*limit),
            Statement::Foreign { expression, .. } => {
                return Err(NftError::Other(format!(
                    "an expression {expression:?} of another program cannot be written"
                )));
            }
        }
        Ok(())
    }

    /// Tests what a field presupposes, unless the rule has done so.
    fn presuppose(&mut self, field: Field) {
        if let Some(needed) = presupposed(self.family, field)
            && !is_established(&needed, &self.known)
        {
            let (field, bytes) = needed;
            load(self.writer, field, 0);
            expression::compare(self.writer, 0, libc::NFT_CMP_EQ, &bytes);
            self.known.push(needed);
        }
    }

    /// Loads fields one after another from slot 0 on.
    fn key(&mut self, fields: &[Field]) -> Result<(), NftError> {
        if fields.is_empty() {
            return Err(NftError::Other("a key has no fields".to_owned()));
        }
        // All presuppositions first: they use the same registers.
        fields.iter().for_each(|field| self.presuppose(*field));
        let mut slot = 0;
        for field in fields {
            load(self.writer, *field, slot);
            slot += field.encoding().slots();
        }
        // NFT_REG32_COUNT registers of four bytes.
        if slot > 16 { Err(NftError::Other(format!("the key {fields:?} is longer than 64 bytes"))) } else { Ok(()) }
    }

    fn test(&mut self, fields: &[Field], test: &Test) -> Result<(), NftError> {
        if let Test::InSet(set) | Test::NotInSet(set) = test {
            self.key(fields)?;
            look_up(self.writer, &SetRef { name: set, id: None }, None, matches!(test, Test::NotInSet(_)));
            return Ok(());
        }
        let [field] = fields else {
            return Err(NftError::Other(format!("several fields {fields:?} can only be tested against a named set")));
        };
        self.lone_test(*field, field.encoding(), test)
    }

    fn lone_test(&mut self, field: Field, encoding: Encoding, test: &Test) -> Result<(), NftError> {
        let encode = |value: &Value| encoding.encode(value, &field);
        if let Test::OneOf(values) | Test::NoneOf(values) = test {
            return self.one_of(field, values, matches!(test, Test::NoneOf(_)));
        }
        self.presuppose(field);
        load(self.writer, field, 0);
        let compare = |writer: &mut Writer, negate: bool, bytes: &[u8]| {
            let op = if negate { libc::NFT_CMP_NEQ } else { libc::NFT_CMP_EQ };
            expression::compare(writer, 0, op, bytes);
        };
        let zero = || zeroes(encoding.bytes());
        match test {
            Test::Is(value) => {
                let bytes = encode(value)?;
                compare(self.writer, false, &bytes);
                self.known.push((field, bytes));
            }
            Test::IsNot(value) => compare(self.writer, true, &encode(value)?),
            Test::NameStart(start) => compare(self.writer, false, name_start(field, start)?),
            Test::Within(network) | Test::NotWithin(network) => {
                let (address, mask) = encoding.network(*network, &field)?;
                if mask.iter().any(|byte| *byte != 0xff) {
                    expression::mask(self.writer, 0, &mask);
                }
                compare(self.writer, matches!(test, Test::NotWithin(_)), &address);
            }
            Test::Range(from, to) => expression::between(self.writer, 0, &encode(from)?, &encode(to)?),
            Test::AnyBit(bits) | Test::NoBit(bits) => {
                expression::mask(self.writer, 0, &encoding.mask(*bits, &field)?);
                compare(self.writer, matches!(test, Test::AnyBit(_)), zero());
            }
            Test::Bits { mask, value } => {
                expression::mask(self.writer, 0, &encoding.mask(*mask, &field)?);
                compare(self.writer, false, &encoding.mask(*value, &field)?);
            }
            // Handled before anything was written.
            Test::OneOf(_) | Test::NoneOf(_) | Test::InSet(_) | Test::NotInSet(_) => {}
        }
        Ok(())
    }

    fn one_of(&mut self, field: Field, values: &[Value], negate: bool) -> Result<(), NftError> {
        match values {
            [] => Err(NftError::Other(format!("{field:?} is compared with an empty list"))),
            [only] if negate => self.lone_test(field, field.encoding(), &Test::IsNot(only.clone())),
            [only] => self.lone_test(field, field.encoding(), &Test::Is(only.clone())),
            values => {
                let mut set = Set::new(UNNAMED_SET, [field.kind()]);
                set.elements = values.iter().map(|value| Element::of([value.clone()])).collect();
                let id = Some(self.around.unnamed_set(set)?);
                self.presuppose(field);
                load(self.writer, field, 0);
                look_up(self.writer, &SetRef { name: UNNAMED_SET, id }, None, negate);
                Ok(())
            }
        }
    }

    fn verdict_map<'m>(&mut self, fields: &[Field], map: &'m VerdictMap) -> Result<SetRef<'m>, NftError> {
        match map {
            VerdictMap::Named(name) => Ok(SetRef { name, id: None }),
            VerdictMap::Inline(pairs) => {
                let mut set = Set::verdict_map(UNNAMED_MAP, fields.iter().map(|field| field.kind()));
                set.elements = pairs.iter().map(element).collect();
                Ok(SetRef { name: UNNAMED_MAP, id: Some(self.around.unnamed_set(set)?) })
            }
        }
    }

    fn update_set(&mut self, update: &UpdateSet) -> Result<(), NftError> {
        self.key(&update.fields)?;
        let op = if update.refresh { libc::NFT_DYNSET_OP_UPDATE } else { libc::NFT_DYNSET_OP_ADD };
        let name = expression::attribute_bytes(update.set.len() + 1);
        begin(self.writer, &DYNSET, name + 2 * NUMBER + update.timeout_seconds.map_or(0, |_| LONG));
        self.writer.text(uapi::dynset::SET_NAME, &update.set);
        self.writer.numbers([(uapi::dynset::OP, libc_u32(op)), (uapi::dynset::SREG_KEY, register(0))]);
        if let Some(seconds) = update.timeout_seconds {
            self.writer.u64(uapi::dynset::TIMEOUT, u64::from(seconds) * 1000);
        }
        Ok(())
    }
}

fn element((key, verdict): &(Vec<Value>, Verdict)) -> Element {
    Element::of(key.iter().cloned()).verdict(verdict.clone())
}

/// The bytes that the name of a device must begin with.
fn name_start(field: Field, start: &str) -> Result<&[u8], NftError> {
    let is_name = field.encoding() == Encoding::Name && (1..=IfName::MAX_BYTES).contains(&start.len());
    is_name.then_some(start.as_bytes()).ok_or_else(|| NftError::Other(format!("{field:?} cannot begin with {start:?}")))
}
