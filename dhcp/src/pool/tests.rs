//! Scenarios of many clients, read back by other people's codecs.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable as _, Decoder};
use terms::MacAddr;

use super::*;
use crate::boot::BootRule;
use crate::frame::Link;
use crate::{Config, Frame, Lifetime, V4Config};

pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(super) const SERVER_MAC: MacAddr = MacAddr::local([0, 0, 0, 0, 1]);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
pub(super) const LEASE_SECONDS: u32 = 600;

pub(super) fn at(seconds: u64) -> Duration {
    Duration::from_secs(1_000_000 + seconds)
}

pub(super) fn subnet(network: &str, pools: &[(&str, &str)]) -> Subnet {
    let mut parameters = Config::new(MacAddr::local([0; 5]), MacAddr::local([0; 5]));
    parameters.dns = vec![SERVER.into()];
    parameters.v4 = Some(V4Config { lease: Lifetime::Seconds(LEASE_SECONDS), ..V4Config::default() });
    let range = |(first, last): &(&str, &str)| Range { first: first.parse().unwrap(), last: last.parse().unwrap() };
    let pools = pools.iter().map(range).collect();
    Subnet { network: network.parse().unwrap(), pools, reservations: Vec::new(), parameters }
}

pub(super) fn config() -> ServerConfig {
    let subnets = vec![subnet("10.9.0.0/24", &[("10.9.0.10", "10.9.0.12")])];
    ServerConfig {
        mac: SERVER_MAC,
        address: SERVER,
        subnets,
        boot: Vec::new(),
        decline_seconds: 3600,
        probe: Duration::ZERO,
        proxy: false,
    }
}

pub(super) fn server() -> Server {
    Server::new(config()).unwrap()
}

pub(super) fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

/// A client's message, put together option by option.
#[derive(Clone)]
pub(super) struct Ask {
    header: Vec<u8>,
    options: Vec<u8>,
    from: [u8; 6],
    to: Ipv4Addr,
}

pub(super) fn ask(kind: MessageType, client: u8) -> Ask {
    let mut header = vec![0; 240];
    header[..3].copy_from_slice(&[1, 1, 6]);
    header[28..34].copy_from_slice(&mac(client));
    header[236..].copy_from_slice(&[99, 130, 83, 99]);
    Ask { header, options: vec![53, 1, kind.into()], from: mac(client), to: Ipv4Addr::BROADCAST }
}

pub(super) fn discover(client: u8) -> Ask {
    ask(MessageType::Discover, client)
}

pub(super) fn request(client: u8, address: Ipv4Addr) -> Ask {
    ask(MessageType::Request, client).option(54, &SERVER.octets()).option(50, &address.octets())
}

impl Ask {
    pub(super) fn option(mut self, code: u8, value: &[u8]) -> Self {
        self.options.extend([&[code, u8::try_from(value.len()).unwrap()], value].concat());
        self
    }

    fn field(mut self, at: usize, address: Ipv4Addr) -> Self {
        self.header[at..at + 4].copy_from_slice(&address.octets());
        self
    }

    pub(super) fn ciaddr(self, address: Ipv4Addr) -> Self {
        self.field(12, address)
    }

    pub(super) fn relayed(mut self) -> Self {
        (self.from, self.to) = ([2, 0, 0, 0, 9, 9], SERVER);
        self.field(24, RELAY)
    }

    pub(super) fn unicast(mut self) -> Self {
        self.to = SERVER;
        self
    }

    pub(super) fn frame(&self) -> Frame {
        self.frame_between((Ipv4Addr::UNSPECIFIED, 68), 67)
    }

    pub(super) fn frame_between(&self, from: (Ipv4Addr, u16), port: u16) -> Frame {
        let payload = [&self.header[..], &self.options, &[255]].concat();
        let link = Link { source: MacAddr::new(self.from).unwrap(), destination: SERVER_MAC.bytes() };
        link.udp4(from, (self.to, port), &payload)
    }

    pub(super) fn send(&self, server: &mut Server, now: Duration) -> Answer {
        Answer::of(server.on_frame(now, &self.frame()))
    }
}

/// What a server does, its one frame read by etherparse and dhcproto.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) output: Output,
    message: Option<Message>,
    pub(super) from: u16,
    pub(super) to: (Vec<u8>, Ipv4Addr, u16),
}

