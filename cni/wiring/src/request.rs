//! The wiring request: user-controlled input, bounded and checked before anything believes it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use terms::{IfName, Invalid, Ipv4Network, Ipv6Network, MacAddr, Mtu, Protocol, Queues};

use crate::{GuestSubnet, NicKey, reserved};

/// What every VM NIC of one pod wants, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Request {
    version: u32,
    owner: Owner,
    interfaces: Vec<Interface>,
}

/// Who may open the taps: both must match the launcher's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// Numeric user id, at most 4294967294: the highest value is the kernel's "unset".
    pub uid: u32,
    /// Numeric group id, at most 4294967294: the highest value is the kernel's "unset".
    pub gid: u32,
}

/// One NIC of the VM and the pod interface behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Interface {
    /// The NIC's name in the VM's specification.
    pub name: String,
    /// The interface in the pod's namespace.
    pub pod_interface: IfName,
    /// How the two are joined.
    pub binding: Binding,
    /// The guest's address; without it a bridge-bound guest uses the pod interface's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddr>,
    /// Queue pairs of the tap.
    #[serde(default)]
    pub queues: Queues,
    /// Masquerade only: the guest's IPv4 subnet, 10.0.2.0/24 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Ipv4Network>,
    /// Masquerade only: the guest's IPv6 subnet, fd10:0:2::/120 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr6: Option<Ipv6Network>,
    /// Masquerade only: the ports that reach the guest; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Masquerade only: the service mesh whose proxy shares the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh: Option<Mesh>,
    /// MTU of the tap; the pod interface's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// Bridge only: the guest gets nothing by DHCP and no router advertisement but from the network itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_service: bool,
}

/// How a VM NIC is joined to its pod interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Binding {
    /// A private subnet behind the pod's addresses, dual-stack NAT.
    Masquerade,
    /// The pod interface's frames go to the guest and back.
    Bridge,
    /// The device itself goes to the guest; nothing to wire.
    Sriov,
}

/// A port that reaches a masquerade guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// TCP if absent.
    #[serde(default)]
    pub protocol: Protocol,
    /// Port number, not 0.
    pub port: u16,
}

/// A service mesh with rules of its own in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mesh {
    /// Istio's sidecar: its proxy takes the traffic and hands it on over loopback.
    Istio,
}

/// Why a request is refused; the message starts with the field's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// More bytes than any honest request has.
    #[error("wiring request: {0} bytes, at most 65536 are read")]
    TooLarge(usize),
    /// Not JSON of the documented shape.
    #[error("{path}: {reason}")]
    Shape {
        /// Path of the field, such as `interfaces[0].mac`.
        path: String,
        /// What the parser expected and found.
        reason: String,
    },
    /// Well-formed, but breaks a rule.
    #[error("{path}: {rule}")]
    Rule {
        /// Path of the field, such as `interfaces[0].mac`.
        path: String,
        /// The rule, with the value that breaks it.
        rule: String,
    },
}

/// The first eight bytes of the SHA-256 of a request's canonical form, written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 8]);

impl Digest {
    /// What no request's digest is: a provisional mark carries it.
    pub(crate) const NONE: Self = Self([0; 8]);
}

impl Request {
    /// The only version there is.
    pub const VERSION: u32 = 1;
    /// Most bytes a request may have.
    pub const MAX_BYTES: usize = 64 * 1024;
    /// Most NICs of one VM.
    pub const MAX_INTERFACES: usize = 16;
    /// Most declared ports over all NICs.
    pub const MAX_PORTS: usize = 1024;

    /// Puts a request together and checks it.
    ///
    /// # Errors
    /// As [`Request::parse`], but for sizes and shapes.
    pub fn new(owner: Owner, interfaces: Vec<Interface>) -> Result<Self, RequestError> {
        let request = Self { version: Self::VERSION, owner, interfaces };
        request.check()?;
        Ok(request)
    }

