//! What the machine has used and its NICs' traffic, read in a thread when a client asks.
//!
//! Guarantees: the launcher's loop waits for no answer of the kernel; a client that asks faster than the kernel answers is
//! refused. Assumptions: everything that is read was opened before the launcher confined itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use hostnet::Ask;
use hostnet::facts::Statistics;
use hostnet::kernel::{Kernel, KernelError};
use nix::unistd::{SysconfVar, sysconf};
use protocol::control::Report;
use protocol::counters::{Counters, DataPath, NicCounters, ProcessCounters, QueuePairCounters, TrafficCounters};
use terms::IfName;

use crate::control::Call;

/// Calls that may wait for the kernel.
const MOST_CALLS: usize = 16;
/// Longest /proc/PID/stat: 52 numbers and a name.
const STAT_BYTES: usize = 2048;

/// /proc/PID/stat of a process, open.
#[derive(Debug)]
pub struct Account(File);

impl Account {
    /// This process.
    pub(crate) fn own() -> Option<Self> {
        Self::open("self")
    }

    /// A process by its number.
    pub(crate) fn of(process: u32) -> Option<Self> {
        Self::open(&process.to_string())
    }

    fn open(process: &str) -> Option<Self> {
        File::open(format!("/proc/{process}/stat")).map(Self).ok()
    }

    fn read(&self) -> Option<ProcessCounters> {
        let mut text = [0; STAT_BYTES];
        let length = self.0.read_at(&mut text, 0).ok()?;
        let unit = |variable| sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok());
        let (ticks, page) = (unit(SysconfVar::CLK_TCK)?, unit(SysconfVar::PAGE_SIZE)?);
        parse(text.get(..length)?, ticks, page)
    }
}

/// Reads proc_pid_stat(5), given the ticks of a second and the bytes of a page.
fn parse(stat: &[u8], ticks: u64, page: u64) -> Option<ProcessCounters> {
    // The name in parentheses may hold anything. The first field behind it is number 3.
    let behind = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let fields: Vec<_> = std::str::from_utf8(stat.get(behind..)?).ok()?.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let milliseconds = |count: u64| count.saturating_mul(1000).checked_div(ticks);
    Some(ProcessCounters {
        user_milliseconds: milliseconds(field(14)?)?,
        system_milliseconds: milliseconds(field(15)?)?,
        resident_bytes: field(24)?.saturating_mul(page),
    })
}

/// What moves the frames of a NIC, and counters of its pairs of queues, whenever it is called.
pub(crate) type QueueReader = Box<dyn Fn() -> (DataPath, Vec<QueuePairCounters>) + Send>;

/// What is read when a client asks.
pub(crate) struct Meter<K> {
    /// The namespace of the taps, with its sockets open.
    pub(crate) kernel: K,
    /// The process that executes the guest.
    pub(crate) account: Option<Account>,
    /// Size of the guest's memory.
    pub(crate) memory_bytes: u64,
    /// Name in the manifest and tap of each NIC, in the machine's order.
    pub(crate) nics: Vec<(String, IfName)>,
    /// The queues of each NIC, or none.
    pub(crate) queues: Vec<QueueReader>,
}

impl<K: Kernel + Send + 'static> Meter<K> {
    /// Answers calls in a thread.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(mut self) -> io::Result<Answering> {
        let (calls, asked): (_, Receiver<Call>) = sync_channel(MOST_CALLS);
        crate::threads::spawn("counters", move || {
            while let Ok(call) = asked.recv() {
                let counters = self.read().map(|counters| Report::Counters { counters: Box::new(counters) });
                drop(call.answer(counters.map_err(|error| protocol::chain::chain(&error))));
            }
        })?;
        Ok(Answering(calls))
    }

    fn read(&mut self) -> Result<Counters, KernelError> {
        let links_named: Vec<_> = self.nics.iter().map(|(_, tap)| tap.clone()).collect();
        let facts = match links_named.is_empty() {
            true => hostnet::Facts::default(),
            false => self.kernel.gather(&Ask { links_named, statistics: true, ..Ask::default() })?,
        };
        let queues = self.queues.iter().map(Some).chain(std::iter::repeat(None));
        let nics = self.nics.iter().zip(queues).map(|((name, tap), queues)| {
            let link = facts.links.iter().find(|link| link.name == *tap);
            let counted = link.and_then(|link| link.statistics).unwrap_or_default();
            let (data_path, queues) = queues.map(|read| read()).unzip();
            let (received, sent, queues) = (received(&counted), sent(&counted), queues.unwrap_or_default());
            NicCounters { name: name.clone(), received, sent, data_path, queues }
        });
        let process = self.account.as_ref().and_then(Account::read);
        Ok(Counters { memory_bytes: self.memory_bytes, process, nics: nics.collect() })
    }
}

