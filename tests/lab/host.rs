//! What the lab's host must have, so that the other cases mean something.

use std::time::Duration;

use libtest_mimic::Trial;
use tests::trial;

const MOMENT: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: LAB-1
        trial("the host has KVM, vhost-net and tun", has_devices),
        // spec: LAB-1
        trial("the host carries 802.1Q frames between namespaces", carries_vlans),
        // spec: LAB-1
        trial("the launcher's probe says that KVM runs code", probe_is_usable),
        // spec: LAB-2
        trial("nothing that a script started is left for the next", leaves_nothing),
        // spec: LAB-2
        trial("a script that outlives its time is ended and says so", ends_what_is_late),
    ]
}

fn has_devices() {
    let finished = crate::run("devices", "stat -c '%F %n' /dev/kvm /dev/vhost-net /dev/net/tun", MOMENT);
    assert_eq!(finished.code, 0, "{finished}");
    assert_eq!(finished.output.matches("character special file").count(), 3, "{finished}");
}

fn carries_vlans() {
    let script = "
        set -e
        unshare -n sleep 50 &
        far=$!
        until [ \"$(readlink /proc/$far/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.1; done
        $IP link add near type veth peer name far
        $IP link set far netns $far
        $IP link add link near name near.7 type vlan id 7
        $IP link set near up
        $IP link set near.7 up
        $IP address add 192.0.2.1/24 dev near.7
        nsenter -t $far -n $IP link set far up
        nsenter -t $far -n $IP link add link far name far.7 type vlan id 7
        nsenter -t $far -n $IP link set far.7 up
        nsenter -t $far -n $IP address add 192.0.2.2/24 dev far.7
        ping -c 2 -w 20 192.0.2.2";
    let finished = crate::run("VLANs", script, MOMENT);
    assert_eq!(finished.code, 0, "{finished}");
}

fn probe_is_usable() {
    let finished = crate::run("the probe", "tapvisor-launcher probe", MOMENT);
    assert_eq!(finished.code, 0, "{finished}");
    let probe: serde_json::Value =
        serde_json::from_str(&finished.output).unwrap_or_else(|error| panic!("{error}: {finished}"));
    assert_eq!(probe["kvm"], "usable", "{finished}");
}

fn leaves_nothing() {
    let started = crate::run("leaving a process", "sleep 987 & echo $!", MOMENT);
    assert_eq!(started.code, 0, "{started}");
    let looked = crate::run("looking for it", "ps -o args | grep '[s]leep 987'", MOMENT);
    assert_eq!(looked.code, 1, "{looked}");
}

fn ends_what_is_late() {
    let finished = crate::run("a late script", "echo begun; sleep 600", Duration::from_secs(2));
    assert!([124, 143].contains(&finished.code), "{finished}");
    assert!(finished.output.starts_with("begun\n"), "{finished}");
}