    /// Reads a request from JSON text.
    ///
    /// # Errors
    /// When it is too large, not of the documented shape, has an unknown field, or breaks a rule.
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        if text.len() > Self::MAX_BYTES {
            return Err(RequestError::TooLarge(text.len()));
        }
        let request: Self = serde_json::from_str(text).map_err(|error| {
            let reason = error.to_string();
            let path = match terms::json_path(text.as_bytes(), error.line(), error.column(), &reason).as_str() {
                "." => "wiring request".to_owned(),
                path => shortened(path),
            };
            RequestError::Shape { path, reason: shortened(&reason) }
        })?;
        request.check()?;
        Ok(request)
    }

    /// Reads a request that is already a JSON value.
    ///
    /// # Errors
    /// As [`Request::parse`].
    pub fn from_value(value: &serde_json::Value) -> Result<Self, RequestError> {
        Self::parse(&value.to_string())
    }

    /// Who may open the taps.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// The NICs in the VM's order.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The digest that the commit mark carries. The order of ports does not matter.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut canonical = self.clone();
        canonical.interfaces.iter_mut().for_each(|interface| interface.ports.sort_unstable());
        // Serialising our own derived types to memory cannot fail; an empty text would only change the digest.
        let text = serde_json::to_vec(&canonical).unwrap_or_default();
        let mut digest = [0; 8];
        digest.copy_from_slice(&Sha256::digest(text)[..8]);
        Digest(digest)
    }

    fn check(&self) -> Result<(), RequestError> {
        if self.version != Self::VERSION {
            return Err(rule("version", format!("{} is unknown, 1 is the only version", self.version)));
        }
        // The kernel takes an owner of all ones for "no owner": every user could attach to the tap.
        if self.owner.uid == u32::MAX || self.owner.gid == u32::MAX {
            return Err(rule("owner", "4294967295 means no owner and is not allowed"));
        }
        if self.interfaces.len() > Self::MAX_INTERFACES {
            return Err(rule("interfaces", format!("{} given, at most 16 are allowed", self.interfaces.len())));
        }
        let ports: usize = self.interfaces.iter().map(|interface| interface.ports.len()).sum();
        if ports > Self::MAX_PORTS {
            return Err(rule("interfaces", format!("{ports} ports declared, at most 1024 are allowed")));
        }
        self.interfaces.iter().enumerate().try_for_each(|(index, interface)| interface.check(index))?;
        self.check_names()?;
        self.check_taps()?;
        self.check_subnets()
    }

    fn check_names(&self) -> Result<(), RequestError> {
        let (mut names, mut pod_interfaces, mut taps) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (index, interface) in self.interfaces.iter().enumerate() {
            if !names.insert(interface.name.as_str()) {
                return Err(at(index, "name", format!("{:?} is used twice", interface.name)));
            }
            if !pod_interfaces.insert(&interface.pod_interface) {
                return Err(at(index, "podInterface", format!("{} is used twice", interface.pod_interface)));
            }
            if !taps.insert(NicKey::of(&interface.pod_interface).ok().map(|nic| nic.service_tap())) {
                return Err(at(
                    index,
                    "podInterface",
                    format!("{} gives the same tap name as another", interface.pod_interface),
                ));
            }
        }
        Ok(())
    }

    /// A tap must not have the name of something that the pod has already.
    fn check_taps(&self) -> Result<(), RequestError> {
        let is_pod_interface = |tap: &IfName| self.interfaces.iter().any(|interface| interface.pod_interface == *tap);
        for (index, interface) in self.interfaces.iter().enumerate() {
            let Ok(nic) = NicKey::of(&interface.pod_interface) else { continue };
            let taps = [nic.masquerade_tap(), nic.bridge_tap(), nic.service_tap()];
            if let Some(tap) = taps.into_iter().find(is_pod_interface) {
                let broken =
                    format!("{} may need a tap {tap}, and that is another's podInterface", interface.pod_interface);
                return Err(at(index, "podInterface", broken));
            }
        }
        Ok(())
    }

    fn check_subnets(&self) -> Result<(), RequestError> {
        let masqueraded: Vec<_> = self.interfaces.iter().filter(|i| i.binding == Binding::Masquerade).collect();
        for (count, interface) in masqueraded.iter().enumerate() {
            for earlier in &masqueraded[..count] {
                if interface.subnet().overlaps(earlier.subnet()) || interface.subnet6().overlaps(earlier.subnet6()) {
                    let path = format!("interfaces[{}].cidr", self.index_of(interface));
                    return Err(rule(&path, format!("overlaps the subnet of interface {:?}", earlier.name)));
                }
            }
        }
        Ok(())
    }

    fn index_of(&self, interface: &Interface) -> usize {
        self.interfaces.iter().position(|i| i.name == interface.name).unwrap_or_default()
    }
}

