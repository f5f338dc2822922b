//! The engine of one NIC: tells frames apart and keeps deadlines.

use std::time::Duration;

use terms::MacAddr;

use crate::Frame;
use crate::config::{Config, ConfigError};
use crate::frame::{self, Content, Icmp6};
use crate::neighbour::{self, Neighbour};
use crate::observations::Observations;
use crate::rate_limit::RateLimit;
use crate::router::{self, AdvertisementTimer};
use crate::{v4, v6};

/// Serves exactly one guest NIC. `now` is any clock that does not run backwards, the same in every call.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    rate_limit: RateLimit,
    timer: AdvertisementTimer,
    neighbour: Neighbour,
    seen: Observations,
}

impl Engine {
    /// Checks the configuration and starts with nothing seen.
    ///
    /// # Errors
    /// When a value of the configuration cannot be sent or contradicts another.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let (rate_limit, timer, neighbour) = Default::default();
        Ok(Self { config, rate_limit, timer, neighbour, seen: Observations::default() })
    }

    /// Takes one frame from the service tap and returns the frames to write to it.
    #[must_use]
    pub fn on_frame(&mut self, now: Duration, frame: &[u8]) -> Vec<Frame> {
        let Some(received) = frame::parse(frame) else {
            self.seen.ignored.malformed += 1;
            return Vec::new();
        };
        let source = received.source;
        let is_guest = source == self.config.guest_mac.bytes();
        match received.content {
            // The only message of another sender that is ever used: the gateway's answer to our own question.
            Content::Icmp6(message) if !is_guest && message.kind == neighbour::ADVERTISEMENT => {
                self.neighbour.on_advertisement(now, &self.config, source, &message)
            }
            _ if !self.config.is_client(source) => {
                self.seen.ignored.not_our_client += 1;
                Vec::new()
            }
            _ if !self.rate_limit.spend(now) => {
                self.seen.ignored.over_budget += 1;
                Vec::new()
            }
            content => self.on_content(now, source, content),
        }
    }

    /// When [`Engine::on_deadline`] wants to be called; `None` is never. It may change with every call.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        [self.timer.due(), self.neighbour.deadline()].into_iter().flatten().min()
    }

    /// Does what is due at `now` and returns the frames to write; calling it early does nothing.
    #[must_use]
    pub fn on_deadline(&mut self, now: Duration) -> Vec<Frame> {
        let mut frames = self.neighbour.on_deadline(now, &self.config);
        if self.timer.due().is_some_and(|due| due <= now) {
            frames.extend(self.advertise(now));
        }
        frames
    }

    /// What has been seen so far.
    #[must_use]
    pub fn snapshot(&self) -> Observations {
        Observations { gateway: self.neighbour.state(), ..self.seen.clone() }
    }

    fn on_content(&mut self, now: Duration, source: [u8; 6], content: Content<'_>) -> Vec<Frame> {
        match content {
            Content::Udp4(datagram) if datagram.destination_port == v4::SERVER_PORT => {
                let received = self.seen.v4.received;
                let answer = v4::answer(now, &self.config, source, &datagram, &mut self.seen);
                self.seen.v4.answered += u64::from(answer.is_some());
                self.note_client(now, source, self.seen.v4.received > received);
                answer.into_iter().collect()
            }
            Content::Udp6(datagram) if datagram.destination_port == v6::SERVER_PORT => {
                if let Some(v6) = &self.config.v6 {
                    self.timer.start(now, v6);
                }
                let received = self.seen.v6.received;
                let answer = v6::answer(now, &self.config, source, &datagram, &mut self.seen);
                self.seen.v6.answered += u64::from(answer.is_some());
                self.note_client(now, source, self.seen.v6.received > received);
                answer.into_iter().collect()
            }
            Content::Icmp6(message) if message.kind == router::SOLICITATION => {
                self.on_router_solicitation(now, &message)
            }
            Content::Icmp6(message) if message.kind == neighbour::SOLICITATION => {
                self.neighbour.on_solicitation(now, &self.config, &message)
            }
            Content::Udp4(_) | Content::Udp6(_) | Content::Icmp6(_) => {
                self.seen.ignored.malformed += 1;
                Vec::new()
            }
        }
    }

    /// Remembers who sends DHCP messages; one that has just given its address back is forgotten.
    fn note_client(&mut self, now: Duration, source: [u8; 6], is_dhcp: bool) {
        let has_released = [self.seen.v4.released_at, self.seen.v6.released_at].contains(&Some(now));
        if let Some(mac) = MacAddr::new(source).filter(|_| is_dhcp) {
            self.seen.note_client(now, mac, has_released);
        }
    }

    fn on_router_solicitation(&mut self, now: Duration, message: &Icmp6<'_>) -> Vec<Frame> {
        if !router::is_valid(message) {
            self.seen.ignored.malformed += 1;
            return Vec::new();
        }
        self.seen.router_solicitations += 1;
        self.advertise(now).into_iter().collect()
    }

    fn advertise(&mut self, now: Duration) -> Option<Frame> {
        let v6 = self.config.v6.as_ref()?;
        self.timer.restart(now, v6);
        self.seen.router_advertisements += 1;
        self.seen.advertised_at = Some(now);
        Some(router::advertisement(&self.config, v6))
    }
}
