//! The launch file: a machine and the network that it must find in its namespace, joined by the names of NICs.

use std::collections::BTreeSet;

use machine::{Machine, Nic};
use serde::{Deserialize, Serialize};
use wiring::{Interface, Request, RequestError};

/// What `tapvisor-launcher launch --machine FILE` reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LaunchFile {
    /// Version of the file's format: [`LaunchFile::VERSION`].
    pub version: u32,
    /// The hardware that the guest sees.
    pub machine: Machine,
    /// The network it must find in its namespace: an interface for each NIC of the machine, under the NIC's name.
    pub wiring: Request,
}

/// Why a launch file is refused; the message starts with the field's path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchFileError {
    /// Not JSON of this shape.
    #[error("{0}")]
    Shape(#[from] serde_json::Error),
    /// Written by a release with another version of the format.
    #[error(
        "version: {found} is not supported, {} is: start the VM with the release that wrote the file",
        LaunchFile::VERSION
    )]
    Version {
        /// The version that the file names.
        found: u32,
    },
    /// The wiring breaks a rule of its own.
    #[error("wiring.{0}")]
    Wiring(#[from] RequestError),
    /// Two NICs of one name.
    #[error("machine.nics[{index}].name: {name:?} is the name of another NIC")]
    Twice {
        /// Index of the later NIC in `machine.nics`.
        index: usize,
        /// The name that both have.
        name: String,
    },
    /// A NIC that is plugged in nowhere.
    #[error("machine.nics[{index}].name: wiring.interfaces has no {name:?}")]
    NoInterface {
        /// Index of the NIC in `machine.nics`.
        index: usize,
        /// The name that no interface of the wiring has.
        name: String,
    },
}

impl LaunchFile {
    /// The only version there is.
    pub const VERSION: u32 = 2;

    /// The file of a machine on its network.
    #[must_use]
    pub fn new(machine: Machine, wiring: Request) -> Self {
        Self { version: Self::VERSION, machine, wiring }
    }

    /// Reads a file and holds it against its rules.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(text: &[u8]) -> Result<Self, LaunchFileError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version: found } = serde_json::from_slice(text)?;
        if found != Self::VERSION {
            return Err(LaunchFileError::Version { found });
        }
        let file: Self = serde_json::from_slice(text)?;
        // A request that comes as part of a file has not been through its own rules yet.
        Request::new(file.wiring.owner(), file.wiring.interfaces().to_vec())?;
        let mut names = BTreeSet::new();
        for (index, nic) in file.machine.nics.iter().enumerate() {
            let name = || nic.name.clone();
            if !names.insert(&nic.name) {
                return Err(LaunchFileError::Twice { index, name: name() });
            }
            if !file.wiring.interfaces().iter().any(|interface| interface.name == nic.name) {
                return Err(LaunchFileError::NoInterface { index, name: name() });
            }
        }
        Ok(file)
    }

    /// The machine's NICs in their order, each with where it is plugged in.
    pub fn nics(&self) -> impl Iterator<Item = (&Nic, &Interface)> {
        let interface = |nic: &Nic| self.wiring.interfaces().iter().find(|interface| interface.name == nic.name);
        self.machine.nics.iter().filter_map(move |nic| Some((nic, interface(nic)?)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wiring::{Binding, Owner};

    use super::*;

    fn file() -> LaunchFile {
        let machine = serde_json::from_str(include_str!("../../machine/fixtures/web.json")).unwrap();
        let interface = Interface::new("default", "eth0".parse().unwrap(), Binding::Masquerade);
        LaunchFile::new(machine, Request::new(Owner { uid: 107, gid: 107 }, vec![interface]).unwrap())
    }

    fn refused(change: impl FnOnce(&mut Value)) -> String {
        let mut file = json!(file());
        change(&mut file);
        LaunchFile::parse(file.to_string().as_bytes()).unwrap_err().to_string()
    }

    // spec: LAUNCH-1
    #[test]
    fn the_file_reads_back_and_has_the_documented_shape() {
        let text = serde_json::to_string_pretty(&file()).unwrap() + "\n";
        assert_eq!(text, include_str!("../tests/golden/launch.json"));
        let read = LaunchFile::parse(text.as_bytes()).unwrap();
        assert_eq!(read, file());
        let nics: Vec<_> = read.nics().map(|(nic, interface)| (&*nic.name, interface.pod_interface.as_str())).collect();
        assert_eq!(nics, [("default", "eth0")]);
    }

    // spec: LAUNCH-1
    #[test]
    fn what_breaks_a_rule_is_refused_by_its_path() {
        let version = refused(|file| file["version"] = json!(1));
        assert!(version.starts_with("version: 1 is not supported, 2 is"), "{version}");
        let unknown = refused(|file| file["machine"]["nics"][0]["mac"] = json!("02:00:00:00:00:01"));
        assert!(unknown.contains("unknown field `mac`"), "{unknown}");
        let unplugged = refused(|file| file["machine"]["nics"][0]["name"] = json!("other"));
        assert_eq!(unplugged, "machine.nics[0].name: wiring.interfaces has no \"other\"");
        let twice = refused(|file| {
            let nic = file["machine"]["nics"][0].clone();
            file["machine"]["nics"] = json!([nic, nic]);
        });
        assert_eq!(twice, "machine.nics[1].name: \"default\" is the name of another NIC");
        let wiring = refused(|file| {
            let interface = file["wiring"]["interfaces"][0].clone();
            file["wiring"]["interfaces"] = json!([interface, interface]);
        });
        assert!(wiring.starts_with("wiring."), "{wiring}");
    }
}
