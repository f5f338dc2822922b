//! The status of machines: the word for people, conditions, generations, and how often it is written.

use super::*;

fn ready(vmi: VirtualMachineInstance) -> VirtualMachineInstance {
    with_condition(vmi, "Ready", "True", "")
}

// spec: VM-4
#[test]
fn the_printable_status_is_the_first_of_kubevirts_that_applies() {
    let failed = json!({"runStrategy": "Always", "startFailure": {"consecutiveFailCount": 2, "lastFailedVMIUID": "x", "retryAfterTimestamp": "2026-11-30T12:05:00Z"}});
    let run = |phase: &str| after_running(phase);
    let paused = |vmi| with_condition(vmi, "Paused", "True", "PausedByUser");
    let waits = |kind: &str, reason: &str| with_condition(in_phase("Scheduling"), kind, "False", reason);
    let table = [
        ("Stopped", Case::of("Halted", None)),
        ("Stopped", Case::of("Manual", Some(run("Succeeded")))),
        ("Stopped", Case::of("Once", Some(run("Failed")))),
        ("Starting", Case::of("Always", Some(in_phase("")))),
        ("Starting", Case::of("Always", Some(in_phase("Pending")))),
        ("Starting", Case::of("Always", Some(in_phase("Scheduling")))),
        ("Starting", Case::of("Always", Some(in_phase("Scheduled")))),
        ("Running", Case::of("Always", Some(ready(run("Running"))))),
        ("Paused", Case::of("Always", Some(paused(run("Running"))))),
        ("Stopping", Case::of("Halted", Some(paused(run("Running"))))),
        ("Stopping", Case::of("Halted", Some(in_phase("Scheduling")))),
        ("Stopping", Case::of("Always", Some(deleted(run("Running"))))),
        ("ErrorPvcNotFound", Case::of("Always", Some(waits("Synchronized", "FailedPvcNotFound")))),
        ("Provisioning", Case::of("Always", Some(waits("Synchronized", "ClaimNotFilled")))),
        ("ErrorUnschedulable", Case::of("Always", Some(waits("PodScheduled", "Unschedulable")))),
        ("ErrImagePull", Case::of("Always", Some(waits("Synchronized", "ErrImagePull")))),
        ("ImagePullBackOff", Case::of("Always", Some(waits("Synchronized", "ImagePullBackOff")))),
        // What once held a guest back does not hide that it runs.
        ("Running", Case::of("Always", Some(with_condition(run("Running"), "PodScheduled", "False", "Unschedulable")))),
        ("Stopping", Case::of("Always", Some(deleted(waits("PodScheduled", "Unschedulable"))))),
        ("CrashLoopBackOff", Case::of("Always", None).status(failed.clone())),
        ("CrashLoopBackOff", Case::of("Always", Some(in_phase("Failed")))),
        ("Starting", Case::of("Always", Some(in_phase("Scheduling"))).status(failed.clone())),
        ("Stopped", Case::of("Halted", None).status(failed)),
        ("Unknown", Case::of("Always", Some(in_phase("WaitingForSync")))),
    ];
    for (expected, case) in table {
        assert_eq!(word(&case.plan()), expected, "{:#?}", case.vmi);
    }
    let mut terminating = Case::of("Always", Some(run("Running")));
    terminating.vm.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert_eq!(word(&terminating.plan()), "Terminating");
}

// spec: VM-4
#[test]
fn conditions_follow_the_instance_and_ready_is_always_there() {
    let plan = Case::of("Halted", None).plan();
    assert_eq!(
        (told(&plan, "Ready"), plan.status.created, plan.status.ready),
        (Some(("False", "VMINotExists")), false, false)
    );
    let plan = Case::of("Always", Some(in_phase("Scheduling"))).plan();
    assert_eq!((told(&plan, "Ready"), plan.status.created), (Some(("False", "VMIConditionMissing")), true));
    let vmi = with_condition(
        with_condition(after_running("Running"), "Ready", "False", "Paused"),
        "Paused",
        "True",
        "PausedByUser",
    );
    let mut case = Case::of("Always", Some(vmi));
    let plan = case.plan();
    assert_eq!(
        (told(&plan, "Ready"), told(&plan, "Paused")),
        (Some(("False", "Paused")), Some(("True", "PausedByUser")))
    );
    case.vm.status = Some(plan.status);
    case.vmi = Some(ready(after_running("Running")));
    let plan = case.plan();
    assert_eq!((told(&plan, "Ready"), told(&plan, "Paused"), plan.status.ready), (Some(("True", "")), None, true));
    // A second pass over the same state writes nothing.
    case.vm.status = Some(plan.status.clone());
    assert_eq!(case.plan().status, plan.status);
}

#[test]
fn a_failure_stays_until_the_instance_exists() {
    let case = Case::of("Always", None);
    let status = failed(&case.observed(), "FailedCreate", "quota".to_owned());
    assert_eq!(status.printable_status.as_deref(), Some("Stopped"));
    let mut again = Case::of("Always", None);
    again.vm.status = Some(status.clone());
    let plan = again.plan();
    assert!(starts(&plan.actions) && plan.status == status);
    again.vmi = Some(in_phase("Scheduling"));
    assert_eq!(told(&again.plan(), "Failure"), None);
}

