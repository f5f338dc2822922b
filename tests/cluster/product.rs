//! The launcher and the plugin without the controller: a VM in an ordinary pod.

use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, cache_file, trial, wait_for, workspace};

use crate::pods::{busybox, cluster_ips, dual_stack, fetch, wait_running};
use crate::vmi::installed;
use crate::vmi_trouble::holder;

/// How long a change of the configuration may take to be in force.
const IN_FORCE: Duration = Duration::from_secs(60);

/// A configuration by an annotation of the KubeVirt object, which is gone when this is dropped.
pub(crate) struct Annotated<'a>(&'a Cluster, &'static str);

impl<'a> Annotated<'a> {
    pub(crate) fn new(cluster: &'a Cluster, name: &'static str, value: &str) -> Self {
        let annotated = Self(cluster, name);
        annotated.write(&json!(value));
        annotated
    }

    fn write(&self, value: &Value) {
        let change = json!({"metadata": {"annotations": {self.1: value}}});
        let version = ["-o", "jsonpath={.metadata.resourceVersion}", "--type=merge", "-p"];
        let patch = [&["-n", "tapvisor", "patch", "kubevirt", "kubevirt"], &version[..]].concat();
        let patched = self.0.kubectl(&[&patch[..], &[&change.to_string()]].concat()).text();
        let patched: u64 = patched.trim().parse().expect("a number");
        // The controller writes which one it has read.
        let is_read = |line: &str| {
            let (_, version) = line.split_once(" version=").filter(|_| line.contains("KubeVirt object was read"))?;
            let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().ok().filter(|version| *version >= patched)
        };
        wait_for("the configuration to be in force", IN_FORCE, || {
            self.0
                .kubectl(&["-n", "tapvisor", "logs", &holder(self.0), "--since=5m"])
                .stdout()
                .lines()
                .find_map(is_read)
        });
    }
}

impl Drop for Annotated<'_> {
    fn drop(&mut self) {
        self.write(&Value::Null);
    }
}

pub(crate) fn trials() -> Vec<Trial> {
    // spec: K8S-1
    vec![
        trial("a VM in a restricted pod serves HTTP through a Service across nodes", vm_behind_service),
        // spec: K8S-5
        trial("the manifest of an installation is what its parts make", manifest_is_current),
        // spec: NODE-9
        trial("each agent says that a changed configuration is followed", configuration_followed),
    ]
}

/// The pod of a VM on the second node, and the Secret with its machine file.
fn vm() -> [Value; 2] {
    let wiring = json!({"version": 1, "owner": {"uid": 107, "gid": 107},
        "interfaces": [{"name": "default", "podInterface": "eth0", "binding": "masquerade", "mac": "02:00:5e:10:00:01"}]});
    let machine = json!({
        "version": 2, "wiring": wiring,
        "machine": {
            "namespace": "vms", "name": "vm", "uuid": "5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f", "hostname": "vm",
            "cpu": {"sockets": 1, "cores": 1, "threads": 1}, "memoryBytes": 128 << 20, "boot": "bios",
            "disks": [{"name": "root", "bus": "virtio", "bootOrder": 1, "source": {"overlay": {"path": "/disk/disk/disk.img", "format": "qcow2"}}}],
            "nics": [{"name": "default", "model": "virtio"}],
            "serialConsole": true, "rng": true, "gracePeriodSeconds": 20, "emulation": "allowed",
        },
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "vms", "name": "vm"},
        "immutable": true, "stringData": {"machine": machine.to_string()},
    });
    let mut pod = busybox("vms", "vm", "node2", "");
    pod["metadata"]["annotations"] = json!({"tapvisor.io/wiring": wiring.to_string()});
    let spec = &mut pod["spec"];
    spec["runtimeClassName"] = "tapvisor".into();
    spec["restartPolicy"] = "Never".into();
    spec["terminationGracePeriodSeconds"] = 35.into();
    spec["securityContext"] = json!({"runAsUser": 107, "runAsGroup": 107, "runAsNonRoot": true, "fsGroup": 107,
        "seccompProfile": {"type": "RuntimeDefault"}});
    let container = &mut spec["containers"][0];
    container.as_object_mut().expect("an object").remove("command");
    container["name"] = "compute".into();
    container["image"] = "localhost/tapvisor/launcher:1".into();
    container["args"] = json!(["launch", "--machine", "/etc/tapvisor/machine", "--dir", "/run/tapvisor"]);
    container["volumeMounts"] = json!([{"name": "machine", "mountPath": "/etc/tapvisor"}, {"name": "run", "mountPath": "/run/tapvisor"},
        {"name": "disk", "mountPath": "/disk"}]);
    spec["volumes"] = json!([
        {"name": "machine", "secret": {"secretName": "vm", "defaultMode": 0o440}}, {"name": "run", "emptyDir": {}},
        {"name": "disk", "image": {"reference": "localhost/tapvisor/guest-disk:1", "pullPolicy": "Never"}},
    ]);
    [secret, pod]
}

fn vm_behind_service() {
    let cluster = installed();
    let service = dual_stack("vms", "vm", "vm", &json!({"ports": [{"port": 80}]}));
    for object in vm().into_iter().chain([service, busybox("vms", "visitor", "node1", "exec sleep 100000")]) {
        cluster.apply(&object.to_string()).assert_ok();
    }
    for pod in ["vm", "visitor"] {
        wait_running(&cluster, "vms", pod);
    }
    let service = cluster.kubectl(&["-n", "vms", "get", "service", "vm", "-o", "json"]).json();
    for address in cluster_ips(&service) {
        let answer = fetch(&cluster, "vms", "visitor", &address, 80);
        assert!(answer.contains("vm"), "{answer}");
    }
    cluster.kubectl(&["-n", "vms", "delete", "pod", "vm", "--timeout=170s"]).assert_ok();
}

fn manifest_is_current() {
    let path = format!("{}:{}", cache_file("cluster/bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(workspace().join("deploy/manifest"));
    Ran::of(command.arg("--check").env("PATH", path)).assert_ok();
}

/// As a client of KubeVirt asks: by a forwarded port, with two slashes, and without looking at the certificate.
fn configuration_followed() {
    let cluster = installed();
    let label = json!({"metadata": {"labels": {"changed": "by-a-trial"}}}).to_string();
    let patch = ["-n", "tapvisor", "patch", "kubevirt", "kubevirt", "--type=merge", "-o", "json", "-p", &label];
    let changed = cluster.kubectl(&patch).json();
    let version = changed["metadata"]["resourceVersion"].as_str().expect("every object has one").to_owned();
    let names = ["-n", "tapvisor", "get", "pods", "-l", "app=tapvisor-node", "-o", "name"];
    let agents = cluster.kubectl(&names).text();
    assert_eq!(agents.lines().count(), tests::cluster::NODES.len());
    for agent in agents.lines() {
        let script = r#"kubectl -n tapvisor port-forward "$0" 18443:8443 >/dev/null 2>&1 & trap "kill $!" EXIT
            for _ in $(seq 60); do
                said=$(curl -ks https://127.0.0.1:18443//healthz | jq -r '."config-resource-version"' || true)
                [ "${said:-0}" -lt "$1" ] || exit 0
                sleep 1
            done
            echo "the agent says ${said:-nothing}, the object has $1"; exit 1"#;
        Ran::of(cluster.command("bash").args(["-euo", "pipefail", "-c", script, agent, &version])).assert_ok();
    }
}
