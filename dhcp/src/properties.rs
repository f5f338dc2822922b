//! What holds for any input: no panic, no stranger answered, no large answer, what is written can be read.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use terms::MacAddr;

use crate::frame::Link;
use crate::{Config, Engine, Frame, Lifetime, Prefix, Router, V4Config, V6Config};

const GUEST: MacAddr = MacAddr::local([0, 0, 0, 0, 7]);
const SERVICE: MacAddr = MacAddr::local([0, 0, 0, 0, 8]);
const GUEST_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const MTU: usize = 1500;

/// An engine with everything configured, and more of it than fits into one packet.
fn engine() -> Engine {
    let mut config = Config::new(GUEST, SERVICE);
    config.mtu = Some(terms::Mtu::try_from(MTU as u64).unwrap());
    config.hostname = Some("h".repeat(200));
    config.search = (0..32).map(|n| format!("{}{n}.example", "s".repeat(50)).parse().unwrap()).collect();
    config.dns = (1..=8).flat_map(|n| [Ipv4Addr::from(n).into(), Ipv6Addr::from(u128::from(n)).into()]).collect();
    config.v4 = Some(V4Config {
        address: "10.0.2.2/32".parse().unwrap(),
        server_id: [10, 0, 2, 1].into(),
        router: Some([10, 0, 2, 1].into()),
        routes: (0..200).map(|n| (format!("10.{n}.0.0/16").parse().unwrap(), [10, 0, 2, 1].into())).collect(),
        boot_file: Some("file".into()),
        private_options: (224..=254).map(|code| (code, vec![code; 255])).collect(),
        ..V4Config::default()
    });
    config.v6 = Some(V6Config {
        address: "fd10:0:2::2".parse().unwrap(),
        preferred: Lifetime::Seconds(10),
        valid: Lifetime::Seconds(20),
        router: Router::Virtual { link_local: "fe80::1".parse().unwrap(), gateway: "fd10::1".parse().unwrap() },
        router_lifetime_seconds: 9000,
        prefixes: vec![Prefix { network: "fd10::/64".parse().unwrap(), on_link: true }; 16],
        routes: vec!["fd81::/48".parse().unwrap(); 16],
        boot_file_url: Some("u".repeat(255)),
    });
    Engine::new(config).unwrap()
}

pub(crate) fn check(answers: &[Frame]) {
    assert!(answers.len() <= 2);
    for answer in answers {
        assert!(answer.len() <= 14 + MTU, "{} bytes", answer.len());
        let to_guest = answer[..6] == GUEST.bytes();
        let question_to_gateway = answer[12..14] == [0x86, 0xdd] && answer[20] == 58 && answer[54] == 135;
        assert!(to_guest || question_to_gateway, "sent to a stranger");
        etherparse::PacketHeaders::from_ethernet_slice(answer).unwrap();
    }
}

fn v4_frame(payload: &[u8], destination: Ipv4Addr) -> Frame {
    Link { source: GUEST, destination: [0xff; 6] }.udp4((Ipv4Addr::UNSPECIFIED, 68), (destination, 67), payload)
}

fn v6_frame(payload: &[u8]) -> Frame {
    Link { source: GUEST, destination: [0xff; 6] }.udp6((GUEST_LOCAL, 546), (SERVERS, 547), payload)
}

/// A DHCPv4 request whose fixed part is right and whose options are anything.
fn v4_payload() -> impl Strategy<Value = Vec<u8>> {
    (1_u8..10, any::<[u8; 16]>(), vec(any::<u8>(), 0..600), any::<[u8; 192]>()).prop_map(
        |(kind, addresses, tail, text)| {
            let mut payload = vec![1, 1, 6, 0, 1, 2, 3, 4, 0, 0, 0, 0];
            payload.extend(addresses);
            payload[24..28].fill(0);
            payload.extend(GUEST.bytes());
            payload.extend([0; 10]);
            payload.extend(text);
            payload.extend([99, 130, 83, 99, 53, 1, kind]);
            payload.extend(tail);
            payload
        },
    )
}

