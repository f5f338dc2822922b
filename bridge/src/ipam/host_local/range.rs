//! Ranges of addresses, and the order in which they are handed out.

use std::fmt;
use std::net::IpAddr;

use cni_protocol::spec::{Code, Error};
use serde::Deserialize;
use terms::IpNetwork;

/// A range as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawRange {
    pub(super) subnet: String,
    pub(super) range_start: Option<String>,
    pub(super) range_end: Option<String>,
    pub(super) gateway: Option<String>,
}

/// Addresses of one subnet, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) subnet: IpNetwork,
    /// Never handed out.
    pub(super) gateway: IpAddr,
    first: u128,
    last: u128,
}

/// Ranges of one family, of which an owner has one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RangeSet {
    ranges: Vec<Range>,
}

impl Range {
    fn check(raw: &RawRange) -> Result<Self, String> {
        let subnet: IpNetwork =
            raw.subnet.parse().map_err(|_| format!("subnet {:?}: must be a network", raw.subnet))?;
        if subnet.ip() != subnet.network() {
            return Err(format!("subnet {subnet}: has host bits, expected {}/{}", subnet.network(), subnet.prefix()));
        }
        let bits = if subnet.is_ipv4() { 32 } else { 128 };
        if u32::from(subnet.prefix()) + 2 > bits {
            return Err(format!("subnet {subnet}: has no address besides its gateway's"));
        }
        let size = 1_u128.checked_shl(bits - u32::from(subnet.prefix())).unwrap_or(0);
        let base = number(subnet.network());
        // The last address of an IPv4 network is its broadcast address.
        let end = base.wrapping_add(size).wrapping_sub(if subnet.is_ipv4() { 2 } else { 1 });
        let inside = |field: &str, text: &Option<String>, default: u128| match text.as_deref() {
            None | Some("") => Ok(default),
            Some(text) => match text.parse::<IpAddr>() {
                Ok(address) if subnet.contains(address) => Ok(number(address)),
                _ => Err(format!("{field} {text:?}: must be an address of {subnet}")),
            },
        };
        let gateway = inside("gateway", &raw.gateway, base + 1)?;
        let first = inside("rangeStart", &raw.range_start, base + 1)?;
        let last = inside("rangeEnd", &raw.range_end, end)?;
        if first > last {
            return Err(format!(
                "rangeStart {} is behind rangeEnd {}",
                address(first, &subnet),
                address(last, &subnet)
            ));
        }
        Ok(Self { gateway: address(gateway, &subnet), subnet, first, last })
    }

    fn holds(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.subnet.is_ipv4() && (self.first..=self.last).contains(&number(address))
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.subnet.is_ipv4() == other.subnet.is_ipv4() && self.first <= other.last && other.first <= self.last
    }
}

impl RangeSet {
    /// Checks a set as it is written.
    pub(super) fn check(raw: &[RawRange]) -> Result<Self, String> {
        let ranges: Vec<Range> = raw.iter().map(Range::check).collect::<Result<_, _>>()?;
        let Some(first) = ranges.first() else { return Err("has no range".to_owned()) };
        if ranges.iter().any(|range| range.subnet.is_ipv4() != first.subnet.is_ipv4()) {
            return Err("mixes IPv4 and IPv6: each family is a set of its own".to_owned());
        }
        for (index, one) in ranges.iter().enumerate() {
            if let Some(other) = ranges.iter().skip(index + 1).find(|other| one.overlaps(other)) {
                return Err(format!("ranges of {} and {} overlap", one.subnet, other.subnet));
            }
        }
        Ok(Self { ranges })
    }

