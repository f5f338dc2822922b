//! Target `tftp`: a client's request and what it sends while it gets the file. An input is the file's size in four bytes and
//! records: first the request, then a byte with the seconds since the one before, and a packet; none lets the time run out.

use dhcp::tftp::{Request, Step, Transfer, data};

use crate::guest;

/// What an Ethernet frame has room for behind the headers of IPv4 and UDP.
const MOST_PACKET_BYTES: usize = guest::MTU - 28;
/// Blocks before an acknowledgement, and the acknowledgement of options.
const MOST_STEPS: usize = 64 + 1;

/// Reads an input and panics when a promise is broken.
pub fn check(input: &[u8]) {
    let Some((size, rest)) = input.split_first_chunk() else { return };
    let size = u64::from(u32::from_be_bytes(*size));
    let mut records = guest::records(rest);
    let Some(request) = records.next() else { return };
    let request = match Request::parse(request) {
        Ok(request) => request,
        Err(refusal) => {
            let packet = refusal.packet();
            assert!(packet.starts_with(&[0, 5]) && packet.ends_with(&[0]) && packet.len() <= MOST_PACKET_BYTES);
            return;
        }
    };
    assert!(!request.file.is_empty() && !request.file.chars().any(char::is_control));
    let mut now = guest::second(0);
    let (mut transfer, steps) = Transfer::start(now, &request, size);
    verify(&steps, size);
    for record in records {
        let Some((seconds, packet)) = record.split_first() else { continue };
        now += std::time::Duration::from_secs((*seconds).into());
        let had_ended = transfer.end().is_some();
        let steps = if packet.is_empty() {
            now = now.max(transfer.deadline());
            transfer.on_deadline(now)
        } else {
            transfer.on_packet(now, packet)
        };
        verify(&steps, size);
        assert!(!had_ended || transfer.end().is_some(), "a transfer ends once");
        assert!(transfer.acknowledged_bytes() <= size);
        if transfer.end().is_some() {
            return;
        }
        assert!(transfer.deadline() > now, "the client has time for its answer");
    }
}

fn verify(steps: &[Step], size: u64) {
    assert!(steps.len() <= MOST_STEPS, "{} packets for one", steps.len());
    for step in steps {
        match step {
            Step::Packet(packet) => assert!(packet.len() <= MOST_PACKET_BYTES),
            Step::Block { number, offset, bytes } => {
                assert!(offset + u64::try_from(*bytes).expect("a block") <= size, "{offset} + {bytes} of {size}");
                assert!(data(*number, &vec![0; *bytes]).len() <= MOST_PACKET_BYTES);
            }
        }
    }
}
