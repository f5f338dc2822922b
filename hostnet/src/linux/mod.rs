//! The real kernel: netlink sockets, tun ioctls and files of /proc.

mod address;
mod bridge;
mod bridge_dump;
mod channel;
mod conntrack;
mod events;
mod frame;
mod link;
mod lookup;
mod neighbour;
mod nft;
mod nft_compare;
mod nft_dump;
mod pair;
mod record;
mod route;
mod rtnl;
mod steps;

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use terms::IfName;

use crate::facts::{Ask, Facts};
use crate::kernel::{Failure, Kernel, KernelError};
use crate::nft::Table;
use crate::op::{NewTap, Op};
use crate::sysctl::Sysctl;
use crate::tap::{TUN_NODE, TunCall, node_hint};

use channel::Channel;
pub use events::{Event, Events};
pub use lookup::RouteQuery;
pub use pair::LinuxPair;
pub use record::{Recorder, Step};
use rtnl::Batch;
pub use steps::{Bus, Real, Steps};

/// The network namespace of the calling thread.
///
/// Not generic over its calls: a program that makes them in several ways has the code once.
#[derive(Debug)]
pub struct Linux<'s> {
    channel: Channel<'s>,
    /// Indices of links that operations named.
    indices: Vec<(IfName, u32)>,
    /// The other namespace, where links are moved to.
    other: Option<OwnedFd>,
}

impl Linux<'_> {
    /// The namespace that the calling thread is in; use it on that thread only.
    #[must_use]
    pub fn here() -> Self {
        Self::with(Real::default())
    }
}

impl<'s> Linux<'s> {
    /// A kernel whose single calls go through `steps`.
    #[must_use]
    pub fn with(steps: impl Steps + Send + 's) -> Self {
        Self { channel: Channel::new(steps), indices: Vec::new(), other: None }
    }

    /// The descriptor of the namespace that links are moved to.
    fn other_netns(&self) -> Result<RawFd, KernelError> {
        let none = || KernelError::Invalid("this plan has no other namespace".to_owned());
        self.other.as_ref().map(|netns| netns.as_raw_fd()).ok_or_else(none)
    }

