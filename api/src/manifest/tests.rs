//! Whole texts: what is refused by name, and that everything is reported.

use super::*;

fn complaints(text: &str) -> Vec<String> {
    parse(text, "vm.yaml").unwrap_err().iter().map(ToString::to_string).collect()
}

// spec: API-1
#[test]
fn every_complaint_of_every_document_is_reported_with_its_place() {
    let text = "
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {name: web}
spec:
  runstrategy: Always
  template:
    spec:
      domain:
        memory: {guest: 64Mi}
        devices:
          disks: [{name: root, lun: {}}]
          colour: red
      volumes: [{name: root, emptyDisk: {capacity: 1}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
";
    assert_eq!(
        complaints(text),
        [
            "vm.yaml, document 1 (VirtualMachine web): spec.runStrategy: is required, or running",
            "vm.yaml, document 1 (VirtualMachine web): spec.template.spec.domain.devices.disks[0].lun: not supported",
            "vm.yaml, document 1 (VirtualMachine web): spec.template.spec.domain.devices.colour: unknown field",
            "vm.yaml, document 1 (VirtualMachine web): spec.runstrategy: unknown field, is runStrategy meant?",
            "vm.yaml, document 2 (Deployment web): kind: not supported: Deployment of apps/v1; the kinds are \
             VirtualMachine, VirtualMachineInstance, Service, NetworkAttachmentDefinition, Secret, ConfigMap and lists of them",
        ]
    );
}

#[test]
fn a_text_without_objects_is_refused() {
    assert_eq!(complaints("# nothing\n---\n"), ["vm.yaml, document 1: there is no object in it"]);
}

#[test]
fn a_scalar_or_a_list_is_no_object() {
    assert_eq!(complaints("- 1"), ["vm.yaml, document 1: must be an object, found a list"]);
    assert_eq!(complaints("word"), ["vm.yaml, document 1: must be an object, found \"word\""]);
}

#[test]
fn an_older_version_of_the_api_is_read_and_an_unknown_one_named() {
    let text = |version: &str| format!("{{apiVersion: {version}, kind: ConfigMap, metadata: {{name: a}}}}");
    assert!(parse(&text("v1"), "a").is_ok());
    let complaint = complaints(&text("v2")).remove(0);
    assert!(complaint.ends_with("apiVersion: not supported: \"v2\", ConfigMap is v1"), "{complaint}");
    let vmi = "{apiVersion: kubevirt.io/v1alpha3, kind: VirtualMachineInstance, metadata: {name: a},
        spec: {domain: {memory: {guest: 1Gi}, devices: {}}}}";
    assert!(parse(vmi, "a").is_ok());
}

#[test]
fn lists_of_any_and_of_one_kind_are_read_and_paths_name_the_item() {
    let any = r#"{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":""},"items":[
        {"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}},
        {"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"},"data":{"x":"eA=="}}]}"#;
    let kinds: Vec<_> = parse(any, "a").unwrap().iter().map(|object| object.body.kind()).collect();
    assert_eq!(kinds, [Kind::ConfigMap, Kind::Secret]);
    let typed =
        "{apiVersion: v1, kind: ConfigMapList, items: [{metadata: {name: a}}, {metadata: {name: b}, color: 1}]}";
    assert_eq!(complaints(typed), ["vm.yaml, document 1 (ConfigMapList): items[1].color: unknown field"]);
}

#[test]
fn an_object_given_twice_is_refused_a_vm_and_its_instance_included() {
    let text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}";
    assert_eq!(
        complaints(&format!("{text}\n---\n{text}")),
        ["vm.yaml, document 2 (ConfigMap a): metadata.name: default/a is given twice"]
    );
    let spec = "{domain: {memory: {guest: 1Gi}, devices: {}}}";
    let text = format!(
        "{{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {{name: a}}, spec: {spec}}}\n---\n
         {{apiVersion: kubevirt.io/v1, kind: VirtualMachine, metadata: {{name: a}},
          spec: {{running: true, template: {{spec: {spec}}}}}}}"
    );
    assert!(complaints(&text)[0].ends_with("default/a is given twice"));
}

// spec: API-7
#[test]
fn what_a_secret_holds_is_not_shown_when_objects_are_printed() {
    let text = "{apiVersion: v1, kind: Secret, metadata: {name: a}, stringData: {password: hunter2}}\n---\n
        {apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: a}, spec: {domain:
        {memory: {guest: 1Gi}, devices: {}}, volumes: [{name: a, cloudInitNoCloud: {userData: 'password: hunter2'}}]}}";
    let shown = format!("{:?}", parse(text, "a").unwrap());
    assert!(shown.contains("password") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn an_object_read_again_from_its_source_is_the_same() {
    let text = "{apiVersion: kubevirt.io/v1, kind: VirtualMachineInstance, metadata: {name: a},
        spec: {nodeSelector: {a: b}, domain: {memory: {guest: 1Gi}, devices: {}}}}";
    let object = parse(text, "a").unwrap().remove(0);
    assert_eq!(
        object.warnings[0].to_string(),
        "spec.nodeSelector: has no effect: there is one machine and no scheduler"
    );
    assert_eq!(from_value(&object.source, "a").unwrap(), object);
}
