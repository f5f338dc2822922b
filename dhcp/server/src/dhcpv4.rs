//! DHCPv4: frames to the engine, its records to the database, its answers to the link.

use std::os::fd::AsFd as _;

use dhcp::pool::{Event, EventKind, Output, Record, Server};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock::Clock;
use crate::lease_log::LeaseLog;
use crate::packets::Packets;

/// Most frames whose records share one write to the disk.
const BATCH: usize = 256;
const FRAME_BYTES: usize = 2048;

/// The server of one link.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) engine: Server,
    pub(crate) packets: Packets,
    pub(crate) log: LeaseLog,
    pub(crate) clock: Clock,
    /// Records of no network of the configuration, which stay in the database.
    pub(crate) others: Vec<Record>,
}

impl Service {
    /// Serves as long as the program runs.
    pub(crate) fn run(mut self) {
        let mut buffer = [0; FRAME_BYTES];
        loop {
            let mut wait = [PollFd::new(self.packets.as_fd(), PollFlags::POLLIN)];
            if poll(&mut wait, PollTimeout::NONE).is_err() {
                continue;
            }
            let mut outputs = Vec::new();
            while outputs.len() < BATCH {
                let Some(frame) = self.packets.receive(&mut buffer) else { break };
                outputs.push(self.engine.on_frame(self.clock.now(), frame));
            }
            self.finish(&outputs);
        }
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
            if let Some(event) = &output.event {
                tell(event);
            }
            for frame in &output.frames {
                if let Err(error) = self.packets.send(frame) {
                    tracing::warn!(%error, "DHCP: cannot send an answer");
                }
            }
        }
    }

    fn record(&mut self, records: &[Record]) -> bool {
        if let Err(error) = self.log.append(records) {
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
        ($level:ident, $what:literal) => {
            tracing::$level!(address, mac, %client, hostname, relay, boot_file, $what)
        };
    }
    match kind {
        EventKind::Offer => line!(info, "DHCP: offered"),
        EventKind::Ack(_) => line!(info, "DHCP: leased"),
        EventKind::Inform => line!(info, "DHCP: informed"),
        EventKind::Release => line!(info, "DHCP: released"),
        EventKind::Nak => line!(warn, "DHCP: refused, the address is not this client's"),
        EventKind::Decline => line!(warn, "DHCP: declined, the client says that another host uses the address"),
        EventKind::Exhausted => line!(warn, "DHCP: not answered, no address is left"),
        EventKind::UnknownNetwork => line!(warn, "DHCP: not answered, no network of the configuration is the client's"),
    }
}
