//! Volumes of a launcher pod: the launch file, the launcher's folders, and the images of disks and kernel.

use api::kubevirt::ImagePullPolicy;
use api::translate::{ImageUse, container_images};
use serde_json::{Value, json};

use super::launch::{DISKS, KERNEL, Launch};

/// Log of the console, sockets and the outcome.
const RUN_FOLDER: &str = "64Mi";

/// `volumes` of the pod and `volumeMounts` of its container.
pub(super) fn volumes(secret: &str, launch: &Launch) -> (Vec<Value>, Vec<Value>) {
    let mut volumes = vec![
        json!({"name": "machine", "secret": {"secretName": secret, "defaultMode": 0o440}}),
        json!({"name": "run", "emptyDir": {"sizeLimit": RUN_FOLDER}}),
        json!({"name": "scratch", "emptyDir": {}}),
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
    (volumes, mounts)
}
