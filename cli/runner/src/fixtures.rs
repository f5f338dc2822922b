//! Builders for tests.

use terms::ObjectKey;
use wiring::Owner;

use super::record::{Kind, OnHost, Phase, Status};
use api::run_strategy::RunStrategy;

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name).unwrap()
}

/// The user that runs the tests, so that no privilege is needed to give files to the launcher.
pub(crate) fn owner() -> Owner {
    Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
}

pub(crate) fn status(name: &str) -> Status {
    Status {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        kind: Kind::VirtualMachine,
        strategy: RunStrategy::Always,
        phase: Phase::Starting,
        reason: None,
        engine: None,
        engine_reason: None,
        left: None,
        on_host: OnHost::Present,
        kept: true,
        kept_once_running: false,
        owner: owner(),
        container_id: "ab".repeat(32).parse().unwrap(),
        netns: "/run/netns/tv-000000000000".into(),
        network: None,
        addresses: Vec::new(),
        host_links: Vec::new(),
        supervisor: None,
        launcher: None,
        grace_period_seconds: 30,
        created_unix_seconds: 1_700_000_000,
        running_since_unix_seconds: None,
        restarts: 0,
        ready: false,
    }
}
