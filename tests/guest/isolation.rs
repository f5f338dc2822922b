//! What a process that a guest has taken over can do to other VMs and to the host: tried with the tools of the host, as the
//! VM's user, in the namespaces of its processes.

use std::time::Duration;

use libtest_mimic::Trial;
use tests::{Ran, trial, wait_for};

use crate::manifest::Vm;
use crate::vm::Host;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: ISO-1, ISO-3, ISO-6
        trial("a process of one VM can neither see nor touch another VM", walls),
        // spec: ISO-4
        trial("killing a launcher ends all that was ever started in its VM", ends_all),
        // spec: ISO-7
        trial("a VM process that floods its log and folder writes bounded bytes", floods),
    ]
}

/// The launcher of a VM, by the host's number.
fn launcher(host: &Host, name: &str) -> i64 {
    let status = std::fs::read(host.world.path(format!("/run/tapvisor/vms/default.{name}/status.json"))).unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    status["launcher"]["pid"].as_i64().unwrap()
}

fn user(host: &Host, name: &str) -> String {
    let script = format!("awk '/^Uid:/ {{print $2}}' /proc/{}/status", launcher(host, name));
    host.world.sh(&script).text().trim().to_owned()
}

/// A script as the VM's user, in all namespaces of its launcher.
fn inside(host: &Host, name: &str, script: &str) -> Ran {
    let (pid, user) = (launcher(host, name).to_string(), user(host, name));
    let script = format!("PATH=/usr/bin:/bin; {script}");
    let (setuid, setgid) = (format!("--setuid={user}"), format!("--setgid={user}"));
    host.world.run(&["nsenter", "-t", &pid, "-m", "-p", "-n", "-i", &setgid, &setuid, "sh", "-c", &script])
}

fn assert_fails(host: &Host, script: &str) {
    let ran = inside(host, "web", script);
    assert!(!ran.is_ok(), "a process of web may: {script}\n{}", ran.account());
}

fn two() -> Host {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade"), Vm::new("other", "masquerade")], None).assert_ok();
    for name in ["web", "other"] {
        let _ = host.guest(name).lease4("eth0");
    }
    host
}

fn walls() {
    let host = two();
    let users = [user(&host, "web"), user(&host, "other")];
    assert!(users[0] != users[1] && users.iter().all(|user| user.starts_with("19000000")), "{users:?}");
    // Its own: the first process is the launcher, its folder can be written to, nothing else of it.
    let seen =
        inside(&host, "web", "cat /proc/1/comm; ls /run/tapvisor/vms; ls /proc | grep -c '^[0-9]'; id -G").text();
    let seen: Vec<_> = seen.lines().collect();
    assert_eq!((seen[0], seen[1]), ("tapvisor-launch", "default.web"), "{seen:?}");
    assert!(seen[2].parse::<u32>().unwrap() <= 6, "processes of others are seen: {seen:?}");
    inside(
        &host,
        "web",
        "cd /run/tapvisor/vms/default.web; echo x >launcher/x && rm launcher/x && cat machine.json >/dev/null",
    )
    .assert_ok();
    let (other, pid) = ("/run/tapvisor/vms/default.other", launcher(&host, "other"));
    for script in [
        // Another VM, by its path or its number.
        format!("ls {other}"),
        format!("cat {other}/machine.json"),
        format!("kill -0 {pid}"),
        format!("cat /proc/{pid}/status"),
        "ls /run/tapvisor/vms/default.web/../default.other".to_owned(),
        // The host.
        "cat /etc/passwd".to_owned(),
        "ls /home".to_owned(),
        "ls /run/netns".to_owned(),
        "ls /var/lib".to_owned(),
        "echo x >/usr/x".to_owned(),
        "echo x >/x".to_owned(),
        "echo x >/run/x".to_owned(),
        "echo x >/dev/x".to_owned(),
        "cp /bin/true /run/tapvisor/vms/default.web/launcher/p && /run/tapvisor/vms/default.web/launcher/p".to_owned(),
        "ls /dev/net/tun".to_owned(),
        "cat /run/tapvisor/vms/default.web/status.json".to_owned(),
        "cat /run/tapvisor/vms/default.web/object.json".to_owned(),
        "mount -t tmpfs tmpfs /run".to_owned(),
        "echo 1 >/proc/sys/net/ipv4/ip_forward".to_owned(),
    ] {
        assert_fails(&host, &script);
    }
    outside(&host, &users[0], pid);
    confined(&host);
    host.assert_removed(&["web", "other"]);
}

