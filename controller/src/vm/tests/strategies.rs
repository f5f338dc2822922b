//! Run strategies, requests and back-off: when an instance is made, left or deleted.

use super::*;

#[derive(Debug, PartialEq)]
enum Step {
    Start,
    Delete,
    Leave,
}

fn step(case: &Case) -> Step {
    let actions = case.actions();
    match (starts(&actions), actions.contains(&Action::DeleteInstance)) {
        (true, false) => Step::Start,
        (false, true) => Step::Delete,
        (false, false) => Step::Leave,
        (true, true) => panic!("{actions:?}"),
    }
}

// spec: VM-1
#[test]
fn each_strategy_makes_leaves_or_deletes_the_instance() {
    use Step::{Delete, Leave, Start};
    // New machine; stopped machine that ran under this strategy; instance that is starting, runs, succeeded, failed.
    let table = [
        ("Always", [Start, Start, Leave, Leave, Delete, Delete]),
        ("RerunOnFailure", [Start, Leave, Leave, Leave, Delete, Delete]),
        ("Once", [Start, Leave, Leave, Leave, Leave, Leave]),
        ("Manual", [Leave, Leave, Leave, Leave, Leave, Leave]),
        ("Halted", [Leave, Leave, Delete, Delete, Delete, Delete]),
    ];
    for (strategy, expected) in table {
        let ran = || Case::of(strategy, None).status(json!({"runStrategy": strategy}));
        let with = |vmi| Case::of(strategy, Some(vmi)).status(json!({"runStrategy": strategy}));
        let found = [
            step(&Case::of(strategy, None)),
            step(&ran()),
            step(&with(in_phase("Scheduling"))),
            step(&with(after_running("Running"))),
            step(&with(after_running("Succeeded"))),
            step(&with(after_running("Failed"))),
        ];
        assert_eq!(found, expected, "{strategy}");
    }
}

#[test]
fn running_is_always_or_halted() {
    for (running, expected) in [(true, Step::Start), (false, Step::Leave)] {
        let mut vm = machine("");
        vm.spec.fields.remove("runStrategy");
        vm.spec.fields.insert("running".to_owned(), json!(running));
        assert_eq!(step(&Case::new(vm, None)), expected, "{running}");
    }
}

// spec: VM-1
#[test]
fn another_strategy_than_the_last_starts_a_stopped_machine() {
    for strategy in ["Always", "RerunOnFailure", "Once"] {
        assert_eq!(step(&Case::of(strategy, None).status(json!({"runStrategy": "Halted"}))), Step::Start, "{strategy}");
    }
    let case = Case::of("Manual", None).status(json!({"runStrategy": "Always"}));
    assert_eq!((step(&case), case.plan().status.run_strategy.as_deref()), (Step::Leave, Some("Manual")));
    // It is recorded once it has led to an instance, so that a failed create is tried again.
    let unchanged = Case::of("Once", None).status(json!({"runStrategy": "Halted"})).plan();
    assert_eq!(unchanged.status.run_strategy.as_deref(), Some("Halted"));
    let recorded = Case::of("Once", Some(in_phase("Scheduling"))).status(json!({"runStrategy": "Halted"})).plan();
    assert_eq!(recorded.status.run_strategy.as_deref(), Some("Once"));
    // A machine that never had an instance records nothing.
    assert_eq!(Case::of("Halted", None).plan().status.run_strategy, None);
}

fn requests(requests: Value) -> Value {
    json!({"runStrategy": "Manual", "stateChangeRequests": requests})
}

fn left(plan: &Plan) -> Value {
    json!(plan.status.state_change_requests)
}

// spec: VM-2
#[test]
fn a_start_request_starts_and_goes_once_an_instance_lives() {
    let start = json!([{"action": "Start"}]);
    for strategy in ["Manual", "RerunOnFailure"] {
        let case = Case::of(strategy, None).status(json!({"runStrategy": strategy, "stateChangeRequests": start}));
        assert_eq!(step(&case), Step::Start, "{strategy}");
        assert_eq!(left(&case.plan()), start);
        let mut alive = Case::of(strategy, Some(in_phase("Pending")));
        alive.vm.status = case.vm.status;
        assert_eq!((step(&alive), left(&alive.plan())), (Step::Leave, json!([])));
    }
    let paused = Case::of("Manual", None).status(requests(json!([{"action": "Start", "data": {"paused": "true"}}])));
    assert!(paused.actions().contains(&Action::CreateInstance { is_paused: true }));
}

