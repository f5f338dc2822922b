//! The node agent of the installed product: what nodes offer, what the runtime executes, which launchers the agent believes.
//! These trials change the nodes for everything else, so they run after the others, one at a time.

use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::cluster::NODES;
use tests::{Cluster, Ran, dist_file, trial, wait_for, workspace};

use crate::pods::{busybox, in_pod, wait_running};
use crate::vmi::installed;

const MOMENT: Duration = Duration::from_secs(180);
const DROP_IN: &str = "/etc/cni/net.d/multus/zz-tapvisor.conf";
const AGENT: &str = "tapvisor-node.tapvisor.svc";
/// Where this rung keeps the client's certificate, in the cluster's world.
const PKI: &str = "/run/agent-pki";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: NODE-2
        trial("the agent offers devices and a restricted pod can open its own", devices),
        // spec: NODE-5
        trial("the agent labels its node and takes the taint away when ready", labels),
        // spec: NODE-3, NODE-7
        trial("the agent chains the plugin by drop-in, again after it is gone", chained),
        // spec: NODE-6
        trial("the agent reports launchers by pod and follows no hostile link", hostile),
        // spec: NODE-2
        trial("the agent registers its devices again when kubelet restarts", kubelet_restarts),
        // spec: OPS-4, OPS-5
        trial("deleting the KubeVirt object ends 5 VMs and puts the nodes back", ended_by_object),
        // spec: NODE-4
        trial("an uninstallation puts the nodes back and leaves nothing", uninstalled),
    ]
}

/// A line of shell on a node, as its root.
fn on(cluster: &Cluster, node: &str, line: &str) -> Ran {
    Ran::of(cluster.on_node(node, "bash").args(["-euo", "pipefail", "-c", line]))
}

/// The product's cluster, and a certificate for a client of the agents by the product's authority.
fn with_certificate() -> Arc<Cluster> {
    let cluster = installed();
    let script = format!(
        r#"mkdir -p {PKI}; cd {PKI}; [ ! -e client.crt ] || exit 0
        until kubectl -n tapvisor get secret tapvisor-ca -o json >ca.json; do sleep 1; done
        for file in tls.crt tls.key; do jq -r ".data[\"$file\"]" ca.json | base64 -d >ca.${{file#tls.}}; done
        openssl ecparam -name prime256v1 -genkey -noout -out client.key
        openssl req -new -key client.key -subj /CN=client | openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile <(echo extendedKeyUsage=clientAuth) -out client.crt"#
    );
    Ran::of(cluster.command("bash").args(["-euo", "pipefail", "-c", &script])).assert_ok();
    cluster
}

/// The agent's pod on a node.
fn agent(cluster: &Cluster, node: &str) -> Value {
    let field = format!("spec.nodeName={node}");
    let list = || {
        cluster.kubectl(&[
            "-n",
            "tapvisor",
            "get",
            "pods",
            "-l",
            "app=tapvisor-node",
            "--field-selector",
            &field,
            "-o",
            "json",
        ])
    };
    let running = || list().json()["items"].as_array()?.iter().find(|pod| pod["status"]["phase"] == "Running").cloned();
    wait_for(&format!("the agent on {node}"), MOMENT, running).0
}

fn allocatable(cluster: &Cluster, node: &str, resource: &str) -> Option<String> {
    let node = cluster.kubectl(&["get", "node", node, "-o", "json"]).json();
    node["status"]["allocatable"][resource].as_str().map(str::to_owned)
}

/// A pod of namespace `vms` that asks for a device.
fn with_device(name: &str, node: &str, device: &str, line: &str) -> Value {
    let mut pod = busybox("vms", name, node, line);
    pod["spec"]["securityContext"]["runAsUser"] = 107.into();
    pod["spec"]["securityContext"]["runAsGroup"] = 107.into();
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {device: 1}});
    pod
}

