//! The fields of the file as they are written, and what they become.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use dhcp::boot::BootRule;
use dhcp::pool::{ClientId, Range, Reservation, Subnet, WhichClient};
use dhcp::{Config, DomainName, Lifetime, V4Config};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use terms::{IfName, Invalid, Ipv4Network, MacAddr, Mtu};

use super::Conf;

/// Where leases are kept unless the file says otherwise.
const LEASES: &str = "/var/lib/tapvisor-dhcp";
/// Seconds of a lease unless the file says otherwise.
const LEASE_SECONDS: u32 = 3600;
const HTTP_PORT: u16 = 80;
/// How long hosts are waited for that use an address: unless the file says otherwise, and at most. A client waits for an offer a
/// second or more.
const PROBE_MILLISECONDS: u64 = 500;
const MOST_PROBE_MILLISECONDS: u64 = 5000;

/// Options that the server computes (RFC 2132 and those of relay agents): a value in the file would contradict it.
const OWN_OPTIONS: [u8; 22] = [0, 1, 3, 6, 12, 15, 26, 28, 42, 50, 51, 52, 53, 54, 57, 58, 59, 61, 82, 119, 121, 255];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct File {
    interface: IfName,
    address: Option<Ipv4Addr>,
    leases: Option<PathBuf>,
    probe_milliseconds: Option<u64>,
    #[serde(default)]
    proxy: bool,
    subnets: Option<Vec<SubnetFields>>,
    #[serde(default)]
    boot: Vec<BootFields>,
    tftp: Option<TftpFields>,
    http: Option<HttpFields>,
    metrics: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SubnetFields {
    network: Ipv4Network,
    #[serde(default)]
    pools: Vec<Text<Pool>>,
    router: Option<Ipv4Addr>,
    #[serde(default)]
    dns: Vec<IpAddr>,
    #[serde(default)]
    ntp: Vec<IpAddr>,
    domain: Option<Text<DomainName>>,
    #[serde(default)]
    search: Vec<Text<DomainName>>,
    mtu: Option<Mtu>,
    lease_seconds: Option<u32>,
    #[serde(default)]
    options: Vec<OptionFields>,
    #[serde(default)]
    reservations: Vec<ReservationFields>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OptionFields {
    code: u8,
    text: Option<String>,
    hex: Option<String>,
    addresses: Option<Vec<Ipv4Addr>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ReservationFields {
    mac: Option<MacAddr>,
    client_id: Option<Text<ClientId>>,
    circuit_id: Option<String>,
    address: Ipv4Addr,
    hostname: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BootFields {
    #[serde(default)]
    architectures: Vec<Architectures>,
    vendor_class: Option<String>,
    #[serde(default)]
    ipxe: bool,
    file: String,
    server: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TftpFields {
    root: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpFields {
    root: PathBuf,
    port: Option<u16>,
}

/// A value that is written as text.
#[derive(Debug)]
struct Text<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(D::Error::custom)
    }
}

/// `FIRST-LAST`.
#[derive(Debug)]
struct Pool(Range);

impl FromStr for Pool {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let ends = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        let (first, last) = ends.ok_or_else(|| Invalid::new("pool", text, "must be two IPv4 addresses: FIRST-LAST"))?;
        Ok(Self(Range { first, last }))
    }
}

/// A name for the numbers that clients send, or a number.
#[derive(Debug)]
struct Architectures(Vec<u16>);

impl<'de> Deserialize<'de> for Architectures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // IANA, Processor Architecture Types.
        let numbers = match text.as_str() {
            "bios" => vec![0],
            "uefi-x86-32" => vec![6],
            // 9 is EBC, which x86-64 firmware sends too.
            "uefi-x86-64" => vec![7, 9],
            "uefi-arm-32" => vec![10],
            "uefi-arm-64" => vec![11],
            "uefi-x86-32-http" => vec![15],
            "uefi-x86-64-http" => vec![16],
            "uefi-arm-32-http" => vec![18],
            "uefi-arm-64-http" => vec![19],
            number => vec![number.parse().map_err(|_| {
                let rule = "must be bios, uefi-x86-32, uefi-x86-64, uefi-arm-32, uefi-arm-64, one of the latter four with -http, \
                            or a number of option 93";
                D::Error::custom(Invalid::new("architecture", &text, rule))
            })?],
        };
        Ok(Self(numbers))
    }
}

impl File {
    pub(super) fn conf(self) -> Result<Conf, String> {
        let subnets = match (self.proxy, self.subnets) {
            (false, None) => return Err("missing field `subnets`".to_owned()),
            (true, Some(_)) => {
                return Err(
                    "subnets: must be absent with proxy: true, for another server gives the addresses".to_owned()
                );
            }
            (true, None) if self.boot.is_empty() => return Err("boot: must have a rule with proxy: true".to_owned()),
            (_, subnets) => subnets.unwrap_or_default(),
        };
        let subnets = subnets.into_iter().enumerate();
        let subnets = subnets.map(|(index, subnet)| subnet.subnet(&format!("subnets[{index}]")));
        let boot = self.boot.into_iter().enumerate().map(|(index, rule)| rule.rule(&format!("boot[{index}]")));
        let leases = self.leases.unwrap_or_else(|| LEASES.into());
        absolute("leases", &leases)?;
        let tftp = self.tftp.map(|tftp| tftp.root);
        tftp.as_ref().map_or(Ok(()), |root| absolute("tftp.root", root))?;
        let http = self.http.map(|http| {
            absolute("http.root", &http.root)?;
            match http.port {
                Some(0) => Err("http.port: 0, must be from 1 to 65535".to_owned()),
                port => Ok((http.root, port.unwrap_or(HTTP_PORT))),
            }
        });
        let metrics = self.metrics.map(|text| match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(address),
            _ => Err(format!("metrics: {text:?} must be an address and a port, as in 127.0.0.1:9547")),
        });
        let probe = match self.probe_milliseconds.unwrap_or(PROBE_MILLISECONDS) {
            wait @ ..=MOST_PROBE_MILLISECONDS => Duration::from_millis(wait),
            wait => return Err(format!("probeMilliseconds: {wait}, must be from 0 to {MOST_PROBE_MILLISECONDS}")),
        };
        Ok(Conf {
            proxy: self.proxy,
            metrics: metrics.transpose()?,
            probe,
            subnets: subnets.collect::<Result<_, _>>()?,
            boot: boot.collect::<Result<_, _>>()?,
            http: http.transpose()?,
            interface: self.interface,
            address: self.address,
            leases,
            tftp,
        })
    }
}

