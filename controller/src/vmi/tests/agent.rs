//! The guest's agent: what of it is in the status, and probes that ask it.

use protocol::agent::{AgentStatus, CredentialsStatus, GuestInterface, GuestOs};

use super::*;

const GATE: &str = "2026-11-29T11:59:59Z";

fn with_agent(agent: AgentStatus) -> Case {
    let conditions = json!([{"type": UNPAUSED_GATE, "status": "True", "lastTransitionTime": GATE}, {"type": "Ready", "status": "True"}]);
    let mut case = Case::new(small_in(Phase::Running), vec![launcher_pod(running(conditions))]);
    (case.launcher, case.agent) = (Some(State::Running), Some(agent));
    case
}

fn connected() -> AgentStatus {
    AgentStatus { connected: true, ..AgentStatus::default() }
}

// spec: CTRL-31
#[test]
fn what_the_guests_agent_says_is_in_the_status() {
    let os = GuestOs { id: "debian".to_owned(), ..GuestOs::default() };
    let credentials = CredentialsStatus { synchronized: false, message: "no user".to_owned() };
    let said = AgentStatus { os: Some(os), frozen: true, credentials: Some(credentials), ..connected() };
    let mut case = with_agent(said.clone());
    let plan = case.plan();
    assert_eq!(told(&plan, "AgentConnected"), Some(("True", "", "")));
    assert_eq!(told(&plan, "AgentVersionNotSupported"), None);
    assert_eq!(told(&plan, "AccessCredentialsSynchronized"), Some(("False", "", "no user")));
    let status = serde_json::to_value(&plan.status).unwrap();
    assert_eq!((&status["guestOSInfo"], &status["fsFreezeStatus"]), (&json!({"id": "debian"}), &json!("frozen")));
    case.object.status = Some(plan.status.clone());
    assert_eq!(case.plan().status, plan.status, "what is the same is no write");

    case.agent = Some(AgentStatus::default());
    let gone = case.plan();
    assert_eq!((told(&gone, "AgentConnected"), gone.status.fs_freeze_status.clone()), (None, None));
    assert!(gone.status.guest_os_info.is_some(), "the guest is the same");
    // Without the node's agent nothing new is known.
    case.launcher = None;
    assert_eq!(case.plan().status.conditions, plan.status.conditions);

    for (lacks, why) in [
        ("guest-ping", "basic commands"),
        ("guest-set-user-password", "password commands"),
        ("guest-ssh-add-authorized-keys", "public key commands"),
    ] {
        let plan = with_agent(AgentStatus { lacks: vec![lacks.to_owned()], ..connected() }).plan();
        let (status, reason, message) = told(&plan, "AgentVersionNotSupported").unwrap();
        assert_eq!((status, message), ("True", lacks));
        assert_eq!(reason, format!("This guest agent doesn't support required {why}"));
    }
}

