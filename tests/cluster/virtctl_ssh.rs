//! `virtctl ssh` and `scp` into a guest whose key came from a Secret by cloud-init.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tests::{Ran, cache_file, trial, wait_for};

use crate::virtctl::{available, command};
use crate::vmi::{delete_and_assert_gone, wait_ready};
use crate::vmi_trouble::{apply, instance};

/// A guest under emulation that boots and makes its host key.
const LOGIN: Duration = Duration::from_secs(180);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: VOL-7, SUB-11
        trial("virtctl ssh and scp log in by a key that a Secret gave the guest", log_in),
    ]
}

/// A guest with an SSH server and the keys of Secret `ssh`.
fn machine() -> Value {
    let mut vmi = instance("ssh", "guest.run=sshd");
    let spec = &mut vmi["spec"];
    spec["domain"]["firmware"]["kernelBoot"]["container"]["image"] = json!("localhost/tapvisor/guest-ssh:1");
    spec["domain"]["memory"]["guest"] = json!("192Mi");
    spec["domain"]["devices"]["disks"] = json!([{"name": "seed", "disk": {"bus": "virtio"}}]);
    spec["domain"]["devices"]["rng"] = json!({});
    spec["volumes"] = json!([{"name": "seed", "cloudInitNoCloud": {"userData": "#cloud-config"}}]);
    let key = json!({"source": {"secret": {"secretName": "ssh"}}, "propagationMethod": {"noCloud": {}}});
    spec["accessCredentials"] = json!([{"sshPublicKey": key}]);
    vmi
}

/// A new key: the file with its private part, and its public part.
fn key(folder: &Path) -> (String, String) {
    let file = folder.join("key").display().to_string();
    let mut keygen = Command::new("ssh-keygen");
    Ran::of(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "trial", "-f", &file])).assert_ok();
    let public = std::fs::read_to_string(format!("{file}.pub")).expect("ssh-keygen writes it");
    (file, public)
}

fn log_in() {
    let cluster = available();
    cluster.import(&cache_file("ssh/images"));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (file, public) = key(folder.path());
    let metadata = json!({"namespace": "vms", "name": "ssh"});
    apply(
        &cluster,
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"key1": public}}),
    );
    apply(&cluster, &machine());
    let vmi = wait_ready(&cluster, "ssh");
    let known = folder.path().join("known").display().to_string();
    let known = format!("-oUserKnownHostsFile={known}");
    let run = |file: &str, words: &[&str]| {
        let mut command = command(&cluster);
        command.args([words[0], "--identity-file", file, "--local-ssh-opts", &known]);
        command.args(["--local-ssh-opts", "-oStrictHostKeyChecking=no", "--local-ssh-opts", "-oBatchMode=yes"]);
        Ran::of(command.args(&words[1..]))
    };
    let hello = || {
        let ran = run(&file, &["ssh", "--command", "echo logged in as $(id -u)", "root@vmi/ssh"]);
        Some(ran).filter(Ran::is_ok)
    };
    let (said, _) = wait_for("a login", LOGIN, hello);
    assert!(said.stdout().contains("logged in as 0"), "{}", said.account());
    let local = folder.path().join("file").display().to_string();
    std::fs::write(&local, "carried").expect("a file can be made");
    run(&file, &["scp", &local, "root@vmi/ssh:/tmp/carried"]).assert_ok();
    let back = folder.path().join("back").display().to_string();
    run(&file, &["scp", "root@vmi/ssh:/tmp/carried", &back]).assert_ok();
    assert_eq!(std::fs::read_to_string(&back).expect("it was copied"), "carried");
    let elsewhere = tempfile::tempdir().expect("a folder can be made");
    let (other, _) = key(elsewhere.path());
    let refused = run(&other, &["ssh", "--command", "id", "root@vmi/ssh"]);
    assert!(!refused.is_ok() && refused.stderr().contains("Permission denied"), "{}", refused.account());
    delete_and_assert_gone(&cluster, &vmi);
    cluster.kubectl(&["-n", "vms", "delete", "secret", "ssh"]).assert_ok();
}
