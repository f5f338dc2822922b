//! Every example runs as a user would run it, and does what its first line says.

use std::collections::BTreeSet;
use std::time::Duration;

use libtest_mimic::Trial;
use tests::{Guest, Outside, trial, wait_for};

use crate::vm::{Host, url};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: NET-6
        trial("example demo: NAT and bridge binding side by side", demo),
        // spec: NET-21
        trial("example masquerade: both families reach the guest", || reached("masquerade.yaml", "web")),
        trial("example bridge: both families reach the guest", || reached("bridge.yaml", "db")),
        trial("example ports: only the declared port and ping reach the guest", ports),
        // spec: NET-20, L2-STORY
        trial("example two-nics: two guests meet on a layer-2 network", two_nics),
        // spec: DISK-1
        trial("example containerdisk: BIOS boots the disk, an empty disk is there", containerdisk),
        // spec: DISK-1
        trial("example cloud-init: the volume is labelled cidata, with user data", cloud_init),
        // spec: RUN-12
        trial("example run-strategies: each does its own when the guest powers off", run_strategies),
        trial("example service: the Service's address and node port reach the guest", service),
    ]
}

/// Runs an example in the background.
fn run(host: &Host, file: &str) -> String {
    let path = tests::workspace().join("examples").join(file).display().to_string();
    host.world.tapvisor(&["run", "--detach", "-f", &path]).assert_ok();
    path
}

fn remove(host: Host, path: &str) {
    host.world.tapvisor(&["rm", "-f", path]).assert_ok();
    host.assert_nothing_left();
}

fn demo() {
    let host = Host::new();
    let path = run(&host, "demo.yaml");
    for guest in [host.guest("web"), host.guest("db")] {
        let _ = (guest.lease4("eth0"), guest.lease6("eth0"));
        host.assert_reached(&guest, "-4");
        host.assert_reached(&guest, "-6");
    }
    remove(host, &path);
}

/// The built-in network, on a host without any other project's plugins.
fn reached(file: &str, name: &str) {
    let host = Host::new();
    host.world
        .sh("mount -t tmpfs tmpfs /usr/lib/cni; [ ! -e /opt/cni/bin ] || mount -t tmpfs tmpfs /opt/cni/bin")
        .assert_ok();
    let path = run(&host, file);
    let guest = host.guest(name);
    let _ = (guest.lease4("eth0"), guest.lease6("eth0"));
    host.assert_reached(&guest, "-4");
    host.assert_reached(&guest, "-6");
    remove(host, &path);
}

fn ports() {
    let host = Host::new();
    let path = run(&host, "ports.yaml");
    let web = host.guest("web");
    let _ = (web.lease4("eth0"), web.lease6("eth0"));
    let _ = web.ok("httpd -p '[::]:81' -h /www");
    for family in ["-4", "-6"] {
        host.assert_reached(&web, family);
        let address = web.pod_address(family);
        host.world.run(&["ping", "-c", "1", "-W", "5", &address]).assert_ok();
        let other = url(&address).replace("/\n", "").trim_end_matches('/').to_owned() + ":81/";
        let refused = host.world.run(&["timeout", "60", "busybox", "wget", "-qO-", &other]);
        assert!(!refused.is_ok() && refused.stderr().contains("refused"), "{}", refused.account());
    }
    remove(host, &path);
}

