//! Places on the guest's PCI buses.
//!
//! Bus 0 is the root complex. Each bus from 1 on is behind a port of its own, in the order of their numbers, where a device is
//! alone in slot 0, or a conventional bus with slots from 1 on behind such a port and a bridge: that takes two numbers, the bus
//! of the port and the conventional one. High buses are the only ones behind roots of their own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Ports in all, whose buses have the numbers from 1 on.
pub const PCI_PORTS: u8 = 16;
/// The first bus behind a root of its own.
pub const FIRST_HIGH_BUS: u8 = 0x21;
/// Slots of bus 0 that the machine's own devices leave free.
pub const FREE_SLOTS: std::ops::RangeInclusive<u8> = 0x08..=0x1d;
const LAST_SLOT: u8 = 0x1f;

/// A slot of a bus; its device is function 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    /// Number of the bus.
    pub bus: u8,
    /// Number of the slot.
    pub slot: u8,
}

/// Why a text is no place for a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PciAddressError {
    /// Not of the form.
    #[error("must be a PCI address as 0000:01:00.0, found {0:?}")]
    Form(String),
    /// A function beyond the first.
    #[error("must be function 0 of its slot: a device is alone there")]
    Function,
    /// A slot of bus 0 that belongs to the machine.
    #[error("must be in slots 08 to 1d: the machine's own devices have the others of bus 00")]
    Slot,
    /// A bus that no device can ask for.
    #[error("must be on a bus from 00 to 10, or from 21 to ff: those between are not behind ports")]
    Bus,
    /// A conventional bus where none can be.
    #[error("must be in slot 00: only buses 02 to 10 have more slots")]
    SlotOfBus,
}

impl FromStr for PciAddress {
    type Err = PciAddressError;

    fn from_str(text: &str) -> Result<Self, PciAddressError> {
        let form = || PciAddressError::Form(text.chars().take(40).collect());
        let rest = text.strip_prefix("0000:").ok_or_else(form)?;
        let (bus, rest) = rest.split_once(':').ok_or_else(form)?;
        let (slot, function) = rest.split_once('.').ok_or_else(form)?;
        let number = |text: &str| {
            let is_hex = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            u8::from_str_radix(text, 16).ok().filter(|_| is_hex)
        };
        let (bus, slot) = number(bus).zip(number(slot).filter(|slot| *slot <= LAST_SLOT)).ok_or_else(form)?;
        match function {
            "0" => {}
            "1" | "2" | "3" | "4" | "5" | "6" | "7" => return Err(PciAddressError::Function),
            _ => return Err(form()),
        }
        match bus {
            0 if !FREE_SLOTS.contains(&slot) => Err(PciAddressError::Slot),
            0 => Ok(Self { bus, slot }),
            1..=PCI_PORTS | FIRST_HIGH_BUS.. if slot == 0 => Ok(Self { bus, slot }),
            2..=PCI_PORTS => Ok(Self { bus, slot }),
            1 | FIRST_HIGH_BUS.. => Err(PciAddressError::SlotOfBus),
            _ => Err(PciAddressError::Bus),
        }
    }
}

impl TryFrom<String> for PciAddress {
    type Error = PciAddressError;

    fn try_from(text: String) -> Result<Self, PciAddressError> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0000:{:02x}:{:02x}.0", self.bus, self.slot)
    }
}

impl PciAddress {
    /// Whether its bus is a conventional one, behind a bridge.
    #[must_use]
    pub fn is_conventional(&self) -> bool {
        (1..=PCI_PORTS).contains(&self.bus) && self.slot > 0
    }

    /// Why two devices cannot have these places, if they cannot.
    #[must_use]
    pub fn conflict(&self, other: &Self) -> Option<String> {
        let above = |conventional: &Self, other: &Self| {
            conventional.is_conventional() && other.bus + 1 == conventional.bus && other.bus > 0
        };
        if self == other {
            Some(format!("{self} is taken"))
        } else if self.bus == other.bus && self.bus > 0 && self.is_conventional() != other.is_conventional() {
            Some(format!("bus {:02x} cannot have both slot 00 and others", self.bus))
        } else if above(self, other) || above(other, self) {
            let bus = self.bus.max(other.bus);
            Some(format!("bus {bus:02x} has its bridge on bus {:02x}, which no device can be on then", bus - 1))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> PciAddress {
        text.parse().unwrap()
    }

    // spec: NIC-8
    #[test]
    fn an_address_reads_back_and_any_other_text_is_refused_with_the_reason() {
        for text in ["0000:00:08.0", "0000:01:00.0", "0000:02:1f.0", "0000:10:00.0", "0000:21:00.0", "0000:ff:00.0"] {
            assert_eq!(at(text).to_string(), text);
        }
        for text in ["", "01:00.0", "0001:01:00.0", "0000:1:00.0", "0000:01:20.0", "0000:01:00.8", "0000:01:00.00"] {
            assert!(matches!(text.parse::<PciAddress>(), Err(PciAddressError::Form(_))), "{text}");
        }
        let refused = |text: &str| text.parse::<PciAddress>().unwrap_err();
        assert_eq!(refused("0000:01:00.1"), PciAddressError::Function);
        assert_eq!((refused("0000:00:02.0"), refused("0000:00:1f.0")), (PciAddressError::Slot, PciAddressError::Slot));
        assert_eq!((refused("0000:11:00.0"), refused("0000:20:01.0")), (PciAddressError::Bus, PciAddressError::Bus));
        assert_eq!(
            (refused("0000:01:01.0"), refused("0000:81:01.0")),
            (PciAddressError::SlotOfBus, PciAddressError::SlotOfBus)
        );
    }

    // spec: NIC-8
    #[test]
    fn places_that_exclude_each_other_are_known() {
        let conflict = |one: &str, other: &str| {
            assert_eq!(at(one).conflict(&at(other)).is_some(), at(other).conflict(&at(one)).is_some(), "{one} {other}");
            at(one).conflict(&at(other)).unwrap_or_default()
        };
        assert_eq!(conflict("0000:01:00.0", "0000:01:00.0"), "0000:01:00.0 is taken");
        assert_eq!(conflict("0000:03:01.0", "0000:03:00.0"), "bus 03 cannot have both slot 00 and others");
        assert!(conflict("0000:03:01.0", "0000:02:00.0").starts_with("bus 03 has its bridge on bus 02"));
        for (one, other) in [
            ("0000:03:01.0", "0000:03:02.0"),
            ("0000:03:01.0", "0000:04:00.0"),
            ("0000:02:01.0", "0000:03:00.0"),
            ("0000:00:08.0", "0000:00:09.0"),
            ("0000:01:00.0", "0000:00:08.0"),
            ("0000:ff:00.0", "0000:fe:00.0"),
        ] {
            assert_eq!(conflict(one, other), "");
        }
    }
}
