//! What a machine has that a cluster could leave behind, as other people's tools tell it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use tests::cluster::{cgroup, clean};
use tests::{Ran, cache_file, trial};

pub(crate) fn trials() -> Vec<Trial> {
    // spec: K8S-4
    vec![trial("what a killed cluster leaves is removed by the start of the next", leftovers)]
}

/// One line for each thing.
#[derive(Debug)]
pub(crate) struct Machine(BTreeSet<String>);

impl Machine {
    /// Links, mounts (but those of `ip netns`, which others may use) and settings of the machine; control groups, loop devices and processes of a cluster.
    pub(crate) fn gather() -> Self {
        Self::of(&crate::NAME)
    }

    fn of(cluster: &str) -> Self {
        let script = format!(
            r#"ip -o link | cut -d: -f2 | sed 's/^/link/'
            cut -d' ' -f5 /proc/self/mountinfo | grep -v '^/run/netns' | sed 's/^/mount /'
            grep -s '' /proc/sys/vm/{{overcommit_memory,panic_on_oom}} /proc/sys/kernel/{{panic,panic_on_oops}} /proc/sys/kernel/keys/root_max*
            find /sys/fs/cgroup -type d -name '{name}*' | sed 's/^/control group /'
            losetup --list --noheadings --output NAME,BACK-FILE | grep '{name}' | sed 's/^/loop device /' || true"#,
            name = cgroup(cluster),
        );
        let text = bash(&script, Path::new("/")).text();
        let lines = text.lines().map(str::to_owned);
        Self(lines.chain(processes(&cache_file("cluster/bin"))).collect())
    }

    /// Demands that nothing came and nothing went from here to `after`, and that nothing of a cluster's name is there.
    pub(crate) fn assert_same(&self, after: &Self) {
        let name = cgroup(&crate::NAME);
        let came: Vec<_> = after.0.iter().filter(|line| line.contains(&name) || !self.0.contains(*line)).collect();
        let gone: Vec<_> = self.0.difference(&after.0).filter(|line| !line.contains(&name)).collect();
        assert!(came.is_empty() && gone.is_empty(), "came: {came:#?}\ngone: {gone:#?}");
    }
}

fn bash(script: &str, folder: &Path) -> Ran {
    Ran::of(Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(folder))
}

fn leftovers() {
    const KILLED: &str = "killed";
    let name = cgroup(KILLED);
    let folder = tempfile::tempdir().expect("a folder can be made");
    // As kubelet does, a loop device on a loop device.
    let script = format!(
        r#"mkdir {name}-node1; truncate -s 1M {name}-node1/block1
        losetup --find "$(losetup --find --show {name}-node1/block1)"
        # Of version 2, or one hierarchy of version 1.
        root=/sys/fs/cgroup; [ -e $root/cgroup.procs ] || root=$root/pids
        mkdir -p $root/{name}-node1/kubepods/pod1"#
    );
    bash(&script, folder.path()).assert_ok();
    let is_ours = |line: &&String| line.contains(&name);
    assert!(Machine::of(KILLED).0.iter().filter(is_ours).count() > 1);
    clean(KILLED);
    let left: Vec<_> = Machine::of(KILLED).0.into_iter().filter(|line| is_ours(&line)).collect();
    assert!(left.is_empty(), "{left:#?}");
}

/// The processes that execute a file of a folder.
fn processes(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let program = |entry: std::fs::DirEntry| {
        let program = std::fs::read_link(entry.path().join("exe")).ok()?;
        program.starts_with(folder).then(|| format!("process {} {}", entry.file_name().display(), program.display()))
    };
    entries.filter_map(program).collect()
}