fn devices() {
    let cluster = installed();
    let probe = Ran::of(cluster.world().command(dist_file("tapvisor-launcher")).arg("probe")).json();
    let has_vhost = std::fs::File::options().read(true).write(true).open("/dev/vhost-net").is_ok();
    let expected = [
        ("devices.kubevirt.io/tun", true),
        ("devices.kubevirt.io/kvm", probe["kvm"] == "usable"),
        ("devices.kubevirt.io/vhost-net", has_vhost),
    ];
    for node in NODES {
        let tun = || allocatable(&cluster, node, expected[0].0).filter(|count| count == "1k");
        wait_for(&format!("tun on {node}"), MOMENT, tun);
        for (resource, is_offered) in expected {
            let count = allocatable(&cluster, node, resource).filter(|count| count != "0");
            assert_eq!(count.is_some(), is_offered, "{resource} on {node}: {count:?}, probe {probe}");
        }
        let name = format!("device-{node}");
        let line = "exec 3<>/dev/net/tun; stat -c '%u %g %a' /dev/net/tun; sleep 1000";
        cluster.apply(&with_device(&name, node, expected[0].0, line).to_string()).assert_ok();
        wait_running(&cluster, "vms", &name);
        let logs = || Some(cluster.kubectl(&["-n", "vms", "logs", &name]).stdout()).filter(|text| !text.is_empty());
        assert_eq!(wait_for("what the pod sees", MOMENT, logs).0, "107 107 600\n");
    }
}

fn labels() {
    let cluster = installed();
    let taint = "node.tapvisor.io/not-ready";
    cluster
        .kubectl(&["taint", "node", "node1", &format!("{taint}=:NoSchedule"), "other=:PreferNoSchedule"])
        .assert_ok();
    let pod = agent(&cluster, "node1");
    let name = pod["metadata"]["name"].as_str().expect("a name");
    // At once: the taint is what this is about.
    cluster.kubectl(&["-n", "tapvisor", "delete", "pod", name, "--force", "--grace-period=0"]).assert_ok();
    let taints = || {
        let node = cluster.kubectl(&["get", "node", "node1", "-o", "json"]).json();
        let taints: Vec<_> =
            node["spec"]["taints"].as_array().into_iter().flatten().map(|taint| taint["key"].clone()).collect();
        (!taints.contains(&json!(taint))).then_some((node, taints))
    };
    let (node, taints) = wait_for("the taint to be gone", MOMENT, taints).0;
    assert_eq!(taints, [json!("other")], "another taint stays");
    cluster.kubectl(&["taint", "node", "node1", "other-"]).assert_ok();
    let labels = &node["metadata"]["labels"];
    assert_eq!(labels["kubevirt.io/schedulable"], "true");
    assert_eq!(labels["cpu-feature.node.kubevirt.io/fpu"], "true", "{labels}");
    assert!(labels["node.tapvisor.io/cpu-model"].is_string(), "{labels}");
}

/// A pod with a request for wiring; its image needs no guest.
fn wired(name: &str, node: &str) -> Value {
    let mut pod = busybox("vms", name, node, "exec sleep 100000");
    let wiring = json!({"version": 1, "owner": {"uid": 107, "gid": 107},
        "interfaces": [{"name": "default", "podInterface": "eth0", "binding": "masquerade", "mac": "02:11:22:33:44:55"}]});
    pod["metadata"]["annotations"] = json!({"tapvisor.io/wiring": wiring.to_string()});
    pod
}

fn chained() {
    let cluster = installed();
    for node in NODES {
        let is_chained = format!(
            "jq -e '.type == \"tapvisor\"' {DROP_IN} && cmp /opt/cni/bin/tapvisor {}",
            dist_file("tapvisor-cni").display()
        );
        let wait = || on(&cluster, node, &is_chained).is_ok().then_some(());
        wait_for(&format!("the plugin to be chained on {node}"), MOMENT, wait);
        on(&cluster, node, &format!("rm -r {} /opt/cni/bin/tapvisor", DROP_IN.rsplit_once('/').expect("a path").0))
            .assert_ok();
        wait_for(&format!("the plugin to be chained again on {node}"), MOMENT, wait);
        on(&cluster, node, "! grep -q tapvisor /etc/cni/net.d/00-multus.conflist").assert_ok();
        let agent = agent(&cluster, node);
        let name = agent["metadata"]["name"].as_str().expect("a name");
        let collected = || {
            let log = cluster.kubectl(&["-n", "tapvisor", "logs", name]).stdout();
            log.contains("CNI garbage collection network=\"multus\" living=").then_some(())
        };
        wait_for(&format!("garbage collection by the sandboxes of {node}"), MOMENT, collected);
        let name = format!("wired-{node}");
        cluster.apply(&wired(&name, node).to_string()).assert_ok();
        wait_running(&cluster, "vms", &name);
        in_pod(&cluster, "vms", &name, "ip link show dev k6t-eth0").assert_ok();
    }
}

