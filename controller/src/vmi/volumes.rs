//! Volumes of a launcher pod: the launch file, the launcher's folders, a user's Secrets, ConfigMaps and claims.

use api::kubevirt::{DownwardField, DownwardFile, FileObject, FileSource, Volume};
use api::translate::{ClaimPlace, claims as claims_of, secret_names};
use machine::DiskSource;
use serde_json::{Value, json};

use super::launch::{FILES, Launch, SECRETS};
use super::names::COMPUTE;
use super::resources::ephemeral_storage;

/// The launcher's group may read what is mounted.
const MODE: u32 = 0o440;
/// What Kubernetes itself asks for: with it the API server gives a token that is valid for a year. The guest is given one
/// token, when it starts.
const TOKEN_SECONDS: u32 = 3607;
/// What the launcher makes: overlays, empty disks, cloud-init volumes. KubeVirt's launcher has them there.
pub(super) const SCRATCH: &str = "/var/run/kubevirt-ephemeral-disks";
/// Log of the console, sockets and the outcome.
const RUN_FOLDER: &str = "64Mi";

/// `volumes` of the pod and `volumeMounts` of its container.
pub(super) fn volumes(secret: &str, launch: &Launch) -> (Vec<Value>, Vec<Value>) {
    let mut volumes = vec![
        json!({"name": "machine", "secret": {"secretName": secret, "defaultMode": MODE}}),
        json!({"name": "run", "emptyDir": {"sizeLimit": RUN_FOLDER}}),
        json!({"name": "scratch", "emptyDir": scratch(launch)}),
    ];
    let mut mounts = vec![
        json!({"name": "machine", "mountPath": "/etc/tapvisor", "readOnly": true}),
        json!({"name": "run", "mountPath": "/run/tapvisor"}),
        json!({"name": "scratch", "mountPath": SCRATCH}),
    ];
    for (index, secret) in secret_names(&launch.instance).into_iter().enumerate() {
        let name = format!("secret-{index}");
        volumes.push(json!({"name": name, "secret": {"secretName": secret, "defaultMode": MODE}}));
        mounts.push(json!({"name": name, "mountPath": format!("{SECRETS}/{secret}"), "readOnly": true}));
    }
    (volumes, mounts)
}

/// `volumes` of the pod for disks that are files, and `volumeMounts` of its container.
pub(super) fn files(launch: &Launch) -> (Vec<Value>, Vec<Value>) {
    let disks = launch.instance.spec.disks.iter().filter_map(|disk| match &disk.volume {
        Volume::Files { source, .. } => Some((&disk.name, source)),
        _ => None,
    });
    let pairs = disks.enumerate().map(|(index, (volume, source))| {
        let mut of_pod = source_of_pod(source);
        of_pod["name"] = json!(format!("files-{index}"));
        let path = format!("{FILES}/{volume}");
        (of_pod, json!({"name": format!("files-{index}"), "mountPath": path, "readOnly": true}))
    });
    pairs.unzip()
}

/// The pod's volume without its name.
fn source_of_pod(source: &FileSource) -> Value {
    match source {
        FileSource::ConfigMap(FileObject { name, is_optional, .. }) => {
            json!({"configMap": {"name": name, "optional": is_optional, "defaultMode": MODE}})
        }
        FileSource::Secret(FileObject { name, is_optional, .. }) => {
            json!({"secret": {"secretName": name, "optional": is_optional, "defaultMode": MODE}})
        }
        FileSource::ServiceAccount { .. } => json!({"projected": {"defaultMode": MODE, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}),
        FileSource::DownwardApi(files) => {
            let items: Vec<_> = files.iter().map(downward_item).collect();
            json!({"downwardAPI": {"items": items, "defaultMode": MODE}})
        }
    }
}

fn downward_item(file: &DownwardFile) -> Value {
    match &file.field {
        DownwardField::Metadata(path) => {
            json!({"path": file.path, "fieldRef": {"apiVersion": "v1", "fieldPath": path}})
        }
        DownwardField::Resource { resource, divisor } => {
            let mut reference = json!({"containerName": COMPUTE, "resource": resource});
            if let Some(divisor) = divisor {
                reference["divisor"] = json!(divisor);
            }
            json!({"path": file.path, "resourceFieldRef": reference})
        }
    }
}

/// The service account of the pod: the one whose token the guest is given.
pub(super) fn service_account(launch: &Launch) -> Option<&str> {
    launch.instance.spec.disks.iter().find_map(|disk| match &disk.volume {
        Volume::Files { source: FileSource::ServiceAccount { name }, .. } => Some(name.as_str()),
        _ => None,
    })
}

/// `volumes` of the pod for claims, and `volumeMounts` and `volumeDevices` of its container.
pub(super) fn claims(launch: &Launch) -> (Vec<Value>, Vec<Value>, Vec<Value>) {
    let (mut volumes, mut mounts, mut devices) = (Vec::new(), Vec::new(), Vec::new());
    for (index, claim) in claims_of(&launch.instance).into_iter().enumerate() {
        let name = format!("claim-{index}");
        match launch.places.get(&claim.volume) {
            Some(ClaimPlace::Folder { path, .. }) => {
                mounts.push(json!({"name": name, "mountPath": path, "readOnly": claim.read_only}));
            }
            Some(ClaimPlace::Device(path)) => devices.push(json!({"name": name, "devicePath": path})),
            None => continue,
        }
        let source = json!({"claimName": claim.claim, "readOnly": claim.read_only});
        volumes.push(json!({"name": name, "persistentVolumeClaim": source}));
    }
    (volumes, mounts, devices)
}

/// The folder of disks that end with the VM. The guest fills an empty disk to its size and no further; an overlay grows with
/// an image whose size is known to the launcher alone, so it has no limit.
fn scratch(launch: &Launch) -> Value {
    let mut disks = launch.file.machine.disks.iter();
    if disks.any(|disk| matches!(disk.source, DiskSource::Overlay { .. }) && !disk.read_only) {
        return json!({});
    }
    json!({"sizeLimit": ephemeral_storage(launch)})
}
