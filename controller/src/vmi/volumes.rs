//! Volumes of a launcher pod: the launch file, the launcher's folders, the images of disks and kernel, and a user's Secrets.

use api::kubevirt::ImagePullPolicy;
use api::translate::{ClaimPlace, ImageUse, claims as claims_of, container_images, secret_names};
use machine::DiskSource;
use serde_json::{Value, json};

use super::launch::{DISKS, KERNEL, Launch, SECRETS};
use super::resources::ephemeral_storage;

/// Log of the console, sockets and the outcome.
const RUN_FOLDER: &str = "64Mi";

/// `volumes` of the pod and `volumeMounts` of its container.
pub(super) fn volumes(secret: &str, launch: &Launch) -> (Vec<Value>, Vec<Value>) {
    let mut volumes = vec![
        json!({"name": "machine", "secret": {"secretName": secret, "defaultMode": 0o440}}),
        json!({"name": "run", "emptyDir": {"sizeLimit": RUN_FOLDER}}),
        json!({"name": "scratch", "emptyDir": scratch(launch)}),
    ];
    let mut mounts = vec![
        json!({"name": "machine", "mountPath": "/etc/tapvisor", "readOnly": true}),
        json!({"name": "run", "mountPath": "/run/tapvisor"}),
        json!({"name": "scratch", "mountPath": "/run/tapvisor-scratch"}),
    ];
    for (index, image) in container_images(&launch.instance).iter().enumerate() {
        let name = format!("image-{index}");
        let path = match &image.usage {
            ImageUse::Disk { volume, .. } => format!("{DISKS}/{volume}"),
            ImageUse::KernelBoot { .. } => KERNEL.to_owned(),
        };
        let policy = match image.pull_policy {
            ImagePullPolicy::Always => "Always",
            ImagePullPolicy::IfNotPresent => "IfNotPresent",
            ImagePullPolicy::Never => "Never",
        };
        volumes.push(json!({"name": name, "image": {"reference": image.image, "pullPolicy": policy}}));
        mounts.push(json!({"name": name, "mountPath": path, "readOnly": true}));
    }
    for (index, secret) in secret_names(&launch.instance).into_iter().enumerate() {
        let name = format!("secret-{index}");
        volumes.push(json!({"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}));
        mounts.push(json!({"name": name, "mountPath": format!("{SECRETS}/{secret}"), "readOnly": true}));
    }
    (volumes, mounts)
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
