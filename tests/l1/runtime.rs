//! The runtime's side on a host that fails: its cache on a full disk, files from another age, two runtimes at once.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use cni_protocol::runtime::{Attachment, ConfigList, Runtime};
use libtest_mimic::Trial;
use serde_json::json;
use tests::{World, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: NET-4
        trial("a full cache stops ADD before any plugin runs", full_before),
        // spec: NET-4
        trial("a cache that fills up during ADD undoes what was done", full_during_add),
        // spec: NET-4
        trial("DEL works on a full disk and leaves nothing", del_when_full),
        // spec: NET-4
        trial("cache files of any age are read, checked and removed", other_ages),
        // spec: NET-4
        trial("two runtimes at once on one container leave one attachment or none", racing),
    ]
}

/// A folder that holds so many KiB, plugins that note what they are asked, and a runtime with its cache in the folder.
struct Bench {
    world: World,
    plugins: tempfile::TempDir,
    list: ConfigList,
}

/// Notes its verb; ADD answers with as many routes as a file says.
const PLUGIN: &str = r#"#!/bin/sh
dir=$(dirname "$0")
echo "$CNI_COMMAND" >>"$dir/calls"
cat >/dev/null
[ "$CNI_COMMAND" = ADD ] && cat "$dir/answer"
exit 0
"#;

impl Bench {
    fn new(kib: usize) -> Self {
        let world = World::bare();
        world.sh(&format!("mkdir /run/small; mount -t tmpfs -o size={kib}k tmpfs /run/small")).assert_ok();
        let plugins = tempfile::tempdir().expect("a folder can be made");
        let path = plugins.path().join("noting");
        std::fs::write(&path, PLUGIN).expect("a plugin can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("and made executable");
        let list = json!({"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "noting"}]});
        let bench = Self { world, plugins, list: ConfigList::from_value(list).expect("a list") };
        bench.answer(0);
        bench
    }

    fn answer(&self, routes: usize) {
        let routes: Vec<_> = (0..routes).map(|n| json!({"dst": format!("10.{}.{}.0/24", n / 256, n % 256)})).collect();
        let answer = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.5/24"}], "routes": routes});
        std::fs::write(self.plugins.path().join("answer"), answer.to_string()).expect("an answer can be written");
    }

    fn small(&self) -> PathBuf {
        self.world.path("/run/small")
    }

    fn fill(&self) {
        self.world.sh("dd if=/dev/zero of=/run/small/fill bs=1k 2>/dev/null || true").assert_ok();
    }

    fn runtime(&self) -> Runtime {
        let quiet = |_: &str, _: &str| ();
        Runtime::new(&self.small(), vec![self.plugins.path().to_owned()]).with_log(quiet)
    }

    /// What was asked since the last look.
    fn calls(&self) -> Vec<String> {
        let path = self.plugins.path().join("calls");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        drop(std::fs::remove_file(path));
        text.lines().map(str::to_owned).collect()
    }

    /// Names of the cache's files, those that are not meant to be seen included.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.small().join("results")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

fn attachment() -> Attachment {
    let netns = Some("/run/netns/a".into());
    Attachment::new("c1".parse().expect("an id"), netns, "eth0".parse().expect("a name"))
}

/// An error with its causes, as it is printed.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn full_before() {
    let bench = Bench::new(64);
    bench.fill();
    let error = chain(&bench.runtime().add(&bench.list, &attachment()).expect_err("there is no room"));
    assert!(error.starts_with("CNI cache ") && error.contains("No space left on device"), "{error}");
    assert!(bench.calls().is_empty(), "a plugin was asked");
    assert!(bench.files().is_empty(), "{:?}", bench.files());
}

fn full_during_add() {
    let bench = Bench::new(64);
    bench.answer(4000);
    let error = chain(&bench.runtime().add(&bench.list, &attachment()).expect_err("the result has no room"));
    assert!(error.starts_with("CNI cache ") && error.contains("No space left on device"), "{error}");
    assert_eq!(bench.calls(), ["ADD", "DEL"]);
    assert!(bench.files().is_empty(), "{:?}", bench.files());
}

fn del_when_full() {
    let bench = Bench::new(64);
    bench.runtime().add(&bench.list, &attachment()).expect("there is room");
    // As a runtime leaves it that is killed while it writes.
    std::fs::write(bench.small().join("results/.net-c1-eth0.77-0"), "half").expect("there is room");
    bench.fill();
    bench.runtime().check(&bench.list, &attachment()).expect("CHECK writes nothing");
    bench.runtime().del(&bench.list, &attachment()).expect("DEL writes nothing");
    assert_eq!(bench.calls(), ["ADD", "CHECK", "DEL"]);
    assert!(bench.files().is_empty(), "{:?}", bench.files());
}

fn other_ages() {
    for age in ["1970-01-02", "2099-01-01"] {
        let bench = Bench::new(256);
        bench.runtime().add(&bench.list, &attachment()).expect("there is room");
        bench.world.sh(&format!("touch -d {age} /run/small/results /run/small/results/*")).assert_ok();
        assert_eq!(bench.runtime().cached().expect("the folder").len(), 1);
        bench.runtime().check(&bench.list, &attachment()).expect("CHECK of an attachment from another age");
        bench.runtime().add(&bench.list, &attachment()).expect("a repeated ADD");
        bench.runtime().gc(&bench.list, &[]).expect("GC");
        assert!(bench.files().is_empty(), "{age}: {:?}", bench.files());
    }
}

fn racing() {
    let bench = Bench::new(1024);
    for turn in 0..40 {
        std::thread::scope(|scope| {
            let first = scope.spawn(|| bench.runtime().add(&bench.list, &attachment()));
            if turn % 2 == 0 {
                bench.runtime().add(&bench.list, &attachment()).expect("the other ADD");
                first.join().expect("a thread").expect("the one ADD");
            } else {
                bench.runtime().del(&bench.list, &attachment()).expect("a DEL during ADD");
                // DEL may remove what ADD is writing; ADD then reports that and undoes its work.
                if let Err(error) = first.join().expect("a thread") {
                    assert!(chain(&error).starts_with("CNI cache "), "{error}");
                }
            }
        });
        let known = bench.runtime().cached().expect("the folder");
        assert!(known.iter().all(Result::is_ok), "a file is half written: {known:?}");
        assert!(known.len() <= 1, "{known:?}");
        bench.runtime().del(&bench.list, &attachment()).expect("the last DEL");
        assert!(bench.files().is_empty(), "{:?}", bench.files());
    }
}
