//! Scenarios of a DHCPv4 client, read back by other people's codecs.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable as _, Decoder};
use terms::MacAddr;

use crate::frame::Link;
use crate::{Config, Engine, Frame, Lifetime, Phase, V4Config};

const GUEST: MacAddr = MacAddr::local([0, 0, 0, 0, 7]);
const SERVICE: MacAddr = MacAddr::local([0, 0, 0, 0, 8]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);

fn v4() -> V4Config {
    V4Config {
        address: "10.0.2.2/24".parse().unwrap(),
        server_id: SERVER,
        router: Some(SERVER),
        lease: Lifetime::Seconds(800),
        ..V4Config::default()
    }
}

fn config(v4: V4Config) -> Config {
    let mut config = Config::new(GUEST, SERVICE);
    config.hostname = Some("vm".into());
    config.search = vec!["ns.svc.cluster.local".parse().unwrap(), "cluster.local".parse().unwrap()];
    config.dns = vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
    config.mtu = Some(1450.try_into().unwrap());
    config.v4 = Some(v4);
    config
}

/// A client's message, put together option by option.
struct Ask {
    header: Vec<u8>,
    options: Vec<u8>,
    to: Ipv4Addr,
}

fn ask(kind: u8) -> Ask {
    let mut header = vec![0; 240];
    header[..3].copy_from_slice(&[1, 1, 6]);
    header[4..8].copy_from_slice(&[1, 2, 3, 4]);
    header[28..34].copy_from_slice(&GUEST.bytes());
    header[236..].copy_from_slice(&[99, 130, 83, 99]);
    Ask { header, options: vec![53, 1, kind], to: Ipv4Addr::BROADCAST }
}

fn discover() -> Ask {
    ask(1)
}

fn request() -> Ask {
    ask(3)
}

impl Ask {
    fn option(mut self, code: u8, value: &[u8]) -> Self {
        self.options.extend([code, u8::try_from(value.len()).unwrap()]);
        self.options.extend(value);
        self
    }

    fn for_address(self, address: Ipv4Addr) -> Self {
        self.option(50, &address.octets())
    }

    fn of_server(self, server: Ipv4Addr) -> Self {
        self.option(54, &server.octets())
    }

    fn holding(mut self, ciaddr: Ipv4Addr) -> Self {
        self.header[12..16].copy_from_slice(&ciaddr.octets());
        self
    }

    fn through_relay(mut self, giaddr: Ipv4Addr) -> Self {
        self.header[24..28].copy_from_slice(&giaddr.octets());
        self
    }

    fn deaf_to_unicast(mut self) -> Self {
        self.header[10] = 0x80;
        self
    }

    fn unicast(mut self) -> Self {
        self.to = SERVER;
        self
    }

    fn frame(self) -> Frame {
        self.frame_from(GUEST)
    }

    fn frame_from(self, source: MacAddr) -> Frame {
        let payload = [self.header, self.options, vec![255]].concat();
        Link { source, destination: [0xff; 6] }.udp4((Ipv4Addr::UNSPECIFIED, 68), (self.to, 67), &payload)
    }
}

/// One answer as etherparse and dhcproto read it.
struct Advertised {
    to: Ipv4Addr,
    payload: Vec<u8>,
    message: Message,
}

impl Advertised {
    fn kind(&self) -> MessageType {
        self.message.opts().msg_type().unwrap()
    }

    fn option(&self, code: OptionCode) -> Option<&DhcpOption> {
        self.message.opts().get(code)
    }
}

fn parse(frame: &[u8]) -> Advertised {
    let packet = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let Some(etherparse::LinkHeader::Ethernet2(ethernet)) = &packet.link else { panic!("no Ethernet") };
    assert_eq!((ethernet.source, ethernet.destination), (SERVICE.bytes(), GUEST.bytes()));
    let Some(etherparse::NetHeaders::Ipv4(ip, _)) = &packet.net else { panic!("no IPv4") };
    assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
    let Some(etherparse::TransportHeader::Udp(udp)) = &packet.transport else { panic!("no UDP") };
    let payload = packet.payload.slice();
    assert_eq!(udp.calc_checksum_ipv4(ip, payload).unwrap(), udp.checksum);
    assert_eq!((udp.source_port, udp.destination_port), (67, 68));
    assert_eq!(Ipv4Addr::from(ip.source), SERVER);
    assert!(payload.len() >= 300, "shorter than BOOTP: {}", payload.len());
    let message = Message::decode(&mut Decoder::new(payload)).unwrap();
    Advertised { to: ip.destination.into(), payload: payload.to_vec(), message }
}

