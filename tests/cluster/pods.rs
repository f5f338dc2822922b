//! The pod network: Services, DNS and node ports across the nodes in both families, and a second network by Multus.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::cluster::NODES;
use tests::{Cluster, Ran, trial, wait_for, wait_for_or};

use crate::cluster;
use crate::vmi::account_of_address;

/// A pod starts in a second on an idle machine.
const START: Duration = Duration::from_secs(180);

/// A guest under emulation, on two processors that run a cluster too.
const BOOT: Duration = Duration::from_secs(300);

/// Answers HTTP on port 8080 with the pod's name.
const SERVE: &str = "mkdir /tmp/www; hostname >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: K8S-2
        trial("a pod reaches a Service on the other node in both families", service),
        // spec: K8S-2
        trial("cluster DNS resolves Services and the pods of a headless one", dns),
        // spec: K8S-2
        trial("a node port leads to the pod from every node in both families", node_port),
        // spec: K8S-2
        trial("Multus gives pods on both nodes a second interface on one network", second_interface),
    ]
}

/// A pod as the Pod Security Standard restricted demands it, running a line of shell in busybox.
pub(crate) fn busybox(namespace: &str, name: &str, node: &str, line: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsUser": 1000, "runAsNonRoot": true, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never", "command": ["sh", "-euc", line],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// Waits until a pod runs.
pub(crate) fn wait_running(cluster: &Cluster, namespace: &str, name: &str) {
    let run = || cluster.kubectl(&["-n", namespace, "get", "pod", name, "-o", "json"]);
    wait_for(&format!("pod {namespace}/{name} to run"), START, || {
        let pod = run();
        (pod.is_ok() && pod.json()["status"]["phase"] == "Running").then_some(())
    });
}

/// Runs a line of shell in a pod.
pub(crate) fn in_pod(cluster: &Cluster, namespace: &str, name: &str, line: &str) -> Ran {
    cluster.kubectl(&["-n", namespace, "exec", name, "--", "sh", "-euc", line])
}

/// A Service of both families.
pub(crate) fn dual_stack(namespace: &str, name: &str, app: &str, more: &Value) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"app": app}, "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80, "targetPort": 8080}]},
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        service["spec"][field] = value.clone();
    }
    service
}

/// A server on the second node behind Services, and a client on the first; made once.
fn pair() -> &'static Value {
    static SERVICE: OnceLock<Value> = OnceLock::new();
    SERVICE.get_or_init(|| {
        let cluster = cluster();
        let objects = [
            busybox("default", "server", "node2", SERVE),
            busybox("default", "client", "node1", "exec sleep 100000"),
            dual_stack("default", "web", "server", &json!({"type": "NodePort"})),
            dual_stack("default", "headless", "server", &json!({"clusterIP": "None"})),
        ];
        for object in objects {
            cluster.apply(&object.to_string()).assert_ok();
        }
        for pod in ["client", "server"] {
            wait_running(&cluster, "default", pod);
        }
        cluster.kubectl(&["get", "service", "web", "-o", "json"]).json()
    })
}

/// The answer to HTTP's GET / that a pod gets, asked for until there is one.
pub(crate) fn fetch(cluster: &Cluster, namespace: &str, pod: &str, address: &str, port: u64) -> String {
    fetch_path(cluster, namespace, pod, address, port, "/")
}

/// The answer to HTTP's GET of a path that a pod gets, asked for until there is one.
pub(crate) fn fetch_path(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    address: &str,
    port: u64,
    path: &str,
) -> String {
    // A static busybox crashes in `wget`, which looks up the name of the port.
    let line = format!(r"printf 'GET {path} HTTP/1.0\r\n\r\n' | nc -w 10 {address} {port}");
    let last = RefCell::new(String::new());
    let ask = || {
        let ran = in_pod(cluster, namespace, pod, &line);
        last.replace(ran.account());
        Some(ran).filter(|ran| ran.stdout().contains(" 200 "))
    };
    let explain = || format!("{}\n{}", last.borrow(), account_of_address(cluster, address));
    wait_for_or(&format!("an answer about {path} from {address} to {namespace}/{pod}"), BOOT, ask, explain).0.text()
}

/// Both addresses of a Service.
pub(crate) fn cluster_ips(service: &Value) -> Vec<String> {
    let addresses = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
    let addresses: Vec<_> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    assert_eq!(addresses.len(), 2, "{service:#}");
    addresses
}

fn service() {
    for address in cluster_ips(pair()) {
        let answer = fetch(&cluster(), "default", "client", &address, 80);
        assert!(answer.ends_with("\nserver\n"), "{answer}");
    }
}

fn dns() {
    let service = pair();
    let cluster = cluster();
    let lookup = |name: &str| {
        let name = format!("{name}.default.svc.cluster.local");
        let ask = || Some(in_pod(&cluster, "default", "client", &format!("nslookup {name}"))).filter(Ran::is_ok);
        wait_for(&format!("the name {name}"), START, ask).0.text()
    };
    let web = lookup("web");
    for address in cluster_ips(service) {
        assert!(web.contains(&address), "{address} is not in\n{web}");
    }
    let pod = cluster.kubectl(&["get", "pod", "server", "-o", "json"]).json();
    let headless = lookup("headless");
    for address in pod["status"]["podIPs"].as_array().expect("it has addresses") {
        assert!(headless.contains(address["ip"].as_str().expect("an address")), "{address} is not in\n{headless}");
    }
}

fn node_port() {
    let port = pair()["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port was given");
    for address in (1..=NODES.len()).flat_map(|n| [format!("192.0.2.1{n}"), format!("2001:db8::1{n}")]) {
        let host = if address.contains(':') { format!("[{address}]") } else { address };
        let url = format!("http://{host}:{port}/");
        let ask = || Some(cluster().world().run(&["curl", "-s", "-m", "5", &url])).filter(Ran::is_ok);
        assert_eq!(wait_for(&format!("an answer from {url}"), START, ask).0.text(), "server\n");
    }
}

fn second_interface() {
    let cluster = cluster();
    let config = json!({"cniVersion": "1.0.0", "name": "lan", "type": "bridge", "bridge": "br-lan", "ipam": {"type": "static"},
        "capabilities": {"ips": true}});
    let network = json!({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"namespace": "default", "name": "lan"}, "spec": {"config": config.to_string()},
    });
    cluster.apply(&network.to_string()).assert_ok();
    for (number, node) in (1..).zip(NODES) {
        let mut pod = busybox("default", &format!("lan{number}"), node, SERVE);
        let wanted = json!([{"name": "lan", "interface": "lan0", "ips": [format!("198.51.100.{number}/24")]}]);
        pod["metadata"]["annotations"] = json!({"k8s.v1.cni.cncf.io/networks": wanted.to_string()});
        cluster.apply(&pod.to_string()).assert_ok();
    }
    for pod in ["lan1", "lan2"] {
        wait_running(&cluster, "default", pod);
    }
    let addresses = in_pod(&cluster, "default", "lan1", "ip address show dev lan0").text();
    assert!(addresses.contains("198.51.100.1/24"), "{addresses}");
    let answer = fetch(&cluster, "default", "lan1", "198.51.100.2", 8080);
    assert!(answer.ends_with("\nlan2\n"), "{answer}");
}
