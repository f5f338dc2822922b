//! The ways to a VM in a cluster, and what it finds in itself. One VM with everything serves most trials, two more are on a
//! second network.

use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Cluster, Ran, trial, wait_for, wait_for_or};

use crate::background::Background;
use crate::pods::{dual_stack, fetch_path, in_pod};
use crate::vmi::{condition, installed, wait_instance, wait_ready};
use crate::vmi_trouble::{apply, instance};

const MOMENT: Duration = Duration::from_secs(90);
/// Where the tunnel to the VM ends in the cluster's world.
const FORWARDED: &str = "127.0.0.1:18180";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CTRL-20
        trial("a VM is reached by node port and found by its headless DNS name", by_port_and_name),
        // spec: CTRL-21
        trial("kubelet's HTTP probe decides about a VM's readiness", probes),
        // spec: CTRL-22
        trial("kubectl port-forward, logs and attach reach a VM's pod", kubectl),
        // spec: CTRL-19
        trial("a VM finds its Secret, its empty disk and its qcow2 image", volumes),
        // spec: CTRL-21, CTRL-23
        trial("two VMs talk on a Multus network, one bridged on the pod network", second_network),
    ]
}

/// Held while the VM `front` is used: by trials that expect answers from it together, alone by one that keeps it from answering.
static USE: RwLock<()> = RwLock::new(());

/// The VM `front` for a trial that changes nothing in it. Like the next one, it goes on where another trial failed.
fn front() -> (Front, RwLockReadGuard<'static, ()>) {
    let guard = USE.read().unwrap_or_else(PoisonError::into_inner);
    (made(), guard)
}

/// The VM `front` for a trial during which it does not always answer.
fn front_alone() -> (Front, RwLockWriteGuard<'static, ()>) {
    let guard = USE.write().unwrap_or_else(PoisonError::into_inner);
    (made(), guard)
}

struct Front {
    cluster: Arc<Cluster>,
    pod: String,
}

/// A VM on the second node with a disk of each kind, probes, a name and Services; made once.
fn made() -> Front {
    static POD: OnceLock<String> = OnceLock::new();
    let cluster = installed();
    let pod = POD.get_or_init(|| {
        let seed = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "vms", "name": "front-seed"},
            "stringData": {"userdata": "#cloud-config\nhostname: from-a-secret\n"}});
        let ports = json!({"ports": [{"port": 80}], "type": "NodePort"});
        let headless = json!({"clusterIP": "None", "ports": [{"port": 80}]});
        for object in [
            seed,
            front_vm(),
            dual_stack("vms", "front", "front", &ports),
            dual_stack("vms", "guests", "front", &headless),
        ] {
            apply(&cluster, &object);
        }
        let vmi = wait_ready(&cluster, "front");
        let label = format!("kubevirt.io/created-by={}", vmi["metadata"]["uid"].as_str().expect("a UID"));
        cluster.kubectl(&["-n", "vms", "get", "pods", "-l", &label, "-o", "jsonpath={.items[0].metadata.name}"]).text()
    });
    let pod = pod.clone();
    Front { cluster, pod }
}

fn front_vm() -> Value {
    // The guest shows on its web server what it finds on its disks.
    let show = "guest.run=mkdir+/mnt;mount+-t+vfat+-o+ro+/dev/vda+/mnt;cp+/mnt/user-data+/www/;\
        (cat+/sys/block/vdb/size;dd+if=/dev/vdc+bs=1+skip=510+count=2|od+-x)>/www/facts";
    let mut vmi = instance("front", show);
    vmi["metadata"]["labels"] = json!({"app": "front"});
    let spec = &mut vmi["spec"];
    spec["hostname"] = "front".into();
    spec["subdomain"] = "guests".into();
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": "node2"});
    spec["readinessProbe"] = json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1, "failureThreshold": 1});
    spec["livenessProbe"] = json!({"tcpSocket": {"port": 80}, "periodSeconds": 5, "failureThreshold": 60});
    let disk = |name: &str| json!({"name": name, "disk": {"bus": "virtio"}});
    spec["domain"]["devices"]["disks"] = json!([disk("seed"), disk("scratch"), disk("root")]);
    spec["volumes"] = json!([
        {"name": "seed", "cloudInitNoCloud": {"secretRef": {"name": "front-seed"}}},
        {"name": "scratch", "emptyDisk": {"capacity": "64Mi"}},
        {"name": "root", "containerDisk": {"image": "localhost/tapvisor/guest-disk:1", "path": "/disk/disk.img"}},
    ]);
    vmi
}

