//! Container images whose files a VM uses, disks and kernels: mounted as volumes, or copied by init containers on clusters
//! that cannot mount them.

use api::kubevirt::ImagePullPolicy;
use api::translate::{ContainerImage, ImageUse, container_images};
use serde_json::{Value, json};

use super::launch::{DISK_FOLDER, DISKS, KERNEL, Launch};
use crate::config::ClusterConfig;

/// The program that copies, in the launcher's image and in the folder that the init containers share.
const COPIER: &str = "/usr/bin/tapvisor-copier";
const SHARED_FOLDER: &str = "/run/tapvisor-copier";
/// Where an init container sees the folder that it fills.
const COPIES: &str = "/run/tapvisor-copies";

/// What the pod needs for its images.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// `volumes` of the pod.
    pub(super) volumes: Vec<Value>,
    /// `volumeMounts` of the container that runs the guest.
    pub(super) mounts: Vec<Value>,
    /// `initContainers` of the pod: none where images are volumes.
    pub(super) init_containers: Vec<Value>,
}

/// What a pod with these images needs. `resources` are those of the container that runs the guest: with the same for every
/// container, less the devices, the pod keeps its quality of service.
pub(super) fn images(launch: &Launch, config: &ClusterConfig, resources: &Value) -> Images {
    let resources = &without_devices(resources);
    let mut images = Images::default();
    for (index, image) in container_images(&launch.instance).iter().enumerate() {
        let name = format!("image-{index}");
        let path = match &image.usage {
            ImageUse::Disk { volume, .. } => format!("{DISKS}/{volume}"),
            ImageUse::KernelBoot { .. } => KERNEL.to_owned(),
        };
        if config.mounts_images {
            let policy = pull_policy(image);
            images.volumes.push(json!({"name": name, "image": {"reference": image.image, "pullPolicy": policy}}));
        } else {
            if index == 0 {
                images.volumes.push(json!({"name": "copier", "emptyDir": {}}));
                images.init_containers.push(installer(config, resources));
            }
            images.volumes.push(json!({"name": name, "emptyDir": {}}));
            images.init_containers.push(copier(&name, image, resources));
        }
        images.mounts.push(json!({"name": name, "mountPath": path, "readOnly": true}));
    }
    images
}

fn without_devices(resources: &Value) -> Value {
    let mut kept = resources.clone();
    for list in kept.as_object_mut().into_iter().flat_map(|lists| lists.values_mut()).filter_map(Value::as_object_mut) {
        list.retain(|name, _| !name.contains('/'));
    }
    kept
}

fn pull_policy(image: &ContainerImage) -> &'static str {
    match image.pull_policy {
        ImagePullPolicy::Always => "Always",
        ImagePullPolicy::IfNotPresent => "IfNotPresent",
        ImagePullPolicy::Never => "Never",
    }
}

/// Puts the program that copies where the next init containers find it.
fn installer(config: &ClusterConfig, resources: &Value) -> Value {
    let command = [COPIER, "install", &format!("{SHARED_FOLDER}/copier")].map(str::to_owned);
    let mounts = json!([{"name": "copier", "mountPath": SHARED_FOLDER}]);
    init_container("copier", &config.launcher_image, "IfNotPresent", &command, &mounts, resources)
}

/// Copies, in a user's image, the files that the VM uses.
fn copier(name: &str, image: &ContainerImage, resources: &Value) -> Value {
    let paths: Vec<&str> = match &image.usage {
        ImageUse::Disk { path, .. } => vec![path.as_deref().unwrap_or(DISK_FOLDER)],
        ImageUse::KernelBoot { kernel, initrd } => {
            [Some(kernel), initrd.as_ref()].into_iter().flatten().map(String::as_str).collect()
        }
    };
    let program = format!("{SHARED_FOLDER}/copier");
    let command: Vec<_> = [program.as_str(), "copy", COPIES].into_iter().chain(paths).map(str::to_owned).collect();
    let mounts = json!([
        {"name": "copier", "mountPath": SHARED_FOLDER, "readOnly": true},
        {"name": name, "mountPath": COPIES},
    ]);
    init_container(name, &image.image, pull_policy(image), &command, &mounts, resources)
}

fn init_container(
    name: &str,
    image: &str,
    pull_policy: &str,
    command: &[String],
    mounts: &Value,
    resources: &Value,
) -> Value {
    json!({
        "name": name,
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": command,
        "resources": resources,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "runAsNonRoot": true,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    })
}
