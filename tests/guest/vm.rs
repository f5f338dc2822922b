//! What the tests of this rung have in common: a host with the guest, VMs on it, and all as before at the end.

use std::time::Duration;

use tests::{Guest, Outside, Ran, Snapshot, World, wait_for};

use crate::manifest::Vm;

/// A host that knows the guest, and how its network was.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) world: World,
    before: Snapshot,
}

impl Host {
    pub(crate) fn new() -> Self {
        let world = World::new();
        world.bring_guest();
        let before = world.snapshot();
        Self { world, before }
    }

    /// Runs VMs in the background, on the network configuration `network` or the built-in one.
    pub(crate) fn run(&self, vms: &[Vm], network: Option<&str>) -> Ran {
        let manifest: String = vms.iter().map(Vm::yaml).collect();
        self.world.write("/run/vms.yaml", manifest);
        let mut line = vec!["run", "--detach", "-f", "/run/vms.yaml"];
        if let Some(config) = network {
            self.world.write("/run/network.conflist", config);
            line.extend(["--network", "/run/network.conflist"]);
        }
        self.world.tapvisor(&line)
    }

    pub(crate) fn guest(&self, name: &str) -> Guest<'_> {
        Guest::of(&self.world, name)
    }

    /// Demands that the guest answers on its pod's address, asked from the host, and reaches the outside.
    pub(crate) fn assert_reached(&self, guest: &Guest<'_>, family: &str) {
        let url = url(&guest.pod_address(family));
        let page = self.world.run(&["timeout", "60", "busybox", "wget", "-qO-", &url]).text();
        // Its name comes by DHCPv4 alone.
        let name = if guest.told("lease4 eth0").is_empty() { "(none)" } else { guest.name() };
        assert!(page.starts_with(&format!("guest {name}\n")), "{page}");
        let outside = if family == "-4" { Outside::V4 } else { Outside::V6 };
        let page = guest.ok(&format!("timeout 60 wget -qO- {}", self::url(outside)));
        assert!(page.contains("outside sees "), "{page}");
    }

    /// Removes VMs and demands that the host is as it was.
    pub(crate) fn assert_removed(self, names: &[&str]) {
        self.remove(names).assert_ok();
        self.assert_nothing_left();
    }

    pub(crate) fn remove(&self, names: &[&str]) -> Ran {
        self.world.tapvisor(&[&["rm"], names].concat())
    }

    pub(crate) fn assert_nothing_left(self) {
        self.assert_as_before();
    }

    /// Demands that no VM and nothing of one is on the host: links, rules, settings, namespaces, processes, files.
    pub(crate) fn assert_as_before(&self) {
        let namespaces: Vec<_> = self.world.ns_names().into_iter().filter(|name| name.starts_with("tv-")).collect();
        assert!(namespaces.is_empty(), "{namespaces:?}");
        let gone = || {
            let processes = self.world.sh("pgrep -ax 'tapvisor|tapvisor-launch|qemu-system-x86' || true").text();
            processes.is_empty().then_some(())
        };
        wait_for("the last process to end", Duration::from_secs(60), gone);
        // A trial may have put a file system of its own at /run/tapvisor.
        let mounts = self.world.sh("grep -F ' /run/tapvisor/' /proc/self/mounts || true").text();
        assert!(mounts.is_empty(), "{mounts}");
        let folders = "/run/tapvisor /var/cache/tapvisor/scratch";
        let files = format!(
            "find {folders} -mindepth 1 ! -path /run/tapvisor/lock ! -path /run/tapvisor/locks ! '(' -path /run/tapvisor/bridge -empty ')' ! '(' -path /run/tapvisor/addresses -empty ')' 2>/dev/null || true"
        );
        let files = self.world.sh(&files).text();
        assert!(files.is_empty(), "{files}");
        self.before.assert_same(&self.world.snapshot());
    }
}

pub(crate) fn url(address: &str) -> String {
    if address.contains(':') { format!("http://[{address}]/") } else { format!("http://{address}/") }
}
