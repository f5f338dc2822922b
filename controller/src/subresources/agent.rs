//! What the guest's agent says, as KubeVirt's API has it.

use hyper::StatusCode;
use protocol::agent::GuestInfo;
use protocol::control::{Report, Verb};
use serde_json::{Value, json};

use super::calls::{Api, instance, json_answer};
use super::instance::{Launcher, check_agent, failure};
use super::path::Target;
use super::status::Failure;
use crate::http::{Answer, plain};

/// Users and file systems in the document with everything, as KubeVirt limits them; documents of their own have all.
const MOST_ITEMS: usize = 10;

/// A document of the guest's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Document {
    /// `guestosinfo`
    Info,
    /// `userlist`
    Users,
    /// `filesystemlist`
    Filesystems,
}

impl Document {
    /// The document of a subresource's name.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "guestosinfo" => Some(Self::Info),
            "userlist" => Some(Self::Users),
            "filesystemlist" => Some(Self::Filesystems),
            _ => None,
        }
    }

    fn content(self, info: &GuestInfo) -> Value {
        match self {
            Self::Info => info_of(info),
            Self::Users => json!({"metadata": {}, "items": info.users}),
            Self::Filesystems => json!({"metadata": {}, "items": info.filesystems}),
        }
    }
}

/// What the guest's agent says. A failure is, as KubeVirt's virt-api words it, plain text with code 500, which alone virtctl
/// shows to its user.
pub(super) async fn document(api: &Api, target: &Target, document: Document) -> Answer {
    match information(api, target).await {
        Ok(info) => json_answer(StatusCode::OK, &document.content(&info)),
        Err(failure) => plain(StatusCode::INTERNAL_SERVER_ERROR, failure.message),
    }
}

async fn information(api: &Api, target: &Target) -> Result<GuestInfo, Failure> {
    let vmi = instance(&api.client, &target.namespace, &target.name).await?;
    check_agent(&vmi)?;
    let launcher = Launcher::of(api, &vmi).await?;
    let report = api.launchers.ask(&launcher.node, &launcher.pod, Verb::AgentInfo, &Value::Null).await;
    match report.map_err(|error| failure(&target.name, &error))? {
        Report::Guest { guest } => Ok(*guest),
        _ => Err(Failure::internal("the launcher answers something else")),
    }
}

/// VirtualMachineInstanceGuestAgentInfo.
fn info_of(info: &GuestInfo) -> Value {
    let mut document = json!({
        "guestAgentVersion": info.version,
        "supportedCommands": info.commands,
        "hostname": info.hostname,
        "os": info.os,
        "timezone": info.timezone,
        "userList": info.users.iter().take(MOST_ITEMS).collect::<Vec<_>>(),
        "fsInfo": {"disks": info.filesystems.iter().take(MOST_ITEMS).collect::<Vec<_>>()},
    });
    if info.frozen {
        document["fsFreezeStatus"] = "frozen".into();
    }
    document
}

#[cfg(test)]
mod tests {
    use protocol::agent::{GuestFilesystem, GuestUser};

    use super::*;

    // spec: SUB-9
    #[test]
    fn documents_of_the_guests_agent_have_kubevirts_fields() {
        let user = GuestUser { user_name: "fedora".to_owned(), domain: String::new(), login_time: 1.5 };
        let root = GuestFilesystem {
            disk_name: "vda2".to_owned(),
            mount_point: "/".to_owned(),
            file_system_type: "ext4".to_owned(),
            used_bytes: 1,
            total_bytes: 2,
            disk: Vec::new(),
        };
        let info = GuestInfo {
            version: "7.2.22".to_owned(),
            hostname: "web".to_owned(),
            timezone: "UTC, 0".to_owned(),
            users: vec![user; 12],
            filesystems: vec![root],
            frozen: true,
            ..GuestInfo::default()
        };
        let document = Document::Info.content(&info);
        assert_eq!((&document["guestAgentVersion"], &document["fsFreezeStatus"]), (&json!("7.2.22"), &json!("frozen")));
        assert_eq!(document["userList"].as_array().unwrap().len(), MOST_ITEMS);
        assert_eq!(document["fsInfo"]["disks"][0]["mountPoint"], "/");
        let users = Document::Users.content(&info);
        assert_eq!((users["items"].as_array().unwrap().len(), &users["items"][0]["userName"]), (12, &json!("fedora")));
        let filesystems = Document::Filesystems.content(&info);
        let expected =
            json!({"diskName": "vda2", "mountPoint": "/", "fileSystemType": "ext4", "usedBytes": 1, "totalBytes": 2});
        assert_eq!(filesystems["items"], json!([expected]));
    }
}
