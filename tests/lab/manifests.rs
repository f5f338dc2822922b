//! Manifests of `examples/` that boot a kernel, by `tapvisor run`, on each engine.

use std::time::Duration;

use libtest_mimic::Trial;
use machine::base64;
use tests::lab::Finished;
use tests::{trial, workspace};

const LIMIT: Duration = Duration::from_secs(240);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: LAB-11
        trial("masquerade and bridge example serve both families on engine kvm", || {
            let finished = serves("kvm", "auto");
            assert!(
                finished.output.contains("reason: KVM works, and engine kvm has all that the machine asks for"),
                "{finished}"
            );
        }),
        // spec: LAB-11, LAUNCH-5
        trial("masquerade and bridge example serve both families on QEMU with KVM", || {
            let finished = serves("qemu (kvm)", "qemu");
            assert!(finished.output.contains("reason: engine qemu is demanded"), "{finished}");
        }),
        // spec: LAB-18
        trial("a VM whose launcher was killed is removed with all of its network", killed),
        // spec: LAB-19
        trial("an engine that lacks a device is refused by the device's field", refused),
    ]
}

/// What the scripts have in common: a network, the examples, and questions to the guests.
pub(crate) const PRELUDE: &str = r#"
set -e
mkdir -p /var/cache/tapvisor
# What a case left that failed.
for vm in web db; do tapvisor rm --force $vm >/dev/null 2>&1 || true; done
rm -rf /tmp/run
mkdir /tmp/run
cd /tmp/run
cat >net.conflist <<'END'
{"cniVersion": "1.0.0", "name": "lab", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "dataDir": "/tmp/run/ipam",
  "ranges": [[{"subnet": "192.0.2.0/24"}], [{"subnet": "2001:db8:77::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}]}
END
tapvisor image import "$LAB/images"
# Cases before this one may have made some.
links() { ip -o link | cut -d: -f2; }
links >links.before
# field NAME: of all VMs in `ps`, one value a line
field() { tapvisor ps -o json | tr '{}[],' '\n' | sed -n "s/^ *\"$1\": *\"\{0,1\}\([^\"]*\)\"\{0,1\}$/\1/p"; }
addresses() { tapvisor ps -o json | tr '{}[],' '\n' | sed -n 's/^ *"\(192\.0\.2\.[0-9]*\|2001:db8:77:[0-9a-f:]*\)"$/\1/p'; }
# ask ADDRESS: the guest's page, as soon as it serves one
ask() {
    # Not by wget: a static busybox cannot look names up without the C library's modules.
    until page=$(printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 "$1" 80 2>/dev/null) && [ -n "$page" ]; do sleep 1; done
    echo "page of $1: $page"
}
# memory PID: resident and private, without the guest's own
memory() {
    awk '/^Size:/ { guest = $2 >= 131072 }
        /^Rss:/ && !guest { rss += $2 } /^Private_(Clean|Dirty):/ && !guest { private += $2 } /^Private_Dirty:/ && !guest { dirty += $2 }
        END { print "rss " rss " kB, private " private " kB, of it written " dirty " kB" }' "/proc/$1/smaps"
}
"#;

/// A manifest of `examples/`, for a script.
pub(crate) fn manifest(name: &str) -> String {
    let text = std::fs::read(workspace().join("examples").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    base64::encode(&text)
}

fn killed() {
    let script = format!(
        r#"{PRELUDE}
        echo {} | base64 -d | sed 's/runStrategy: Always/runStrategy: Once/' >web.yaml
        tapvisor run -d -f web.yaml --network ./net.conflist --engine kvm
        for address in $(addresses); do ask "$address"; done
        launcher=$(field launcherPid)
        kill -KILL $launcher
        while [ -d /proc/$launcher ]; do sleep 0.1; done
        echo "namespaces of a killed launcher: $(ls /run/netns | wc -l)"
        tapvisor rm web
        links >links.after
        echo "left: $(ls /run/netns 2>/dev/null | wc -l) namespaces, links $(diff links.before links.after && echo as before)"
        "#,
        manifest("masquerade.yaml")
    );
    let finished = crate::run("a killed launcher", &script, LIMIT);
    assert_eq!(finished.code, 0, "{finished}");
    assert!(finished.output.contains("namespaces of a killed launcher: 1\n"), "{finished}");
    assert!(finished.output.contains("left: 0 namespaces, links as before"), "{finished}");
}

fn refused() {
    let script = format!(
        r#"{PRELUDE}
        echo {} | base64 -d | sed 's/^\( *\)rng: .*/&\n\1watchdog: {{name: dog, i6300esb: {{action: reset}}}}/' >web.yaml
        tapvisor run -d -f web.yaml --network ./net.conflist --engine kvm || echo "refused with $?"
        tapvisor rm web || true
        echo {} | base64 -d >seeded.yaml
        tapvisor run -d -f seeded.yaml --network ./net.conflist --engine kvm || echo "refused with $?"
        tapvisor rm seeded || true
        links >links.after
        echo "left: $(ls /run/netns 2>/dev/null | wc -l) namespaces, links $(diff links.before links.after && echo as before)"
        "#,
        manifest("masquerade.yaml"),
        manifest("cloud-init.yaml")
    );
    let finished = crate::run("an engine that lacks a device", &script, LIMIT);
    assert!(finished.output.contains("machine.watchdog: engine kvm has no watchdog"), "{finished}");
    assert!(finished.output.contains(r#"machine.disks[0]: engine kvm has no disks, found "seed""#), "{finished}");
    assert!(finished.output.contains("left: 0 namespaces, links as before"), "{finished}");
}

fn serves(engine: &str, demand: &str) -> Finished {
    let (masquerade, bridge) = (manifest("masquerade.yaml"), manifest("bridge.yaml"));
    let script = format!(
        r#"{PRELUDE}
        echo {masquerade} | base64 -d >web.yaml
        echo {bridge} | base64 -d >db.yaml
        for vm in web db; do tapvisor run -d -f $vm.yaml --network ./net.conflist --engine {demand}; done
        for engine in $(field engine | tr ' ' _); do echo "engine: $engine"; done
        tapvisor ps -o json | sed -n 's/^ *"engineReason": *"\(.*\)",*$/reason: \1/p'
        for address in $(addresses); do ask "$address"; done
        for vm in web db; do tapvisor logs $vm | grep -o 'GUEST lease[46].*' | sed "s/^/$vm: /"; done
        for pid in $(field launcherPid); do echo "launcher: $(memory $pid), $(ls /proc/$pid/task | wc -l) threads"; done
        for vm in web db; do tapvisor rm $vm; done
        links >links.after
        echo "left: $(ls /run/netns 2>/dev/null | wc -l) namespaces, links $(diff links.before links.after && echo as before)"
        "#
    );
    let finished = crate::run(&format!("examples on {engine}"), &script, LIMIT);
    assert_eq!(finished.code, 0, "{finished}");
    println!("{}", finished.output);
    let count = |text: &str| finished.output.matches(text).count();
    assert_eq!(count(&format!("engine: {}\n", engine.replace(' ', "_"))), 2, "{finished}");
    assert_eq!(
        count("page of 192.0.2.2: HTTP/1.1 200 OK") + count("page of 192.0.2.3: HTTP/1.1 200 OK"),
        2,
        "{finished}"
    );
    assert_eq!(
        count("page of 2001:db8:77::2: HTTP/1.1 200 OK") + count("page of 2001:db8:77::3: HTTP/1.1 200 OK"),
        2,
        "{finished}"
    );
    for lease in ["web: GUEST lease4", "web: GUEST lease6", "db: GUEST lease4", "db: GUEST lease6"] {
        assert!(count(lease) > 0, "no {lease}\n{finished}");
    }
    assert_eq!(count("left: 0 namespaces, links as before"), 1, "{finished}");
    finished
}