impl Answer {
    pub(super) fn of(output: Output) -> Self {
        // Questions for other hosts are no answers.
        let Some(frame) = output.frames.first().filter(|frame| frame[12..14] == [8, 0]).cloned() else {
            return Self { output, message: None, from: 0, to: (Vec::new(), Ipv4Addr::UNSPECIFIED, 0) };
        };
        assert_eq!(output.frames.len(), 1);
        let packet = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4") };
        let Some(etherparse::TransportSlice::Udp(udp)) = &packet.transport else { panic!("no UDP") };
        assert_eq!(ip.header().source_addr(), SERVER);
        let message = Message::decode(&mut Decoder::new(udp.payload())).unwrap();
        let to = (frame[..6].to_vec(), ip.header().destination_addr(), udp.destination_port());
        Self { message: Some(message), from: udp.source_port(), to, output }
    }

    pub(super) fn message(&self) -> &Message {
        self.message.as_ref().unwrap()
    }

    pub(super) fn kind(&self) -> Option<MessageType> {
        self.message.as_ref().map(|message| message.opts().msg_type().unwrap())
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.message.as_ref().unwrap().yiaddr()
    }

    /// The header's boot file; dhcproto keeps the zero at its end.
    pub(super) fn file(&self) -> String {
        let file = self.message.as_ref().and_then(|message| message.fname()).unwrap_or_default();
        String::from_utf8_lossy(file).trim_end_matches('\0').to_owned()
    }

    fn event(&self) -> EventKind {
        self.output.events.first().unwrap().kind
    }
}

/// A whole exchange of a client.
pub(super) fn lease(server: &mut Server, client: u8, now: Duration) -> Ipv4Addr {
    let offer = discover(client).send(server, now);
    assert_eq!(offer.kind(), Some(MessageType::Offer), "{offer:?}");
    let ack = request(client, offer.address()).send(server, now);
    assert_eq!((ack.kind(), ack.address()), (Some(MessageType::Ack), offer.address()), "{ack:?}");
    ack.address()
}

pub(super) fn ip(last: u8) -> Ipv4Addr {
    [10, 9, 0, last].into()
}

// spec: BOOT-2
#[test]
fn each_client_gets_an_address_of_the_pool_and_keeps_it() {
    let mut server = server();
    let addresses: Vec<_> = (1..=3).map(|client| lease(&mut server, client, at(0))).collect();
    assert_eq!(addresses, [ip(10), ip(11), ip(12)]);
    // After the end too, until another client needs it.
    for now in [at(1), at(700)] {
        assert_eq!((1..=3).map(|client| lease(&mut server, client, now)).collect::<Vec<_>>(), addresses);
    }
}

// spec: BOOT-2
#[test]
fn a_record_precedes_every_acknowledgement_and_no_offer() {
    let mut server = server();
    assert_eq!(discover(1).option(12, b"vm\n one").send(&mut server, at(0)).output.records, []);
    let records = request(1, ip(10)).option(12, b"vm\n one").send(&mut server, at(0)).output.records;
    let expected = Record {
        address: ip(10),
        client: ClientId::of_ethernet(mac(1)),
        mac: mac(1),
        state: LeaseState::Leased,
        until: at(u64::from(LEASE_SECONDS)),
        granted: Some(Duration::from_secs(LEASE_SECONDS.into())),
        hostname: "vmone".to_owned(),
    };
    assert_eq!((&records[..], server.records()), (&[expected.clone()][..], vec![expected]));
}

// spec: BOOT-2
#[test]
fn an_address_goes_to_another_client_only_after_its_lease() {
    let mut server = server();
    (1..=3).for_each(|client| _ = lease(&mut server, client, at(u64::from(client))));
    let refused = discover(4).send(&mut server, at(600));
    assert_eq!((refused.kind(), refused.event()), (None, EventKind::Exhausted));
    // The one that ended first.
    assert_eq!(lease(&mut server, 4, at(601)), ip(10));
    let late = request(1, ip(10)).send(&mut server, at(601));
    assert_eq!((late.kind(), late.to.1), (Some(MessageType::Nak), Ipv4Addr::BROADCAST));
}

