//! Disks and kernels out of container images in a cluster that cannot mount images as volumes.

use libtest_mimic::Trial;
use serde_json::json;
use tests::trial;

use crate::pods::fetch_path;
use crate::product::Annotated;
use crate::vmi::{condition, delete_and_assert_gone, installed, object, wait_instance, wait_ready};
use crate::vmi_trouble::{apply, instance};

pub(crate) fn trials() -> Vec<Trial> {
    // spec: CTRL-35
    vec![trial("a VM boots from files that init containers copy out of its images", copied)]
}

fn copied() {
    let cluster = installed();
    let copies = Annotated::new(&cluster, "tapvisor.io/image-volumes", "false");
    // The guest shows the last two bytes of its first sector: the disk's image is qcow2, and its contents were copied whole.
    let mut vmi = instance("copied", "guest.run=dd+if=/dev/vda+bs=1+skip=510+count=2|od+-x>/www/facts");
    vmi["spec"]["domain"]["devices"]["disks"] = json!([{"name": "root", "disk": {"bus": "virtio"}}]);
    let image = json!({"image": "localhost/tapvisor/guest-disk:1", "path": "/disk/disk.img"});
    vmi["spec"]["volumes"] = json!([{"name": "root", "containerDisk": image}]);
    apply(&cluster, &vmi);
    let running = wait_ready(&cluster, "copied");
    let address = running["status"]["interfaces"][0]["ipAddress"].as_str().expect("an address");
    assert!(fetch_path(&cluster, "vms", "client-node1", address, 80, "/facts").contains("aa55"));
    let label = format!("kubevirt.io/created-by={}", running["metadata"]["uid"].as_str().expect("a UID"));
    let pod = cluster.kubectl(&["-n", "vms", "get", "pods", "-l", &label, "-o", "jsonpath={.items[0].spec}"]).json();
    assert_eq!(pod["initContainers"].as_array().map(Vec::len), Some(3), "{pod:#}");
    assert!(pod["volumes"].as_array().is_some_and(|all| all.iter().all(|volume| volume["image"].is_null())), "{pod:#}");
    delete_and_assert_gone(&cluster, &running);

    let mut absent = instance("uncopied", "");
    absent["spec"]["domain"]["firmware"]["kernelBoot"]["container"]["kernelPath"] = json!("/boot/absent");
    apply(&cluster, &absent);
    let failed = wait_instance(&cluster, "uncopied", "to fail", |vmi| vmi["status"]["phase"] == "Failed");
    let words = ["localhost/tapvisor/guest-kernel:1 were not copied", "/boot/absent: No such file"];
    let told = condition(&failed, "Synchronized").unwrap_or_default();
    assert!(words.iter().all(|word| told.contains(word)), "{failed:#}");
    delete_and_assert_gone(&cluster, &object(&cluster, "vmi", "uncopied").expect("it failed"));
    drop(copies);
}