/// A DHCPv6 message with well-formed options of any content.
fn v6_payload() -> impl Strategy<Value = Vec<u8>> {
    let option = (prop_oneof![0_u16..64, Just(3_u16), Just(25_u16)], vec(any::<u8>(), 0..60));
    (0_u8..14, any::<bool>(), vec(option, 0..40)).prop_map(|(kind, names_server, options)| {
        let mut payload = vec![kind, 1, 2, 3, 0, 1, 0, 4, 0, 3, 0, 1];
        if names_server {
            payload.extend([0, 2, 0, 10, 0, 3, 0, 1]);
            payload.extend(SERVICE.bytes());
        }
        for (code, value) in options {
            payload.extend(code.to_be_bytes());
            payload.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            payload.extend(value);
        }
        payload
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_do_no_harm(frame in vec(any::<u8>(), 0..2000)) {
        check(&engine().on_frame(Duration::from_secs(1), &frame));
    }

    #[test]
    fn any_payload_from_the_guest_does_no_harm(kind in 0_u8..4, payload in vec(any::<u8>(), 0..600)) {
        let link = Link { source: GUEST, destination: [0xff; 6] };
        let frame = match kind {
            0 => v4_frame(&payload, Ipv4Addr::BROADCAST),
            1 => v6_frame(&payload),
            kind => link.icmp6(GUEST_LOCAL, SERVERS, 131 + kind, &payload),
        };
        check(&engine().on_frame(Duration::from_secs(1), &frame));
    }

    #[test]
    fn any_dhcp_options_do_no_harm_and_answers_can_be_read(payload in v4_payload()) {
        let answers = engine().on_frame(Duration::from_secs(1), &v4_frame(&payload, [10, 0, 2, 1].into()));
        check(&answers);
        for answer in answers {
            use dhcproto::Decodable as _;
            let message = dhcproto::v4::Message::from_bytes(&answer[42..]).unwrap();
            prop_assert!(message.opts().msg_type().is_some());
        }
    }

    #[test]
    fn any_dhcpv6_options_do_no_harm_and_answers_can_be_read(payload in v6_payload()) {
        let answers = engine().on_frame(Duration::from_secs(1), &v6_frame(&payload));
        check(&answers);
        for answer in answers {
            use dhcproto::Decodable as _;
            let message = dhcproto::v6::Message::from_bytes(&answer[62..]).unwrap();
            prop_assert!(message.opts().get(dhcproto::v6::OptionCode::ServerId).is_some());
        }
    }

    #[test]
    fn frames_cut_short_anywhere_do_no_harm(payload in v4_payload(), cut in any::<prop::sample::Index>()) {
        let frame = v4_frame(&payload, Ipv4Addr::BROADCAST);
        check(&engine().on_frame(Duration::from_secs(1), &frame[..cut.index(frame.len())]));
    }

    #[test]
    fn the_engine_never_lags_behind_its_own_deadline(times in vec((0_u64..50, any::<bool>()), 1..60)) {
        let mut engine = engine();
        let mut now = Duration::from_secs(1);
        for (step, is_answered) in times {
            now += Duration::from_secs(step);
            let target: Ipv6Addr = "fe80::1".parse().unwrap();
            let question = [&[0; 4][..], &target.octets()].concat();
            let link = Link { source: GUEST, destination: [0xff; 6] };
            check(&engine.on_frame(now, &link.icmp6(GUEST_LOCAL, SERVERS, 135, &question)));
            if is_answered {
                let gateway: Ipv6Addr = "fd10::1".parse().unwrap();
                let answer = [&[0x40, 0, 0, 0][..], &gateway.octets()].concat();
                let link = Link { source: MacAddr::local([1; 5]), destination: GUEST.bytes() };
                check(&engine.on_frame(now, &link.icmp6(gateway, GUEST_LOCAL, 136, &answer)));
            }
            check(&engine.on_deadline(now));
            prop_assert!(engine.next_deadline().is_none_or(|due| due > now), "due at once, for ever");
        }
    }
}
