//! Boot answers for clients that another server of the link gives addresses: proxyDHCP (PXE specification 2.1 §2; RFC 4578).
//!
//! *Flow.* A DISCOVER of firmware gets an offer without address that names the boot file. Firmware that asks again once it has an
//! address does so at port 4011, and is acknowledged the same. All other messages are the other server's.

use std::net::Ipv4Addr;

use super::config::ServerConfig;
use super::exchange::{Arrival, boot_client};
use super::output::{Counters, EventKind, Output};
use crate::boot;
use crate::frame::Link;
use crate::v4::{self, BOOT_PORT, BROADCAST_FLAG, Reply, codes};

/// Vendor classes of firmware that boots from the network.
const CLASSES: [&[u8]; 2] = [b"PXEClient", b"HTTPClient"];
/// PXE_DISCOVERY_CONTROL with bit 3 alone: take the boot file of this answer, without a menu or another question (PXE
/// specification 2.1, table 2-1), and the end of the encapsulated options.
const TAKE_THIS_FILE: [u8; 4] = [6, 1, 8, 255];
const EVERY_HOST: [u8; 6] = [0xff; 6];

/// What a client is told.
pub(crate) fn answer(config: &ServerConfig, counters: &mut Counters, arrival: &Arrival<'_>) -> Output {
    let message = &arrival.message;
    let option = |code| message.options.bytes(code);
    let class = option(codes::VENDOR_CLASS).unwrap_or_default();
    let Some(class) = CLASSES.into_iter().find(|known| class.starts_with(known)) else { return Output::default() };
    let kind = match (option(codes::MESSAGE_TYPE), arrival.port) {
        (Some([codes::DISCOVER]), v4::SERVER_PORT) => codes::OFFER,
        (Some([codes::REQUEST | codes::INFORM]), BOOT_PORT) => codes::ACK,
        _ => return Output::default(),
    };
    let Some(rule) = boot::choose(&config.boot, &boot_client(message)) else { return Output::default() };
    let server = rule.server_or(config.address);
    let mut options = vec![
        (codes::MESSAGE_TYPE, vec![kind]),
        (codes::SERVER_ID, config.address.octets().to_vec()),
        (codes::VENDOR_CLASS, class.to_vec()),
        (codes::VENDOR_OPTIONS, TAKE_THIS_FILE.to_vec()),
        (codes::BOOT_FILE, rule.file.as_bytes().to_vec()),
    ];
    let echoed = [codes::RELAY_AGENT, codes::CLIENT_ID, codes::MACHINE_ID];
    options.extend(echoed.into_iter().filter_map(|code| Some((code, option(code)?.to_vec()))));
    let known = |address: Ipv4Addr| Some(address).filter(|address| !address.is_unspecified());
    let reply = Reply {
        xid: message.xid,
        flags: message.flags & BROADCAST_FLAG,
        ciaddr: known(message.ciaddr).filter(|_| kind == codes::ACK),
        siaddr: server.as_ref().and_then(|server| server.parse().ok()),
        giaddr: known(message.giaddr),
        chaddr: message.chaddr,
        sname: server.map(String::into_bytes).unwrap_or_default(),
        file: rule.file.as_bytes().to_vec(),
        options,
        ..Reply::default()
    };
    let (mac, to) = match (known(message.giaddr), known(arrival.from.0)) {
        (Some(relay), _) => (arrival.source, (relay, v4::SERVER_PORT)),
        (None, Some(client)) if kind == codes::ACK => (arrival.source, (client, arrival.from.1)),
        _ => (EVERY_HOST, (Ipv4Addr::BROADCAST, v4::CLIENT_PORT)),
    };
    *(if kind == codes::OFFER { &mut counters.offers } else { &mut counters.acks }) += 1;
    let (payload, _) = reply.encode(message.accepted_bytes(u16::MAX));
    let mut event = arrival.event(EventKind::Boot, None);
    event.boot_file = Some(rule.file.clone());
    let link = Link { source: config.mac, destination: mac };
    let mut output = Output::of(event);
    output.frames.push(link.udp4((config.address, arrival.port), to, &payload));
    output
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::{DhcpOption, MessageType, OptionCode};

    use super::super::Server;
    use super::super::tests::{Answer, SERVER, ask, at, config, discover, ip};
    use super::*;
    use crate::boot::BootRule;

    fn server() -> Server {
        let rule = |ipxe, file: &str| BootRule { ipxe, file: file.to_owned(), ..BootRule::default() };
        let boot = vec![rule(true, "boot.ipxe"), rule(false, "undionly.kpxe")];
        Server::new(ServerConfig { proxy: true, subnets: Vec::new(), boot, ..config() }).unwrap()
    }

    fn told(answer: &Answer) -> (Option<MessageType>, String, bool) {
        let options = answer.message().opts();
        let is_pxe =
            options.get(OptionCode::ClassIdentifier) == Some(&DhcpOption::ClassIdentifier(b"PXEClient".to_vec()));
        (
            answer.kind(),
            answer.file(),
            is_pxe && answer.address().is_unspecified() && answer.message().siaddr() == SERVER,
        )
    }

    // spec: BOOT-19
    #[test]
    fn firmware_is_told_its_boot_file_and_no_address() {
        let mut server = server();
        let firmware = discover(1).option(60, b"PXEClient:Arch:00000:UNDI:002001").option(93, &[0, 0]);
        let offer = firmware.clone().send(&mut server, at(0));
        assert_eq!(told(&offer), (Some(MessageType::Offer), "undionly.kpxe".to_owned(), true));
        assert_eq!((&offer.to.0[..], offer.to.1, offer.to.2), (&[0xff; 6][..], Ipv4Addr::BROADCAST, 68));
        let ipxe = firmware.option(77, b"iPXE").send(&mut server, at(0));
        assert_eq!(told(&ipxe), (Some(MessageType::Offer), "boot.ipxe".to_owned(), true));
        // Once it has an address of the other server.
        let again = ask(MessageType::Request, 1).option(60, b"PXEClient:Arch:00000").ciaddr(ip(77)).unicast();
        let ack = Answer::of(server.on_frame(at(0), &again.frame_between((ip(77), 68), BOOT_PORT)));
        assert_eq!(told(&ack), (Some(MessageType::Ack), "undionly.kpxe".to_owned(), true));
        assert_eq!((ack.from, ack.to.1, ack.to.2), (BOOT_PORT, ip(77), 68));
    }

    // spec: BOOT-19
    #[test]
    fn what_is_the_other_servers_gets_no_boot_answer() {
        let mut server = server();
        let request = ask(MessageType::Request, 1).option(60, b"PXEClient").option(50, &ip(77).octets());
        for message in
            [discover(1), discover(1).option(60, b"udhcp"), request.clone(), request.option(54, &SERVER.octets())]
        {
            let output = message.send(&mut server, at(0)).output;
            assert_eq!((output.frames, output.events, output.records), (vec![], vec![], vec![]));
        }
        let mut plain = Server::new(config()).unwrap();
        let at_boot_port = discover(1).option(60, b"PXEClient").frame_between((Ipv4Addr::UNSPECIFIED, 68), BOOT_PORT);
        assert!(plain.on_frame(at(0), &at_boot_port).frames.is_empty());
    }
}
