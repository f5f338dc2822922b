//! What the engine has seen, for `status` and `explain`. Bounded, whatever the guest sends.

use std::time::Duration;

use terms::MacAddr;

/// Most clients that are remembered by their Ethernet addresses.
const KEPT_CLIENTS: usize = 8;
/// Most bytes kept of anything the guest calls itself.
const KEPT_BYTES: usize = 64;

/// What the engine has seen so far. Times are those the caller passed in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observations {
    /// DHCPv4.
    pub v4: V4Observations,
    /// DHCPv6.
    pub v6: V6Observations,
    /// Router solicitations that were received.
    pub router_solicitations: u64,
    /// Router advertisements that were sent.
    pub router_advertisements: u64,
    /// When the last advertisement was sent.
    pub advertised_at: Option<Duration>,
    /// The gateway behind a virtual router.
    pub gateway: GatewayState,
    /// Ethernet addresses that sent DHCP messages and have not released since, with the time of the last; at most 8, the
    /// most recent.
    pub clients: Vec<(MacAddr, Duration)>,
    /// What was not answered.
    pub ignored: Ignored,
}

impl Observations {
    pub(crate) fn note_client(&mut self, now: Duration, mac: MacAddr, has_released: bool) {
        self.clients.retain(|(known, _)| *known != mac);
        if !has_released {
            self.clients.push((mac, now));
        }
        let surplus = self.clients.len().saturating_sub(KEPT_CLIENTS);
        self.clients.drain(..surplus);
    }
}

/// DHCPv4 as seen by its server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V4Observations {
    /// Messages received.
    pub received: u64,
    /// Messages answered: offers, acknowledgements, refusals.
    pub answered: u64,
    /// The last DISCOVER.
    pub discover: Option<Client>,
    /// The lease as acknowledged last; `None` before that and after RELEASE or DECLINE.
    pub lease: Option<Lease>,
    /// Acknowledgements sent.
    pub acks: u64,
    /// Refusals sent.
    pub naks: u64,
    /// Names of the search list for which the last answer that carried the list had no room.
    pub search_left_out: usize,
    /// When the guest last released its address.
    pub released_at: Option<Duration>,
    /// When the guest last reported that another host uses its address (DECLINE).
    pub declined_at: Option<Duration>,
}

/// DHCPv6 as seen by its server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct V6Observations {
    /// Messages received.
    pub received: u64,
    /// Messages answered.
    pub answered: u64,
    /// The last Solicit.
    pub solicit: Option<Client>,
    /// The lease as granted last; `None` before that and after Release or Decline.
    pub lease: Option<Lease>,
    /// Replies that granted or confirmed the address.
    pub grants: u64,
    /// Messages that named an address which is not the guest's, and were told so.
    pub refusals: u64,
    /// Names of the search list for which the last answer that carried the list had no room.
    pub search_left_out: usize,
    /// When the guest last released its address.
    pub released_at: Option<Duration>,
    /// When the guest last reported that another host uses its address (DECLINE).
    pub declined_at: Option<Duration>,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// When.
    pub at: Duration,
    /// Client identifier (option 61) or DUID, at most 64 bytes of it; empty if none was given.
    pub id: Vec<u8>,
    /// Vendor class (option 60), at most 64 bytes of it, printable characters only.
    pub vendor_class: String,
}

impl Client {
    pub(crate) fn new(at: Duration, id: &[u8], vendor_class: &[u8]) -> Self {
        let printable = |byte: &u8| (0x20..0x7f).contains(byte);
        let vendor_class = vendor_class.iter().copied().filter(printable).take(KEPT_BYTES).map(char::from).collect();
        Self { at, id: id.iter().copied().take(KEPT_BYTES).collect(), vendor_class }
    }
}

/// A lease the guest holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// When it was granted or renewed last.
    pub acked_at: Duration,
    /// When it ends; `None` is never.
    pub expires_at: Option<Duration>,
    /// How the guest asked.
    pub phase: Phase,
    /// Client identifier or DUID, at most 64 bytes of it.
    pub client_id: Vec<u8>,
}

/// How a lease was asked for (RFC 2131 §4.3.2; RFC 8415 §18.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// After an offer: SELECTING; Request.
    Selecting,
    /// Without an offer: rapid commit (RFC 4039; RFC 8415 §21.14).
    RapidCommit,
    /// After a reboot, for an address remembered: INIT-REBOOT; Confirm.
    Rebooting,
    /// To the server that granted it: RENEWING; Renew.
    Renewing,
    /// To any server: REBINDING; Rebind.
    Rebinding,
}

/// What is known of the gateway behind a virtual router.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GatewayState {
    /// Not asked for yet, or there is no virtual router.
    #[default]
    Unused,
    /// Asked, no answer yet.
    Resolving,
    /// It answered.
    Reachable {
        /// Its Ethernet address.
        mac: MacAddr,
        /// When it answered last.
        confirmed_at: Duration,
    },
    /// It did not answer.
    Unreachable,
}

/// Frames that got no answer, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Not from the guest's Ethernet address, or speaking for another client.
    pub not_our_client: u64,
    /// Cut short, of a kind that is not served, or breaking the protocol's rules.
    pub malformed: u64,
    /// Meant for another server.
    pub other_server: u64,
    /// More than the engine answers in a second.
    pub over_budget: u64,
}
