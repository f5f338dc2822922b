//! What users may do with VMs: real ServiceAccounts bound to KubeVirt's roles, through the unmodified virtctl.

use libtest_mimic::Trial;
use serde_json::json;
use tests::{Cluster, Ran, trial};

use crate::virtctl::available;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: SUB-2
        trial("roles allow each virtctl verb as in KubeVirt, in their namespace", roles),
        // spec: SUB-2
        trial("virtctl is believed by the front proxy alone, not by headers", forged),
        // spec: NODE-10
        trial("the token of a node's agent changes its own Node and no other", agents_token),
    ]
}

/// A verb of virtctl on an object that does not exist, and the roles that have it.
const VERBS: [(&[&str], &[&str]); 15] = [
    (&["pause", "vmi", "none"], &["admin", "edit"]),
    (&["unpause", "vmi", "none"], &["admin", "edit"]),
    (&["reset", "none"], &["admin", "edit"]),
    (&["soft-reboot", "none"], &["admin", "edit"]),
    (&["console", "none"], &["admin", "edit"]),
    (&["port-forward", "--stdio=true", "vmi/none", "22"], &["admin", "edit"]),
    (&["guestosinfo", "none"], &["admin", "edit", "view"]),
    (&["userlist", "none"], &["admin", "edit", "view"]),
    (&["fslist", "none"], &["admin", "edit", "view"]),
    (&["start", "none"], &["admin", "edit"]),
    (&["stop", "none"], &["admin", "edit"]),
    (&["restart", "none"], &["admin", "edit"]),
    (&["vnc", "none", "--proxy-only"], &["admin", "edit"]),
    (&["expand", "--vm", "none"], &["admin", "edit", "view"]),
    (&["migrate", "none"], &["migrate"]),
];

/// A verb of Kubernetes on an object that does not exist, or a subresource that virtctl has no verb for, and the roles that have it.
const REQUESTS: [(&[&str], &[&str]); 11] = [
    (&["get", "vm", "none"], &["admin", "edit", "view"]),
    (&["get", "vmi", "none"], &["admin", "edit", "view"]),
    (&["get", "virtualmachineinstancetypes", "none"], &["admin", "edit", "view"]),
    (&["delete", "vm", "none"], &["admin", "edit"]),
    (&["delete", "vmi", "none"], &["admin", "edit"]),
    (&["delete", "vmirs", "none"], &["admin", "edit"]),
    (&["delete", "virtualmachineinstancemigrations.kubevirt.io", "none"], &["migrate"]),
    (&["get", "secret", "none"], &[]),
    (&["get", "pod", "none"], &[]),
    (&["freeze"], &["admin", "edit"]),
    (&["unfreeze"], &["admin", "edit"]),
];

const ROLES: [&str; 4] = ["admin", "edit", "view", "migrate"];

/// An instance that does not exist, in the subresource API.
const NONE: &str = "/apis/subresources.kubevirt.io/v1/namespaces/vms/virtualmachineinstances/none";

/// Makes a ServiceAccount with a role in namespace `vms`, and a kubeconfig with its token; returns the file's path.
fn user(cluster: &Cluster, role: &str) -> String {
    let name = format!("user-{role}");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "vms", "name": name}});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"namespace": "vms", "name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("kubevirt.io:{role}")},
        "subjects": [{"kind": "ServiceAccount", "namespace": "vms", "name": name}]});
    for object in [account, binding] {
        cluster.apply(&object.to_string()).assert_ok();
    }
    log_in(cluster, "vms", &name, "")
}

/// A kubeconfig with a token of a ServiceAccount; returns the file's path.
fn log_in(cluster: &Cluster, namespace: &str, name: &str, bound_to: &str) -> String {
    let file = format!("/run/{name}.kubeconfig");
    let script = format!(
        "kubectl config view --raw --minify | sed '/client-certificate-data\\|client-key-data/d' >{file}
        kubectl --kubeconfig {file} config set-credentials user --token=\"$(kubectl -n {namespace} create token {name} {bound_to})\"
        kubectl --kubeconfig {file} auth whoami -o json"
    );
    let ran = Ran::of(cluster.command("bash").args(["-euo", "pipefail", "-c", &script]));
    assert!(ran.stdout().contains(&format!("system:serviceaccount:{namespace}:{name}")), "{}", ran.account());
    file
}

/// An agent that was taken over has its pod's token.
fn agents_token() {
    let cluster = available();
    let list = ["-n", "tapvisor", "get", "pods", "-l", "app=tapvisor-node", "--field-selector", "spec.nodeName=node1"];
    let pods = cluster.kubectl(&[&list[..], &["-o", "jsonpath={.items[0].metadata.name}"]].concat()).text();
    let bound_to = format!("--bound-object-kind Pod --bound-object-name {}", pods.trim());
    let refusal = "a node agent may change only the Node that its own token was issued on";
    for (label, bound_to, node, expected) in [
        ("tapvisor-trial=own", &*bound_to, "node1", None),
        ("tapvisor-trial=other", &bound_to, "node2", Some(refusal)),
        ("tapvisor-trial=unbound", "", "node1", Some(refusal)),
    ] {
        let file = log_in(&cluster, "tapvisor", "tapvisor-node", bound_to);
        let kubectl = |words: &[&str]| cluster.kubectl(&[&["--kubeconfig", &file], words].concat());
        let labelled = kubectl(&["label", "node", node, label, "--overwrite"]);
        match expected {
            None => labelled.assert_ok(),
            Some(refusal) => labelled.assert_fails(1, &[refusal]),
        }
        kubectl(&["-n", "tapvisor", "get", "secrets"]).assert_fails(1, &["forbidden"]);
        kubectl(&["delete", "node", node]).assert_fails(1, &["forbidden"]);
    }
    cluster.kubectl(&["label", "node", "node1", "tapvisor-trial-"]).assert_ok();
}

