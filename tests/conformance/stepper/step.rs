//! Which system calls are kernel steps: what a plugin does to the network, to settings and to its state.

use std::fmt;

use super::memory::Memory;
use super::netlink::{self, Message};

/// A system call at its entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) number: i64,
    pub(super) args: [u64; 3],
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// Sends so many netlink messages at once.
    Netlink { messages: usize, is_nfnetlink: bool },
    /// An ioctl on a tun file or a socket.
    Ioctl,
    /// Creates, writes, renames or removes a file; or opens one of the kernel's.
    File,
    /// Opens a netlink socket or enters a namespace.
    Door,
    /// Prints the answer.
    Answer,
}

/// One kernel step of a run.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) kind: StepKind,
    /// Whether anything is different after it.
    pub(crate) changes: bool,
    what: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// A recognised step, with what a fault needs to know of it.
#[derive(Debug)]
pub(super) struct Recognised {
    pub(super) step: Step,
    pub(super) messages: Vec<Message>,
}

/// Paths whose opening is worth failing, whether or not it changes anything.
const OURS: [&str; 5] = ["/run/", "/var/run/", "/var/lib/cni", "/proc/sys/", "/dev/net/"];

/// Recognises a step; `is_plugin` tells the plugin itself from its children, whose output is not the answer.
pub(super) fn recognise(entry: Entry, memory: &Memory, is_plugin: bool) -> Option<Recognised> {
    let [first, second, third] = entry.args;
    match entry.number {
        libc::SYS_sendto => sent(memory, first, &[(second, usize::try_from(third).ok()?)]),
        libc::SYS_sendmsg => sent(memory, first, &memory.pieces(second)?),
        libc::SYS_ioctl => {
            let target = memory.descriptor(first)?;
            let is_ours = target.starts_with("socket:") || target == "/dev/net/tun";
            is_ours.then(|| plain(StepKind::Ioctl, true, format!("ioctl {second:#x} on {}", unnumbered(&target))))
        }
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev => {
            let target = memory.descriptor(first)?;
            match first {
                1 if is_plugin => Some(plain(StepKind::Answer, true, "print the answer".to_owned())),
                _ => (target.starts_with('/') && !target.starts_with("/dev/"))
                    .then(|| plain(StepKind::File, true, format!("write {target}"))),
            }
        }
        libc::SYS_openat => opened(&memory.read_text(second)?, third),
        libc::SYS_open => opened(&memory.read_text(first)?, second),
        libc::SYS_mkdir | libc::SYS_rmdir | libc::SYS_unlink => file(entry.number, memory.read_text(first)?),
        libc::SYS_rename | libc::SYS_link | libc::SYS_symlink => file(entry.number, memory.read_text(second)?),
        libc::SYS_mkdirat | libc::SYS_unlinkat => file(entry.number, memory.read_text(second)?),
        libc::SYS_renameat | libc::SYS_renameat2 | libc::SYS_linkat => file(entry.number, memory.read_text(second)?),
        libc::SYS_socket if first == libc::AF_NETLINK as u64 => {
            Some(plain(StepKind::Door, false, "open a netlink socket".to_owned()))
        }
        libc::SYS_setns => Some(plain(StepKind::Door, false, "enter a namespace".to_owned())),
        _ => None,
    }
}

fn sent(memory: &Memory, fd: u64, pieces: &[(u64, usize)]) -> Option<Recognised> {
    if !memory.descriptor(fd)?.starts_with("socket:") {
        return None;
    }
    let messages = netlink::messages(memory, pieces)?;
    let is_nfnetlink = netlink::is_nfnetlink(&messages);
    let kinds: Vec<_> = messages.iter().take(8).map(|message| message.kind.to_string()).collect();
    let family = if is_nfnetlink { "nfnetlink" } else { "rtnetlink" };
    let what = format!("send {} {family} messages ({})", messages.len(), kinds.join(" "));
    let kind = StepKind::Netlink { messages: messages.len(), is_nfnetlink };
    Some(Recognised { step: Step { kind, changes: netlink::changes(&messages), what }, messages })
}

fn opened(path: &str, flags: u64) -> Option<Recognised> {
    let changes = flags & (libc::O_CREAT | libc::O_TRUNC) as u64 != 0 && !path.starts_with("/dev/");
    let is_ours = OURS.iter().any(|start| path.starts_with(start));
    (changes || is_ours).then(|| plain(StepKind::File, changes, format!("open {path}")))
}

fn file(number: i64, path: String) -> Option<Recognised> {
    Some(plain(StepKind::File, true, format!("change {path} (system call {number})")))
}

fn plain(kind: StepKind, changes: bool, what: String) -> Recognised {
    Recognised { step: Step { kind, changes, what }, messages: Vec::new() }
}

fn unnumbered(target: &str) -> &str {
    target.split(':').next().unwrap_or(target)
}