/// The agent's reports on the launchers of a node, by pod UID.
fn reports(cluster: &Cluster, node: &str, with_certificate: bool) -> Option<Vec<Value>> {
    let pod = agent(cluster, node);
    let address = pod["status"]["podIP"].as_str().expect("an address");
    let mut curl = cluster.world().command("curl");
    curl.args([
        "-s",
        "-m",
        "20",
        "--cacert",
        &format!("{PKI}/ca.crt"),
        "--resolve",
        &format!("{AGENT}:8186:{address}"),
    ]);
    if with_certificate {
        curl.args(["--cert", &format!("{PKI}/client.crt"), "--key", &format!("{PKI}/client.key")]);
    }
    let ran = Ran::of(curl.arg(format!("https://{AGENT}:8186/v1/launchers")));
    if !ran.is_ok() {
        return None;
    }
    let lines: Vec<Value> =
        ran.text().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let (last, reports) = lines.split_last().expect("at least the mark at the end");
    assert_eq!(last, &json!({"synced": true}));
    Some(reports.to_vec())
}

/// A pod with the launchers' volume, running a line of shell as the launchers' user.
fn with_volume(name: &str, line: &str) -> Value {
    let mut pod = wired(name, "node1");
    let spec = &mut pod["spec"];
    spec["containers"][0]["command"] = json!(["sh", "-euc", line]);
    spec["securityContext"] = json!({"runAsUser": 107, "runAsGroup": 107, "runAsNonRoot": true, "fsGroup": 107,
        "seccompProfile": {"type": "RuntimeDefault"}});
    spec["volumes"] = json!([{"name": "run", "emptyDir": {}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "run", "mountPath": "/run/tapvisor"}]);
    pod
}

/// A launcher with a machine that has no disk and that calls itself as another VM.
fn launcher() -> [Value; 2] {
    let mut pod = with_volume("honest", "");
    let wiring: Value =
        serde_json::from_str(pod["metadata"]["annotations"]["tapvisor.io/wiring"].as_str().expect("text"))
            .expect("JSON");
    let machine = json!({"version": 2, "wiring": wiring, "machine": {"namespace": "elsewhere", "name": "victim", "hostname": "victim",
        "uuid": "00000000-0000-4000-8000-000000000000", "cpu": {"sockets": 1, "cores": 1, "threads": 1}, "memoryBytes": 16 << 20,
        "boot": "bios", "disks": [], "nics": [{"name": "default", "model": "virtio"}], "serialConsole": true, "rng": true,
        "gracePeriodSeconds": 0, "emulation": "required"}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "vms", "name": "honest"},
        "stringData": {"machine": machine.to_string()}});
    let spec = &mut pod["spec"];
    spec["volumes"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "machine", "secret": {"secretName": "honest", "defaultMode": 0o440}}));
    let container = &mut spec["containers"][0];
    container["command"] = json!(["/usr/bin/tapvisor-launcher"]);
    container["args"] = json!([
        "launch",
        "--machine",
        "/etc/tapvisor/machine",
        "--dir",
        "/run/tapvisor",
        "--termination-log",
        "/dev/termination-log"
    ]);
    container["image"] = "localhost/tapvisor/launcher:1".into();
    container["resources"] = json!({"limits": {"devices.kubevirt.io/tun": 1}});
    container["volumeMounts"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"name": "machine", "mountPath": "/etc/tapvisor"}));
    spec["restartPolicy"] = "Never".into();
    [secret, pod]
}

fn uid(cluster: &Cluster, pod: &str) -> String {
    let pod = cluster.kubectl(&["-n", "vms", "get", "pod", pod, "-o", "json"]).json();
    pod["metadata"]["uid"].as_str().expect("a UID").to_owned()
}

