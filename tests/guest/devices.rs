//! Devices as the guest finds them: models of NICs, their links, boot by network, disks that are made, the watchdog.

use std::net::UdpSocket;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Outside, dist_file, serve_tftp, trial, wait_for, wait_for_or};

use crate::manifest::{Vm, definition};
use crate::vm::Host;

/// Longest until what was just brought about is told.
const MOMENT: Duration = Duration::from_secs(90);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CLI-19
        trial("a guest with startStrategy Paused starts paused, after a restart too", starts_paused),
        // spec: LAUNCH-7, LAUNCH-12, NIC-8
        trial("a NIC that is down has no carrier and no lease; acpiIndex is seen", link_down),
        // spec: NIC-8
        trial("NICs and disks are at the PCI addresses that they ask for", pci_addresses),
        // spec: DHCP-12
        trial("the lease has the host's real name server and those of dnsConfig", name_servers),
        // spec: RUN-13
        trial("a full disk pauses the guest with its reason until unpause", full_disk),
        // spec: LAUNCH-7
        trial("a watchdog ends the guest and its run strategy starts it again", watchdog),
        // spec: CLI-18, LAUNCH-7
        trial("a created hostDisk is private with any umask and outlives its VM", created_disk),
        // spec: NIC-7
        trial("VMs with bootOrder on a NIC of each model boot from the network", by_network),
    ]
}

/// The only VM of the trial, as `ps` lists it, once it has this status and `is_wanted`.
fn wait_status(host: &Host, wanted: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
    let found = || Some(status(host)).filter(|vm| vm["status"] == wanted && is_wanted(vm));
    let account = || format!("{:#}\n{}", status(host), host.guest("many").account());
    wait_for_or(&format!("the VM to be {wanted}"), MOMENT, found, account).0
}

fn starts_paused() {
    let host = Host::new();
    let vm = Vm::new("many", "masquerade").strategy("Always").set("", "startStrategy", json!("Paused"));
    let started = host.run(&[vm], None);
    assert!(started.is_ok() && started.stderr().contains("many: paused; `tapvisor unpause"), "{}", started.account());
    let many = host.guest("many");
    assert_eq!((&wait_status(&host, "Paused", |_| true)["reason"], many.console()), (&Value::Null, String::new()));
    host.world.tapvisor(&["unpause", "many"]).assert_ok();
    // Its shell reads what is typed.
    let _ = many.ok("true");
    many.type_line("poweroff -f");
    let _ = wait_status(&host, "Paused", |vm| vm["restarts"] == 1);
    host.world.tapvisor(&["unpause", "many"]).assert_ok();
    let _ = many.wait_told("ready", 2);
    host.assert_removed(&["many"]);
}

fn link_down() {
    let host = Host::new();
    let ipam = json!({"type": "host-local", "dataDir": "/run/test-ipam", "subnet": "10.84.0.0/24"});
    let cable = json!({"cniVersion": "1.0.0", "type": "ptp", "ipam": ipam});
    let vm = Vm::new("many", "masquerade")
        .set("/domain/devices/interfaces/0", "acpiIndex", json!(7))
        .on("off", json!({"masquerade": {}, "state": "down", "pciAddress": "0000:81:00.0"}));
    host.world.write("/run/vms.yaml", definition("off", &cable) + &vm.yaml());
    host.world.tapvisor(&["run", "--detach", "-f", "/run/vms.yaml"]).assert_ok();
    let many = host.guest("many");
    let _ = many.lease4("eth0");
    let carriers = many.ok("cat /sys/class/net/eth0/carrier /sys/class/net/eth1/carrier");
    assert_eq!(carriers.lines().collect::<Vec<_>>(), ["1", "0"]);
    assert_eq!(many.told("lease4 eth1"), Vec::<String>::new());
    assert_eq!(many.ok("cat /sys/class/net/eth0/device/../acpi_index").trim(), "7");
    assert_eq!(many.ok("basename $(readlink -f /sys/class/net/eth1/device/..)").trim(), "0000:81:00.0");
    let launcher = dist_file("tapvisor-launcher");
    for (state, carrier) in [("up", "1"), ("down", "0")] {
        let ctl = format!("'{}' ctl --dir /run/tapvisor/vms/default.many/launcher", launcher.display());
        host.world.sh(&format!("{ctl} link off {state}")).assert_ok();
        let status = host.world.sh(&format!("{ctl} status")).json();
        assert_eq!(status["nics"][1]["linkDown"], state == "down", "{status:#}");
        let is_seen = || (many.ok("cat /sys/class/net/eth1/carrier").trim() == carrier).then_some(());
        wait_for(&format!("the guest to see its link {state}"), MOMENT, is_seen);
    }
    host.assert_removed(&["many"]);
}

