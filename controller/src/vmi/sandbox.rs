//! Why a pod's sandbox is not made: the kubelet says it only in events, with the CNI plugin's sentence in them.

use k8s_openapi::api::core::v1::Event;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;

/// Reason of the event by which the kubelet tells that it cannot make a pod's sandbox.
const REASON: &str = "FailedCreatePodSandBox";
/// What a CNI runtime writes in front of a plugin's own sentence.
const PLUGIN_FAILED: &str = "failed (add): ";

/// Watches only those events.
pub(crate) fn config() -> watcher::Config {
    watcher::Config::default().fields(&format!("reason={REASON},involvedObject.kind=Pod"))
}

/// The last complaint about the sandbox of a pod.
pub(crate) fn failure(events: &Store<Event>, pod_uid: &str) -> Option<String> {
    let events = events.state();
    let of_pod = events.iter().filter(|event| event.involved_object.uid.as_deref() == Some(pod_uid));
    let last = of_pod.max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))?;
    last.message.as_deref().map(sentence)
}

/// The part of the kubelet's message that stays the same from one retry to the next: the plugin's sentence, with the
/// plugin's name in front.
fn sentence(message: &str) -> String {
    let Some((before, after)) = message.split_once(PLUGIN_FAILED) else { return message.trim().to_owned() };
    let named = before.rsplit_once("plugin type=\"").and_then(|(_, rest)| rest.split_once('"'));
    match named {
        Some((plugin, _)) => format!("CNI plugin {plugin}: {}", after.trim()),
        None => after.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_of_the_plugin_is_kept_without_the_sandboxs_number() {
        let message = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \
            \"0a1b\": plugin type=\"tapvisor\" name=\"multus\" failed (add): annotation tapvisor.io/wiring: foo: unknown field";
        assert_eq!(sentence(message), "CNI plugin tapvisor: annotation tapvisor.io/wiring: foo: unknown field");
        assert_eq!(
            sentence("Failed to create pod sandbox: no such image"),
            "Failed to create pod sandbox: no such image"
        );
    }
}
