//! The tables of expansion: sizes, conflicts, preferences, requirements.

use serde_json::{Value, json};

use super::super::object::VirtualMachine;
use super::apply::apply;
use super::matcher::{Matcher, Role};
use super::path::get;

fn template() -> Value {
    json!({"metadata": {"annotations": {"note": "mine"}}, "spec": {
        "domain": {"devices": {
            "disks": [{"name": "root", "disk": {}}, {"name": "media", "cdrom": {}}, {"name": "bare"}],
            "interfaces": [{"name": "default"}, {"name": "blue", "bridge": {}}],
            "inputs": [{"name": "tablet"}],
        }},
        "networks": [{"name": "default", "pod": {}}, {"name": "blue", "multus": {"networkName": "blue"}}],
    }})
}

fn small() -> Value {
    json!({"cpu": {"guest": 2}, "memory": {"guest": "1Gi"}})
}

fn sized(instancetype: &Value, preference: Option<&Value>) -> Value {
    let mut template = template();
    apply(&mut template, Some(instancetype), preference).unwrap();
    template
}

fn preferred(preference: &Value) -> Value {
    let mut template = template();
    apply(&mut template, None, Some(preference)).unwrap();
    template["spec"].take()
}

// spec: VM-14
#[test]
fn vcpus_are_spread_as_the_preference_says() {
    let spread = |options: Value| json!({"cpu": {"preferredCPUTopology": "spread", "spreadOptions": options}});
    let of = |topology: &str| json!({"cpu": {"preferredCPUTopology": topology}});
    let table = [
        (8, Value::Null, Ok([8, 1, 1])),
        (1, of("spread"), Ok([1, 1, 1])),
        (8, of("sockets"), Ok([8, 1, 1])),
        (8, of("any"), Ok([8, 1, 1])),
        (8, of("preferSockets"), Ok([8, 1, 1])),
        (8, of("cores"), Ok([1, 8, 1])),
        (8, of("preferCores"), Ok([1, 8, 1])),
        (8, of("threads"), Ok([1, 1, 8])),
        (8, of("spread"), Ok([4, 2, 1])),
        (8, of("preferSpread"), Ok([4, 2, 1])),
        (8, json!({"cpu": {"preferredCPUTopology": "spread"}, "preferSpreadSocketToCoreRatio": 4}), Ok([2, 4, 1])),
        (8, spread(json!({"ratio": 4})), Ok([2, 4, 1])),
        (8, spread(json!({"across": "CoresThreads"})), Ok([1, 4, 2])),
        (8, spread(json!({"across": "SocketsCoresThreads"})), Ok([2, 2, 2])),
        (5, of("spread"), Err("5 vCPUs cannot be spread")),
    ];
    for (vcpus, preference, expected) in table {
        let instancetype = json!({"cpu": {"guest": vcpus}, "memory": {"guest": "1Gi"}});
        let mut template = template();
        let found = apply(&mut template, Some(&instancetype), Some(&preference).filter(|given| !given.is_null()));
        let cpu = &template["spec"]["domain"]["cpu"];
        match expected {
            Ok(parts) => assert_eq!(
                ["sockets", "cores", "threads"].map(|part| cpu[part].as_u64().unwrap()),
                parts,
                "{preference}"
            ),
            Err(start) => assert!(found.unwrap_err()[0].starts_with(start)),
        }
    }
}

// spec: VM-14
#[test]
fn an_instancetype_gives_size_placement_and_annotations() {
    let instancetype = json!({"cpu": {"guest": 1, "model": "Haswell", "dedicatedCPUPlacement": true},
        "memory": {"guest": "2Gi", "overcommitPercent": 50, "hugepages": {"pageSize": "2Mi"}},
        "nodeSelector": {"disk": "fast"}, "schedulerName": "other", "ioThreadsPolicy": "auto", "annotations": {"size": "s", "note": "mine"}});
    let template = sized(&instancetype, None);
    let (spec, domain) = (&template["spec"], &template["spec"]["domain"]);
    assert_eq!(
        domain["cpu"],
        json!({"sockets": 1, "cores": 1, "threads": 1, "model": "Haswell", "dedicatedCpuPlacement": true})
    );
    assert_eq!(domain["memory"], json!({"guest": "2Gi", "hugepages": {"pageSize": "2Mi"}}));
    assert_eq!(domain["resources"], json!({"requests": {"memory": "1073741824"}}));
    assert_eq!((&spec["nodeSelector"], &spec["schedulerName"]), (&json!({"disk": "fast"}), &json!("other")));
    assert_eq!(domain["ioThreadsPolicy"], "auto");
    assert_eq!(template["metadata"]["annotations"], json!({"size": "s", "note": "mine"}));
}

