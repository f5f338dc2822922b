//! A guest that `tapvisor run` started: what it told on its console, and a shell in it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::{Ns, World, wait_for};

/// Longest a guest in emulation may take from power-on to its leases: ten times what it takes when two others boot at
/// the same time, for machines with other load.
const BOOT: Duration = Duration::from_secs(180);

/// What guests boot with, in emulation too: a kernel that looks whether its timer ticks takes one for broken that does not
/// while the machine has no time for QEMU, and ends.
pub const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 no_timer_check";

/// The guest of a VM in the namespace `default`.
#[derive(Debug)]
pub struct Guest<'w> {
    world: &'w World,
    name: String,
}

/// The lease of a NIC, as the guest reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Address and prefix length.
    pub address: String,
    /// The default gateway, `-` if none.
    pub via: String,
    /// Everything it said, as words.
    pub words: Vec<String>,
}

impl Lease {
    fn read(line: &str) -> Self {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let field = |name: &str| words.iter().skip_while(|word| *word != name).nth(1).cloned().unwrap_or_default();
        Self { address: words.get(3).cloned().unwrap_or_default(), via: field("via"), words }
    }

    /// The address without its prefix length.
    #[must_use]
    pub fn ip(&self) -> &str {
        self.address.split('/').next().unwrap_or_default()
    }

    /// The word after `name`: `dns`, `mtu`, `server`, `host`, `event`, `at`.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.words.iter().skip_while(|word| *word != name).nth(1).map_or("", String::as_str)
    }
}

/// The result of a command in the guest's shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandOutput {
    /// Its exit code.
    pub code: i32,
    /// What it wrote, without carriage returns.
    pub text: String,
}

impl<'w> Guest<'w> {
    /// The guest of the VM `name`.
    #[must_use]
    pub fn of(world: &'w World, name: &str) -> Self {
        Self { world, name: name.to_owned() }
    }