/// A line for the guest's shell on its serial console.
fn type_in(cluster: &Cluster, pod: &str, line: &str) {
    let mut exec = cluster.command("kubectl");
    exec.args(["-n", "vms", "exec", "-i", pod, "--", "/usr/bin/tapvisor-launcher", "ctl", "console"]);
    Ran::with_input(&mut exec, format!("{line}\n").as_bytes()).assert_ok();
}

fn by_port_and_name() {
    let (Front { cluster, pod }, _guard) = front();
    let service = cluster.kubectl(&["-n", "vms", "get", "service", "front", "-o", "json"]).json();
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port was given");
    for host in ["192.0.2.11", "192.0.2.12", "[2001:db8::11]", "[2001:db8::12]"] {
        let url = format!("http://{host}:{port}/");
        let ask = || Some(cluster.world().run(&["curl", "-s", "-m", "5", &url])).filter(Ran::is_ok);
        let answer = wait_for(&format!("an answer from {url}"), MOMENT, ask).0.text();
        assert!(answer.contains("guest front"), "{answer}");
    }
    let name = "front.guests.vms.svc.cluster.local";
    let ask = || Some(in_pod(&cluster, "vms", "client-node1", &format!("nslookup {name}"))).filter(Ran::is_ok);
    let found = wait_for(&format!("the name {name}"), MOMENT, ask).0.text();
    let pod = cluster.kubectl(&["-n", "vms", "get", "pod", &pod, "-o", "json"]).json();
    let addresses = pod["status"]["podIPs"].as_array().expect("it has addresses");
    assert_eq!(addresses.len(), 2, "{pod:#}");
    for address in addresses {
        let address = address["ip"].as_str().expect("an address");
        assert!(found.contains(address), "{address} is not in\n{found}");
        let answer = fetch_path(&cluster, "vms", "client-node1", address, 80, "/");
        assert!(answer.contains("guest front"), "{answer}");
    }
}

fn probes() {
    let (Front { cluster, pod }, _guard) = front_alone();
    type_in(&cluster, &pod, "killall httpd");
    wait_instance(&cluster, "front", "to lose its readiness with its web server", |vmi| {
        condition(vmi, "Ready").is_some_and(|text| text.starts_with("False ContainersNotReady"))
    });
    type_in(&cluster, &pod, "httpd -p [::]:80 -h /www");
    wait_ready(&cluster, "front");
}

fn kubectl() {
    let (Front { cluster, pod }, _guard) = front_alone();
    let (address, port) = FORWARDED.split_once(':').expect("address and port");
    let kubectl = |verb: &str, arguments: &[&str]| {
        Background::start(
            &cluster,
            &format!("kubectl-{verb}.txt"),
            "kubectl",
            &[&["-n", "vms", verb], arguments].concat(),
        )
    };
    let forward = kubectl("port-forward", &["--address", address, &pod, &format!("{port}:80")]);
    let url = format!("http://{FORWARDED}/");
    let ask = || Some(cluster.world().run(&["curl", "-s", "-m", "5", &url])).filter(Ran::is_ok);
    let answer = wait_for_or("an answer through the tunnel", MOMENT, ask, || forward.wrote()).0.text();
    assert!(answer.contains("guest front"), "{answer}");

    // The launcher's log is there, and nothing of the guest's console is in it.
    type_in(&cluster, &pod, "echo GUEST typed");
    let log = cluster.kubectl(&["-n", "vms", "logs", &pod]).text();
    assert!(log.contains("QEMU is ready") && !log.contains("GUEST"), "{log}");

    let attached = kubectl("attach", &[&pod]);
    let ctl = |verb: &str| {
        let launcher = ["-n", "vms", "exec", &pod, "--", "/usr/bin/tapvisor-launcher", "ctl", verb];
        cluster.kubectl(&launcher).assert_ok();
    };
    // What was logged before it was attached, it does not show.
    let shown = || {
        ctl("pause");
        ctl("unpause");
        attached.wrote().contains("Paused").then_some(())
    };
    wait_for_or("what the launcher logs", MOMENT, shown, || attached.wrote());
    wait_ready(&cluster, "front");
}

