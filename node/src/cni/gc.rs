//! CNI's verb GC, which containerd never uses: the plugin is told which attachments live and removes what others left.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::install::PLUGIN;
use crate::grpc::{self, ListPodSandboxRequest};

const PATIENCE: Duration = Duration::from_secs(60);
/// The interface of a pod on the runtime's own network.
const INTERFACE: &str = "eth0";

/// Runs GC of the plugin in `plugins` for `network`, from the sandboxes that the runtime at `socket` says are alive.
/// Returns how many there are.
///
/// # Errors
/// A text for the log. Without a list of the living nothing is collected.
pub(crate) async fn collect(socket: PathBuf, plugins: &Path, network: &str) -> Result<usize, String> {
    let living = tokio::time::timeout(PATIENCE, living(socket)).await.map_err(|_| "the runtime does not answer")??;
    let conf = configuration(network, &living);
    let mut command = Command::new(plugins.join(PLUGIN));
    command.env_clear().env("CNI_COMMAND", "GC").env("CNI_PATH", plugins);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("the plugin does not start: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(conf.to_string().as_bytes())
            .await
            .map_err(|error| format!("the plugin does not read: {error}"))?;
    }
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.map_err(|_| "the plugin does not end")?.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(living.len()),
        false => Err(format!("the plugin failed: {}", String::from_utf8_lossy(&output.stdout).trim())),
    }
}

/// All sandboxes that the runtime knows, also those that it has stopped and not removed yet.
async fn living(socket: PathBuf) -> Result<Vec<String>, String> {
    let mut runtime = grpc::RuntimeServiceClient::new(grpc::connect(socket));
    let answer = runtime
        .list_pod_sandbox(ListPodSandboxRequest::default())
        .await
        .map_err(|error| format!("the runtime: {}", error.message()))?;
    Ok(answer.into_inner().items.into_iter().map(|sandbox| sandbox.id).collect())
}

fn configuration(network: &str, living: &[String]) -> Value {
    let attachments: Vec<_> = living.iter().map(|id| json!({"containerID": id, "ifname": INTERFACE})).collect();
    json!({"cniVersion": "1.1.0", "name": network, "type": PLUGIN, "cni.dev/valid-attachments": attachments})
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: NODE-7
    #[test]
    fn the_plugin_is_told_every_living_sandbox() {
        let conf = configuration("pods", &["a".to_owned(), "b".to_owned()]);
        let expected = json!([{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "eth0"}]);
        assert_eq!(conf["cni.dev/valid-attachments"], expected);
        assert_eq!((&conf["name"], &conf["type"]), (&json!("pods"), &json!("tapvisor")));
    }

    // spec: NODE-7
    #[tokio::test]
    async fn nothing_is_collected_without_a_list_of_the_living() {
        let folder = tempfile::tempdir().unwrap();
        let ran = folder.path().join("ran");
        let plugin = folder.path().join(PLUGIN);
        std::fs::write(&plugin, format!("#!/bin/sh\ntouch {}\n", ran.display())).unwrap();
        std::fs::set_permissions(&plugin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = collect(folder.path().join("absent.sock"), folder.path(), "pods").await.unwrap_err();
        assert!(error.contains("the runtime"), "{error}");
        assert!(!ran.exists());
    }
}
