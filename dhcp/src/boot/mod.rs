//! Which boot file a client gets: by its architecture, its vendor class, and whether it is iPXE already.

use std::net::Ipv4Addr;

/// What a client says of itself when it boots from the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BootClient<'a> {
    /// The first architecture of option 93 (RFC 4578 §2.1), as IANA numbers them; `None` of a client that sends none.
    pub architecture: Option<u16>,
    /// Option 60.
    pub vendor_class: &'a [u8],
    /// Whether it is iPXE, by its user class (option 77) or its own options (175).
    pub is_ipxe: bool,
}

/// A boot answer and the clients that get it. A condition that is empty holds for every client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BootRule {
    /// Architectures, as in option 93.
    pub architectures: Vec<u16>,
    /// The beginning of the vendor class.
    pub vendor_class: Option<String>,
    /// For iPXE alone. An iPXE client gets another rule only where no rule for iPXE holds.
    pub ipxe: bool,
    /// The boot file: a name on the boot server, or a URL.
    pub file: String,
    /// The boot server; the DHCP server itself if absent.
    pub server: Option<String>,
}

impl BootRule {
    fn holds_for(&self, client: &BootClient<'_>) -> bool {
        let is_of = |architecture: Option<u16>| architecture.is_some_and(|one| self.architectures.contains(&one));
        (self.architectures.is_empty() || is_of(client.architecture))
            && self.vendor_class.as_ref().is_none_or(|class| client.vendor_class.starts_with(class.as_bytes()))
    }

    /// Whether its file is a URL, which UEFI's HTTP boot takes and PXE does not.
    #[must_use]
    pub fn is_url(&self) -> bool {
        self.file.contains("://")
    }

    /// The boot server that a client is told: `own` unless the rule names another. A URL names its own server.
    pub(crate) fn server_or(&self, own: Ipv4Addr) -> Option<String> {
        self.server.clone().or_else(|| (!self.is_url()).then(|| own.to_string()))
    }
}

/// The first rule that holds for the client. Rules for iPXE come before all others for an iPXE client, wherever they are in the
/// list: so firmware that is sent iPXE gets its script afterwards, and never iPXE again.
#[must_use]
pub fn choose<'a>(rules: &'a [BootRule], client: &BootClient<'_>) -> Option<&'a BootRule> {
    let of = |ipxe: bool| rules.iter().find(|rule| rule.ipxe == ipxe && rule.holds_for(client));
    if client.is_ipxe { of(true).or_else(|| of(false)) } else { of(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(architectures: &[u16], vendor_class: Option<&str>, ipxe: bool, file: &str) -> BootRule {
        let (architectures, vendor_class) = (architectures.to_vec(), vendor_class.map(str::to_owned));
        BootRule { architectures, vendor_class, ipxe, file: file.to_owned(), server: None }
    }

    fn client(architecture: u16, vendor_class: &str, is_ipxe: bool) -> BootClient<'_> {
        BootClient { architecture: Some(architecture), vendor_class: vendor_class.as_bytes(), is_ipxe }
    }

    // spec: BOOT-5
    #[test]
    fn a_client_is_answered_by_architecture_vendor_class_and_ipxe() {
        let rules = [
            rule(&[16], Some("HTTPClient"), false, "http://10.0.0.1/shim.efi"),
            rule(&[7, 9], None, false, "ipxe.efi"),
            rule(&[0], None, false, "undionly.kpxe"),
            rule(&[], None, true, "boot.ipxe"),
        ];
        let file = |client| choose(&rules, &client).map(|rule| rule.file.as_str());
        assert_eq!(file(client(0, "PXEClient:Arch:00000", false)), Some("undionly.kpxe"));
        assert_eq!(file(client(7, "PXEClient:Arch:00007", false)), Some("ipxe.efi"));
        assert_eq!(file(client(16, "HTTPClient:Arch:00016", false)), Some("http://10.0.0.1/shim.efi"));
        assert_eq!(file(client(16, "PXEClient", false)), None);
        assert_eq!(file(BootClient::default()), None);
    }

    // spec: BOOT-5
    #[test]
    fn ipxe_gets_its_script_once_wherever_the_rule_is() {
        let mut rules = vec![rule(&[0], None, false, "undionly.kpxe"), rule(&[], None, true, "boot.ipxe")];
        for _ in 0..2 {
            assert_eq!(choose(&rules, &client(0, "PXEClient", true)).unwrap().file, "boot.ipxe");
            assert_eq!(choose(&rules, &client(0, "PXEClient", false)).unwrap().file, "undionly.kpxe");
            rules.reverse();
        }
        rules.retain(|rule| !rule.ipxe);
        assert_eq!(choose(&rules, &client(0, "PXEClient", true)).unwrap().file, "undionly.kpxe");
    }
}
