//! Access credentials: SSH keys from Secrets that cloud-init gives the guest's default user, and keys and passwords that the
//! guest's agent sets.

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
    /// The users who get them from the agent.
    pub users: Vec<String>,
    /// Where the object refers to the Secret, for complaints once Secrets are known.
    pub path: String,
}

/// Passwords for users of the guest, which its agent sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passwords {
    /// The Secret, in the machine's namespace: each key is a user.
    pub secret: String,
    /// Where the object refers to the Secret, for complaints once Secrets are known.
    pub path: String,
}

/// Credentials for the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// SSH keys.
    pub ssh_keys: Vec<SshKeys>,
    /// Passwords.
    pub passwords: Vec<Passwords>,
}

/// How keys reach the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// In the metadata of the cloudInitNoCloud volume.
    NoCloud,
    /// In the metadata of the cloudInitConfigDrive volume.
    ConfigDrive,
    /// By the guest's agent, also while the guest runs.
    Agent,
}

const MAX_CREDENTIALS: usize = 256;
/// A user's name as the guest may have it.
const MAX_USER: usize = 64;

/// Reads `accessCredentials`. Without disks, which had complaints, nothing is said about volumes that they lack.
pub(super) fn read(spec: &Fields<'_>, disks: Option<&[Disk]>) -> Access {
    let items = spec.items("accessCredentials");
    if let Some(node) = items.get(MAX_CREDENTIALS) {
        node.refuse(format!("there can be at most {MAX_CREDENTIALS} credentials"));
    }
    let mut access = Access::default();
    for node in items.iter().take(MAX_CREDENTIALS) {
        node.fields(|item| match (item.field("sshPublicKey"), item.field("userPassword")) {
            (Some(key), None) => access.ssh_keys.extend(key.fields(|key| read_key(key, disks)).flatten()),
            (None, Some(password)) => access.passwords.extend(password.fields(read_password).flatten()),
            _ => item.node().refuse("needs one of sshPublicKey, userPassword"),
        });
    }
    access
}

fn read_password(password: &Fields<'_>) -> Option<Passwords> {
    let secret = password.required("source").and_then(|node| node.fields(read_secret)?);
    let method = password.required("propagationMethod");
    let by_agent = method.and_then(|node| node.fields(|method| method.required("qemuGuestAgent"))?);
    by_agent?.fields(|_| ())?;
    let (secret, path) = secret?;
    Some(Passwords { secret, path })
}

fn read_key(key: &Fields<'_>, disks: Option<&[Disk]>) -> Option<SshKeys> {
    let secret = key.required("source").and_then(|node| node.fields(read_secret)?);
    let propagation = key.required("propagationMethod").and_then(|node| node.fields(read_method)?);
    let (name, path) = secret?;
    let (propagation, node, users) = propagation?;
    let is_its = |disk: &Disk| match propagation {
        Propagation::NoCloud => matches!(disk.volume, Volume::CloudInitNoCloud(_)),
        Propagation::ConfigDrive => matches!(disk.volume, Volume::CloudInitConfigDrive(_)),
        Propagation::Agent => false,
    };
    if propagation != Propagation::Agent && disks.is_some_and(|disks| !disks.iter().any(is_its)) {
        let volume = if propagation == Propagation::NoCloud { "cloudInitNoCloud" } else { "cloudInitConfigDrive" };
        node.refuse(format!("needs a volume {volume}, which carries the keys"));
        return None;
    }
    Some(SshKeys { secret: name, propagation, users, path })
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

fn read_method<'a>(method: &Fields<'a>) -> Option<(Propagation, Node<'a>, Vec<String>)> {
    let agent = method.field("qemuGuestAgent");
    let given = |name, propagation| {
        let node: Node<'a> = method.field(name)?;
        node.fields(|_| ())?;
        Some((propagation, node, Vec::new()))
    };
    let (no_cloud, config_drive) =
        (given("noCloud", Propagation::NoCloud), given("configDrive", Propagation::ConfigDrive));
    let count = [no_cloud.is_some(), config_drive.is_some(), agent.is_some()];
    if count.into_iter().filter(|is_given| *is_given).count() != 1 {
        method.node().refuse("needs one of noCloud, configDrive, qemuGuestAgent");
        return None;
    }
    let by_agent = |node: Node<'a>| Some((Propagation::Agent, node.clone(), node.fields(read_users)??));
    no_cloud.or(config_drive).or_else(|| by_agent(agent?))
}

fn read_users(agent: &Fields<'_>) -> Option<Vec<String>> {
    let list = agent.required("users")?;
    let users = list.items();
    if users.is_empty() {
        list.refuse("needs a user");
    }
    let user = |node: &Node<'_>| {
        let text = node.text()?;
        if text.is_empty() || text.len() > MAX_USER || text.chars().any(char::is_control) {
            node.expected(format_args!("a user's name of 1 to {MAX_USER} bytes"));
            return None;
        }
        Some(text.to_owned())
    };
    users.iter().map(user).collect::<Option<Vec<_>>>().filter(|users| !users.is_empty())
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
        Ok(instance.spec.access.ssh_keys.clone())
    }

    // spec: AGENT-6
    #[test]
    fn the_agent_gives_keys_and_passwords_to_users_on_any_disk() {
        let keys = "[{sshPublicKey: {source: {secret: {secretName: k}}, propagationMethod: {qemuGuestAgent: {users: [fedora, root]}}}}]";
        let keys = read(keys, "cloudInitNoCloud").unwrap();
        assert_eq!((keys[0].propagation, keys[0].users.join(" ")), (Propagation::Agent, "fedora root".to_owned()));
        let password = |method: &str| {
            format!("[{{userPassword: {{source: {{secret: {{secretName: k}}}}, propagationMethod: {{{method}}}}}}}]")
        };
        assert_eq!(read(&password("qemuGuestAgent: {}"), "cloudInitNoCloud"), Ok(Vec::new()));
        let refused = read(&password(""), "cloudInitNoCloud").unwrap_err();
        assert!(refused[0].contains("userPassword.propagationMethod.qemuGuestAgent: is required"), "{refused:?}");
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
            (
                key("noCloud: {}, configDrive: {}"),
                "propagationMethod: needs one of noCloud, configDrive, qemuGuestAgent",
            ),
            (key("qemuGuestAgent: {users: []}"), "propagationMethod.qemuGuestAgent.users: needs a user"),
            (key(""), "propagationMethod: needs one of"),
            ("[{}]".to_owned(), "accessCredentials[0]: needs one of sshPublicKey, userPassword"),
        ] {
            let found = read(&credentials, "cloudInitNoCloud").unwrap_err();
            assert!(found.len() == 1 && found[0].contains(complaint), "{credentials}: {found:?}");
        }
    }
}
