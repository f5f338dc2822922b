//! What the kernel says of the link that is served.

use std::net::Ipv4Addr;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::sys::socket::LinkAddr;
use terms::{IfName, MacAddr};

/// The link.
#[derive(Debug, Clone)]
pub(crate) struct Interface {
    pub(crate) name: IfName,
    /// Where packets of the link are sent to and received from.
    pub(crate) link: LinkAddr,
    pub(crate) mac: MacAddr,
    pub(crate) address: Ipv4Addr,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum InterfaceError {
    #[error("cannot list the interfaces")]
    List(#[source] nix::Error),
    #[error("interface {0}: there is none of that name")]
    Missing(IfName),
    #[error("interface {0}: it is not an Ethernet")]
    NotEthernet(IfName),
    #[error("interface {0}: it has no IPv4 address; give it one, as the server's own")]
    NoAddress(IfName),
    #[error("address {wanted}: it is not on interface {name}, which has {found}")]
    OtherAddress { wanted: Ipv4Addr, name: IfName, found: String },
}

impl Interface {
    /// Finds the link and its address.
    ///
    /// # Errors
    /// When it is not there, is no Ethernet, or lacks the address.
    pub(crate) fn find(name: &IfName, wanted: Option<Ipv4Addr>) -> Result<Self, InterfaceError> {
        let all = getifaddrs().map_err(InterfaceError::List)?;
        let own: Vec<InterfaceAddress> = all.filter(|one| one.interface_name == name.as_str()).collect();
        if own.is_empty() {
            return Err(InterfaceError::Missing(name.clone()));
        }
        let addresses = own.iter().filter_map(|one| one.address.as_ref());
        let link = addresses.clone().find_map(|address| address.as_link_addr().copied());
        let not_ethernet = || InterfaceError::NotEthernet(name.clone());
        let link = link.ok_or_else(not_ethernet)?;
        let mac = link.addr().and_then(MacAddr::new).ok_or_else(not_ethernet)?;
        let found: Vec<Ipv4Addr> = addresses.filter_map(|one| one.as_sockaddr_in()).map(|one| one.ip()).collect();
        let address = match wanted {
            Some(wanted) if found.contains(&wanted) => wanted,
            Some(wanted) if !found.is_empty() => {
                let found = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(InterfaceError::OtherAddress { wanted, name: name.clone(), found });
            }
            _ => *found.first().ok_or_else(|| InterfaceError::NoAddress(name.clone()))?,
        };
        Ok(Self { name: name.clone(), link, mac, address })
    }
}
