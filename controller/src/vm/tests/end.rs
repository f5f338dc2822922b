//! The end of a machine, and instances that are not the machine's.

use super::*;

fn ending(vmi: Option<VirtualMachineInstance>) -> Case {
    let mut case = Case::of("Always", vmi);
    case.vm.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    case
}

// spec: VM-6
#[test]
fn a_deleted_machine_stays_until_its_instance_is_gone() {
    assert_eq!(ending(Some(after_running("Running"))).actions(), [Action::DeleteInstance]);
    assert_eq!(ending(Some(deleted(after_running("Running")))).actions(), []);
    assert_eq!(ending(Some(deleted(after_running("Succeeded")))).actions(), [Action::ReleaseInstance]);
    assert_eq!(ending(None).actions(), [Action::SetFinalizer(false)]);
    let mut foreign = ending(None);
    foreign.vm.metadata.finalizers = Some(vec!["customFinalizer".to_owned()]);
    assert_eq!(foreign.actions(), []);
}

// spec: VM-6
#[test]
fn an_orphan_delete_leaves_the_instance_running() {
    let mut case = ending(Some(after_running("Running")));
    case.vm.metadata.finalizers.get_or_insert_default().push("orphan".to_owned());
    assert_eq!(case.actions(), [Action::ReleaseInstance]);
    // Also where the garbage collector was faster: it has taken the owner off.
    let mut left = after_running("Running");
    left.metadata.owner_references = None;
    assert_eq!(ending(Some(left.clone())).actions(), [Action::ReleaseInstance]);
    left.metadata.finalizers = Some(vec![INSTANCE_FINALIZER.to_owned()]);
    assert_eq!(ending(Some(left)).actions(), [Action::SetFinalizer(false)]);
}

#[test]
fn a_new_machine_gets_its_finalizer_before_anything_else() {
    let mut case = Case::of("Always", None);
    case.vm.metadata.finalizers = Some(vec!["customFinalizer".to_owned()]);
    assert_eq!(case.actions(), [Action::SetFinalizer(true), Action::CreateRevision, START]);
    // Nothing is written before it: a machine without it could vanish before its instance.
    let mut halted = Case::of("Halted", None);
    halted.vm.metadata.finalizers = None;
    assert_eq!((halted.actions(), halted.plan().status), (vec![Action::SetFinalizer(true)], <_>::default()));
    let mut orphan = after_running("Running");
    orphan.metadata.owner_references = None;
    halted.vmi = Some(orphan);
    assert_eq!(halted.actions(), [Action::SetFinalizer(true), Action::AdoptInstance]);
}

// spec: VM-6
#[test]
fn an_instance_is_let_go_once_its_end_is_recorded() {
    assert_eq!(Case::of("Manual", Some(after_running("Succeeded"))).actions(), [Action::ReleaseInstance]);
    assert_eq!(Case::of("Manual", Some(after_running("Running"))).actions(), []);
    // Deleted before it had a pod: nothing else holds it.
    let mut pending = deleted(in_phase("Pending"));
    pending.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    assert_eq!(Case::of("Manual", Some(pending)).actions(), [Action::ReleaseInstance]);
}

// spec: VM-6
#[test]
fn an_instance_without_an_owner_is_taken_over_and_one_of_another_is_not() {
    let mut orphan = after_running("Running");
    orphan.metadata.owner_references = None;
    assert_eq!(Case::of("Always", Some(orphan)).actions(), [Action::AdoptInstance]);
    let mut foreign = after_running("Running");
    foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "another".to_owned();
    let plan = Case::of("Always", Some(foreign)).plan();
    assert_eq!((plan.actions.len(), told(&plan, "Failure")), (0, Some(("True", "FailedCreate"))));
    assert_eq!((plan.status.created, word(&plan)), (false, "Stopped"));
}
