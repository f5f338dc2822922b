//! What a user gets wrong, or the host lacks: said by name, with the exit code for it, and nothing is left behind.

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Ran, trial};

use crate::manifest::{Vm, definition, document};
use crate::vm::Host;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CLI-1, CLI-17
        trial("what is wrong in a command, a manifest or a network is refused by name", inputs),
        // spec: NET-1
        trial("a network the host cannot attach is refused with all other errors", unattachable),
        // spec: NET-2
        trial("a network whose plugin fails at ADD and at DEL leaves nothing", stubborn),
        // spec: NET-2, CLI-2
        trial("a network that cannot be detached keeps its namespace for a retry", undetachable),
        // spec: CLI-1
        trial("an annotation that the plugin refuses is named, the network removed", annotation),
        // spec: CLI-1
        trial("what the host lacks is named with its remedy", host_lacks),
        // spec: CLI-1
        trial("a disk that is absent, cut short or none is refused by name", disks),
        // spec: DISK-5
        trial("a disk in use, in our folders or behind a foreign link is refused", taken_disks),
        // spec: CLI-1
        trial("an exhausted address pool is reported and every VM removed", exhausted),
        // spec: CLI-3
        trial("a full disk is said with the file, wherever it is met", full),
    ]
}

/// Runs a manifest in the background, with arguments.
fn run(host: &Host, manifest: &str, arguments: &[&str]) -> Ran {
    host.world.write("/run/bad.yaml", manifest);
    host.world.tapvisor(&[&["run", "--detach", "-f", "/run/bad.yaml"], arguments].concat())
}

fn inputs() {
    let host = Host::new();
    let vm = Vm::new("web", "masquerade");
    let web = vm.yaml();
    let unknown = web.replace("\"rng\"", "\"rang\"");
    let lun = vm.clone().set("/domain/devices", "hostDevices", json!([{"name": "gpu", "deviceName": "gpu"}])).yaml();
    let two = json!({"exec": {"command": ["true"]}, "tcpSocket": {"port": 80}});
    let two = vm.clone().set("", "readinessProbe", two).yaml();
    let absent = vm.clone().on("blue", json!({"bridge": {}})).yaml();
    let nameless = definition("blue", &json!({"cniVersion": "1.0.0", "ipam": {}})) + &absent;
    let long = format!("{0}.{0}.{0}.{0}", "x".repeat(62));
    let long = web.replace(r#""metadata":{"name":"web"}"#, &format!(r#""metadata":{{"name":"{long}"}}"#));
    let image = web.replace("guest-kernel:1", "guest-kernel:2");
    let headless = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let headless = web.clone() + &document(&headless);
    host.world.write("/run/broken.conflist", "{\"cniVersion\": ");
    host.world.write("/run/typeless.conflist", r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{}]}"#);
    let path = "spec.template.spec";
    let manifests: [(&str, &[&str], &[&str]); 13] = [
        ("a: [", &[], &["/run/bad.yaml"]),
        ("", &[], &["/run/bad.yaml"]),
        (&unknown, &[], &["VirtualMachine web", &format!("{path}.domain.devices.rang: unknown field")]),
        (&lun, &[], &[&format!("{path}.domain.devices.hostDevices: not supported")]),
        (&two, &[], &[&format!("{path}.readinessProbe: asks more than one thing: tcpSocket, exec")]),
        (&absent, &[], &["network blue", "/etc/tapvisor/net.d"]),
        (&nameless, &[], &["NetworkAttachmentDefinition blue", "spec.config", "\"type\""]),
        (&long, &[], &["metadata.name: has 251 bytes, at most 242 are possible in namespace default"]),
        (&image, &[], &["default/web", "image \"tapvisor/guest-kernel:2\" is not in"]),
        (&headless, &[], &["default/web", "spec.clusterIP", "headless"]),
        (&web, &["--network", "/run/none.conflist"], &["/run/none.conflist", "No such file"]),
        (&web, &["--network", "/run/broken.conflist"], &["/run/broken.conflist"]),
        (&web, &["--network", "/run/typeless.conflist"], &["/run/typeless.conflist", "type"]),
    ];
    for (manifest, arguments, words) in manifests {
        run(&host, manifest, arguments).assert_fails(3, words);
        host.assert_as_before();
    }
    host.world.tapvisor(&["run", "-f", "/run/none.yaml"]).assert_fails(3, &["cannot read /run/none.yaml"]);
    for verb in ["stop", "start", "restart", "pause", "unpause", "console", "logs", "rm"] {
        host.world.tapvisor(&[verb, "absent"]).assert_fails(4, &["there is no VM default/absent"]);
        host.world.tapvisor(&[verb, "No/Body"]).assert_fails(2, &["No", "RFC 1123"]);
    }
    host.world.tapvisor(&["rm", "svc/absent"]).assert_fails(4, &["there is no Service default/absent"]);
    host.world.tapvisor(&["run"]).assert_fails(2, &["--file"]);
    host.world.tapvisor(&["run", "/run/none.yaml"]).assert_fails(2, &["`tapvisor run -f /run/none.yaml`"]);
    host.assert_nothing_left();
}

