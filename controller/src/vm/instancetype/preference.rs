//! What a preference gives a template: only values that the template does not set itself.

use serde_json::{Value, json};

use super::path::{get, set};

/// Fields that are taken over where the template has none: in the preference, in the template's spec.
const FIELDS: [(&[&str], &[&str]); 22] = [
    (&["devices", "preferredAutoattachGraphicsDevice"], &["domain", "devices", "autoattachGraphicsDevice"]),
    (&["devices", "preferredAutoattachMemBalloon"], &["domain", "devices", "autoattachMemBalloon"]),
    (&["devices", "preferredAutoattachPodInterface"], &["domain", "devices", "autoattachPodInterface"]),
    (&["devices", "preferredAutoattachSerialConsole"], &["domain", "devices", "autoattachSerialConsole"]),
    (&["devices", "preferredAutoattachInputDevice"], &["domain", "devices", "autoattachInputDevice"]),
    (&["devices", "preferredUseVirtioTransitional"], &["domain", "devices", "useVirtioTransitional"]),
    (&["devices", "preferredBlockMultiQueue"], &["domain", "devices", "blockMultiQueue"]),
    (&["devices", "preferredNetworkInterfaceMultiQueue"], &["domain", "devices", "networkInterfaceMultiqueue"]),
    (&["devices", "preferredDisableHotplug"], &["domain", "devices", "disableHotplug"]),
    (&["devices", "preferredRng"], &["domain", "devices", "rng"]),
    (&["devices", "preferredTPM"], &["domain", "devices", "tpm"]),
    (&["features", "preferredAcpi"], &["domain", "features", "acpi"]),
    (&["features", "preferredApic"], &["domain", "features", "apic"]),
    (&["features", "preferredKvm"], &["domain", "features", "kvm"]),
    (&["features", "preferredPvspinlock"], &["domain", "features", "pvspinlock"]),
    (&["features", "preferredSmm"], &["domain", "features", "smm"]),
    (&["machine", "preferredMachineType"], &["domain", "machine", "type"]),
    (&["clock", "preferredTimer"], &["domain", "clock", "timer"]),
    (&["preferredSubdomain"], &["subdomain"]),
    (&["preferredTerminationGracePeriodSeconds"], &["terminationGracePeriodSeconds"]),
    (&["preferredArchitecture"], &["architecture"]),
    (&["devices", "preferredSoundModel"], &["domain", "devices", "sound", "model"]),
];

/// The same for each disk, by the device that it has.
const DISK_FIELDS: [(&str, &[&str]); 4] = [
    ("preferredDiskBus", &["disk", "bus"]),
    ("preferredDiskBlockSize", &["blockSize"]),
    ("preferredDiskCache", &["cache"]),
    ("preferredDiskIO", &["io"]),
];

/// Puts a preference into a template.
pub(super) fn apply(template: &mut Value, preference: &Value) {
    let spec = &mut template["spec"];
    for (source, path) in FIELDS {
        // A sound device is not made for its model.
        let is_apt =
            source.last() != Some(&"preferredSoundModel") || get(spec, &["domain", "devices", "sound"]).is_some();
        if is_apt {
            take(spec, path, get(preference, source));
        }
    }
    hyperv(spec, &preference["features"]["preferredHyperv"]);
    clock(spec, get(preference, &["clock", "preferredClockOffset"]));
    firmware(spec, &preference["firmware"]);
    cpu_features(spec, &preference["cpu"]["preferredCPUFeatures"]);
    let devices = &preference["devices"];
    let networks = spec["networks"].clone();
    let own = |spec: &mut Value, name: &str| -> Vec<Value> { list(spec, name) };
    let disks = own(spec, "disks").into_iter().map(|item| disk(item, devices)).collect::<Vec<_>>();
    let interfaces =
        own(spec, "interfaces").into_iter().map(|item| interface(item, devices, &networks)).collect::<Vec<_>>();
    let inputs = own(spec, "inputs").into_iter().map(|item| input(item, devices)).collect::<Vec<_>>();
    for (name, items) in [("disks", disks), ("interfaces", interfaces), ("inputs", inputs)] {
        if !items.is_empty() {
            set(spec, &["domain", "devices", name], Value::Array(items));
        }
    }
    for (key, value) in preference["annotations"].as_object().into_iter().flatten() {
        take(template, &["metadata", "annotations", key], Some(value));
    }
}