// spec: VM-14
#[test]
fn a_field_that_template_and_instancetype_set_is_a_conflict_by_its_path() {
    let table = [
        (json!({"cpu": {"sockets": 2}}), "domain.cpu.sockets"),
        (json!({"cpu": {"cores": 2}}), "domain.cpu.cores"),
        (json!({"cpu": {"threads": 2}}), "domain.cpu.threads"),
        (json!({"cpu": {"model": "host-model"}}), "domain.cpu.model"),
        (json!({"memory": {"guest": "1Gi"}}), "domain.memory.guest"),
        (json!({"memory": {"hugepages": {}}}), "domain.memory.hugepages"),
        (json!({"resources": {"requests": {"cpu": "1"}}}), "domain.resources.requests.cpu"),
        (json!({"resources": {"limits": {"memory": "1Gi"}}}), "domain.resources.limits.memory"),
    ];
    let instancetype = json!({"cpu": {"guest": 2, "model": "Haswell"}, "memory": {"guest": "1Gi", "hugepages": {}}});
    for (domain, path) in table {
        let before = json!({"spec": {"domain": domain}});
        let mut template = before.clone();
        let expected = format!("VM field(s) spec.template.spec.{path} conflicts with selected instance type");
        assert_eq!(apply(&mut template, Some(&instancetype), None), Err(vec![expected]));
        assert_eq!(template, before);
    }
    let annotated = json!({"cpu": {"guest": 2}, "memory": {"guest": "1Gi"}, "annotations": {"note": "other"}});
    assert_eq!(apply(&mut template(), Some(&annotated), None).unwrap_err().len(), 1);
    // A model that only the template has, and zeros of KubeVirt's clients, are none.
    let mut fine = json!({"spec": {"domain": {"cpu": {"model": "host-model", "sockets": 0}, "resources": {}}}});
    assert_eq!(apply(&mut fine, Some(&small()), None), Ok(()));
    assert_eq!(fine["spec"]["domain"]["cpu"]["model"], "host-model");
}

// spec: VM-14
#[test]
fn a_preference_fills_only_what_the_template_leaves_open() {
    let preference = json!({
        "devices": {"preferredDiskBus": "virtio", "preferredCdromBus": "sata", "preferredDiskCache": "none", "preferredInterfaceModel": "e1000",
            "preferredInterfaceMasquerade": {}, "preferredInputBus": "usb", "preferredInputType": "tablet", "preferredRng": {},
            "preferredAutoattachMemBalloon": false, "preferredNetworkInterfaceMultiQueue": true, "preferredSoundModel": "ac97"},
        "features": {"preferredSmm": {"enabled": true}, "preferredHyperv": {"relaxed": {}}},
        "firmware": {"preferredEfi": {"secureBoot": false}}, "machine": {"preferredMachineType": "q35"},
        "clock": {"preferredClockOffset": {"utc": {}}, "preferredTimer": {"hpet": {"present": false}}},
        "cpu": {"preferredCPUFeatures": [{"name": "vmx"}]}, "annotations": {"note": "other", "os": "linux"},
        "preferredSubdomain": "sub", "preferredTerminationGracePeriodSeconds": 9, "preferredArchitecture": "amd64",
    });
    let spec = preferred(&preference);
    let devices = &spec["domain"]["devices"];
    let disks = json!([{"name": "root", "disk": {"bus": "virtio"}, "cache": "none"}, {"name": "media", "cdrom": {"bus": "sata"}},
        {"name": "bare", "disk": {"bus": "virtio"}, "cache": "none"}]);
    let interfaces = json!([{"name": "default", "model": "e1000", "masquerade": {}}, {"name": "blue", "model": "e1000", "bridge": {}}]);
    assert_eq!((&devices["disks"], &devices["interfaces"]), (&disks, &interfaces));
    assert_eq!(devices["inputs"], json!([{"name": "tablet", "bus": "usb", "type": "tablet"}]));
    assert_eq!(
        (&devices["rng"], &devices["autoattachMemBalloon"], get(devices, &["sound"])),
        (&json!({}), &json!(false), None)
    );
    assert_eq!(spec["domain"]["features"], json!({"smm": {"enabled": true}, "hyperv": {"relaxed": {}}}));
    assert_eq!(spec["domain"]["firmware"], json!({"bootloader": {"efi": {"secureBoot": false}}}));
    assert_eq!(spec["domain"]["clock"], json!({"utc": {}, "timer": {"hpet": {"present": false}}}));
    assert_eq!(spec["domain"]["cpu"], json!({"features": [{"name": "vmx"}]}));
    assert_eq!(spec["domain"]["machine"]["type"], "q35");
    assert_eq!(
        (&spec["subdomain"], &spec["terminationGracePeriodSeconds"], &spec["architecture"]),
        (&json!("sub"), &json!(9), &json!("amd64"))
    );
    // A second time nothing changes: all is set.
    let other = json!({"devices": {"preferredDiskBus": "sata", "preferredInterfaceModel": "virtio", "preferredRng": {"x": 1}}, "firmware": {"preferredUseBios": true},
        "clock": {"preferredClockOffset": {"timezone": "UTC"}}, "machine": {"preferredMachineType": "pc"}, "preferredSubdomain": "other"});
    let mut again = json!({"spec": spec});
    apply(&mut again, None, Some(&other)).unwrap();
    assert_eq!(again["spec"], spec);
    let bios = preferred(&json!({"firmware": {"preferredUseBios": true, "preferredUseBiosSerial": true}}));
    assert_eq!(bios["domain"]["firmware"], json!({"bootloader": {"bios": {"useSerial": true}}}));
}

