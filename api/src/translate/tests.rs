//! Objects to machines, where a golden file would say less than a sentence.

use super::*;
use crate::manifest::{self, Body};
use machine::{DiskFormat, DiskSource, Machine};

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
    launch_of(instance, None)
}

fn launch_of(instance: &VirtualMachineInstance, vm_uid: Option<&str>) -> Result<Translation, Vec<TranslateError>> {
    launch_on(instance, vm_uid, None)
}

fn launch_on(
    instance: &VirtualMachineInstance,
    vm_uid: Option<&str>,
    engine: Option<EngineDemand>,
) -> Result<Translation, Vec<TranslateError>> {
    launch_with(instance, vm_uid, engine, BindingPlugins::None)
}

fn launch_with(
    instance: &VirtualMachineInstance,
    vm_uid: Option<&str>,
    engine: Option<EngineDemand>,
    bindings: BindingPlugins<'_>,
) -> Result<Translation, Vec<TranslateError>> {
    let context = TranslateContext {
        data: DataSource::Read(&Data::default()),
        images: &ImageFiles::default(),
        claims: None,
        owner: Owner { uid: 107, gid: 107 },
        emulation: Emulation::Required,
        engine,
        primary_interface: "eth0".parse().unwrap(),
        vm_uid,
        bindings,
        has_mesh_sidecar: false,
    };
    translate(instance, &context)
}

// spec: CTRL-56
#[test]
fn an_interface_is_joined_by_a_plugin_that_the_cluster_knows() {
    let spec = "{domain: {memory: {guest: 64Mi}, devices: {interfaces: [{name: a, binding: {name: tap}}]}},
        networks: [{name: a, pod: {}}]}";
    let refused = BindingPlugin::NotSupported("sidecarImage: not supported".to_owned());
    let known = |how: BindingPlugin| -> BTreeMap<String, BindingPlugin> { [("tap".to_owned(), how)].into() };
    let translated = |plugins: BindingPlugins<'_>| {
        launch_with(&instance("a", spec), None, None, plugins).map_err(|errors| errors[0].to_string())
    };
    let managed = known(BindingPlugin::ManagedTap);
    for plugins in [BindingPlugins::Known(&managed), BindingPlugins::Unknown] {
        let wired = translated(plugins).unwrap().wiring;
        let nic = &wired.interfaces()[0];
        assert_eq!((nic.binding, nic.without_service), (wiring::Binding::Bridge, true));
    }
    for (plugins, why) in [
        (BindingPlugins::Known(&known(refused)), "plugin \"tap\": sidecarImage: not supported"),
        (BindingPlugins::Known(&BTreeMap::new()), "of the KubeVirt object has no plugin \"tap\""),
        (BindingPlugins::None, "in a cluster alone"),
    ] {
        let error = translated(plugins).unwrap_err();
        assert!(
            error.starts_with("spec.domain.devices.interfaces[0].binding.name: ") && error.contains(why),
            "{error}"
        );
    }
}

const SMALL: &str = "{domain: {memory: {guest: 64Mi}, devices: {}}}";

// spec: API-5
#[test]
fn the_same_object_gives_the_same_machine_and_another_name_another() {
    let (one, two) = (launch(&instance("a", SMALL)).unwrap(), launch(&instance("b", SMALL)).unwrap());
    assert_eq!(one, launch(&instance("a", SMALL)).unwrap());
    assert_ne!(one.machine.uuid, two.machine.uuid);
    assert_ne!(one.wiring.interfaces()[0].mac, two.wiring.interfaces()[0].mac);
}

// spec: CTRL-4
#[test]
fn mac_addresses_in_a_cluster_follow_the_uid_and_not_the_name() {
    let mac = |name, uid| launch_of(&instance(name, SMALL), Some(uid)).unwrap().wiring.interfaces()[0].mac.unwrap();
    assert_eq!(mac("a", "uid-1"), mac("b", "uid-1"));
    assert_ne!(mac("a", "uid-1"), mac("a", "uid-2"));
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
    assert_eq!((content.user_data.clone(), content.network_data.clone()), ("".into(), Some("x".into())));
}

