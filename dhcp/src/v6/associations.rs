//! Identity associations: which one of a client's gets the one address there is, and what the others hear.

use std::net::Ipv6Addr;

use super::codes;
use super::message::{Options, Writer, push_option, status};
use crate::bytes::Bytes;
use crate::config::V6Config;

/// Associations of one message that are answered; a client with one NIC has one of each kind.
const MOST: usize = 8;
/// Foreign addresses of one association that are withdrawn.
const MOST_WITHDRAWN: usize = 16;

/// What the client wants with its associations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Solicit.
    Offer,
    /// Request.
    Assign,
    /// Renew, Rebind.
    Extend,
    /// Release, Decline.
    GiveBack,
}

/// An IA_NA as it came.
#[derive(Debug)]
struct Association {
    id: [u8; 4],
    addresses: Vec<Ipv6Addr>,
}

impl Association {
    fn parse(value: &[u8]) -> Option<Self> {
        let mut bytes = Bytes::new(value);
        let id = bytes.array()?;
        let _t1_and_t2 = bytes.take(8)?;
        Some(Self { id, addresses: addresses_in(bytes.rest()) })
    }
}

fn addresses_in(area: &[u8]) -> Vec<Ipv6Addr> {
    let address = |value: &[u8]| Bytes::new(value).array::<16>().map(Ipv6Addr::from);
    Options::parse(area).map(|options| options.all(codes::IA_ADDRESS).filter_map(address).collect()).unwrap_or_default()
}

/// Every address the client names, of permanent and temporary associations.
pub(super) fn all_addresses(options: &Options<'_>) -> Vec<Ipv6Addr> {
    let inside = |code, header| options.all(code).filter_map(move |value| value.get(header..)).flat_map(addresses_in);
    inside(codes::IA_NA, 12).chain(inside(codes::IA_TA, 4)).collect()
}

/// What came of a message's associations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answered {
    /// The address was granted, or given back.
    pub(super) is_granted: bool,
    /// The client named an address that is not its own and was told so.
    pub(super) names_foreign: bool,
}

/// Writes an answer to each association.
///
/// A foreign address is answered by what the client does with it. Request is NotOnLink (RFC 8415 §18.3.2); Renew and
/// Rebind get it with lifetimes of zero next to the guest's own (§18.3.4, §18.3.5); Release and Decline are NoBinding
/// (§18.3.7). A Solicit only hints at it (§18.3.9).
pub(super) fn answer(writer: &mut Writer, options: &Options<'_>, v6: &V6Config, purpose: Purpose) -> Answered {
    let permanent: Vec<_> = options.all(codes::IA_NA).filter_map(Association::parse).take(MOST).collect();
    // Nothing is remembered: the association that holds the address keeps it, else the first gets it. So a guest that
    // reboots as another system, with other identifiers, is served at once.
    let holder = permanent.iter().position(|ia| ia.addresses.contains(&v6.address));
    let holder = holder.or((purpose != Purpose::GiveBack && !permanent.is_empty()).then_some(0));
    let is_foreign = |ia: &Association| ia.addresses.iter().any(|address| *address != v6.address);
    let names_foreign = purpose != Purpose::Offer && permanent.iter().any(is_foreign);
    let mut is_granted = holder.is_some();
    for (index, association) in permanent.iter().enumerate() {
        match (Some(index) == holder, purpose) {
            (is_holder, Purpose::Assign) if is_foreign(association) => {
                is_granted &= !is_holder;
                writer.option(codes::IA_NA, &refused(association.id, codes::NOT_ON_LINK, "not this client's address"));
            }
            (true, Purpose::GiveBack) => {}
            (true, _) => writer.option(codes::IA_NA, &granted(association, v6, purpose)),
            (false, Purpose::Offer | Purpose::Assign) => {
                writer.option(
                    codes::IA_NA,
                    &refused(association.id, codes::NO_ADDRESSES, "one address, one association"),
                );
            }
            (false, _) => writer.option(codes::IA_NA, &refused(association.id, codes::NO_BINDING, "not bound here")),
        }
    }
    if purpose != Purpose::GiveBack {
        refuse_other_kinds(writer, options);
    }
    Answered { is_granted, names_foreign }
}

/// Temporary addresses and prefixes are not served; saying so keeps clients from waiting.
fn refuse_other_kinds(writer: &mut Writer, options: &Options<'_>) {
    let others = options.iter().filter(|(code, _)| [codes::IA_TA, codes::IA_PD].contains(code)).take(MOST);
    for (code, value) in others {
        let Some(id) = Bytes::new(value).array::<4>() else { continue };
        if code == codes::IA_TA {
            let mut refusal = id.to_vec();
            push_option(&mut refusal, codes::STATUS, &status(codes::NO_ADDRESSES, "no temporary addresses"));
            writer.option(code, &refusal);
        } else {
            writer.option(code, &refused(id, codes::NO_PREFIX, "no prefixes"));
        }
    }
}

fn granted(association: &Association, v6: &V6Config, purpose: Purpose) -> Vec<u8> {
    let mut value = association.id.to_vec();
    // T1 and T2 as RFC 8415 §21.4 recommends.
    value.extend(v6.preferred.percent(50).to_be_bytes());
    value.extend(v6.preferred.percent(80).to_be_bytes());
    let mut address = |address: Ipv6Addr, preferred: u32, valid: u32| {
        let lease = [&address.octets()[..], &preferred.to_be_bytes(), &valid.to_be_bytes()].concat();
        push_option(&mut value, codes::IA_ADDRESS, &lease);
    };
    address(v6.address, v6.preferred.wire(), v6.valid.wire());
    if purpose == Purpose::Extend {
        // Zero lifetimes: "not yours any more" (RFC 8415 §18.3.4).
        let foreign = association.addresses.iter().filter(|foreign| **foreign != v6.address);
        foreign.take(MOST_WITHDRAWN).for_each(|foreign| address(*foreign, 0, 0));
    }
    value
}

/// An IA_NA or IA_PD without content but a status.
fn refused(id: [u8; 4], code: u16, text: &str) -> Vec<u8> {
    let mut value = [&id[..], &[0; 8]].concat();
    push_option(&mut value, codes::STATUS, &status(code, text));
    value
}
