//! The engine of one NIC: tells frames apart and keeps deadlines.

use std::time::Duration;

use crate::Frame;
use crate::budget::Budget;
use crate::config::{Config, ConfigError};
use crate::frame::{self, Content};
use crate::observations::Observations;
use crate::v4;

/// Serves exactly one guest NIC. `now` is any clock that does not run backwards, the same in every call.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    budget: Budget,
    seen: Observations,
}

impl Engine {
    /// Checks the configuration and starts with nothing seen.
    ///
    /// # Errors
    /// When a value of the configuration cannot be sent or contradicts another.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { config, budget: Budget::default(), seen: Observations::default() })
    }

    /// Takes one frame from the service tap and returns the frames to write to it.
    #[must_use]
    pub fn on_frame(&mut self, now: Duration, frame: &[u8]) -> Vec<Frame> {
        let Some(received) = frame::parse(frame) else {
            self.seen.ignored.unusable += 1;
            return Vec::new();
        };
        if received.source != self.config.guest_mac.bytes() {
            self.seen.ignored.strangers += 1;
            return Vec::new();
        }
        if !self.budget.spend(now) {
            self.seen.ignored.over_budget += 1;
            return Vec::new();
        }
        match received.content {
            Content::Udp4(datagram) if datagram.destination_port == v4::SERVER_PORT => {
                v4::answer(now, &self.config, &datagram, &mut self.seen).into_iter().collect()
            }
            _ => {
                self.seen.ignored.unusable += 1;
                Vec::new()
            }
        }
    }

    /// When [`Engine::on_deadline`] wants to be called; `None` is never. It may change with every call.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        None
    }

    /// Does what is due at `now` and returns the frames to write; calling it early does nothing.
    #[must_use]
    pub fn on_deadline(&mut self, _now: Duration) -> Vec<Frame> {
        Vec::new()
    }

    /// Serves another configuration from now on; what has been seen stays.
    ///
    /// # Errors
    /// As [`Engine::new`]; the old configuration then stays in force.
    pub fn reconfigure(&mut self, _now: Duration, config: Config) -> Result<(), ConfigError> {
        config.check()?;
        self.config = config;
        Ok(())
    }

    /// What has been seen so far.
    #[must_use]
    pub fn observations(&self) -> &Observations {
        &self.seen
    }
}
