//! Names that the agent and the controller must spell alike.

/// TCP port of the agent's API, on its pod's addresses.
pub const PORT: u16 = 8186;

/// The stream of launchers; [`WATCH`] is its only query.
pub const LAUNCHERS_PATH: &str = "/v1/launchers";

/// What all launchers of the node have used, a [`NodeCounters`](crate::NodeCounters). Agents of older releases answer 404.
pub const COUNTERS_PATH: &str = "/v1/counters";

/// `PUT` of a [`Followed`](crate::Followed): which KubeVirt object is in force. Agents of older releases answer 404.
pub const CONFIGURATION_PATH: &str = "/v1/configuration";

/// What an `Upgrade` header names for a stream of raw bytes, as [`CONSOLE`] is.
pub const STREAM_PROTOCOL: &str = "tapvisor-stream";

/// Below a launcher's path: its serial console, as a stream of raw bytes.
pub const CONSOLE: &str = "console";

/// Below a launcher's path: the guest's screen by VNC, as a stream of raw bytes.
pub const VNC: &str = "vnc";

/// Below a launcher's path: `POST` of an [`ExplainRequest`](crate::ExplainRequest) explains its network.
pub const EXPLAIN: &str = "explain";

/// The query of a stream that is not to displace an open one: the answer is 409 then.
pub const PRESERVE: &str = "preserve=true";

/// The path of a launcher's verb (`protocol::control::Verb`) or stream: `POST` for a verb, `GET` for a stream.
#[must_use]
pub fn launcher_path(pod: &crate::PodUid, verb: &str) -> String {
    format!("{LAUNCHERS_PATH}/{}/{verb}", pod.as_str())
}

/// The query that keeps the stream open. Without it the stream ends after [`crate::Line::Synced`].
pub const WATCH: &str = "watch=true";

/// TCP port of the agent's probes, for kubelet: plain HTTP, `GET /healthz` and `GET /readyz`, no other path.
pub const PROBE_PORT: u16 = 8187;

/// TCP port, on the loopback of the agent's pod alone, of what `kubectl port-forward` reaches: HTTPS, `GET /healthz` as
/// KubeVirt's virt-handler answers it.
pub const HEALTH_PORT: u16 = 8443;

/// The DNS name in the agent's certificate: clients connect to an address and verify this name. The certificate is for
/// servers alone (extended key usage serverAuth), so that no node can be a client of another.
pub const SERVER_NAME: &str = "tapvisor-node.tapvisor.svc";

/// The Secret with the agent's `tls.crt` and `tls.key`, and `ca.crt`, which clients' certificates are signed with.
pub const TLS_SECRET: &str = "tapvisor-node-tls";

/// The namespace that the agent runs in.
pub const NAMESPACE: &str = "tapvisor";

/// The name of the agent's DaemonSet and ServiceAccount.
pub const AGENT: &str = "tapvisor-node";

/// The label of the agent's pods, with the value [`AGENT`].
pub const AGENT_LABEL: &str = "app";

/// Resource name of /dev/kvm, on nodes where code has run in it.
pub const KVM: &str = "devices.kubevirt.io/kvm";

/// Resource name of /dev/net/tun.
pub const TUN: &str = "devices.kubevirt.io/tun";

/// Resource name of /dev/vhost-net.
pub const VHOST_NET: &str = "devices.kubevirt.io/vhost-net";

/// Node label, `true` where the agent is ready and launchers may be scheduled.
pub const SCHEDULABLE: &str = "kubevirt.io/schedulable";

/// Prefix of node labels, one per feature of the node's processor.
pub const CPU_FEATURE_PREFIX: &str = "cpu-feature.node.kubevirt.io/";

/// Prefix of a node label: the vendor of the node's processor.
pub const CPU_VENDOR_PREFIX: &str = "cpu-vendor.node.kubevirt.io/";

/// Prefix of a node label: the model of the node's processor, as libvirt calls it.
pub const CPU_MODEL_PREFIX: &str = "cpu-model.node.kubevirt.io/";

/// Prefix of a node label: the same for the processor that a guest with `cpu.model: host-model` has.
pub const HOST_MODEL_PREFIX: &str = "host-model-cpu.node.kubevirt.io/";

/// Node label: the model name of the node's processor, as /proc/cpuinfo has it, in the letters of a label.
pub const CPU_MODEL: &str = "node.tapvisor.io/cpu-model";

/// Taint (effect NoSchedule) that an administrator may put on new nodes; the agent removes it once it is ready.
pub const NOT_READY_TAINT: &str = "node.tapvisor.io/not-ready";

/// Volume (emptyDir) of a launcher pod with the launcher's folder, mounted at `/run/tapvisor`.
pub const RUN_VOLUME: &str = "run";

/// The launcher's control socket in [`RUN_VOLUME`].
pub const CONTROL_SOCKET: &str = "control.sock";