/// What a tap sends is what its guest receives.
fn received(tap: &Statistics) -> TrafficCounters {
    TrafficCounters { bytes: tap.tx_bytes, packets: tap.tx_packets, dropped: tap.tx_dropped, errors: tap.tx_errors }
}

fn sent(tap: &Statistics) -> TrafficCounters {
    TrafficCounters { bytes: tap.rx_bytes, packets: tap.rx_packets, dropped: tap.rx_dropped, errors: tap.rx_errors }
}

/// The thread that answers.
#[derive(Debug)]
pub(crate) struct Answering(SyncSender<Call>);

impl Answering {
    /// Answers a call, now or when the kernel has.
    pub(crate) fn answer(&self, call: Call) {
        if let Err(refused) = self.0.try_send(call) {
            let (std::sync::mpsc::TrySendError::Full(call) | std::sync::mpsc::TrySendError::Disconnected(call)) =
                refused;
            drop(call.answer(Err(format!("{MOST_CALLS} requests for counters wait already"))));
        }
    }
}

#[cfg(test)]
mod tests {
    use hostnet::facts::{Facts, Link, LinkKind};
    use hostnet::kernel::Failure;
    use hostnet::nft::Table;
    use hostnet::op::Op;

    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let stat =
            b"7 (a) b) (c) S 1 7 7 0 -1 4194560 120 0 3 0 250 75 0 0 20 0 4 0 900 12345678 1536 18446744073709551615\n";
        let expected =
            ProcessCounters { user_milliseconds: 2500, system_milliseconds: 750, resident_bytes: 1536 * 4096 };
        assert_eq!(parse(stat, 100, 4096), Some(expected));
        assert_eq!(parse(b"7 (a) S 1", 100, 4096), None);
        assert_eq!(parse(b"", 100, 4096), None);
        let own = Account::own().unwrap().read().unwrap();
        assert!(own.resident_bytes > 100_000, "{own:?}");
    }

    /// A namespace with one tap.
    struct OneTap;

    impl Kernel for OneTap {
        fn gather(&mut self, ask: &Ask) -> Result<Facts, KernelError> {
            assert!(ask.statistics);
            let mut tap = Link::new(3, "k6t-eth0".parse().unwrap(), LinkKind::Physical);
            tap.statistics = Some(Statistics {
                rx_bytes: 700,
                rx_packets: 7,
                tx_bytes: 900,
                tx_dropped: 2,
                ..Statistics::default()
            });
            Ok(Facts { links: vec![tap], ..Facts::default() })
        }

        fn holds(&mut self, _: &[Table], _: &Facts) -> Result<bool, KernelError> {
            panic!("counters compare nothing")
        }

        fn execute(&mut self, _: &[Op]) -> Result<(), Failure> {
            panic!("counters change nothing")
        }
    }

    // spec: OPS-1, LAB-33
    #[test]
    fn a_guest_receives_what_its_tap_sends() {
        let tap = |name: &str| name.parse().unwrap();
        let nics = vec![("default".to_owned(), tap("k6t-eth0")), ("gone".to_owned(), tap("tap1"))];
        let pair = QueuePairCounters { filtered: 3, ..QueuePairCounters::default() };
        let queues: Vec<QueueReader> = vec![Box::new(move || (DataPath::Launcher, vec![pair]))];
        let mut meter = Meter { kernel: OneTap, account: None, memory_bytes: 1 << 20, nics, queues };
        let counters = meter.read().unwrap();
        let [default, gone] = &counters.nics[..] else { panic!("{counters:?}") };
        let received = TrafficCounters { bytes: 900, packets: 0, dropped: 2, errors: 0 };
        let sent = TrafficCounters { bytes: 700, packets: 7, dropped: 0, errors: 0 };
        assert_eq!((&*default.name, default.received, default.sent), ("default", received, sent));
        assert_eq!((gone.received, counters.memory_bytes), (TrafficCounters::default(), 1 << 20));
        assert_eq!((default.data_path, &default.queues[..]), (Some(DataPath::Launcher), &[pair][..]));
        assert_eq!((gone.data_path, gone.queues.len()), (None, 0));
    }
}
