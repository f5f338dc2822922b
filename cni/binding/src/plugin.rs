//! The verbs as the protocol knows them.

use std::error::Error as _;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostnet::Locks;
use hostnet::linux::{Linux, Real, Recorder};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use terms::NetworkName;
use wiring::Request;

use super::conf::{FoundRequest, find_request};
use super::error::BindingError;
use super::mark::FIRST_GROUP;
use super::verbs::{Outcome, Work};
use super::{addresses, reply};
use cni_protocol::plugin::{Add, Added, ArgsError, Attachment, Check, Collect, Del, NetConf, Netns, Plugin, Status};
use cni_protocol::spec::{Code, Error};

/// The pairs that Kubernetes' runtimes and Multus send; this plugin reads none of them.
const KNOWN_ARGS: [&str; 7] =
    ["K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID", "IP", "MAC", "GATEWAY"];

/// How long a call waits for another one in its namespace. Calls take milliseconds; runtimes wait for minutes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The plugin. A verb leaves the thread that called it in the namespace it was about: one call, one process.
#[derive(Debug, Clone, Default)]
pub struct Tapvisor {
    /// ADD changes nothing and prints its plan as commands of `ip`, `sysctl` and `nft`.
    pub dry_run: bool,
    /// Where every single call to the kernel is written down, so that it can be replayed without us.
    pub record: Option<PathBuf>,
}

impl Tapvisor {
    fn perform(&self, netns: &Netns, work: &Work<'_>) -> Result<Option<Outcome>, BindingError> {
        // Each call reads, plans and changes: a second one at the same time would restore what the first has half changed.
        let _lock = netns.open().lock(&Locks::default(), PATIENCE)?;
        // A thread for it would take as long as ten calls to the kernel.
        netns.open().enter()?;
        match &self.record {
            None => work.perform(&mut Linux::here()),
            Some(file) => recorded(work, file),
        }
    }
}

fn recorded(work: &Work<'_>, file: &Path) -> Result<Option<Outcome>, BindingError> {
    let mut calls = Recorder::new(Real::default());
    let outcome = work.perform(&mut Linux::with(&mut calls));
    let steps = json!(calls.into_steps());
    std::fs::write(file, steps.to_string()).map_err(|source| BindingError::Record { path: file.to_owned(), source })?;
    outcome
}

impl Plugin for Tapvisor {
    fn about(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "tapvisor-cni {version}: a CNI plugin that turns a pod's interfaces into taps for a VM. Container runtimes execute \
             it.\nThe command for people is `tapvisor`: try `tapvisor run -f vm.yaml`."
        )
    }

    fn add(&self, call: &Add) -> Result<Added, Error> {
        let Some(asked) = find_request(&call.conf)? else {
            return Ok(Added::Unchanged);
        };
        call.attachment.args.expect_only(&KNOWN_ARGS).map_err(bad_args)?;
        tell_of_ignored(&asked);
        let group = group(call.conf.name(), &call.attachment);
        let sandbox = call.netns.path().to_string_lossy();
        let given = addresses::given(call.previous.as_ref(), &sandbox, &call.attachment.if_name);
        let work = Work::Add { request: &asked.request, given: &given, group, dry: self.dry_run };
        // Not freed, as all that `verbs` makes.
        let outcome = ManuallyDrop::new(self.perform(&call.netns, &work)?.unwrap_or_default());
        let Outcome { plan, macs, choices } = &*outcome;
        choices.iter().for_each(|choice| eprintln!("tapvisor: {choice}"));
        if self.dry_run {
            return Ok(Added::Text(plan.to_string()));
        }
        Ok(reply::result(call.conf.prev_text(), &sandbox, macs))
    }

    fn del(&self, call: &Del) -> Result<(), Error> {
        // All that this plugin makes dies with the namespace, except the lock's file of a call that was killed.
        let Some(netns) = &call.netns else {
            sweep_locks();
            return Ok(());
        };
        let group = group(call.conf.name(), &call.attachment);
        let request = request_or_none(&call.conf);
        self.perform(netns, &Work::Del { request: request.as_ref(), group })?;
        Ok(())
    }

    fn check(&self, call: &Check) -> Result<(), Error> {
        let Some(asked) = find_request(&call.conf)? else { return Ok(()) };
        let group = group(call.conf.name(), &call.attachment);
        self.perform(&call.netns, &Work::Check { request: &asked.request, group })?;
        Ok(())
    }

    fn gc(&self, _: &Collect) -> Result<(), Error> {
        // Nothing else of ours is outside a container's namespace, and with that it goes.
        sweep_locks();
        Ok(())
    }

    fn status(&self, _: &Status) -> Result<(), Error> {
        Ok(super::status::check()?)
    }
}

