//! The floor of a CNI verb: makes the kernel calls that a run of the plugin was recorded to make, and nothing else.
//!
//! `replay NETNS <STEPS`: enters the namespace and makes each call of STEPS. A step is one byte that says which, the length of
//! its operand (four bytes, little-endian), and the operand. No C library or Rust runtime is set up beyond what `main` needs.
#![no_main]
#![expect(unsafe_code, reason = "a C main, and calls that no safe crate makes with bytes that are not looked into")]

mod call;

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::BorrowedFd;

use call::{Calls, Failed};

/// The longest recording that is read.
const LONGEST: usize = 1 << 20;

/// Exit code: 0; 1 when a call failed or the recording is cut off; 2 for a wrong command line.
// SAFETY: no other function of this program is called `main`.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    if argc != 2 {
        return 2;
    }
    // SAFETY: the C runtime passes `argc` pointers to strings that end with NUL and live as long as the process.
    let netns = unsafe { CStr::from_ptr(*argv.add(1)) };
    match replay(netns) {
        Ok(()) => 0,
        Err(Failed { step, what, errno }) => {
            eprintln!("replay: step {step}, {what}: {errno}");
            1
        }
    }
}

fn replay(netns: &CStr) -> Result<(), Failed> {
    let mut steps = vec![0; LONGEST];
    let mut length = 0;
    loop {
        // SAFETY: descriptor 0 is open in every process that is started with an input, and is not closed here.
        let input = unsafe { BorrowedFd::borrow_raw(0) };
        let free = steps.get_mut(length..).unwrap_or_default();
        match nix::unistd::read(input, free).map_err(Failed::at(0, "reading the recording"))? {
            0 => break,
            read => length += read,
        }
    }
    let mut rest = steps.get(..length).unwrap_or_default();
    let mut calls = Calls::enter(netns)?;
    while let Some((head, tail)) = rest.split_first_chunk::<5>() {
        let [kind, operand @ ..] = *head;
        let length = usize::try_from(u32::from_le_bytes(operand)).unwrap_or(usize::MAX);
        let cut_off = Failed { step: calls.made(), what: "an operand that is cut off", errno: nix::Error::EINVAL };
        let (operand, next) = tail.split_at_checked(length).ok_or(cut_off)?;
        calls.make(kind, operand)?;
        rest = next;
    }
    Ok(())
}
