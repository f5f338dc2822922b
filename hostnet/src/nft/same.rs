//! Whether a rule as the kernel lists it is the one that would be written, told from the bytes of both.
//!
//! The quick twin of [`super::canon`], which makes text of either: that names what differs, this only says whether something
//! does. Both overlook the same: what counters have seen, attributes that are zero, and the order of attributes.

use super::canon::{Contents, DYNSET_SET_ID};
use super::uapi::{expr, list, lookup};
use crate::attributes::{attribute, attributes_of, text};

/// The expressions of two rules, and how each one's sets made on the fly are found.
pub(crate) fn same_body(one: (&[u8], &Contents<'_>), other: (&[u8], &Contents<'_>)) -> bool {
    let (mut left, mut right) = (expressions(one.0), expressions(other.0));
    loop {
        match (left.next(), right.next()) {
            (None, None) => return true,
            (Some(left), Some(right)) if same_expression((left, one.1), (right, other.1)) => {}
            _ => return false,
        }
    }
}

fn expressions(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    attributes_of(body).filter(|(kind, _)| *kind == list::ELEM).map(|(_, expression)| expression)
}

fn same_expression(one: (&[u8], &Contents<'_>), other: (&[u8], &Contents<'_>)) -> bool {
    // The kernel mostly says what it was told, byte for byte. (A set made on the fly it was told without the name it gave.)
    if one.0 == other.0 {
        return true;
    }
    let name = attribute(one.0, expr::NAME);
    if name != attribute(other.0, expr::NAME) {
        return false;
    }
    let (left, right) = [one.0, other.0].map(|expression| attribute(expression, expr::DATA).unwrap_or_default()).into();
    let passed_over = match name {
        Some(b"counter\0") => return true,
        Some(b"lookup\0") if same_set((left, one.1), (right, other.1)) => [lookup::SET_ID, lookup::SET],
        Some(b"lookup\0") => return false,
        Some(b"dynset\0") => [DYNSET_SET_ID; 2],
        // No attribute has the number 0.
        _ => [0; 2],
    };
    let telling = |attributes| {
        attributes_of(attributes)
            .filter(move |(kind, value)| !passed_over.contains(kind) && value.iter().any(|byte| *byte != 0))
    };
    telling(left).count() == telling(right).count()
        && telling(left).all(|attribute| telling(right).any(|other| other == attribute))
}

/// Whether two look-ups are in the same set: by name, or by contents where the kernel named it.
fn same_set(one: (&[u8], &Contents<'_>), other: (&[u8], &Contents<'_>)) -> bool {
    let made_on_the_fly = |name: &[u8]| name.starts_with(b"__set") || name.starts_with(b"__map");
    let (left, right) = (set_name(one.0), set_name(other.0));
    if !made_on_the_fly(left) || !made_on_the_fly(right) {
        return left == right;
    }
    let contents = |(attributes, contents): (&[u8], &Contents<'_>)| {
        let number = attribute(attributes, lookup::SET_ID).and_then(|bytes| bytes.first_chunk().copied());
        contents(&text(set_name(attributes)), number.map(u32::from_be_bytes))
    };
    contents(one) == contents(other)
}

fn set_name(attributes: &[u8]) -> &[u8] {
    attribute(attributes, lookup::SET).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::Writer;

    /// Name and attributes.
    type Expression<'a> = (&'a str, &'a [(u16, &'a [u8])]);

    fn rule(expressions: &[Expression<'_>]) -> Vec<u8> {
        let mut writer = Writer::default();
        for (name, attributes) in expressions {
            writer.nest(list::ELEM, |writer| {
                writer.text(expr::NAME, name);
                writer.nest(expr::DATA, |writer| attributes.iter().for_each(|(kind, value)| writer.raw(*kind, value)));
            });
        }
        writer.bytes
    }

    fn same(one: &[u8], other: &[u8]) -> bool {
        let ours = |_: &str, number: Option<u32>| number.map(|number| format!("set {number}"));
        let theirs = |name: &str, _: Option<u32>| Some(name.replace("__set", "set "));
        same_body((one, &ours), (other, &theirs))
    }

    #[test]
    fn order_zeroes_and_counts_are_overlooked() {
        let ours = rule(&[("cmp", &[(1, &[0, 0, 0, 8]), (3, b"abcd")]), ("counter", &[(1, &[0; 8])])]);
        let theirs = rule(&[("cmp", &[(3, b"abcd"), (2, &[0; 4]), (1, &[0, 0, 0, 8])]), ("counter", &[(1, &[7; 8])])]);
        assert!(same(&ours, &theirs));
    }

    #[test]
    fn every_other_difference_is_one() {
        let ours = rule(&[("cmp", &[(1, &[8]), (3, b"abcd")]), ("counter", &[])]);
        for theirs in [
            rule(&[("cmp", &[(1, &[8]), (3, b"abce")]), ("counter", &[])]),
            rule(&[("cmp", &[(1, &[8]), (4, b"abcd")]), ("counter", &[])]),
            rule(&[("cmp", &[(1, &[8])]), ("counter", &[])]),
            rule(&[("cmp", &[(1, &[8]), (2, &[1]), (3, b"abcd")]), ("counter", &[])]),
            rule(&[("meta", &[(1, &[8]), (3, b"abcd")]), ("counter", &[])]),
            rule(&[("cmp", &[(1, &[8]), (3, b"abcd")])]),
            rule(&[("cmp", &[(1, &[8]), (3, b"abcd")]), ("counter", &[]), ("masq", &[])]),
        ] {
            assert!(!same(&ours, &theirs));
            assert!(!same(&theirs, &ours));
        }
    }

    #[test]
    fn sets_are_the_same_by_name_or_if_made_on_the_fly_by_contents() {
        let look_up = |set: &[u8], number: u8| rule(&[("lookup", &[(1, set), (2, &[1]), (4, &[0, 0, 0, number])])]);
        assert!(same(&look_up(b"ports\0", 0), &look_up(b"ports\0", 0)));
        assert!(!same(&look_up(b"ports\0", 0), &look_up(b"other\0", 0)));
        assert!(same(&look_up(b"__set%d\0", 1), &look_up(b"__set1\0", 0)));
        assert!(!same(&look_up(b"__set%d\0", 1), &look_up(b"__set2\0", 0)));
        assert!(!same(&look_up(b"__set%d\0", 1), &look_up(b"ports\0", 0)));
    }
}