// spec: BOOT-2
#[test]
fn offers_alone_never_exhaust_a_pool() {
    let mut server = server();
    let _ = lease(&mut server, 1, at(0));
    for client in 2..=200 {
        assert_eq!(discover(client).send(&mut server, at(1)).kind(), Some(MessageType::Offer));
    }
    assert_eq!(server.count(), 3);
    // The last of them can have what it was offered, the first no more.
    let offered = discover(200).send(&mut server, at(2)).address();
    assert_eq!(request(200, offered).send(&mut server, at(2)).kind(), Some(MessageType::Ack));
    assert_eq!(request(2, offered).send(&mut server, at(2)).kind(), Some(MessageType::Nak));
    assert_eq!(request(3, ip(10)).send(&mut server, at(2)).kind(), Some(MessageType::Nak));
}

// spec: BOOT-2
#[test]
fn a_released_address_is_free_and_its_client_gets_it_again() {
    let mut server = server();
    (1..=3).for_each(|client| _ = lease(&mut server, client, at(0)));
    let release = ask(MessageType::Release, 2).ciaddr(ip(11)).option(54, &SERVER.octets()).unicast();
    let released = release.send(&mut server, at(1));
    assert_eq!((released.kind(), released.output.records[0].state), (None, LeaseState::Released));
    assert_eq!(lease(&mut server, 2, at(2)), ip(11));
    let _ = release.send(&mut server, at(3));
    assert_eq!(lease(&mut server, 4, at(4)), ip(11));
    // Another client cannot release it.
    assert_eq!(release.send(&mut server, at(5)).output.records, []);
}

// spec: BOOT-2
#[test]
fn a_declined_address_is_not_given_out_for_an_hour() {
    let mut server = server();
    (1..=3).for_each(|client| _ = lease(&mut server, client, at(0)));
    let decline = ask(MessageType::Decline, 1).option(54, &SERVER.octets()).option(50, &ip(10).octets());
    let declined = decline.send(&mut server, at(1));
    assert_eq!((declined.event(), declined.output.records[0].state), (EventKind::Decline, LeaseState::Declined));
    assert_eq!(discover(1).send(&mut server, at(2)).event(), EventKind::Exhausted);
    // What ended meanwhile is given first.
    assert_eq!(lease(&mut server, 1, at(700)), ip(11));
    (5..=6).for_each(|client| assert_eq!(lease(&mut server, client, at(3601)), ip(if client == 5 { 12 } else { 11 })));
    assert_eq!(lease(&mut server, 7, at(3602)), ip(10));
}

// spec: BOOT-2
#[test]
fn a_client_that_chooses_another_server_frees_its_offer() {
    let mut server = server();
    assert_eq!(discover(1).send(&mut server, at(0)).address(), ip(10));
    let other = ask(MessageType::Request, 1).option(54, &[10, 9, 0, 2]).option(50, &[10, 9, 0, 77]);
    assert_eq!(other.send(&mut server, at(0)).kind(), None);
    assert_eq!((server.count(), discover(2).send(&mut server, at(0)).address()), (0, ip(10)));
}

// spec: BOOT-2
#[test]
fn a_renewal_is_answered_to_the_client_alone_and_a_strange_one_is_refused() {
    let mut server = server();
    let _ = lease(&mut server, 1, at(0));
    let renewed = ask(MessageType::Request, 1).ciaddr(ip(10)).unicast().send(&mut server, at(300));
    assert_eq!((renewed.kind(), &renewed.to), (Some(MessageType::Ack), &(mac(1).to_vec(), ip(10), 68)));
    assert_eq!(renewed.output.records[0].until, at(900));
    // An address of the network that no pool has may be another server's: silence, unless we alone were asked.
    let rebinding = ask(MessageType::Request, 1).ciaddr(ip(77));
    assert_eq!(rebinding.send(&mut server, at(300)).kind(), None);
    assert_eq!(rebinding.unicast().send(&mut server, at(300)).kind(), Some(MessageType::Nak));
    let rebooted = ask(MessageType::Request, 1).option(50, &[192, 168, 0, 7]);
    assert_eq!(rebooted.send(&mut server, at(300)).kind(), Some(MessageType::Nak), "of another network");
}

