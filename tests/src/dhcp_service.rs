//! The DHCP engine on a service tap, as the launcher runs it: a thread that reads frames, writes answers, keeps deadlines.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dhcp::{Config, Engine, Observations};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{Ns, Tap};

/// A running engine. Ends when dropped; with `TAPVISOR_RECORD=FOLDER` it leaves what the guest sent in
/// `FOLDER/<name>.hex`, one frame a line.
#[derive(Debug)]
pub struct DhcpService {
    name: String,
    shared: Arc<Mutex<Shared>>,
    stop: Option<OwnedFd>,
    server: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    engine: Engine,
    received: Vec<Vec<u8>>,
}

impl DhcpService {
    /// Serves on the tap `tap` of `pod`. `name` is that of the scene.
    ///
    /// # Panics
    /// When the tap cannot be attached or the configuration is refused.
    #[must_use]
    pub fn start(name: &str, pod: &Ns<'_>, tap: &str, config: Config) -> Self {
        let tap = pod.enter(|| Tap::attach_plain(tap));
        let engine = Engine::new(config).expect("the engine takes its configuration");
        let shared = Arc::new(Mutex::new(Shared { engine, received: Vec::new() }));
        let (stopped, stop) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe can be made");
        let with_server = Arc::clone(&shared);
        let server = std::thread::spawn(move || serve(&tap, &with_server, &stopped));
        Self { name: name.to_owned(), shared, stop: Some(stop), server: Some(server) }
    }

    /// What the engine has seen.
    ///
    /// # Panics
    /// When the engine panicked.
    #[must_use]
    pub fn snapshot(&self) -> Observations {
        self.shared.lock().expect("the engine does not panic").engine.snapshot()
    }

    /// Every frame that came, as a capture file for other people's tools; all are of the same time.
    #[must_use]
    pub fn pcap(&self) -> Vec<u8> {
        // Magic, version 2.4, zone, accuracy, longest frame, Ethernet.
        let head: [u32; 6] = [0xa1b2_c3d4, 0x0002_0004, 0, 0, 65_535, 1];
        let mut file: Vec<u8> = head.into_iter().flat_map(u32::to_be_bytes).collect();
        for frame in &self.shared.lock().unwrap_or_else(PoisonError::into_inner).received {
            let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            file.extend([0, 0, length, length].into_iter().flat_map(u32::to_be_bytes));
            file.extend(frame);
        }
        file
    }

    fn record(&self) {
        let Some(folder) = std::env::var_os("TAPVISOR_RECORD") else { return };
        let path = std::path::Path::new(&folder).join(format!("{}.hex", self.name));
        let line = |frame: &Vec<u8>| {
            frame.iter().map(|byte| format!("{byte:02x}")).chain(["\n".to_owned()]).collect::<String>()
        };
        let lines: String =
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).received.iter().map(line).collect();
        if let Err(error) = std::fs::write(&path, lines) {
            eprintln!("cannot record {}: {error}", path.display());
        }
    }
}

impl Drop for DhcpService {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        self.record();
    }
}

fn serve(tap: &Tap, shared: &Mutex<Shared>, stopped: &OwnedFd) {
    let start = Instant::now();
    let due = || shared.lock().expect("only this thread can panic").engine.next_deadline();
    loop {
        let wait = due().map_or(Duration::from_secs(60), |due| due.saturating_sub(start.elapsed()));
        let timeout = PollTimeout::try_from(wait.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let mut waits = [PollFd::new(tap.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waits, timeout).is_err() {
            continue;
        }
        let happened = waits.map(|wait| wait.revents().unwrap_or(PollFlags::empty()));
        if !happened[1].is_empty() || happened[0].contains(PollFlags::POLLERR) {
            return;
        }
        let mut shared = shared.lock().expect("only this thread can panic");
        let mut answers = shared.engine.on_deadline(start.elapsed());
        if let Some(frame) = tap.receive(0) {
            answers.extend(shared.engine.on_frame(start.elapsed(), &frame));
            shared.received.push(frame);
        }
        answers.iter().for_each(|answer| tap.send(answer));
    }
}
