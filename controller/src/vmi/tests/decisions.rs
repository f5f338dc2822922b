//! The table of phases and conditions: what is decided for each state of an instance and its pods.

use super::*;

fn names(plan: &Plan) -> Vec<Action> {
    plan.actions.clone()
}

// spec: CTRL-1
#[test]
fn a_new_instance_gets_a_finalizer_a_secret_and_a_pod() {
    let plan = Case::new(small(), vec![]).plan();
    assert!(plan.finalizer);
    assert_eq!(plan.status.phase, Some(Phase::Scheduling));
    assert_eq!(names(&plan), [Action::CreateSecret, Action::CreatePod { attempt: 1 }]);
    assert_eq!(plan.status.phase_transition_timestamps.len(), 1);
}

#[test]
fn an_instance_whose_pod_is_not_in_the_cache_yet_is_planned_the_same() {
    let plan = Case::new(small_in(Phase::Scheduling), vec![]).plan();
    assert_eq!(names(&plan), [Action::CreateSecret, Action::CreatePod { attempt: 1 }]);
}

#[test]
fn an_invalid_instance_stays_pending_and_every_field_is_named() {
    let object =
        instance(json!({"domain": {"memory": {"guest": "128Mi"}, "devices": {"gpus": [{"name": "g"}]}, "foo": 1}}));
    let plan = Case::new(object, vec![]).plan();
    assert_eq!((plan.status.phase, plan.actions.len(), plan.finalizer), (Some(Phase::Pending), 0, false));
    let (status, reason, message) = told(&plan, "Synchronized").unwrap();
    assert_eq!((status, reason), ("False", "Invalid"));
    assert!(
        message.contains("spec.domain.devices.gpus: not supported")
            && message.contains("spec.domain.foo: unknown field"),
        "{message}"
    );
}

// spec: CTRL-7
#[test]
fn a_pod_of_an_earlier_instance_of_the_name_holds_back_the_new_one() {
    let mut case = Case::new(small(), vec![]);
    case.earlier = vec![launcher_pod(running(json!([])))];
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.actions.len()), (Some(Phase::Pending), 0));
    assert_eq!(told(&plan, "Synchronized").unwrap().1, "EarlierPodExists");
    case.earlier = vec![launcher_pod(ended(0, ""))];
    assert_eq!(case.plan().status.phase, Some(Phase::Scheduling));
}

#[test]
fn a_waiting_pod_changes_nothing() {
    let object = small_in(Phase::Scheduling);
    for state in
        [json!({"waiting": {"reason": "ContainerCreating"}}), json!({"waiting": {"reason": "PodInitializing"}})]
    {
        let case = Case::new(
            object.clone(),
            vec![launcher_pod(json!({"phase": "Pending", "containerStatuses": container(state)}))],
        );
        let plan = case.plan();
        assert_eq!(Some(plan.status), object.status);
        assert_eq!(plan.actions, []);
    }
}

// spec: CTRL-6
#[test]
fn what_keeps_a_pod_from_starting_becomes_a_condition() {
    let waiting = |reason: &str| json!({"phase": "Pending", "containerStatuses": container(json!({"waiting": {"reason": reason, "message": "why"}}))});
    for reason in ["ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError"] {
        let plan = Case::new(small_in(Phase::Scheduling), vec![launcher_pod(waiting(reason))]).plan();
        assert_eq!(told(&plan, "Synchronized"), Some(("False", reason, "why")));
        assert_eq!(plan.status.phase, Some(Phase::Scheduling));
    }
    let unschedulable = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}]});
    let plan = Case::new(small_in(Phase::Scheduling), vec![launcher_pod(unschedulable)]).plan();
    assert_eq!(told(&plan, "PodScheduled"), Some(("False", "Unschedulable", "0/2 nodes are available")));
}

