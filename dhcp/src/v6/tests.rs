//! Scenarios of a DHCPv6 client, read back by other people's codecs.

use std::net::Ipv6Addr;
use std::time::Duration;

use dhcproto::v6::{DhcpOption, IANA, Message, MessageType, OptionCode, Status};
use dhcproto::{Decodable as _, Decoder};
use terms::MacAddr;

use crate::frame::Link;
use crate::{Config, Engine, Lifetime, Phase, Prefix, Router, V6Config};

const GUEST: MacAddr = MacAddr::local([0, 0, 0, 0, 7]);
const SERVICE: MacAddr = MacAddr::local([0, 0, 0, 0, 8]);
const GUEST_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 2);
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 0x77);
const FOREIGN: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 9);
const SERVER_ID: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 8];
const CLIENT_ID: [u8; 10] = [0, 3, 0, 1, 2, 0, 0, 0, 0, 7];

fn config() -> Config {
    let mut config = Config::new(GUEST, SERVICE);
    config.search = vec!["ns.svc.cluster.local".parse().unwrap(), "cluster.local".parse().unwrap()];
    config.dns = vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
    config.ntp = vec!["fd00::7b".parse().unwrap()];
    config.v6 = Some(V6Config {
        address: ADDRESS,
        preferred: Lifetime::Seconds(1000),
        valid: Lifetime::Seconds(2000),
        router: Router::None,
        router_lifetime_seconds: 0,
        prefixes: vec![Prefix { network: "fd10:0:2::/120".parse().unwrap(), on_link: true }],
        routes: Vec::new(),
        boot_file_url: None,
    });
    config
}

/// A client's message, put together option by option.
struct Ask {
    wire: Vec<u8>,
    to: Ipv6Addr,
}

fn anonymous(kind: u8) -> Ask {
    Ask { wire: vec![kind, 1, 2, 3], to: SERVERS }
}

fn ask(kind: u8) -> Ask {
    anonymous(kind).option(1, &CLIENT_ID)
}

impl Ask {
    fn option(mut self, code: u16, value: &[u8]) -> Self {
        self.wire.extend(option(code, value));
        self
    }

    fn of_server(self, id: &[u8]) -> Self {
        self.option(2, id)
    }