// spec: VM-4
#[test]
fn an_invalid_machine_is_not_started_and_says_why() {
    let mut case = Case::of("Always", None);
    case.complaints = vec!["spec.template.spec.domain.foo: unknown field".to_owned()];
    let plan = case.plan();
    assert_eq!((plan.actions.len(), told(&plan, "Failure")), (0, Some(("True", "FailedCreate"))));
    let plan = Case::of("WaitAsReceiver", None).plan();
    let message = condition(&plan, "Failure").and_then(|failure| failure.message.clone()).unwrap();
    assert_eq!(message, "spec.runStrategy: \"WaitAsReceiver\" is not supported");
}

// spec: VM-5
#[test]
fn a_changed_template_needs_a_restart_and_another_strategy_does_not() {
    let mut case = Case::of("Always", Some(after_running("Running")));
    case.revisions = vec![revision(&case.vm).unwrap()];
    assert_eq!((case.plan().status.observed_generation, case.plan().status.desired_generation), (Some(3), Some(3)));
    case.vm.metadata.generation = Some(4);
    case.vm.spec.fields.insert("runStrategy".to_owned(), json!("Manual"));
    assert_eq!(case.actions(), [Action::SetGeneration]);
    assert_eq!(told(&case.plan(), "RestartRequired"), None);
    case.vm.spec.fields["template"]["spec"]["hostname"] = json!("other");
    let plan = case.plan();
    assert_eq!((plan.actions.len(), told(&plan, "RestartRequired")), (0, Some(("True", ""))));
    assert_eq!((plan.status.observed_generation, plan.status.desired_generation), (Some(3), Some(4)));
    case.vm.status = Some(plan.status);
    case.vmi = None;
    assert_eq!(told(&case.plan(), "RestartRequired"), None);
}

// spec: CTRL-53
#[test]
fn the_state_of_a_link_is_handed_to_the_instance_and_needs_no_restart() {
    let mut case = Case::of("Always", Some(after_running("Running")));
    case.revisions = vec![revision(&case.vm).unwrap()];
    case.vm.metadata.generation = Some(4);
    let template = &mut case.vm.spec.fields["template"]["spec"];
    template["domain"]["devices"]["interfaces"][0]["state"] = json!("down");
    let interfaces = template["domain"]["devices"]["interfaces"].clone();
    let plan = case.plan();
    assert_eq!((&plan.actions[..], told(&plan, "RestartRequired")), (&[Action::SetLinks(interfaces)][..], None));
    case.vm.spec.fields["template"]["spec"]["hostname"] = json!("other");
    assert_eq!(told(&case.plan(), "RestartRequired"), Some(("True", "")));
    for ending in [deleted(after_running("Running")), after_running("Failed")] {
        let plan =
            Case { vmi: Some(ending), revisions: case.revisions.clone(), ..Case::new(case.vm.clone(), None) }.plan();
        assert!(!plan.actions.iter().any(|action| matches!(action, Action::SetLinks(_))), "{:?}", plan.actions);
    }
}

// spec: VM-30
#[test]
fn another_instancetype_or_preference_needs_a_restart() {
    for field in ["instancetype", "preference"] {
        let mut case = Case::of("Always", Some(after_running("Running")));
        case.vm.spec.fields.insert(field.to_owned(), json!({"name": "small"}));
        case.revisions = vec![revision(&case.vm).unwrap()];
        assert_eq!(told(&case.plan(), "RestartRequired"), None, "{field}");
        case.vm.spec.fields.insert(field.to_owned(), json!({"name": "large"}));
        assert_eq!(told(&case.plan(), "RestartRequired"), Some(("True", "")), "{field}");
        case.vm.spec.fields.insert(field.to_owned(), json!({"name": "small"}));
        case.vm.status = Some(case.plan().status);
        assert_eq!(told(&case.plan(), "RestartRequired"), None, "{field}");
        case.vm.spec.fields.remove(field);
        assert_eq!(told(&case.plan(), "RestartRequired"), Some(("True", "")), "{field}");
    }
}

// spec: VM-7
#[test]
fn a_start_is_two_status_writes() {
    // The pass that creates writes none, nor does one that sees an instance without a phase a moment after.
    let mut case = Case::of("Always", None);
    let mut writes = 0;
    let mut fresh = in_phase("");
    fresh.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    let mut scheduling = with_condition(in_phase("Scheduling"), "Ready", "False", "GuestNotRunning");
    scheduling.metadata.creation_timestamp = fresh.metadata.creation_timestamp.clone();
    for vmi in [None, Some(fresh), Some(scheduling), Some(ready(after_running("Running")))] {
        case.vmi = vmi;
        let plan = case.plan();
        writes += usize::from(case.vm.status.clone().unwrap_or_default() != plan.status);
        case.vm.status = Some(plan.status);
    }
    assert_eq!(writes, 2);
    assert_eq!(case.vm.status.unwrap().printable_status.as_deref(), Some("Running"));
}
