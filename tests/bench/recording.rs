//! From what the plugin recorded to what the replaying program reads.

use hostnet::linux::{Bus, Step};
use hostnet::tap::TunCall;

/// Which steps of a recording are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All, what was only read included.
    All,
    /// What changes the kernel.
    Changes,
}

/// The steps that the replaying program reads (see its `call.rs`).
pub(crate) fn steps(recorded: &str, part: Part) -> Vec<u8> {
    let steps: Vec<Step> = serde_json::from_str(recorded).expect("a recording is a list of steps");
    let mut bytes = Vec::new();
    let mut reading = false;
    for step in &steps {
        if let Step::Send { hex, .. } = step {
            reading = part == Part::Changes && is_dump(&unhex(hex));
        }
        let left_out = match step {
            Step::Send { .. } | Step::Receive { .. } => reading,
            Step::ReadFile { .. } => part == Part::Changes,
            // The numbers stand in the messages already.
            Step::LinkIndex(_) => true,
            _ => false,
        };
        if !left_out {
            let (kind, operand) = encoded(step);
            bytes.push(kind);
            bytes.extend(u32::try_from(operand.len()).expect("a step is short").to_le_bytes());
            bytes.extend(operand);
        }
    }
    bytes
}

fn encoded(step: &Step) -> (u8, Vec<u8>) {
    let letter = |bus: &Bus| if *bus == Bus::Route { b'r' } else { b'n' };
    let terminated = |text: &str| [text.as_bytes(), &[0]].concat();
    match step {
        Step::Send { bus, hex } => (letter(bus), unhex(hex)),
        Step::Receive { bus } => (letter(bus).to_ascii_uppercase(), Vec::new()),
        Step::OpenTun => (b't', Vec::new()),
        Step::Tun(call) => (b'i', ioctl(call)),
        Step::ReadFile { path } => (b'f', terminated(path)),
        Step::WriteFile { path, contents } => (b'w', [terminated(path), contents.as_bytes().to_vec()].concat()),
        Step::LinkIndex(_) => unreachable!("look-ups of links are left out"),
    }
}

/// Request, whether the argument is a pointer, argument.
fn ioctl(call: &TunCall) -> Vec<u8> {
    let value = |request: u64, value: u32| [&request.to_le_bytes()[..], &[0], &u64::from(value).to_le_bytes()].concat();
    match call {
        TunCall::Interface { name, multi_queue, exclusive } => {
            let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
            flags |= if *multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
            flags |= if *exclusive { libc::IFF_TUN_EXCL } else { 0 };
            let mut ifreq = vec![0; size_of::<libc::ifreq>()];
            ifreq[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
            ifreq[libc::IFNAMSIZ..libc::IFNAMSIZ + 2].copy_from_slice(&flags.to_le_bytes()[..2]);
            [&libc::TUNSETIFF.to_le_bytes()[..], &[1], &ifreq].concat()
        }
        TunCall::Owner(uid) => value(libc::TUNSETOWNER, *uid),
        TunCall::Group(gid) => value(libc::TUNSETGROUP, *gid),
        TunCall::Persist(on) => value(libc::TUNSETPERSIST, u32::from(*on)),
        TunCall::HeaderSize(_) | TunCall::Offload(_) => unreachable!("the plugin attaches to no tap"),
    }
}

/// Whether the first message asks for a dump (`nlmsg_flags` is at 6).
fn is_dump(messages: &[u8]) -> bool {
    let flags = u16::from_ne_bytes([messages[6], messages[7]]);
    i32::from(flags) & libc::NLM_F_DUMP == libc::NLM_F_DUMP
}

fn unhex(text: &str) -> Vec<u8> {
    let digit =
        |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).expect("hexadecimal");
    text.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
