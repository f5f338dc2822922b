//! What a snapshot keeps of a machine without its memory, as one versioned document.
//!
//! A field that is added has a default, so that a document of an older release is read; one whose meaning changes needs a
//! new version. Golden files in `tests/golden/state` hold the shape of each part.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};

use serde::{Deserialize, Serialize};

use crate::bus::Bus;
use crate::chips::{ChipsError, ChipsState};
use crate::devices::{PowerState, RtcState, SerialState};
use crate::functions::Attached;
use crate::memory_image::ImageError;
use crate::pci::state::PciState;
use crate::sync::lock;
use crate::vcpu::{ProcessorState, ProcessorStateError};
use crate::virtio::state::FunctionState;

/// The version that this release writes.
const VERSION: u32 = 2;

/// A machine whose processors are stopped.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct MachineState {
    pub(crate) version: u32,
    pub(crate) memory_bytes: u64,
    /// In the order of their numbers.
    pub(crate) processors: Vec<ProcessorState>,
    pub(crate) chips: ChipsState,
    pub(crate) devices: DevicesState,
}

/// All devices.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct DevicesState {
    pub(crate) serial: SerialState,
    pub(crate) rtc: RtcState,
    pub(crate) power: PowerState,
    pub(crate) pci: PciState,
    /// Virtio functions in the order of their slots.
    pub(crate) functions: Vec<FunctionState>,
}

/// Why a machine cannot be saved, or go on from a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Of another release.
    #[error("the snapshot has version {0}: expected {VERSION}")]
    Version(u64),
    /// No snapshot.
    #[error("the document of the snapshot")]
    Document(#[source] std::io::Error),
    /// Of a machine with other parts.
    #[error("the snapshot is of a machine with {found} {what}: expected {expected}")]
    Machine {
        /// The part.
        what: &'static str,
        /// Of this machine.
        expected: u64,
        /// Of the saved one.
        found: u64,
    },
    /// Interrupt controllers, timer or clock.
    #[error("the machine")]
    Chips(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A processor.
    #[error("processor {id}")]
    Processor {
        /// Its place.
        id: usize,
        /// The reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The memory.
    #[error(transparent)]
    Memory(Box<dyn std::error::Error + Send + Sync>),
}

impl From<ChipsError> for StateError {
    fn from(error: ChipsError) -> Self {
        Self::Chips(Box::new(error))
    }
}

impl From<ImageError> for StateError {
    fn from(error: ImageError) -> Self {
        Self::Memory(Box::new(error))
    }
}

impl StateError {
    /// Of the processor in place `id`.
    pub(crate) fn of_processor(id: usize) -> impl FnOnce(ProcessorStateError) -> Self {
        move |source| Self::Processor { id, source: Box::new(source) }
    }
}

impl DevicesState {
    /// The state of a machine whose processors are stopped.
    pub(crate) fn save(bus: &Bus, functions: &[Attached]) -> Self {
        Self {
            serial: lock(&bus.serial).save(),
            rtc: lock(&bus.rtc).save(),
            power: lock(&bus.power).save(),
            pci: lock(&bus.pci).save(),
            functions: functions.iter().map(|attached| lock(&attached.function).save()).collect(),
        }
    }
}

/// The version alone, so that a document of a later release is named and not misread.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

impl MachineState {
    /// Of this release, with the parts that a machine has.
    pub(crate) fn new(
        memory_bytes: u64,
        processors: Vec<ProcessorState>,
        chips: ChipsState,
        devices: DevicesState,
    ) -> Self {
        Self { version: VERSION, memory_bytes, processors, chips, devices }
    }

    /// Writes the document.
    ///
    /// # Errors
    /// When the file takes no more.
    pub(crate) fn write(&self, file: &File) -> Result<(), StateError> {
        let mut file = BufWriter::new(file);
        serde_json::to_writer(&mut file, self).map_err(|error| StateError::Document(error.into()))?;
        file.flush().map_err(StateError::Document)
    }

    /// Reads a document of this release.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn read(file: &File) -> Result<Self, StateError> {
        let document = |error: serde_json::Error| StateError::Document(error.into());
        let text = std::io::read_to_string(BufReader::new(file)).map_err(StateError::Document)?;
        let Versioned { version } = serde_json::from_str(&text).map_err(document)?;
        if version != u64::from(VERSION) {
            return Err(StateError::Version(version));
        }
        serde_json::from_str(&text).map_err(document)
    }

    /// Whether a machine of these parts can go on from it.
    ///
    /// # Errors
    /// For one with other parts.
    pub(crate) fn fits(&self, memory_bytes: u64, processors: usize, functions: usize) -> Result<(), StateError> {
        let parts = [
            ("bytes of memory", memory_bytes, self.memory_bytes),
            ("processors", processors as u64, self.processors.len() as u64),
            ("virtio devices", functions as u64, self.devices.functions.len() as u64),
        ];
        match parts.into_iter().find(|(_, expected, found)| expected != found) {
            Some((what, expected, found)) => Err(StateError::Machine { what, expected, found }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn document(text: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    // spec: LAB-20
    #[test]
    fn a_snapshot_of_a_later_release_is_named_by_its_version() {
        let error = MachineState::read(&document(r#"{"version": 3, "all": "different"}"#)).unwrap_err();
        assert_eq!(error.to_string(), "the snapshot has version 3: expected 2");
        let error = MachineState::read(&document(r#"{"version": 1, "all": "as it was"}"#)).unwrap_err();
        assert_eq!(error.to_string(), "the snapshot has version 1: expected 2");
        for text in ["", "{}", "[2]", r#"{"version": 2}"#, r#"{"version": -1}"#] {
            assert!(matches!(MachineState::read(&document(text)), Err(StateError::Document(_))), "{text}");
        }
    }
}
