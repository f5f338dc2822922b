//! Which received frames the driver wants (§5.1.6.5.1 to §5.1.6.5.3), where this process moves them.
//!
//! A device may pass more than it is asked for: vhost-net passes every frame, and so does a table that is longer than [`MOST`].

use crate::virtio::FilterState;

/// Entries of a table. A driver that has more gets every frame of that kind.
pub(super) const MOST: usize = 64;
const BROADCAST: Address = [0xff; 6];

/// An Ethernet address.
pub(super) type Address = [u8; 6];

/// What a driver switches by a command of class [`super::spec::CONTROL_RX`]: the number is the command's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mode {
    Promiscuous,
    AllMulticast,
    AllUnicast,
    NoMulticast,
    NoUnicast,
    NoBroadcast,
}

impl Mode {
    /// By the number of the command.
    pub(super) fn of(command: u8) -> Option<Self> {
        use Mode::{AllMulticast, AllUnicast, NoBroadcast, NoMulticast, NoUnicast, Promiscuous};
        let all = [Promiscuous, AllMulticast, AllUnicast, NoMulticast, NoUnicast, NoBroadcast];
        all.get(usize::from(command)).copied()
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A table of addresses; `None` for one that was too long, which passes all.
pub(super) type Table = Option<Vec<Address>>;

/// What passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter(FilterState);

impl Filter {
    /// Of a driver that has said nothing yet: every frame passes.
    pub(super) fn new(mac: Address) -> Self {
        let none = || Some(Vec::new());
        Self(FilterState { mac, modes: Mode::Promiscuous.bit(), unicast: none(), multicast: none() })
    }

    /// One that was saved.
    pub(super) fn restored(state: FilterState) -> Self {
        Self(state)
    }

    /// What a snapshot keeps.
    pub(super) fn state(&self) -> FilterState {
        self.0.clone()
    }

    /// The guest's address.
    pub(super) fn mac(&self) -> Address {
        self.0.mac
    }

    /// The guest has another address.
    pub(super) fn set_mac(&mut self, mac: Address) {
        self.0.mac = mac;
    }

    /// Switches a mode.
    pub(super) fn switch(&mut self, mode: Mode, on: bool) {
        self.0.modes = if on { self.0.modes | mode.bit() } else { self.0.modes & !mode.bit() };
    }

    /// Other tables, instead of those of before.
    pub(super) fn set_tables(&mut self, unicast: Table, multicast: Table) {
        (self.0.unicast, self.0.multicast) = (unicast, multicast);
    }

    /// Whether an Ethernet frame passes; one without a whole address does not.
    pub(super) fn passes(&self, frame: &[u8]) -> bool {
        let is = |mode: Mode| self.0.modes & mode.bit() != 0;
        let Some(to) = frame.first_chunk::<6>() else { return false };
        let within = |table: &Table| table.as_ref().is_none_or(|table| table.contains(to));
        if is(Mode::Promiscuous) {
            true
        } else if *to == BROADCAST {
            !is(Mode::NoBroadcast)
        } else if to[0] & 1 != 0 {
            !is(Mode::NoMulticast) && (is(Mode::AllMulticast) || within(&self.0.multicast))
        } else {
            !is(Mode::NoUnicast) && (is(Mode::AllUnicast) || *to == self.0.mac || within(&self.0.unicast))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Address = [2, 0, 0, 0, 0, 1];
    const OTHER: Address = [2, 0, 0, 0, 0, 2];
    const GROUP: Address = [0x33, 0x33, 0, 0, 0, 1];

    /// Whether frames to the own address, another, a group and all pass.
    fn passed(filter: &Filter) -> [bool; 4] {
        [OWN, OTHER, GROUP, BROADCAST].map(|to| filter.passes(&[&to[..], &OWN, &[8, 0]].concat()))
    }

    // spec: LAB-31
    #[test]
    fn every_frame_passes_until_the_driver_says_what_it_wants() {
        let mut filter = Filter::new(OWN);
        assert_eq!(passed(&filter), [true; 4]);
        filter.switch(Mode::Promiscuous, false);
        assert_eq!(passed(&filter), [true, false, false, true]);
        assert!(!filter.passes(&OWN[..5]));
    }

    // spec: LAB-31
    #[test]
    fn modes_and_tables_say_which_frames_pass() {
        let mut plain = Filter::new(OWN);
        plain.switch(Mode::Promiscuous, false);
        let cases = [
            (Mode::AllMulticast, [true, false, true, true]),
            (Mode::AllUnicast, [true, true, false, true]),
            (Mode::NoUnicast, [false, false, false, true]),
            (Mode::NoBroadcast, [true, false, false, false]),
        ];
        for (mode, expected) in cases {
            let mut filter = plain.clone();
            filter.switch(mode, true);
            assert_eq!(passed(&filter), expected, "{mode:?}");
        }
        plain.set_tables(Some(vec![OTHER]), Some(vec![GROUP]));
        assert_eq!(passed(&plain), [true; 4]);
        plain.switch(Mode::NoMulticast, true);
        assert_eq!(passed(&plain), [true, true, false, true]);
        plain.set_mac(GROUP);
        plain.set_tables(Some(Vec::new()), None);
        assert_eq!(passed(&plain), [false, false, false, true]);
    }

    // spec: LAB-31
    #[test]
    fn a_table_that_was_too_long_passes_all_of_its_kind() {
        let mut filter = Filter::new(OWN);
        filter.switch(Mode::Promiscuous, false);
        filter.set_tables(None, Some(Vec::new()));
        assert_eq!(passed(&filter), [true, true, false, true]);
        filter.set_tables(Some(Vec::new()), None);
        assert_eq!(passed(&filter), [true, false, true, true]);
    }
}