    fn association(self, id: u8, addresses: &[Ipv6Addr]) -> Self {
        let address = |address: &Ipv6Addr| option(5, &[&address.octets()[..], &[0; 8]].concat());
        let held: Vec<u8> = addresses.iter().flat_map(address).collect();
        self.option(3, &[&[0, 0, 0, id][..], &[0; 8], &held].concat())
    }
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

struct Scene(Engine);

fn scene() -> Scene {
    Scene(Engine::new(config()).unwrap())
}

impl Scene {
    fn says(&mut self, ask: Ask) -> Option<Message> {
        let link = Link { source: GUEST, destination: [0x33, 0x33, 0, 1, 0, 2] };
        let frame = link.udp6((GUEST_LOCAL, 546), (ask.to, 547), &ask.wire);
        let mut answers = self.0.on_frame(Duration::from_secs(100), &frame);
        assert!(answers.len() < 2);
        answers.pop().map(|frame| parse(&frame))
    }
}

fn parse(frame: &[u8]) -> Message {
    let packet = etherparse::PacketHeaders::from_ethernet_slice(frame).unwrap();
    let Some(etherparse::LinkHeader::Ethernet2(ethernet)) = &packet.link else { panic!("no Ethernet") };
    assert_eq!((ethernet.source, ethernet.destination), (SERVICE.bytes(), GUEST.bytes()));
    let Some(etherparse::NetHeaders::Ipv6(ip, _)) = &packet.net else { panic!("no IPv6") };
    let Some(etherparse::TransportHeader::Udp(udp)) = &packet.transport else { panic!("no UDP") };
    let payload = packet.payload.slice();
    assert_eq!(udp.calc_checksum_ipv6(ip, payload).unwrap(), udp.checksum);
    assert_eq!((udp.source_port, udp.destination_port), (547, 546));
    assert_eq!(Ipv6Addr::from(ip.destination), GUEST_LOCAL);
    assert_eq!(Ipv6Addr::from(ip.source), "fe80::ff:fe00:8".parse::<Ipv6Addr>().unwrap());
    let message = Message::decode(&mut Decoder::new(payload)).unwrap();
    assert_eq!(message.xid(), [1, 2, 3]);
    assert_eq!(message.opts().get(OptionCode::ServerId), Some(&DhcpOption::ServerId(SERVER_ID.to_vec())));
    message
}

fn associations(message: &Message) -> Vec<&IANA> {
    let all = message.opts().get_all(OptionCode::IANA).unwrap_or_default();
    let mut found: Vec<_> =
        all.iter().filter_map(|o| if let DhcpOption::IANA(ia) = o { Some(ia) } else { None }).collect();
    found.sort_by_key(|ia| ia.id);
    found
}

/// Address, preferred and valid lifetime of every address in an association.
fn addresses(association: &IANA) -> Vec<(Ipv6Addr, u32, u32)> {
    let all = association.opts.get_all(OptionCode::IAAddr).unwrap_or_default();
    let address = |option: &DhcpOption| match option {
        DhcpOption::IAAddr(a) => Some((a.addr, a.preferred_life, a.valid_life)),
        _ => None,
    };
    all.iter().filter_map(address).collect()
}

fn status(options: &dhcproto::v6::DhcpOptions) -> Option<Status> {
    match options.get(OptionCode::StatusCode)? {
        DhcpOption::StatusCode(code) => Some(code.status),
        _ => None,
    }
}

#[test]
fn solicit_is_advertised_the_address_and_what_was_asked_for() {
    let mut scene = scene();
    let advertise = scene.says(ask(1).association(5, &[]).option(6, &[0, 23, 0, 24, 0, 56, 0, 31])).unwrap();
    assert_eq!(advertise.msg_type(), MessageType::Advertise);
    let given = associations(&advertise);
    assert_eq!((given.len(), given[0].id, given[0].t1, given[0].t2), (1, 5, 500, 800));
    assert_eq!(addresses(given[0]), [(ADDRESS, 1000, 2000)]);
    let dns = DhcpOption::DomainNameServers(vec!["fd00::a".parse().unwrap()]);
    assert_eq!(advertise.opts().get(OptionCode::DomainNameServers), Some(&dns));
    let Some(DhcpOption::DomainSearchList(search)) = advertise.opts().get(OptionCode::DomainSearchList) else {
        panic!("no search list")
    };
    assert_eq!(search.iter().map(ToString::to_string).collect::<Vec<_>>(), ["ns.svc.cluster.local.", "cluster.local."]);
    assert_eq!(advertise.opts().get(OptionCode::Preference), Some(&DhcpOption::Preference(255)));
    assert!(advertise.opts().get(OptionCode::NtpServer).is_some());
    assert!(advertise.opts().get(OptionCode::SntpServers).is_some());
    let seen = scene.0.snapshot();
    assert_eq!((seen.v6.received, seen.v6.answered), (1, 1));
    assert_eq!((seen.v6.solicit.unwrap().id, seen.v6.lease), (CLIENT_ID.to_vec(), None));
}

#[test]
fn request_renew_and_rebind_grant_the_address() {
    let mut scene = scene();
    for (ask, phase) in [
        (ask(3).of_server(&SERVER_ID), Phase::Selecting),
        (ask(5).of_server(&SERVER_ID), Phase::Renewing),
        (ask(6), Phase::Rebinding),
    ] {
        let reply = scene.says(ask.association(5, &[ADDRESS])).unwrap();
        assert_eq!(reply.msg_type(), MessageType::Reply);
        assert_eq!(addresses(associations(&reply)[0]), [(ADDRESS, 1000, 2000)]);
        let lease = scene.0.snapshot().v6.lease.unwrap();
        assert_eq!((lease.phase, lease.expires_at), (phase, Some(Duration::from_secs(2100))));
    }
    assert_eq!(scene.0.snapshot().v6.grants, 3);
}

#[test]
fn rapid_commit_is_granted_at_once() {
    let mut scene = scene();
    let reply = scene.says(ask(1).option(14, &[]).association(5, &[])).unwrap();
    assert_eq!(reply.msg_type(), MessageType::Reply);
    assert!(reply.opts().get(OptionCode::RapidCommit).is_some());
    assert_eq!(scene.0.snapshot().v6.lease.unwrap().phase, Phase::RapidCommit);
}

#[test]
fn renewing_a_foreign_address_withdraws_it_and_gives_ours() {
    let reply = scene().says(ask(5).of_server(&SERVER_ID).association(5, &[FOREIGN])).unwrap();
    assert_eq!(addresses(associations(&reply)[0]), [(ADDRESS, 1000, 2000), (FOREIGN, 0, 0)]);
}

#[test]
fn a_second_association_hears_that_there_is_one_address() {
    let reply = scene().says(ask(3).of_server(&SERVER_ID).association(1, &[]).association(2, &[ADDRESS])).unwrap();
    let given = associations(&reply);
    assert_eq!((addresses(given[0]), status(&given[0].opts)), (vec![], Some(Status::NoAddrsAvail)));
    assert_eq!(addresses(given[1]), [(ADDRESS, 1000, 2000)]);
}

#[test]
fn temporary_addresses_and_prefixes_are_refused_by_status() {
    let prefix = [&[0, 0, 0, 9][..], &[0; 8]].concat();
    let reply = scene().says(ask(1).option(4, &[0, 0, 0, 8]).option(25, &prefix)).unwrap();
    let Some(DhcpOption::IATA(temporary)) = reply.opts().get(OptionCode::IATA) else { panic!("no IA_TA") };
    assert_eq!(status(&temporary.opts), Some(Status::NoAddrsAvail));
    let Some(DhcpOption::IAPD(prefixes)) = reply.opts().get(OptionCode::IAPD) else { panic!("no IA_PD") };
    assert_eq!(status(&prefixes.opts), Some(Status::NoPrefixAvail));
}

// spec: DHCP-4
#[test]
fn confirm_of_any_address_but_the_guests_own_is_not_on_link() {
    let mut scene = scene();
    // The second is within the prefix that is on link, where an address of an earlier start may well be.
    for foreign in [FOREIGN, NEIGHBOUR] {
        for named in [&[foreign][..], &[ADDRESS, foreign]] {
            let reply = scene.says(ask(4).association(5, named)).unwrap();
            assert_eq!(status(reply.opts()), Some(Status::NotOnLink), "{named:?}");
        }
    }
    let seen = scene.0.snapshot().v6;
    assert_eq!((seen.refusals, seen.grants, seen.lease), (4, 0, None));
    assert!(scene.says(ask(4).association(5, &[])).is_none());
}

// spec: DHCP-4
#[test]
fn a_confirmed_address_counts_as_leased() {
    let mut scene = scene();
    let reply = scene.says(ask(4).association(5, &[ADDRESS])).unwrap();
    assert_eq!(status(reply.opts()), Some(Status::Success));
    let seen = scene.0.snapshot().v6;
    assert_eq!((seen.refusals, seen.grants, seen.lease.unwrap().phase), (0, 1, Phase::Rebooting));
}

// spec: DHCP-4
#[test]
fn a_request_for_a_foreign_address_is_not_on_link_and_grants_nothing() {
    let mut scene = scene();
    for named in [&[FOREIGN][..], &[ADDRESS, NEIGHBOUR]] {
        let reply = scene.says(ask(3).of_server(&SERVER_ID).association(5, named)).unwrap();
        let given = associations(&reply);
        assert_eq!((addresses(given[0]), status(&given[0].opts)), (vec![], Some(Status::NotOnLink)));
    }
    let seen = scene.0.snapshot().v6;
    assert_eq!((seen.refusals, seen.grants, seen.lease), (2, 0, None));
    // Asked without an address, as RFC 8415 §18.2.10.1 lets it, the client gets its own.
    let reply = scene.says(ask(3).of_server(&SERVER_ID).association(5, &[])).unwrap();
    assert_eq!(addresses(associations(&reply)[0]), [(ADDRESS, 1000, 2000)]);
}

#[test]
fn a_solicit_only_hints_at_a_foreign_address() {
    let advertise = scene().says(ask(1).association(5, &[FOREIGN])).unwrap();
    assert_eq!(addresses(associations(&advertise)[0]), [(ADDRESS, 1000, 2000)]);
    let reply = scene().says(ask(1).option(14, &[]).association(5, &[FOREIGN])).unwrap();
    assert_eq!(addresses(associations(&reply)[0]), [(ADDRESS, 1000, 2000)]);
}

// spec: DHCP-6
#[test]
fn a_long_search_list_is_cut_behind_whole_names_and_costs_no_option() {
    let mut config = config();
    config.search = (10..40).map(|n| format!("{}.{n}.example", "s".repeat(60)).parse().unwrap()).collect();
    let mut scene = Scene(Engine::new(config.clone()).unwrap());
    let advertise = scene.says(ask(1).association(5, &[]).option(6, &[0, 24, 0, 23, 0, 56])).unwrap();
    assert!(advertise.opts().get(OptionCode::NtpServer).is_some());
    let Some(DhcpOption::DomainSearchList(search)) = advertise.opts().get(OptionCode::DomainSearchList) else {
        panic!("no search list")
    };
    assert!((15..30).contains(&search.len()), "{}", search.len());
    for (told, wanted) in search.iter().zip(&config.search) {
        assert_eq!(told.to_string(), format!("{wanted}."));
    }
    assert_eq!(scene.0.snapshot().v6.search_left_out, 30 - search.len());
}

#[test]
fn any_client_is_answered_at_its_own_ethernet_address() {
    let other = MacAddr::local([0, 0, 0, 0, 9]);
    let solicit = ask(1).association(5, &[]);
    let frame = |source| {
        let link = Link { source, destination: [0x33, 0x33, 0, 1, 0, 2] };
        link.udp6((GUEST_LOCAL, 546), (SERVERS, 547), &solicit.wire)
    };
    let engine = |any_client| Engine::new(Config { any_client, ..config() }).unwrap();
    assert!(engine(false).on_frame(Duration::ZERO, &frame(other)).is_empty());
    let mut engine = engine(true);
    for source in [other, GUEST] {
        assert_eq!(engine.on_frame(Duration::ZERO, &frame(source))[0][..6], source.bytes());
    }
    assert_eq!(engine.snapshot().clients.iter().map(|(mac, _)| *mac).collect::<Vec<_>>(), [other, GUEST]);
}

#[test]
fn release_and_decline_succeed_and_end_the_lease() {
    let mut scene = scene();
    for kind in [8, 9] {
        scene.says(ask(3).of_server(&SERVER_ID).association(5, &[])).unwrap();
        assert!(scene.0.snapshot().v6.lease.is_some());
        let reply = scene.says(ask(kind).of_server(&SERVER_ID).association(5, &[ADDRESS])).unwrap();
        assert_eq!((status(reply.opts()), scene.0.snapshot().v6.lease), (Some(Status::Success), None));
    }
    let reply = scene.says(ask(8).of_server(&SERVER_ID).association(5, &[FOREIGN])).unwrap();
    assert_eq!(status(&associations(&reply)[0].opts), Some(Status::NoBinding));
    let seen = scene.0.snapshot().v6;
    assert!(seen.released_at.is_some() && seen.declined_at.is_some());
}

#[test]
fn information_request_needs_no_identity_and_says_when_to_ask_again() {
    let mut scene = scene();
    let reply = scene.says(anonymous(11).option(6, &[0, 23, 0, 32])).unwrap();
    assert!(reply.opts().get(OptionCode::DomainNameServers).is_some());
    // dhcproto has a name for this option but no decoder.
    let Some(DhcpOption::Unknown(refresh)) = reply.opts().get(OptionCode::InformationRefreshTime) else {
        panic!("no refresh time")
    };
    assert_eq!(refresh.data(), 86_400_u32.to_be_bytes());
    assert!(scene.says(anonymous(11).association(5, &[])).is_none());
}

// spec: DHCP-11
#[test]
fn the_guests_name_is_told_to_who_asks_for_it_or_tells_its_own() {
    let name = |domain: bool, ask: Ask| {
        let mut config = config();
        config.hostname = Some("web".to_owned());
        if !domain {
            config.search.clear();
        }
        let reply = Scene(Engine::new(config).unwrap()).says(ask).unwrap();
        match reply.opts().get(OptionCode::ClientFqdn) {
            Some(DhcpOption::Unknown(name)) => Some(name.data().to_vec()),
            _ => None,
        }
    };
    let full = b"\x03web\x02ns\x03svc\x07cluster\x05local\0";
    assert_eq!(name(true, ask(1).option(6, &[0, 39])), Some([&[4][..], full].concat()));
    // It wants its own name entered somewhere.
    assert_eq!(name(true, ask(1).option(39, b"\x01\x05guest")), Some([&[6][..], full].concat()));
    assert_eq!(name(false, ask(1).option(39, b"\0\x05guest")), Some(b"\x04\x03web".to_vec()), "partial");
    assert_eq!(name(true, ask(1).option(6, &[0, 23])), None);
}

#[test]
fn messages_that_break_the_rules_or_mean_another_server_get_nothing() {
    let mut scene = scene();
    let long = vec![1; 131];
    for broken in [
        anonymous(1).association(5, &[]),
        anonymous(1).option(1, &long).association(5, &[]),
        ask(1).of_server(&SERVER_ID).association(5, &[]),
        ask(3).association(5, &[]),
        ask(6).of_server(&SERVER_ID).association(5, &[]),
        ask(7).of_server(&SERVER_ID),
        ask(12),
        Ask { to: GUEST_LOCAL, ..ask(1) },
        Ask { wire: vec![1, 1, 2, 3, 0, 1, 0, 9, 1], to: SERVERS },
    ] {
        assert!(scene.says(broken).is_none());
    }
    assert_eq!(scene.0.snapshot().ignored.malformed, 9);
    assert!(scene.says(ask(5).of_server(&[0, 3, 0, 1, 9, 9, 9, 9, 9, 9]).association(5, &[ADDRESS])).is_none());
    assert_eq!(scene.0.snapshot().ignored.other_server, 1);
}

#[test]
fn a_hundred_associations_do_not_make_a_large_answer() {
    let many = (0..100).fold(ask(1), |ask, id| ask.association(id, &[]));
    let reply = scene().says(many).unwrap();
    assert!(associations(&reply).len() <= 8);
}
