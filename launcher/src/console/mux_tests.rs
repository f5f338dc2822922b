//! The console over real sockets: replay, many readers, slow readers, typing, the end.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use super::super::{Console, Door, Listeners, RotatingLog};
use super::{Mux, UNREAD_BYTES};

struct Bench {
    folder: tempfile::TempDir,
    guest: UnixStream,
    console: Console,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let (guest, ours) = UnixStream::pair().unwrap();
    let door = Door::open(folder.path()).unwrap();
    let console = Console::serve(ours, door, false).unwrap();
    Bench { folder, guest, console }
}

impl Bench {
    fn socket(&self) -> PathBuf {
        self.folder.path().join("console.sock")
    }

    fn reader(&self) -> UnixStream {
        let reader = UnixStream::connect(self.socket()).unwrap();
        reader.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        reader
    }
}

fn expect(reader: &mut UnixStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

#[test]
fn readers_see_what_was_before_and_what_comes() {
    let mut bench = bench();
    let mut first = bench.reader();
    bench.guest.write_all(b"booting\r\n").unwrap();
    expect(&mut first, "booting\r\n");
    let mut second = bench.reader();
    expect(&mut second, "booting\r\n");
    bench.guest.write_all(b"login: ").unwrap();
    expect(&mut first, "login: ");
    expect(&mut second, "login: ");
    assert_eq!(fs::read_to_string(bench.folder.path().join("console.log")).unwrap(), "booting\r\nlogin: ");
}

// spec: LAUNCH-11
#[test]
fn a_live_reader_sees_only_what_comes() {
    let mut bench = bench();
    let mut first = bench.reader();
    bench.guest.write_all(b"booting $ \r\n").unwrap();
    expect(&mut first, "booting $ \r\n");
    let mut live = UnixStream::connect(bench.folder.path().join("console-live.sock")).unwrap();
    live.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    live.write_all(b"\n").unwrap();
    expect(&mut bench.guest, "\n");
    bench.guest.write_all(b"login: ").unwrap();
    expect(&mut live, "login: ");
}

#[test]
fn everybody_types_to_the_guest() {
    let mut bench = bench();
    let (mut first, mut second) = (bench.reader(), bench.reader());
    first.write_all(b"root\n").unwrap();
    expect(&mut bench.guest, "root\n");
    second.write_all(b"pw\n").unwrap();
    expect(&mut bench.guest, "pw\n");
}

#[test]
fn a_reader_that_only_listens_after_typing_gets_the_answer() {
    let mut bench = bench();
    let mut reader = bench.reader();
    reader.write_all(b"date\n").unwrap();
    reader.shutdown(std::net::Shutdown::Write).unwrap();
    expect(&mut bench.guest, "date\n");
    bench.guest.write_all(b"Sunday").unwrap();
    expect(&mut reader, "Sunday");
}

#[test]
fn input_of_a_client_that_leaves_at_once_reaches_the_guest() {
    let folder = tempfile::tempdir().unwrap();
    let (mut guest, ours) = UnixStream::pair().unwrap();
    let listeners = Listeners::open(folder.path()).unwrap();
    let mut mux = Mux::new(ours, listeners, RotatingLog::open(&folder.path().join("console.log")).unwrap()).unwrap();
    mux.hand_out(b"login: ");
    // More than is read at once.
    let typed = "0123456789\n".repeat(1000);
    let (mut theirs, reader) = UnixStream::pair().unwrap();
    theirs.write_all(typed.as_bytes()).unwrap();
    drop(theirs);
    mux.add_reader(reader).unwrap();
    thread::spawn(move || mux.run());
    guest.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    expect(&mut guest, &typed);
}

#[test]
fn a_reader_that_does_not_read_neither_delays_the_guest_nor_others() {
    let mut bench = bench();
    let _idle = bench.reader();
    let mut busy = bench.reader();
    // Far more in all than a reader may leave unread, and never so much at once that the busy one could be cut off.
    let mut chunk = vec![b'x'; UNREAD_BYTES / 4];
    for _ in 0..16 {
        bench.guest.write_all(&chunk).unwrap();
        busy.read_exact(&mut chunk).unwrap();
    }
}

#[test]
fn the_last_words_are_delivered_and_then_it_ends() {
    let mut bench = bench();
    let mut reader = bench.reader();
    bench.guest.write_all(b"x").unwrap();
    expect(&mut reader, "x");
    bench.guest.write_all(b"Power down").unwrap();
    drop(bench.guest);
    bench.console.finish();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "Power down");
}

#[test]
fn a_replay_is_bounded() {
    let mut bench = bench();
    let mut witness = bench.reader();
    let noise = "0123456789".repeat(20_000);
    let writer = thread::spawn(move || {
        bench.guest.write_all(noise.as_bytes()).unwrap();
        bench
    });
    witness.read_exact(&mut vec![0; 200_000]).unwrap();
    let bench = writer.join().unwrap();
    let mut late = bench.reader();
    let mut seen = vec![0; 64 << 10];
    late.read_exact(&mut seen).unwrap();
    assert!(seen.ends_with(b"0123456789"));
    late.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(late.read(&mut [0]).is_err(), "there is more of it");
}

// spec: RUN-8
#[test]
fn a_reader_that_cannot_be_accepted_keeps_no_processor_busy() {
    use crate::few_descriptors::{all_descriptors, inside};
    if !inside(module_path!(), "a_reader_that_cannot_be_accepted_keeps_no_processor_busy") {
        return;
    }
    let mut bench = bench();
    let mut taken = all_descriptors();
    taken.pop();
    // The last descriptor is this end.
    let mut reader = bench.reader();
    // Without a descriptor, which /proc would take.
    let busy = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
        (usage.user_time() + usage.system_time()).num_milliseconds()
    };
    let before = busy();
    thread::sleep(Duration::from_secs(1));
    let busy = busy() - before;
    println!("busy for {busy} ms of a second");
    assert!(busy < 300, "busy for {busy} ms of a second");
    drop(taken);
    bench.guest.write_all(b"login: ").unwrap();
    expect(&mut reader, "login: ");
}
