//! What one NIC's guest is told, and the check that nothing of it is too large or impossible to send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use terms::{Ipv4Network, Ipv6Network, MacAddr, Mtu};

use crate::frame;
use crate::names::DomainName;

/// Largest packet the engine builds.
const ETHERNET_MTU: u16 = 1500;

/// Everything the engine of one NIC knows. Families that are `None` are not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The guest's Ethernet address, and the only client that is answered unless `any_client` is set.
    pub guest_mac: MacAddr,
    /// Whether clients of every Ethernet address are answered, each at its own: for a link on which the guest is alone.
    pub any_client: bool,
    /// Ethernet source of what the engine sends to the guest; its DHCPv6 server identifier derives from it, so it should
    /// stay the same for the life of the guest.
    pub service_mac: MacAddr,
    /// IPv6 source of DHCPv6 and of questions to the gateway behind a virtual router; those come from the guest's
    /// Ethernet address, the one the network surely delivers to. Made of `service_mac` unless set.
    pub service_link_local: Ipv6Addr,
    /// Host name for the guest.
    pub hostname: Option<String>,
    /// Domain for the guest; the longest of `search` if absent.
    pub domain: Option<DomainName>,
    /// Search list.
    pub search: Vec<DomainName>,
    /// Name servers of both families.
    pub dns: Vec<IpAddr>,
    /// Time servers of both families.
    pub ntp: Vec<IpAddr>,
    /// Largest packet on the link.
    pub mtu: Option<Mtu>,
    /// DHCPv4.
    pub v4: Option<V4Config>,
    /// DHCPv6 and router advertisements.
    pub v6: Option<V6Config>,
}

/// What the guest is told by DHCPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V4Config {
    /// The guest's address with the prefix length it shall configure.
    pub address: Ipv4Network,
    /// The server's identity and the source of its packets: the gateway where there is one.
    pub server_id: Ipv4Addr,
    /// Default gateway.
    pub router: Option<Ipv4Addr>,
    /// Other routes; a gateway of 0.0.0.0 means on-link. When there are any, or when the gateway is not within
    /// `address`, all routes with the default last go into option 121.
    pub routes: Vec<(Ipv4Network, Ipv4Addr)>,
    /// Lease time.
    pub lease: Lifetime,
    /// Boot file name: header field and option 67.
    pub boot_file: Option<String>,
    /// Boot server: option 66 and `sname`; also `siaddr` when it is an IPv4 address.
    pub boot_server: Option<String>,
    /// Options 224 to 254 with their bytes.
    pub private_options: Vec<(u8, Vec<u8>)>,
}

/// What the guest is told by DHCPv6 and router advertisements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V6Config {
    /// The guest's address.
    pub address: Ipv6Addr,
    /// How long the address is preferred.
    pub preferred: Lifetime,
    /// How long the address is valid.
    pub valid: Lifetime,
    /// Who is the default router.
    pub router: Router,
    /// Lifetime of the default route in seconds; ignored without router.
    pub router_lifetime_seconds: u16,
    /// Prefixes announced, never for autonomous configuration.
    pub prefixes: Vec<Prefix>,
    /// Networks behind the router in addition to its default route (RFC 4191); ignored without router.
    pub routes: Vec<Ipv6Network>,
    /// URL to boot from (RFC 5970 option 59).
    pub boot_file_url: Option<String>,
}

/// The default router that advertisements speak for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Router {
    /// A real one, which answers neighbour solicitations itself.
    Gateway {
        /// Source of the advertisements.
        link_local: Ipv6Addr,
        /// Its Ethernet address, told in the advertisements; `None` leaves it to neighbour discovery.
        link_layer: Option<MacAddr>,
    },
    /// An address of the engine's own in front of a gateway that is only known by a global address.
    Virtual {
        /// Source of the advertisements; the engine answers solicitations for it with the gateway's Ethernet address.
        link_local: Ipv6Addr,
        /// The gateway whose Ethernet address is resolved.
        gateway: Ipv6Addr,
    },
    /// None: advertisements only say that there is DHCPv6, MTU and prefixes.
    None,
}

