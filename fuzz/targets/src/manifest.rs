//! Target `manifest`: a text that a user hands to `tapvisor run -f`.

use std::path::Path;

use api::kubevirt::VirtualMachineInstance;
use api::manifest::{self, Body, Object};
use api::translate::{ClaimPlace, Data, DataSource, ImageFiles, TranslateContext, container_images, translate};
use machine::{DiskFile, DiskFormat, Emulation};
use protocol::launch_file::LaunchFile;
use wiring::Owner;

/// Longest complaint: paths and names are the user's own, the rest is cut.
const LONGEST_COMPLAINT_BYTES: usize = 4096;
/// Complaints about one document, and its last word on how many more there are.
const MOST_COMPLAINTS: usize = 101;

/// Reads an input and panics when a promise is broken.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match manifest::parse(text, "a") {
        Ok(objects) => objects.iter().for_each(verify),
        Err(complaints) => {
            assert!(!complaints.is_empty());
            let documents = text.matches("---").count() + 1;
            assert!(complaints.len() <= MOST_COMPLAINTS * documents + documents, "{} complaints", complaints.len());
            complaints.iter().for_each(|one| crate::assert_short(&one.to_string(), LONGEST_COMPLAINT_BYTES));
        }
    }
}

fn verify(object: &Object) {
    let again = manifest::from_value(&object.source, "a").expect("an object that was read can be read again");
    assert_eq!(again.body, object.body);
    object.warnings.iter().for_each(|one| crate::assert_short(&one.to_string(), LONGEST_COMPLAINT_BYTES));
    if let Body::VirtualMachineInstance(instance) = &object.body {
        becomes_a_machine(instance);
    }
}

/// Every instance that obeys the rules becomes a machine, once the files of its images are there.
fn becomes_a_machine(instance: &VirtualMachineInstance) {
    let file = || Path::new("/images/file").to_owned();
    let disk_file = || DiskFile { path: file(), format: Some(DiskFormat::Qcow2) };
    let disks = instance.spec.disks.iter().map(|disk| (disk.name.clone(), disk_file())).collect();
    let claims = instance.spec.disks.iter().map(|disk| (disk.name.clone(), ClaimPlace::Device(file()))).collect();
    let context = TranslateContext {
        data: DataSource::Read(&Data::default()),
        images: &ImageFiles { disks, kernel: Some(file()), initrd: Some(file()) },
        claims: Some(&claims),
        owner: Owner { uid: 107, gid: 107 },
        emulation: Emulation::Allowed,
        engine: None,
        primary_interface: "eth0".parse().expect("eth0 is a name"),
        vm_uid: None,
        bindings: api::translate::BindingPlugins::None,
        has_mesh_sidecar: false,
    };
    let _images = container_images(instance);
    match translate(instance, &context) {
        Ok(translation) => {
            crate::wiring::verify(&translation.wiring);
            let launch = LaunchFile::new(translation.machine, translation.wiring);
            let text = serde_json::to_string(&launch).expect("a launch file is JSON");
            let again = LaunchFile::parse(text.as_bytes()).expect("a launch file that was written can be read");
            assert_eq!(again, launch);
        }
        Err(errors) => {
            for error in errors {
                let words = error.to_string();
                let is_missing = ["Secret", "ConfigMap", "only in a cluster"].iter().any(|part| words.contains(part));
                assert!(is_missing, "nothing but objects is missing: {words}");
                crate::assert_short(&words, LONGEST_COMPLAINT_BYTES);
            }
        }
    }
}

/// The examples, and the manifests that the reader's own tests hold.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let workspace = crate::inputs::folder().join("..");
    let folders = [workspace.join("examples"), workspace.join("api/tests/manifests")];
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let mut paths: Vec<_> = files.map(|file| file.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}
