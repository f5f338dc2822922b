//! The virtual router: answers solicitations for its link-local address with the real gateway's Ethernet address.
//!
//! *Flow.* At the guest's first question the gateway is asked by multicast, from a link-local of the service's own and the guest's Ethernet address; its
//! answer is passed on and kept. While the guest keeps asking, the gateway is asked again every half minute, sooner when
//! the guest asks again, by unicast; a new Ethernet address is told to the guest unasked.
//!
//! *Guarantees.* One entry, one waiting question; never more than one solicitation to the gateway a second.
//!
//! *Assumptions.* Advertisements of the gateway reach the service tap, no others do.

use std::net::Ipv6Addr;
use std::time::Duration;

use terms::MacAddr;

use crate::Frame;
use crate::bytes::Bytes;
use crate::config::{Config, Router};
use crate::frame::{self, Icmp6, Link};
use crate::observations::GatewayState;

/// ICMPv6 types.
pub(crate) const SOLICITATION: u8 = 135;
pub(crate) const ADVERTISEMENT: u8 = 136;
/// Options.
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Flags of an advertisement: router, solicited, override (RFC 4861 §4.4).
const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// RETRANS_TIMER, MAX_MULTICAST_SOLICIT and REACHABLE_TIME of RFC 4861 §10.
const RETRANSMIT: Duration = Duration::from_secs(1);
const TRIES: u8 = 3;
const FRESH: Duration = Duration::from_secs(30);
/// A guest that asks again doubts the answer it has: an entry older than this is checked (DELAY_FIRST_PROBE_TIME).
const DOUBTED: Duration = Duration::from_secs(5);
/// A guest that has not asked for so long does not use the route.
const IDLE: Duration = Duration::from_secs(120);

/// The addresses of a virtual router.
#[derive(Debug, Clone, Copy)]
struct Route {
    link_local: Ipv6Addr,
    gateway: Ipv6Addr,
}

impl Route {
    fn of(config: &Config) -> Option<Self> {
        match config.v6.as_ref()?.router {
            Router::Virtual { link_local, gateway } => Some(Self { link_local, gateway }),
            Router::Gateway { .. } | Router::None => None,
        }
    }
}

/// A question to the gateway that is under way.
#[derive(Debug, Clone, Copy)]
struct Question {
    tries: u8,
    again_at: Duration,
}

/// The neighbour entry of the real gateway.
#[derive(Debug, Default)]
pub(crate) struct Neighbour {
    known: Option<(MacAddr, Duration)>,
    question: Option<Question>,
    is_unreachable: bool,
    /// Who asked while the answer was not known; the last one is enough, the guest is alone.
    waiting: Option<Ipv6Addr>,
    asked_at: Option<Duration>,
}

