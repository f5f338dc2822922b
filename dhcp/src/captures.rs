//! Real clients' frames, replayed whole and mutated.

use std::time::Duration;

use proptest::prelude::*;
use terms::MacAddr;

use crate::properties::check;
use crate::{Config, Engine, Frame, Lifetime, Phase, Router, V4Config, V6Config};

/// What a client sent, and how it asked for its leases last.
struct Capture {
    client: &'static str,
    frames: &'static str,
    v4: Option<Phase>,
    v6: Option<Phase>,
}

macro_rules! capture {
    ($client:literal, $v4:expr, $v6:expr) => {
        Capture { client: $client, frames: include_str!(concat!("../captures/", $client, ".hex")), v4: $v4, v6: $v6 }
    };
}

const CAPTURES: [Capture; 8] = [
    capture!("dhclient", Some(Phase::Selecting), Some(Phase::Selecting)),
    capture!("dhcpcd", Some(Phase::RapidCommit), Some(Phase::RapidCommit)),
    capture!("udhcpc", Some(Phase::Selecting), None),
    capture!("networkd", Some(Phase::Selecting), Some(Phase::RapidCommit)),
    capture!("ipxe", Some(Phase::Selecting), None),
    capture!("dhclient-renews", Some(Phase::Selecting), None),
    capture!("dhcpcd-renews", Some(Phase::Renewing), Some(Phase::Renewing)),
    capture!("networkd-renews", Some(Phase::Renewing), Some(Phase::Renewing)),
];

/// The configuration the clients saw when they were recorded.
fn engine() -> Engine {
    let mut config = Config::new(MacAddr::local([0, 0, 0, 0, 7]), MacAddr::local([0x74, 0x61, 0x70, 0, 1]));
    config.v4 = Some(V4Config {
        address: "10.0.2.2/24".parse().unwrap(),
        server_id: [10, 0, 2, 1].into(),
        router: Some([10, 0, 2, 1].into()),
        ..V4Config::default()
    });
    config.v6 = Some(V6Config {
        address: "fd10:0:2::2".parse().unwrap(),
        preferred: Lifetime::Infinite,
        valid: Lifetime::Infinite,
        router: Router::Gateway { link_local: "fe80::ff:fe00:0".parse().unwrap(), link_layer: None },
        router_lifetime_seconds: 1800,
        prefixes: Vec::new(),
        routes: Vec::new(),
        boot_file_url: None,
    });
    Engine::new(config).unwrap()
}

/// The frames of a capture, one a line in hexadecimal, as `DhcpService` of the tests writes them.
fn frames(capture: &str) -> Vec<Frame> {
    let byte = |line: &str, at: usize| u8::from_str_radix(&line[at..at + 2], 16).unwrap();
    capture.lines().map(|line| (0..line.len()).step_by(2).map(|at| byte(line, at)).collect()).collect()
}

#[test]
fn every_recorded_client_ends_with_its_leases() {
    for Capture { client, frames: capture, v4, v6 } in CAPTURES {
        let mut engine = engine();
        for (second, frame) in (0..).zip(frames(capture)) {
            let now = Duration::from_secs(second);
            let answers = engine.on_frame(now, &frame);
            assert_eq!(answers.len(), 1, "{client}: frame {second} of the capture");
            check(&answers);
        }
        let seen = engine.snapshot();
        let phase = |lease: Option<crate::Lease>| lease.map(|lease| lease.phase);
        assert_eq!((phase(seen.v4.lease), phase(seen.v6.lease)), (v4, v6), "{client}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_captures_do_no_harm(
        capture in 0..CAPTURES.len(),
        frame in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let frames = frames(CAPTURES[capture].frames);
        let mut frame = frame.get(&frames).clone();
        for (at, byte) in changes {
            let length = frame.len();
            // Addresses stay: a stranger's frame is dropped before anything is parsed.
            frame[12 + at.index(length - 12)] = byte;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        check(&engine().on_frame(Duration::from_secs(1), &frame));
    }
}