fn hostile() {
    let cluster = with_certificate();
    for object in launcher() {
        cluster.apply(&object.to_string()).assert_ok();
    }
    wait_running(&cluster, "vms", "honest");
    let honest = uid(&cluster, "honest");
    let wait = |pod: &str, what: &str, judge: &dyn Fn(&Value) -> bool| {
        let ask =
            || reports(&cluster, "node1", true)?.into_iter().find(|report| report["podUid"] == *pod).filter(judge);
        wait_for(what, MOMENT, ask).0
    };
    let report = wait(&honest, "the launcher's status", &|report| report["status"]["state"] == "running");
    assert_eq!((&report["nodeName"], &report["status"]["name"]), (&json!("node1"), &json!("victim")));
    // Two that put something else where their socket should be: a link to the honest one's, by any path, and a file.
    let volume = format!("{honest}/volumes/kubernetes.io~empty-dir/run/control.sock");
    for (name, line) in [
        ("relative", format!("ln -s ../../../../{volume} /run/tapvisor/control.sock")),
        ("absolute", format!("ln -s /var/lib/kubelet/pods/{volume} /run/tapvisor/control.sock")),
        ("file", "echo >/run/tapvisor/control.sock".to_owned()),
    ] {
        cluster.apply(&with_volume(name, &format!("{line}; exec sleep 100000")).to_string()).assert_ok();
        wait_running(&cluster, "vms", name);
        let report =
            wait(&uid(&cluster, name), "the hostile launcher's report", &|report| report["problem"].is_string());
        let expected = if name == "file" { "no socket" } else { "symbolic links" };
        assert!(report["problem"].as_str().is_some_and(|problem| problem.contains(expected)), "{report}");
        assert!(report.get("status").is_none() && report.get("outcome").is_none(), "{report}");
    }
    assert!(reports(&cluster, "node1", false).is_none(), "a client without a certificate gets nothing");
    // Its end is reported, and then the pod is forgotten. QEMU without a guest does not listen to the power button.
    cluster
        .kubectl(&["-n", "vms", "exec", "honest", "--", "/usr/bin/tapvisor-launcher", "ctl", "stop", "0"])
        .assert_ok();
    let report = wait(&honest, "the launcher's end", &|report| report["outcome"].is_object());
    assert_eq!(report["outcome"]["requested"], json!(true), "{report}");
    let message = || {
        let pod = cluster.kubectl(&["-n", "vms", "get", "pod", "honest", "-o", "json"]).json();
        let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        state["message"].as_str().map(str::to_owned)
    };
    let message = wait_for("the termination message", MOMENT, message).0;
    assert_eq!(serde_json::from_str::<Value>(&message).expect("JSON"), report["outcome"]);
    let pods = ["honest", "relative", "absolute", "file"];
    let uids = pods.map(|pod| uid(&cluster, pod));
    cluster.kubectl(&[&["-n", "vms", "delete", "pod"][..], &pods].concat()).assert_ok();
    let is_ours = |report: &Value| uids.iter().any(|uid| report["podUid"] == **uid);
    let forgotten = || (!reports(&cluster, "node1", true)?.iter().any(is_ours)).then_some(());
    wait_for("the pods to be forgotten", MOMENT, forgotten);
}

fn kubelet_restarts() {
    let cluster = installed();
    let name = agent(&cluster, "node2")["metadata"]["name"].as_str().expect("a name").to_owned();
    let registered = || {
        let log = cluster.kubectl(&["-n", "tapvisor", "logs", &name]).stdout();
        log.lines().filter(|line| line.contains("registered at kubelet") && line.contains("kubevirt.io/tun")).count()
    };
    let before = wait_for("the first registration", MOMENT, || Some(registered()).filter(|count| *count > 0)).0;
    let kubelet = on(&cluster, "node2", "pgrep -x kubelet").text();
    on(&cluster, "node2", &format!("kill -KILL {}", kubelet.trim())).assert_ok();
    wait_for("another registration", MOMENT, || (registered() > before).then_some(()));
    let tun = "devices.kubevirt.io/tun";
    wait_for("tun to be allocatable", MOMENT, || allocatable(&cluster, "node2", tun).filter(|count| count == "1k"));
    cluster
        .apply(&with_device("after-restart", "node2", tun, "exec 3<>/dev/net/tun; exec sleep 1000").to_string())
        .assert_ok();
    wait_running(&cluster, "vms", "after-restart");
}

/// The last trial: nothing is installed afterwards.
/// Five VMs without a guest: two machines, a set of one, two instances.
fn five_vms() -> Value {
    let spec = json!({
        "terminationGracePeriodSeconds": 0,
        "domain": {"memory": {"guest": "1Mi"}, "devices": {"interfaces": [{"name": "default", "masquerade": {}}]}},
        "networks": [{"name": "default", "pod": {}}],
    });
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": {"namespace": "vms", "name": name}, "spec": spec});
    let template = json!({"metadata": {"labels": {"of": "set"}}, "spec": spec});
    let machine = |name| object("VirtualMachine", name, json!({"runStrategy": "Always", "template": {"spec": spec}}));
    let selector = json!({"matchLabels": {"of": "set"}});
    let set = json!({"replicas": 1, "selector": selector, "template": template});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        machine("last-1"), machine("last-2"), object("VirtualMachineInstanceReplicaSet", "last-set", set),
        object("VirtualMachineInstance", "last-4", spec.clone()), object("VirtualMachineInstance", "last-5", spec.clone()),
    ]})
}

