//! Streams of the official virtctl to the shared VM: its console in a terminal, and ports of the guest.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use libtest_mimic::Trial;
use tests::{trial, wait_for};

use crate::virtctl::{Shared, VM, command};

/// An answer of a guest under emulation, through the API server, the controller and the node's agent.
const ANSWER: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: SUB-4
        trial("virtctl console types to the guest and restores the terminal", console),
        // spec: SUB-4
        trial("a second virtctl console displaces the first", second_console),
        // spec: SUB-5
        trial("virtctl port-forward reaches a TCP port of the guest", tcp),
        // spec: SUB-5
        trial("virtctl port-forward reaches a UDP port of the guest", udp),
        // spec: SUB-8
        trial("virtctl vnc shows the guest's screen to a client", screen),
        // spec: SUB-5
        trial("virtctl port-forward by standard input is a proxy for ssh", by_stdio),
    ]
}

/// A program with a terminal: what it has written, and what types to it.
struct Terminal {
    child: Child,
    typed: ChildStdin,
    seen: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Runs a line of shell in a terminal of its own.
    fn open(shared: &Shared, line: &str) -> Self {
        let mut command = shared.cluster.command_without_limit("script");
        command.args(["--quiet", "--return", "--command", line, "/dev/null"]);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.expect("script (package bsdutils) starts");
        let (typed, mut output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let seen = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                sink.lock().expect("no reader panics").push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { child, typed, seen, reader }
    }

    fn console(shared: &Shared) -> Self {
        let mut terminal = Self::open(shared, &format!("virtctl -n vms console {VM}"));
        terminal.expect("Successfully connected");
        terminal
    }

    fn seen(&self) -> String {
        self.seen.lock().expect("no reader panics").clone()
    }

    fn types(&mut self, text: &str) {
        self.typed.write_all(text.as_bytes()).expect("the terminal is open");
    }

    /// Waits until a text was written.
    fn expect(&mut self, text: &str) {
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(&format!("{text:?} in the terminal"), ANSWER, || self.seen().contains(text).then_some(()));
        }));
        assert!(waited.is_ok(), "{text:?} did not come in:\n{}", self.seen());
    }

    /// Types a sum until the guest's shell answers with it: a guest that boots reads nothing yet.
    fn asks(&mut self, left: u32) {
        let answer = format!("guest-{}", left + 1000);
        wait_for("the guest's shell", ANSWER, || {
            self.types(&format!("echo guest-$(({left}+1000))\n"));
            std::thread::sleep(Duration::from_secs(1));
            self.seen().contains(&answer).then_some(())
        });
    }

    /// Waits until the program has ended.
    fn ends(mut self) -> (Option<i32>, String) {
        let (code, _) = wait_for("the program in the terminal to end", ANSWER, || {
            self.child.try_wait().expect("a child can be waited for")
        });
        wait_for("the last of what it wrote", ANSWER, || self.reader.is_finished().then_some(()));
        (code.code(), self.seen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn console() {
    let shared = Shared::lock();
    let line = format!("stty -g; virtctl -n vms console {VM}; echo ended=$?; stty -g");
    let mut terminal = Terminal::open(&shared, &line);
    terminal.expect("Successfully connected");
    terminal.asks(1);
    terminal.types("\u{1d}");
    let (_, seen) = terminal.ends();
    assert!(seen.contains("ended=0"), "{seen}");
    let settings: Vec<_> = seen.lines().map(str::trim).filter(|line| line.split(':').count() > 10).collect();
    assert!(settings.len() == 2 && settings[0] == settings[1], "the terminal was not restored:\n{seen}");
    // A console that is opened again shows what comes, not what was.
    let mut again = Terminal::console(&shared);
    assert!(!again.seen().contains("guest-1001"), "{}", again.seen());
    again.asks(2);
    again.types("\u{1d}");
    again.ends();
}

fn second_console() {
    let shared = Shared::lock();
    let mut first = Terminal::console(&shared);
    first.asks(3);
    let mut second = Terminal::console(&shared);
    let (_, seen) = first.ends();
    assert!(seen.contains("another user connected to the console of the target VM"), "{seen}");
    second.asks(4);
    second.types("\u{1d}");
    second.ends();
}

/// virtctl forwards ports until it is dropped.
struct Forward(Child);

impl Forward {
    fn start(shared: &Shared, port: &str) -> Self {
        let mut command = shared.cluster.command_without_limit("virtctl");
        command.args(["-n", "vms", "port-forward", &format!("vmi/{VM}"), port]);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nsenter starts"))
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A GET of the guest's page, through a command that joins standard input and output with the port.
const GET: &str = "GET / HTTP/1.0\r\n\r\n";

fn tcp() {
    let shared = Shared::lock();
    let _forward = Forward::start(&shared, "18080:80");
    // Several at once, and one after the other: each is a stream of its own.
    for _ in 0..2 {
        let fetch = || {
            shared.cluster.world().enter(|| {
                let mut streams: Vec<_> = (0..3).filter_map(|_| TcpStream::connect("127.0.0.1:18080").ok()).collect();
                streams.iter_mut().map(answer).collect::<Vec<_>>()
            })
        };
        let is_page =
            |pages: Vec<String>| (pages.len() == 3 && pages.iter().all(|page| page.contains(VM))).then_some(());
        wait_for("three pages", ANSWER, || is_page(fetch()));
    }
}

fn answer(stream: &mut TcpStream) -> String {
    let mut page = Vec::new();
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    let _ = stream.write_all(GET.as_bytes());
    let _ = stream.read_to_end(&mut page);
    String::from_utf8_lossy(&page).into_owned()
}

fn udp() {
    let shared = Shared::lock();
    let _forward = Forward::start(&shared, "udp/17007:7");
    let echo = |bytes: &[u8]| {
        shared.cluster.world().enter(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
            socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            socket.connect("127.0.0.1:17007").ok()?;
            socket.send(bytes).ok()?;
            let mut answer = [0; 2048];
            let count = socket.recv(&mut answer).ok()?;
            Some(answer[..count].to_vec())
        })
    };
    wait_for("a datagram to come back", ANSWER, || echo(b"hello").filter(|answer| answer == b"hello").map(drop));
    // As large as virtctl's buffer: one datagram comes back as one.
    let large = vec![b'x'; 1400];
    wait_for("a large datagram", ANSWER, || echo(&large).filter(|answer| *answer == large).map(drop));
}

/// virtctl as a proxy for a viewer, on a port of the world.
fn proxy(shared: &Shared, port: &str, more: &[&str]) -> Forward {
    let mut command = shared.cluster.command_without_limit("virtctl");
    command.args(["-n", "vms", "vnc", VM, "--proxy-only", "--port", port]).args(more);
    Forward(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nsenter starts"))
}

fn read(stream: &mut TcpStream, count: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Shakes hands as a viewer does (RFC 6143 §7.1 to §7.3); returns the stream and the screen's name.
fn view(shared: &Shared, port: u16) -> Option<(TcpStream, String)> {
    shared.cluster.world().enter(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let version = read(&mut stream, 12)?;
        assert!(version.starts_with(b"RFB 003.00"), "{version:?}");
        stream.write_all(b"RFB 003.008\n").ok()?;
        let kinds = usize::from(read(&mut stream, 1)?[0]);
        assert!(read(&mut stream, kinds)?.contains(&1), "no security is offered");
        stream.write_all(&[1]).ok()?;
        assert_eq!(read(&mut stream, 4)?, [0; 4], "the viewer is let in");
        stream.write_all(&[1]).ok()?;
        let screen = read(&mut stream, 24)?;
        let length = u32::from_be_bytes([screen[20], screen[21], screen[22], screen[23]]);
        let name = read(&mut stream, length as usize)?;
        let size = [&screen[0..2], &screen[2..4]].map(|part| u16::from_be_bytes([part[0], part[1]]));
        assert!(size.iter().all(|pixels| *pixels > 100), "{size:?}");
        Some((stream, String::from_utf8_lossy(&name).into_owned()))
    })
}

fn screen() {
    let shared = Shared::lock();
    let _first = proxy(&shared, "15900", &[]);
    let ((mut stream, name), _) = wait_for("the guest's screen", ANSWER, || view(&shared, 15900));
    assert!(name.contains(VM), "{name}");
    // A viewer that keeps the session of another is refused, one that does not takes it over.
    let kept =
        command(&shared.cluster).args(["vnc", VM, "--proxy-only", "--port", "15901", "--preserve-session"]).output();
    let kept = kept.expect("virtctl starts");
    assert!(!kept.status.success(), "{kept:?}");
    assert!(String::from_utf8_lossy(&kept.stderr).contains("Active VNC connection. Request denied."), "{kept:?}");
    let _second = proxy(&shared, "15902", &[]);
    wait_for("the screen for a second viewer", ANSWER, || view(&shared, 15902));
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).is_ok(), "the first viewer is disconnected");
}

fn by_stdio() {
    let shared = Shared::lock();
    let mut command = command(&shared.cluster);
    command.args(["port-forward", "--stdio=true", &format!("vmi/{VM}/vms"), "80"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("virtctl starts");
    let mut typed = child.stdin.take().expect("piped");
    typed.write_all(GET.as_bytes()).expect("virtctl reads");
    let mut page = String::new();
    // The guest closes after its answer; virtctl ends then though its input is still open.
    child.stdout.take().expect("piped").read_to_string(&mut page).expect("text");
    drop(typed);
    assert!(page.contains(" 200 ") && page.contains(VM), "{page}");
    assert!(child.wait().expect("it ends").success());
}