struct Scene(Engine);

fn scene(v4: V4Config) -> Scene {
    Scene(Engine::new(config(v4)).unwrap())
}

impl Scene {
    fn says(&mut self, ask: Ask) -> Option<Advertised> {
        let mut answers = self.0.on_frame(Duration::from_secs(100), &ask.frame());
        assert!(answers.len() < 2);
        answers.pop().map(|frame| parse(&frame))
    }
}

#[test]
fn discover_is_offered_the_address_with_everything() {
    let offer = scene(v4()).says(discover()).unwrap();
    assert_eq!(offer.kind(), MessageType::Offer);
    assert_eq!(offer.message.yiaddr(), ADDRESS);
    assert_eq!(offer.to, ADDRESS);
    assert_eq!(offer.option(OptionCode::ServerIdentifier), Some(&DhcpOption::ServerIdentifier(SERVER)));
    assert_eq!(offer.option(OptionCode::SubnetMask), Some(&DhcpOption::SubnetMask([255, 255, 255, 0].into())));
    assert_eq!(offer.option(OptionCode::Router), Some(&DhcpOption::Router(vec![SERVER])));
    let dns = DhcpOption::DomainNameServer(vec![[10, 96, 0, 10].into()]);
    assert_eq!(offer.option(OptionCode::DomainNameServer), Some(&dns));
    assert_eq!(offer.option(OptionCode::Hostname), Some(&DhcpOption::Hostname("vm".into())));
    let domain = DhcpOption::DomainName("ns.svc.cluster.local".into());
    assert_eq!(offer.option(OptionCode::DomainName), Some(&domain));
    assert_eq!(offer.option(OptionCode::InterfaceMtu), Some(&DhcpOption::InterfaceMtu(1450)));
    assert_eq!(offer.option(OptionCode::AddressLeaseTime), Some(&DhcpOption::AddressLeaseTime(800)));
    assert_eq!(offer.option(OptionCode::Renewal), Some(&DhcpOption::Renewal(400)));
    assert_eq!(offer.option(OptionCode::Rebinding), Some(&DhcpOption::Rebinding(700)));
    let Some(DhcpOption::DomainSearch(search)) = offer.option(OptionCode::DomainSearch) else { panic!("no search") };
    let search: Vec<String> = search.iter().map(ToString::to_string).collect();
    assert_eq!(search, ["ns.svc.cluster.local.", "cluster.local."]);
}

#[test]
fn request_in_selecting_is_acknowledged_and_remembered() {
    let mut scene = scene(v4());
    let ack = scene.says(request().for_address(ADDRESS).of_server(SERVER).option(61, b"\xffid")).unwrap();
    assert_eq!((ack.kind(), ack.message.yiaddr()), (MessageType::Ack, ADDRESS));
    assert_eq!(ack.option(OptionCode::ClientIdentifier), Some(&DhcpOption::ClientIdentifier(b"\xffid".to_vec())));
    let lease = scene.0.snapshot().v4.lease.clone().unwrap();
    assert_eq!((lease.phase, lease.client_id), (Phase::Selecting, b"\xffid".to_vec()));
    assert_eq!((lease.acked_at, lease.expires_at), (Duration::from_secs(100), Some(Duration::from_secs(900))));
}

#[test]
fn request_that_chose_another_server_is_left_alone() {
    let mut scene = scene(v4());
    assert!(scene.says(request().for_address(ADDRESS).of_server([10, 0, 2, 77].into())).is_none());
    assert_eq!(scene.0.snapshot().ignored.other_server, 1);
}