/// Sets a field that is absent.
fn take(target: &mut Value, path: &[&str], value: Option<&Value>) {
    let is_absent = get(target, path).is_none_or(|value| value.as_str() == Some(""));
    if let Some(value) = value.filter(|_| is_absent) {
        set(target, path, value.clone());
    }
}

fn list(spec: &Value, name: &str) -> Vec<Value> {
    spec["domain"]["devices"][name].as_array().cloned().unwrap_or_default()
}

fn hyperv(spec: &mut Value, preferred: &Value) {
    for (name, value) in preferred.as_object().into_iter().flatten() {
        take(spec, &["domain", "features", "hyperv", name], Some(value));
    }
}

/// An offset is taken over as a whole.
fn clock(spec: &mut Value, offset: Option<&Value>) {
    let is_given = ["utc", "timezone"].iter().any(|name| get(spec, &["domain", "clock", name]).is_some());
    for (name, value) in offset.filter(|_| !is_given).and_then(Value::as_object).into_iter().flatten() {
        set(spec, &["domain", "clock", name], value.clone());
    }
}

fn firmware(spec: &mut Value, preferred: &Value) {
    const BOOTLOADER: [&str; 3] = ["domain", "firmware", "bootloader"];
    let at = |name: &'static str| [BOOTLOADER[0], BOOTLOADER[1], BOOTLOADER[2], name];
    let is_true = |name: &str| preferred[name] == true;
    if get(spec, &at("bios")).is_none() && get(spec, &at("efi")).is_none() {
        if is_true("preferredUseBios") {
            set(spec, &at("bios"), json!({}));
        } else if let Some(efi) = get(preferred, &["preferredEfi"]) {
            return set(spec, &at("efi"), efi.clone());
        } else if is_true("preferredUseEfi") {
            set(spec, &at("efi"), json!({}));
        }
    }
    for (device, source, name) in
        [("bios", "preferredUseBiosSerial", "useSerial"), ("efi", "preferredUseSecureBoot", "secureBoot")]
    {
        if get(spec, &at(device)).is_some() {
            let path = at(device);
            take(spec, &[path[0], path[1], path[2], path[3], name], get(preferred, &[source]));
        }
    }
}

/// Features that the template does not name.
fn cpu_features(spec: &mut Value, preferred: &Value) {
    let mut features = spec["domain"]["cpu"]["features"].as_array().cloned().unwrap_or_default();
    let named = features.clone();
    let is_new = |feature: &&Value| named.iter().all(|known| known["name"] != feature["name"]);
    features.extend(preferred.as_array().into_iter().flatten().filter(is_new).cloned());
    if features.len() > named.len() {
        set(spec, &["domain", "cpu", "features"], Value::Array(features));
    }
}

fn disk(mut disk: Value, preferred: &Value) -> Value {
    for (device, name) in [("cdrom", "preferredCdromBus"), ("lun", "preferredLunBus")] {
        if get(&disk, &[device]).is_some() {
            take(&mut disk, &[device, "bus"], get(preferred, &[name]));
            return disk;
        }
    }
    for (name, path) in DISK_FIELDS {
        take(&mut disk, path, get(preferred, &[name]));
    }
    if disk["disk"]["bus"] == "virtio" {
        take(&mut disk, &["dedicatedIOThread"], get(preferred, &["preferredDiskDedicatedIoThread"]));
    }
    disk
}

/// Ways to connect an interface; one that has none may get masquerade on the pod network.
const BINDINGS: [&str; 7] = ["bridge", "masquerade", "sriov", "slirp", "macvtap", "passt", "binding"];

fn interface(mut interface: Value, preferred: &Value, networks: &Value) -> Value {
    take(&mut interface, &["model"], get(preferred, &["preferredInterfaceModel"]));
    let is_bound = BINDINGS.iter().any(|name| get(&interface, &[name]).is_some());
    let mut networks = networks.as_array().into_iter().flatten();
    let is_pod = networks.any(|network| network["name"] == interface["name"] && get(network, &["pod"]).is_some());
    if !is_bound && is_pod {
        take(&mut interface, &["masquerade"], get(preferred, &["preferredInterfaceMasquerade"]));
    }
    interface
}

fn input(mut input: Value, preferred: &Value) -> Value {
    take(&mut input, &["bus"], get(preferred, &["preferredInputBus"]));
    take(&mut input, &["type"], get(preferred, &["preferredInputType"]));
    input
}
