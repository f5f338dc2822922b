//! PersistentVolumeClaims in launcher pods and launch files.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use machine::{DiskFormat, DiskSource};

use super::*;
use crate::vmi::claims::{Claims, is_being_filled};

fn claimed() -> VirtualMachineInstance {
    instance(json!({
        "domain": {"memory": {"guest": "128Mi"}, "devices": {}},
        "volumes": [
            {"name": "folder", "persistentVolumeClaim": {"claimName": "files"}},
            {"name": "device", "persistentVolumeClaim": {"claimName": "block"}},
            {"name": "base", "ephemeral": {"persistentVolumeClaim": {"claimName": "files"}}},
        ],
    }))
}

fn known() -> Claims {
    let claim = |mode: &str, capacity: Value| json!({"spec": {"volumeMode": mode, "resources": {"requests": {"storage": "100Mi"}}}, "status": {"capacity": capacity}});
    let claims =
        json!({"files": claim("Filesystem", json!({"storage": "200Mi"})), "block": claim("Block", Value::Null)});
    serde_json::from_value(claims).unwrap()
}

// spec: VOL-1
#[test]
fn a_claim_is_a_folder_or_a_block_device_of_the_pod_and_the_disk() {
    let launch = launch::read_with(&claimed(), &known(), &config()).launch.unwrap();
    let sources: Vec<_> = launch.file.machine.disks.iter().map(|disk| disk.source.clone()).collect();
    let expected = [
        DiskSource::Folder { path: "/run/tapvisor-claims/folder".into(), capacity_bytes: 200 << 20 },
        DiskSource::File { path: "/dev/tapvisor-claim-device".into(), format: DiskFormat::Raw },
        DiskSource::Overlay { path: "/run/tapvisor-claims/base/disk.img".into(), format: Some(DiskFormat::Raw) },
    ];
    assert_eq!(sources, expected);
    let pod = json!(pod::pod(&claimed(), &launch, &config(), 1).unwrap());
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let claims: Vec<_> = volumes.iter().filter_map(|volume| volume.get("persistentVolumeClaim")).collect();
    let claim = |name: &str, read_only: bool| json!({"claimName": name, "readOnly": read_only});
    assert_eq!(claims, [&claim("files", false), &claim("block", false), &claim("files", true)]);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["volumeDevices"], json!([{"name": "claim-1", "devicePath": "/dev/tapvisor-claim-device"}]));
    let mounts = container["volumeMounts"].as_array().unwrap();
    assert!(
        mounts.contains(&json!({"name": "claim-0", "mountPath": "/run/tapvisor-claims/folder", "readOnly": false}))
    );
    assert!(mounts.contains(&json!({"name": "claim-2", "mountPath": "/run/tapvisor-claims/base", "readOnly": true})));
}

#[test]
fn a_claim_of_another_mode_has_a_launch_file_of_its_own() {
    let secret_of = |claims: &Claims| {
        let launch = launch::read_with(&claimed(), claims, &config()).launch.unwrap();
        pod::secret(&claimed(), &launch).unwrap().metadata.name
    };
    assert_ne!(secret_of(&known()), secret_of(&Claims::new()));
    assert_eq!(secret_of(&known()), secret_of(&known()));
}

// spec: VOL-2
#[test]
fn an_instance_waits_for_a_claim_that_does_not_exist() {
    let mut case = Case::new(claimed(), vec![]);
    case.missing_claims = vec!["files".to_owned()];
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.actions.len()), (Some(Phase::Pending), 0));
    let expected = ("False", "FailedPvcNotFound", "PVC vms/files does not exist, waiting for it to appear");
    assert_eq!(told(&plan, "Synchronized"), Some(expected));
    assert!(plan.retry_after.is_some());
    case.object.status = Some(plan.status);
    case.missing_claims.clear();
    let plan = case.plan();
    assert_eq!((plan.status.phase, told(&plan, "Synchronized")), (Some(Phase::Scheduling), None));
}

// spec: VOL-9
#[test]
fn an_instance_waits_while_its_claim_is_being_filled() {
    let annotated = |phase: &str| -> PersistentVolumeClaim {
        let annotations = json!({"cdi.kubevirt.io/storage.pod.phase": phase});
        serde_json::from_value(json!({"metadata": {"name": "files", "annotations": annotations}})).unwrap()
    };
    let filling = ["", "Pending", "Running", "Failed"].map(annotated);
    assert!(filling.iter().all(is_being_filled));
    assert!(!is_being_filled(&annotated("Succeeded")) && !is_being_filled(&PersistentVolumeClaim::default()));

    let mut case = Case::new(claimed(), vec![]);
    case.filling_claims = vec!["files".to_owned()];
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.actions.len()), (Some(Phase::Pending), 0));
    let expected = ("False", "ClaimNotFilled", "PVC vms/files is still being filled, waiting for the import to end");
    assert_eq!(told(&plan, "Synchronized"), Some(expected));
    assert!(plan.retry_after.is_some());
}