// spec: CTRL-6
#[test]
fn a_refused_network_becomes_a_condition_and_never_a_failure() {
    let creating = json!({"phase": "Pending", "containerStatuses": container(json!({"waiting": {"reason": "ContainerCreating"}}))});
    let mut case = Case::new(small_in(Phase::Scheduling), vec![launcher_pod(creating)]);
    case.sandbox_failure = Some("CNI plugin tapvisor: no");
    let plan = case.plan();
    assert_eq!(told(&plan, "Synchronized"), Some(("False", "FailedCreatePodSandBox", "CNI plugin tapvisor: no")));
    assert_eq!((plan.status.phase, plan.actions.len()), (Some(Phase::Scheduling), 0));
}

#[test]
fn a_running_launcher_first_gets_its_gate_opened_without_a_status_write() {
    let object = small_in(Phase::Scheduling);
    let plan = Case::new(object.clone(), vec![launcher_pod(running(json!([])))]).plan();
    assert_eq!(plan.actions, [Action::SetGate { name: "virt-launcher-web-1".to_owned(), is_open: true }]);
    assert_eq!(Some(plan.status), object.status);
}

// spec: CTRL-37
#[test]
fn what_the_api_server_refuses_to_create_is_told_until_the_pod_exists() {
    let mut case = Case::new(small(), vec![]);
    let first = case.plan();
    let why = "cannot create virt-launcher-web-1: exceeded quota";
    case.object.status = Some(refused(first.status, why, now()));
    let again = case.plan();
    assert_eq!(again.actions, first.actions);
    let expected = Some(("False", "FailedCreate", why));
    assert_eq!((told(&again, "Synchronized"), again.status.phase), (expected, Some(Phase::Scheduling)));
    // A refusal for the same reason is no write.
    assert_eq!(Some(refused(again.status, why, now())), case.object.status);
    case.pods = vec![launcher_pod(json!({"phase": "Pending"}))];
    assert_eq!(told(&case.plan(), "Synchronized"), None);
}

// spec: CTRL-38
#[test]
fn a_machine_that_fits_into_no_secret_is_refused_with_its_size() {
    let with = |bytes: usize| {
        let mut object = small();
        object.spec.fields["domain"]["devices"]["disks"] = json!([{"name": "seed", "disk": {"bus": "virtio"}}]);
        let seed = json!([{"name": "seed", "cloudInitNoCloud": {"userData": "#".repeat(bytes)}}]);
        object.spec.fields.insert("volumes".to_owned(), seed);
        launch::read(&object, &config()).launch
    };
    assert!(with(1000 << 10).is_ok());
    let refused = with(1 << 20).unwrap_err();
    assert!(refused.len() == 1 && refused[0].contains("at most 1048576 fit into its Secret"), "{refused:?}");
    assert!(refused[0].len() < 300, "{refused:?}");
}

// spec: CTRL-12
#[test]
fn a_pod_of_a_node_that_is_out_of_service_is_released_and_the_next_starts() {
    // What Kubernetes makes of it: failed, and deleted by force.
    let lost = json!({"phase": "Failed", "reason": "NodeOutOfService", "message": "node is out of service"});
    let mut pod = launcher_pod(lost);
    pod.metadata.finalizers = Some(vec![OUTCOME.to_owned()]);
    pod.metadata.deletion_timestamp = serde_json::from_value(json!(NOW)).unwrap();
    let plan = Case::new(small_in(Phase::Running), vec![pod.clone()]).plan();
    assert_eq!(plan.status.phase, Some(Phase::Failed));
    assert!(pod_state::is_to_release(&pod));
    let mut next = Case::new(small(), vec![]);
    next.earlier = vec![pod];
    let release = Action::ReleasePod { name: "virt-launcher-web-1".to_owned() };
    assert_eq!(next.plan().actions, [Action::CreateSecret, Action::CreatePod { attempt: 1 }, release]);
}

fn gate(at: &str) -> Value {
    json!({"type": UNPAUSED_GATE, "status": "True", "lastTransitionTime": at})
}