fn pods(ipam: &Value) -> Value {
    json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipMasq": true, "ipam": ipam}]})
}

/// The folder of the test's plugins, and the distribution's.
const PLUGINS: &str = "CNI_PATH=/run/plugins:/usr/lib/cni";

/// A plugin that speaks these versions, passes on what it is given, and fails a verb while the file of that name is there.
fn install_plugin(host: &Host, name: &str, versions: &str) {
    let script = format!(
        r#"#!/bin/bash
in=$(cat)
case $CNI_COMMAND in
VERSION) echo '{{"cniVersion":"1.0.0","supportedVersions":[{versions}]}}'; exit;;
esac
if [ -e /run/plugins/$CNI_COMMAND ]; then
    echo '{{"cniVersion":"1.0.0","code":999,"msg":"{name} refuses '$CNI_COMMAND'"}}'
    exit 1
fi
[ $CNI_COMMAND != ADD ] || echo "$in" | jq -c .prevResult
"#
    );
    host.world.write(&format!("/run/plugins/{name}"), script);
    host.world.sh(&format!("chmod 0755 /run/plugins/{name}")).assert_ok();
}

fn with_plugins(host: &Host, arguments: &[&str]) -> Ran {
    let tapvisor = tests::dist_file("tapvisor").display().to_string();
    host.world.run(&[&["env", PLUGINS, tapvisor.as_str()], arguments].concat())
}

