//! Launcher pods and Secrets as golden YAML: `tests/golden/NAME.yaml`, rewritten with `TAPVISOR_REWRITE_GOLDEN=1`.

use std::path::Path;

use super::*;

/// Demands that an object is as its golden file says.
fn assert_golden(name: &str, object: &impl serde::Serialize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.yaml"));
    let text = serde_saphyr::to_string(&serde_json::to_value(object).unwrap()).unwrap();
    if std::env::var_os("TAPVISOR_REWRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} differs; it would be:\n{text}", path.display());
}

pub(super) fn assert_golden_pod(name: &str, object: &VirtualMachineInstance, config: &ClusterConfig) {
    assert_golden(name, &pod::pod(object, &launch(object, config), config, 1).unwrap());
}

// spec: CTRL-2
#[test]
fn a_masquerade_instance_in_emulation() {
    assert_golden_pod("masquerade-emulation", &small(), &config());
    assert_golden("masquerade-emulation-secret", &pod::secret(&small(), &launch(&small(), &config())).unwrap());
}

// spec: CTRL-2, CTRL-55
#[test]
fn an_instance_with_everything_under_kvm() {
    let object = instance(json!({
        "hostname": "front", "subdomain": "guests", "terminationGracePeriodSeconds": 10,
        "nodeSelector": {"disk": "fast"}, "priorityClassName": "high", "tolerations": [{"operator": "Exists"}],
        "readinessProbe": {"httpGet": {"port": 80}, "initialDelaySeconds": 5},
        "domain": {
            "cpu": {"cores": 2}, "memory": {"guest": "1Gi"},
            "resources": {"requests": {"memory": "512Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
            "devices": {
                "disks": [{"name": "root", "bootOrder": 1, "disk": {"bus": "virtio"}}, {"name": "scratch", "disk": {"bus": "virtio"}}, {"name": "seed", "disk": {"bus": "virtio"}}],
                "interfaces": [{"name": "default", "masquerade": {}, "ports": [{"name": "http", "port": 80}]}, {"name": "blue", "bridge": {}}],
            },
        },
        "networks": [{"name": "default", "pod": {}}, {"name": "blue", "multus": {"networkName": "lan"}}],
        "volumes": [
            {"name": "root", "containerDisk": {"image": "registry.example/disk:1", "imagePullSecret": "pull", "path": "/disk/disk.img"}},
            {"name": "scratch", "emptyDisk": {"capacity": "2Gi"}},
            {"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": "seed"}, "networkDataSecretRef": {"name": "net"}}},
        ],
    }));
    assert_golden_pod("everything-kvm", &object, &ClusterConfig { use_emulation: false, ..config() });
}