    /// Its VM's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network namespace the runner made for it.
    #[must_use]
    pub fn pod(&self) -> Ns<'w> {
        let digest = Sha256::digest(format!("default/{}", self.name));
        let digits: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        self.world.named(&format!("tv-{digits}"))
    }

    /// The global address of the pod's `eth0` in a family.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn pod_address(&self, family: &str) -> String {
        let line = ["ip", "-j", family, "addr", "show", "dev", "eth0", "scope", "global"];
        let links = self.pod().run(&line).json();
        let address = links.as_array().into_iter().flatten().find_map(|link| link["addr_info"][0]["local"].as_str());
        address.unwrap_or_else(|| panic!("the pod of {} has no address: {links}", self.name)).to_owned()
    }

    /// All it wrote to its console.
    #[must_use]
    pub fn console(&self) -> String {
        let bytes = std::fs::read(self.file("console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The lines in which it tells something that begins with `what`, oldest first; one that it still writes is not among
    /// them.
    #[must_use]
    pub fn told(&self, what: &str) -> Vec<String> {
        let sign = format!("GUEST {what} ");
        let console = self.console();
        let lines = console.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.filter_map(|line| Some(line[line.find(&sign)?..].trim_end().to_owned())).collect()
    }

    /// Waits until it has told `what` `times` times.
    ///
    /// # Panics
    /// When it does not, with its console.
    #[must_use]
    pub fn wait_told(&self, what: &str, times: usize) -> String {
        let start = Instant::now();
        loop {
            if let Some(line) = self.told(what).into_iter().nth(times - 1) {
                return line;
            }
            assert!(start.elapsed() < BOOT, "guest {} never told {what:?}:\n{}", self.name, self.account());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its first IPv4 lease on a NIC.
    #[must_use]
    pub fn lease4(&self, nic: &str) -> Lease {
        Lease::read(&self.wait_told(&format!("lease4 {nic}"), 1))
    }

    /// Its first IPv6 lease on a NIC.
    #[must_use]
    pub fn lease6(&self, nic: &str) -> Lease {
        Lease::read(&self.wait_told(&format!("lease6 {nic}"), 1))
    }

    /// The Ethernet address of a NIC as it was at the start number `start`, counted from 1.
    #[must_use]
    pub fn mac(&self, nic: &str, start: usize) -> String {
        let line = self.wait_told(&format!("nic {nic}"), start);
        line.split_whitespace().nth(3).unwrap_or_default().to_owned()
    }

    /// Runs one line in its shell.
    ///
    /// # Panics
    /// When the shell does not answer within two minutes.
    #[must_use]
    pub fn sh(&self, line: &str) -> CommandOutput {
        let _ = self.wait_told("ready", 1);
        let path = self.file("console.sock");
        let mut console = UnixStream::connect(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        console.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout is not zero");
        let word = next_word();
        // One line: the terminal would echo a second one in the middle of what the first prints. The pairs of quotes
        // keep the echo apart from what is printed.
        let quoted = line.replace('\'', r"'\''");
        let typed = format!("echo \"GUEST \"\"begin {word}\"; eval '{quoted}'; echo \"GUEST \"\"done {word} $?\"\n");
        console.write_all(typed.as_bytes()).expect("the console takes what is typed");
        let heard = self.listen(&mut console, &format!("GUEST done {word} "));
        let (_, after) = heard.rsplit_once(&format!("GUEST begin {word}\n")).unwrap_or(("", &heard));
        let (text, end) = after.rsplit_once(&format!("GUEST done {word} ")).expect("it was listened for");
        let told = |line: &&str| !line.starts_with("GUEST ") && !line.contains("\"GUEST \"\"");
        let text = text.lines().filter(told).map(|line| format!("{line}\n")).collect();
        CommandOutput { code: end.split_whitespace().next().and_then(|code| code.parse().ok()).unwrap_or(-1), text }
    }

    /// Runs one line in its shell that must succeed.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn ok(&self, line: &str) -> String {
        let said = self.sh(line);
        assert_eq!(said.code, 0, "guest {} failed: {line}\n{}\n{}", self.name, said.text, self.explained());
        said.text
    }

    /// Its path as `tapvisor explain` draws it, and its console, for a failure's message.
    fn explained(&self) -> String {
        format!("{}\n{}", self.world.tapvisor(&["explain", &self.name]).account(), self.account())
    }

    /// Types a line and does not wait for what becomes of it.
    ///
    /// # Panics
    /// When there is no console.
    pub fn type_line(&self, line: &str) {
        let path = self.file("console.sock");
        let mut console = UnixStream::connect(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        console.write_all(format!("{line}\n").as_bytes()).expect("the console takes what is typed");
    }

    /// Its console's last lines and the runner's log of it, for a failure's message.
    #[must_use]
    pub fn account(&self) -> String {
        let console = self.console();
        let lines: Vec<_> = console.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        let log = std::fs::read_to_string(self.folder().join("supervisor.log")).unwrap_or_default();
        format!("--- console of {}\n{tail}\n--- supervisor.log\n{log}", self.name)
    }

    /// The folder the runner keeps for it.
    #[must_use]
    pub fn folder(&self) -> std::path::PathBuf {
        self.world.path(format!("/run/tapvisor/vms/default.{}", self.name))
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder().join("launcher").join(name)
    }

    fn listen(&self, console: &mut UnixStream, until: &str) -> String {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        let complete = |heard: &[u8]| {
            let text = String::from_utf8_lossy(heard).replace('\r', "");
            text.rsplit_once(until).is_some_and(|(_, rest)| rest.contains('\n')).then_some(text)
        };
        let (text, _) = wait_for(&format!("the shell of guest {}", self.name), Duration::from_secs(120), || {
            match console.read(&mut buffer) {
                Ok(0) => panic!("the console of guest {} closed: {}", self.name, self.account()),
                Ok(length) => heard.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("the console of guest {}: {error}", self.name),
            }
            complete(&heard)
        });
        text
    }
}

/// A word that no earlier command of this process was marked with.
fn next_word() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