fn volumes() {
    let (Front { cluster, pod }, _guard) = front();
    let get = |path: &str| fetch_path(&cluster, "vms", "client-node1", &address(&cluster, &pod), 80, path);
    assert!(get("/user-data").contains("hostname: from-a-secret"));
    // Sectors of the empty disk, then the mark at the end of a disk's first sector: raw, a qcow2 file would not have it there.
    let facts = get("/facts");
    let words: Vec<_> = facts.split_whitespace().collect();
    assert!(words.contains(&"131072") && words.contains(&"aa55"), "{facts}");
    let requests = "jsonpath={.spec.containers[0].resources.requests.ephemeral-storage}";
    assert_eq!(cluster.kubectl(&["-n", "vms", "get", "pod", &pod, "-o", requests]).text(), "114Mi");
    let controller = "--as=system:serviceaccount:tapvisor:tapvisor-controller";
    for verb in ["get", "list", "watch"] {
        let may = cluster.kubectl(&["-n", "vms", "auth", "can-i", verb, "secrets", controller]);
        assert!(!may.is_ok() && may.stdout().trim() == "no", "{}", may.account());
    }
}

/// The address of a pod of namespace `vms`.
fn address(cluster: &Cluster, pod: &str) -> String {
    cluster.kubectl(&["-n", "vms", "get", "pod", pod, "-o", "jsonpath={.status.podIP}"]).text()
}

fn second_network() {
    let cluster = installed();
    let config = json!({"cniVersion": "1.0.0", "name": "lan", "type": "bridge", "bridge": "br-lan", "ipam": {}});
    let network = json!({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"namespace": "vms", "name": "lan"}, "spec": {"config": config.to_string()},
    });
    apply(&cluster, &network);
    // Each asks the other until it answers, and shows the answer on its own web server. The guest's DHCP client, which nothing
    // answers there, takes addresses away when it starts. Pods of other trials are on the same bridge, with other addresses.
    for (number, node, binding) in [(11, "node1", "bridge"), (12, "node2", "masquerade")] {
        let peer = 23 - number;
        let run = format!(
            "guest.run=(while+:;do+ip+addr+replace+198.51.100.{number}/24+dev+eth1;sleep+1;done)&\
             (until+timeout+20+wget+-q+-O+/www/peer+http://198.51.100.{peer}/;do+sleep+1;done)&"
        );
        let mut vmi = instance(&format!("lan{number}"), &run);
        let spec = &mut vmi["spec"];
        spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        // The kubelet reaches a bridged guest, too.
        spec["readinessProbe"] = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1});
        spec["networks"] = json!([{"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": "lan"}}]);
        spec["domain"]["devices"]["interfaces"] =
            json!([{"name": "default", binding: {}}, {"name": "lan", "bridge": {}}]);
        apply(&cluster, &vmi);
    }
    let instances = [11, 12].map(|number| (number, wait_ready(&cluster, &format!("lan{number}"))));
    for (number, vmi) in instances {
        let address = vmi["status"]["interfaces"][0]["ipAddress"].as_str().expect("an address");
        // Over the pod network, from the other node.
        let answer = fetch_path(&cluster, "vms", &format!("client-node{}", 13 - number), address, 80, "/peer");
        // The peer is known by its address, which its DHCP client may have taken away again while it answered, or by its name,
        // which it has from the other network.
        let peer = [format!("address eth1 198.51.100.{}/24", 23 - number), format!("guest lan{}\n", 23 - number)];
        assert!(peer.iter().any(|line| answer.contains(line)), "{answer}");
        assert!(answer.contains(&format!("asked by [::ffff:198.51.100.{number}]")), "{answer}");
    }
    for number in [11, 12] {
        cluster.kubectl(&["-n", "vms", "delete", "vmi", &format!("lan{number}"), "--wait=false"]).assert_ok();
    }
}
