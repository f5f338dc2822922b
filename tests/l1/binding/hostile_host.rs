//! A host that fails around the plugin: full disks, namespaces that go away, clocks that jump, two runtimes at once. Each
//! ends in a clear error or in none, and DEL leaves nothing.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Ran, World, trial};

use super::chain::{Chain, Stack, network, tapvisor, world};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: CNI-HOST
        trial("full disks do not stop the plugin, neither forward nor backward", full_disks),
        // spec: CNI-HOST
        trial("a namespace deleted between plugins is reported, DEL leaves nothing", deleted_between),
        // spec: CNI-HOST
        trial("a namespace deleted while ADD runs leaves nothing after DEL", deleted_during_add),
        // spec: CNI-HOST
        trial("clocks that jump between the verbs change nothing", jumping_clocks),
        // spec: CNI-LOCK-1
        trial("two runtimes at once on one container end as one of them would", racing),
        // spec: CNI-LOCK-1
        trial("a namespace locked for ten seconds is an error that names the holder", kept),
        // spec: CNI-LOCK-2
        trial("a pod that locks its own namespace file delays no call", locked_by_pod),
    ]
}

const BINDINGS: [&str; 2] = ["masquerade", "bridge"];

fn request(binding: &str) -> Value {
    tapvisor(&json!([{"name": "default", "podInterface": "eth0", "binding": binding}]))
}

/// A pod on ptp, its network made and ours not yet.
fn pod<'w>(world: &'w World, binding: &str) -> Chain<'w> {
    let mut chain = Chain::new(world, "pod", &[network("ptp", Stack::Dual)]);
    chain.add();
    chain.plugins.push(request(binding));
    chain
}

