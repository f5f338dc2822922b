//! `bench order PROGRAM MAP FILE`: which functions the plugin's calls execute, as a linker script that puts them side by side.
//!
//! The kernel maps a program's file in windows of 64 KiB, so that what a call takes of memory and of page faults is decided
//! by how many windows it touches.
//!
//! *Flow*: in front of every function of PROGRAM, the plugin with its symbols, stands a breakpoint. One that is run into is
//! noted and taken away. MAP, the linker's, tells which of them have tables. FILE names functions without the compiler's
//! hashes, so that it outlives other changes of the source.
//! *Assumptions*: `x86_64`; the program runs at the address it was linked for.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;
use tests::{Program, World, inside, seized};

use crate::pods;

const POD: &str = "ordered";

/// Names of functions by address.
type Functions = BTreeMap<u64, Vec<String>>;

/// What stands before the functions: the C library has no section for each of its own, and is small; where a program begins
/// and ends is called by every call; of SHA-256 there is one for each kind of processor.
const CODE: &str = "        *libc.a:*.lo(.text .text.*)
        *crt*.o(.text .text.*)
        *(.fini)
        *(.text*._ZN4sha2*)
";

/// What stands before the tables of functions: constants that belong to none.
const CONSTANTS: &str = "        *libc.a:*.lo(.rodata .rodata.*)
        *(.rodata.cst* .rodata.str*)
        *(.rodata._ZN10serde_json* .rodata._ZN4sha2* .rodata._ZN4zmij*)
";

/// And behind them; few of these are read, but their names say not which.
const NAMELESS: &str = "        *(.rodata..Lanon*)\n";

/// Writes FILE; gives how many functions it names.
pub(crate) fn write(program: &Path, map: &Path, file: &Path) -> usize {
    let functions = functions(program);
    let world = World::bare();
    let mut calls: Vec<(String, BTreeSet<String>)> = Vec::new();
    for (name, call) in sequence(program) {
        if name.starts_with("ADD") {
            pods::make(&world, &[POD]);
        }
        let addresses = inside(&world, || called(&call, &functions));
        if name.starts_with("DEL") {
            pods::remove(&world, &[POD]);
        }
        let names = addresses.iter().flat_map(|address| &functions[address]).filter_map(|name| pattern(name));
        calls.push((name, names.collect()));
    }
    let (text, count) = script(calls, &tables(map));
    std::fs::write(file, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    count
}

/// Every verb, with every binding and with none, in an order in which each succeeds.
fn sequence(program: &Path) -> Vec<(String, Program)> {
    let mut masquerade = pods::tapvisor(Some("masquerade"));
    masquerade["wiring"]["interfaces"][0]["ports"] =
        json!([{"protocol": "TCP", "port": 80}, {"protocol": "UDP", "port": 53}]);
    let mut bridge = pods::tapvisor(Some("bridge"));
    bridge["wiring"]["interfaces"][0]["mac"] = json!("02:00:00:00:00:07");
    bridge["wiring"]["interfaces"][0]["queues"] = json!(2);
    let mut calls = Vec::new();
    for (words, conf) in
        [("of a pod without request", pods::tapvisor(None)), ("masquerade", masquerade), ("bridge", bridge)]
    {
        for verb in ["ADD", "CHECK", "DEL"] {
            let call = pods::call(program, verb, POD, &conf, Some(&pods::previous()));
            calls.push((format!("{verb}, {words}"), call));
        }
    }
    let mut newest = pods::tapvisor(None);
    newest["cniVersion"] = json!("1.1.0");
    newest["cni.dev/valid-attachments"] = json!([]);
    for verb in ["VERSION", "STATUS", "GC"] {
        calls.push((verb.to_owned(), pods::call(program, verb, POD, &newest, None)));
    }
    calls
}

fn functions(program: &Path) -> Functions {
    let output = Command::new("nm").arg("--defined-only").arg(program).output().expect("binutils are installed");
    let listed = String::from_utf8_lossy(&output.stdout);
    let mut functions = Functions::new();
    for line in listed.lines() {
        if let [address, "t" | "T" | "w" | "W", name] = line.split_whitespace().collect::<Vec<_>>()[..] {
            let address = u64::from_str_radix(address, 16).expect("nm prints addresses in hexadecimal");
            functions.entry(address).or_default().push(name.to_owned());
        }
    }
    assert!(!functions.is_empty(), "{} has no symbols", program.display());
    functions
}

/// Addresses of the functions that a run executes.
fn called(program: &Program, functions: &Functions) -> BTreeSet<u64> {
    let root = seized(program, Options::empty());
    let mut originals: BTreeMap<u64, u8> = BTreeMap::new();
    let mut called = BTreeSet::new();
    ptrace::cont(root, None).expect("the shell goes on");
    loop {
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(WaitStatus::PtraceEvent(thread, _, event)) => {
                if event == libc::PTRACE_EVENT_EXEC {
                    originals = functions.keys().map(|address| (*address, replace(thread, *address, 0xcc))).collect();
                }
                let _ = ptrace::cont(thread, None);
            }
            Ok(WaitStatus::Stopped(thread, Signal::SIGTRAP)) => {
                let mut registers = ptrace::getregs(thread).expect("a stopped thread has registers");
                registers.rip -= 1;
                let original = originals.get(&registers.rip).expect("only our breakpoints trap");
                replace(thread, registers.rip, *original);
                called.insert(registers.rip);
                ptrace::setregs(thread, registers).expect("a stopped thread's registers can be set");
                let _ = ptrace::cont(thread, None);
            }
            Ok(WaitStatus::Stopped(thread, signal)) => {
                let _ = ptrace::cont(thread, (signal != Signal::SIGSTOP).then_some(signal));
            }
            Ok(WaitStatus::Exited(pid, code)) if pid == root => assert_eq!(code, 0, "{:?} failed", program.environment),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return called,
        }
    }
}