/// Deletes what other trials have left: VMs, and pods with the network of one.
fn delete_vms(cluster: &Cluster) {
    for kind in ["virtualmachineinstancereplicasets", "virtualmachines", "virtualmachineinstances"] {
        let kind = format!("{kind}.kubevirt.io");
        cluster.kubectl(&["delete", &kind, "--all", "--all-namespaces", "--timeout=170s"]).assert_ok();
    }
    let pods = cluster.kubectl(&["-n", "vms", "get", "pods", "-o", "json"]).json();
    let wired = pods["items"].as_array().into_iter().flatten();
    let wired = wired.filter(|pod| pod["metadata"]["annotations"]["tapvisor.io/wiring"].is_string());
    for pod in wired.filter_map(|pod| pod["metadata"]["name"].as_str()) {
        cluster.kubectl(&["-n", "vms", "delete", "pod", pod, "--timeout=170s"]).assert_ok();
    }
}

/// Nothing of the agent's, and no VM's network.
const PUT_BACK: &str = r#"
    ! grep -rq tapvisor /etc/cni/net.d && [ ! -e /opt/cni/bin/tapvisor ] && [ -z "$(ls /run/cdi)" ]
    for netns in /run/netns/*; do
        ! nsenter --net="$netns" ip -o link | grep -E 'k6t-|svc-|tap[0-9]' || exit 1
        ! nsenter --net="$netns" nft list tables | grep tapvisor || exit 1
    done
    ! nft list tables | grep tapvisor"#;

fn ended_by_object() {
    let cluster = installed();
    delete_vms(&cluster);
    cluster.apply(&five_vms().to_string()).assert_ok();
    let phases = || cluster.kubectl(&["-n", "vms", "get", "vmi", "-o", "jsonpath={.items[*].status.phase}"]).stdout();
    wait_for("five VMs", MOMENT, || (phases() == ["Running"; 5].join(" ")).then_some(()));
    let delete = ["-n", "tapvisor", "delete", "kubevirt", "kubevirt", "--timeout=170s"];
    cluster.kubectl(&delete).assert_fails(1, &["there are still", "uninstallStrategy: RemoveWorkloads"]);
    assert_eq!(phases(), ["Running"; 5].join(" "));
    assert!(cluster.kubectl(&["-n", "tapvisor", "get", "daemonset", "tapvisor-node"]).is_ok());
    let strategy = json!({"spec": {"uninstallStrategy": "RemoveWorkloads"}}).to_string();
    cluster.kubectl(&["-n", "tapvisor", "patch", "kubevirt", "kubevirt", "--type=merge", "-p", &strategy]).assert_ok();
    cluster.kubectl(&delete).assert_ok();
    let kinds = "vm,vmi,vmirs,pods";
    let left = cluster.kubectl(&["-n", "vms", "get", kinds, "-o", "name"]).text();
    let left: Vec<_> = left.lines().filter(|name| name.contains("last")).collect();
    assert!(left.is_empty(), "{left:#?}");
    for node in NODES {
        on(&cluster, node, PUT_BACK).assert_ok();
    }
}

fn uninstalled() {
    let cluster = installed();
    delete_vms(&cluster);
    let manifest = workspace().join("deploy/tapvisor.yaml").display().to_string();
    // Once more, and without a KubeVirt object: then the agents alone put their nodes back.
    cluster.kubectl(&["apply", "--server-side", "-f", &manifest]).assert_ok();
    for node in NODES {
        let chained = format!("[ -e {DROP_IN} ] && [ -e /opt/cni/bin/tapvisor ]");
        wait_for(&format!("{node} to be chained again"), MOMENT, || on(&cluster, node, &chained).is_ok().then_some(()));
    }
    cluster.kubectl(&["delete", "-f", &manifest, "--timeout=170s"]).assert_ok();
    let kinds = "crds,clusterroles,clusterrolebindings,validatingwebhookconfigurations,validatingadmissionpolicies,\
        validatingadmissionpolicybindings,priorityclasses,apiservices,namespaces";
    let left = cluster.kubectl(&["get", kinds, "-o", "name"]).text();
    let left: Vec<_> = left.lines().filter(|name| name.contains("tapvisor") || name.contains("kubevirt")).collect();
    assert!(left.is_empty(), "{left:#?}");
    for node in NODES {
        let is_clean = format!("[ ! -e /run/tapvisor/explain.sock ]; {PUT_BACK}");
        wait_for(&format!("{node} to be put back"), MOMENT, || on(&cluster, node, &is_clean).is_ok().then_some(()));
        let name = format!("unwired-{node}");
        cluster.apply(&wired(&name, node).to_string()).assert_ok();
        wait_running(&cluster, "vms", &name);
        in_pod(&cluster, "vms", &name, "! ip link show dev k6t-eth0").assert_ok();
    }
}