fn full_disks() {
    for binding in BINDINGS {
        let world = world();
        let chain = pod(&world, binding);
        let before = chain.pod().snapshot();
        // As small as what is in them, and what is left of the last page filled.
        world
            .sh("for at in /tmp /var/lib/cni; do
                mkdir -p $at; mount -t tmpfs -o size=64k tmpfs $at
                dd if=/dev/zero of=$at/fill bs=4k 2>/dev/null && exit 1
                echo x >$at/more 2>/dev/null && exit 1
            done
            mkdir -p -m 700 /run/tapvisor/locks; mount -t tmpfs -o mode=700,nr_inodes=1 tmpfs /run/tapvisor/locks
            touch /run/tapvisor/locks/more 2>/dev/null && exit 1; true")
            .assert_ok();
        chain.call("ADD", 1, chain.result.as_ref()).assert_ok();
        chain.call("CHECK", 1, chain.result.as_ref()).assert_ok();
        chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
        before.assert_same(&chain.pod().snapshot());
    }
}

/// The error document of a call that must fail in a way a person understands.
fn refusal(ran: &Ran) -> String {
    assert_eq!(ran.code(), Some(1), "{}", ran.account());
    let error: Value = serde_json::from_str(&ran.stdout()).unwrap_or_else(|_| panic!("{}", ran.account()));
    error["msg"].as_str().expect("a message").to_owned()
}

fn deleted_between() {
    for binding in BINDINGS {
        let world = world();
        let before = Once::of(&world);
        let chain = pod(&world, binding);
        world.run(&["ip", "netns", "del", "pod"]).assert_ok();
        let said = refusal(&chain.call("ADD", 1, chain.result.as_ref()));
        assert!(said.contains("CNI_NETNS: /run/netns/pod"), "{said}");
        chain.del();
        before.assert_same(&world);
    }
}

/// The host as it is after one pod came and went: what the distribution's plugins leave for all that follow is no residue.
struct Once(tests::Snapshot);

impl Once {
    fn of(world: &World) -> Self {
        let mut chain = Chain::new(world, "earlier", &[network("ptp", Stack::Dual)]);
        chain.add();
        chain.del();
        world.run(&["ip", "netns", "del", "earlier"]).assert_ok();
        Self(world.snapshot())
    }

    /// The kernel takes a deleted namespace's devices away when it finds the time.
    fn assert_same(&self, world: &World) {
        for _ in 0..100 {
            if self.0.changes(&world.snapshot()).is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.0.assert_same(&world.snapshot());
    }
}

fn deleted_during_add() {
    let world = world();
    let before = Once::of(&world);
    // A kill falls anywhere into the few milliseconds of an ADD.
    for turn in 0..12_u32 {
        let chain = pod(&world, BINDINGS[turn as usize % 2]);
        let ran = std::thread::scope(|scope| {
            let adding = scope.spawn(|| chain.call("ADD", 1, chain.result.as_ref()));
            std::thread::sleep(Duration::from_micros(u64::from(turn) * 800));
            world.run(&["ip", "netns", "del", "pod"]).assert_ok();
            adding.join().expect("the thread that adds")
        });
        if !ran.is_ok() {
            let said = refusal(&ran);
            assert!(!said.is_empty() && said.len() < 1000, "{said}");
        }
        chain.del();
    }
    before.assert_same(&world);
}

fn jumping_clocks() {
    const YEAR_SECONDS: i64 = 365 * 24 * 3600;
    for binding in BINDINGS {
        let world = world();
        let chain = pod(&world, binding);
        let before = chain.pod().snapshot();
        let at = |verb: &str, years: i64| {
            let offset = (years * YEAR_SECONDS).to_string();
            chain.call_under(&["unshare", "--time", "--monotonic", &offset, "--boottime", &offset, "--fork"], verb, 1)
        };
        // A clock of a namespace cannot stand before zero, so backwards is from a year ahead to now.
        for (added, deleted) in [(0, 10), (10, 0)] {
            at("ADD", added).assert_ok();
            at("CHECK", 1).assert_ok();
            at("CHECK", 5).assert_ok();
            // A repeated ADD, with the wall clock's traces from another age.
            world.sh("touch -d 2099-01-01 /run/netns /run; touch -d 1970-01-02 /opt/cni/bin/tapvisor").assert_ok();
            at("ADD", deleted).assert_ok();
            at("DEL", deleted).assert_ok();
            before.assert_same(&chain.pod().snapshot());
        }
    }
}

fn racing() {
    for binding in BINDINGS {
        let world = world();
        let chain = pod(&world, binding);
        let before = chain.pod().snapshot();
        for verbs in [["ADD", "ADD"], ["ADD", "DEL"], ["ADD", "CHECK"], ["DEL", "DEL"]] {
            for _ in 0..3 {
                if verbs == ["DEL", "DEL"] {
                    chain.call("ADD", 1, chain.result.as_ref()).assert_ok();
                }
                for (verb, ran) in verbs.iter().zip(at_once(&chain, verbs)) {
                    // Whichever comes first: an ADD finds nothing or its own wiring; a CHECK may find nothing.
                    if *verb == "CHECK" && !ran.is_ok() {
                        assert!(refusal(&ran).contains("not as it was made"), "{}", ran.account());
                    } else {
                        ran.assert_ok();
                    }
                }
                chain.call("DEL", 1, chain.result.as_ref()).assert_ok();
                before.assert_same(&chain.pod().snapshot());
            }
        }
    }
}

/// A shared lock lets all three calls meet it at once.
fn kept() {
    let world = world();
    let chain = pod(&world, "masquerade");
    let before = chain.pod().snapshot();
    let hold = "cd /run/tapvisor/locks && file=$(stat -Lc %D-%i /run/netns/pod) && echo -n '7 (holder)' >$file && exec flock --shared $file \"$@\"";
    world.sh("mkdir -p -m 700 /run/tapvisor/locks").assert_ok();
    std::thread::scope(|scope| {
        let calls = ["ADD", "CHECK", "DEL"].map(|verb| {
            let chain = &chain;
            scope.spawn(move || chain.call_under(&["sh", "-c", hold, "sh"], verb, 1))
        });
        for call in calls {
            let ran = call.join().expect("the thread of a call");
            let error: Value = serde_json::from_str(&ran.stdout()).unwrap_or_else(|_| panic!("{}", ran.account()));
            assert_eq!(error["code"], 11, "{error}");
            let said = error["msg"].as_str().expect("a message");
            let expected =
                "cannot lock network namespace /run/netns/pod: process 7 (holder) has held the lock for 10 s";
            assert!(said.contains(expected), "{said}");
        }
    });
    before.assert_same(&chain.pod().snapshot());
    for verb in ["ADD", "CHECK", "DEL"] {
        chain.call(verb, 1, chain.result.as_ref()).assert_ok();
    }
    before.assert_same(&chain.pod().snapshot());
    assert_eq!(world.sh("ls /run/tapvisor/locks").stdout(), "");
    assert_eq!(world.sh("stat -c %a /run/tapvisor/locks").stdout().trim(), "700");
}

fn locked_by_pod() {
    let world = world();
    let chain = pod(&world, "masquerade");
    let before = chain.pod().snapshot();
    for verb in ["ADD", "CHECK", "DEL"] {
        chain.call_under(&["flock", "/run/netns/pod"], verb, 1).assert_ok();
    }
    before.assert_same(&chain.pod().snapshot());
}

fn at_once(chain: &Chain<'_>, verbs: [&str; 2]) -> [Ran; 2] {
    std::thread::scope(|scope| {
        let running = verbs.map(|verb| scope.spawn(move || chain.call(verb, 1, chain.result.as_ref())));
        running.map(|thread| thread.join().expect("the thread of a runtime"))
    })
}