/// Puts a byte into a stopped program; gives the one that stood there.
fn replace(thread: Pid, address: u64, byte: u8) -> u8 {
    let at = std::ptr::without_provenance_mut::<c_void>(usize::try_from(address).expect("64 bits"));
    let word = ptrace::read(thread, at).expect("a function is mapped");
    let mut bytes = word.to_le_bytes();
    let original = std::mem::replace(&mut bytes[0], byte);
    ptrace::write(thread, at, i64::from_le_bytes(bytes)).expect("a traced program's text can be written");
    original
}

/// The name without hashes; `None` for functions of the C library.
fn pattern(name: &str) -> Option<String> {
    if name == "main" {
        return Some(name.to_owned());
    }
    if let Some(legacy) = name.strip_prefix("_ZN") {
        let hash = legacy.rfind("17h")?;
        return Some(format!("_ZN{}17h*", &legacy[..hash]));
    }
    // A copy has a number behind a dot.
    let rest = name.strip_prefix("_R")?.split('.').next()?;
    // A crate is `Cs`, its hash, `_`, the length of its name, its name.
    let mut pieces = rest.split("Cs");
    let mut pattern = format!("_R{}", pieces.next()?);
    for piece in pieces {
        let hash = piece.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let is_crate = hash > 0 && piece[hash..].starts_with('_');
        pattern.push_str("Cs");
        pattern.push_str(if is_crate { "*" } else { &piece[..hash] });
        pattern.push_str(&piece[hash..]);
    }
    pattern.push('*');
    Some(pattern)
}

/// Patterns of the functions that have tables of their own, for their jumps or their values.
fn tables(map: &Path) -> BTreeSet<String> {
    let map = std::fs::read_to_string(map).unwrap_or_else(|error| panic!("cannot read {}: {error}", map.display()));
    let sections = map.split_whitespace().filter(|word| word.starts_with(".rodata"));
    let names = sections
        .filter_map(|section| section.find("._ZN").or_else(|| section.find("._R")).map(|at| &section[at + 1..]));
    names.filter_map(pattern).collect()
}

/// The call that executes the least comes first, each later one adds what it executes beyond those before.
fn script(mut calls: Vec<(String, BTreeSet<String>)>, tables: &BTreeSet<String>) -> (String, usize) {
    calls.sort_by_key(|(_, names)| names.len());
    let (mut code, mut constants) = (CODE.to_owned(), CONSTANTS.to_owned());
    let mut seen = BTreeSet::new();
    for (call, names) in calls {
        let _ = writeln!(code, "        /* {call} */");
        for name in names {
            if seen.insert(name.clone()) {
                let _ = writeln!(code, "        *(.text*.{name})");
                if tables.contains(&name) {
                    let _ = writeln!(constants, "        *(.rodata*.{name})");
                }
            }
        }
    }
    let text = format!(
        "/* What the plugin's calls execute, side by side, so that a call touches few pages. Written by `make order`. */\n\
         SECTIONS {{\n    .text.called : {{\n{code}    }}\n}}\nINSERT BEFORE .text;\n\n\
         /* At the beginning of the constants' own pages, not at the end of the code's. */\n\
         SECTIONS {{\n    .rodata.called ALIGN(CONSTANT(MAXPAGESIZE)) : {{\n{constants}{NAMELESS}    }}\n}}\nINSERT BEFORE .rodata;\n"
    );
    (text, seen.len())
}