fn pci_addresses() {
    let host = Host::new();
    let cable = |name: &str, subnet: &str| {
        let ipam = json!({"type": "host-local", "dataDir": "/run/test-ipam", "subnet": subnet});
        definition(name, &json!({"cniVersion": "1.0.0", "type": "ptp", "ipam": ipam}))
    };
    let disk = json!({"emptyDisk": {"capacity": "1Mi"}});
    let (interface, of_disk) = ("/domain/devices/interfaces/0", "/domain/devices/disks");
    // The conventional bus of a device without PCI Express, one alone behind a port, and one on the root complex.
    let vm = Vm::new("many", "masquerade")
        .set(interface, "model", json!("e1000"))
        .set(interface, "pciAddress", json!("0000:02:01.0"))
        .on("far", json!({"masquerade": {}, "pciAddress": "0000:04:00.0"}))
        .on("next", json!({"masquerade": {}}))
        .disk("root", disk.clone())
        .disk("more", disk)
        .set(&format!("{of_disk}/0/disk"), "pciAddress", json!("0000:00:0b.0"))
        .set(&format!("{of_disk}/1/disk"), "pciAddress", json!("0000:05:00.0"));
    let definitions = cable("far", "10.84.0.0/24") + &cable("next", "10.85.0.0/24");
    host.world.write("/run/vms.yaml", definitions + &vm.yaml());
    host.world.tapvisor(&["run", "--detach", "-f", "/run/vms.yaml"]).assert_ok();
    let many = host.guest("many");
    let devices = |class: &str| {
        let told = many.ok("cd /sys/bus/pci/devices; for at in *; do echo $at $(cat $at/vendor $at/class); done");
        let of_class = told.lines().filter(|line| line.ends_with(class)).map(|line| line[..19].to_owned());
        of_class.collect::<Vec<_>>()
    };
    let virtio_nics = ["0000:03:00.0 0x1af4", "0000:04:00.0 0x1af4"];
    assert_eq!(devices("0x020000"), [&["0000:02:01.0 0x8086"], &virtio_nics[..]].concat());
    assert_eq!(devices("0x010000"), ["0000:00:0b.0 0x1af4", "0000:05:00.0 0x1af4"]);
    host.assert_removed(&["many"]);
}

fn name_servers() {
    let host = Host::new();
    // As systemd-resolved has it: a server on the loopback, and behind it another.
    host.world.write("/etc/resolv.conf", "nameserver 127.0.0.53\n");
    host.world.write("/run/systemd/resolve/resolv.conf", "nameserver 192.0.2.53\n");
    let vm = Vm::new("many", "masquerade").set("", "dnsPolicy", json!("Default")).set(
        "",
        "dnsConfig",
        json!({"nameservers": ["192.0.2.99"], "searches": ["example.org"]}),
    );
    host.run(&[vm], None).assert_ok();
    let many = host.guest("many");
    let _ = many.lease4("eth0");
    let lease = many.wait_told("lease4 eth0", 1);
    assert!(lease.contains(" dns 192.0.2.53 192.0.2.99 search example.org "), "{lease}");
    host.assert_removed(&["many"]);
}

/// A VM with a disk of 8 MiB that is made in a folder with room for `mebibytes`, on a host whose root makes files private.
fn run_with_new_disk(host: &Host, mebibytes: u32, vm: Vm) {
    let disk = json!({"hostDisk": {"path": "/run/disks/made/new.img", "type": "DiskOrCreate", "capacity": "8Mi"}});
    host.world.sh(&format!("mkdir /run/disks; mount -t tmpfs -o size={mebibytes}m tmpfs /run/disks")).assert_ok();
    host.world.write("/run/vms.yaml", vm.disk("root", disk).yaml());
    let program = dist_file("tapvisor");
    host.world.sh(&format!("umask 077; '{}' run --detach -f /run/vms.yaml", program.display())).assert_ok();
    let _ = host.guest("many").wait_told("ready", 1);
}

fn full_disk() {
    let host = Host::new();
    run_with_new_disk(&host, 4, Vm::new("many", "masquerade"));
    let many = host.guest("many");
    many.type_line("dd if=/dev/zero of=/dev/vda bs=64k count=96 conv=fsync; echo written-$?");
    let paused = wait_status(&host, "Paused", |vm| vm["reason"].is_string());
    let reason = paused["reason"].as_str().unwrap_or_default().to_lowercase();
    assert!(reason.starts_with("disk root: ") && reason.contains("no space left"), "{reason}");
    let told = host.world.tapvisor(&["explain", "many"]).stdout().to_lowercase();
    assert!(told.contains("processors are stopped") && told.contains("no space left"), "{told}");
    host.world.sh("mount -o remount,size=16m /run/disks").assert_ok();
    host.world.tapvisor(&["unpause", "many"]).assert_ok();
    wait_for("the write to end", MOMENT, || many.console().contains("written-0").then_some(()));
    host.assert_removed(&["many"]);
}

