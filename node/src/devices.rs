//! The device nodes that launchers need, what was found out about them, and how a container gets them.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use node_protocol::names;
use protocol::probe::{Probe, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The user and group of launchers in pods.
const LAUNCHER: u32 = 107;
/// The CDI kind of our devices.
const CDI_KIND: &str = "tapvisor.io/device";
/// Our file in a folder of CDI specifications.
const CDI_FILE: &str = "tapvisor.io-device.json";

/// A kind of device that the agent offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Device {
    /// /dev/kvm.
    Kvm,
    /// /dev/net/tun.
    Tun,
    /// /dev/vhost-net.
    VhostNet,
}

impl Device {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Kvm, Self::Tun, Self::VhostNet];

    /// The resource name that a pod asks for.
    #[must_use]
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Kvm => names::KVM,
            Self::Tun => names::TUN,
            Self::VhostNet => names::VHOST_NET,
        }
    }

    /// The node on the host and in the container.
    #[must_use]
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Kvm => "/dev/kvm",
            Self::Tun => "/dev/net/tun",
            Self::VhostNet => "/dev/vhost-net",
        }
    }

    /// The name in CDI, and of the plugin's socket.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tun => "tun",
            Self::VhostNet => "vhost-net",
        }
    }

    /// The device's name in CDI with its kind.
    #[must_use]
    pub(crate) fn cdi_name(self) -> String {
        format!("{CDI_KIND}={}", self.name())
    }

    /// The minor number; the major one is 10 (Documentation/admin-guide/devices.txt).
    fn minor(self) -> u32 {
        match self {
            Self::Kvm => 232,
            Self::Tun => 200,
            Self::VhostNet => 238,
        }
    }
}

/// What was found out about a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// The device.
    pub(crate) device: Device,
    /// Why launchers cannot use it; `None` when they can.
    pub(crate) problem: Option<String>,
}

/// Opens every device once, so that the kernel loads its modules, and has `launcher` run code in /dev/kvm.
#[must_use]
pub(crate) fn examine(launcher: &Path) -> Vec<Found> {
    let problem = |device: Device| {
        if let Err(error) = File::options().read(true).write(true).open(device.path()) {
            return Some(format!("{} cannot be opened: {error}", device.path()));
        }
        if device == Device::Kvm { probe(launcher).err() } else { None }
    };
    Device::ALL.map(|device| Found { device, problem: problem(device) }).to_vec()
}

fn probe(launcher: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{} probe: {error}", launcher.display());
    let output = Command::new(launcher).arg("probe").output().map_err(|error| failed(&error))?;
    let probe: Probe = serde_json::from_slice(&output.stdout).map_err(|error| failed(&error))?;
    match probe.kvm {
        Verdict::Usable => Ok(()),
        Verdict::Unusable { reason } => Err(reason),
    }
}

/// The CDI specification of the devices: nodes that the launcher's user may open, whatever the host's mode is.
#[must_use]
pub(crate) fn cdi(devices: &[Device]) -> Value {
    let device = |device: &Device| {
        let node = json!({"path": device.path(), "type": "c", "major": 10, "minor": device.minor(), "fileMode": 0o600,
            "permissions": "rw", "uid": LAUNCHER, "gid": LAUNCHER});
        json!({"name": device.name(), "containerEdits": {"deviceNodes": [node]}})
    };
    json!({"cdiVersion": "0.6.0", "kind": CDI_KIND, "devices": devices.iter().map(device).collect::<Vec<_>>()})
}

/// Writes the specification into a folder of CDI, whole or not at all.
///
/// # Errors
/// The system's.
pub(crate) fn write_cdi(folder: &Path, devices: &[Device]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // CDI reads files that end in .json or .yaml.
    let fresh = folder.join(format!("{CDI_FILE}.new"));
    fs::write(&fresh, serde_json::to_vec_pretty(&cdi(devices))?)?;
    fs::rename(fresh, folder.join(CDI_FILE))
}

/// Removes the specification.
///
/// # Errors
/// The system's.
pub(crate) fn remove_cdi(folder: &Path) -> io::Result<()> {
    crate::files::remove(&folder.join(CDI_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: NODE-2
    #[test]
    fn a_cdi_device_belongs_to_the_launchers_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        write_cdi(&folder.path().join("cdi"), &[Device::Tun, Device::VhostNet]).unwrap();
        let text = fs::read(folder.path().join("cdi").join(CDI_FILE)).unwrap();
        let written: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(written["kind"], "tapvisor.io/device");
        let node = &written["devices"][0]["containerEdits"]["deviceNodes"][0];
        assert_eq!((&node["path"], &node["major"], &node["minor"]), (&json!("/dev/net/tun"), &json!(10), &json!(200)));
        assert_eq!((&node["uid"], &node["gid"], &node["fileMode"]), (&json!(107), &json!(107), &json!(0o600)));
        assert_eq!(written["devices"][1]["name"], "vhost-net");
        remove_cdi(&folder.path().join("cdi")).unwrap();
        remove_cdi(&folder.path().join("cdi")).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("cdi")).unwrap().count(), 0);
    }

    // spec: NODE-2
    #[test]
    fn kvm_is_usable_only_when_a_launcher_has_run_code_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let launcher = folder.path().join("launcher");
        let says = |text: &str| {
            fs::write(&launcher, format!("#!/bin/sh\n[ \"$1\" = probe ] && echo '{text}'\n")).unwrap();
            fs::set_permissions(&launcher, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            probe(&launcher)
        };
        assert_eq!(says(r#"{"kvm":"usable"}"#), Ok(()));
        assert_eq!(says(r#"{"kvm":"unusable","reason":"only interprets"}"#), Err("only interprets".to_owned()));
        assert!(says("nonsense").is_err());
        assert!(probe(&folder.path().join("absent")).is_err());
    }
}