// spec: CTRL-31
#[test]
fn a_nic_of_the_guest_is_found_by_its_ethernet_address() {
    let mac = with_agent(connected()).plan().status.interfaces[0].mac.clone();
    let interface = |name: &str, mac: &str, addresses: &[&str]| GuestInterface {
        name: name.to_owned(),
        mac: mac.parse().unwrap(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    let mut interfaces = vec![
        interface("docker0", "02:42:00:00:00:01", &["fe80::1", "172.17.0.1"]),
        interface("enp1s0", &mac, &["10.0.2.2"]),
        interface("enp1s0.7", &mac, &[]),
    ];
    interfaces.extend((0..20).map(|number| interface("veth", &format!("02:42:00:00:01:{number:02x}"), &[])));
    let plan = with_agent(AgentStatus { interfaces, ..connected() }).plan();
    let found = serde_json::to_value(&plan.status.interfaces).unwrap();
    assert_eq!(
        found[0],
        json!({"name": "default", "mac": mac, "interfaceName": "enp1s0", "ipAddress": "10.244.1.8", "ipAddresses": ["10.244.1.8", "fd00::8"],
            "infoSource": "domain, guest-agent", "linkState": "up", "queueCount": 1, "podInterfaceName": "eth0"})
    );
    assert_eq!(
        found[1],
        json!({"mac": "02:42:00:00:00:01", "interfaceName": "docker0", "ipAddress": "172.17.0.1",
            "ipAddresses": ["fe80::1", "172.17.0.1"], "infoSource": "guest-agent"})
    );
    assert_eq!(found[2]["interfaceName"], "enp1s0.7");
    assert_eq!(plan.status.interfaces.len(), 11);
}

/// An instance with a second NIC, on a network of Multus that has given its pod's interface addresses.
fn with_second_nic(state: &str) -> Case {
    let mut case = with_agent(AgentStatus::default());
    let devices = &mut case.object.spec.fields["domain"]["devices"];
    devices["interfaces"] =
        json!([{"name": "default", "masquerade": {}}, {"name": "blue", "bridge": {}, "state": state}]);
    case.object.spec.fields.insert(
        "networks".to_owned(),
        json!([{"name": "default", "pod": {}}, {"name": "blue", "multus": {"networkName": "lan"}}]),
    );
    let attached = json!([{"name": "pods", "interface": "eth0", "ips": ["10.244.1.8"], "default": true},
        {"name": "vms/lan", "interface": "pod16477688c0e", "ips": ["10.1.1.3"]}]);
    let annotation = ("k8s.v1.cni.cncf.io/network-status".to_owned(), attached.to_string());
    case.pods[0].metadata.annotations.get_or_insert_default().extend([annotation]);
    case
}

// spec: CTRL-54
#[test]
fn a_nic_without_an_agent_has_the_addresses_that_its_network_gave() {
    let plan = with_second_nic("up").plan();
    let blue = &plan.status.interfaces[1];
    assert_eq!((blue.ip_address.as_deref(), &blue.ip_addresses[..]), (Some("10.1.1.3"), &["10.1.1.3".to_owned()][..]));
    assert_eq!(blue.info_source, "domain, multus-status");
}

// spec: CTRL-53
#[test]
fn a_launcher_is_asked_for_the_link_of_the_instance_and_says_its_own() {
    let mut case = with_second_nic("down");
    let nic =
        |name: &str, link_down| NicStatus { link_down, ..NicStatus::new(name, "02:00:00:00:00:01".parse().unwrap()) };
    let mut asked = |nics| {
        case.nics = nics;
        let plan = case.plan();
        (plan.status.interfaces[1].link_state.clone(), plan.actions)
    };
    let down = Action::SetLink { nic: "blue".to_owned(), up: false };
    assert_eq!(asked(vec![nic("default", false), nic("blue", false)]), ("up".to_owned(), vec![down]));
    assert_eq!(asked(vec![nic("default", false), nic("blue", true)]), ("down".to_owned(), Vec::new()));
    assert_eq!(asked(Vec::new()), ("down".to_owned(), Vec::new()), "a launcher that does not say");
}

// spec: AGENT-5
#[test]
fn probes_of_the_agent_are_programs_in_the_pod() {
    let mut object = small();
    object
        .spec
        .fields
        .insert("readinessProbe".to_owned(), json!({"exec": {"command": ["cat", "/run/ready"]}, "timeoutSeconds": 3}));
    object.spec.fields.insert("livenessProbe".to_owned(), json!({"guestAgentPing": {}}));
    let launch = launch(&object, &config());
    assert!(launch.file.machine.agent.probes);
    let pod = serde_json::to_value(pod::pod(&object, &launch, &config(), 1).unwrap()).unwrap();
    let container = &pod["spec"]["containers"][0];
    let command = json!(["/usr/bin/tapvisor-launcher", "ctl", "agent-execute", "3", "cat", "/run/ready"]);
    assert_eq!(
        container["readinessProbe"],
        json!({"exec": {"command": command}, "timeoutSeconds": 4, "initialDelaySeconds": 10})
    );
    let command = json!(["/usr/bin/tapvisor-launcher", "ctl", "agent-ping"]);
    assert_eq!(
        container["livenessProbe"],
        json!({"exec": {"command": command}, "timeoutSeconds": 2, "initialDelaySeconds": 10})
    );
}