fn watchdog() {
    let host = Host::new();
    let vm = Vm::new("many", "masquerade").strategy("RerunOnFailure").set(
        "/domain/devices",
        "watchdog",
        json!({"name": "dog", "i6300esb": {"action": "poweroff"}}),
    );
    host.run(&[vm], None).assert_ok();
    let many = host.guest("many");
    let _ = many.wait_told("ready", 1);
    many.type_line(WATCHDOG);
    let _ = wait_status(&host, "Running", |vm| vm["restarts"] == 1);
    let _ = many.wait_told("ready", 2);
    let log = host.world.run(&["cat", "/run/tapvisor/vms/default.many/supervisor.log"]).text();
    assert!(log.contains("the guest stopped feeding its watchdog"), "{log}");
    host.assert_removed(&["many"]);
}

fn created_disk() {
    let host = Host::new();
    run_with_new_disk(&host, 16, Vm::new("many", "masquerade"));
    let many = host.guest("many");
    assert_eq!(many.ok("cat /sys/block/vda/size").trim(), "16384", "8 MiB in sectors");
    let _ = many.ok("echo kept-by-the-disk | dd of=/dev/vda conv=fsync");
    host.remove(&["many"]).assert_ok();
    let kept = std::fs::read(host.world.path("/run/disks/made/new.img")).expect("a disk of the host outlives its VM");
    assert_eq!(host.world.sh("stat -c %a /run/disks/made/new.img").text().trim(), "600");
    assert!(kept.len() == 8 << 20 && kept.starts_with(b"kept-by-the-disk"), "{} bytes", kept.len());
    host.assert_nothing_left();
}

fn status(host: &Host) -> Value {
    host.world.tapvisor(&["ps", "-o", "json"]).json()["items"][0].clone()
}

/// Sets the i6300esb's two stages to half a second each and lets it run (Intel 6300ESB datasheet, chapter 16). The guest's
/// kernel has no driver for it: each register but the last is written after the two words that unlock it.
const WATCHDOG: &str = r"d=$(dirname $(grep -l 0x25ab /sys/bus/pci/devices/*/device)); echo 1 >$d/enable; b=$(head -1 $d/resource | cut -d' ' -f1); set_to() { devmem $((b + 12)) 16 0x80; devmem $((b + 12)) 16 0x86; devmem $((b + $1)) $2 $3; }; set_to 0 32 0x200; set_to 4 32 0x200; set_to 12 16 0x100; printf '\002' | dd of=$d/config bs=1 seek=104 conv=notrunc";

fn by_network() {
    let host = Host::new();
    // iPXE is the guest that has a driver for each; it tells by which chip it came.
    let models = [("virtio", "virtio-net"), ("e1000", "82540em"), ("e1000e", "82574l"), ("rtl8139", "rtl8139")];
    let vm = |(model, _): &(&str, &str)| {
        let options = json!({"tftpServerName": Outside::V4, "bootFileName": format!("{model}.ipxe")});
        Vm::new(model, "masquerade")
            .set("/domain", "firmware", json!({}))
            .set("/domain/memory", "guest", json!("64Mi"))
            .set("/domain/devices/interfaces/0", "model", json!(model))
            .set("/domain/devices/interfaces/0", "bootOrder", json!(1))
            .set("/domain/devices/interfaces/0", "dhcpOptions", options)
            .set("", "terminationGracePeriodSeconds", json!(0))
    };
    let tftp = host.world.named("outside").enter(|| UdpSocket::bind((Outside::V4, 69)).expect("port 69 is free"));
    let script = b"#!ipxe\necho booted as ${net0/ip} of ${net0/hostname} by ${net0/chip}\nshell\n";
    let asked = std::thread::spawn(move || serve_tftp(&tftp, script, 4));
    host.run(&models.iter().map(vm).collect::<Vec<_>>(), None).assert_ok();
    for (model, chip) in models {
        let guest = host.guest(model);
        let said = format!("booted as 10.0.2.2 of {model} by ");
        let booted = || guest.console().split_once(&said)?.1.contains('\n').then_some(());
        wait_for(&format!("{model} to boot by the network"), Duration::from_secs(240), booted);
        let console = guest.console().to_lowercase();
        assert!(console.contains(&format!("{said}{chip}")), "{console}");
    }
    let files: Vec<_> = asked.join().expect("the server does not panic").into_iter().collect();
    assert_eq!(files, ["e1000.ipxe", "e1000e.ipxe", "rtl8139.ipxe", "virtio.ipxe"]);
    host.assert_removed(&models.map(|(model, _)| model));
}