// spec: BOOT-4
#[test]
fn reservations_by_mac_client_id_and_circuit_are_kept_for_their_clients() {
    let mut config = config();
    let reserve =
        |client, last, name: Option<&str>| Reservation { client, address: ip(last), hostname: name.map(str::to_owned) };
    config.subnets[0].reservations = vec![
        reserve(WhichClient::Mac(MacAddr::new(mac(1)).unwrap()), 10, Some("one")),
        reserve(WhichClient::Id("ff:01:02".parse().unwrap()), 200, None),
        reserve(WhichClient::Circuit(b"port7".to_vec()), 12, None),
    ];
    config.subnets.push(subnet("10.8.0.0/24", &[]));
    let mut server = Server::new(config).unwrap();
    assert_eq!(lease(&mut server, 4, at(0)), ip(11), "the only one that is not reserved");
    assert_eq!(discover(5).send(&mut server, at(0)).event(), EventKind::Exhausted);
    let one = discover(1).option(55, &[12]).send(&mut server, at(0));
    let told = one.message.as_ref().unwrap().opts().get(OptionCode::Hostname).cloned();
    assert_eq!((one.address(), told), (ip(10), Some(DhcpOption::Hostname("one".to_owned()))));
    assert_eq!(discover(6).option(61, &[0xff, 1, 2]).send(&mut server, at(0)).address(), ip(200));
    let circuit = [&[1, 5][..], b"port7", &[5, 4, 10, 9, 0, 0]].concat();
    assert_eq!(discover(7).option(82, &circuit).relayed().send(&mut server, at(0)).address(), ip(12));
    assert_eq!(request(8, ip(10)).send(&mut server, at(0)).kind(), Some(MessageType::Nak));
}

// spec: BOOT-4
#[test]
fn a_new_reservation_replaces_the_lease_that_its_client_had() {
    let mut server = server();
    assert_eq!(lease(&mut server, 1, at(0)), ip(10));
    let records = server.records();
    let mut config = config();
    let client = WhichClient::Mac(MacAddr::new(mac(1)).unwrap());
    config.subnets[0].reservations = vec![Reservation { client, address: ip(50), hostname: None }];
    let mut server = Server::new(config).unwrap();
    assert_eq!(server.restore(at(1), records), []);
    let renewal = ask(MessageType::Request, 1).ciaddr(ip(10)).unicast();
    assert_eq!(renewal.send(&mut server, at(2)).kind(), Some(MessageType::Nak));
    assert_eq!(lease(&mut server, 1, at(3)), ip(50));
}

// spec: BOOT-3
#[test]
fn a_restored_server_goes_on_as_the_one_before() {
    let mut first = server();
    let given: Vec<_> = (1..=2).map(|client| lease(&mut first, client, at(0))).collect();
    let mut second = server();
    let foreign = Record { address: [192, 0, 2, 1].into(), ..first.records()[0].clone() };
    let records = [first.records(), vec![foreign.clone()]].concat();
    assert_eq!(second.restore(at(1), records), [foreign]);
    assert_eq!(lease(&mut second, 3, at(1)), ip(12));
    assert_eq!(discover(4).send(&mut second, at(2)).event(), EventKind::Exhausted);
    assert_eq!((1..=2).map(|client| lease(&mut second, client, at(2))).collect::<Vec<_>>(), given);
    // An acknowledgement of an offer of the first server is answered by the second.
    let mut third = server();
    assert_eq!(request(9, ip(12)).send(&mut third, at(2)).kind(), Some(MessageType::Ack));
}

// spec: BOOT-3
#[test]
fn a_clock_that_was_set_back_makes_no_lease_eternal() {
    let mut first = server();
    (1..=3).for_each(|client| _ = lease(&mut first, client, at(9_000_000)));
    let mut second = server();
    assert_eq!(second.restore(at(0), first.records()), []);
    let last = u64::from(LEASE_SECONDS) - 1;
    assert_eq!(discover(4).send(&mut second, at(last)).event(), EventKind::Exhausted);
    assert_eq!(lease(&mut second, 4, at(last + 1)), ip(10));
}