#[test]
fn a_kernel_boot_where_multus_carries_the_wiring() {
    let object = instance(json!({
        "domain": {"memory": {"guest": "128Mi"}, "devices": {},
            "firmware": {"kernelBoot": {"container": {"image": "kernel:1", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd.img"}}}},
    }));
    let config = ClusterConfig {
        wiring_channel: WiringChannel::Multus,
        runtime_class: Some("tapvisor".to_owned()),
        requests_tun: false,
        ..config()
    };
    assert_golden_pod("kernel-boot-multus", &object, &config);
}

// spec: CTRL-3
#[test]
fn annotation_and_launch_file_hold_the_same_wiring() {
    let launch = launch(&small(), &config());
    let pod = pod::pod(&small(), &launch, &config(), 1).unwrap();
    let annotation = &pod.metadata.annotations.unwrap()["tapvisor.io/wiring"];
    assert_eq!(wiring::Request::parse(annotation).unwrap(), launch.file.wiring);
    let secret = pod::secret(&small(), &launch).unwrap();
    let file = &secret.string_data.unwrap()["machine.json"];
    let file = protocol::launch_file::LaunchFile::parse(file.as_bytes()).unwrap();
    assert_eq!(file.wiring.digest(), launch.file.wiring.digest());
}

// spec: CTRL-50
#[test]
fn an_annotation_makes_a_launcher_fail_at_once() {
    let mut object = small();
    let key = "kubevirt.io/func-test-virt-launcher-fail-fast";
    object.metadata.annotations = Some([(key.to_owned(), String::new())].into());
    let pod = pod::pod(&object, &launch(&object, &config()), &config(), 1).unwrap();
    assert_eq!(pod.spec.unwrap().containers[0].args, Some(vec!["fail".to_owned()]));
}

// spec: CTRL-3
#[test]
fn annotations_of_an_instance_cannot_replace_the_wiring_or_add_networks() {
    let mut object = small();
    let forged =
        ["tapvisor.io/wiring", "k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network", "example.org/note"];
    object.metadata.annotations = Some(forged.iter().map(|key| ((*key).to_owned(), "{}".to_owned())).collect());
    let config = ClusterConfig { wiring_channel: WiringChannel::Multus, ..config() };
    let annotations = pod::pod(&object, &launch(&object, &config), &config, 1).unwrap().metadata.annotations.unwrap();
    assert_eq!(annotations.get("example.org/note").map(String::as_str), Some("{}"));
    assert!(
        !annotations.contains_key("tapvisor.io/wiring")
            && !annotations.contains_key("v1.multus-cni.io/default-network")
    );
    assert!(annotations["k8s.v1.cni.cncf.io/networks"].contains("tapvisor-wiring"));
}

#[test]
fn names_are_the_same_for_the_same_instance_and_fit_dns() {
    let name = pod::pod_name("web", UID, 1);
    assert_eq!(name, pod::pod_name("web", UID, 1));
    assert!(name.starts_with("virt-launcher-web-"), "{name}");
    let names = [name, pod::pod_name("web", UID, 2), pod::pod_name("web", "another", 1)];
    assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    assert!(pod::pod_name(&"a.".repeat(100), UID, 1).len() <= 63);
}

// spec: CTRL-4
#[test]
fn the_mac_address_follows_the_vm_that_owns_the_instance() {
    let mac = |object: &VirtualMachineInstance| launch(object, &config()).file.wiring.interfaces()[0].mac.unwrap();
    let mut owned = small();
    let owner = json!([{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "web", "uid": "vm-uid", "controller": true}]);
    owned.metadata.owner_references = serde_json::from_value(owner).unwrap();
    let mut restarted = owned.clone();
    restarted.metadata.uid = Some("another".to_owned());
    assert_eq!(mac(&owned), mac(&restarted));
    assert_ne!(mac(&owned), mac(&small()));
}

#[test]
fn what_a_launcher_pod_may_not_have_is_refused_by_its_path() {
    let object = instance(json!({
        "domain": {"memory": {"guest": "128Mi"}, "devices": {}},
        "volumes": [{"name": "data", "hostDisk": {"path": "/srv/d.img", "type": "Disk"}}],
    }));
    let refused = launch::read(&object, &config()).launch.unwrap_err();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].starts_with("spec.volumes[data].hostDisk: not supported"), "{refused:?}");
}

// spec: CTRL-35
#[test]
fn an_instance_in_a_cluster_that_cannot_mount_images() {
    let object = instance(json!({
        "domain": {
            "memory": {"guest": "128Mi"},
            "firmware": {"kernelBoot": {"container": {
                "image": "registry.example/kernel:1", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd.img"}}},
            "devices": {"disks": [{"name": "root", "disk": {"bus": "virtio"}}, {"name": "data", "disk": {"bus": "virtio"}}]},
        },
        "volumes": [
            {"name": "root", "containerDisk": {"image": "registry.example/disk:1", "imagePullPolicy": "Always"}},
            {"name": "data", "containerDisk": {"image": "registry.example/data:1", "path": "/custom/data.qcow2"}},
        ],
    }));
    let config = ClusterConfig { mounts_images: false, use_emulation: false, ..config() };
    assert_golden_pod("copied-images", &object, &config);
}

// spec: CTRL-19
#[test]
fn a_cloud_init_secret_is_mounted_in_the_pod_not_in_the_launch_file() {
    let object = instance(json!({
        "domain": {"memory": {"guest": "128Mi"}, "devices": {}},
        "volumes": [{"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": "seed"}, "networkDataSecretRef": {"name": "seed"}}}],
    }));
    let launch = launch(&object, &config());
    let pod = pod::pod(&object, &launch, &config(), 1).unwrap().spec.unwrap();
    let mounted = pod.volumes.unwrap().into_iter().filter_map(|volume| volume.secret?.secret_name);
    assert_eq!(mounted.filter(|name| name == "seed").count(), 1);
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    assert!(mounts.iter().any(|mount| mount.mount_path == "/run/tapvisor-secrets/seed"), "{mounts:?}");
    let file = serde_json::to_string(&launch.file).unwrap();
    let content =
        r#""userData":{"firstOf":["/run/tapvisor-secrets/seed/userdata","/run/tapvisor-secrets/seed/userData"]}"#;
    assert!(file.contains(content), "{file}");
}

// spec: CTRL-25
#[test]
fn empty_disks_have_a_size_limit_that_the_pod_requests() {
    let of = |volumes: Value| {
        let disks: Vec<_> = ["a", "b"].map(|name| json!({"name": name, "disk": {"bus": "virtio"}})).to_vec();
        let object = instance(json!({
            "domain": {"memory": {"guest": "128Mi"}, "devices": {"disks": disks}}, "volumes": volumes,
        }));
        let spec = pod::pod(&object, &launch(&object, &config()), &config(), 1).unwrap().spec.unwrap();
        let requests = spec.containers[0].resources.clone().unwrap().requests.unwrap();
        let scratch = spec.volumes.unwrap().into_iter().find(|volume| volume.name == "scratch").unwrap();
        (requests["ephemeral-storage"].0.clone(), scratch.empty_dir.unwrap().size_limit.map(|limit| limit.0))
    };
    let empty = |name: &str| json!({"name": name, "emptyDisk": {"capacity": "1Gi"}});
    assert_eq!(of(json!([empty("a"), empty("b")])), ("2098Mi".to_owned(), Some("2098Mi".to_owned())));
    let image = json!({"name": "b", "containerDisk": {"image": "registry.example/disk:1"}});
    assert_eq!(of(json!([empty("a"), image])), ("1074Mi".to_owned(), None));
}
