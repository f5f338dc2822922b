//! What a server's messages hold, whichever server decided about them.

use super::codes;
use super::message::{BROADCAST_FLAG, Message, Reply};
use super::parameters;
use crate::config::{Config, Lifetime, V4Config};

/// Builds the answers to one message, with what one client is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answers<'a> {
    pub(crate) config: &'a Config,
    pub(crate) v4: &'a V4Config,
    pub(crate) message: &'a Message,
}

impl Answers<'_> {
    /// An OFFER or ACK with everything in it.
    pub(crate) fn lease(&self, kind: u8) -> Reply {
        let mut reply = self.reply(kind);
        reply.yiaddr = Some(self.v4.address.ip());
        if kind == codes::ACK {
            reply.ciaddr = Some(self.message.ciaddr);
        }
        let mut seconds = |code, seconds: u32| reply.options.push((code, seconds.to_be_bytes().to_vec()));
        seconds(codes::LEASE_SECONDS, self.v4.lease.wire());
        if self.v4.lease != Lifetime::Infinite {
            seconds(codes::RENEWAL_SECONDS, self.v4.lease.percent(50));
            seconds(codes::REBINDING_SECONDS, self.v4.lease.wire().saturating_sub(self.v4.lease.wire().div_ceil(8)));
        }
        self.add_parameters(&mut reply);
        reply
    }

    /// Parameters without address and lease (RFC 2131 §4.3.5).
    pub(crate) fn inform(&self) -> Reply {
        let mut reply = self.reply(codes::ACK);
        reply.ciaddr = Some(self.message.ciaddr);
        self.add_parameters(&mut reply);
        reply
    }

    /// A refusal that says why.
    pub(crate) fn nak(&self, why: String) -> Reply {
        let mut reply = self.reply(codes::NAK);
        reply.options.push((codes::MESSAGE, why.into_bytes()));
        reply
    }

    /// What every answer has: type, server, and the client's own identifier (RFC 6842).
    fn reply(&self, kind: u8) -> Reply {
        let mut options =
            vec![(codes::MESSAGE_TYPE, vec![kind]), (codes::SERVER_ID, self.v4.server_id.octets().to_vec())];
        if let Some(id) = self.message.options.bytes(codes::CLIENT_ID).filter(|id| id.len() <= 255) {
            options.push((codes::CLIENT_ID, id.to_vec()));
        }
        let (xid, flags, chaddr) = (self.message.xid, self.message.flags & BROADCAST_FLAG, self.message.chaddr);
        Reply { xid, flags, chaddr, options, ..Reply::default() }
    }

    fn add_parameters(&self, reply: &mut Reply) {
        let addresses = self.message.options.bytes(codes::PARAMETER_LIST);
        let (options, search) = parameters::requested(self.config, self.v4, addresses);
        reply.options.extend(options);
        reply.search = search;
        // Firmware reads the header's fields, not the options.
        let bytes = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().to_vec()).unwrap_or_default();
        reply.file = bytes(&self.v4.boot_file);
        reply.sname = bytes(&self.v4.boot_server);
        reply.siaddr = self.v4.boot_server.as_ref().and_then(|server| server.parse().ok());
    }
}
