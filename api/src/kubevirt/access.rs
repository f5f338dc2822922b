//! Access credentials: SSH keys from Secrets that cloud-init gives the guest's default user.

use terms::ObjectKey;

use super::{Disk, Volume};
use crate::reader::{Fields, Node};

/// SSH keys for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshKeys {
    /// The Secret, in the machine's namespace: each of its files holds keys.
    pub secret: String,
    /// How they reach the guest.
    pub propagation: Propagation,
    /// Where the object refers to the Secret, for complaints once Secrets are known.
    pub path: String,
}

/// How keys reach the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// In the metadata of the cloudInitNoCloud volume.
    NoCloud,
    /// In the metadata of the cloudInitConfigDrive volume.
    ConfigDrive,
}

const MAX_CREDENTIALS: usize = 256;
const NEEDS_AGENT: &str = "keys and passwords that a guest agent sets";

/// Reads `accessCredentials`. Without disks, which had complaints, nothing is said about volumes that they lack.
pub(super) fn read(spec: &Fields<'_>, disks: Option<&[Disk]>) -> Vec<SshKeys> {
    let items = spec.items("accessCredentials");
    if let Some(node) = items.get(MAX_CREDENTIALS) {
        node.refuse(format!("there can be at most {MAX_CREDENTIALS} credentials"));
    }
    items.iter().take(MAX_CREDENTIALS).filter_map(|node| node.fields(|item| read_one(item, disks))?).collect()
}

fn read_one(item: &Fields<'_>, disks: Option<&[Disk]>) -> Option<SshKeys> {
    item.unsupported_because("userPassword", NEEDS_AGENT);
    let is_given = |name| item.node().value().get(name).is_some();
    if is_given("userPassword") && !is_given("sshPublicKey") {
        return None;
    }
    item.required("sshPublicKey")?.fields(|key| read_key(key, disks))?
}

fn read_key(key: &Fields<'_>, disks: Option<&[Disk]>) -> Option<SshKeys> {
    let secret = key.required("source").and_then(|node| node.fields(read_secret)?);
    let propagation = key.required("propagationMethod").and_then(|node| node.fields(read_method)?);
    let (name, path) = secret?;
    let (propagation, node) = propagation?;
    let is_its = |disk: &Disk| match propagation {
        Propagation::NoCloud => matches!(disk.volume, Volume::CloudInitNoCloud(_)),
        Propagation::ConfigDrive => matches!(disk.volume, Volume::CloudInitConfigDrive(_)),
    };
    if disks.is_some_and(|disks| !disks.iter().any(is_its)) {
        let volume = if propagation == Propagation::NoCloud { "cloudInitNoCloud" } else { "cloudInitConfigDrive" };
        node.refuse(format!("needs a volume {volume}, which carries the keys"));
        return None;
    }
    Some(SshKeys { secret: name, propagation, path })
}

fn read_secret(source: &Fields<'_>) -> Option<(String, String)> {
    let node = source.required("secret")?.fields(|secret| secret.required("secretName"))??;
    let text = node.text()?;
    if ObjectKey::new("default", text).is_err() {
        node.expected("the name of a Secret");
        return None;
    }
    Some((text.to_owned(), node.path().to_owned()))
}

fn read_method<'a>(method: &Fields<'a>) -> Option<(Propagation, Node<'a>)> {
    method.unsupported_because("qemuGuestAgent", NEEDS_AGENT);
    let given = |name, propagation| {
        let node: Node<'a> = method.field(name)?;
        node.fields(|_| ())?;
        Some((propagation, node))
    };
    let (no_cloud, config_drive) =
        (given("noCloud", Propagation::NoCloud), given("configDrive", Propagation::ConfigDrive));
    let count = [no_cloud.is_some(), config_drive.is_some(), method.node().value().get("qemuGuestAgent").is_some()];
    if count.into_iter().filter(|is_given| *is_given).count() != 1 {
        method.node().refuse("needs one of noCloud, configDrive");
        return None;
    }
    no_cloud.or(config_drive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{self, Body};

    fn read(credentials: &str, volume: &str) -> Result<Vec<SshKeys>, Vec<String>> {
        let text = format!(
            "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: a}}, spec: {{accessCredentials: {credentials},
            domain: {{memory: {{guest: 64Mi}}, devices: {{}}}}, volumes: [{{name: seed, {volume}: {{userData: x}}}}]}}}}"
        );
        let objects = manifest::parse(&text, "test")
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let Body::VirtualMachineInstance(instance) = &objects[0].body else { panic!("no instance") };
        Ok(instance.spec.ssh_keys.clone())
    }

    // spec: VOL-7
    #[test]
    fn ssh_keys_name_a_secret_and_the_volume_that_carries_them() {
        let key = |method: &str| {
            format!("[{{sshPublicKey: {{source: {{secret: {{secretName: k}}}}, propagationMethod: {{{method}}}}}}}]")
        };
        for (method, volume, propagation) in [
            ("noCloud: {}", "cloudInitNoCloud", Propagation::NoCloud),
            ("configDrive: {}", "cloudInitConfigDrive", Propagation::ConfigDrive),
        ] {
            let keys = read(&key(method), volume).unwrap();
            assert_eq!((keys.len(), &*keys[0].secret, keys[0].propagation), (1, "k", propagation));
        }
        for (credentials, complaint) in [
            (key("configDrive: {}"), "propagationMethod.configDrive: needs a volume cloudInitConfigDrive"),
            (key("noCloud: {}, configDrive: {}"), "propagationMethod: needs one of noCloud, configDrive"),
            (key("qemuGuestAgent: {users: [a]}"), "propagationMethod.qemuGuestAgent: not supported"),
            (key(""), "propagationMethod: needs one of"),
            ("[{userPassword: {source: {}}}]".to_owned(), "accessCredentials[0].userPassword: not supported"),
            ("[{}]".to_owned(), "accessCredentials[0].sshPublicKey: is required"),
        ] {
            let found = read(&credentials, "cloudInitNoCloud").unwrap_err();
            assert!(found.len() == 1 && found[0].contains(complaint), "{credentials}: {found:?}");
        }
    }
}