fn try_as(cluster: &Cluster, file: &str, namespace: &str, arguments: &[&str]) -> Ran {
    let mut command = cluster.command("virtctl");
    Ran::of(command.args(["--kubeconfig", file, "--namespace", namespace]).args(arguments))
}

fn roles() {
    let cluster = available();
    // The cluster's own roles have them, too.
    for (role, subresource, expected) in [
        ("admin", "virtualmachineinstances/console", true),
        ("edit", "virtualmachineinstances/console", true),
        ("edit", "virtualmachines/migrate", false),
        ("view", "virtualmachineinstances/guestosinfo", true),
        ("view", "virtualmachineinstances/console", false),
    ] {
        let rules = cluster.kubectl(&["get", "clusterrole", role, "-o", "jsonpath={.rules[*].resources[*]}"]).text();
        assert_eq!(rules.split_whitespace().any(|name| name == subresource), expected, "{role} {subresource}");
    }
    for role in ROLES {
        let file = user(&cluster, role);
        for (arguments, allowed) in VERBS {
            let ran = try_as(&cluster, &file, "vms", arguments);
            let text = ran.stderr() + &ran.stdout();
            // guestosinfo shows no refusal of the API server but this word.
            let is_refused = text.contains("forbidden") || text.contains(": unknown (get ");
            let is_done = text.contains("not found");
            let expected = allowed.contains(&role);
            assert!(is_done == expected && is_refused != expected, "{role}, allowed {expected}: {}", ran.account());
        }
        for (arguments, allowed) in REQUESTS {
            let path = format!("{NONE}/{}", arguments[0]);
            let subresource = ["replace", "--raw", &path, "-f", "-"];
            let is_subresource = arguments.len() == 1;
            let mut kubectl = cluster.command("kubectl");
            kubectl.args(["--kubeconfig", &file, "--namespace", "vms"]);
            kubectl.args(if is_subresource { &subresource[..] } else { arguments });
            let ran = Ran::with_input(&mut kubectl, br#"{"unfreezeTimeout": "0s"}"#);
            let expected = if allowed.contains(&role) { "NotFound" } else { "Forbidden" };
            assert!(ran.stderr().contains(&format!("({expected})")), "{role}, {expected}: {}", ran.account());
        }
        // No subresource of KubeVirt, so virtctl has no verb for it.
        let explain = format!("{NONE}/explain");
        let explained = cluster.kubectl(&["--kubeconfig", &file, "get", "--raw", &explain]);
        let expected = if role == "migrate" { "Forbidden" } else { "NotFound" };
        assert!(explained.stderr().contains(expected), "{role}: {}", explained.account());
        let elsewhere = try_as(&cluster, &file, "default", &["pause", "vmi", "none"]);
        assert!(elsewhere.stderr().contains("forbidden"), "{role}: {}", elsewhere.account());
    }
}

/// A pod of the cluster reaches the Service without the API server between: neither no certificate nor its own headers help.
fn forged() {
    let cluster = available();
    let path = "apis/subresources.kubevirt.io/v1/namespaces/vms/virtualmachineinstances/none/console";
    let script = format!(
        "address=$(kubectl -n tapvisor get endpointslice -l kubernetes.io/service-name=tapvisor-api -o json | jq -r '.items[0].endpoints[0].addresses[0]')
        ask() {{ curl -sk \"$@\" -H 'X-Remote-User: admin' -H 'X-Remote-Group: system:masters' \"https://$address:8444/{path}\"; }}
        ask
        ask --cert /run/cluster/pki/admin.crt --key /run/cluster/pki/admin.key || echo refused in the handshake
        openssl ecparam -name prime256v1 -genkey -noout -out /run/forged.key
        openssl req -new -key /run/forged.key -subj /CN=someone-else | openssl x509 -req -CA /run/cluster/pki/front-proxy-ca.crt \\
            -CAkey /run/cluster/pki/front-proxy-ca.key -CAcreateserial -days 2 -extfile <(echo extendedKeyUsage=clientAuth) -out /run/forged.crt
        ask --cert /run/forged.crt --key /run/forged.key
        echo; ask --cert /run/cluster/pki/front-proxy.crt --key /run/cluster/pki/front-proxy.key"
    );
    let ran = Ran::of(cluster.command("bash").args(["-uo", "pipefail", "-c", &script]));
    let text = ran.stdout();
    assert_eq!(text.matches("\"code\":401").count(), 2, "{}", ran.account());
    assert!(text.contains("refused in the handshake"), "{}", ran.account());
    // The front proxy itself is believed: system:masters may, and the VM does not exist.
    assert!(text.trim_end().ends_with('}') && text.contains("\\\"none\\\" not found"), "{}", ran.account());
}
