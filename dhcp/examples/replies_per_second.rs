//! How many DISCOVERs and REQUESTs the engine answers in a second, without I/O.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and tells")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dhcp::{Config, Engine, V4Config};
use terms::MacAddr;

const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 7];
const ROUNDS: u32 = 200_000;

fn main() -> ExitCode {
    let mut config = Config::new(MacAddr::local([0, 0, 0, 0, 7]), MacAddr::local([0, 0, 0, 0, 8]));
    let Ok(address) = "10.0.2.2/24".parse() else { return ExitCode::FAILURE };
    config.v4 = Some(V4Config { address, server_id: [10, 0, 2, 1].into(), ..V4Config::default() });
    let Ok(mut engine) = Engine::new(config) else { return ExitCode::FAILURE };
    let (discover, request) = (ask(&[53, 1, 1, 255]), ask(&[53, 1, 3, 50, 4, 10, 0, 2, 2, 54, 4, 10, 0, 2, 1, 255]));
    let start = Instant::now();
    let mut answers = 0;
    for round in 0..ROUNDS {
        // A second of the engine's time for each pair keeps within its rate limit.
        let now = Duration::from_secs(round.into());
        answers += engine.on_frame(now, &discover).len() + engine.on_frame(now, &request).len();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{answers} answers in {seconds:.3} s: {:.0} DISCOVER to ACK a second", f64::from(ROUNDS) / seconds);
    ExitCode::SUCCESS
}

/// A request of the guest in a frame whose checksums are left out.
fn ask(options: &[u8]) -> Vec<u8> {
    let mut message =
        [&[1, 1, 6, 0, 1, 2, 3, 4][..], &[0; 20], &GUEST, &[0; 202], &[99, 130, 83, 99], options].concat();
    message.resize(300, 0);
    let ip = [0x45, 0, 1, 72, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    let udp = [0, 68, 0, 67, 1, 52, 0, 0];
    [&[0xff; 6][..], &GUEST, &[8, 0], &ip, &udp, &message].concat()
}
