//! The plugin's configuration: the fields of the reference plugin `bridge`, and what VMs need beyond.

use cni_protocol::plugin::{Args, NetConf};
use cni_protocol::spec::{Code, Dns, Error};
use hostnet::op::BridgeChange;
use serde::Deserialize;
use terms::{IfName, MacAddr, Mtu, VlanId};

/// A network as its configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    /// The bridge.
    pub(crate) bridge: IfName,
    /// There is none: the host routes to each pod by its own cable, as the reference plugin `ptp` does.
    pub(crate) point_to_point: bool,
    /// The bridge has the gateway's addresses, and the host forwards.
    pub(crate) is_gateway: bool,
    /// A link of the host that is a port of the bridge while there are attachments.
    pub(crate) uplink: Option<IfName>,
    /// The pod's default routes lead there.
    pub(crate) is_default_gateway: bool,
    /// An address that the bridge has instead of the gateway's is replaced, not refused.
    pub(crate) force_address: bool,
    /// What pods send beyond the network leaves with the host's address.
    pub(crate) masquerade: bool,
    /// Of the pod's link and of a bridge that is made.
    pub(crate) mtu: Option<Mtu>,
    /// Frames may leave by the port that they came in by.
    pub(crate) hairpin: bool,
    /// The bridge takes all frames.
    pub(crate) promiscuous: bool,
    /// No frame passes between ports that are isolated.
    pub(crate) isolated: bool,
    /// The VLAN of frames without a tag.
    pub(crate) vlan: Option<VlanId>,
    /// VLANs that the pod sees with their tags, in order and without overlaps.
    pub(crate) trunk: Vec<(VlanId, VlanId)>,
    /// The port stays in VLAN 1, too.
    pub(crate) keeps_default_vlan: bool,
    /// The pod may send with its own Ethernet address alone.
    pub(crate) checks_mac: bool,
    /// IPv6 addresses are checked for duplicates.
    pub(crate) duplicate_detection: bool,
    /// The pod's link stays down and has no addresses.
    pub(crate) leaves_down: bool,
    /// The Ethernet address that the pod's link must have.
    pub(crate) mac: Option<MacAddr>,
    /// Overrides what IPAM says.
    pub(crate) dns: Option<Dns>,
    /// Type of the IPAM plugin; `None` on layer 2.
    pub(crate) ipam: Option<String>,
    /// Settings of a bridge that is made, and that an existing one must have.
    pub(crate) settings: BridgeChange,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    bridge: Option<String>,
    point_to_point: bool,
    uplink: Option<String>,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    mtu: u64,
    hairpin_mode: bool,
    promisc_mode: bool,
    port_isolation: bool,
    vlan: u64,
    vlan_trunk: Option<Vec<RawTrunk>>,
    preserve_default_vlan: bool,
    macspoofchk: bool,
    enabledad: bool,
    disable_container_interface: bool,
    dns: Option<Dns>,
    ipam: Option<RawIpam>,
    args: RawArgs,
    runtime_config: RawMac,
    multicast_snooping: Option<bool>,
    multicast_querier: Option<bool>,
    group_fwd_mask: Option<u16>,
    ageing_time_seconds: Option<u32>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            bridge: None,
            point_to_point: false,
            uplink: None,
            is_gateway: false,
            is_default_gateway: false,
            force_address: false,
            ip_masq: false,
            ip_masq_backend: None,
            mtu: 0,
            hairpin_mode: false,
            promisc_mode: false,
            port_isolation: false,
            vlan: 0,
            vlan_trunk: None,
            preserve_default_vlan: true,
            macspoofchk: false,
            enabledad: false,
            disable_container_interface: false,
            dns: None,
            ipam: None,
            args: RawArgs::default(),
            runtime_config: RawMac::default(),
            multicast_snooping: None,
            multicast_querier: None,
            group_fwd_mask: None,
            ageing_time_seconds: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTrunk {
    #[serde(rename = "minID")]
    min_id: Option<u64>,
    #[serde(rename = "maxID")]
    max_id: Option<u64>,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct RawIpam {
    #[serde(default, rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
struct RawArgs {
    #[serde(default)]
    cni: RawMac,
}

#[derive(Default, Deserialize)]
struct RawMac {
    #[serde(default)]
    mac: String,
}

/// The keys that this plugin and IPAM plugins read, and those that Kubernetes' runtimes send.
const KNOWN_ARGS: [&str; 7] =
    ["K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID", "IP", "MAC", "GATEWAY"];

/// IEEE 802.1D reserves these groups for the bridge itself; the kernel refuses to forward them (BR_GROUPFWD_RESTRICTED).
const RESTRICTED_GROUPS: u16 = 0b111;

impl Conf {
    /// Reads and checks all of it.
    pub(crate) fn read(conf: &NetConf, args: &Args) -> Result<Self, Error> {
        args.expect_only(&KNOWN_ARGS).map_err(|error| Error::from_chain(Code::INVALID_ENVIRONMENT, &error))?;
        let raw: Raw = conf.own()?;
        let mac = mac(&raw, args)?;
        Self::check(raw, mac).map_err(|msg| Error::new(Code::INVALID_CONFIG, msg))
    }

    /// The type of the IPAM plugin alone: what DEL and GC need, whatever else the configuration says.
    pub(crate) fn ipam_of(conf: &NetConf) -> Option<String> {
        #[derive(Deserialize)]
        struct Alone {
            ipam: Option<RawIpam>,
        }
        let alone: Alone = conf.own().ok()?;
        alone.ipam.map(|ipam| ipam.kind).filter(|kind| !kind.is_empty())
    }

    fn check(raw: Raw, mac: Option<MacAddr>) -> Result<Self, String> {
        if raw.point_to_point {
            refuse_bridged(&raw)?;
        }
        let name = raw.bridge.as_deref().unwrap_or("cni0");
        let bridge: IfName = name.parse().map_err(|error| format!("bridge: {error}"))?;
        let uplink = raw.uplink.as_deref().map(str::parse::<IfName>).transpose();
        let uplink = uplink.map_err(|error| format!("uplink: {error}"))?;
        if uplink.as_ref() == Some(&bridge) {
            return Err(format!("uplink: {bridge} is the bridge itself: name a link of the host"));
        }
        let mtu = some(raw.mtu).map(Mtu::try_from).transpose().map_err(|error| format!("mtu: {error}"))?;
        let vlan = some(raw.vlan).map(VlanId::try_from).transpose().map_err(|error| format!("vlan: {error}"))?;
        let trunk = trunk(raw.vlan_trunk.as_deref().unwrap_or_default())?;
        let ipam = raw.ipam.map(|ipam| ipam.kind).filter(|kind| !kind.is_empty());
        if ipam.as_ref().is_some_and(|kind| kind.contains('/') || kind == "." || kind == "..") {
            return Err("ipam.type: must be the name of a plugin, without '/'".to_owned());
        }
        if raw.hairpin_mode && raw.promisc_mode {
            return Err("hairpinMode and promiscMode exclude each other: set one of them".to_owned());
        }
        if raw.disable_container_interface && ipam.is_some() {
            let rule = "an interface that stays down has no addresses: leave ipam out";
            return Err(format!("disableContainerInterface: {rule}"));
        }
        match raw.ip_masq_backend.as_deref() {
            None | Some("" | "iptables" | "nftables") => {}
            Some(other) => return Err(format!("ipMasqBackend {other:?}: must be \"iptables\" or \"nftables\"")),
        }
        if raw.group_fwd_mask.is_some_and(|mask| mask & RESTRICTED_GROUPS != 0) {
            return Err("groupFwdMask: bits 0 to 2 are the bridge's own groups and cannot be forwarded".to_owned());
        }
        Ok(Self {
            bridge,
            point_to_point: raw.point_to_point,
            uplink,
            is_gateway: raw.is_gateway || raw.is_default_gateway || raw.point_to_point,
            is_default_gateway: raw.is_default_gateway,
            force_address: raw.force_address,
            masquerade: raw.ip_masq,
            mtu,
            hairpin: raw.hairpin_mode,
            promiscuous: raw.promisc_mode,
            isolated: raw.port_isolation,
            settings: BridgeChange {
                vlan_filtering: (vlan.is_some() || !trunk.is_empty()).then_some(true),
                multicast_snooping: raw.multicast_snooping,
                multicast_querier: raw.multicast_querier,
                group_fwd_mask: raw.group_fwd_mask,
                ageing_seconds: raw.ageing_time_seconds,
            },
            vlan,
            trunk,
            keeps_default_vlan: raw.preserve_default_vlan,
            checks_mac: raw.macspoofchk,
            duplicate_detection: raw.enabledad,
            leaves_down: raw.disable_container_interface,
            mac,
            dns: raw.dns.filter(|dns| *dns != Dns::default()),
            ipam,
        })
    }

    /// Whether ports take part in VLANs.
    pub(crate) fn has_vlans(&self) -> bool {
        self.settings.vlan_filtering == Some(true)
    }
}

/// A cable that the host routes to has an address at each end, and nothing of a bridge.
fn refuse_bridged(raw: &Raw) -> Result<(), String> {
    if raw.ipam.as_ref().is_none_or(|ipam| ipam.kind.is_empty()) {
        return Err("pointToPoint: routes lead to addresses: ipam is missing".to_owned());
    }
    let of_bridges = [
        ("bridge", raw.bridge.is_some()),
        ("uplink", raw.uplink.is_some()),
        ("hairpinMode", raw.hairpin_mode),
        ("promiscMode", raw.promisc_mode),
        ("portIsolation", raw.port_isolation),
        ("macspoofchk", raw.macspoofchk),
        ("forceAddress", raw.force_address),
        ("vlan", raw.vlan != 0),
        ("vlanTrunk", raw.vlan_trunk.is_some()),
        ("multicastSnooping", raw.multicast_snooping.is_some()),
        ("multicastQuerier", raw.multicast_querier.is_some()),
        ("groupFwdMask", raw.group_fwd_mask.is_some()),
        ("ageingTimeSeconds", raw.ageing_time_seconds.is_some()),
    ];
    match of_bridges.into_iter().find(|(_, is_set)| *is_set) {
        Some((field, _)) => Err(format!("pointToPoint: there is no bridge: leave {field} out")),
        None => Ok(()),
    }
}

/// 0 means that nothing is said.
fn some(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number != 0)
}

/// From the runtime, else from `args`, else from CNI_ARGS.
fn mac(raw: &Raw, args: &Args) -> Result<Option<MacAddr>, Error> {
    let sources = [
        ("runtimeConfig.mac", raw.runtime_config.mac.as_str(), Code::INVALID_CONFIG),
        ("args.cni.mac", raw.args.cni.mac.as_str(), Code::INVALID_CONFIG),
        ("CNI_ARGS: MAC", args.value("MAC").unwrap_or_default(), Code::INVALID_ENVIRONMENT),
    ];
    let said = sources.into_iter().find(|(_, text, _)| !text.is_empty());
    said.map(|(source, text, code)| text.parse().map_err(|error| Error::new(code, format!("{source}: {error}"))))
        .transpose()
}

/// The trunk's VLANs in order; ranges that touch or overlap become one.
fn trunk(items: &[RawTrunk]) -> Result<Vec<(VlanId, VlanId)>, String> {
    let mut ranges = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let vlan = |name: &str, number: u64| {
            VlanId::try_from(number).map_err(|error| format!("vlanTrunk[{index}].{name}: {error}"))
        };
        match (item.min_id, item.max_id) {
            (Some(min), Some(max)) => {
                let range = (vlan("minID", min)?, vlan("maxID", max)?);
                if range.0 > range.1 {
                    return Err(format!("vlanTrunk[{index}]: minID {min} is greater than maxID {max}"));
                }
                ranges.push(range);
            }
            (None, None) => {}
            (Some(_), None) => return Err(format!("vlanTrunk[{index}]: minID needs maxID")),
            (None, Some(_)) => return Err(format!("vlanTrunk[{index}]: maxID needs minID")),
        }
        if let Some(id) = item.id {
            let id = vlan("id", id)?;
            ranges.push((id, id));
        }
    }
    ranges.sort_unstable();
    let mut merged: Vec<(VlanId, VlanId)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first.value() <= before.1.value() + 1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(own: &Value, args: &str) -> Result<Conf, Error> {
        let mut conf = json!({"cniVersion": "1.0.0", "name": "net", "type": "tapvisor-bridge"});
        conf.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let mut version = cni_protocol::spec::Version::NEWEST;
        let conf = NetConf::parse(conf.to_string().into_bytes(), &mut version)?;
        Conf::read(&conf, &Args::parse(args).unwrap())
    }

    // spec: L2-CONF
    #[test]
    fn defaults_are_those_of_the_reference_plugin() {
        let conf = read(&json!({"ipam": {}}), "").unwrap();
        assert_eq!(conf.bridge.as_str(), "cni0");
        assert!(conf.keeps_default_vlan && !conf.is_gateway && !conf.masquerade && !conf.has_vlans());
        assert_eq!((conf.ipam, conf.mtu, conf.vlan, conf.mac), (None, None, None, None));
        assert!(read(&json!({"isDefaultGateway": true}), "").unwrap().is_gateway);
    }

    // spec: L2-CONF, L2-CABLE
    #[test]
    fn bad_values_are_refused_by_field_and_value() {
        for (own, expected) in [
            (json!({"mtu": 10}), "mtu: MTU \"10\": must be from 68 to 65535 bytes"),
            (json!({"vlan": 4095}), "vlan: VLAN ID \"4095\": must be from 1 to 4094"),
            (json!({"bridge": "a/b"}), "bridge: "),
            (json!({"vlanTrunk": [{"minID": 5}]}), "vlanTrunk[0]: minID needs maxID"),
            (json!({"vlanTrunk": [{"id": 1}, {"minID": 9, "maxID": 8}]}), "vlanTrunk[1]: minID 9 is greater"),
            (json!({"hairpinMode": true, "promiscMode": true}), "hairpinMode and promiscMode"),
            (json!({"disableContainerInterface": true, "ipam": {"type": "static"}}), "disableContainerInterface: "),
            (json!({"ipMasqBackend": "pf"}), "ipMasqBackend \"pf\""),
            (json!({"ipam": {"type": "../x"}}), "ipam.type: "),
            (json!({"groupFwdMask": 3}), "groupFwdMask: "),
            (json!({"uplink": "eth0/1"}), "uplink: "),
            (json!({"bridge": "br7", "uplink": "br7"}), "uplink: br7 is the bridge itself"),
            (json!({"pointToPoint": true}), "pointToPoint: routes lead to addresses: ipam is missing"),
            (
                json!({"pointToPoint": true, "vlan": 7, "ipam": {"type": "host-local"}}),
                "pointToPoint: there is no bridge: leave vlan out",
            ),
            (json!({"runtimeConfig": {"mac": "01:00:00:00:00:00"}}), "runtimeConfig.mac: "),
        ] {
            let error = read(&own, "").unwrap_err();
            assert!(error.msg.starts_with(expected), "{own}: {error}");
        }
    }

    // spec: L2-CONF
    #[test]
    fn the_runtimes_mac_precedes_arguments_and_these_the_environment() {
        let mac = |own: Value, args: &str| read(&own, args).unwrap().mac.unwrap().to_string();
        let args = "MAC=02:00:00:00:00:03";
        assert_eq!(mac(json!({}), args), "02:00:00:00:00:03");
        let own = json!({"args": {"cni": {"mac": "02:00:00:00:00:02"}}});
        assert_eq!(mac(own.clone(), args), "02:00:00:00:00:02");
        let mut both = own;
        both["runtimeConfig"] = json!({"mac": "02-00-00-00-00-01"});
        assert_eq!(mac(both, args), "02:00:00:00:00:01");
    }

    #[test]
    fn ranges_of_a_trunk_that_touch_become_one() {
        let own = json!({"vlan": 3, "vlanTrunk": [{"minID": 10, "maxID": 20}, {"id": 21}, {"minID": 15, "maxID": 18, "id": 40}]});
        let conf = read(&own, "").unwrap();
        let ranges: Vec<_> = conf.trunk.iter().map(|(first, last)| (first.value(), last.value())).collect();
        assert_eq!(ranges, [(10, 21), (40, 40)]);
        assert!(conf.has_vlans());
    }
}
