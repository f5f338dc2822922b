//! Start, stop and restart under each run strategy, against KubeVirt's table.

use serde_json::json;

use super::*;

fn vm(spec: Value, status: Value) -> Value {
    json!({"metadata": {"namespace": "vms", "name": "web", "uid": "vm-uid"}, "spec": spec, "status": status})
}

fn vmi(phase: &str) -> VirtualMachineInstance {
    let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"namespace": "vms", "name": "web", "uid": "vmi-uid"},
        "spec": {"terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
    serde_json::from_value(object).unwrap()
}

/// What a request does, in one word or two, or the code and end of the refusal.
fn told(decided: Result<Change, Failure>) -> String {
    match decided {
        Ok(Change::Spec(operations)) => {
            let last = operations.as_array().unwrap().last().unwrap();
            format!("{} {}", last["path"].as_str().unwrap(), last["value"])
        }
        Ok(Change::Status(operations)) => {
            let all = operations.as_array().unwrap();
            let added = all.iter().find(|operation| operation["op"] != "test").unwrap();
            let requests = added["value"].get("stateChangeRequests").unwrap_or(&added["value"]);
            let word = |request: &Value| match (&request["uid"], &request["data"]) {
                (Value::Null, Value::Null) => request["action"].as_str().unwrap().to_owned(),
                (Value::Null, data) => format!("{}{data}", request["action"].as_str().unwrap()),
                (uid, _) => format!("{}({})", request["action"].as_str().unwrap(), uid.as_str().unwrap()),
            };
            requests.as_array().unwrap().iter().map(word).collect::<Vec<_>>().join("+")
        }
        Err(failure) => {
            let end = failure.message.rsplit("\"web\": ").next().unwrap().to_owned();
            format!("{} {end}", failure.code.as_u16())
        }
    }
}

const STRATEGIES: [&str; 5] = ["Always", "Halted", "Manual", "RerunOnFailure", "Once"];

fn each(phase: Option<&str>, act: impl Fn(&Observed) -> Result<Change, Failure>) -> Vec<String> {
    let vmi = phase.map(vmi);
    let one = |strategy: &&str| {
        let vm = vm(json!({"runStrategy": strategy}), json!({"created": true}));
        told(act(&Observed { name: "web", vm: &vm, vmi: vmi.as_ref() }))
    };
    STRATEGIES.iter().map(one).collect()
}

const NO_MANUAL_START: [&str; 2] =
    ["409 Always does not support manual start requests", "409 Once does not support manual start requests"];

// spec: SUB-6
#[test]
fn start_follows_the_run_strategy() {
    let [always, once] = NO_MANUAL_START;
    let start = |observed: &Observed| observed.start(false);
    assert_eq!(each(None, start), [always, "/spec/runStrategy \"Always\"", "Start", "Start", once]);
    assert_eq!(each(Some("Running"), start), ["409 VM is already running"; 5]);
    assert_eq!(
        each(Some("Succeeded"), start),
        [always, "/spec/runStrategy \"Always\"", "Stop(vmi-uid)+Start", "Stop(vmi-uid)+Start", once]
    );
    let failed = "409 RerunOnFailure does not support starting VM from failed state";
    assert_eq!(
        each(Some("Failed"), start),
        [always, "/spec/runStrategy \"Always\"", "Stop(vmi-uid)+Start", failed, once]
    );
    let paused = "Start{\"paused\":\"true\"}";
    assert_eq!(each(None, |observed| observed.start(true)), [always, paused, paused, paused, once]);
}

// spec: SUB-6
#[test]
fn stop_follows_the_run_strategy() {
    let stop = |observed: &Observed| observed.stop(None);
    let (halted, none) = ("/spec/runStrategy \"Halted\"", "409 VM is not running");
    assert_eq!(each(None, stop), [halted, none, none, none, halted]);
    assert_eq!(each(Some("Succeeded"), stop), [halted, none, none, none, halted]);
    let shorter = "409 Halted only supports manual stop requests with a shorter graceperiod";
    assert_eq!(each(Some("Running"), stop), [halted, shorter, "Stop(vmi-uid)", "Stop(vmi-uid)", halted]);
    let forced = each(Some("Running"), |observed| observed.stop(Some(0)));
    assert_eq!(forced[1], "Stop(vmi-uid)");
    assert_eq!(each(Some("Running"), |observed| observed.stop(Some(30)))[1], shorter);
}