fn absolute(field: &str, path: &Path) -> Result<(), String> {
    if path.is_absolute() {
        Ok(())
    } else {
        Err(format!("{field}: {:?} is no absolute path", path.display().to_string()))
    }
}

impl SubnetFields {
    fn subnet(self, at: &str) -> Result<Subnet, String> {
        if self.network.network() != self.network.ip() {
            return Err(format!("{at}.network: {} has bits behind its prefix", self.network));
        }
        let lease = match self.lease_seconds.unwrap_or(LEASE_SECONDS) {
            seconds @ (0 | u32::MAX) => {
                return Err(format!("{at}.leaseSeconds: {seconds}, must be from 1 to {}", u32::MAX - 1));
            }
            seconds => Lifetime::Seconds(seconds),
        };
        let options = self.options.into_iter().enumerate();
        let options = options.map(|(index, option)| option.option(&format!("{at}.options[{index}]")));
        let reservations = self.reservations.into_iter().enumerate();
        let reservations = reservations.map(|(index, one)| one.reservation(&format!("{at}.reservations[{index}]")));
        let v4 = V4Config {
            router: self.router,
            lease,
            private_options: options.collect::<Result<_, _>>()?,
            ..V4Config::default()
        };
        // The guest's and the server's addresses are filled in for each answer.
        let mut parameters = Config::new(MacAddr::local([0; 5]), MacAddr::local([0; 5]));
        parameters.domain = self.domain.map(|domain| domain.0);
        parameters.search = self.search.into_iter().map(|name| name.0).collect();
        (parameters.dns, parameters.ntp, parameters.mtu, parameters.v4) = (self.dns, self.ntp, self.mtu, Some(v4));
        let subnet = Subnet {
            network: self.network,
            pools: self.pools.into_iter().map(|pool| pool.0.0).collect(),
            reservations: reservations.collect::<Result<_, _>>()?,
            parameters,
        };
        subnet.check().map_err(|error| format!("{at}: {error}"))?;
        Ok(subnet)
    }
}

impl OptionFields {
    fn option(self, at: &str) -> Result<(u8, Vec<u8>), String> {
        if OWN_OPTIONS.contains(&self.code) {
            return Err(format!("{at}.code: {} is set by the server itself", self.code));
        }
        let bytes = match (self.text, self.hex, self.addresses) {
            (Some(text), None, None) => text.into_bytes(),
            (None, Some(hex), None) => bytes(&format!("{at}.hex"), &hex)?,
            (None, None, Some(addresses)) => addresses.iter().flat_map(|address| address.octets()).collect(),
            _ => return Err(format!("{at}: needs exactly one of text, hex and addresses")),
        };
        Ok((self.code, bytes))
    }
}

impl ReservationFields {
    fn reservation(self, at: &str) -> Result<Reservation, String> {
        let client = match (self.mac, self.client_id, self.circuit_id) {
            (Some(mac), None, None) => WhichClient::Mac(mac),
            (None, Some(id), None) => WhichClient::Id(id.0),
            (None, None, Some(hex)) => WhichClient::Circuit(bytes(&format!("{at}.circuitId"), &hex)?),
            _ => return Err(format!("{at}: needs exactly one of mac, clientId and circuitId")),
        };
        Ok(Reservation { client, address: self.address, hostname: self.hostname })
    }
}

impl BootFields {
    fn rule(self, at: &str) -> Result<BootRule, String> {
        let text = |field: &str, value: &str| {
            let is_good = (1..=255).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
            if is_good {
                Ok(())
            } else {
                Err(format!("{at}.{field}: {value:?} must be 1 to 255 visible ASCII characters"))
            }
        };
        text("file", &self.file)?;
        self.server.as_deref().map_or(Ok(()), |server| text("server", server))?;
        Ok(BootRule {
            architectures: self.architectures.into_iter().flat_map(|one| one.0).collect(),
            vendor_class: self.vendor_class,
            ipxe: self.ipxe,
            file: self.file,
            server: self.server,
        })
    }
}

/// Pairs of hexadecimal digits, with or without colons.
fn bytes(field: &str, text: &str) -> Result<Vec<u8>, String> {
    let digits: String = text.chars().filter(|one| *one != ':').collect();
    let pair = |at| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let read: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(pair).collect();
    let read = read.filter(|bytes| !bytes.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    read.ok_or_else(|| format!("{field}: {text:?} must be pairs of hexadecimal digits"))
}
