//! Which of its states a client is in when it sends a REQUEST.

use std::net::Ipv4Addr;

use super::codes;
use super::message::Message;
use crate::observations::Phase;

/// The address that a REQUEST is about, and the client's state: server identifier, requested address and `ciaddr` tell the four
/// states apart (RFC 2131 §4.3.2). `None` when it names no address.
pub(crate) fn requested(message: &Message, was_unicast: bool) -> Option<(Ipv4Addr, Phase)> {
    let ciaddr = Some(message.ciaddr).filter(|address| !address.is_unspecified());
    match (message.address(codes::SERVER_ID), message.address(codes::REQUESTED_ADDRESS), ciaddr) {
        (Some(_), Some(address), _) | (Some(_), None, Some(address)) => Some((address, Phase::Selecting)),
        (None, Some(address), None) => Some((address, Phase::Rebooting)),
        (None, _, Some(address)) if was_unicast => Some((address, Phase::Renewing)),
        (None, _, Some(address)) => Some((address, Phase::Rebinding)),
        (_, None, None) => None,
    }
}