/// Removes the files of locks that killed calls left. Without the namespace a DEL cannot tell which of them was its own.
#[cold]
fn sweep_locks() {
    if let Err(error) = Locks::default().sweep() {
        eprintln!("tapvisor: {error}: {}", error.source().map(ToString::to_string).unwrap_or_default());
    }
}

/// A request that is refused now was refused by ADD, or was another then: what is to be removed shows in the namespace.
fn request_or_none(conf: &NetConf) -> Option<Request> {
    match find_request(conf) {
        Ok(asked) => asked.map(|asked| asked.request),
        Err(error) => {
            eprintln!("tapvisor: removing by what is found in the namespace, for the request is refused: {error}");
            None
        }
    }
}

fn tell_of_ignored(asked: &FoundRequest) {
    for ignored in &asked.ignored {
        eprintln!("tapvisor: {ignored} is not read, because {} counts before it", asked.source);
    }
}

fn bad_args(error: ArgsError) -> Error {
    Error::from_chain(Code::INVALID_ENVIRONMENT, &error)
}

/// The link group of an attachment's taps: by it DEL knows them without a file, a request or a previous result.
fn group(network: &NetworkName, attachment: &Attachment) -> u32 {
    let key = format!("{network}/{}/{}", attachment.container_id, attachment.if_name);
    let hash = Sha256::digest(key);
    let number = hash.iter().take(4).fold(0, |number, byte| number << 8 | u32::from(*byte));
    number & (FIRST_GROUP - 1) | FIRST_GROUP
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni_protocol::plugin::{Args, serve};

    fn group_of(network: &str, container: &str, if_name: &str) -> u32 {
        let attachment = Attachment {
            container_id: container.parse().unwrap(),
            if_name: if_name.parse().unwrap(),
            args: Args::default(),
        };
        group(&network.parse().unwrap(), &attachment)
    }

    /// The answer to an ADD with unknown arguments; the test's own namespace serves as the pod's and is not read.
    fn add_with_unknown_args(more: &str) -> serde_json::Value {
        let conf = format!(r#"{{"cniVersion":"1.0.0","name":"net","type":"tapvisor"{more}}}"#);
        let env = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/proc/self/ns/net"),
            ("CNI_NETNS_OVERRIDE", "1"),
            ("CNI_ARGS", "COLOUR=red"),
        ];
        let mut answer = Vec::new();
        serve(&Tapvisor::default(), &env.into_iter().collect(), &mut conf.as_bytes(), &mut answer).unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    // spec: CNI-PASS
    #[test]
    fn unknown_arguments_matter_to_a_pod_with_a_request_alone() {
        let previous = json!({"cniVersion": "1.0.0", "other": 7});
        assert_eq!(add_with_unknown_args(&format!(r#","prevResult":{previous}"#)), previous);
        let wiring = r#","wiring":{"version":1,"owner":{"uid":107,"gid":107},"interfaces":[]}"#;
        let refused = add_with_unknown_args(wiring);
        assert_eq!((refused["code"].as_u64(), refused["cniVersion"].as_str()), (Some(4), Some("1.0.0")));
    }

    #[test]
    fn a_group_belongs_to_one_attachment() {
        let one = group_of("net", "c1", "eth0");
        assert_eq!(one, group_of("net", "c1", "eth0"));
        for other in [group_of("ne", "c1", "eth0"), group_of("net", "c2", "eth0"), group_of("net", "c1", "eth1")] {
            assert_ne!(one, other);
        }
        assert!((FIRST_GROUP..2 * FIRST_GROUP).contains(&one));
    }
}
