//! The result of ADD (specification section 5, "Success"), converted from and to every version.
//!
//! Inside, a result has the shape of the newest version; what an older one lacks is left out on the way out.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use terms::IpNetwork;

use super::{UnknownVersion, Version};

/// What a network gave to a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CniResult {
    /// Links, on the host and in the container.
    pub interfaces: Vec<Interface>,
    /// Addresses in the container, both families mixed.
    pub ips: Vec<IpConfig>,
    /// Routes that the plugins made in the container.
    pub routes: Vec<Route>,
    /// Servers and search domains; Kubernetes does not use them.
    pub dns: Dns,
}

/// A result as it is written.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "cniVersion")]
    version: Option<Value>,
    #[serde(default, deserialize_with = "absent_if_null")]
    interfaces: Vec<Interface>,
    #[serde(default, deserialize_with = "absent_if_null")]
    ips: Vec<IpConfig>,
    #[serde(default, deserialize_with = "absent_if_null")]
    routes: Vec<Route>,
    #[serde(default, deserialize_with = "absent_if_null")]
    dns: Dns,
}

/// A link. Its fields are another plugin's words and are passed on as they came, so they are text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// Unique in its namespace alone.
    #[serde(deserialize_with = "absent_if_null")]
    pub name: String,
    /// Its hardware address, of any kind of link.
    #[serde(deserialize_with = "absent_if_null", skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Largest payload in bytes; 0 if not said.
    #[serde(deserialize_with = "absent_if_null", skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// The namespace it is in; empty for the host's.
    #[serde(deserialize_with = "absent_if_null", skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// The socket of a vhost-user interface.
    #[serde(deserialize_with = "absent_if_null", skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// The PCI address of a function.
    #[serde(rename = "pciID", deserialize_with = "absent_if_null", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address and where it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfig {
    /// The address with its prefix length.
    pub address: IpNetwork,
    /// The gateway of its subnet.
    #[serde(default, deserialize_with = "absent_if_empty", skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Index into the interfaces; 0 is an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination; a prefix of length 0 is a default route.
    pub dst: IpNetwork,
    /// The next hop; without one, the gateway of the address of the same family.
    #[serde(default, deserialize_with = "absent_if_empty", skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes; 0 if not said.
    #[serde(default, deserialize_with = "absent_if_null", skip_serializing_if = "is_zero")]
    pub mtu: u32,
    /// TCP maximum segment size to advertise in bytes; 0 if not said.
    #[serde(default, deserialize_with = "absent_if_null", skip_serializing_if = "is_zero")]
    pub advmss: u32,
    /// Metric; 0 if not said.
    #[serde(default, deserialize_with = "absent_if_null", skip_serializing_if = "is_zero")]
    pub priority: u32,
    /// Routing table; 0 is a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Scope; 0 is a scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u32>,
}

/// The `dns` key of a result: what `/etc/resolv.conf` would hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers, as text: a name would be wrong but is not ours to refuse.
    #[serde(deserialize_with = "absent_if_null", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain; empty for none.
    #[serde(deserialize_with = "absent_if_null", skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// In the order of search.
    #[serde(deserialize_with = "absent_if_null", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Resolver options, as in resolv.conf(5).
    #[serde(deserialize_with = "absent_if_null", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Why a document is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// Its version is not spoken.
    #[error(transparent)]
    Version(#[from] UnknownVersion),
    /// A key is missing or of another type than in that version.
    #[error("result: {path}: {reason}")]
    Shape {
        /// Path of the key, such as `ips[0].address`.
        path: String,
        /// What was expected and found.
        reason: String,
    },
}

impl CniResult {
    /// Reads a result of any version, and the version that it names. One without `cniVersion` is of the version `assumed`, that
    /// of its configuration.
    ///
    /// # Errors
    /// When the version is not spoken or the text is no result.
    pub fn from_text(text: &str, assumed: Version) -> Result<(Self, Option<Version>), ResultError> {
        // Nothing that older versions add has to be kept: an address says by itself which family it is of.
        if !text.trim_start().starts_with('{') {
            return Err(ResultError::Shape { path: ".".to_owned(), reason: "must be an object".to_owned() });
        }
        match serde_json::from_str::<Document>(text) {
            Ok(Document { version, interfaces, ips, routes, dns }) => {
                let version = version.as_ref().and_then(Value::as_str).filter(|version| !version.is_empty());
                let version = version.map(str::parse).transpose()?;
                Ok((Self { interfaces, ips, routes, dns }, version))
            }
            Err(error) => {
                // A version that is not spoken may have another shape: that is what to report then.
                Self::version_of(&serde_json::from_str(text).unwrap_or_default(), assumed)?;
                let reason = error.to_string();
                let path = terms::json_path(text.as_bytes(), error.line(), error.column(), &reason);
                Err(ResultError::Shape { path, reason })
            }
        }
    }

    /// Reads a result that is a JSON value already.
    ///
    /// # Errors
    /// As [`CniResult::from_text`].
    pub fn from_document(document: &Value, assumed: Version) -> Result<Self, ResultError> {
        Self::from_text(&document.to_string(), assumed).map(|(result, _)| result)
    }

    /// The version in which a result document is written.
    ///
    /// # Errors
    /// When it is not spoken.
    pub fn version_of(document: &Value, assumed: Version) -> Result<Version, UnknownVersion> {
        match document.get("cniVersion").and_then(Value::as_str) {
            None | Some("") => Ok(assumed),
            Some(text) => text.parse(),
        }
    }