// spec: VM-14
#[test]
fn what_a_preference_requires_the_machine_must_have() {
    let require =
        |cpu: u64, memory: &str| json!({"requirements": {"cpu": {"guest": cpu}, "memory": {"guest": memory}}});
    let apply_both = |preference: &Value| apply(&mut template(), Some(&small()), Some(preference));
    assert_eq!(apply_both(&require(2, "1Gi")), Ok(()));
    assert_eq!(
        apply_both(&require(3, "2Gi")).unwrap_err(),
        [
            "spec.preference: the preference requires 3 vCPUs, the machine has 2",
            "spec.preference: the preference requires 2147483648 bytes of memory, the machine has 1073741824",
        ]
    );
}

fn machine(instancetype: Value, status: Value) -> VirtualMachine {
    serde_json::from_value(json!({"metadata": {"namespace": "vms", "name": "web"}, "spec": {"instancetype": instancetype}, "status": status})).unwrap()
}

// spec: VM-15
#[test]
fn a_machine_names_its_instancetype_by_kind_and_name() {
    let read = |given: Value| Matcher::read(&machine(given, json!({})), Role::Instancetype);
    let kinds = [
        (json!({"name": "small"}), "VirtualMachineClusterInstancetype"),
        (json!({"name": "small", "kind": "virtualmachineclusterinstancetypes"}), "VirtualMachineClusterInstancetype"),
        (json!({"name": "small", "kind": "VirtualMachineInstancetype"}), "VirtualMachineInstancetype"),
    ];
    for (given, kind) in kinds {
        assert_eq!(read(given).unwrap().unwrap().kind(), kind);
    }
    assert_eq!(read(Value::Null), Ok(None));
    let refused = [
        (json!({}), "spec.instancetype.name: is required"),
        (
            json!({"name": "a", "kind": "Pod"}),
            "spec.instancetype.kind: must be VirtualMachineClusterInstancetype or VirtualMachineInstancetype, is \"Pod\"",
        ),
        (
            json!({"inferFromVolume": "root"}),
            "spec.instancetype.inferFromVolume: \"root\" is not supported: give kind and name",
        ),
    ];
    for (given, complaint) in refused {
        assert_eq!(read(given).unwrap_err(), complaint);
    }
}

// spec: VM-15
#[test]
fn the_revision_of_the_first_use_is_used_until_another_is_named() {
    let status = json!({"instancetypeRef": {"name": "small", "kind": "VirtualMachineClusterInstancetype", "controllerRevisionRef": {"name": "kept"}}});
    let in_use = |given: Value| {
        let vm = machine(given, status.clone());
        Matcher::read(&vm, Role::Instancetype).unwrap().unwrap().revision_in_use(&vm)
    };
    assert_eq!(in_use(json!({"name": "small"})).as_deref(), Some("kept"));
    assert_eq!(in_use(json!({"name": "large"})), None);
    assert_eq!(in_use(json!({"name": "small", "kind": "VirtualMachineInstancetype"})), None);
    assert_eq!(in_use(json!({"name": "small", "revisionName": "named"})).as_deref(), Some("named"));
}