    /// The range that holds an address.
    pub(super) fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.holds(address))
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.ranges.iter().any(|one| other.ranges.iter().any(|two| one.overlaps(two)))
    }

    /// An address that was asked for, if it can be had.
    pub(super) fn checked(&self, address: IpAddr, is_free: impl Fn(IpAddr) -> bool) -> Result<IpAddr, Error> {
        let refuse = |why: &str| Err(Error::new(Code::INVALID_CONFIG, format!("address {address} {why}")));
        match self.range_of(address) {
            Some(range) if range.gateway == address => refuse("is the gateway's"),
            Some(_) if is_free(address) => Ok(address),
            Some(_) => refuse("is reserved by another container"),
            None => refuse("is in none of the ranges"),
        }
    }

    /// All addresses but the gateways', each once, beginning behind the one that was handed out last: a container that fails
    /// again and again does not meet the same address until all others had their turn.
    pub(super) fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = IpAddr> + '_ {
        let from =
            last.and_then(|last| self.ranges.iter().position(|range| range.holds(last)).map(|at| (at, number(last))));
        let (at, last) = match from {
            Some((at, last)) => (at, Some(last)),
            None => (0, None),
        };
        let rest = self.ranges.get(at).into_iter().flat_map(move |range| {
            let first = last.map_or(Some(range.first), |last| last.checked_add(1));
            first.into_iter().flat_map(move |first| addresses(range, first, range.last))
        });
        let others = self.ranges.iter().skip(at + 1).chain(self.ranges.iter().take(at));
        let others = others.flat_map(|range| addresses(range, range.first, range.last));
        let begun = self
            .ranges
            .get(at)
            .into_iter()
            .flat_map(move |range| last.into_iter().flat_map(move |last| addresses(range, range.first, last)));
        rest.chain(others).chain(begun)
    }
}

fn addresses(range: &Range, first: u128, last: u128) -> impl Iterator<Item = IpAddr> + '_ {
    (first..=last).map(|number| address(number, &range.subnet)).filter(|address| *address != range.gateway)
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            write!(f, "{} to {}", address(range.first, &range.subnet), address(range.last, &range.subnet))?;
        }
        Ok(())
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// The address of a number, of the family of a subnet.
fn address(number: u128, like: &IpNetwork) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if like.is_ipv4() => IpAddr::V4(number.into()),
        _ => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(ranges: Value) -> Result<RangeSet, String> {
        RangeSet::check(&serde_json::from_value::<Vec<RawRange>>(ranges).unwrap())
    }

    fn all(set: &RangeSet, last: Option<&str>) -> Vec<String> {
        set.after(last.map(|last| last.parse().unwrap())).map(|address| address.to_string()).collect()
    }

    // spec: L2-IPAM-1
    #[test]
    fn addresses_follow_the_last_one_and_each_comes_once() {
        let one = set(json!([{"subnet": "10.0.0.0/29"}])).unwrap();
        assert_eq!(all(&one, None), ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(all(&one, Some("10.0.0.4")), ["10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3", "10.0.0.4"]);
        assert_eq!(all(&one, Some("10.9.0.4")).len(), 5, "of ranges that are no longer configured");
        let two = set(
            json!([{"subnet": "10.0.0.0/29", "rangeStart": "10.0.0.5"}, {"subnet": "10.1.0.0/30", "gateway": "10.1.0.2"}]),
        );
        let two = two.unwrap();
        assert_eq!(all(&two, Some("10.0.0.6")), ["10.1.0.1", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(all(&two, Some("10.1.0.1")), ["10.0.0.5", "10.0.0.6", "10.1.0.1"]);
        let six = set(json!([{"subnet": "fd00::/64"}])).unwrap();
        assert_eq!(six.after(None).next(), Some("fd00::2".parse().unwrap()));
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused_by_value() {
        for (ranges, expected) in [
            (json!([]), "has no range"),
            (json!([{"subnet": "10.0.0.1/24"}]), "subnet 10.0.0.1/24: has host bits"),
            (json!([{"subnet": "10.0.0.0/31"}]), "subnet 10.0.0.0/31: has no address"),
            (json!([{"subnet": "10.0.0.0/24", "rangeEnd": "10.0.1.5"}]), "rangeEnd \"10.0.1.5\": must be"),
            (
                json!([{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.5"}]),
                "rangeStart 10.0.0.9",
            ),
            (json!([{"subnet": "10.0.0.0/24"}, {"subnet": "fd00::/64"}]), "mixes IPv4 and IPv6"),
            (json!([{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.0/25"}]), "ranges of 10.0.0.0/24"),
        ] {
            let error = set(ranges.clone()).unwrap_err();
            assert!(error.starts_with(expected), "{ranges}: {error}");
        }
        assert!(set(json!([{"subnet": "::/0"}])).is_ok());
    }
}
