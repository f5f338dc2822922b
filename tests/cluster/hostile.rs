//! A launcher's container in the hands of an attacker: a shell as the launcher's user, in the image with tools.

use libtest_mimic::Trial;
use tests::{dist_file, trial};

use crate::product::Annotated;
use crate::vmi::{delete_and_assert_gone, installed, wait_ready};
use crate::vmi_trouble::{apply, instance};

const TOOLS: &str = "localhost/tapvisor/launcher-tools:1";

pub(crate) fn trials() -> Vec<Trial> {
    // spec: CTRL-24
    vec![trial("a shell in a launcher reaches nothing of the node or the API", shell)]
}

/// What must fail in there, each a line of bash.
const MUST_FAIL: [&str; 14] = [
    "ip link set eth0 down",
    "ip address add 192.0.2.99/24 dev eth0",
    "ip tuntap add dev tap9 mode tap",
    "ls /var/run/secrets/kubernetes.io",
    "ls /var/lib/kubelet",
    "ls /run/containerd",
    "ls /etc/cni",
    "echo 1 >/proc/sys/net/ipv4/ip_forward",
    "touch /usr/bin/x",
    "touch /etc/tapvisor/x",
    "touch /run/tapvisor-kernel/x",
    "exec 3<>/dev/kvm",
    "exec 3</dev/mem",
    "exec 3</dev/loop0",
];

fn shell() {
    let cluster = installed();
    cluster.import(&dist_file("images").join("launcher-tools.tar"));
    let tools = Annotated::new(&cluster, "tapvisor.io/launcher-tools", "true");
    apply(&cluster, &instance("owned", ""));
    let vmi = wait_ready(&cluster, "owned");
    drop(tools);
    let label = format!("kubevirt.io/created-by={}", vmi["metadata"]["uid"].as_str().expect("a UID"));
    let pod = cluster.kubectl(&["-n", "vms", "get", "pods", "-l", &label, "-o", "json"]).json()["items"][0].clone();
    assert_eq!(pod["spec"]["containers"][0]["image"], TOOLS);
    let name = pod["metadata"]["name"].as_str().expect("a name");
    let bash = |script: &str| cluster.kubectl(&["-n", "vms", "exec", name, "--", "bash", "-c", script]).text();

    let who = bash("id -u; grep -E '^(CapPrm|CapEff|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status");
    let words: Vec<_> = who.split_whitespace().collect();
    let none = "0000000000000000";
    assert_eq!(words, ["107", "CapPrm:", none, "CapEff:", none, "CapAmb:", none, "NoNewPrivs:", "1", "Seccomp:", "2"]);
    let tried: String =
        MUST_FAIL.iter().map(|line| format!("if ({line}) 2>/dev/null; then echo 'did: {line}'; fi\n")).collect();
    let did = bash(&format!("{tried}echo tried"));
    assert_eq!(did, "tried\n");
    // No process but the pod's own, and no interface but its own and the guest's.
    let programs = bash("for exe in /proc/[0-9]*/comm; do cat $exe; done | sort -u");
    let ours = ["bash", "cat", "pause", "qemu-system-x86", "sort", "tapvisor-launch"];
    assert!(programs.lines().all(|program| ours.contains(&program)), "{programs}");
    delete_and_assert_gone(&cluster, &vmi);
}
