//! What a relay agent adds to a client's message (RFC 3046).

use std::net::Ipv4Addr;

use crate::bytes::Bytes;

/// Sub-options of option 82.
const CIRCUIT: u8 = 1;
/// RFC 3527.
const LINK_SELECTION: u8 = 5;

/// Where the client is connected to its agent.
pub(crate) fn circuit(option: &[u8]) -> Option<&[u8]> {
    part(option, CIRCUIT)
}

/// An address of the client's link, where it is not the agent's own.
pub(crate) fn link(option: &[u8]) -> Option<Ipv4Addr> {
    part(option, LINK_SELECTION).and_then(|address| <[u8; 4]>::try_from(address).ok()).map(Ipv4Addr::from)
}

fn part(option: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut bytes = Bytes::new(option);
    while let Some(code) = bytes.u8() {
        let value = bytes.u8().and_then(|length| bytes.take(usize::from(length)))?;
        if code == wanted {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_and_cut_ones_are_ignored() {
        let option = [2, 1, 9, 1, 2, 7, 8, 5, 4, 10, 1, 0, 0];
        assert_eq!((circuit(&option), link(&option)), (Some(&[7, 8][..]), Some([10, 1, 0, 0].into())));
        assert_eq!((circuit(&option[..6]), link(&option[..10])), (None, None));
    }
}