// spec: DISK-7
#[test]
fn user_data_may_be_any_bytes() {
    let spec = "{domain: {memory: {guest: 64Mi}, devices: {}}, volumes: [{name: seed, cloudInitNoCloud: {userDataBase64: H4sIAA==}}]}";
    let translation = launch(&instance("a", spec)).unwrap();
    let DiskSource::NoCloud(content) = &translation.machine.disks[0].source else { panic!("no cloud-init") };
    assert_eq!(content.user_data, machine::Content::Bytes(vec![0x1f, 0x8b, 8, 0]));
    let text = serde_json::to_string(&translation.machine).unwrap();
    assert_eq!(serde_json::from_str::<Machine>(&text).unwrap(), translation.machine);
}

// spec: ENGINE-1
#[test]
fn an_annotation_demands_an_engine_and_the_caller_overrides_it() {
    let demand = |annotations: &str, by_caller: Option<EngineDemand>| {
        let text = format!(
            "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: a, annotations: {annotations}}}, \
             spec: {{domain: {{memory: {{guest: 64Mi}}, devices: {{}}}}}}}}"
        );
        let objects = manifest::parse(&text, "test").map_err(|errors| errors[0].to_string())?;
        let Body::VirtualMachineInstance(instance) = &objects[0].body else { panic!("no instance") };
        Ok::<_, String>(launch_on(instance, None, by_caller).unwrap().machine.engine)
    };
    assert_eq!(demand("{}", None), Ok(EngineDemand::Auto));
    assert_eq!(demand("{tapvisor.io/engine: kvm}", None), Ok(EngineDemand::Kvm));
    assert_eq!(demand("{tapvisor.io/engine: kvm}", Some(EngineDemand::Qemu)), Ok(EngineDemand::Qemu));
    let error = demand("{tapvisor.io/engine: xen}", None).unwrap_err();
    assert!(error.ends_with("tapvisor.io/engine\"]: must be auto, kvm or qemu, found \"xen\""), "{error}");
}

// spec: DISK-2
#[test]
fn a_host_disk_is_raw_unless_its_name_or_an_annotation_says_otherwise() {
    let formats = |annotations: &str| {
        let volume = |name: &str, path: &str| format!("{{name: {name}, hostDisk: {{path: {path}, type: Disk}}}}");
        let volumes = [volume("a", "/srv/a.img"), volume("b", "/srv/b.qcow2"), volume("c", "/srv/c.QCOW2")].join(", ");
        let spec = format!("{{domain: {{memory: {{guest: 64Mi}}, devices: {{}}}}, volumes: [{volumes}]}}");
        let text = format!(
            "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: a, annotations: {annotations}}}, spec: {spec}}}"
        );
        let objects = manifest::parse(&text, "test").map_err(|errors| errors[0].to_string())?;
        let Body::VirtualMachineInstance(instance) = &objects[0].body else { panic!("no instance") };
        let disks = launch(instance).unwrap().machine.disks;
        let format = |disk: &machine::Disk| match disk.source {
            DiskSource::File { format, .. } => format,
            _ => panic!("no file"),
        };
        Ok::<_, String>(disks.iter().map(format).collect::<Vec<_>>())
    };
    assert_eq!(formats("{}").unwrap(), [DiskFormat::Raw, DiskFormat::Qcow2, DiskFormat::Raw]);
    let given = "{tapvisor.io/disk-format.a: qcow2, tapvisor.io/disk-format.b: raw}";
    assert_eq!(formats(given).unwrap(), [DiskFormat::Qcow2, DiskFormat::Raw, DiskFormat::Raw]);
    for (annotations, complaint) in [
        ("{tapvisor.io/disk-format.a: vmdk}", "disk-format.a\"]: must be raw or qcow2, found \"vmdk\""),
        ("{tapvisor.io/disk-format.x: raw}", "disk-format.x\"]: there is no volume \"x\""),
    ] {
        let error = formats(annotations).unwrap_err();
        assert!(error.contains("metadata.annotations[\"tapvisor.io/") && error.contains(complaint), "{error}");
    }
}

