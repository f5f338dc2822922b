//! What rules of other programs ask for, as far as it concerns a VM's packets.

use std::net::IpAddr;

use hostnet::nft::{Field, Statement, Test, Value};
use terms::IfName;

/// Whether a rule goes on only for some packets at this statement. A comment of iptables is none.
pub(super) fn is_condition(statement: &Statement) -> bool {
    match statement {
        Statement::Match { .. }
        | Statement::VerdictMap { .. }
        | Statement::UpdateSet(_)
        | Statement::Limit(_)
        | Statement::Foreign { .. } => !is_comment(statement),
        _ => false,
    }
}

/// Whether it is `-m comment` of iptables, which decides nothing.
pub(super) fn is_comment(statement: &Statement) -> bool {
    is_extension(statement, "match", "comment")
}

/// An extension of xtables: a `match` or `target` of this name.
pub(super) fn is_extension(statement: &Statement, kind: &str, name: &str) -> bool {
    matches!(statement, Statement::Foreign { expression, extension: Some(extension) }
        if expression == kind && extension == name)
}

/// Whether an expression is another program's of this kind.
pub(super) fn is_foreign(statement: &Statement, kind: &str) -> bool {
    matches!(statement, Statement::Foreign { expression, .. } if expression == kind)
}

/// Whether it asks for the address, a network that it is in, or a list that it is on.
pub(super) fn names_address(statement: &Statement, address: IpAddr) -> bool {
    let Some((field, test)) = lone_test(statement) else { return false };
    if !is_address(field) {
        return false;
    }
    match test {
        Test::Is(value) => *value == Value::Ip(address),
        Test::OneOf(values) => values.contains(&Value::Ip(address)),
        Test::Within(network) => network.contains(address),
        _ => false,
    }
}

/// Whether it asks for the link by its name, by the beginning of its name (`veth*`), or by a list that it is on.
pub(super) fn names_link(statement: &Statement, link: &IfName) -> bool {
    let Some((Field::Iifname | Field::Oifname, test)) = lone_test(statement) else { return false };
    match test {
        Test::Is(value) => *value == Value::from(link),
        Test::OneOf(values) => values.contains(&Value::from(link)),
        Test::NameStart(start) => link.as_str().starts_with(start.as_str()),
        _ => false,
    }
}

/// The field of a test of one field, and what it must be.
pub(super) fn lone_test(statement: &Statement) -> Option<(Field, &Test)> {
    match statement {
        Statement::Match { fields, test } => match fields.as_slice() {
            [field] => Some((*field, test)),
            _ => None,
        },
        _ => None,
    }
}

fn is_address(field: Field) -> bool {
    matches!(
        field,
        Field::IpSaddr
            | Field::IpDaddr
            | Field::Ip6Saddr
            | Field::Ip6Daddr
            | Field::CtOriginalIpDaddr
            | Field::CtOriginalIp6Daddr
    )
}