// spec: VM-2
#[test]
fn a_start_request_of_a_halted_machine_sets_its_strategy() {
    let case = Case::of("Halted", None)
        .status(json!({"stateChangeRequests": [{"action": "Start", "data": {"paused": "true"}}]}));
    assert_eq!(case.actions(), [Action::RunAlways]);
    // The request stays for the start that follows.
    assert_eq!(case.plan().status.state_change_requests.len(), 1);
}

// spec: VM-2
#[test]
fn a_stop_request_deletes_the_instance_that_it_names_and_no_other() {
    for strategy in ["Always", "RerunOnFailure", "Manual"] {
        let stop = |uid: &str| {
            Case::of(strategy, Some(after_running("Running"))).status(requests(json!([{"action": "Stop", "uid": uid}])))
        };
        assert_eq!(step(&stop(VMI)), Step::Delete, "{strategy}");
        assert_eq!(stop(VMI).plan().status.state_change_requests.len(), 1);
        let other = stop("another");
        assert_eq!((step(&other), left(&other.plan())), (Step::Leave, json!([])), "{strategy}");
    }
    let gone = Case::of("Manual", None).status(requests(json!([{"action": "Stop", "uid": VMI}])));
    assert_eq!((step(&gone), left(&gone.plan())), (Step::Leave, json!([])));
}

// spec: VM-2
#[test]
fn a_restart_is_a_stop_and_then_a_start() {
    let restart = json!([{"action": "Stop", "uid": VMI}, {"action": "Start"}]);
    for strategy in ["Always", "RerunOnFailure", "Manual"] {
        let status = json!({"runStrategy": strategy, "stateChangeRequests": restart});
        let with = |vmi| Case::of(strategy, vmi).status(status.clone());
        assert_eq!(step(&with(Some(after_running("Running")))), Step::Delete, "{strategy}");
        let ending = with(Some(deleted(after_running("Running"))));
        assert_eq!((step(&ending), left(&ending.plan())), (Step::Leave, restart.clone()));
        assert_eq!(step(&with(None)), Step::Start, "{strategy}");
        let mut next = in_phase("Scheduling");
        next.metadata.uid = Some("next".to_owned());
        let done = with(Some(next));
        assert_eq!((step(&done), left(&done.plan())), (Step::Leave, json!([])), "{strategy}");
    }
}

// spec: VM-1
#[test]
fn a_failed_instance_is_rerun_by_a_request_written_before_it_vanishes() {
    let status = json!({"runStrategy": "RerunOnFailure"});
    let failed = Case::of("RerunOnFailure", Some(after_running("Failed"))).status(status.clone());
    assert_eq!(left(&failed.plan()), json!([{"action": "Start"}]));
    assert_eq!(failed.actions(), [Action::DeleteInstance, Action::ReleaseInstance]);
    // Seen a second time it asks for one start all the same.
    let mut again = Case::of("RerunOnFailure", Some(after_running("Failed")));
    again.vm.status = Some(failed.plan().status);
    assert_eq!(left(&again.plan()), json!([{"action": "Start"}]));
    let ended = Case::of("RerunOnFailure", Some(after_running("Succeeded"))).status(status.clone());
    assert_eq!(left(&ended.plan()), json!([]));
    // A stop is no failure, however the guest ended.
    let stop = json!({"runStrategy": "RerunOnFailure", "stateChangeRequests": [{"action": "Stop", "uid": VMI}]});
    let stopped = Case::of("RerunOnFailure", Some(deleted(after_running("Failed")))).status(stop);
    assert_eq!(left(&stopped.plan()), json!([{"action": "Stop", "uid": VMI}]));
}

