//! The VM process alone, as a pod's container would run it: uid 107, no capabilities, taps wired by other people's tools.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{KERNEL_ARGUMENTS, Ns, Ran, World, cache_file, dist_file, trial, wait_for};
use wiring::Request;

const BOOT: Duration = Duration::from_secs(180);
const MOMENT: Duration = Duration::from_secs(60);
/// A uid and no capabilities, as in a pod of the level *restricted*.
const AS_IN_A_POD: [&str; 7] = [
    "setpriv",
    "--reuid=107",
    "--regid=107",
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: ISO-9, LAUNCH-9
        trial("an unprivileged launcher boots, serves leases, powers off on SIGTERM", boots_and_stops),
        // spec: DISK-1
        trial("a guest with two queues and disks on every bus boots by its firmware", boots_from_disk),
        // spec: VOL-11
        trial("a disk that a VM writes to is refused to a second VM, which says so", in_use),
        // spec: DISK-10
        trial("a guest boots by its firmware from a disk on USB", boots_from_usb),
        // spec: LAUNCH-4
        trial("a guest's panic ends its launcher with 7 and its reset does not", resets_and_panics),
        trial("a killed launcher takes QEMU with it", dies_together),
        // spec: NIC-1, LAUNCH-8
        trial("a launcher refuses a namespace that is not wired for it and says why", refuses),
    ]
}

/// A pod's namespace with one masquerade NIC, a node for tun and a folder for the VM.
struct Pod<'w> {
    ns: Ns<'w>,
    queues: u16,
}

