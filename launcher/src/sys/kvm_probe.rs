//! Whether /dev/kvm runs code on the processor: by running some.
//!
//! A node that opens proves nothing. Some hosts offer one that interprets every instruction, hundreds of times slower
//! than the emulation engine, and fails on some that every kernel needs. So a few instructions in protected mode, among
//! them an IRET (which such interpreters lack), and a loop against the clock.
#![expect(unsafe_code, reason = "a guest needs memory that KVM is given by address")]

use std::num::NonZeroUsize;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use protocol::probe::Verdict;

pub(crate) const NODE: &str = "/dev/kvm";
const MEMORY_BYTES: usize = 64 << 10;
const GDT_AT: usize = 0x500;
const CODE_AT: usize = 0x1000;
const STACK_AT: u64 = 0x8000;
/// Turns of the loop between two exits; each is two instructions.
const TURNS: u32 = 20_000;
/// What a processor needs for them is a tenth of a millisecond, or some tenths in a nested guest; an interpreter, thirty.
const SLOWEST: Duration = Duration::from_millis(4);
/// One of these must be fast: a busy host may take the processor away in the middle of any.
const ATTEMPTS: usize = 8;
/// A host that is busy with other guests has needed more than three seconds to make a machine.
const LIMIT: Duration = Duration::from_secs(10);
const DONE_PORT: u16 = 0x80;

/// Null, flat 32-bit code, flat data (Intel SDM volume 3, §3.4.5).
const GDT: [u64; 3] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// `pushfd; push 0x08; push target; iretd; target: mov ecx, TURNS; again: dec ecx; jnz again; out 0x80, al; jmp target`.
const CODE: [u8; 21] = {
    let turns = TURNS.to_le_bytes();
    let mut code = [
        0x9c, 0x6a, 0x08, 0x68, 0x09, 0x10, 0x00, 0x00, 0xcf, // down to the IRET
        0xb9, 0, 0, 0, 0, // mov ecx
        0x49, 0x75, 0xfd, // the loop
        0xe6, 0x80, 0xeb, 0xf4, // out, and back
    ];
    let mut byte = 0;
    while byte < 4 {
        code[10 + byte] = turns[byte];
        byte += 1;
    }
    code
};

/// Runs the probe on an open descriptor, or on the node.
#[must_use]
pub fn probe(given: Option<OwnedFd>) -> Verdict {
    let (tell, told) = mpsc::channel();
    // A KVM that never comes back keeps its thread; the process does not wait for it.
    let thread = thread::Builder::new().name("kvm-probe".into()).spawn(move || tell.send(run(given)));
    let result = match thread {
        Ok(_) => told.recv_timeout(LIMIT).unwrap_or_else(|_| Err(format!("has not come back within {LIMIT:?}"))),
        Err(error) => Err(format!("could not be tried: {error}")),
    };
    match result {
        Ok(()) => Verdict::Usable,
        Err(reason) => Verdict::Unusable { reason: format!("{NODE} {reason}") },
    }
}

fn run(given: Option<OwnedFd>) -> Result<(), String> {
    let kvm = match given {
        // SAFETY: the number comes out of an OwnedFd, which gives it up here: it is open and has no other owner.
        Some(fd) => unsafe { <Kvm as std::os::fd::FromRawFd>::from_raw_fd(fd.into_raw_fd()) },
        None => Kvm::new().map_err(|error| format!("cannot be opened: {error}"))?,
    };
    let refused = |what: &'static str| move |error: kvm_ioctls::Error| format!("refuses {what}: {error}");
    let vm = kvm.create_vm().map_err(refused("a virtual machine"))?;
    let memory = Memory::new().map_err(|error| format!("could not be tried: no memory: {error}"))?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY_BYTES as u64,
        userspace_addr: memory.0.as_ptr().addr() as u64,
    };
    // SAFETY: the region is mapped and of that size, and `memory` unmaps it only after the vCPU, made later, is dropped:
    // nothing executes in it any more by then.
    unsafe { vm.set_user_memory_region(region) }.map_err(refused("memory"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(refused("a virtual processor"))?;
    protected_mode(&vcpu).map_err(refused("registers"))?;
    measure(&mut vcpu)
}

fn measure(vcpu: &mut VcpuFd) -> Result<(), String> {
    let mut best = Duration::MAX;
    for _ in 0..ATTEMPTS {
        let started = now();
        match vcpu.run() {
            Ok(VcpuExit::IoOut(DONE_PORT, _)) => best = best.min(started.elapsed()),
            Ok(VcpuExit::InternalError) => {
                return Err("fails to execute ordinary instructions (internal error)".to_owned());
            }
            Ok(other) => return Err(format!("leaves ordinary code with {other:?}")),
            Err(error) => return Err(format!("does not run: {error}")),
        }
        if best <= SLOWEST {
            return Ok(());
        }
    }
    let rate = f64::from(2 * TURNS) / best.as_secs_f64() / 1e6;
    Err(format!("only interprets: {rate:.1} million instructions a second"))
}

#[expect(clippy::disallowed_methods, reason = "the edge: the probe is a measurement")]
fn now() -> Instant {
    Instant::now()
}

/// Flat 32-bit protected mode, as a loader leaves it.
fn protected_mode(vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    let segment = |selector: u16, type_: u8| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    sregs.cs = segment(0x08, 0xb);
    for data in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *data = segment(0x10, 0x3);
    }
    sregs.gdt.base = GDT_AT as u64;
    sregs.gdt.limit = 23;
    sregs.cr0 |= 1;
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    (regs.rip, regs.rsp, regs.rflags) = (CODE_AT as u64, STACK_AT, 2);
    vcpu.set_regs(&regs)
}

/// The guest's memory, with table and code in place.
struct Memory(NonNull<std::ffi::c_void>);

impl Memory {
    fn new() -> nix::Result<Self> {
        let size = NonZeroUsize::new(MEMORY_BYTES).ok_or(nix::errno::Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choosing touches no other memory.
        let mapping = unsafe { mmap_anonymous(None, size, protection, MapFlags::MAP_PRIVATE) }?;
        // SAFETY: the mapping is that large, writable, aligned as bytes are, zeroed, and nothing else has a reference to it yet.
        let bytes = unsafe { std::slice::from_raw_parts_mut(mapping.cast::<u8>().as_ptr(), MEMORY_BYTES) };
        let table = GDT.into_iter().flat_map(u64::to_le_bytes);
        bytes.iter_mut().skip(GDT_AT).zip(table).for_each(|(to, from)| *to = from);
        bytes.iter_mut().skip(CODE_AT).zip(CODE).for_each(|(to, from)| *to = from);
        Ok(Self(mapping))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, that large, and no reference into it is left.
        let _ = unsafe { munmap(self.0, MEMORY_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_no_kvm_is_unusable_and_says_so() {
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let Verdict::Unusable { reason } = probe(Some(null)) else { panic!("/dev/null is no hypervisor") };
        assert!(reason.starts_with("/dev/kvm refuses a virtual machine"), "{reason}");
    }

    #[test]
    fn the_code_jumps_where_it_says() {
        assert_eq!(u32::from_le_bytes([CODE[4], CODE[5], CODE[6], CODE[7]]) as usize, CODE_AT + 9);
        assert_eq!(CODE[CODE.len() - 1].cast_signed(), -12);
    }
}
