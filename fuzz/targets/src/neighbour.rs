//! Target `neighbour`: whole frames on the service tap, router and neighbour solicitations above all, from the guest
//! and from the gateway, with time passing. An input is records; a record's first byte says what happens.

use std::time::Duration;

use dhcp::{Engine, Frame};
use etherparse::PacketBuilder;

use crate::guest::{self, Content, GATEWAY, GATEWAY_GLOBAL, GUEST, GUEST_LOCAL, SERVICE, VIRTUAL};

const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const ALL_ROUTERS: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// Answers to a burst, and those of each second after it.
const BURST: u64 = 64;
const A_SECOND: u64 = 50;

/// Reads an input and panics when a promise is broken.
pub fn check(input: &[u8]) {
    let mut engine = guest::engine(false);
    let mut check = Check::default();
    let mut now = Duration::from_secs(1);
    for record in guest::records(input) {
        let Some((what, rest)) = record.split_first() else { continue };
        let sent = happen(&mut engine, &mut now, *what, rest);
        assert!(sent.len() <= 2, "{} frames at once", sent.len());
        sent.iter().for_each(|frame| check.on(now, frame));
    }
    let most = BURST + A_SECOND * (now.as_secs() + 1) * 2;
    assert!(check.sent <= most, "{} frames until {now:?}", check.sent);
}

fn happen(engine: &mut Engine, now: &mut Duration, what: u8, rest: &[u8]) -> Vec<Frame> {
    match what % 6 {
        0 => engine.on_frame(*now, &from(GUEST.bytes(), rest)),
        1 => engine.on_frame(*now, &from(GATEWAY.bytes(), rest)),
        2 => engine.on_frame(*now, &icmp6(GUEST.bytes(), GUEST_LOCAL.octets(), rest)),
        3 => engine.on_frame(*now, &icmp6(GATEWAY.bytes(), GATEWAY_GLOBAL.octets(), rest)),
        4 => {
            *now += Duration::from_millis(rest.iter().map(|byte| u64::from(*byte) * 16).sum::<u64>().min(600_000));
            Vec::new()
        }
        _ => {
            if let Some(due) = engine.next_deadline() {
                *now = due.max(*now);
            }
            let sent = engine.on_deadline(*now);
            assert!(engine.next_deadline().is_none_or(|due| due > *now), "due at once, for ever");
            sent
        }
    }
}

/// Any bytes, but with this sender: another's are dropped before anything is read.
fn from(source: [u8; 6], bytes: &[u8]) -> Frame {
    let mut frame = bytes.to_vec();
    if let Some(field) = frame.get_mut(6..12) {
        field.copy_from_slice(&source);
    }
    frame
}

/// An ICMPv6 message with a right header: kind, code and body are the input's.
fn icmp6(mac: [u8; 6], source: [u8; 16], message: &[u8]) -> Frame {
    let (kind, code) = (message.first().copied().unwrap_or(133), message.get(1).copied().unwrap_or(0));
    let body = message.get(2..).unwrap_or_default();
    let body = &body[..body.len().min(1400)];
    let builder = PacketBuilder::ethernet2(mac, [0x33, 0x33, 0, 0, 0, 2])
        .ipv6(source, ALL_ROUTERS, 255)
        .icmpv6_raw(kind, code, [0; 4]);
    let mut frame = Vec::with_capacity(builder.size(body.len()));
    builder.write(&mut frame, body).expect("a buffer can be written");
    frame
}

/// What was sent so far.
#[derive(Debug, Default)]
struct Check {
    sent: u64,
    asked_at: Option<Duration>,
}

impl Check {
    fn on(&mut self, now: Duration, frame: &[u8]) {
        self.sent += 1;
        let sent = guest::read(frame);
        let is_question = matches!(sent.content, Content::Icmp6 { kind: NEIGHBOUR_SOLICITATION, .. });
        let to_guest = (sent.destination, sent.source) == (GUEST.bytes(), SERVICE.bytes());
        assert!(to_guest || is_question, "sent to a stranger: {sent:?}");
        let Content::Icmp6 { header, kind, body } = sent.content else { return };
        assert_eq!(header.hop_limit, 255);
        match kind {
            ROUTER_ADVERTISEMENT => {
                assert_eq!(header.source, VIRTUAL.octets());
                // Managed and other configuration, never an autonomous prefix.
                assert_eq!(body[1], 0xc0);
            }
            NEIGHBOUR_ADVERTISEMENT => assert_eq!(body[4..20], VIRTUAL.octets()),
            NEIGHBOUR_SOLICITATION => {
                assert_eq!(body[4..20], GATEWAY_GLOBAL.octets());
                let waited = self.asked_at.replace(now).map(|before| now - before);
                assert!(waited.is_none_or(|waited| waited >= Duration::from_secs(1)), "asked again after {waited:?}");
            }
            other => panic!("ICMPv6 type {other} is never sent"),
        }
    }
}

/// What recorded clients sent, whole, each frame followed by what is then due.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let records = |frame: Frame| [[&[0][..], &frame].concat(), vec![5]];
    guest::captures().into_iter().map(|frames| guest::in_records(&[], frames.into_iter().flat_map(records))).collect()
}