impl Interface {
    /// A NIC with defaults for all that is optional.
    #[must_use]
    pub fn new(name: &str, pod_interface: IfName, binding: Binding) -> Self {
        let (mac, cidr, cidr6, mesh, mtu) = (None, None, None, None, None);
        let name = name.to_owned();
        let (queues, ports, without_service) = (Queues::ONE, Vec::new(), false);
        Self { name, pod_interface, binding, mac, queues, cidr, cidr6, ports, mesh, mtu, without_service }
    }

    /// The guest's IPv4 subnet behind a masquerade NIC.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Network {
        const DEFAULT: Ipv4Network = Ipv4Network::new_checked(std::net::Ipv4Addr::new(10, 0, 2, 0), 24).unwrap();
        self.cidr.unwrap_or(DEFAULT)
    }

    /// The guest's IPv6 subnet behind a masquerade NIC.
    #[must_use]
    pub fn subnet6(&self) -> Ipv6Network {
        const DEFAULT: Ipv6Network =
            Ipv6Network::new_checked(std::net::Ipv6Addr::new(0xfd10, 0, 2, 0, 0, 0, 0, 0), 120).unwrap();
        self.cidr6.unwrap_or(DEFAULT)
    }

    fn check(&self, index: usize) -> Result<(), RequestError> {
        let good_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > 63 || !self.name.chars().all(good_name) {
            let shown: String = self.name.chars().take(80).collect();
            return Err(at(index, "name", format!("{shown:?} must be 1 to 63 letters, digits, '-' and '_'")));
        }
        NicKey::of(&self.pod_interface).map_err(|error| at(index, "podInterface", error.to_string()))?;
        if let Some(port) = self.ports.iter().position(|port| port.port == 0) {
            return Err(at(index, &format!("ports[{port}].port"), "0 is not a port".to_owned()));
        }
        if self.binding != Binding::Masquerade {
            self.check_masquerade_only(index)?;
        }
        GuestSubnet::v4(self.subnet()).ok_or_else(|| too_small(index, "cidr", &self.subnet().to_string(), 30))?;
        GuestSubnet::v6(self.subnet6()).ok_or_else(|| too_small(index, "cidr6", &self.subnet6().to_string(), 126))?;
        for (field, subnet) in [("cidr", self.subnet().into()), ("cidr6", self.subnet6().into())] {
            if let Some(what) = reserved(subnet) {
                return Err(at(index, field, format!("{subnet} contains {what}")));
            }
        }
        Ok(())
    }

    fn check_masquerade_only(&self, index: usize) -> Result<(), RequestError> {
        let given = [
            ("cidr", self.cidr.is_some()),
            ("cidr6", self.cidr6.is_some()),
            ("ports", !self.ports.is_empty()),
            ("mesh", self.mesh.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(at(index, field, "only a masquerade binding has it".to_owned())),
            None => Ok(()),
        }
    }
}

