//! One file on its way to one client.

use std::time::Duration;

use super::request::{ACK, ERROR, Request, options};
use crate::bytes::Bytes;

/// Bytes of a block without an option (RFC 1350 §2).
const BLOCK_BYTES: u16 = 512;
/// The largest block that fits an Ethernet frame behind the headers of IPv4, UDP and TFTP.
const LARGEST_BLOCK: u16 = 1500 - 20 - 8 - 4;
/// Most blocks in a window.
const LARGEST_WINDOW: u16 = 64;
/// Seconds until something is sent again, doubled each time.
const TIMEOUT_SECONDS: u8 = 1;
/// How often the same is sent again before the client is given up.
const MOST_REPEATS: u32 = 5;

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Send this packet.
    Packet(Vec<u8>),
    /// Read these bytes of the file and send them with [`super::data`].
    Block {
        /// The block's number on the wire.
        number: u16,
        /// Where it begins in the file.
        offset: u64,
        /// How many bytes it has; fewer than a whole block, or none, in the last.
        bytes: usize,
    },
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The client has the whole file.
    Complete,
    /// The client wants no more; its reason. Firmware ends a transfer so when it only wanted to know the size.
    Aborted(String),
    /// The client does not answer.
    TimedOut,
}

/// The state of a transfer. Blocks are counted from 1 without end; on the wire their numbers begin again after 65535.
#[derive(Debug, Clone)]
pub struct Transfer {
    size: u64,
    block_bytes: u16,
    window: u16,
    timeout: Duration,
    /// The acknowledgement of options that is still to be answered.
    negotiation: Option<Vec<u8>>,
    acknowledged: u64,
    sent: u64,
    repeats: u32,
    /// Whether the window was already sent again because of a repeated acknowledgement.
    has_resent: bool,
    deadline: Duration,
    end: Option<End>,
}