// spec: BOOT-3
#[test]
fn a_restart_with_shorter_leases_ends_none_before_its_client_was_told() {
    let mut first = server();
    (1..=3).for_each(|client| _ = lease(&mut first, client, at(0)));
    let mut shorter = config();
    shorter.subnets[0].parameters.v4.as_mut().unwrap().lease = Lifetime::Seconds(60);
    let mut second = Server::new(shorter.clone()).unwrap();
    assert_eq!(second.restore(at(100), first.records()), []);
    let last = u64::from(LEASE_SECONDS) - 1;
    assert_eq!(discover(4).send(&mut second, at(last)).event(), EventKind::Exhausted);
    assert_eq!(lease(&mut second, 4, at(last + 1)), ip(10));
    // What an earlier release recorded says nothing of it: one whole lease as they are now.
    let mut third = Server::new(shorter).unwrap();
    let unknown = first.records().into_iter().map(|record| Record { granted: None, ..record });
    assert_eq!(third.restore(at(100), unknown), []);
    assert_eq!(discover(4).send(&mut third, at(3600)).kind(), Some(MessageType::Offer));
}

// spec: BOOT-17
#[test]
fn another_configuration_keeps_leases_and_a_bad_one_changes_nothing() {
    let mut server = server();
    (1..=2).for_each(|client| _ = lease(&mut server, client, at(0)));
    let before = server.records();
    let mut bad = config();
    bad.address = ip(10);
    assert!(server.reload(bad, &[]).unwrap_err().to_string().contains("10.9.0.10 is the server's own address"));
    assert_eq!(server.records(), before);
    // Shorter leases and another network: what clients were told is true until its end.
    let mut config = config();
    config.subnets[0].parameters.v4.as_mut().unwrap().lease = Lifetime::Seconds(60);
    config.subnets.push(subnet("10.8.0.0/24", &[]));
    let foreign = |address: [u8; 4]| Record { address: address.into(), ..before[0].clone() };
    let others = [foreign([192, 0, 2, 1]), foreign([10, 8, 0, 9])];
    assert_eq!(server.reload(config, &others).unwrap(), [others[0].clone()]);
    assert_eq!(server.records(), [before, vec![others[1].clone()]].concat());
    assert_eq!(lease(&mut server, 3, at(100)), ip(12));
    assert_eq!(discover(4).send(&mut server, at(159)).event(), EventKind::Exhausted);
    assert_eq!(lease(&mut server, 4, at(160)), ip(12));
    assert_eq!(server.counters().acks, 4);
}

// spec: BOOT-6
#[test]
fn a_relayed_client_gets_an_address_of_its_own_network_through_the_agent() {
    let mut config = config();
    config.subnets.push(subnet("10.8.0.0/24", &[("10.8.0.50", "10.8.0.60")]));
    let mut server = Server::new(config).unwrap();
    let information = [1, 3, b'e', b't', b'h'];
    let offer = discover(1).option(82, &information).relayed().send(&mut server, at(0));
    assert_eq!((offer.address(), &offer.to), ([10, 8, 0, 50].into(), &(vec![2, 0, 0, 0, 9, 9], RELAY, 67)));
    let message = offer.message.as_ref().unwrap();
    assert_eq!(message.giaddr(), RELAY);
    assert!(message.opts().get(OptionCode::RelayAgentInformation).is_some(), "{message:?}");
    // The agent shall broadcast what tells a client that its address is wrong.
    let nak = request(1, ip(10)).relayed().send(&mut server, at(0));
    assert_eq!((nak.kind(), nak.to.1), (Some(MessageType::Nak), RELAY));
    assert!(nak.message.as_ref().unwrap().flags().broadcast());
    // Renewed past the agent, through a router.
    let _ = request(1, [10, 8, 0, 50].into()).relayed().send(&mut server, at(0));
    let mut renewal = ask(MessageType::Request, 1).ciaddr([10, 8, 0, 50].into()).unicast();
    renewal.from = [2, 0, 0, 0, 9, 9];
    let renewed = renewal.send(&mut server, at(1));
    let to = (vec![2, 0, 0, 0, 9, 9], [10, 8, 0, 50].into(), 68);
    assert_eq!((renewed.kind(), renewed.to), (Some(MessageType::Ack), to));
    let unknown = discover(1).relayed().field(24, [10, 7, 0, 1].into()).send(&mut server, at(0));
    assert_eq!(unknown.event(), EventKind::UnknownNetwork);
}