#[test]
fn a_rebooting_client_is_acknowledged_or_gets_a_nak() {
    let mut scene = scene(v4());
    assert_eq!(scene.says(request().for_address(ADDRESS)).unwrap().kind(), MessageType::Ack);
    assert_eq!(scene.0.snapshot().v4.lease.as_ref().unwrap().phase, Phase::Rebooting);
    let nak = scene.says(request().for_address([192, 168, 0, 9].into())).unwrap();
    assert_eq!((nak.kind(), nak.to), (MessageType::Nak, Ipv4Addr::BROADCAST));
    assert_eq!(nak.message.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert!(nak.option(OptionCode::AddressLeaseTime).is_none());
}

#[test]
fn renewing_is_unicast_both_ways_and_rebinding_is_told_apart() {
    let mut scene = scene(v4());
    let ack = scene.says(request().holding(ADDRESS).unicast()).unwrap();
    assert_eq!((ack.kind(), ack.to, ack.message.ciaddr()), (MessageType::Ack, ADDRESS, ADDRESS));
    assert_eq!(scene.0.snapshot().v4.lease.as_ref().unwrap().phase, Phase::Renewing);
    assert_eq!(scene.says(request().holding(ADDRESS)).unwrap().kind(), MessageType::Ack);
    assert_eq!(scene.0.snapshot().v4.lease.as_ref().unwrap().phase, Phase::Rebinding);
}

#[test]
fn renewing_a_foreign_address_is_refused() {
    let nak = scene(v4()).says(request().holding([10, 0, 2, 9].into()).unicast()).unwrap();
    assert_eq!((nak.kind(), nak.to), (MessageType::Nak, Ipv4Addr::BROADCAST));
}

#[test]
fn inform_gets_parameters_and_no_lease() {
    let own: Ipv4Addr = [10, 0, 2, 200].into();
    let ack = scene(v4()).says(ask(8).holding(own)).unwrap();
    assert_eq!((ack.kind(), ack.to, ack.message.yiaddr()), (MessageType::Ack, own, Ipv4Addr::UNSPECIFIED));
    assert!(ack.option(OptionCode::AddressLeaseTime).is_none() && ack.option(OptionCode::Router).is_some());
}

#[test]
fn release_and_decline_end_the_lease_without_an_answer() {
    let mut scene = scene(v4());
    let lease = |scene: &Scene| scene.0.snapshot().v4.lease.is_some();
    let take = || request().for_address(ADDRESS).of_server(SERVER);
    scene.says(take());
    assert!(lease(&scene));
    assert!(scene.says(ask(7).holding(ADDRESS).of_server(SERVER).unicast()).is_none() && !lease(&scene));
    scene.says(take());
    assert!(scene.says(ask(4).for_address(ADDRESS).of_server(SERVER)).is_none() && !lease(&scene));
    let v4 = &scene.0.snapshot().v4;
    assert!(v4.released_at.is_some() && v4.declined_at.is_some());
    assert_eq!(scene.says(discover()).unwrap().kind(), MessageType::Offer);
}

#[test]
fn another_client_identifier_on_the_same_mac_is_served() {
    let mut scene = scene(v4());
    for id in [&b"\x01first"[..], b"\xffsecond", b""] {
        let ack = scene.says(request().for_address(ADDRESS).of_server(SERVER).option(61, id)).unwrap();
        assert_eq!(ack.kind(), MessageType::Ack);
        assert_eq!(scene.0.snapshot().v4.lease.as_ref().unwrap().client_id, id);
    }
}

#[test]
fn rapid_commit_is_acknowledged_at_once() {
    let ack = scene(v4()).says(discover().option(80, &[])).unwrap();
    assert_eq!(ack.kind(), MessageType::Ack);
    assert!(ack.option(OptionCode::RapidCommit).is_some());
}

// spec: CNI-GUARD-3
#[test]
fn strangers_relays_and_bootp_get_nothing() {
    let mut engine = Engine::new(config(v4())).unwrap();
    let stranger = MacAddr::local([9; 5]);
    assert!(engine.on_frame(Duration::ZERO, &discover().frame_from(stranger)).is_empty());
    let mut foreign = discover();
    foreign.header[33] ^= 1;
    assert!(engine.on_frame(Duration::ZERO, &foreign.frame()).is_empty());
    assert!(engine.on_frame(Duration::ZERO, &discover().through_relay([10, 9, 9, 9].into()).frame()).is_empty());
    assert_eq!(engine.snapshot().ignored.not_our_client, 3);
    let bootp = Ask { options: vec![], ..discover() };
    assert!(engine.on_frame(Duration::ZERO, &bootp.frame()).is_empty());
    assert_eq!(engine.snapshot().ignored.malformed, 1);
}

#[test]
fn the_parameter_list_is_honoured_in_its_order() {
    let offer = scene(v4()).says(discover().option(55, &[26, 6, 6, 200, 15])).unwrap();
    let codes: Vec<u8> = options_on_the_wire(&offer.payload);
    assert_eq!(codes, [53, 54, 51, 58, 59, 1, 26, 6, 15]);
}

#[test]
fn classless_routes_are_told_to_who_does_not_ask_where_there_are_any() {
    let codes = |address: &str, request_list: &[u8]| {
        let v4 = V4Config { address: address.parse().unwrap(), ..v4() };
        options_on_the_wire(&scene(v4).says(discover().option(55, request_list)).unwrap().payload).split_off(5)
    };
    // What udhcpc asks for.
    let udhcpc = [1, 3, 6, 12, 15, 28, 42];
    assert_eq!(codes("10.0.2.2/24", &udhcpc), [1, 3, 6, 12, 15, 28]);
    assert_eq!(codes("10.0.2.2/32", &udhcpc), [1, 3, 6, 12, 15, 121]);
    assert_eq!(codes("10.0.2.2/32", &[121, 3]), [1, 121, 3], "once");
    assert_eq!(codes("10.0.2.2/32", &[3, 249]), [1, 3, 249], "by Microsoft's number");
}

fn options_on_the_wire(payload: &[u8]) -> Vec<u8> {
    let (mut at, mut codes) = (240, Vec::new());
    while payload[at] != 255 {
        codes.push(payload[at]);
        at += 2 + usize::from(payload[at + 1]);
    }
    codes
}

#[test]
fn a_client_that_asks_for_broadcasts_gets_them_until_it_has_an_address() {
    let mut scene = scene(v4());
    let offer = scene.says(discover().deaf_to_unicast()).unwrap();
    assert_eq!(offer.to, Ipv4Addr::BROADCAST);
    assert!(offer.message.flags().broadcast());
    assert_eq!(scene.says(request().holding(ADDRESS).deaf_to_unicast().unicast()).unwrap().to, ADDRESS);
}

#[test]
fn firmware_finds_boot_server_and_file_in_the_header() {
    let mut v4 = v4();
    v4.boot_file = Some("pxelinux.0".into());
    v4.boot_server = Some("10.0.2.50".into());
    let offer = scene(v4.clone()).says(discover().option(60, b"PXEClient").option(55, &[66, 67])).unwrap();
    assert_eq!(offer.message.siaddr(), Ipv4Addr::new(10, 0, 2, 50));
    assert!(offer.message.fname().unwrap().starts_with(b"pxelinux.0"));
    assert!(offer.message.sname().unwrap().starts_with(b"10.0.2.50"));
    let file = DhcpOption::BootfileName(b"pxelinux.0".to_vec());
    assert_eq!(offer.option(OptionCode::BootfileName), Some(&file));
    v4.boot_file = Some("f".repeat(200));
    v4.boot_server = Some("s".repeat(100));
    let long = scene(v4).says(discover()).unwrap();
    assert_eq!(long.message.siaddr(), Ipv4Addr::UNSPECIFIED);
}

#[test]
fn an_infinite_lease_has_no_renewal_times() {
    let offer = scene(V4Config { lease: Lifetime::Infinite, ..v4() }).says(discover()).unwrap();
    assert_eq!(offer.option(OptionCode::AddressLeaseTime), Some(&DhcpOption::AddressLeaseTime(u32::MAX)));
    assert!(offer.option(OptionCode::Renewal).is_none());
}

#[test]
fn answers_keep_to_the_size_the_client_takes() {
    let routes = (0..60).map(|n| (format!("10.{n}.0.0/16").parse().unwrap(), SERVER)).collect();
    let many = V4Config { routes, ..v4() };
    let small = scene(many.clone()).says(discover()).unwrap();
    assert!(small.payload.len() <= 548 && small.option(OptionCode::ClasslessStaticRoute).is_none());
    let large = scene(many).says(discover().option(57, &1500_u16.to_be_bytes())).unwrap();
    assert!(large.payload.len() <= 1450 - 28);
    let Some(DhcpOption::ClasslessStaticRoute(routes)) = large.option(OptionCode::ClasslessStaticRoute) else {
        panic!("no routes")
    };
    assert_eq!(routes.len(), 61);
}

#[test]
fn a_full_answer_spills_into_file_and_sname() {
    let private = (224..=230).map(|code| (code, vec![code; 60])).collect();
    let request_list: Vec<u8> = (224..=230).collect();
    let offer =
        scene(V4Config { private_options: private, ..v4() }).says(discover().option(55, &request_list)).unwrap();
    assert!(offer.payload.len() <= 548);
    let overload = options_on_the_wire(&offer.payload).contains(&52);
    assert!(overload && offer.payload[108] >= 224, "file field holds options");
}

// spec: DHCP-18
#[test]
fn options_of_the_site_are_sent_to_a_client_that_does_not_ask_for_them() {
    let private = vec![(240, b"private.example".to_vec()), (241, vec![7])];
    let mut scene = scene(V4Config { private_options: private, ..v4() });
    let offer = scene.says(discover().option(55, &[1, 3, 241])).unwrap();
    let codes = options_on_the_wire(&offer.payload);
    let own: Vec<_> = codes.iter().copied().filter(|code| (224..=254).contains(code)).collect();
    assert_eq!(own, [241, 240], "{codes:?}");
}

fn with_long_search() -> Config {
    let name = |n: u8| {
        format!("team-{n:02}.department-of-things.region-{n:02}.corp.example-company-{n:02}.org").parse().unwrap()
    };
    Config { search: (0..8).map(name).collect(), ntp: vec![[10, 9, 9, 9].into()], ..config(v4()) }
}

fn search_of(answer: &Advertised) -> Vec<String> {
    let Some(DhcpOption::DomainSearch(search)) = answer.option(OptionCode::DomainSearch) else { panic!("no search") };
    search.iter().map(|name| name.to_string().trim_end_matches('.').to_owned()).collect()
}

// spec: DHCP-6
#[test]
fn a_search_list_that_is_too_long_is_cut_behind_whole_names_in_order() {
    let config = with_long_search();
    let mut scene = Scene(Engine::new(config.clone()).unwrap());
    // In the middle of dhclient's list; what follows it in the list is sent as well.
    let request_list = [1, 28, 2, 3, 15, 6, 119, 12, 44, 47, 26, 121, 42];
    let offer = scene.says(discover().option(55, &request_list)).unwrap();
    assert!(offer.payload.len() <= 548);
    let told = search_of(&offer);
    assert!(told.len() >= 2, "{told:?}");
    let wanted: Vec<_> = config.search.iter().map(ToString::to_string).collect();
    assert_eq!(told, wanted[..told.len()]);
    assert_eq!(scene.0.snapshot().v4.search_left_out, 8 - told.len());
    for code in [OptionCode::Hostname, OptionCode::InterfaceMtu, OptionCode::NtpServers] {
        assert!(offer.option(code).is_some(), "{code:?}");
    }
    // A client that takes more gets all of it.
    let offer = scene.says(discover().option(55, &request_list).option(57, &1500_u16.to_be_bytes())).unwrap();
    assert_eq!((search_of(&offer), scene.0.snapshot().v4.search_left_out), (wanted, 0));
}

#[test]
fn any_client_is_answered_at_its_own_ethernet_address() {
    let other = MacAddr::local([9; 5]);
    let mut from_other = discover();
    from_other.header[28..34].copy_from_slice(&other.bytes());
    let frame = from_other.frame_from(other);
    let mut engine = Engine::new(Config { any_client: true, ..config(v4()) }).unwrap();
    let answers = engine.on_frame(Duration::ZERO, &frame);
    assert_eq!((answers.len(), &answers[0][..6]), (1, &other.bytes()[..]));
    assert_eq!(engine.on_frame(Duration::ZERO, &discover().frame()).len(), 1);
    assert_eq!(engine.snapshot().clients.len(), 2);
    // One that relays for another, a group, and the service itself are none.
    assert!(engine.on_frame(Duration::ZERO, &discover().frame_from(other)).is_empty());
    let mut group = frame;
    group[6] |= 1;
    assert!(engine.on_frame(Duration::ZERO, &group).is_empty());
    assert!(engine.on_frame(Duration::ZERO, &discover().frame_from(SERVICE)).is_empty());
    assert_eq!(engine.snapshot().ignored.not_our_client, 3);
}

#[test]
fn a_client_that_gives_its_address_back_is_no_client_any_more() {
    let mut scene = scene(v4());
    scene.says(discover()).unwrap();
    assert_eq!(scene.0.snapshot().clients, [(GUEST, Duration::from_secs(100))]);
    assert!(scene.says(ask(7).holding(ADDRESS).of_server(SERVER)).is_none());
    assert_eq!(scene.0.snapshot().clients, []);
}

// spec: DHCP-10
#[test]
fn a_flood_of_clients_is_remembered_with_a_bound() {
    let mut engine = Engine::new(Config { any_client: true, ..config(v4()) }).unwrap();
    for n in 0..40 {
        let mac = MacAddr::local([0, 0, 0, 1, n]);
        let mut ask = discover();
        ask.header[28..34].copy_from_slice(&mac.bytes());
        let _ = engine.on_frame(Duration::ZERO, &ask.frame_from(mac));
    }
    let clients = engine.snapshot().clients;
    assert_eq!((clients.len(), clients[7].0), (8, MacAddr::local([0, 0, 0, 1, 39])));
}