    /// The document in the given version.
    #[must_use]
    pub fn to_document(&self, version: Version) -> Value {
        let mut document = Map::new();
        document.insert("cniVersion".to_owned(), version.as_str().into());
        insert_list(&mut document, "interfaces", self.interfaces.iter().map(|link| link.to_document(version)));
        insert_list(&mut document, "ips", self.ips.iter().map(|ip| ip.to_document(version)));
        insert_list(&mut document, "routes", self.routes.iter().map(|route| route.to_document(version)));
        if self.dns != Dns::default() {
            document.insert("dns".to_owned(), to_value(&self.dns));
        }
        Value::Object(document)
    }
}

impl Interface {
    fn to_document(&self, version: Version) -> Value {
        match version {
            Version::V1_1_0 => to_value(self),
            _ => to_value(&Self { mtu: 0, socket_path: String::new(), pci_id: String::new(), ..self.clone() }),
        }
    }
}

impl IpConfig {
    fn to_document(&self, version: Version) -> Value {
        let mut document = to_value(self);
        if version < Version::V1_0_0 {
            document["version"] = if self.address.is_ipv4() { "4" } else { "6" }.into();
        }
        document
    }
}

impl Route {
    fn to_document(&self, version: Version) -> Value {
        match version {
            Version::V1_1_0 => to_value(self),
            _ => {
                to_value(&Self { dst: self.dst, gw: self.gw, mtu: 0, advmss: 0, priority: 0, table: None, scope: None })
            }
        }
    }
}

fn insert_list(document: &mut Map<String, Value>, key: &str, items: impl ExactSizeIterator<Item = Value>) {
    if items.len() > 0 {
        document.insert(key.to_owned(), items.collect());
    }
}

/// Our own plain structs always have a JSON form; were it otherwise, a field would read `null`.
fn to_value(part: &impl Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Go writes `null` for an empty slice, and reads it as the empty value of any field.
fn absent_if_null<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(source: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(source)?.unwrap_or_default())
}

/// Go writes `""` for an absent address.
fn absent_if_empty<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(source)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn newest() -> Value {
        json!({"cniVersion": "1.1.0",
            "interfaces": [{"name": "cni0", "mac": "02:00:00:00:00:01"},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1450, "sandbox": "/run/netns/a", "pciID": "0000:01:00.0"}],
            "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 0}, {"address": "fd00::5/64"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "table": 0}],
            "dns": {"nameservers": ["10.96.0.10"], "search": ["a.b"]}})
    }

    #[test]
    fn the_newest_version_comes_out_as_it_went_in() {
        let result = CniResult::from_document(&newest(), Version::V1_1_0).unwrap();
        assert_eq!(result.to_document(Version::V1_1_0), newest());
    }

    #[test]
    fn older_versions_lose_what_they_do_not_have() {
        let result = CniResult::from_document(&newest(), Version::V1_1_0).unwrap();
        let old = result.to_document(Version::V0_4_0);
        assert_eq!(
            old["ips"][0],
            json!({"version": "4", "address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 0})
        );
        assert_eq!(old["ips"][1], json!({"version": "6", "address": "fd00::5/64"}));
        assert_eq!(old["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.1.0.1"}));
        assert_eq!(
            old["interfaces"][1],
            json!({"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"})
        );
        assert!(result.to_document(Version::V1_0_0)["ips"][0].get("version").is_none());
    }

    // spec: CNI-VER
    #[test]
    fn every_version_gives_the_same_addresses_back() {
        let result = CniResult::from_document(&newest(), Version::V1_1_0).unwrap();
        for version in Version::ALL {
            let document = result.to_document(version);
            assert_eq!(document["cniVersion"], version.as_str());
            assert_eq!(CniResult::from_document(&document, Version::NEWEST).unwrap().ips, result.ips);
        }
    }

    #[test]
    fn nulls_and_empty_words_of_other_writers_are_absent() {
        let document = json!({"interfaces": null, "ips": [{"address": "10.0.0.1/8", "gateway": ""}], "dns": null});
        let result = CniResult::from_document(&document, Version::V1_0_0).unwrap();
        assert_eq!((result.interfaces.len(), result.ips[0].gateway), (0, None));
        assert_eq!(result.dns, Dns::default());
        let document = json!({"interfaces": [{"name": "eth0", "mac": null, "mtu": null, "socketPath": null}],
            "routes": [{"dst": "0.0.0.0/0", "gw": null, "mtu": null}], "dns": {"domain": null, "search": null}});
        let result = CniResult::from_document(&document, Version::V1_1_0).unwrap();
        assert_eq!((result.interfaces[0].mtu, result.routes[0].gw), (0, None));
    }

    #[test]
    fn what_is_no_result_is_refused_by_path() {
        let refusal = |document| CniResult::from_document(&document, Version::V1_0_0).unwrap_err().to_string();
        assert!(refusal(json!({"ips": [{"address": "nonsense"}]})).starts_with("result: ips[0].address: "));
        for no_object in [json!(5), json!([]), json!("x")] {
            assert_eq!(refusal(no_object), "result: .: must be an object");
        }
        assert!(refusal(json!({"cniVersion": "0.2.0"})).contains("\"0.2.0\""));
    }
}