// spec: BOOT-5
#[test]
fn a_boot_answer_is_in_the_header_and_names_this_server() {
    let mut config = config();
    let rule = |ipxe, file: &str, vendor_class: Option<&str>| BootRule {
        ipxe,
        file: file.to_owned(),
        vendor_class: vendor_class.map(str::to_owned),
        ..BootRule::default()
    };
    config.boot = vec![
        rule(false, "http://10.9.0.1/ipxe.efi", Some("HTTPClient")),
        rule(false, "undionly.kpxe", None),
        rule(true, "boot.ipxe", None),
    ];
    let mut server = Server::new(config).unwrap();
    let firmware = discover(1).option(60, b"PXEClient:Arch:00000:UNDI:002001").option(93, &[0, 0]);
    let answer = firmware.clone().option(97, &[0; 17]).send(&mut server, at(0));
    let message = answer.message.as_ref().unwrap();
    assert_eq!((message.siaddr(), answer.file().as_str()), (SERVER, "undionly.kpxe"));
    assert!(message.opts().get(OptionCode::ClientMachineIdentifier).is_some());
    let answer = firmware.option(77, b"iPXE").send(&mut server, at(0));
    assert_eq!(answer.file(), "boot.ipxe");
    let uefi = discover(2).option(60, b"HTTPClient:Arch:00016").option(55, &[67]).send(&mut server, at(0));
    let message = uefi.message.as_ref().unwrap();
    assert_eq!((uefi.file().as_str(), message.siaddr()), ("http://10.9.0.1/ipxe.efi", Ipv4Addr::UNSPECIFIED));
    let class = message.opts().get(OptionCode::ClassIdentifier);
    assert_eq!(class, Some(&DhcpOption::ClassIdentifier(b"HTTPClient".to_vec())));
}

/// A client's DISCOVER with an Ethernet address of its own for each number.
pub(super) fn of_flood(number: u32) -> Frame {
    let mut flood = discover(2);
    flood.header[29..33].copy_from_slice(&number.to_be_bytes());
    flood.frame()
}

// spec: BOOT-10
#[test]
fn a_flood_from_any_number_of_addresses_is_bounded_by_the_pool() {
    let mut config = config();
    config.subnets[0] = subnet("10.9.0.0/16", &[("10.9.1.0", "10.9.4.255")]);
    let mut server = Server::new(config).unwrap();
    let kept = lease(&mut server, 1, at(0));
    for number in 0..20_000_u32 {
        let output = server.on_frame(at(1) + Duration::from_micros(number.into()), &of_flood(number));
        assert_eq!(output.frames.len(), 1);
    }
    assert_eq!((server.count(), server.records().len()), (1024, 1));
    assert_eq!(lease(&mut server, 1, at(2)), kept);
    // Of the offers the oldest is taken back: the first address was offered again 1023 clients ago.
    let oldest = 1 + 20_000 % 1023;
    assert_eq!(u32::from(lease(&mut server, 3, at(2))), u32::from(Ipv4Addr::new(10, 9, 1, 0)) + oldest);
}

// spec: BOOT-10
#[test]
fn one_client_that_floods_is_answered_with_a_bound() {
    let mut server = server();
    let answered = (0..1000).filter(|_| discover(1).send(&mut server, at(0)).kind().is_some()).count();
    assert_eq!((answered, server.counters().over_limit), (64, 936));
    assert_eq!(discover(2).send(&mut server, at(0)).kind(), Some(MessageType::Offer));
}

// spec: BOOT-2
#[test]
fn what_contradicts_itself_is_refused() {
    type Change = fn(&mut ServerConfig);
    let cases: [(Change, &str); 6] = [
        (|config| config.address = ip(10), "subnets: 10.9.0.10 is the server's own address"),
        (|config| config.subnets.push(subnet("10.9.0.128/25", &[])), "overlaps with 10.9.0.128/25"),
        (|config| config.subnets[0].pools[0].last = [10, 9, 1, 1].into(), "pools: 10.9.0.10-10.9.1.1 is no range"),
        (|config| config.subnets[0].pools[0].last = ip(9), "pools: 10.9.0.10-10.9.0.9 is no range"),
        (
            |config| {
                let again = config.subnets[0].pools[0];
                config.subnets[0].pools.push(again);
            },
            "shares addresses with another pool",
        ),
        (
            |config| {
                let client = WhichClient::Circuit(vec![1]);
                let reservation = Reservation { client, address: ip(255), hostname: None };
                config.subnets[0].reservations.push(reservation);
            },
            "reservations.address: 10.9.0.255 is no client's address",
        ),
    ];
    for (change, expected) in cases {
        let mut config = config();
        change(&mut config);
        let error = Server::new(config).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
