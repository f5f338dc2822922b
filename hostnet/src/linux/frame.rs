//! Netlink messages in a buffer, and what the kernel says when it refuses one.

use netlink_packet_core::NLM_F_ACK_TLVS;

use crate::attributes::{attributes_of, number};
use crate::kernel::KernelError;

/// `struct nlmsghdr` of `linux/netlink.h`.
pub(crate) const HEADER_BYTES: usize = 16;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of one datagram; stops at the first that does not fit.
pub(crate) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let (header, _) = datagram.split_at_checked(HEADER_BYTES)?;
        let length = usize::try_from(number(header, 0)?).ok()?;
        let payload = datagram.get(HEADER_BYTES..length)?;
        let kinds = number(header, 4)?;
        let [a, b, c, d] = kinds.to_ne_bytes();
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Frame {
            kind: u16::from_ne_bytes([a, b]),
            flags: u16::from_ne_bytes([c, d]),
            sequence: number(header, 8)?,
            payload,
        })
    })
}

/// The outcome that an NLMSG_ERROR (or the end of a dump) carries: `None` is success.
pub(crate) fn refusal(frame: &Frame<'_>) -> Option<KernelError> {
    let code = number(frame.payload, 0).map_or(0, u32::cast_signed);
    if code == 0 {
        return None;
    }
    let said = (frame.flags & NLM_F_ACK_TLVS != 0).then(|| extended_ack(frame.payload.get(4..).unwrap_or_default()));
    let mut error = KernelError::refused(code.checked_neg().unwrap_or(libc::EIO));
    if let KernelError::Refused { said: words, .. } = &mut error {
        *words = said.flatten();
    }
    Some(error)
}

/// The kernel's words: NLMSGERR_ATTR_MSG of `linux/netlink.h`, behind the header of the refused message. That message's body
/// is not there, because our sockets ask for capped acknowledgements; a dump's end has no header either.
fn extended_ack(rest: &[u8]) -> Option<String> {
    const ATTR_MSG: u16 = 1;
    let words = |attributes: &[u8]| {
        attributes_of(attributes).find(|(kind, _)| *kind == ATTR_MSG).map(|(_, text)| {
            let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(text).into_owned()
        })
    };
    words(rest.get(HEADER_BYTES..).unwrap_or_default()).or_else(|| words(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn the_kernels_words_are_found_behind_the_capped_header() {
        let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
        payload.extend([0; HEADER_BYTES]);
        payload.extend([11, 0, 1, 0]);
        payload.extend(b"no way\0\0");
        let bytes = message(2, NLM_F_ACK_TLVS, &payload);
        let frame = frames(&bytes).next().unwrap();
        assert_eq!(frame.sequence, 7);
        let error = refusal(&frame).unwrap();
        assert_eq!(error.errno(), Some(libc::EINVAL));
        assert!(error.to_string().ends_with("the kernel says: no way"), "{error}");
    }

    #[test]
    fn success_is_no_refusal() {
        let bytes = message(2, 0, &[0; 20]);
        assert!(refusal(&frames(&bytes).next().unwrap()).is_none());
    }

    #[test]
    fn cut_and_misshapen_input_ends_the_walk() {
        let whole = [message(1, 0, &[1, 2, 3, 4, 5]), message(2, 0, &[])].concat();
        assert!(frames(&whole).next().is_some());
        for length in 0..whole.len() {
            assert!(frames(&whole[..length]).count() <= 2);
        }
        assert_eq!(frames(&[0; 64]).count(), 0);
        assert_eq!(frames(&[0xff; 64]).count(), 0);
    }
}