// spec: SUB-6
#[test]
fn restart_follows_the_run_strategy() {
    let restart = |observed: &Observed| observed.restart();
    let no = |strategy: &str| format!("409 RunStategy {strategy} does not support manual restart requests");
    let (both, gone) = ("Stop(vmi-uid)+Start".to_owned(), "409 VM is not running: Halted".to_owned());
    assert_eq!(each(Some("Running"), restart), [both.clone(), no("Halted"), both.clone(), both, no("Once")]);
    assert_eq!(each(None, restart), [gone.clone(), no("Halted"), gone.clone(), gone, no("Once")]);
    for (seconds, code) in [(Some(1), 400), (Some(-1), 400)] {
        assert_eq!(check_grace(seconds).unwrap_err().code.as_u16(), code);
    }
    assert_eq!((check_grace(None), check_grace(Some(0))), (Ok(()), Ok(())));
}

// spec: SUB-6
#[test]
fn a_change_is_refused_when_the_machine_is_another_by_then() {
    let start = |spec: Value, status: Value| {
        let vm = vm(spec, status);
        Observed { name: "web", vm: &vm, vmi: None }.start(false)
    };
    let running = start(json!({"running": false}), json!({})).unwrap();
    let test = json!({"op": "test", "path": "/spec/running", "value": false});
    assert_eq!(running, Change::Spec(json!([test, {"op": "replace", "path": "/spec/running", "value": true}])));
    let Change::Status(first) = start(json!({"runStrategy": "Manual"}), json!({})).unwrap() else { panic!() };
    assert_eq!(first[0]["path"], "/status");
    let status = json!({"created": false, "startFailure": {"consecutiveFailCount": 1}});
    let Change::Status(later) = start(json!({"runStrategy": "Manual"}), status).unwrap() else { panic!() };
    assert_eq!(later[0], json!({"op": "test", "path": "/status/stateChangeRequests", "value": null}));
    assert_eq!(later[2], json!({"op": "remove", "path": "/status/startFailure"}));
    let waiting = json!({"stateChangeRequests": [{"action": "Start"}]});
    let underway = start(json!({"runStrategy": "Manual"}), waiting.clone()).unwrap_err();
    assert!(underway.message.ends_with("stop/start already underway"), "{}", underway.message);
    let vm = vm(json!({"runStrategy": "Manual"}), waiting);
    let vmi = vmi("Running");
    let Ok(Change::Status(stop)) = (Observed { name: "web", vm: &vm, vmi: Some(&vmi) }).stop(None) else { panic!() };
    assert_eq!(stop[1]["op"], "replace", "a stop replaces what waits");
    let both = start(json!({"running": true, "runStrategy": "Always"}), json!({})).unwrap_err();
    assert!(both.message.contains("mutually exclusive"));
}

// spec: SUB-6
#[test]
fn a_machine_to_be_expanded_belongs_to_the_namespace_of_the_request() {
    let read = |vm: Value| given(vm.to_string().as_bytes(), "vms");
    let vm = json!({"kind": "VirtualMachine", "metadata": {"name": "web"}, "spec": {"template": {}}});
    assert_eq!(read(vm.clone()).unwrap()["metadata"]["namespace"], "vms");
    let mut other = vm;
    other["metadata"]["namespace"] = "default".into();
    assert_eq!(read(other).unwrap_err().message, "VM namespace must be empty or vms");
    assert_eq!(read(json!({"kind": "Pod"})).unwrap_err().code.as_u16(), 400);
    assert_eq!(given(b"", "vms").unwrap_err().message, "empty request body");
}