fn two_nics() {
    let host = Host::new();
    let path = run(&host, "two-nics.yaml");
    let (left, right) = (host.guest("left"), host.guest("right"));
    // What the page says is typed at their consoles.
    let page = std::fs::read_to_string(tests::workspace().join("bridge/LAYER2.md")).unwrap();
    for (guest, address) in [(&left, "203.0.113.1"), (&right, "203.0.113.2")] {
        assert_eq!(guest.lease4("eth0").address, "10.0.2.2/24");
        let typed = format!("ip addr add {address}/24 dev eth1");
        assert!(page.contains(&typed), "{typed}");
        let _ = guest.ok(&typed);
    }
    let _ = right.ok("ping -c 2 -W 5 203.0.113.1");
    let page = right.ok("timeout 60 wget -qO- http://203.0.113.1/");
    assert!(page.contains("asked by [::ffff:203.0.113.2]"), "{page}");
    assert!(!page.contains("eth1 10."), "{page}");
    let listed = host.world.tapvisor(&["net", "inspect", "blue", "-o", "json"]).json();
    let segment = &listed["items"][0];
    let vms: BTreeSet<_> = segment["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["owner"]["vm"].clone())
        .map(|vm| vm.to_string())
        .collect();
    let both = ["\"default/left\"", "\"default/right\""].map(str::to_owned);
    assert_eq!((segment["name"].as_str(), vms), (Some("br-blue"), BTreeSet::from(both)), "{listed}");
    let macs =
        host.world.sh("bridge -j fdb show br br-blue | jq -r '.[] | select(.state != \"permanent\") | .mac'").text();
    assert!(macs.lines().count() >= 2 && macs.lines().all(|mac| listed.to_string().contains(mac)), "{macs} {listed}");
    let text = host.world.tapvisor(&["net", "ls"]).text();
    assert!(text.lines().any(|line| line.starts_with("br-blue ") && line.contains(" blue ")), "{text}");
    assert!(text.contains("tapvisor-default"), "{text}");
    host.world.tapvisor(&["net", "inspect", "nowhere"]).assert_fails(4, &["nowhere: no bridge"]);
    remove(host, &path);
}

fn containerdisk() {
    let host = Host::new();
    let path = run(&host, "containerdisk.yaml");
    let disk = host.guest("disk");
    assert_eq!(disk.lease4("eth0").address, "10.0.2.2/24");
    let _ = disk.ok("grep guest.disk=yes /proc/cmdline");
    let sizes = disk.ok("cat /sys/block/vda/size /sys/block/vdb/size");
    assert_eq!(sizes.lines().collect::<Vec<_>>(), ["98304", "131072"], "48 MiB and 64 MiB in sectors");
    // Writes are thrown away with the VM.
    let _ = disk.ok("mkdir -p /mnt; mount -t vfat /dev/vda1 /mnt; echo kept >/mnt/mark; umount /mnt");
    host.world.tapvisor(&["restart", "disk"]).assert_ok();
    let _ = disk.wait_told("ready", 2);
    let _ = disk.ok("mkdir -p /mnt; mount -t vfat /dev/vda1 /mnt && [ ! -e /mnt/mark ]");
    remove(host, &path);
}

fn cloud_init() {
    let host = Host::new();
    let path = run(&host, "cloud-init.yaml");
    let seeded = host.guest("seeded");
    let _ = seeded.wait_told("ready", 1);
    // The label is in the file system's first sectors, whatever its kind.
    let _ = seeded.ok("head -c 65536 /dev/vda | grep -aiq cidata");
    let files =
        seeded.ok("mkdir -p /mnt; mount -o ro /dev/vda /mnt && cat /mnt/user-data /mnt/meta-data /mnt/network-config");
    for word in ["#cloud-config", "hostname: seeded", "instance-id", "version: 2"] {
        assert!(files.contains(word), "{word} is not in\n{files}");
    }
    remove(host, &path);
}

fn run_strategies() {
    let host = Host::new();
    let path = run(&host, "run-strategies.yaml");
    let status = |name: &str| {
        let list = host.world.tapvisor(&["ps", "-o", "json"]).json();
        let item = list["items"].as_array().unwrap().iter().find(|item| item["name"] == name).cloned();
        item.map_or_else(String::new, |item| item["status"].as_str().unwrap().to_lowercase())
    };
    let becomes = |name: &str, word: &str| {
        wait_for(&format!("{name} to be {word}"), Duration::from_secs(60), || (status(name) == word).then_some(()));
    };
    for name in ["by-hand", "halted"] {
        becomes(name, "stopped");
    }
    let guests = ["always", "once", "on-failure"].map(|name| host.guest(name));
    for guest in &guests {
        let _ = guest.wait_told("ready", 1);
    }
    for guest in &guests {
        guest.type_line("poweroff -f");
    }
    let _ = guests[0].wait_told("ready", 2);
    becomes("once", "succeeded");
    becomes("on-failure", "succeeded");
    host.world.tapvisor(&["start", "by-hand"]).assert_ok();
    let by_hand = host.guest("by-hand");
    let _ = by_hand.wait_told("ready", 1);
    by_hand.type_line("poweroff -f");
    becomes("by-hand", "stopped");
    remove(host, &path);
}

fn service() {
    let host = Host::new();
    let path = run(&host, "service.yaml");
    let web = host.guest("web");
    let _ = (web.lease4("eth0"), web.lease6("eth0"));
    let rules = host.world.run(&["nft", "list", "table", "inet", "tapvisor-services"]).text();
    let service = rules
        .split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'))
        .find(|word| word.starts_with("172.30.78."))
        .unwrap_or_else(|| panic!("no address of the Service in\n{rules}"));
    let at_the_host = ["192.0.2.2:30080", "[2001:db8:1::2]:30080", "127.0.0.1:30080", "[::1]:30080"];
    for address in at_the_host.map(str::to_owned).into_iter().chain([format!("{service}:8080")]) {
        let page = host.world.run(&["timeout", "60", "busybox", "wget", "-qO-", &format!("http://{address}/")]).text();
        assert!(page.starts_with("guest web\n"), "{page}");
    }
    from_outside(&host, &web);
    remove(host, &path);
}

/// The node port as a neighbour on the uplink reaches it.
fn from_outside(host: &Host, web: &Guest<'_>) {
    for address in ["192.0.2.2:30080", "[2001:db8:1::2]:30080"] {
        let outside = host.world.named("outside");
        let page = outside.run(&["timeout", "60", "busybox", "wget", "-qO-", &format!("http://{address}/")]).text();
        assert!(page.starts_with(&format!("guest {}\n", web.name())), "{page}");
    }
    assert!(Outside::V4.starts_with("198.51.100."));
}
