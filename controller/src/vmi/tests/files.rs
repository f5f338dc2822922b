//! Disks with the files of objects: the pod's volumes, the launch file, and whose token is in the pod.

use super::golden::assert_golden_pod;
use super::*;

/// A volume of every kind that is files.
fn with_files() -> VirtualMachineInstance {
    instance(json!({
        "domain": {"memory": {"guest": "128Mi"}, "devices": {"disks": [
            {"name": "settings", "disk": {"bus": "virtio"}},
            {"name": "robot", "disk": {"bus": "virtio"}},
            {"name": "seed", "disk": {"bus": "virtio"}},
        ]}},
        "accessCredentials": [{"sshPublicKey": {"source": {"secret": {"secretName": "keys"}}, "propagationMethod": {"configDrive": {}}}}],
        "volumes": [
            {"name": "settings", "configMap": {"name": "settings", "optional": true, "volumeLabel": "OEMDRV"}},
            {"name": "keys", "secret": {"secretName": "keys"}},
            {"name": "robot", "serviceAccount": {"serviceAccountName": "robot"}},
            {"name": "pod", "downwardAPI": {"fields": [
                {"path": "a/labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "memory", "resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}},
            ]}},
            {"name": "seed", "cloudInitConfigDrive": {"secretRef": {"name": "seed"}}},
        ],
    }))
}

// spec: VOL-6
#[test]
fn an_instance_with_every_volume_that_is_files() {
    assert_golden_pod("files", &with_files(), &config());
}

// spec: VOL-6
#[test]
fn the_launcher_makes_each_disk_of_the_folder_that_the_pod_mounts() {
    let object = with_files();
    let launch = launch(&object, &config());
    let pod = pod::pod(&object, &launch, &config(), 1).unwrap().spec.unwrap();
    let mounted: Vec<_> = pod.containers[0].volume_mounts.iter().flatten().map(|mount| &*mount.mount_path).collect();
    for (volume, expected) in [("settings", "OEMDRV"), ("keys", "cfgdata"), ("robot", "cfgdata"), ("pod", "cfgdata")] {
        let disk = launch.file.machine.disks.iter().find(|disk| disk.name == volume).unwrap();
        let machine::DiskSource::Files { label, files: machine::FileSet::Folder(folder) } = &disk.source else {
            panic!("{disk:?}")
        };
        assert_eq!(label, expected);
        assert!(mounted.contains(&folder.to_str().unwrap()), "{folder:?} is not in {mounted:?}");
    }
}

// spec: VOL-7
#[test]
fn ssh_keys_are_read_by_the_launcher_from_the_secret_in_the_pod() {
    let object = with_files();
    let launch = launch(&object, &config());
    let file = serde_json::to_string(&launch.file).unwrap();
    assert!(file.contains(r#""publicKeys":[{"folder":"/run/tapvisor-secrets/keys"}]"#), "{file}");
    let pod = pod::pod(&object, &launch, &config(), 1).unwrap().spec.unwrap();
    let mut mounts = pod.containers[0].volume_mounts.iter().flatten();
    assert!(mounts.any(|mount| mount.mount_path == "/run/tapvisor-secrets/keys"));
}

// spec: VOL-8
#[test]
fn a_pod_has_a_token_only_for_a_service_account_volume() {
    let tokens = |object: &VirtualMachineInstance| {
        let spec = pod::pod(object, &launch(object, &config()), &config(), 1).unwrap().spec.unwrap();
        assert_eq!(spec.automount_service_account_token, Some(false));
        let sources = spec.volumes.into_iter().flatten().filter_map(|volume| volume.projected?.sources).flatten();
        (spec.service_account_name, sources.filter(|source| source.service_account_token.is_some()).count())
    };
    assert_eq!(tokens(&small()), (None, 0));
    assert_eq!(tokens(&with_files()), (Some("robot".to_owned()), 1));
}
