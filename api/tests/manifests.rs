//! Walks `tests/manifests`: each manifest and its expected result.
//!
//! `NAME.yaml` is read; `NAME.expected.json` holds its complaints, or its warnings and, for each machine, what
//! translation gives. `TAPVISOR_REWRITE_GOLDEN=1` rewrites the expectations; a review reads the difference.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use api::Problem;
use api::kubevirt::VirtualMachineInstance;
use api::manifest::{self, Body, Object};
use api::translate::{Data, DataSource, ImageFiles, ImageUse, TranslateContext, container_images, translate};
use machine::{DiskFile, DiskFormat, Emulation};
use serde_json::{Value, json};
use wiring::Owner;

const FEWEST_MANIFESTS: usize = 24;

// spec: API-1, API-2, API-3, NIC-8, SVC-8, VOL-9, VOL-10
#[test]
fn each_manifest_gives_its_expected_result() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let rewrite = std::env::var_os("TAPVISOR_REWRITE_GOLDEN").is_some();
    let mut manifests: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    manifests.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    manifests.sort();
    assert!(manifests.len() >= FEWEST_MANIFESTS, "only {} manifests in {}", manifests.len(), folder.display());
    let mut differing = Vec::new();
    for path in manifests {
        let expected_path = path.with_extension("expected.json");
        let found = format!("{:#}\n", outcome(&path));
        if rewrite {
            fs::write(&expected_path, &found).unwrap();
        } else if fs::read_to_string(&expected_path).unwrap_or_default() != found {
            differing.push(format!("{}:\n{found}", expected_path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn outcome(path: &Path) -> Value {
    let name = path.file_name().unwrap().to_str().unwrap();
    match manifest::parse(&fs::read_to_string(path).unwrap(), name) {
        Err(errors) => json!({ "refused": errors.iter().map(ToString::to_string).collect::<Vec<_>>() }),
        Ok(objects) => {
            let data = Data::of(&objects);
            json!({ "objects": objects.iter().map(|object| object_outcome(object, &data)).collect::<Vec<_>>() })
        }
    }
}

fn object_outcome(object: &Object, data: &Data) -> Value {
    let mut outcome = json!({ "object": format!("{} {}", object.body.kind(), object.body.key()) });
    if !object.warnings.is_empty() {
        outcome["warnings"] = object.warnings.iter().map(ToString::to_string).collect();
    }
    match &object.body {
        Body::VirtualMachine(vm) => {
            outcome["runStrategy"] = format!("{:?}", vm.run_strategy).into();
            outcome["machine"] = machine_outcome(&vm.instance(), data);
        }
        Body::VirtualMachineInstance(instance) => outcome["machine"] = machine_outcome(instance, data),
        Body::Service(service) => outcome["service"] = format!("{service:?}").into(),
        Body::NetworkAttachmentDefinition(network) => outcome["config"] = format!("{:?}", network.config).into(),
        _ => {}
    }
    outcome
}

fn machine_outcome(instance: &VirtualMachineInstance, data: &Data) -> Value {
    let images = images(instance);
    let context = TranslateContext {
        data: DataSource::Read(data),
        images: &images,
        claims: None,
        owner: Owner { uid: 107, gid: 107 },
        emulation: Emulation::Allowed,
        engine: None,
        primary_interface: "eth0".parse().unwrap(),
        vm_uid: None,
        bindings: api::translate::BindingPlugins::None,
        has_mesh_sidecar: true,
    };
    match translate(instance, &context) {
        Ok(translation) => serde_json::to_value(translation).unwrap(),
        Err(errors) => json!({ "refused": errors.iter().map(ToString::to_string).collect::<Vec<_>>() }),
    }
}

/// Invented places for the files that an image store would hand out.
fn images(instance: &VirtualMachineInstance) -> ImageFiles {
    let mut files = ImageFiles { disks: BTreeMap::new(), kernel: None, initrd: None };
    for image in container_images(instance) {
        match image.usage {
            ImageUse::Disk { volume, .. } => {
                let path = Path::new("/images").join(&volume);
                files.disks.insert(volume, DiskFile { path, format: Some(DiskFormat::Qcow2) });
            }
            ImageUse::KernelBoot { initrd, .. } => {
                files.kernel = Some("/images/kernel".into());
                files.initrd = initrd.map(|_| "/images/initrd".into());
            }
        }
    }
    files
}

/// Reading goes on after a complaint: a field that a reader had no more time to ask for would be called unknown.
#[test]
fn a_wrong_value_anywhere_never_makes_another_field_unknown() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let (mut changed, mut wronged) = (0, Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml");
        let Ok(objects) = manifest::parse(&fs::read_to_string(&path).unwrap_or_default(), "a") else { continue };
        for object in objects.iter().filter(|_| is_yaml) {
            for pointer in pointers(&object.source, String::new()) {
                changed += 1;
                wronged.extend(fields_made_unknown(object, &pointer));
            }
        }
    }
    assert!(wronged.is_empty(), "{}", wronged.join("\n"));
    assert!(changed > 500, "only {changed} fields in all manifests");
}

fn fields_made_unknown(object: &Object, pointer: &str) -> Vec<String> {
    let mut found = Vec::new();
    for wrong in [Value::Null, json!(7), json!("~"), json!([]), json!([{}]), json!({}), json!(true)] {
        let mut source = object.source.clone();
        *source.pointer_mut(pointer).unwrap() = wrong.clone();
        let errors = manifest::from_value(&source, "a").err().into_iter().flatten();
        let unknown = errors.filter(|error| matches!(error.problem, Problem::UnknownField { .. }));
        found.extend(unknown.map(|error| format!("{pointer} = {wrong}: {error}")));
    }
    found
}

/// JSON pointers of everything in a value.
fn pointers(value: &Value, path: String) -> Vec<String> {
    let below: Vec<String> = match value {
        Value::Object(map) => {
            let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
            map.iter().flat_map(|(key, value)| pointers(value, format!("{path}/{}", escaped(key)))).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(index, value)| pointers(value, format!("{path}/{index}"))).collect()
        }
        _ => Vec::new(),
    };
    below.into_iter().chain([path]).collect()
}
