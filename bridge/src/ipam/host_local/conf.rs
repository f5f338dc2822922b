//! The fields of the reference plugin `host-local`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni_protocol::plugin::{Args, NetConf};
use cni_protocol::spec::{Code, Dns, Error, Route};
use serde::Deserialize;

use super::range::{RangeSet, RawRange};

/// What addresses are reserved from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pools {
    /// Each gives one address.
    pub(super) sets: Vec<RangeSet>,
    /// Addresses that the runtime asks for.
    pub(super) asked: Vec<IpAddr>,
    pub(super) routes: Vec<Route>,
    pub(super) data_dir: Option<PathBuf>,
    resolv_conf: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    ipam: RawIpam,
    #[serde(default)]
    runtime_config: RawRuntime,
    #[serde(default)]
    args: RawArgs,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawIpam {
    subnet: Option<String>,
    range_start: Option<String>,
    range_end: Option<String>,
    gateway: Option<String>,
    #[serde(default)]
    ranges: Vec<Vec<RawRange>>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    data_dir: String,
    #[serde(default)]
    resolv_conf: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRuntime {
    ip_ranges: Vec<Vec<RawRange>>,
    ips: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawArgs {
    cni: RawCniArgs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawCniArgs {
    ips: Vec<String>,
}

impl Pools {
    /// Reads and checks all of it.
    pub(crate) fn read(conf: &NetConf, args: &Args) -> Result<Self, Error> {
        let raw: Raw = conf.own()?;
        let asked = asked(&raw, args)?;
        Self::check(raw, asked).map_err(|msg| Error::new(Code::INVALID_CONFIG, msg))
    }

    /// The folder alone: what DEL and GC need, whatever else the configuration says.
    pub(crate) fn data_dir_of(conf: &NetConf) -> Option<PathBuf> {
        #[derive(Deserialize)]
        struct Alone {
            ipam: AloneIpam,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct AloneIpam {
            data_dir: PathBuf,
        }
        let alone: Alone = conf.own().ok()?;
        Some(alone.ipam.data_dir).filter(|path| path.is_absolute())
    }

    fn check(raw: Raw, asked: Vec<IpAddr>) -> Result<Self, String> {
        let RawIpam { subnet, range_start, range_end, gateway, ranges, routes, data_dir, resolv_conf } = raw.ipam;
        let single = subnet.map(|subnet| vec![RawRange { subnet, range_start, range_end, gateway }]);
        let from_runtime = raw.runtime_config.ip_ranges.into_iter().map(|set| ("runtimeConfig.ipRanges", set));
        let own = single.into_iter().chain(ranges).map(|set| ("ipam.ranges", set));
        let sets: Vec<RangeSet> = from_runtime
            .chain(own)
            .enumerate()
            .map(|(index, (field, set))| {
                RangeSet::check(&set).map_err(|error| format!("{field}: set {index}: {error}"))
            })
            .collect::<Result<_, _>>()?;
        if sets.is_empty() {
            return Err("ipam: no subnet and no ranges".to_owned());
        }
        for (index, one) in sets.iter().enumerate() {
            if let Some(other) = sets.iter().skip(index + 1).position(|other| one.overlaps(other)) {
                return Err(format!("ipam.ranges: set {index} overlaps set {}", index + 1 + other));
            }
        }
        let path = |field: &str, text: String| match text.as_str() {
            "" => Ok(None),
            text if text.starts_with('/') => Ok(Some(PathBuf::from(text))),
            text => Err(format!("ipam.{field} {text:?}: must be an absolute path")),
        };
        let data_dir = path("dataDir", data_dir)?;
        Ok(Self { sets, asked, routes, data_dir, resolv_conf: path("resolvConf", resolv_conf)? })
    }

    /// The place of a range set in the configuration: by it the last reserved address is filed.
    pub(super) fn index_of(&self, set: &RangeSet) -> Option<usize> {
        self.sets.iter().position(|other| other == set)
    }

    /// What the file `resolvConf` says.
    pub(super) fn dns(&self) -> Result<Dns, Error> {
        self.resolv_conf.as_deref().map_or_else(|| Ok(Dns::default()), dns)
    }
}

fn dns(path: &Path) -> Result<Dns, Error> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Error::new(Code::IO, format!("ipam.resolvConf {}: {error}", path.display())))?;
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().unwrap_or_default(),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    Ok(dns)
}

/// From CNI_ARGS, from `args` and from the runtime together, as the reference plugin has it.
fn asked(raw: &Raw, args: &Args) -> Result<Vec<IpAddr>, Error> {
    let environment = args.value("IP").filter(|text| !text.is_empty()).into_iter();
    let environment = environment.map(|text| ("CNI_ARGS: IP", text, Code::INVALID_ENVIRONMENT));
    let of_args = raw.args.cni.ips.iter().map(|text| ("args.cni.ips", text.as_str(), Code::INVALID_CONFIG));
    let of_runtime =
        raw.runtime_config.ips.iter().map(|text| ("runtimeConfig.ips", text.as_str(), Code::INVALID_CONFIG));
    let all = environment.chain(of_args).chain(of_runtime).map(|(field, text, code)| {
        // A prefix length may follow: the range has its own.
        let address = text.split('/').next().unwrap_or_default();
        address.parse().map_err(|_| Error::new(code, format!("{field} {text:?}: must be an IP address")))
    });
    let mut found = Vec::new();
    for address in all {
        let address: IpAddr = address?;
        if !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(found)
}
