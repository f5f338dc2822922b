//! What a snapshot keeps of the clock: the index and the memory; the time is the host's.

use serde::{Deserialize, Serialize};

use super::device::Rtc;

/// Version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct RtcState {
    /// Index register.
    pub(crate) index: u8,
    /// The 128 registers; a shorter list leaves the rest zero.
    pub(crate) memory: Vec<u8>,
}

impl Rtc {
    /// Its state.
    pub(crate) fn save(&self) -> RtcState {
        RtcState { index: self.index, memory: self.memory.to_vec() }
    }

    /// A clock with this state.
    pub(crate) fn restore(state: &RtcState) -> Self {
        let mut rtc = Self { index: state.index, ..Self::default() };
        rtc.memory.iter_mut().zip(&state.memory).for_each(|(to, from)| *to = *from);
        rtc
    }
}