    fn index(&mut self, link: &IfName) -> Result<u32, KernelError> {
        if let Some((_, index)) = self.indices.iter().find(|(name, _)| name == link) {
            return Ok(*index);
        }
        let index = self.channel.steps.link_index(link).map_err(|source| match source.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => KernelError::NoLink(link.clone()),
            _ => KernelError::Socket { action: "look-up of a link", source },
        })?;
        self.indices.push((link.clone(), index));
        Ok(index)
    }

    fn create_tap(&mut self, tap: &NewTap) -> Result<(), KernelError> {
        let steps = &mut self.channel.steps;
        let tun = steps.open_tun().map_err(|source| KernelError::File {
            action: "open",
            path: TUN_NODE.to_owned(),
            hint: node_hint(&source).to_owned(),
            source,
        })?;
        let name = tap.name.clone();
        let group = tap.group.map(TunCall::Group);
        let calls = [
            Some(TunCall::Interface { name, multi_queue: tap.multi_queue, exclusive: true }),
            Some(TunCall::Owner(tap.owner)),
            group,
            // Last: until then the tap vanishes with the descriptor if anything fails.
            Some(TunCall::Persist(true)),
        ];
        calls.iter().flatten().try_for_each(|call| {
            // EBUSY is what IFF_TUN_EXCL says of a name that is taken.
            steps.tun(&tun, call).map_err(|source| match source.raw_os_error() {
                Some(libc::EBUSY) => KernelError::refused(libc::EEXIST),
                errno => KernelError::refused(errno.unwrap_or(libc::EIO)),
            })
        })
    }

    fn write_sysctl(&mut self, key: &Sysctl, value: &str) -> Result<(), KernelError> {
        let path = format!("/proc/sys/{key}");
        self.channel.steps.write_file(&path, value).map_err(|source| {
            let hint = match source.kind() {
                io::ErrorKind::NotFound => "this kernel has no such setting, or the link is not there",
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "/proc/sys is read-only here, or CAP_NET_ADMIN is missing"
                }
                _ => "the kernel refuses the value",
            };
            KernelError::File { action: "write", path, hint: hint.to_owned(), source }
        })
    }

    fn read_sysctl(&mut self, key: &Sysctl) -> Result<Option<String>, KernelError> {
        let path = format!("/proc/sys/{key}");
        match self.channel.steps.read_file(&path) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KernelError::File { action: "read", path, hint: "it is there".to_owned(), source }),
        }
    }

    /// Carries out operations in order; an error comes with the number of its operation.
    fn execute_all<'a>(&mut self, mut ops: impl Iterator<Item = &'a Op>) -> Result<(), (usize, KernelError)> {
        let mut batch = Batch::default();
        let mut index = 0;
        ops.try_for_each(|op| {
            self.run(&mut batch, index, op)?;
            index += 1;
            Ok(())
        })?;
        self.flush(&mut batch)
    }

    /// Sends what waits; a refusal becomes that of the operation whose message it was.
    fn flush(&mut self, batch: &mut Batch) -> Result<(), (usize, KernelError)> {
        let Some((bytes, first, last)) = batch.finish() else { return Ok(()) };
        let answer = self.channel.request(Bus::Route, bytes, first, last);
        let outcome = match answer {
            Ok(None) => Ok(()),
            Ok(Some(refused)) => Err((batch.operation_of(refused.sequence), refused.error)),
            Err(error) => Err((batch.operation_of(first), error)),
        };
        batch.clear();
        outcome
    }

    fn run(&mut self, batch: &mut Batch, index: usize, op: &Op) -> Result<(), (usize, KernelError)> {
        let here = |error| (index, error);
        match op {
            Op::CreateTap(tap) => {
                self.flush(batch)?;
                self.create_tap(tap).map_err(here)?;
                self.queue_change(batch, index, &tap.name, &tap.set).map_err(here)
            }
            Op::WriteSysctl { key, value } => {
                self.flush(batch)?;
                self.write_sysctl(key, value).map_err(here)
            }
            Op::Nft(transaction) => {
                self.flush(batch)?;
                self.commit(transaction).map_err(here)
            }
            Op::DeleteConntrack(flow) => {
                self.flush(batch)?;
                self.delete_conntrack(flow).map_err(here)
            }
            op => match self.queue(batch, index, op) {
                // The link may be made by a message that still waits.
                Err(KernelError::NoLink(_)) if !batch.is_empty() => {
                    self.flush(batch)?;
                    self.queue(batch, index, op).map_err(here)
                }
                other => other.map_err(here),
            },
        }
    }
}

impl Kernel for Linux<'_> {
    fn gather(&mut self, ask: &Ask) -> Result<Facts, KernelError> {
        let mut facts = Facts::default();
        if !ask.links_named.is_empty() {
            facts.links = self.read_named_links(ask)?;
        } else if ask.needs_links() {
            facts.links = self.read_links(ask)?;
        }
        if ask.addresses {
            facts.addresses = match ask.links_named.is_empty() {
                true => self.read_addresses(&facts.links, None)?,
                false => self.read_addresses_of(&facts.links)?,
            };
        }
        if ask.vlans {
            facts.vlans = self.read_vlans(&facts.links)?;
        }
        if ask.forwarding {
            facts.forwarding = self.read_forwarding(&facts.links)?;
        }
        if ask.routes {
            facts.routes = self.read_routes(&facts.links)?;
        }
        if ask.neighbours {
            facts.neighbours = self.read_neighbours(&facts.links)?;
        }
        for key in &ask.sysctls {
            let value = self.read_sysctl(key)?;
            facts.sysctls.insert(key.clone(), value);
        }
        for table in &ask.tables {
            facts.tables.extend(self.read_table(table)?);
        }
        if ask.table_ids {
            facts.table_ids = self.read_table_ids()?;
        }
        Ok(facts)
    }

    fn holds(&mut self, tables: &[Table], facts: &Facts) -> Result<bool, KernelError> {
        for table in tables {
            if !self.holds_table(table, facts)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn execute(&mut self, ops: &[Op]) -> Result<(), Failure> {
        self.execute_all(ops.iter()).map_err(|(index, error)| bridge::failure(index, ops.get(index), error))
    }
}