impl Neighbour {
    pub(crate) fn state(&self) -> GatewayState {
        match (self.known, self.question) {
            (Some((mac, confirmed_at)), _) => GatewayState::Reachable { mac, confirmed_at },
            (None, Some(_)) => GatewayState::Resolving,
            (None, None) if self.is_unreachable => GatewayState::Unreachable,
            (None, None) => GatewayState::Unused,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        match (self.question, self.known, self.asked_at) {
            (Some(question), _, _) => Some(question.again_at),
            (None, Some((_, confirmed_at)), Some(asked_at)) => {
                confirmed_at.checked_add(FRESH).filter(|due| due.saturating_sub(asked_at) < IDLE)
            }
            _ => None,
        }
    }

    /// The guest solicits; answered if it is for the virtual router.
    pub(crate) fn on_solicitation(&mut self, now: Duration, config: &Config, message: &Icmp6<'_>) -> Vec<Frame> {
        let target = Message::parse(message).map(|message| message.target);
        let Some(route) = Route::of(config).filter(|route| target == Some(route.link_local)) else { return Vec::new() };
        self.asked_at = Some(now);
        let Some((mac, confirmed_at)) = self.known else {
            self.waiting = Some(message.source);
            return if self.question.is_some() { Vec::new() } else { vec![self.ask(now, config, route)] };
        };
        let mut frames = vec![answer(config, route, mac, Some(message.source))];
        if self.question.is_none() && now.saturating_sub(confirmed_at) >= DOUBTED {
            frames.push(self.ask(now, config, route));
        }
        frames
    }

    /// Handles an advertisement; it counts only as the solicited answer to an open solicitation.
    pub(crate) fn on_advertisement(
        &mut self,
        now: Duration,
        config: &Config,
        sender: [u8; 6],
        message: &Icmp6<'_>,
    ) -> Vec<Frame> {
        let Some(route) = Route::of(config).filter(|_| self.question.is_some()) else { return Vec::new() };
        let answer = Message::parse(message).filter(|m| m.target == route.gateway && m.flags & SOLICITED != 0);
        let mac = answer.and_then(|answer| MacAddr::new(answer.link_layer.unwrap_or(sender)));
        mac.map(|mac| self.learn(now, config, route, mac)).unwrap_or_default()
    }

    pub(crate) fn on_deadline(&mut self, now: Duration, config: &Config) -> Vec<Frame> {
        let Some(route) = Route::of(config).filter(|_| self.deadline().is_some_and(|due| due <= now)) else {
            return Vec::new();
        };
        if self.question.is_some_and(|question| question.tries >= TRIES) {
            self.question = None;
            // No answer from the address it had: the gateway may have moved, so resolve it again by multicast.
            if self.known.take().is_none() {
                self.is_unreachable = true;
                self.waiting = None;
                return Vec::new();
            }
        }
        vec![self.ask(now, config, route)]
    }

    fn learn(&mut self, now: Duration, config: &Config, route: Route, mac: MacAddr) -> Vec<Frame> {
        let has_moved = self.asked_at.is_some() && self.known.is_none_or(|(known, _)| known != mac);
        self.known = Some((mac, now));
        self.question = None;
        self.is_unreachable = false;
        match self.waiting.take() {
            Some(asker) => vec![answer(config, route, mac, Some(asker))],
            None if has_moved => vec![answer(config, route, mac, None)],
            None => Vec::new(),
        }
    }

    /// Solicits the gateway: by unicast where its Ethernet address is known, else by multicast. The question carries the
    /// guest's Ethernet address: a macvlan, or a switch that knows its ports, delivers an answer to no other.
    fn ask(&mut self, now: Duration, config: &Config, route: Route) -> Frame {
        let tries = self.question.map_or(0, |question| question.tries).saturating_add(1);
        self.question = Some(Question { tries, again_at: now.saturating_add(RETRANSMIT) });
        let group = frame::solicited_node(route.gateway);
        let (to, destination) = match self.known {
            Some((mac, _)) => (route.gateway, mac.bytes()),
            None => (group, frame::multicast_mac(group)),
        };
        let mut body = vec![0; 4];
        body.extend(route.gateway.octets());
        body.extend([SOURCE_LINK_LAYER, 1]);
        body.extend(config.guest_mac.bytes());
        Link { source: config.guest_mac, destination }.icmp6(config.service_link_local, to, SOLICITATION, &body)
    }
}

/// An advertisement of the virtual router: to who asked, or unasked to all. A question from `::` is a check for
/// duplicates and is answered to all (RFC 4861 §7.2.4).
fn answer(config: &Config, route: Route, mac: MacAddr, asker: Option<Ipv6Addr>) -> Frame {
    let asker = asker.filter(|asker| !asker.is_unspecified());
    let solicited = if asker.is_some() { SOLICITED } else { 0 };
    let mut body = vec![ROUTER | OVERRIDE | solicited, 0, 0, 0];
    body.extend(route.link_local.octets());
    body.extend([TARGET_LINK_LAYER, 1]);
    body.extend(mac.bytes());
    let link = Link { source: config.service_mac, destination: config.guest_mac.bytes() };
    link.icmp6(route.link_local, asker.unwrap_or(ALL_NODES), ADVERTISEMENT, &body)
}

/// The body of a solicitation or an advertisement.
struct Message {
    flags: u8,
    target: Ipv6Addr,
    link_layer: Option<[u8; 6]>,
}

impl Message {
    /// `None` when it breaks a rule of RFC 4861 §7.1.
    fn parse(message: &Icmp6<'_>) -> Option<Self> {
        let mut bytes = Bytes::new(message.body);
        let [flags, ..] = bytes.array::<4>()?;
        let target = bytes.array::<16>()?.into();
        let mut link_layer = None;
        while !bytes.is_empty() {
            let kind = bytes.u8()?;
            let length = usize::from(bytes.u8()?) * 8;
            let mut value = Bytes::new(bytes.take(length.checked_sub(2)?)?);
            if kind == TARGET_LINK_LAYER {
                link_layer = value.array();
            }
        }
        (message.hop_limit == 255 && message.code == 0).then_some(Self { flags, target, link_layer })
    }
}
