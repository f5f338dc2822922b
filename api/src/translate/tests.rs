//! Objects to machines, where a golden file would say less than a sentence.

use std::collections::BTreeMap;

use super::*;
use crate::manifest::{self, Body};
use machine::DiskSource;

fn instance(name: &str, spec: &str) -> VirtualMachineInstance {
    let text = format!(
        "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: {name}, labels: {{app: a}}}}, spec: {spec}}}"
    );
    match manifest::parse(&text, "test").unwrap().remove(0).body {
        Body::VirtualMachineInstance(instance) => instance,
        body => panic!("{} is no instance", body.kind()),
    }
}

fn launch(instance: &VirtualMachineInstance) -> Result<Translation, Vec<TranslateError>> {
    let surroundings = Surroundings {
        secrets: &BTreeMap::new(),
        images: &ImageFiles::default(),
        owner: Owner { uid: 107, gid: 107 },
        emulation: Emulation::Required,
        primary_interface: "eth0".parse().unwrap(),
        has_mesh_sidecar: false,
    };
    translate(instance, &surroundings)
}

const SMALL: &str = "{domain: {memory: {guest: 64Mi}, devices: {}}}";

#[test]
fn the_same_object_gives_the_same_machine_and_another_name_another() {
    let (one, two) = (launch(&instance("a", SMALL)).unwrap(), launch(&instance("b", SMALL)).unwrap());
    assert_eq!(one, launch(&instance("a", SMALL)).unwrap());
    assert_ne!(one.machine.uuid, two.machine.uuid);
    assert_ne!(one.wiring.interfaces()[0].mac, two.wiring.interfaces()[0].mac);
}

#[test]
fn a_translation_is_read_as_it_was_written() {
    let translation = launch(&instance("a", SMALL)).unwrap();
    let text = serde_json::to_string(&translation).unwrap();
    assert_eq!(serde_json::from_str::<Translation>(&text).unwrap(), translation);
}

#[test]
fn every_image_file_that_is_missing_is_named() {
    let spec = "{domain: {memory: {guest: 64Mi}, devices: {},
        firmware: {kernelBoot: {container: {image: a, kernelPath: /k, initrdPath: /i}}}},
        volumes: [{name: root, containerDisk: {image: a}}, {name: more, containerDisk: {image: b}}]}";
    let errors: Vec<_> = launch(&instance("a", spec)).unwrap_err().iter().map(ToString::to_string).collect();
    let lacking = "the file of its container image is not known";
    assert_eq!(
        errors,
        [
            format!("volume root: {lacking}"),
            format!("volume more: {lacking}"),
            format!("kernelBoot, initrdPath: {lacking}")
        ]
    );
    assert_eq!(container_images(&instance("a", spec)).len(), 3);
}

#[test]
fn network_data_alone_comes_with_empty_user_data() {
    let spec =
        "{domain: {memory: {guest: 64Mi}, devices: {}}, volumes: [{name: seed, cloudInitNoCloud: {networkData: x}}]}";
    let translation = launch(&instance("a", spec)).unwrap();
    let DiskSource::NoCloud(content) = &translation.machine.disks[0].source else { panic!("no cloud-init") };
    assert_eq!((content.user_data.as_str(), content.network_data.as_deref()), ("", Some("x")));
}

#[test]
fn a_given_subnet_that_covers_all_of_ten_sends_the_others_elsewhere() {
    let spec = "{networks: [{name: a, pod: {vmNetworkCIDR: 10.0.0.0/8, vmIPv6NetworkCIDR: 'fd10::/16'}}, {name: b, multus: {networkName: b}}],
        domain: {memory: {guest: 64Mi}, devices: {interfaces: [{name: a, masquerade: {}}, {name: b, masquerade: {}}]}}}";
    let wiring = launch(&instance("a", spec)).unwrap().wiring;
    assert_eq!(wiring.interfaces()[1].subnet().to_string(), "172.29.2.0/24");
    assert_eq!(wiring.interfaces()[1].subnet6().to_string(), "fd7a:0:2::/120");
}

#[test]
fn queues_follow_the_processors_where_the_model_has_queues() {
    let spec = |model: &str| {
        format!(
            "{{networks: [{{name: a, pod: {{}}}}], domain: {{cpu: {{cores: 3}}, memory: {{guest: 64Mi}}, devices:
             {{networkInterfaceMultiqueue: true, interfaces: [{{name: a, masquerade: {{}}, model: {model}}}]}}}}}}"
        )
    };
    let queues = |model| launch(&instance("a", &spec(model))).unwrap().wiring.interfaces()[0].queues.value();
    assert_eq!((queues("virtio"), queues("e1000e")), (3, 1));
}

#[test]
fn labels_of_the_pod_are_those_that_services_select_by() {
    let labels = instance("web.prod", SMALL).pod_labels();
    let label = |key: &str| labels.get(key).map(String::as_str);
    assert_eq!(label("app"), Some("a"));
    assert_eq!(label("vmi.kubevirt.io/id"), Some("web.prod"));
    assert_eq!(label("vm.kubevirt.io/name"), Some("web"));
    assert_eq!(label("kubevirt.io/domain"), Some("web.prod"));
    let long = instance(&"a".repeat(100), SMALL).pod_labels()["vmi.kubevirt.io/id"].clone();
    assert_eq!(long.len(), 63);
}
