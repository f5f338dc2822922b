//! The configuration file: YAML, each bad value refused by its path.

mod file;
mod text;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dhcp::boot::BootRule;
use dhcp::pool::{ServerConfig, Subnet};
use terms::IfName;

use crate::interface::Interface;

/// Seconds for which an address is not given out after another host was found to use it.
const DECLINE_SECONDS: u32 = 3600;
/// Largest configuration file.
const MAX_BYTES: u64 = 1024 * 1024;

/// What the server is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    /// The link it serves.
    pub(crate) interface: IfName,
    /// Its address; the link's first if absent.
    pub(crate) address: Option<Ipv4Addr>,
    /// The folder of the lease database.
    pub(crate) leases: PathBuf,
    /// The networks it has addresses for.
    pub(crate) subnets: Vec<Subnet>,
    /// How long a host that uses an address may take to answer before the address is offered.
    pub(crate) probe: Duration,
    /// Whether another server of the link gives addresses.
    pub(crate) proxy: bool,
    /// Boot answers.
    pub(crate) boot: Vec<BootRule>,
    /// The folder of files for TFTP.
    pub(crate) tftp: Option<PathBuf>,
    /// The folder of files for HTTP, and the port.
    pub(crate) http: Option<(PathBuf, u16)>,
    /// Where metrics are answered.
    pub(crate) metrics: Option<SocketAddr>,
}

impl Conf {
    /// What the engine is to do on this link.
    pub(crate) fn engine(&self, interface: &Interface) -> ServerConfig {
        ServerConfig {
            mac: interface.mac,
            address: interface.address,
            subnets: self.subnets.clone(),
            boot: self.boot.clone(),
            decline_seconds: DECLINE_SECONDS,
            probe: self.probe,
            proxy: self.proxy,
        }
    }

