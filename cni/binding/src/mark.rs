//! What a tap says about itself: its link group, the commit mark in its alias, and the keys of what the mark keeps.

use hostnet::facts::Link;
use terms::IfName;
use wiring::{Digest, Mark};

/// Link groups of attachments begin here and go on to twice that: away from 0, which all links are in, and from the small
/// numbers that people use.
pub(crate) const FIRST_GROUP: u32 = 0x4000_0000;

/// The mark of a link, provisional or committed.
pub(crate) fn mark(link: &Link) -> Option<Mark> {
    link.alias.as_deref()?.parse().ok()
}

/// The link group of a NIC's taps: that of the attachment that made them, which may be another one with the same
/// request. `own` is the group of this attachment.
pub(crate) fn group(tap: Option<&Link>, mark: Option<&Mark>, digest: Digest, own: u32) -> u32 {
    let is_met = |mark: &Mark| mark.is_committed() && mark.digest() == digest;
    let maker = tap.filter(|_| mark.is_some_and(is_met)).map(|link| link.group);
    maker.filter(|group| (FIRST_GROUP..2 * FIRST_GROUP).contains(group)).unwrap_or(own)
}

const MAC_KEY: &str = "mac/";

/// The key under which a mark keeps the earlier Ethernet address of a pod interface.
pub(crate) fn mac_key(pod_interface: &IfName) -> String {
    format!("{MAC_KEY}{pod_interface}")
}

/// The pod interface of such a key.
pub(crate) fn mac_key_link(key: &str) -> Option<IfName> {
    key.strip_prefix(MAC_KEY)?.parse().ok()
}

const MULTICAST_KEY: &str = "allmulti/";

/// The only value there: who had all multicast frames before has nothing to get back.
pub(crate) const OFF: &str = "off";

/// The key under which a mark keeps that a pod interface took only the multicast groups it was in.
pub(crate) fn multicast_key(pod_interface: &IfName) -> String {
    format!("{MULTICAST_KEY}{pod_interface}")
}

/// The pod interface of such a key.
pub(crate) fn multicast_key_link(key: &str) -> Option<IfName> {
    key.strip_prefix(MULTICAST_KEY)?.parse().ok()
}
