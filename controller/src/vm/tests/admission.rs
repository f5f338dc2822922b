//! What is refused in a machine, with the path in the machine.

use super::*;
use crate::template::Findings;

fn read(vm: &VirtualMachine) -> Findings {
    reading::read(vm, &ClusterConfig::new("launcher:1".to_owned()))
}

#[test]
fn a_valid_machine_has_no_complaint_and_no_warning() {
    for strategy in ["Always", "RerunOnFailure", "Once", "Manual", "Halted"] {
        assert_eq!(read(&machine(strategy)), Findings::default(), "{strategy}");
    }
}

// spec: VM-8
#[test]
fn every_complaint_has_its_path_in_the_template() {
    let mut vm = machine("Sometimes");
    let spec = &mut vm.spec.fields["template"]["spec"];
    spec["domain"]["typo"] = json!(1);
    spec["domain"]["devices"]["gpus"] = json!([{"name": "g"}]);
    let complaints = read(&vm).complaints;
    for start in ["spec.runStrategy: ", "spec.template.spec.domain.typo: ", "spec.template.spec.domain.devices.gpus: "]
    {
        assert_eq!(complaints.iter().filter(|text| text.starts_with(start)).count(), 1, "{start}: {complaints:#?}");
    }
    assert_eq!(complaints.len(), 3, "{complaints:#?}");
}

// spec: VM-8
#[test]
fn what_only_a_cluster_refuses_is_told_by_its_path() {
    let mut vm = machine("Always");
    let spec = &mut vm.spec.fields["template"]["spec"];
    spec["domain"]["devices"]["disks"] = json!([{"name": "root", "disk": {}}]);
    spec["volumes"] = json!([{"name": "root", "hostDisk": {"path": "/disk.img", "type": "Disk"}}]);
    let complaints = read(&vm).complaints;
    assert!(
        complaints.len() == 1 && complaints[0].starts_with("spec.template.spec.volumes[root].hostDisk: "),
        "{complaints:#?}"
    );
}