/// A prefix of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix.
    pub network: Ipv6Network,
    /// Whether its addresses are neighbours.
    pub on_link: bool,
}

/// How long something lasts; whole seconds as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// For ever.
    Infinite,
    /// So many seconds.
    Seconds(u32),
}

impl Lifetime {
    /// The seconds as DHCP and router advertisements write them: all ones is for ever (RFC 2131 §3.3, RFC 8415 §7.7).
    #[must_use]
    pub fn wire(self) -> u32 {
        match self {
            Self::Infinite => u32::MAX,
            Self::Seconds(seconds) => seconds,
        }
    }

    /// The given percentage of it; for ever stays for ever.
    pub(crate) fn percent(self, percent: u64) -> u32 {
        match self.wire() {
            u32::MAX => u32::MAX,
            seconds => u32::try_from(u64::from(seconds) * percent / 100).unwrap_or(u32::MAX),
        }
    }
}

impl Default for V4Config {
    /// A day's lease of nothing: the address must be set.
    fn default() -> Self {
        Self {
            address: Ipv4Network::from(Ipv4Addr::UNSPECIFIED),
            server_id: Ipv4Addr::UNSPECIFIED,
            router: None,
            routes: Vec::new(),
            lease: Lifetime::Seconds(86_400),
            boot_file: None,
            boot_server: None,
            private_options: Vec::new(),
        }
    }
}

/// Why a configuration is refused; the message names the field and its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ConfigError {
    field: &'static str,
    problem: String,
}

pub(crate) fn refuse(field: &'static str, problem: impl Into<String>) -> Result<(), ConfigError> {
    Err(ConfigError { field, problem: problem.into() })
}

fn at_most(field: &'static str, count: usize, most: usize) -> Result<(), ConfigError> {
    if count <= most { Ok(()) } else { refuse(field, format!("{count} given, at most {most} can be sent")) }
}

pub(crate) fn text(field: &'static str, value: Option<&str>) -> Result<(), ConfigError> {
    let Some(value) = value else { return Ok(()) };
    if (1..=255).contains(&value.len()) && value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Ok(());
    }
    let shown: String = value.chars().take(80).collect();
    refuse(field, format!("{shown:?} must be 1 to 255 printable ASCII characters"))
}

impl Config {
    /// A configuration that serves nothing yet.
    #[must_use]
    pub fn new(guest_mac: MacAddr, service_mac: MacAddr) -> Self {
        let (hostname, domain, mtu, v4, v6) = (None, None, None, None, None);
        let (search, dns, ntp) = (Vec::new(), Vec::new(), Vec::new());
        let service_link_local = frame::link_local(service_mac);
        let any_client = false;
        Self { guest_mac, any_client, service_mac, service_link_local, hostname, domain, search, dns, ntp, mtu, v4, v6 }
    }

    /// The domain told to the guest.
    pub(crate) fn domain(&self) -> Option<&DomainName> {
        self.domain.as_ref().or_else(|| self.search.iter().max_by_key(|name| name.as_str().len()))
    }

    /// Whether frames from this Ethernet address are answered.
    pub(crate) fn is_client(&self, source: [u8; 6]) -> bool {
        let [first, ..] = source;
        let is_unicast = first & 1 == 0 && source != [0; 6] && source != self.service_mac.bytes();
        source == self.guest_mac.bytes() || (self.any_client && is_unicast)
    }

    /// Bytes of IPv4 packets the link carries, as far as the engine makes use of it.
    pub(crate) fn ipv4_packet_bytes(&self) -> u16 {
        self.mtu.and_then(|mtu| u16::try_from(mtu.value()).ok()).map_or(ETHERNET_MTU, |mtu| mtu.min(ETHERNET_MTU))
    }