impl<'w> Pod<'w> {
    fn new(world: &'w World, queues: u16) -> Self {
        let pod = Self { ns: world.ns("pod"), queues };
        let mode = if queues > 1 { "multi_queue" } else { "" };
        let digest = pod.request().digest();
        let script = format!(
            r#"mount -t tmpfs tmpfs /dev/net; mknod -m 0666 /dev/net/tun c 10 200
            mkdir -p -m 0755 /run/guest /run/vm; chown 107:107 /run/vm; cp '{kernel}' '{initrd}' '{disk}' /run/guest/
            chmod 0444 /run/guest/*; cp '{launcher}' /run/tapvisor-launcher
            ip netns exec pod bash -eu <<'END'
            ip link add eth0 type veth peer name far; ip address add 10.244.1.5/24 dev eth0; ip link set eth0 up
            ip tuntap add k6t-eth0 mode tap user 107 group 107 {mode}; ip tuntap add svc-eth0 mode tap user 107 group 107
            ip link set k6t-eth0 address 02:00:00:00:00:00 addrgenmode none up; ip link set svc-eth0 addrgenmode none up
            ip address add 10.0.2.1/24 dev k6t-eth0; ip address add fd10:0:2::1/120 dev k6t-eth0 nodad
            ip address add fe80::ff:fe00:0/64 dev k6t-eth0 nodad
            nft -f - <<'NFT'
            table netdev t {{
                chain vm {{
                    type filter hook ingress device "k6t-eth0" priority 0
                    udp dport {{ 67, 547 }} fwd to "svc-eth0"
                    icmpv6 type nd-router-solicit fwd to "svc-eth0"
                }}
                chain svc {{
                    type filter hook ingress device "svc-eth0" priority 0
                    fwd to "k6t-eth0"
                }}
            }}
NFT
            ip link set k6t-eth0 alias 'tapvisor/3 {digest}'
END"#,
            kernel = cache_file("guest/vmlinuz").display(),
            initrd = cache_file("guest/initrd.img").display(),
            disk = cache_file("guest/disk.img").display(),
            launcher = dist_file("tapvisor-launcher").display(),
        );
        world.sh(&script).assert_ok();
        pod
    }

    fn request(&self) -> Request {
        let text = json!({"version": 1, "owner": {"uid": 107, "gid": 107}, "interfaces":
            [{"name": "default", "podInterface": "eth0", "binding": "masquerade", "mac": "02:11:22:33:44:55",
                "queues": self.queues}]});
        Request::from_value(&text).expect("an honest request")
    }

    /// The machine file with `changes` to the machine.
    fn write_machine(&self, changes: &Value) {
        let mut machine = json!({"namespace": "default", "name": "web", "hostname": "web", "disks": [], "rng": true,
            "uuid": "5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f", "cpu": {"sockets": 1, "cores": self.queues, "threads": 1},
            "memoryBytes": 192 << 20, "serialConsole": true, "gracePeriodSeconds": 30, "emulation": "required",
            "boot": {"kernel": {"kernel": "/run/guest/vmlinuz", "initrd": "/run/guest/initrd.img",
                "commandLine": KERNEL_ARGUMENTS}},
            "nics": [{"name": "default", "model": "virtio"}]});
        for (key, value) in changes.as_object().expect("changes are an object") {
            machine[key] = value.clone();
        }
        let file = json!({"version": 2, "machine": machine, "wiring": self.request()});
        self.ns.world().write("/run/vm.json", file.to_string());
    }

    fn command(&self) -> std::process::Command {
        let mut command = self.ns.command(AS_IN_A_POD[0]);
        command.args(&AS_IN_A_POD[1..]).args([
            "/run/tapvisor-launcher",
            "launch",
            "--machine",
            "/run/vm.json",
            "--dir",
            "/run/vm",
        ]);
        command
    }

    fn launch(&self, changes: &Value) -> Launched<'_> {
        self.write_machine(changes);
        let null = || Stdio::null();
        let child = self.command().stdin(null()).stdout(null()).stderr(null()).spawn().expect("ip starts");
        Launched { pod: self, child }
    }
}

/// A launcher that runs.
struct Launched<'p> {
    pod: &'p Pod<'p>,
    child: Child,
}

impl Launched<'_> {
    fn console(&self) -> String {
        std::fs::read_to_string(self.pod.ns.world().path("/run/vm/console.log")).unwrap_or_default()
    }

    /// Waits until the guest has told `text` so many times.
    fn wait_told(&self, text: &str, times: usize) {
        wait_for(text, BOOT, || (self.console().matches(text).count() >= times).then_some(()));
    }

    fn type_line(&self, line: &str) {
        let mut stream = self.socket("console.sock");
        stream.write_all(format!("{line}\n").as_bytes()).expect("the console takes what is typed");
    }

    fn ask(&self, request: &Value) -> Value {
        let mut stream = self.socket("control.sock");
        stream.write_all(format!("{request}\n").as_bytes()).expect("the control socket takes a request");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("the control socket answers");
        serde_json::from_str(&line).expect("an answer is JSON")
    }

    fn socket(&self, name: &str) -> UnixStream {
        UnixStream::connect(self.pod.ns.world().path(format!("/run/vm/{name}"))).expect("the launcher listens")
    }

    fn pid_of(&self, program: &str) -> Option<String> {
        let found = self.pod.ns.world().run(&["pgrep", "-x", "-u", "107", program]);
        found.is_ok().then(|| found.stdout().trim().to_owned())
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid_of("tapvisor-launch").expect("the launcher runs");
        self.pod.ns.world().run(&["kill", signal, &pid]).assert_ok();
    }

    /// Its exit code and what it left in outcome.json.
    fn end(mut self) -> (Option<i32>, Value) {
        let (status, _) =
            wait_for("the launcher's end", MOMENT, || self.child.try_wait().expect("a child is waited for"));
        let outcome = std::fs::read(self.pod.ns.world().path("/run/vm/outcome.json")).unwrap_or_default();
        (status.code(), serde_json::from_slice(&outcome).unwrap_or_default())
    }
}

fn boots_and_stops() {
    let world = World::bare();
    let pod = Pod::new(&world, 1);
    let vm = pod.launch(&json!({}));
    vm.wait_told("GUEST lease4 eth0 10.0.2.2/24 via 10.0.2.1", 1);
    vm.wait_told("GUEST lease6 eth0 fd10:0:2::2/128 via fe80::ff:fe00:0", 1);
    pod.ns.run(&["ping", "-c1", "-W5", "10.0.2.2"]).assert_ok();
    let status = vm.ask(&json!({"id": 7, "verb": "status"}));
    assert_eq!((&status["id"], &status["ok"]["state"]), (&json!(7), &json!("running")), "{status}");
    assert_eq!(status["ok"]["nics"][0]["service"]["ipv6"]["leased"], json!(true), "{status}");
    let process = format!("/proc/{}/status", vm.pid_of("qemu-system-x86").expect("QEMU runs"));
    let process = std::fs::read_to_string(world.path(process)).expect("its status is readable");
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(process.contains(line), "{line} is not in {process}");
    }
    ctl_answers(&vm);
    vm.signal("-TERM");
    let (code, outcome) = vm.end();
    assert_eq!((code, &outcome["outcome"], &outcome["requested"]), (Some(0), &json!("poweredOff"), &json!(true)));
}

/// What `kubectl exec` executes in a launcher pod, as the launcher's user.
fn ctl_answers(vm: &Launched<'_>) {
    let ctl = |words: &[&str]| {
        let mut command = vm.pod.ns.command(AS_IN_A_POD[0]);
        command.args(&AS_IN_A_POD[1..]).args(["/run/tapvisor-launcher", "ctl", "--dir", "/run/vm"]).args(words);
        command
    };
    let state = || Ran::of(&mut ctl(&["status"])).json()["state"].clone();
    let counters = Ran::of(&mut ctl(&["counters"])).json();
    let (nic, process) = (&counters["nics"][0], &counters["process"]);
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    assert!(number(&nic["sent"]["packets"]) > 1 && number(&nic["received"]["bytes"]) > 100, "{counters}");
    // The guest's memory alone is more, and a guest that has booted took longer.
    let (resident, user) = (number(&process["residentBytes"]), number(&process["userMilliseconds"]));
    assert!(resident > 16 << 20 && user > 100, "{counters}");
    Ran::of(&mut ctl(&["probe"])).assert_ok();
    assert_eq!(state(), json!("running"));
    Ran::of(&mut ctl(&["pause"])).assert_ok();
    assert_eq!(state(), json!("paused"));
    Ran::of(&mut ctl(&["pause"])).assert_fails(1, &["/run/vm", "paused"]);
    Ran::of(&mut ctl(&["unpause"])).assert_ok();
    let typed = Ran::with_input(&mut ctl(&["console"]), b"echo answer-$((40+2))\n");
    assert!(typed.text().contains("answer-42"), "the console says what the guest's shell says");
    let mut nowhere = vm.pod.ns.command("/run/tapvisor-launcher");
    Ran::of(nowhere.args(["ctl", "--dir", "/run/guest", "status"])).assert_fails(1, &["/run/guest"]);
}

fn boots_from_disk() {
    let world = World::bare();
    let pod = Pod::new(&world, 2);
    let disk = |name: &str, bus: &str, source: Value| json!({"name": name, "bus": bus, "source": source});
    let mut medium = disk("medium", "sata", json!({"file": {"path": "/run/guest/disk.img", "format": "raw"}}));
    (medium["cdrom"], medium["readOnly"]) = (json!(true), json!(true));
    let vm = pod.launch(&json!({"boot": "bios", "disks": [
        disk("root", "virtio", json!({"overlay": {"path": "/run/guest/disk.img", "format": "raw"}})),
        medium,
        disk("empty", "scsi", json!({"empty": {"capacityBytes": 64 << 20}})),
        disk("seed", "virtio", json!({"noCloud": {"userData": "#cloud-config\nkey: value-of-user\n"}})),
    ]}));
    let before = std::fs::read(world.path("/run/guest/disk.img")).expect("the image is readable");
    vm.wait_told("GUEST lease4 eth0", 1);
    for disk in [format!("vda {}", before.len()), "vdb 1048576".to_owned(), format!("sda {}", 64 << 20)] {
        assert!(vm.console().contains(&format!("GUEST disk {disk}")), "{disk} is not in {}", vm.console());
    }
    vm.type_line(
        "mount -t vfat /dev/vdb /tmp; cat /tmp/user-data; echo queues $(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)",
    );
    vm.wait_told("key: value-of-user", 1);
    vm.wait_told("queues 2", 1);
    vm.type_line("dd if=/dev/urandom of=/dev/vda bs=1M count=2 conv=fsync; echo written $((40 + 2))");
    vm.wait_told("written 42", 1);
    let stopped = vm.ask(&json!({"verb": "stop", "graceSeconds": 0}));
    assert_eq!(stopped, json!({"id": null, "ok": {}}));
    let (code, outcome) = vm.end();
    assert_eq!((code, &outcome["outcome"]), (Some(0), &json!("killed")));
    assert!(
        std::fs::read(world.path("/run/guest/disk.img")).is_ok_and(|after| after == before),
        "the image was written to"
    );
}

/// A loop device over a file, which goes with this.
struct Loop(String);

impl Loop {
    fn of(file: &Path) -> Self {
        Self(Ran::of(Command::new("losetup").args(["--find", "--show"]).arg(file)).text().trim().to_owned())
    }

    /// Makes another node of it, as a container has one.
    fn node_in(&self, world: &World, path: &str) {
        let number = std::fs::metadata(&self.0).expect("it was just made").rdev();
        let [major, minor] =
            [nix::sys::stat::major(number), nix::sys::stat::minor(number)].map(|part| part.to_string());
        world.run(&["mknod", "-m", "0666", path, "b", &major, &minor]).assert_ok();
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// As two pods on one claim of one node have it: a file system in common, or a node each of one block device.
fn in_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, open) = (folder.path().join("disk.img"), std::fs::Permissions::from_mode);
    for file in [&path, &folder.path().join("device")] {
        std::fs::write(file, vec![0; 1 << 20]).expect("a disk");
        std::fs::set_permissions(file, open(0o666)).expect("a disk for user 107");
    }
    std::fs::set_permissions(folder.path(), open(0o755)).expect("a folder for user 107");
    let device = Loop::of(&folder.path().join("device"));
    for path in [&*path, Path::new("/dev/net/disk")] {
        let worlds = [World::bare(), World::bare()];
        let pods = worlds.each_ref().map(|world| Pod::new(world, 1));
        worlds.iter().for_each(|world| device.node_in(world, "/dev/net/disk"));
        let disk = json!({"name": "data", "bus": "virtio", "source": {"file": {"path": path, "format": "raw"}}});
        let machine = json!({"boot": "bios", "memoryBytes": 1 << 20, "disks": [disk]});
        let first = pods[0].launch(&machine);
        let running = |vm: &Launched<'_>| vm.ask(&json!({"verb": "status"}))["ok"]["state"] == "running";
        let control = worlds[0].path("/run/vm/control.sock");
        wait_for("the first VM", BOOT, || (control.exists() && running(&first)).then_some(()));
        let (code, outcome) = pods[1].launch(&machine).end();
        assert_eq!((code, &outcome["outcome"]), (Some(1), &json!("failed")), "{outcome}");
        assert!(outcome["reason"].as_str().is_some_and(|reason| reason.contains("lock")), "{outcome}");
        assert!(running(&first));
        first.ask(&json!({"verb": "stop", "graceSeconds": 0}));
        assert_eq!(first.end().0, Some(0));
    }
}

fn boots_from_usb() {
    let world = World::bare();
    let pod = Pod::new(&world, 1);
    let source = json!({"overlay": {"path": "/run/guest/disk.img", "format": "raw"}});
    let vm = pod.launch(&json!({"boot": "bios", "disks": [{"name": "root", "bus": "usb", "source": source}]}));
    vm.wait_told("GUEST lease4 eth0", 1);
    vm.type_line(
        "for at in /sys/bus/pci/devices/*; do [ $(cat $at/class) != 0x0c0330 ] || echo controller ${at##*:}; done",
    );
    vm.wait_told("controller 07.1", 1);
    vm.ask(&json!({"verb": "stop", "graceSeconds": 0}));
    assert_eq!(vm.end().0, Some(0));
}

fn resets_and_panics() {
    let world = World::bare();
    let pod = Pod::new(&world, 1);
    let vm = pod.launch(&json!({}));
    vm.wait_told("GUEST lease4", 1);
    vm.type_line("reboot -f");
    vm.wait_told("GUEST lease4", 2);
    let status = vm.ask(&json!({"verb": "status"}));
    assert!(status["ok"]["resets"].as_u64() > Some(0), "{status}");
    vm.type_line("echo c >/proc/sysrq-trigger");
    let (code, outcome) = vm.end();
    assert_eq!((code, &outcome["outcome"], &outcome["requested"]), (Some(7), &json!("crashed"), &json!(false)));
}

fn dies_together() {
    let world = World::bare();
    let pod = Pod::new(&world, 1);
    let vm = pod.launch(&json!({}));
    vm.wait_told("GUEST boot", 1);
    vm.signal("-KILL");
    let gone = || vm.pid_of("qemu-system-x86").is_none().then_some(());
    wait_for("QEMU's end", MOMENT, gone);
    assert_eq!(vm.end().1, Value::Null, "a killed launcher leaves no outcome");
}

fn refuses() {
    let world = World::bare();
    let pod = Pod::new(&world, 1);
    pod.write_machine(&json!({}));
    // As kubelet leaves it for the container's user.
    world.write("/run/termination-log", "old");
    world.sh("chmod 0666 /run/termination-log").assert_ok();
    let refused = |breakage: &str, (code, verdict): (i32, &str), words: &[&str]| {
        pod.ns.sh(breakage).assert_ok();
        Ran::of(pod.command().args(["--termination-log", "/run/termination-log"])).assert_fails(code, words);
        let outcome = std::fs::read_to_string(world.path("/run/vm/outcome.json")).expect("an outcome is left");
        assert!(outcome.contains(&format!("\"outcome\":\"{verdict}\"")), "{outcome}");
        let message = std::fs::read_to_string(world.path("/run/termination-log")).expect("kubelet's file");
        assert_eq!(message, outcome, "the termination message is the outcome");
    };
    let (failed, not_wired) = ((1, "failed"), (8, "notWired"));
    refused("ip link set k6t-eth0 mtu 1400", failed, &["k6t-eth0", "MTU is 1400, expected 1500"]);
    refused(
        "ip link set k6t-eth0 mtu 1500 alias 'tapvisor/3 0000000000000000'",
        not_wired,
        &["another request", "wiring digest is 0000000000000000, expected"],
    );
    refused("ip link set k6t-eth0 alias ''", not_wired, &["was not wired", "k6t-eth0", "commit mark"]);
    refused("ip link delete k6t-eth0", not_wired, &["was not wired", "k6t-eth0 is not in the namespace"]);
    world.write("/run/vm.json", "{\"version\": 2}");
    Ran::of(&mut pod.command()).assert_fails(3, &["/run/vm.json"]);
}