fn unattachable() {
    let host = Host::new();
    install_plugin(&host, "dated", r#""0.3.1","0.4.0""#);
    let ipam = json!({"type": "static", "addresses": [{"address": "192.0.2.9/24"}]});
    let lan = json!({"cniVersion": "1.0.0", "type": "macvlan", "master": "nosuch0", "ipam": ipam});
    let old = json!({"cniVersion": "1.0.0", "plugins": [{"type": "dated"}]});
    let vm = Vm::new("web", "masquerade");
    let vm = vm.on("lan", json!({"bridge": {}})).on("old", json!({"bridge": {}})).on("gone", json!({"bridge": {}}));
    let all =
        definition("lan", &lan) + &definition("old", &old) + &vm.yaml().replace("guest-kernel:1", "guest-kernel:2");
    let outside = [
        "default/web: image \"tapvisor/guest-kernel:2\" is not in",
        "network lan: plugins[0].master: this host has no link \"nosuch0\"",
        "network old: cniVersion: 1.0.0: the plugin \"dated\" speaks 0.3.1, 0.4.0",
        "network gone: /etc/tapvisor/net.d",
        "network /run/none.conflist",
    ];
    let arguments = ["run", "--detach", "-f", "/run/bad.yaml", "--network", "/run/none.conflist"];
    host.world.write("/run/bad.yaml", &all);
    with_plugins(&host, &arguments).assert_fails(3, &outside);
    host.assert_as_before();
    host.world.write("/run/bad.yaml", all.replace("\"rng\"", "\"rang\""));
    let both = [&["spec.template.spec.domain.devices.rang: unknown field"], &outside[..]].concat();
    with_plugins(&host, &arguments).assert_fails(3, &both);
    host.assert_as_before();
    let listed = host.world.tapvisor(&["ps", "-o", "json"]).json();
    assert_eq!(listed["items"], json!([]));
    host.assert_nothing_left();
}

/// A network of the distribution's plugin and one of the test's behind it.
fn chained(host: &Host, name: &str) {
    let ipam = json!({"type": "host-local", "dataDir": "/run/tapvisor/ipam", "subnet": "10.244.7.0/24"});
    let mut network = pods(&ipam);
    network["plugins"].as_array_mut().unwrap().push(json!({"type": name}));
    host.world.write("/run/pods.conflist", network.to_string());
    host.world.write("/run/bad.yaml", Vm::new("web", "masquerade").yaml());
}

fn stubborn() {
    let host = Host::new();
    install_plugin(&host, "stubborn", r#""0.4.0","1.0.0""#);
    chained(&host, "stubborn");
    host.world.sh("touch /run/plugins/ADD /run/plugins/DEL").assert_ok();
    let run = ["run", "--detach", "-f", "/run/bad.yaml", "--network", "/run/pods.conflist"];
    let words = ["default/web", "network pods for interface default", "stubborn refuses ADD"];
    let ran = with_plugins(&host, &run);
    ran.assert_fails(1, &words);
    assert!(!ran.stderr().contains("refuses DEL"), "{}", ran.account());
    host.assert_as_before();
    host.world.tapvisor(&["rm", "web"]).assert_fails(4, &["there is no VM default/web"]);
    host.assert_nothing_left();
}

fn undetachable() {
    let host = Host::new();
    install_plugin(&host, "stubborn", r#""0.4.0","1.0.0""#);
    chained(&host, "stubborn");
    let run = ["run", "--detach", "-f", "/run/bad.yaml", "--network", "/run/pods.conflist"];
    let left = "network pods for interface default: plugin stubborn: DEL failed: stubborn refuses DEL";
    for force in [false, true] {
        with_plugins(&host, &run).assert_ok();
        host.world.sh("touch /run/plugins/DEL").assert_ok();
        host.remove(&["web"]).assert_fails(1, &[left]);
        // Commands that look report it and change nothing.
        let state = || {
            (host.world.snapshot(), host.world.ns_names(), host.world.sh("cat /run/tapvisor/vms/*/status.json").text())
        };
        let before = state();
        assert!(before.1.iter().any(|name| name.starts_with("tv-")), "the namespace is gone: {:?}", before.1);
        for look in [&["ps"][..], &["explain", "web"], &["logs", "web"]] {
            let said = host.world.tapvisor(look).stderr();
            assert!(
                said.contains(left) && said.contains("the next command that changes something repairs it"),
                "{look:?}: {said}"
            );
        }
        assert!(state() == before, "a command that looks has changed something");
        if force {
            let removed = host.remove(&["--force", "web"]);
            removed.assert_ok();
            assert!(removed.stderr().contains(&format!("left behind: {left}")), "{}", removed.account());
        } else {
            host.remove(&["web"]).assert_fails(1, &[left]);
            host.world.sh("rm /run/plugins/DEL").assert_ok();
            host.remove(&["web"]).assert_ok();
        }
        host.assert_as_before();
        host.world.sh("rm -f /run/plugins/DEL").assert_ok();
    }
    host.assert_nothing_left();
}

fn annotation() {
    let host = Host::new();
    let mut network = pods(&json!({"type": "host-local", "dataDir": "/run/test-ipam", "subnet": "10.244.7.0/24"}));
    let chained = json!({"type": "tapvisor", "capabilities": {"io.kubernetes.cri.pod-annotations": true}});
    network["plugins"].as_array_mut().unwrap().push(chained);
    host.world.write("/run/pods.conflist", network.to_string());
    for (wiring, word) in
        [(r#"{"version": 9, "owner": {"uid": 107, "gid": 107}, "interfaces": []}"#, "version"), ("{", "EOF")]
    {
        let manifest = Vm::new("web", "masquerade").yaml();
        let mut object: Value = serde_json::from_str(manifest.split("---").next().unwrap()).unwrap();
        object["spec"]["template"]["metadata"]["annotations"] = json!({"tapvisor.io/wiring": wiring});
        let ran = run(&host, &document(&object), &["--network", "/run/pods.conflist"]);
        ran.assert_fails(3, &["default/web", "network pods for interface default", "tapvisor.io/wiring", word]);
        host.assert_as_before();
    }
    host.assert_nothing_left();
}

fn host_lacks() {
    let host = Host::new();
    let manifest = Vm::new("web", "masquerade").yaml();
    host.world.write("/run/bad.yaml", &manifest);
    let tapvisor = tests::dist_file("tapvisor").display().to_string();
    let unprivileged = ["setpriv", "--reuid=65534", "--clear-groups", &tapvisor, "ps"];
    // The build's folder need not be open to everybody.
    host.world.sh(&format!("cp '{tapvisor}' /run/tapvisor-copy; chmod 0755 /run/tapvisor-copy")).assert_ok();
    let unprivileged = unprivileged.map(|word| if word == tapvisor { "/run/tapvisor-copy" } else { word });
    host.world.run(&unprivileged).assert_fails(6, &["this command needs root"]);
    let other = r#"{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.9.0.0/24"}}]}"#;
    host.world.write("/run/other.conflist", other);
    let without_plugins =
        ["env", "CNI_PATH=/run/none", &tapvisor, "run", "--network", "/run/other.conflist", "-f", "/run/bad.yaml"];
    let words = ["network other", "\"ptp\"", "/run/none", "containernetworking-plugins"];
    host.world.run(&without_plugins).assert_fails(6, &words);
    host.assert_as_before();
    let (no_tun, tun) = ("mount -t tmpfs tmpfs /dev/net", "umount /dev/net");
    let qemu = "$(readlink -f \"$(command -v qemu-system-x86_64)\")";
    let (no_qemu, qemu) = (format!("mount --bind /dev/null {qemu}"), format!("umount {qemu}"));
    let overlapped = ("ip addr add 172.30.77.9/28 dev uplink0", "ip addr del 172.30.77.9/28 dev uplink0");
    let route = "fd77:7461:7076::/48 via 2001:db8:1::1";
    let routed = (format!("ip -6 route add {route}"), format!("ip -6 route del {route}"));
    let lacks: [(&str, &str, &[&str]); 4] = [
        (no_tun, tun, &["/dev/net/tun", "modprobe tun"]),
        (&no_qemu, &qemu, &["default/web", "qemu-system-x86"]),
        (overlapped.0, overlapped.1, &["172.30.77.0/24 overlaps", "address 172.30.77.9/28 on uplink0", "--network"]),
        (&routed.0, &routed.1, &["fd77:7461:7076::/64 overlaps", "route fd77:7461:7076::/48", "--network"]),
    ];
    for (take, give_back, words) in lacks {
        host.world.sh(take).assert_ok();
        let ran = host.world.tapvisor(&["run", "--detach", "-f", "/run/bad.yaml"]);
        host.world.sh(give_back).assert_ok();
        ran.assert_fails(6, words);
        host.assert_as_before();
    }
    host.assert_nothing_left();
}

fn disks() {
    let host = Host::new();
    let qcow2 = std::fs::read(tests::cache_file("guest/disk.qcow2")).expect("the image is readable");
    host.world.write("/run/disks/short.qcow2", &qcow2[..qcow2.len() / 2]);
    host.world.write("/run/disks/short.img", [0; 1000]);
    host.world.write("/run/disks/empty.img", []);
    host.world.sh("mkdir /run/disks/folder; mkfifo /run/disks/pipe").assert_ok();
    let cases = [
        ("absent.img", "does not exist"),
        ("short.qcow2", "/run/disks/short.qcow2"),
        ("short.img", "has 1000 bytes"),
        ("empty.img", "is empty"),
        ("folder", "neither a regular file nor a block device"),
        ("pipe", "neither a regular file nor a block device"),
    ];
    for (file, words) in cases {
        let disk = json!({"hostDisk": {"path": format!("/run/disks/{file}"), "type": "Disk"}});
        let vm = Vm::new("web", "masquerade").disk("root", disk);
        run(&host, &vm.yaml(), &[]).assert_fails(3, &["default/web", "disk \"root\"", file, words]);
        host.assert_as_before();
    }
    let create = |path: &str| json!({"hostDisk": {"path": path, "type": "DiskOrCreate", "capacity": "1Mi"}});
    let vm = Vm::new("web", "masquerade")
        .disk("root", create("/run/disks/new/folder/new.img"))
        .disk("data", create("/run/disks/pipe/new.img"));
    run(&host, &vm.yaml(), &[]).assert_fails(1, &["/run/disks/pipe/new.img", "Not a directory"]);
    let left = host.world.sh("ls /run/disks").text();
    assert_eq!(left.lines().collect::<Vec<_>>(), ["empty.img", "folder", "pipe", "short.img", "short.qcow2"]);
    host.assert_nothing_left();
}

fn taken_disks() {
    let host = Host::new();
    let on = |name: &str, path: &str| {
        Vm::new(name, "masquerade").disk("root", json!({"hostDisk": {"path": path, "type": "Disk"}})).yaml()
    };
    host.world.sh("mkdir /run/disks /run/open; truncate -s 1M /run/disks/disk.img; ln /run/disks/disk.img /run/disks/same.img").assert_ok();
    let both = on("b1", "/run/disks/disk.img") + &on("b2", "/run/disks/same.img");
    run(&host, &both, &[])
        .assert_fails(1, &["default/b2: volume root: /run/disks/same.img is in use by VM default/b1"]);
    host.assert_as_before();
    host.world.sh("chmod 1777 /run/open; ln -s /run/disks/disk.img /run/open/link.img").assert_ok();
    run(&host, &on("web", "/run/open/link.img"), &[]).assert_fails(3, &["goes through the link", "/run/open/link.img"]);
    host.assert_as_before();
    host.world.sh("mkdir -p /run/tapvisor; truncate -s 1M /run/tapvisor/disk.img").assert_ok();
    run(&host, &on("web", "/run/tapvisor/disk.img"), &[]).assert_fails(3, &["where Tapvisor keeps its own files"]);
    host.world.sh("rm /run/tapvisor/disk.img").assert_ok();
    // A VM that runs has its disk until it has ended.
    run(&host, &on("b1", "/run/disks/disk.img"), &[]).assert_ok();
    run(&host, &on("b2", "/run/disks/same.img"), &[])
        .assert_fails(1, &["default/b2: volume root", "in use by VM default/b1"]);
    host.world.tapvisor(&["rm", "b1"]).assert_ok();
    host.assert_nothing_left();
}

fn exhausted() {
    let host = Host::new();
    let ipam = json!({"type": "host-local", "dataDir": "/run/test-ipam", "subnet": "10.244.9.0/30"});
    host.world.write("/run/pods.conflist", pods(&ipam).to_string());
    let all = Vm::new("resting", "masquerade").strategy("Halted").yaml()
        + &Vm::new("one", "masquerade").yaml()
        + &Vm::new("two", "masquerade").yaml();
    let ran = run(&host, &all, &["--network", "/run/pods.conflist"]);
    ran.assert_fails(
        1,
        &["default/two", "network pods for interface default", "no IP addresses available", "10.244.9.1-10.244.9.2"],
    );
    let held = host.world.sh("ls /run/test-ipam/pods | grep '^10' || true").text();
    assert!(held.is_empty(), "addresses are still held: {held}");
    host.assert_nothing_left();
}

fn full() {
    const PAGE: u32 = 4096;
    let host = Host::new();
    let manifest = Vm::new("web", "masquerade").strategy("Once").yaml();
    // With IPv6 every attempt would wait for the reference plugin's duplicate address detection.
    let ipam = json!({"type": "host-local", "dataDir": "/run/tapvisor/ipam", "subnet": "10.244.7.0/24"});
    host.world.write("/run/pods.conflist", pods(&ipam).to_string());
    // Each size is met by another file.
    let mut said = Vec::new();
    for pages in 1.. {
        let mount = format!("mkdir -p /run/tapvisor; mount -t tmpfs -o size={} tmpfs /run/tapvisor", pages * PAGE);
        host.world.sh(&mount).assert_ok();
        let ran = run(&host, &manifest, &["--network", "/run/pods.conflist"]);
        let fits = ran.is_ok();
        if fits {
            host.remove(&["web"]).assert_ok();
        } else {
            ran.assert_fails(1, &["o space left on device", "/run/tapvisor"]);
            said.push(ran.stderr());
        }
        host.assert_as_before();
        host.world.sh("umount /run/tapvisor").assert_ok();
        if fits {
            break;
        }
    }
    assert!(said.len() > 4, "only met by {said:?}");
    let seed = json!({"cloudInitNoCloud": {"userData": "#cloud-config\n"}});
    let seeded = Vm::new("web", "masquerade").disk("seed", seed).yaml();
    host.world.sh("mkdir -p /var/cache/tapvisor/scratch").assert_ok();
    host.world.sh("mount -t tmpfs -o size=8k tmpfs /var/cache/tapvisor/scratch").assert_ok();
    let ran = run(&host, &seeded, &[]);
    ran.assert_fails(1, &["default/web", "disk \"seed\"", "no space left", "/var/cache/tapvisor/scratch"]);
    // The supervisor has said so, and holds the folder until it has ended.
    host.assert_as_before();
    host.world.sh("umount /var/cache/tapvisor/scratch").assert_ok();
    host.assert_nothing_left();
}