/// The user alone, as if there were no namespaces: another VM's user has nothing of it.
fn outside(host: &Host, user: &str, other: i64) {
    let folder = "/run/tapvisor/vms/default.other";
    let scratch = "/var/cache/tapvisor/scratch";
    for script in [
        format!("cat {folder}/machine.json"),
        format!("cat {folder}/launcher/console.log"),
        format!("ls {scratch}"),
        format!("cat /proc/{other}/mem"),
        format!("cat /proc/{other}/environ"),
        format!("ls /proc/{other}/fd/"),
        format!("kill -0 {other}"),
        format!("ls {folder}/launcher/control.sock"),
        format!("for disk in $(find {scratch} -mindepth 1); do cat $disk && exit 0; done; false"),
    ] {
        let (reuid, regid) = (format!("--reuid={user}"), format!("--regid={user}"));
        let ran = host.world.run(&["setpriv", &reuid, &regid, "--clear-groups", "sh", "-c", &script]);
        assert!(!ran.is_ok(), "web's user may: {script}\n{}", ran.account());
    }
}

/// Every thread of every process is filtered, and `status` says whether Landlock is in force.
fn confined(host: &Host) {
    let script = "for user in 1900000000 1900000001; do for pid in $(pgrep -u $user); do
        grep -hE '^(Seccomp|NoNewPrivs|CapEff|CapBnd):' /proc/$pid/task/*/status; done; done | sort | uniq -c";
    let seen = host.world.sh(script).text();
    let lines: Vec<_> =
        seen.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")).collect();
    let zero = "0000000000000000";
    let expected = [format!("CapBnd: {zero}"), format!("CapEff: {zero}"), "NoNewPrivs: 1".into(), "Seccomp: 2".into()];
    assert_eq!(lines, expected, "{seen}");
}

fn ends_all() {
    let host = two();
    // What an engine could start if its filter failed it: in the VM's namespaces and in a user namespace of its own.
    let pid = launcher(&host, "web").to_string();
    let user = user(&host, "web");
    let (setuid, setgid) = (format!("--setuid={user}"), format!("--setgid={user}"));
    let script = "nohup sh -c 'setsid sleep 4711 & exec unshare --user --map-root-user sh -c \"sleep 4712 & exec sleep 4713\"' >/dev/null 2>&1 &";
    host.world.run(&["nsenter", "-t", &pid, "-m", "-p", "-n", &setgid, &setuid, "sh", "-c", script]).assert_ok();
    let left = || host.world.sh(&format!("pgrep -u {user} -x sleep || true")).text().lines().count();
    wait_for("three processes", Duration::from_secs(20), || (left() == 3).then_some(()));
    host.world.run(&["kill", "-9", &pid]).assert_ok();
    wait_for("all of them to end", Duration::from_secs(20), || (left() == 0).then_some(()));
    let _ = host.guest("web").wait_told("lease4 eth0", 2);
    assert_eq!(host.guest("other").told("boot").len(), 1, "the other guest started again");
    host.assert_removed(&["web", "other"]);
}

/// What a launcher that its guest has taken over can do: write to its standard error and into its folder, as fast as it can.
fn floods() {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade")], None).assert_ok();
    let _ = host.guest("web").lease4("eth0");
    let pid = launcher(&host, "web");
    let seconds =
        std::env::var("FLOOD_SECONDS").map_or(20, |text| text.parse::<u64>().expect("FLOOD_SECONDS is a number"));
    let flood = |seconds| {
        format!(
            "timeout {seconds} sh -c 'yes \"qemu-system-x86_64: virtio: zero sized buffers are not allowed\" >/proc/{pid}/fd/2' || true"
        )
    };
    // A command in a world may take three minutes.
    for start in (0..seconds).step_by(100) {
        host.world.sh(&flood((seconds - start).min(100))).assert_ok();
    }
    inside(&host, "web", "cat /dev/zero >/run/tapvisor/vms/default.web/launcher/console.log.1 || true; for n in $(seq 500); do true >/run/tapvisor/vms/default.web/launcher/f$n || break; done").assert_ok();
    let bytes = bytes(&host);
    println!("after {seconds} s {bytes} bytes are on /run");
    assert!(bytes <= (2 << 20) + (34 << 20) + (1 << 20), "{bytes} bytes are on /run");
    let log = std::fs::read_to_string(host.guest("web").folder().join("supervisor.log")).unwrap();
    // A log is turned over at 1 MiB: a long flood may have pushed the start of this run out.
    let is_short = seconds <= 20;
    let most = if is_short { 256 << 10 } else { 1 << 20 };
    assert!(log.len() <= most && log.contains("were left out"), "{} bytes", log.len());
    assert!(!is_short || log.contains("ADD network="), "what the supervisor said was pushed out");
    // The guest goes on, and so does its supervisor.
    host.assert_reached(&host.guest("web"), "-4");
    host.assert_removed(&["web"]);
}

fn bytes(host: &Host) -> u64 {
    host.world.sh("du -sb /run/tapvisor | cut -f1").text().trim().parse().unwrap()
}