// spec: CTRL-1
#[test]
fn running_and_ready_are_one_write() {
    let not_counted =
        json!([gate("2026-11-29T11:59:59Z"), {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"}]);
    let object = small_in(Phase::Scheduling);
    let plan = Case::new(object.clone(), vec![launcher_pod(running(not_counted))]).plan();
    assert_eq!(Some(plan.status), object.status);
    assert!(plan.retry_after.is_some());
    let counted = json!([gate("2026-11-29T11:59:59Z"), {"type": "Ready", "status": "True"}]);
    let plan = Case::new(object, vec![launcher_pod(running(counted))]).plan();
    assert_eq!((plan.status.phase, told(&plan, "Ready")), (Some(Phase::Running), Some(("True", "", ""))));
    assert_eq!(plan.status.node_name.as_deref(), Some("node1"));
    let nic = &plan.status.interfaces[0];
    assert_eq!((nic.name.as_str(), nic.ip_address.as_deref()), ("default", Some("10.244.1.8")));
    assert_eq!(nic.ip_addresses, ["10.244.1.8", "fd00::8"]);
    assert!(nic.mac.starts_with("02:"), "{nic:?}");
}

#[test]
fn a_gate_that_no_kubelet_counts_does_not_hide_that_the_guest_runs() {
    let old =
        json!([gate("2026-11-29T11:00:00Z"), {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"}]);
    let plan = Case::new(small_in(Phase::Scheduling), vec![launcher_pod(running(old))]).plan();
    assert_eq!((plan.status.phase, told(&plan, "Ready").unwrap().0), (Some(Phase::Running), "False"));
}

#[test]
fn a_guest_that_fails_its_probe_is_running_and_not_ready() {
    let conditions = json!([gate("2026-11-29T11:59:59Z"), {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"}]);
    let plan = Case::new(small_in(Phase::Running), vec![launcher_pod(running(conditions))]).plan();
    assert_eq!(
        (plan.status.phase, told(&plan, "Ready")),
        (Some(Phase::Running), Some(("False", "ContainersNotReady", "m")))
    );
}

// spec: CTRL-1
#[test]
fn a_pass_without_change_writes_nothing() {
    let counted = json!([gate("2026-11-29T11:59:59Z"), {"type": "Ready", "status": "True"}]);
    let mut case = Case::new(small_in(Phase::Scheduling), vec![launcher_pod(running(counted))]);
    let first = case.plan();
    case.object.status = Some(first.status.clone());
    let second = case.plan();
    assert_eq!((second.status, second.actions), (first.status, vec![]));
}

// spec: CTRL-1
#[test]
fn exit_codes_of_the_launcher_become_final_phases_with_its_reason() {
    let outcome = r#"{"outcome":"crashed","reason":"the guest's kernel panicked","requested":false}"#;
    let plan = Case::new(small_in(Phase::Running), vec![launcher_pod(ended(7, outcome))]).plan();
    let reason = "the launcher ended with code 7: the guest's kernel panicked";
    assert_eq!(
        (plan.status.phase, told(&plan, "Synchronized")),
        (Some(Phase::Failed), Some(("False", "LauncherFailed", reason)))
    );
    let log = "INFO tapvisor: starting\nERROR tapvisor: cannot open /dev/net/tun\n";
    let plan = Case::new(small_in(Phase::Scheduling), vec![launcher_pod(ended(6, log))]).plan();
    assert!(told(&plan, "Synchronized").unwrap().2.ends_with("ERROR tapvisor: cannot open /dev/net/tun"));
    let plan = Case::new(small_in(Phase::Running), vec![launcher_pod(ended(0, ""))]).plan();
    assert_eq!((plan.status.phase, told(&plan, "Ready").unwrap().1), (Some(Phase::Succeeded), "GuestNotRunning"));
}

// spec: CTRL-16
#[test]
fn a_guest_that_powered_off_ran_also_when_its_start_was_missed() {
    let plan = Case::new(small_in(Phase::Scheduling), vec![launcher_pod(ended(0, ""))]).plan();
    let phases: Vec<_> = plan.status.phase_transition_timestamps.iter().map(|change| change.phase).collect();
    assert_eq!((plan.status.phase, phases), (Some(Phase::Succeeded), vec![Phase::Running, Phase::Succeeded]));
}

#[test]
fn a_pod_lost_without_an_exit_code_fails_the_instance() {
    let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"});
    let plan = Case::new(small_in(Phase::Running), vec![launcher_pod(evicted)]).plan();
    assert_eq!(
        (plan.status.phase, told(&plan, "Synchronized").unwrap().2),
        (Some(Phase::Failed), "the node was low on memory")
    );
    let plan = Case::new(small_in(Phase::Running), vec![]).plan();
    assert_eq!((plan.status.phase, told(&plan, "Synchronized").unwrap().1), (Some(Phase::Failed), "PodNotFound"));
}

// spec: CTRL-16
#[test]
fn a_final_phase_is_written_to_the_version_that_was_seen_alone() {
    let version = |phase: Phase, pods: Vec<Pod>| {
        let mut case = Case::new(small_in(phase), pods);
        case.object.metadata.resource_version = Some("4711".to_owned());
        reconcile::applied(&case.object, &case.plan())["metadata"]["resourceVersion"].clone()
    };
    assert_eq!(version(Phase::Running, vec![launcher_pod(ended(0, ""))]), "4711");
    // Its pod was let go by the write before, which the cache does not show yet: the API server refuses what is written.
    assert_eq!(version(Phase::Running, vec![]), "4711");
    assert_eq!(version(Phase::Running, vec![launcher_pod(running(json!([])))]), Value::Null);
    assert_eq!(version(Phase::Succeeded, vec![]), Value::Null);
}

// spec: CTRL-16
#[test]
fn a_pod_is_held_until_the_status_says_how_its_launcher_ended() {
    let held = |status: Value| {
        let mut pod = launcher_pod(status);
        pod.metadata.finalizers = Some(vec![OUTCOME.to_owned()]);
        pod
    };
    let plan = |phase: Phase, pod: Pod| Case::new(small_in(phase), vec![pod]).plan();
    let release = [Action::ReleasePod { name: "virt-launcher-web-1".to_owned() }];
    let alive = plan(Phase::Running, held(running(json!([]))));
    assert!(!alive.actions.contains(&release[0]), "{:?}", alive.actions);
    let first = plan(Phase::Running, held(ended(0, "")));
    assert_eq!((first.status.phase, first.actions), (Some(Phase::Succeeded), release.to_vec()));
    // A node's agent told the outcome before the kubelet did.
    assert_eq!(plan(Phase::Succeeded, held(ended(0, ""))).actions, release);
    assert_eq!(plan(Phase::Succeeded, launcher_pod(ended(0, ""))).actions, []);
    // Deleted, and its launcher still runs; then deleted by force, as from a node that is lost.
    let mut leaving = held(running(json!([])));
    leaving.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    leaving.metadata.deletion_grace_period_seconds = Some(60);
    assert_eq!(plan(Phase::Running, leaving.clone()).actions, []);
    leaving.metadata.deletion_grace_period_seconds = Some(0);
    assert_eq!(plan(Phase::Running, leaving.clone()).actions, release);
    let mut case = Case::new(small(), vec![]);
    case.earlier = vec![leaving];
    assert_eq!(case.plan().actions, release);
}

// spec: CTRL-35
#[test]
fn what_keeps_the_files_of_an_image_from_being_copied_is_told() {
    let copy = |state: Value| json!([{"name": "image-0", "image": "localhost/disk:1", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
    let waiting = container(json!({"waiting": {"reason": "PodInitializing"}}));
    let pull = copy(json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}));
    let pod = json!({"phase": "Pending", "initContainerStatuses": pull, "containerStatuses": waiting});
    let plan = Case::new(small_in(Phase::Scheduling), vec![launcher_pod(pod)]).plan();
    assert_eq!(told(&plan, "Synchronized"), Some(("False", "ImagePullBackOff", "no such image")));
    let ended =
        copy(json!({"terminated": {"exitCode": 1, "message": "/disk: No such file or directory (os error 2)\n"}}));
    let pod = json!({"phase": "Failed", "initContainerStatuses": ended, "containerStatuses": waiting});
    let plan = Case::new(small_in(Phase::Scheduling), vec![launcher_pod(pod)]).plan();
    let text = "the files of image localhost/disk:1 were not copied: /disk: No such file or directory (os error 2)";
    assert_eq!((plan.status.phase, told(&plan, "Synchronized").unwrap().2), (Some(Phase::Failed), text));
}

// spec: CTRL-5
#[test]
fn a_launcher_without_its_network_is_replaced_after_a_growing_wait() {
    let plan = Case::new(small_in(Phase::Scheduling), vec![launcher_pod(ended(8, "not wired"))]).plan();
    assert_eq!(told(&plan, "Synchronized"), Some(("False", "NotWired", "not wired")));
    // It ended a second ago, and the first wait is a second.
    assert_eq!(plan.actions, [Action::CreateSecret, Action::CreatePod { attempt: 2 }]);
    let pods = vec![launcher_pod(ended(8, "not wired")), pod_of_attempt(2, ended(8, "not wired"))];
    let plan = Case::new(small_in(Phase::Scheduling), pods).plan();
    assert_eq!((plan.actions.len(), plan.retry_after.map(|wait| wait.as_secs())), (0, Some(1)));
    assert_eq!(plan.status.phase, Some(Phase::Scheduling));
}

// spec: CTRL-5
#[test]
fn pods_of_earlier_attempts_are_deleted_when_the_next_is_made() {
    let mut older = ended(8, "not wired");
    older["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = json!("2026-11-29T11:00:00Z");
    let pods = vec![launcher_pod(older.clone()), pod_of_attempt(2, older)];
    let plan = Case::new(small_in(Phase::Scheduling), pods).plan();
    let delete = Action::DeletePod { name: "virt-launcher-web-1".to_owned() };
    assert_eq!(plan.actions, [delete, Action::CreateSecret, Action::CreatePod { attempt: 3 }]);
}

// spec: CTRL-1
#[test]
fn a_final_phase_never_changes() {
    for phase in [Phase::Succeeded, Phase::Failed] {
        let object = small_in(phase);
        let plan = Case::new(object.clone(), vec![]).plan();
        assert_eq!((Some(plan.status), plan.actions), (object.status, vec![]));
    }
}

fn deleted(mut object: VirtualMachineInstance) -> VirtualMachineInstance {
    object.metadata.deletion_timestamp = serde_json::from_value(json!(NOW)).unwrap();
    object
}

#[test]
fn a_deleted_instance_loses_its_pods_and_then_its_finalizer() {
    let object = deleted(small_in(Phase::Running));
    let plan = Case::new(object.clone(), vec![launcher_pod(running(json!([])))]).plan();
    assert_eq!(plan.actions, [Action::DeletePod { name: "virt-launcher-web-1".to_owned() }]);
    assert!(plan.finalizer);
    let plan = Case::new(object, vec![]).plan();
    assert_eq!((plan.actions.len(), plan.finalizer), (0, false));
}

// spec: CTRL-1
#[test]
fn a_deleted_instance_tells_how_it_ended_as_soon_as_its_launcher_has() {
    let mut case = Case::new(deleted(small_in(Phase::Running)), vec![launcher_pod(running(json!([])))]);
    case.outcome = Some(Outcome { outcome: Verdict::PoweredOff, reason: "why".to_owned(), requested: true });
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.finalizer), (Some(Phase::Succeeded), true));
}

// spec: CTRL-52
#[test]
fn limits_alone_are_requested_too() {
    let resources = json!({"limits": {"cpu": "1", "memory": "128Mi"}});
    let object = instance(json!({"domain": {"resources": resources, "devices": {}}}));
    let pod = pod::pod(&object, &launch(&object, &config()), &config(), 1).unwrap();
    let resources = pod.spec.unwrap().containers[0].resources.clone().unwrap();
    let (requests, limits) = (resources.requests.unwrap(), resources.limits.unwrap());
    // Kubernetes then gives the pod the class Guaranteed.
    assert_eq!((&requests["cpu"], &requests["memory"]), (&limits["cpu"], &limits["memory"]));
    assert_eq!((requests["cpu"].0.as_str(), requests["memory"].0.as_str()), ("1000m", "384Mi"));
}

#[test]
fn a_pod_being_deleted_makes_the_instance_not_ready_and_starts_no_other() {
    let mut pod = launcher_pod(running(json!([gate("2026-11-29T11:59:59Z"), {"type": "Ready", "status": "True"}])));
    pod.metadata.deletion_timestamp = serde_json::from_value(json!(NOW)).unwrap();
    let plan = Case::new(small_in(Phase::Running), vec![pod]).plan();
    assert_eq!((plan.status.phase, plan.actions.len()), (Some(Phase::Running), 0));
    assert_eq!(told(&plan, "Ready").unwrap().1, "PodTerminating");
}

#[test]
fn a_running_instance_that_this_release_would_refuse_keeps_running() {
    let mut object = instance(json!({"domain": {"memory": {"guest": "128Mi"}, "devices": {}, "foo": 1}}));
    object.status.get_or_insert_default().phase = Some(Phase::Running);
    let counted = json!([gate("2026-11-29T11:59:59Z"), {"type": "Ready", "status": "True"}]);
    let plan = Case::new(object, vec![launcher_pod(running(counted))]).plan();
    assert_eq!((plan.status.phase, plan.actions.len()), (Some(Phase::Running), 0));
}

#[test]
fn a_launcher_that_is_starting_is_not_a_guest_that_runs() {
    let object = small_in(Phase::Scheduling);
    let mut case = Case::new(object.clone(), vec![launcher_pod(running(json!([])))]);
    case.launcher = Some(State::Starting);
    let plan = case.plan();
    assert_eq!((Some(plan.status), plan.actions), (object.status, vec![]));
}

// spec: CTRL-11
#[test]
fn a_paused_guest_closes_the_gate_and_has_a_condition() {
    let ready = json!([gate("2026-11-29T11:59:59Z"), {"type": "Ready", "status": "True"}]);
    let mut case = Case::new(small_in(Phase::Running), vec![launcher_pod(running(ready))]);
    case.launcher = Some(State::Paused);
    let name = "virt-launcher-web-1".to_owned();
    assert_eq!(case.plan().actions, [Action::SetGate { name: name.clone(), is_open: false }]);
    let closed = json!([{"type": UNPAUSED_GATE, "status": "False", "lastTransitionTime": NOW}, {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"}]);
    case.pods = vec![launcher_pod(running(closed))];
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.actions.len()), (Some(Phase::Running), 0));
    assert_eq!((told(&plan, "Paused").unwrap().1, told(&plan, "Ready").unwrap().0), ("PausedByUser", "False"));
    case.object.status = Some(plan.status);
    case.launcher = Some(State::Running);
    assert_eq!(case.plan().actions, [Action::SetGate { name, is_open: true }]);
}

// spec: CTRL-18
#[test]
fn an_outcome_that_the_agent_reports_decides_before_the_pod_has_ended() {
    let cases = [
        (Verdict::PoweredOff, Phase::Succeeded),
        (Verdict::Crashed, Phase::Failed),
        (Verdict::NotWired, Phase::Running),
    ];
    for (outcome, phase) in cases {
        let counted = json!([gate("2026-11-29T11:59:59Z"), {"type": "Ready", "status": "True"}]);
        let mut case = Case::new(small_in(Phase::Running), vec![launcher_pod(running(counted))]);
        case.outcome = Some(Outcome { outcome, reason: "why".to_owned(), requested: false });
        let plan = case.plan();
        assert_eq!((plan.status.phase, plan.actions.len()), (Some(phase), 0), "{outcome:?}");
        // Its pod may still run: an instance that takes the name waits for it.
        let mut next = Case::new(small(), vec![]);
        next.earlier = case.pods;
        assert_eq!(next.plan().status.phase, Some(Phase::Pending));
    }
}

// spec: CTRL-6
#[test]
fn a_network_that_is_refused_again_with_another_address_is_no_change() {
    let creating = json!({"phase": "Pending", "containerStatuses": container(json!({"waiting": {"reason": "ContainerCreating"}}))});
    let mut case = Case::new(small_in(Phase::Scheduling), vec![launcher_pod(creating)]);
    case.sandbox_failure = Some("CNI plugin tapvisor: 10.244.1.7 is taken");
    case.object.status = Some(case.plan().status);
    case.sandbox_failure = Some("CNI plugin tapvisor: 10.244.1.8 is taken");
    assert_eq!(Some(case.plan().status), case.object.status);
    case.sandbox_failure = Some("CNI plugin tapvisor: something else");
    assert_ne!(Some(case.plan().status), case.object.status);
}

// spec: CTRL-10
#[test]
fn a_deleted_instance_that_never_ran_has_not_failed() {
    let lost = json!({"phase": "Failed", "message": "Pod was terminated"});
    let never = Case::new(deleted(small_in(Phase::Scheduling)), vec![launcher_pod(lost.clone())]).plan();
    assert_eq!(never.status.phase, Some(Phase::Scheduling));
    let ran = Case::new(deleted(small_in(Phase::Running)), vec![launcher_pod(lost)]).plan();
    assert_eq!(ran.status.phase, Some(Phase::Failed));
}

// spec: CTRL-12
#[test]
fn a_pod_that_does_not_end_says_which_node_and_what_helps() {
    let counted = json!([gate("2026-11-29T11:59:59Z"), {"type": "Ready", "status": "True"}]);
    let mut case = Case::new(small_in(Phase::Running), vec![launcher_pod(running(counted))]);
    case.pods[0].metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-29T12:00:30Z")).unwrap();
    let plan = case.plan();
    assert_eq!((told(&plan, "Synchronized"), plan.retry_after.map(|wait| wait.as_secs())), (None, Some(45)));
    case.pods[0].metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-29T11:59:45Z")).unwrap();
    for object in [case.object.clone(), deleted(case.object.clone())] {
        case.object = object;
        let plan = case.plan();
        let (status, reason, message) = told(&plan, "Synchronized").unwrap();
        assert_eq!((status, reason, plan.status.phase), ("False", "TerminationOverdue", Some(Phase::Running)));
        assert!(message.contains("its node node1 does not say") && message.contains("out-of-service"), "{message}");
        assert_eq!(plan.actions, []);
    }
}

// spec: MIG-5
#[test]
fn a_pod_that_waits_for_a_migration_is_none_of_the_instances_own() {
    let conditions = json!([{"type": UNPAUSED_GATE, "status": "True"}, {"type": "Ready", "status": "True"}]);
    let mut case = Case::new(small_in(Phase::Running), vec![launcher_pod(running(conditions))]);
    case.targets = vec![pod_of_attempt(2, running(json!([])))];
    let plan = case.plan();
    assert_eq!((plan.status.phase, plan.actions.len()), (Some(Phase::Running), 0));
    assert_eq!(told(&plan, "LiveMigratable").unwrap().1, "NotMigratable");
    // It goes with the instance.
    case.object.metadata.deletion_timestamp = serde_json::from_value(json!(NOW)).unwrap();
    case.pods.clear();
    let plan = case.plan();
    assert_eq!(plan.actions, [Action::DeletePod { name: "virt-launcher-web-2".to_owned() }]);
    assert!(plan.finalizer);
}

// spec: MIG-6
#[test]
fn an_instance_bridged_to_the_pod_network_could_not_be_moved() {
    let mut object = instance(json!({"domain": {"memory": {"guest": "128Mi"}, "devices": {}}}));
    let reason = |object: &VirtualMachineInstance| {
        let (status, reason, _) = migratable::condition(object, &launch(object, &config()));
        format!("{status} {reason}")
    };
    assert_eq!(reason(&object), "False InterfaceNotLiveMigratable");
    assert_eq!(reason(&small()), "Unknown NotMigratable");
    let allowed = "kubevirt.io/allow-pod-bridge-network-live-migration".to_owned();
    object.metadata.annotations = Some([(allowed, String::new())].into());
    assert_eq!(reason(&object), "Unknown NotMigratable");
}