// spec: VM-3
#[test]
fn starts_that_fail_before_the_guest_ran_wait_longer_and_longer() {
    let mut status = json!({"runStrategy": "Always"});
    for (count, least) in [(1, 10), (2, 40), (3, 90), (4, 160), (5, 250), (6, 300), (7, 300)] {
        let mut vmi = in_phase("Failed");
        vmi.metadata.uid = Some(format!("instance-{count}"));
        let failed = Case::of("Always", Some(vmi.clone())).status(status.clone());
        let plan = failed.plan();
        let failure = plan.status.start_failure.clone().unwrap();
        assert_eq!((failure.consecutive_fail_count, failure.last_failed_vmi_uid), (count, format!("instance-{count}")));
        let delay = now().duration_until(failure.retry_after_timestamp.unwrap().0).as_secs();
        assert!((least..=(least * 3 / 2).min(300)).contains(&delay), "{count}: {delay}");
        // The same instance counts once.
        let mut again = Case::of("Always", Some(vmi));
        again.vm.status = Some(plan.status.clone());
        assert_eq!(again.plan().status.start_failure, plan.status.start_failure);
        status = json!(plan.status);
    }
    let mut waiting = Case::of("Always", None).status(status.clone());
    let plan = waiting.plan();
    assert_eq!((plan.actions.len(), word(&plan)), (0, "CrashLoopBackOff"));
    assert!(plan.retry_after.is_some_and(|left| left.as_secs() == 300), "{plan:?}");
    waiting.now = now().checked_add(SignedDuration::from_secs(301)).unwrap();
    assert!(starts(&waiting.actions()));
    // A guest that runs, or a strategy that starts nothing by itself, ends the count.
    let running = Case::of("Always", Some(after_running("Running"))).status(status.clone()).plan();
    assert_eq!(running.status.start_failure, None);
    assert_eq!(Case::of("Halted", None).status(status.clone()).plan().status.start_failure, None);
    assert_eq!(Case::of("Manual", None).status(status).plan().status.start_failure, None);
}

// spec: VM-3
#[test]
fn a_guest_that_ran_is_started_again_at_once() {
    let failed = Case::of("Always", Some(after_running("Failed"))).plan();
    assert_eq!(
        (
            failed.status.start_failure,
            word(&Case::of("Always", None).status(json!({"printableStatus": "Stopped"})).plan())
        ),
        (None, "Stopped")
    );
    assert!(failed.actions.contains(&Action::DeleteInstance));
}

// spec: VM-5
#[test]
fn a_start_writes_a_revision_and_removes_earlier_ones() {
    let mut case = Case::of("Always", None);
    let earlier = {
        let mut vm = machine("Always");
        vm.metadata.generation = Some(2);
        revision(&vm).unwrap()
    };
    case.revisions = vec![earlier];
    let older = format!("revision-start-vm-{VM}-2");
    assert_eq!(case.actions(), [Action::DeleteRevision(older), Action::CreateRevision, START]);
    let current = revision(&case.vm).unwrap();
    assert_eq!((current.metadata.name.clone(), current.revision), (Some(format!("revision-start-vm-{VM}-3")), 3));
    assert_eq!(current.data.clone().unwrap().0, json!({"spec": case.vm.spec}));
    case.revisions = vec![current];
    assert_eq!(case.actions(), [START]);
}

// spec: VM-5
#[test]
fn an_instance_has_the_template_under_the_machines_name() {
    let mut vm = machine("Always");
    vm.spec.fields["template"]["metadata"]["name"] = json!("other");
    let vmi = json!(instance(&vm, true, "revision-1").unwrap());
    let metadata = &vmi["metadata"];
    assert_eq!((&metadata["name"], &metadata["namespace"]), (&json!("web"), &json!("vms")));
    assert_eq!(metadata["labels"], json!({"app": "web"}));
    assert_eq!(metadata["annotations"], json!({"note": "mine", "kubevirt.io/vm-generation": "3"}));
    let owner = json!([{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "web", "uid": VM,
        "controller": true, "blockOwnerDeletion": true}]);
    assert_eq!((&metadata["ownerReferences"], &metadata["finalizers"]), (&owner, &json!([FINALIZER])));
    assert_eq!(
        (&vmi["spec"]["startStrategy"], &vmi["status"]["virtualMachineRevisionName"]),
        (&json!("Paused"), &json!("revision-1"))
    );
    let template = &vm.spec.fields["template"]["spec"];
    assert_eq!(vmi["spec"]["domain"], template["domain"]);
    assert_eq!(instance(&vm, false, "").unwrap().spec.fields.get("startStrategy"), None);
}