    /// What only the start can put into effect and is not as in `running`: the field, the value there and here.
    pub(crate) fn fixed(&self, running: &Self) -> Option<(&'static str, String, String)> {
        fn shown<T>(value: Option<&T>, text: impl FnOnce(&T) -> String) -> String {
            value.map_or_else(|| "absent".to_owned(), text)
        }
        let path = |path: &PathBuf| path.display().to_string();
        let fields = |conf: &Self| {
            [
                ("interface", conf.interface.to_string()),
                ("address", shown(conf.address.as_ref(), ToString::to_string)),
                ("leases", path(&conf.leases)),
                ("proxy", conf.proxy.to_string()),
                ("tftp", shown(conf.tftp.as_ref(), path)),
                ("http", shown(conf.http.as_ref(), |(root, port)| format!("{} at port {port}", root.display()))),
                ("metrics", shown(conf.metrics.as_ref(), ToString::to_string)),
            ]
        };
        let both = fields(running).into_iter().zip(fields(self));
        both.map(|((field, old), (_, new))| (field, old, new)).find(|(_, old, new)| old != new)
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {bytes} bytes, at most {MAX_BYTES} are read")]
    Size { path: PathBuf, bytes: u64 },
    #[error("{path}: {problem}")]
    Invalid { path: PathBuf, problem: String },
    #[error("{path}: {field}: {new}, which takes a restart; in use is {old}")]
    Fixed { path: PathBuf, field: &'static str, old: String, new: String },
    #[error("{path}")]
    Contradiction { path: PathBuf, source: dhcp::ConfigError },
}

/// Reads a configuration file.
///
/// # Errors
/// When it cannot be read, is no YAML, or holds a field or value that is not accepted; the message names the field.
pub(crate) fn read(path: &Path) -> Result<Conf, ConfError> {
    let failed = |source| ConfError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_BYTES {
        return Err(ConfError::Size { path: path.to_owned(), bytes });
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    parse(&text).map_err(|problem| ConfError::Invalid { path: path.to_owned(), problem })
}

fn parse(text: &str) -> Result<Conf, String> {
    let value = text::value(text)?;
    let file: file::File = serde_path_to_error::deserialize(value).map_err(|error| text::at(&error))?;
    file.conf()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
interface: br0
probeMilliseconds: 200
subnets:
- network: 10.9.0.0/24
  pools: [10.9.0.100-10.9.0.199]
  router: 10.9.0.1
  dns: [10.9.0.1]
  search: [example.org]
  mtu: 1400
  leaseSeconds: 600
  options: [{code: 224, text: site}, {code: 150, addresses: [10.9.0.1]}, {code: 43, hex: '0104'}]
  reservations:
  - {mac: '02:00:00:00:00:07', address: 10.9.0.7, hostname: seven}
  - {clientId: 'ff:01', address: 10.9.0.8}
  - {circuitId: '0a', address: 10.9.0.9}
boot:
- {architectures: [bios], file: undionly.kpxe}
- {architectures: [uefi-x86-64, 7], file: ipxe.efi}
- {architectures: [uefi-x86-64-http], vendorClass: HTTPClient, file: 'http://10.9.0.1/ipxe.efi'}
- {ipxe: true, file: boot.ipxe, server: 10.9.0.2}
tftp: {root: /srv/boot}
http: {root: /srv/boot, port: 8080}
metrics: 127.0.0.1:9547
";

    // spec: BOOT-1
    #[test]
    fn every_field_of_the_configuration_is_read() {
        let conf = parse(GOOD).unwrap();
        assert_eq!((conf.interface.as_str(), conf.address), ("br0", None));
        assert_eq!(conf.metrics, Some("127.0.0.1:9547".parse().unwrap()));
        assert_eq!(conf.probe, Duration::from_millis(200));
        assert_eq!((conf.tftp, conf.http), (Some("/srv/boot".into()), Some(("/srv/boot".into(), 8080))));
        let subnet = &conf.subnets[0];
        assert_eq!((subnet.pools[0].count(), subnet.reservations.len()), (100, 3));
        let v4 = subnet.parameters.v4.as_ref().unwrap();
        assert_eq!((v4.router, v4.lease.wire()), (Some([10, 9, 0, 1].into()), 600));
        assert_eq!(v4.private_options, [(224, b"site".to_vec()), (150, vec![10, 9, 0, 1]), (43, vec![1, 4])]);
        let architectures: Vec<_> = conf.boot.iter().map(|rule| rule.architectures.clone()).collect();
        assert_eq!(architectures, [vec![0], vec![7, 9, 7], vec![16], vec![]]);
    }

    // spec: BOOT-1
    #[test]
    fn the_page_about_the_configuration_has_a_valid_example() {
        let (_, rest) = include_str!("../../CONFIGURATION.md").split_once("```yaml\n").unwrap();
        let conf = parse(rest.split_once("```").unwrap().0).unwrap();
        assert_eq!((conf.subnets.len(), conf.boot.len(), conf.address), (1, 4, Some([10, 9, 0, 1].into())));
    }

    // spec: BOOT-19
    #[test]
    fn a_proxy_has_boot_answers_and_no_addresses() {
        let good = "{interface: br0, proxy: true, boot: [{file: a}]}";
        let conf = parse(good).unwrap();
        assert_eq!((conf.proxy, conf.subnets.len(), conf.boot.len()), (true, 0, 1));
        let cases = [
            ("boot: [{file: a}]", "boot: []", "boot: must have a rule with proxy: true"),
            ("boot:", "subnets: [{network: 10.9.0.0/24}], boot:", "subnets: must be absent with proxy: true"),
            ("proxy: true", "proxy: false", "missing field `subnets`"),
        ];
        for (from, to, expected) in cases {
            let problem = parse(&good.replacen(from, to, 1)).unwrap_err();
            assert!(problem.starts_with(expected), "{to}\n{problem}\n{expected}");
        }
    }

    // spec: BOOT-1
    #[test]
    fn every_bad_value_is_refused_by_path_and_value() {
        let cases = [
            ("interface: br0", "interface: br/0", "interface: interface name \"br/0\""),
            ("probeMilliseconds: 200", "probeMilliseconds: 5001", "probeMilliseconds: 5001, must be from 0 to 5000"),
            ("mtu: 1400", "mtu: 40", "subnets[0].mtu: "),
            ("leaseSeconds: 600", "leaseSeconds: 0", "subnets[0].leaseSeconds: 0, must be from 1 to 4294967294"),
            ("leaseSeconds: 600", "leaseSeconds: -1", "subnets[0].leaseSeconds: invalid value: integer `-1`"),
            ("router: 10.9.0.1", "router: 10.9.0", "subnets[0].router: invalid IPv4 address syntax"),
            ("router: 10.9.0.1", "router: 0.0.0.0", "subnets[0]: v4.router: 0.0.0.0 is no host's address"),
            ("[10.9.0.100-10.9.0.199]", "[10.9.0.100]", "subnets[0].pools[0]: pool \"10.9.0.100\""),
            ("10.9.0.0/24", "10.9.0.1/24", "subnets[0].network: 10.9.0.1/24 has bits behind its prefix"),
            ("dns: [10.9.0.1]", "dns: [10.9.0.1, x]", "subnets[0].dns[1]: invalid IP address syntax"),
            ("search: [example.org]", "search: ['a b']", "subnets[0].search[0]: domain name \"a b\""),
            ("mac: '02:00:00:00:00:07'", "mac: '2'", "subnets[0].reservations[0].mac: "),
            ("clientId: 'ff:01'", "clientId: 'xx'", "subnets[0].reservations[1].clientId: client identifier \"xx\""),
            (
                "clientId: 'ff:01'",
                "mac: '02:00:00:00:00:08', clientId: 'ff:01'",
                "subnets[0].reservations[1]: needs exactly one",
            ),
            ("code: 224", "code: 51", "subnets[0].options[0].code: 51 is set by the server itself"),
            ("hex: '0104'", "hex: '010'", "subnets[0].options[2].hex: \"010\""),
            ("text: site", "text: site, hex: '01'", "subnets[0].options[0]: needs exactly one"),
            ("architectures: [bios]", "architectures: [bio]", "boot[0].architectures[0]: architecture \"bio\""),
            ("ipxe: true", "ipxe: yes please", "boot[3].ipxe: invalid type: string \"yes please\""),
            ("file: boot.ipxe", "file: ''", "boot[3].file: \"\""),
            ("root: /srv/boot, port: 8080", "root: /srv/boot, port: 0", "http.port: 0, must be from 1 to 65535"),
            ("root: /srv/boot, port: 8080", "root: srv", "http.root: \"srv\" is no absolute path"),
            ("tftp: {root", "tftp: {rot", "tftp.rot: unknown field `rot`"),
            ("metrics: 127.0.0.1:9547", "metrics: 9547", "metrics: invalid type: integer `9547`"),
            ("metrics: 127.0.0.1:9547", "metrics: 127.0.0.1:0", "metrics: \"127.0.0.1:0\""),
            ("interface: br0", "", "missing field `interface`"),
            ("interface: br0", "interface: br0\ninterface: br1", "duplicate mapping key: interface"),
        ];
        for (from, to, expected) in cases {
            assert!(GOOD.contains(from), "{from}");
            let problem = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert!(problem.starts_with(expected), "{to}\n{problem}\n{expected}");
        }
    }
}
