//! The agent's part: which namespace is the pod's, what its launcher says, and the question to the explaining process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use node_protocol::{ExplainRequest, MAX_EXPLANATION_BYTES, PodUid};
use protocol::control::{Answer, Report, Request, Verb};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Task, TaskAnswer};
use crate::grpc::{
    self, ListPodSandboxRequest, PodSandboxFilter, PodSandboxStateValue, PodSandboxStatusRequest, RuntimeServiceClient,
};
use crate::launchers::Launchers;

/// Longest that the runtime and then the explaining process may take; clients wait 20 s.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(12);
/// The label with the pod's UID that kubelet gives a sandbox.
const POD_UID: &str = "io.kubernetes.pod.uid";
/// Where runtimes keep network namespaces.
const FOLDERS: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// The way to explanations.
#[derive(Debug, Clone)]
pub(crate) struct Explainer {
    /// The runtime's socket.
    pub(crate) runtime: Option<PathBuf>,
    /// The explaining process' socket.
    pub(crate) socket: PathBuf,
    /// This node.
    pub(crate) node: String,
}

impl Explainer {
    /// Explains the network of a launcher's pod.
    ///
    /// # Errors
    /// Why it cannot, as a message for users.
    pub(crate) async fn explain(
        &self,
        pod: &PodUid,
        vm: ExplainRequest,
        launchers: &Arc<Launchers>,
    ) -> Result<Value, String> {
        let runtime = self.runtime.clone().ok_or("the agent knows no socket of a container runtime")?;
        let found = timeout(RUNTIME_PATIENCE, namespace(runtime, pod)).await;
        let namespace = found.map_err(|_| "the container runtime does not answer")??;
        let task = Task { vm, node: self.node.clone(), namespace, launcher: status(pod, launchers).await };
        let answer = timeout(PATIENCE, ask(&self.socket, &task)).await;
        let answer = answer.map_err(|_| format!("no answer at {} in time", self.socket.display()))?;
        answer.map_err(|error| format!("{}: {error}", self.socket.display()))?
    }
}

async fn status(pod: &PodUid, launchers: &Launchers) -> Result<Box<protocol::control::Status>, String> {
    let request = Request::new(1, Verb::Status);
    match launchers.ask(pod, &request).await? {
        Answer::Ok { ok: Report::Status(status), .. } => Ok(status),
        Answer::Ok { .. } => Err("its answer is no status".to_owned()),
        Answer::Error { error, .. } => Err(error),
    }
}

/// The name of a pod's network namespace, as the runtime tells it.
async fn namespace(socket: PathBuf, pod: &PodUid) -> Result<String, String> {
    let failed = |status: tonic::Status| format!("the container runtime: {}", status.message());
    let mut runtime = RuntimeServiceClient::new(grpc::connect(socket));
    let label_selector = HashMap::from([(POD_UID.to_owned(), pod.as_str().to_owned())]);
    let filter = PodSandboxFilter { state: Some(PodSandboxStateValue::default()), label_selector };
    let list = ListPodSandboxRequest { filter: Some(filter) };
    let found = runtime.list_pod_sandbox(list).await.map_err(failed)?.into_inner();
    let sandbox =
        found.items.into_iter().next().ok_or("the container runtime has no sandbox of the pod that is ready")?;
    let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.id, verbose: true };
    let info = runtime.pod_sandbox_status(request).await.map_err(failed)?.into_inner().info;
    let text = info.get("info").ok_or("the container runtime does not tell the sandbox's namespaces")?;
    let info = serde_json::from_str(text).map_err(|error| format!("what the container runtime tells: {error}"))?;
    name_of(&info)
}

/// The name in the folder of namespaces: nothing else of a path is taken from the runtime's answer.
fn name_of(info: &Value) -> Result<String, String> {
    let namespaces = info.pointer("/runtimeSpec/linux/namespaces").and_then(Value::as_array);
    let network = namespaces.into_iter().flatten().find(|namespace| namespace["type"] == "network");
    let path = network.and_then(|namespace| namespace["path"].as_str());
    let path = Path::new(path.ok_or("the pod has no network namespace of its own")?);
    let is_known = path.parent().is_some_and(|parent| FOLDERS.iter().any(|folder| parent == Path::new(folder)));
    let name = path.file_name().and_then(|name| name.to_str()).filter(|_| is_known);
    name.map(str::to_owned)
        .ok_or_else(|| format!("the pod's network namespace is {}, expected a name in {}", path.display(), FOLDERS[0]))
}

async fn ask(socket: &Path, task: &Task) -> std::io::Result<TaskAnswer> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&serde_json::to_vec(task)?).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    let most = u64::try_from(MAX_EXPLANATION_BYTES).unwrap_or(u64::MAX);
    stream.take(most).read_to_end(&mut answer).await?;
    match answer.is_empty() {
        true => Ok(Err("the process that explains has ended without an answer".to_owned())),
        false => Ok(serde_json::from_slice(&answer)?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // spec: EXPL-20
    #[test]
    fn a_namespace_is_a_name_in_the_runtimes_folder_alone() {
        let info = |path: Value| json!({"runtimeSpec": {"linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": path}]}}});
        assert_eq!(name_of(&info(json!("/var/run/netns/cni-1"))).unwrap(), "cni-1");
        assert_eq!(name_of(&info(json!("/run/netns/cni-1"))).unwrap(), "cni-1");
        for path in ["/proc/1/ns/net", "/run/netns/../x", "/run/netns/a/b", "cni-1", "/"] {
            assert!(name_of(&info(json!(path))).unwrap_err().contains("expected a name"), "{path}");
        }
        // A pod in the host's network.
        assert!(name_of(&info(Value::Null)).unwrap_err().contains("of its own"));
        assert!(name_of(&json!({})).is_err());
    }
}