    /// Bytes behind the header of an IPv6 packet; a link below IPv6's least MTU has no IPv6 and is not minded.
    pub(crate) fn ipv6_payload_bytes(&self) -> usize {
        usize::from(self.ipv4_packet_bytes().max(1280)) - 40
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.guest_mac == self.service_mac {
            return refuse("service_mac", format!("{} is the guest's own", self.service_mac));
        }
        if !self.service_link_local.is_unicast_link_local() {
            return refuse("service_link_local", format!("{} is not within fe80::/10", self.service_link_local));
        }
        self.check_parameters()?;
        self.v4.as_ref().map_or(Ok(()), V4Config::check)?;
        self.v6.as_ref().map_or(Ok(()), V6Config::check)
    }

    /// Checks what does not depend on one guest's addresses.
    pub(crate) fn check_without_guest(&self) -> Result<(), ConfigError> {
        self.check_parameters()?;
        self.v4.as_ref().map_or(Ok(()), V4Config::check_parameters)
    }

    fn check_parameters(&self) -> Result<(), ConfigError> {
        text("hostname", self.hostname.as_deref())?;
        at_most("search", self.search.len(), 32)?;
        at_most("dns", self.dns.len(), 16)?;
        at_most("ntp", self.ntp.len(), 16)
    }
}

impl V4Config {
    fn check(&self) -> Result<(), ConfigError> {
        host("v4.address", self.address.ip())?;
        host("v4.server_id", self.server_id)?;
        if self.server_id == self.address.ip() {
            return refuse("v4.server_id", format!("{} is the guest's own", self.server_id));
        }
        self.private_options.iter().try_for_each(|(code, _)| match code {
            224..=254 => Ok(()),
            _ => refuse("v4.private_options", format!("option {code} is not from 224 to 254")),
        })?;
        self.check_parameters()
    }

    fn check_parameters(&self) -> Result<(), ConfigError> {
        self.router.map_or(Ok(()), |router| host("v4.router", router))?;
        if self.lease.wire() == 0 {
            return refuse("v4.lease", "must be at least one second");
        }
        // 256 routes are at most 2,304 bytes: more than any packet of an Ethernet holds.
        at_most("v4.routes", self.routes.len(), 256)?;
        if self.router.is_some() && self.routes.iter().any(|(network, _)| network.prefix() == 0) {
            return refuse("v4.routes", "holds a default route, but v4.router gives one too");
        }
        text("v4.boot_file", self.boot_file.as_deref())?;
        text("v4.boot_server", self.boot_server.as_deref())?;
        self.private_options.iter().try_for_each(|(code, value)| match value.len() {
            1..=255 => Ok(()),
            bytes => refuse("v4.private_options", format!("option {code}: {bytes} bytes, must be 1 to 255")),
        })
    }
}

fn host(field: &'static str, address: Ipv4Addr) -> Result<(), ConfigError> {
    let bad = address.is_unspecified() || address.is_multicast() || address.is_broadcast();
    if bad || address.is_loopback() { refuse(field, format!("{address} is no host's address")) } else { Ok(()) }
}

impl V6Config {
    fn check(&self) -> Result<(), ConfigError> {
        let address = self.address;
        let local = address.is_unicast_link_local();
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() || local {
            return refuse("v6.address", format!("{address} is no host's global address"));
        }
        if self.valid.wire() == 0 || self.preferred.wire() > self.valid.wire() {
            return refuse("v6.valid", "must be at least one second and no shorter than v6.preferred");
        }
        match self.router {
            Router::Gateway { link_local, .. } | Router::Virtual { link_local, .. }
                if !link_local.is_unicast_link_local() =>
            {
                return refuse("v6.router.link_local", format!("{link_local} is not within fe80::/10"));
            }
            Router::Virtual { gateway, .. } if gateway.is_multicast() || gateway.is_unspecified() => {
                return refuse("v6.router.gateway", format!("{gateway} is no host's address"));
            }
            _ => {}
        }
        at_most("v6.prefixes", self.prefixes.len(), 16)?;
        at_most("v6.routes", self.routes.len(), 16)?;
        text("v6.boot_file_url", self.boot_file_url.as_deref())
    }
}