impl Transfer {
    /// Begins the transfer of a file of `size` bytes, and what to do first.
    #[must_use]
    pub fn start(now: Duration, request: &Request, size: u64) -> (Self, Vec<Step>) {
        let block_bytes = request.block_bytes.map(|bytes| bytes.min(LARGEST_BLOCK));
        let window = request.window.map(|blocks| blocks.min(LARGEST_WINDOW));
        let accepted: Vec<_> = [
            block_bytes.map(|bytes| ("blksize", bytes.to_string())),
            request.timeout_seconds.map(|seconds| ("timeout", seconds.to_string())),
            request.wants_size.then(|| ("tsize", size.to_string())),
            window.map(|blocks| ("windowsize", blocks.to_string())),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut transfer = Self {
            size,
            block_bytes: block_bytes.unwrap_or(BLOCK_BYTES),
            window: window.unwrap_or(1),
            timeout: Duration::from_secs(request.timeout_seconds.unwrap_or(TIMEOUT_SECONDS).into()),
            negotiation: (!accepted.is_empty()).then(|| options(&accepted)),
            acknowledged: 0,
            sent: 0,
            repeats: 0,
            has_resent: false,
            deadline: now,
            end: None,
        };
        let steps = transfer.send(now);
        (transfer, steps)
    }

    /// How it ended; `None` while it goes on.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// When [`Transfer::on_deadline`] is due.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Bytes the client has acknowledged.
    #[must_use]
    pub fn acknowledged_bytes(&self) -> u64 {
        self.size.min(self.acknowledged.saturating_mul(self.block_bytes.into()))
    }

    /// Takes a packet of the client.
    #[must_use]
    pub fn on_packet(&mut self, now: Duration, packet: &[u8]) -> Vec<Step> {
        let mut bytes = Bytes::new(packet);
        match (self.end.is_some(), bytes.u16(), bytes.u16()) {
            (false, Some(ACK), Some(number)) => self.on_acknowledgement(now, number),
            (false, Some(ERROR), Some(_)) => {
                let reason = bytes.rest().split(|byte| *byte == 0).next().unwrap_or_default();
                self.end = Some(End::Aborted(String::from_utf8_lossy(reason).chars().take(80).collect()));
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Sends again what the client has not acknowledged, or gives it up.
    #[must_use]
    pub fn on_deadline(&mut self, now: Duration) -> Vec<Step> {
        if now < self.deadline || self.end.is_some() {
            return Vec::new();
        }
        self.repeats += 1;
        if self.repeats > MOST_REPEATS {
            self.end = Some(End::TimedOut);
            return Vec::new();
        }
        self.send(now)
    }

    fn on_acknowledgement(&mut self, now: Duration, number: u16) -> Vec<Step> {
        // The count of the acknowledged block is within the window, so the number's distance tells it.
        let [.., high, low] = self.acknowledged.to_be_bytes();
        let ahead = u64::from(number.wrapping_sub(u16::from_be_bytes([high, low])));
        if ahead > self.sent - self.acknowledged {
            return Vec::new();
        }
        if self.negotiation.take().is_none() && ahead == 0 {
            // A repeated acknowledgement: with a window its first block is lost (RFC 7440 §4). Answered every time, each would
            // double all that follows; without a window it is never answered (RFC 1123 §4.2.3.1).
            if self.window == 1 || std::mem::replace(&mut self.has_resent, true) {
                return Vec::new();
            }
            return self.send(now);
        }
        self.acknowledged += ahead;
        (self.repeats, self.has_resent) = (0, false);
        if self.acknowledged == self.blocks() {
            self.end = Some(End::Complete);
            return Vec::new();
        }
        self.send(now)
    }

    /// The last block is the first that is not full, so a file of whole blocks has an empty one at its end.
    fn blocks(&self) -> u64 {
        self.size / u64::from(self.block_bytes) + 1
    }

    fn send(&mut self, now: Duration) -> Vec<Step> {
        self.deadline = now + self.timeout * 2_u32.saturating_pow(self.repeats);
        if let Some(packet) = &self.negotiation {
            return vec![Step::Packet(packet.clone())];
        }
        let last = self.blocks().min(self.acknowledged + u64::from(self.window));
        self.sent = last;
        (self.acknowledged + 1..=last).map(|block| self.block(block)).collect()
    }

    fn block(&self, block: u64) -> Step {
        let offset = (block - 1) * u64::from(self.block_bytes);
        let bytes = self.size.saturating_sub(offset).min(self.block_bytes.into());
        let [.., high, low] = block.to_be_bytes();
        Step::Block {
            number: u16::from_be_bytes([high, low]),
            offset,
            bytes: usize::try_from(bytes).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(options: &str) -> Request {
        let words = options.split_whitespace().map(|word| format!("{word}\0")).collect::<String>();
        Request::parse(format!("\0\x01file\0octet\0{words}").as_bytes()).unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ack(number: u16) -> Vec<u8> {
        [ACK.to_be_bytes(), number.to_be_bytes()].concat()
    }

    fn blocks(steps: &[Step]) -> Vec<(u16, u64, usize)> {
        let block = |step: &Step| match step {
            Step::Block { number, offset, bytes } => (*number, *offset, *bytes),
            Step::Packet(packet) => panic!("{packet:?}"),
        };
        steps.iter().map(block).collect()
    }

    // spec: BOOT-8
    #[test]
    fn a_file_is_sent_block_by_block_and_ends_with_a_short_one() {
        let (mut transfer, steps) = Transfer::start(at(0), &request(""), 1024);
        assert_eq!(blocks(&steps), [(1, 0, 512)]);
        assert_eq!(blocks(&transfer.on_packet(at(0), &ack(1))), [(2, 512, 512)]);
        assert_eq!(blocks(&transfer.on_packet(at(0), &ack(2))), [(3, 1024, 0)]);
        assert_eq!(transfer.on_packet(at(0), &ack(3)), []);
        assert_eq!((transfer.end(), transfer.acknowledged_bytes()), (Some(&End::Complete), 1024));
    }

    // spec: BOOT-8
    #[test]
    fn options_are_acknowledged_and_bounded() {
        let (mut transfer, steps) =
            Transfer::start(at(0), &request("blksize 9000 tsize 0 windowsize 1000 timeout 2"), 5000);
        let packet = b"\0\x06blksize\x001468\0timeout\x002\0tsize\x005000\0windowsize\x0064\0";
        assert_eq!(steps, [Step::Packet(packet.to_vec())]);
        let sent = blocks(&transfer.on_packet(at(1), &ack(0)));
        assert_eq!(sent, [(1, 0, 1468), (2, 1468, 1468), (3, 2936, 1468), (4, 4404, 596)]);
        assert_eq!(transfer.deadline(), at(3));
    }

    // spec: BOOT-8
    #[test]
    fn a_window_goes_on_behind_the_last_block_that_arrived() {
        let (mut transfer, _) = Transfer::start(at(0), &request("windowsize 3"), 512 * 6);
        let sent = blocks(&transfer.on_packet(at(0), &ack(0)));
        assert_eq!(sent.iter().map(|block| block.0).collect::<Vec<_>>(), [1, 2, 3]);
        let sent = blocks(&transfer.on_packet(at(0), &ack(2)));
        assert_eq!(sent.iter().map(|block| block.0).collect::<Vec<_>>(), [3, 4, 5]);
        // The first of the window is lost: the client says again what it has, and a second time brings nothing more.
        assert_eq!(transfer.on_packet(at(0), &ack(2)).len(), 3);
        assert_eq!(transfer.on_packet(at(0), &ack(2)), []);
    }

    // spec: BOOT-8
    #[test]
    fn a_repeated_acknowledgement_does_not_double_the_transfer() {
        let (mut transfer, _) = Transfer::start(at(0), &request(""), 2000);
        assert_eq!(transfer.on_packet(at(0), &ack(1)).len(), 1);
        assert_eq!(transfer.on_packet(at(0), &ack(1)), []);
        assert_eq!(transfer.on_packet(at(0), &ack(3)), [], "a block that was never sent");
    }

    // spec: BOOT-8
    #[test]
    fn what_is_lost_is_sent_again_and_a_silent_client_is_given_up() {
        let (mut transfer, first) = Transfer::start(at(0), &request(""), 10);
        for second in [1, 3, 7, 15, 31] {
            assert_eq!(transfer.on_deadline(at(second) - Duration::from_millis(1)), []);
            assert_eq!(transfer.on_deadline(at(second)), first);
        }
        assert_eq!((transfer.on_deadline(at(63)), transfer.end()), (Vec::new(), Some(&End::TimedOut)));
    }

    // spec: BOOT-8
    #[test]
    fn block_numbers_begin_again_in_a_large_file() {
        let (mut transfer, mut steps) = Transfer::start(at(0), &request(""), 512 * 65_537 + 7);
        let mut last = 0;
        while let [(number, offset, _)] = blocks(&steps)[..] {
            last = offset;
            steps = transfer.on_packet(at(0), &ack(number));
        }
        assert_eq!((last, transfer.end()), (512 * 65_537, Some(&End::Complete)));
    }

    #[test]
    fn a_client_that_wanted_the_size_alone_ends_the_transfer() {
        let (mut transfer, _) = Transfer::start(at(0), &request("tsize 0"), 10);
        assert_eq!(transfer.on_packet(at(0), b"\0\x05\0\0no more\0"), []);
        assert_eq!(transfer.end(), Some(&End::Aborted("no more".to_owned())));
    }
}
