//! What the agent in the guest (QEMU guest agent) says, as the launcher passes it on, and what is asked of it.
//!
//! The guest chose every text: it has no control characters and a limited length, and is nothing more than text. Fields have
//! KubeVirt's names, so that a client's view is the same object.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use terms::MacAddr;

/// The agent as `status` reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentStatus {
    /// Whether an agent has the channel open in the guest and has answered since.
    pub connected: bool,
    /// Version of the agent (`guest-info`); empty until it has answered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Commands of [`BASIC_COMMANDS`] and of the machine's credentials that the agent does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// The guest's operating system; `None` until the agent has said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<GuestOs>,
    /// The guest's network interfaces; empty without an agent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<GuestInterface>,
    /// Whether the guest's file systems are frozen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// Whether the guest has the machine's access credentials; `None` before the first try, and without credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<CredentialsStatus>,
}

/// Commands that an agent must have for what this product offers, as KubeVirt requires them.
pub const BASIC_COMMANDS: [&str; 10] = [
    "guest-ping",
    "guest-get-time",
    "guest-info",
    "guest-shutdown",
    "guest-network-get-interfaces",
    "guest-get-fsinfo",
    "guest-get-host-name",
    "guest-get-users",
    "guest-get-timezone",
    "guest-get-osinfo",
];

/// The command that sets a user's SSH keys.
pub const SSH_KEYS_COMMAND: &str = "guest-ssh-add-authorized-keys";

/// The command that sets a user's password.
pub const PASSWORD_COMMAND: &str = "guest-set-user-password";

/// Access credentials that the agent passes to the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CredentialsStatus {
    /// Whether the guest has all of them.
    pub synchronized: bool,
    /// Why the guest does not have them all; empty when it has.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// An operating system, as os-release(5) and uname(2) describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GuestOs {
    /// NAME of os-release(5): `Debian GNU/Linux`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Release of the kernel: `6.1.0-18-amd64`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kernel_release: String,
    /// VERSION of os-release(5): `12 (bookworm)`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// PRETTY_NAME of os-release(5): `Debian GNU/Linux 12 (bookworm)`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pretty_name: String,
    /// VERSION_ID of os-release(5): `12`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version_id: String,
    /// Version of the kernel: `#1 SMP PREEMPT_DYNAMIC …`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kernel_version: String,
    /// Hardware name of uname(2): `x86_64`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// ID of os-release(5): `debian`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
}

/// A network interface of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestInterface {
    /// Its name in the guest.
    pub name: String,
    /// Its Ethernet address; interfaces without one are left out.
    pub mac: MacAddr,
    /// Its IPv4 and IPv6 addresses, without prefix lengths.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// All that the agent says of its guest: the report for `agentInfo`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GuestInfo {
    /// Version of the agent (`guest-info`).
    pub version: String,
    /// Commands that the agent knows (`guest-info`).
    pub commands: Vec<AgentCommand>,
    /// The guest's host name; empty if the agent does not say it.
    pub hostname: String,
    /// The guest's operating system; its fields are empty if the agent does not say them.
    pub os: GuestOs,
    /// The guest's time zone and its offset in seconds: `CET, 3600`.
    pub timezone: String,
    /// Users who are logged in.
    pub users: Vec<GuestUser>,
    /// Mounted file systems (`guest-get-fsinfo`).
    pub filesystems: Vec<GuestFilesystem>,
    /// Whether the file systems are frozen.
    pub frozen: bool,
}

/// A command of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCommand {
    /// Name in the agent's schema: `guest-ping`.
    pub name: String,
    /// Whether it may be used.
    pub enabled: bool,
}

/// A user who is logged in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestUser {
    /// The user's login name.
    pub user_name: String,
    /// The user's domain, on Windows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// When the user logged in, in seconds since 1970.
    #[serde(default)]
    pub login_time: f64,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestFilesystem {
    /// Name of the block device, as the agent gives it.
    pub disk_name: String,
    /// Path of the mount point in the guest.
    pub mount_point: String,
    /// Type of the file system: `ext4`.
    pub file_system_type: String,
    /// Bytes in use; 0 if the agent does not say.
    #[serde(default)]
    pub used_bytes: u64,
    /// Size in bytes; 0 if the agent does not say.
    #[serde(default)]
    pub total_bytes: u64,
    /// The disks that the file system lies on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disk: Vec<GuestDisk>,
}

/// A disk below a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestDisk {
    /// Serial number of the disk; empty if it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub serial: String,
    /// The disk's bus as the agent names it: `virtio`, `sata`.
    pub bus_type: String,
}

/// A program to be executed in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Execute {
    /// The program and its arguments; at least the program.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout_seconds: u64,
}

/// How a program in the guest ended: the report for `agentExecute`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Executed {
    /// Its exit code; 128 and the signal's number if a signal ended it.
    pub exit_code: i32,
    /// The beginning of what it wrote to standard output, then of standard error.
    pub output: String,
}