// spec: DISK-8
#[test]
fn a_bus_has_no_more_disks_than_ports() {
    let spec = |bus: &str, count: usize| {
        let disks: Vec<_> = (0..count).map(|n| format!("{{name: d{n}, disk: {{bus: {bus}}}}}")).collect();
        let volumes: Vec<_> = (0..count).map(|n| format!("{{name: d{n}, emptyDisk: {{capacity: 1Mi}}}}")).collect();
        let (disks, volumes) = (disks.join(", "), volumes.join(", "));
        format!(
            "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: a}}, spec: {{domain: {{memory: {{guest: 64Mi}},
            devices: {{disks: [{disks}]}}}}, volumes: [{volumes}]}}}}"
        )
    };
    let refused = |bus, count| manifest::parse(&spec(bus, count), "test").map_err(|errors| errors[0].to_string());
    assert!(refused("sata", 6).is_ok() && refused("virtio", 176).is_ok() && refused("scsi", 200).is_ok());
    let error = refused("sata", 7).unwrap_err();
    assert!(error.contains("devices.disks[6]: is disk 7 on bus sata, which has room for 6"), "{error}");
    assert!(refused("virtio", 177).unwrap_err().contains("is disk 177 on bus virtio, which has room for 176"));
    let error = refused("usb", 15).and_then(|_| refused("usb", 16)).map(drop).unwrap_err();
    assert!(error.contains("devices.disks[15]: is disk 16 on bus usb, which has room for 15"), "{error}");
    // A disk without a bus is on sata, as under KubeVirt.
    let error = manifest::parse(
        &spec("sata", 6).replace("volumes: [", "volumes: [{name: more, emptyDisk: {capacity: 1Mi}}, "),
        "test",
    );
    assert!(error.unwrap_err()[0].to_string().contains("volumes[0]: is disk 7 on bus sata"));
}

// spec: DISK-8
#[test]
fn a_disk_is_no_larger_than_a_file_can_be() {
    let parse = |capacity: &str| {
        let text = format!(
            "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: a}}, spec: {{domain: {{memory: {{guest: 64Mi}},
            devices: {{}}}}, volumes: [{{name: a, emptyDisk: {{capacity: {capacity}}}}}]}}}}"
        );
        manifest::parse(&text, "test").map(drop).map_err(|errors| errors[0].to_string())
    };
    parse("7Ei").unwrap();
    for capacity in ["8Ei", "15Ei", "0"] {
        let error = parse(capacity).unwrap_err();
        assert!(error.contains("emptyDisk.capacity") && error.contains("more than 0 and less than 8Ei"), "{error}");
    }
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

// spec: VOL-3
#[test]
fn claims_are_refused_on_one_machine_and_read_only_ones_not_written() {
    let spec = "{domain: {memory: {guest: 64Mi}, devices: {}}, volumes: [{name: data, persistentVolumeClaim: {claimName: kept, readOnly: true}}]}";
    let instance = instance("a", spec);
    let errors = launch(&instance).unwrap_err();
    let expected = "spec.volumes[data]: there are PersistentVolumeClaims in a cluster alone: use a hostDisk here";
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    assert_eq!(claims(&instance), [Claim { volume: "data".into(), claim: "kept".into(), read_only: true }]);
    let places = [("data".to_owned(), ClaimPlace::Device("/dev/kept".into()))].into();
    let context = TranslateContext {
        data: DataSource::Read(&Data::default()),
        images: &ImageFiles::default(),
        claims: Some(&places),
        owner: Owner { uid: 107, gid: 107 },
        emulation: Emulation::Required,
        engine: None,
        primary_interface: "eth0".parse().unwrap(),
        vm_uid: None,
        bindings: BindingPlugins::None,
        has_mesh_sidecar: false,
    };
    let disk = translate(&instance, &context).unwrap().machine.disks.remove(0);
    let source = DiskSource::File { path: "/dev/kept".into(), format: DiskFormat::Raw };
    assert_eq!((disk.read_only, disk.source), (true, source));
}