/// Names of unknown fields are anybody's text: enough of it is shown to find it.
fn shortened(text: &str) -> String {
    const MOST_CHARS: usize = 200;
    let mut short: String = text.chars().take(MOST_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn too_small(index: usize, field: &str, cidr: &str, longest: u8) -> RequestError {
    at(index, field, format!("{cidr} leaves no room for gateway and guest, the prefix may be at most /{longest}"))
}

fn at(index: usize, field: &str, broken: String) -> RequestError {
    rule(&format!("interfaces[{index}].{field}"), broken)
}

fn rule(path: &str, rule: impl Into<String>) -> RequestError {
    RequestError::Rule { path: path.to_owned(), rule: rule.into() }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        f.write_str(&digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect::<String>())
    }
}

impl FromStr for Digest {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let lower_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        u64::from_str_radix(text, 16)
            .ok()
            .filter(|_| text.len() == 16 && text.bytes().all(lower_hex))
            .map(|number| Self(number.to_be_bytes()))
            .ok_or_else(|| Invalid::new("digest", text, "must be 16 lower-case hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"version":1,"owner":{"uid":107,"gid":107},"interfaces":[
        {"name":"default","podInterface":"eth0","binding":"masquerade","queues":2,"cidr":"10.9.0.0/24",
         "cidr6":"fd10:9::/120","ports":[{"protocol":"TCP","port":80},{"port":22}],"mesh":"istio"},
        {"name":"blue","podInterface":"pod16477688c0e","binding":"bridge","mac":"02:00:00:00:00:09","mtu":1400},
        {"name":"fast","podInterface":"net2","binding":"sriov"}]}"#;

    const PAGE: &str = include_str!("../README.md");

    fn refusal(interfaces: &str) -> String {
        let text = format!(r#"{{"version":1,"owner":{{"uid":107,"gid":107}},"interfaces":[{interfaces}]}}"#);
        Request::parse(&text).unwrap_err().to_string()
    }

    #[test]
    fn a_full_request_is_read() {
        let request = Request::parse(FULL).unwrap();
        assert_eq!(request.interfaces().len(), 3);
        assert_eq!(request.interfaces()[0].ports[1].protocol, Protocol::Tcp);
        assert_eq!(request.interfaces()[0].queues.value(), 2);
    }

    #[test]
    fn the_page_shows_a_request_and_names_every_field() {
        let (_, shown) = PAGE.split_once("```json\n").unwrap();
        Request::parse(shown.split("```").next().unwrap()).unwrap();
        let mut full = Request::parse(FULL).unwrap();
        full.interfaces[0].mac = full.interfaces[1].mac;
        full.interfaces[0].mtu = full.interfaces[1].mtu;
        let full = serde_json::to_value(full).unwrap();
        let objects = [&full, &full["interfaces"][0]].map(|object| object.as_object().unwrap());
        let fields: Vec<_> = objects.into_iter().flat_map(serde_json::Map::keys).collect();
        assert_eq!(fields.len(), 13);
        for field in fields {
            assert!(PAGE.contains(&format!("\n| `{field}` | ")), "{field}");
        }
    }

    #[test]
    fn text_and_value_give_the_same_request_and_digest() {
        let value: serde_json::Value = serde_json::from_str(FULL).unwrap();
        let (text, value) = (Request::parse(FULL).unwrap(), Request::from_value(&value).unwrap());
        assert_eq!(text, value);
        assert_eq!(text.digest(), value.digest());
    }

    #[test]
    fn the_order_of_ports_does_not_change_the_digest_but_a_port_does() {
        let digest = |text: &str| Request::parse(text).unwrap().digest();
        let swapped = FULL.replace(r#"{"protocol":"TCP","port":80},{"port":22}"#, r#"{"port":22},{"port":80}"#);
        assert_eq!(digest(FULL), digest(&swapped));
        assert_ne!(digest(FULL), digest(&FULL.replace("80", "81")));
    }

    // spec: CNI-CONF
    #[test]
    fn shape_errors_name_the_path() {
        let error = refusal(r#"{"name":"a","podInterface":"eth0","binding":"masquerade","color":"red"}"#);
        assert!(error.starts_with("interfaces[0].color: unknown field `color`"), "{error}");
        let error = refusal(r#"{"name":"a","podInterface":"eth0","binding":"bridge","mac":"zz"}"#);
        assert!(error.starts_with("interfaces[0].mac: MAC address \"zz\""), "{error}");
    }

    #[test]
    fn a_long_name_of_an_unknown_field_is_not_echoed() {
        let error =
            refusal(&format!(r#"{{"name":"a","podInterface":"eth0","binding":"bridge","{}":1}}"#, "x".repeat(9000)));
        assert!(error.starts_with("interfaces[0].xxx") && error.len() < 500, "{error}");
    }

    #[test]
    fn rules_name_the_path() {
        let cases = [
            (r#"{"name":"a b","podInterface":"eth0","binding":"bridge"}"#, "interfaces[0].name: \"a b\" must be"),
            (
                r#"{"name":"a","podInterface":"eth0","binding":"bridge","ports":[{"port":1}]}"#,
                "interfaces[0].ports: only a masquerade",
            ),
            (
                r#"{"name":"a","podInterface":"eth0","binding":"masquerade","ports":[{"port":0}]}"#,
                "interfaces[0].ports[0].port: 0",
            ),
            (
                r#"{"name":"a","podInterface":"eth0","binding":"masquerade","cidr":"10.0.0.0/31"}"#,
                "interfaces[0].cidr: 10.0.0.0/31 leaves",
            ),
            (
                r#"{"name":"a","podInterface":"eth0","binding":"masquerade","cidr":"224.0.2.0/24"}"#,
                "interfaces[0].cidr: 224.0.2.0/24 contains multicast addresses",
            ),
            (
                r#"{"name":"a","podInterface":"a-long-pod-name","binding":"bridge"}"#,
                "interfaces[0].podInterface: pod interface",
            ),
            (
                r#"{"name":"a","podInterface":"eth0","binding":"bridge"},{"name":"a","podInterface":"net1","binding":"bridge"}"#,
                "interfaces[1].name: \"a\" is used twice",
            ),
            (
                r#"{"name":"a","podInterface":"eth0","binding":"bridge"},{"name":"b","podInterface":"eth0","binding":"bridge"}"#,
                "interfaces[1].podInterface: eth0 is used",
            ),
            (
                r#"{"name":"a","podInterface":"eth0","binding":"masquerade"},{"name":"b","podInterface":"k6t-eth0","binding":"bridge"}"#,
                "interfaces[0].podInterface: eth0 may need a tap k6t-eth0, and",
            ),
            (
                r#"{"name":"a","podInterface":"eth0","binding":"masquerade"},{"name":"b","podInterface":"net1","binding":"masquerade"}"#,
                "interfaces[1].cidr: overlaps the subnet of interface \"a\"",
            ),
        ];
        for (interfaces, start) in cases {
            let error = refusal(interfaces);
            assert!(error.starts_with(start), "{error}");
        }
    }

    #[test]
    fn wrong_sizes_versions_and_owners_are_refused() {
        assert_eq!(Request::parse(&" ".repeat(70_000)).unwrap_err(), RequestError::TooLarge(70_000));
        let error = Request::parse(r#"{"version":2,"owner":{"uid":1,"gid":1},"interfaces":[]}"#).unwrap_err();
        assert!(error.to_string().starts_with("version: 2"), "{error}");
        let error = Request::parse(r#"{"version":1,"owner":{"uid":4294967295,"gid":1},"interfaces":[]}"#).unwrap_err();
        assert!(error.to_string().starts_with("owner:"), "{error}");
    }
}
