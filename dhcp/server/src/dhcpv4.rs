//! DHCPv4: frames to the engine, its records to the database, its answers to the link.

use std::os::fd::AsFd as _;
use std::time::Duration;

use dhcp::pool::{Event, EventKind, Output, Record, Server};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock::Clock;
use crate::control::{Inbox, Network, Report, Request};
use crate::lease_log::LeaseLog;
use crate::packets::Packets;

/// Most frames whose records share one write to the disk.
const BATCH: usize = 256;
const FRAME_BYTES: usize = 2048;

/// Lines a second about what is not recorded, which hosts of the link can cause at any rate.
const MOST_LINES: u64 = 100;

/// The server of one link.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) engine: Server,
    pub(crate) packets: Packets,
    pub(crate) log: LeaseLog,
    pub(crate) clock: Clock,
    /// Records of no network of the configuration, which stay in the database.
    pub(crate) others: Vec<Record>,
    pub(crate) inbox: Inbox,
    pub(crate) report: Report,
    pub(crate) lines: Lines,
}

/// The lines of the running second.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    second: u64,
    written: u64,
    left_out: u64,
}

impl Service {
    /// Serves as long as the program runs.
    pub(crate) fn run(mut self) {
        loop {
            let [requests, arp] = self.packets.inputs();
            let mut wait = [requests, arp, self.inbox.as_fd()].map(|input| PollFd::new(input, PollFlags::POLLIN));
            if poll(&mut wait, self.patience()).is_err() {
                continue;
            }
            while let Some(request) = self.inbox.next() {
                self.on_request(request);
            }
            if let Some(mac) = self.packets.mac() {
                self.engine.set_mac(mac);
            }
            let mut outputs = self.receive();
            outputs.push(self.engine.on_deadline(self.clock.now()));
            self.finish(&outputs);
        }
    }

    /// Requests and ARP packets in turn: a flood of one keeps the other from nothing.
    fn receive(&mut self) -> Vec<Output> {
        let (mut buffer, mut outputs) = ([0; FRAME_BYTES], Vec::new());
        while outputs.len() < BATCH {
            let before = outputs.len();
            if let Some(packet) = self.packets.arp(&mut buffer) {
                outputs.push(self.engine.on_frame(self.clock.now(), packet));
            }
            if let Some(request) = self.packets.request(&mut buffer) {
                outputs.push(self.engine.on_frame(self.clock.now(), request));
            }
            if outputs.len() == before {
                break;
            }
        }
        outputs
    }

    /// An asker that is gone needs no answer.
    fn on_request(&mut self, request: Request) {
        match request {
            Request::Report(back) => {
                let networks = self.engine.networks(self.clock.now()).map(|(network, addresses, leased)| Network {
                    network,
                    addresses,
                    leased: leased.try_into().unwrap_or(u64::MAX),
                });
                let (networks, counters) = (networks.collect(), self.engine.counters());
                drop(back.send(Report { networks, counters, ..self.report.clone() }));
            }
            Request::Reload(config, back) => {
                let done = self.engine.reload(*config, &self.others);
                self.report.reloads += u64::from(done.is_ok());
                drop(back.send(done.map(|others| self.others = others)));
            }
        }
    }

    /// Until the engine's deadline, and a little longer rather than shorter.
    fn patience(&self) -> PollTimeout {
        let Some(deadline) = self.engine.next_deadline() else { return PollTimeout::NONE };
        let wait = deadline.saturating_sub(self.clock.now()) + Duration::from_millis(1);
        wait.as_millis().try_into().unwrap_or(PollTimeout::MAX)
    }

    /// First the disk, then the link.
    fn finish(&mut self, outputs: &[Output]) {
        let records: Vec<Record> = outputs.iter().flat_map(|output| output.records.iter().cloned()).collect();
        let is_durable = records.is_empty() || self.record(&records);
        for output in outputs {
            if !is_durable && !output.records.is_empty() {
                // The client asks again.
                continue;
            }
            // Of leases the log has every line.
            if !output.records.is_empty() || self.may_write(output.events.len()) {
                output.events.iter().for_each(tell);
            }
            for frame in &output.frames {
                if let Err(error) = self.packets.send(frame) {
                    tracing::warn!(%error, "DHCP: cannot send an answer");
                }
            }
        }
    }

    /// Counts lines about what is not recorded; says how many were left out once there is room again.
    fn may_write(&mut self, lines: usize) -> bool {
        let (now, lines) = (self.clock.now().as_secs(), lines.try_into().unwrap_or(u64::MAX));
        if now != self.lines.second {
            if self.lines.left_out > 0 {
                tracing::warn!(lines = self.lines.left_out, "DHCP: too many messages, lines are left out");
            }
            self.lines = Lines { second: now, ..Lines::default() };
        }
        self.lines.written += lines;
        let may = self.lines.written <= MOST_LINES;
        if !may {
            self.lines.left_out += lines;
            self.report.lines_left_out += lines;
        }
        may
    }

    fn record(&mut self, records: &[Record]) -> bool {
        if let Err(error) = self.log.append(records) {
            self.report.database_failures += 1;
            tracing::error!("DHCP: {} leases are not granted: {}", records.len(), crate::chain(&error));
            return false;
        }
        if self.log.is_long(self.engine.count() + self.others.len()) {
            let all = [self.engine.records(), self.others.clone()].concat();
            if let Err(error) = self.log.replace(&all) {
                tracing::warn!("DHCP: {}", crate::chain(&error));
            }
        }
        true
    }
}

/// One line of the lease log.
fn tell(event: &Event) {
    let Event { address, client, mac, hostname, relay, boot_file, kind } = event;
    let shown = |address: &Option<std::net::Ipv4Addr>| address.map(|address| address.to_string()).unwrap_or_default();
    let (address, mac, relay) = (shown(address), crate::mac_text(*mac), shown(relay));
    let boot_file = boot_file.as_deref().unwrap_or_default();
    macro_rules! line {
        ($level:ident, $what:literal $(, $field:ident)?) => {
            tracing::$level!(address, mac, %client, hostname, relay, boot_file, $($field,)? $what)
        };
    }
    match kind {
        EventKind::Offer => line!(info, "DHCP: offered"),
        EventKind::Ack(_) => line!(info, "DHCP: leased"),
        EventKind::Inform => line!(info, "DHCP: informed"),
        EventKind::Boot => line!(info, "DHCP: told the boot file, another server gives the address"),
        EventKind::Release => line!(info, "DHCP: released"),
        EventKind::Nak => line!(warn, "DHCP: refused, the address is not this client's"),
        EventKind::Decline => line!(warn, "DHCP: declined, the client says that another host uses the address"),
        EventKind::Conflict { used_by } => {
            let used_by = crate::mac_text(*used_by);
            line!(warn, "DHCP: not offered, another host uses the address", used_by);
        }
        EventKind::Exhausted => line!(warn, "DHCP: not answered, no address is left"),
        EventKind::UnknownNetwork => line!(warn, "DHCP: not answered, no network of the configuration is the client's"),
    }
}
