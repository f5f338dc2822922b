//! Why a pod does not come to its containers: the kubelet says it only in events, a refused network with the CNI plugin's
//! sentence in them, and a volume that cannot be mounted, as one of a Secret that is missing.

use k8s_openapi::api::core::v1::Event;
use kube::runtime::reflector::Store;
use kube::runtime::watcher;

/// Reasons of the events by which the kubelet tells that it cannot make a pod's sandbox or mount its volumes.
pub(crate) const REASONS: [&str; 2] = ["FailedCreatePodSandBox", "FailedMount"];
/// What a CNI runtime writes in front of a plugin's own sentence.
const PLUGIN_FAILED: &str = "failed (add): ";

/// A complaint of the kubelet about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The event's reason.
    pub(crate) reason: String,
    /// What stays the same from one retry to the next.
    pub(crate) message: String,
}

/// Watches only the events with a reason.
pub(crate) fn config(reason: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("reason={reason},involvedObject.kind=Pod"))
}

/// The last complaint about a pod.
pub(crate) fn complaint(events: &[Store<Event>], pod_uid: &str) -> Option<Complaint> {
    let events = events.iter().flat_map(Store::state);
    let of_pod = events.filter(|event| event.involved_object.uid.as_deref() == Some(pod_uid));
    let last = of_pod.max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))?;
    Some(Complaint { reason: last.reason.clone()?, message: last.message.as_deref().map(sentence)? })
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

/// Whether two messages differ only in addresses: each retry gives the pod others.
pub(super) fn is_same_but_for_addresses(one: &str, other: &str) -> bool {
    let words = |text: &str| text.split_whitespace().map(without_address).collect::<Vec<_>>();
    words(one) == words(other)
}

/// A word; `None` in place of an address or a network, with punctuation around it.
fn without_address(word: &str) -> Option<String> {
    let inner = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric() && letter != ':');
    let address = inner.split('/').next().unwrap_or_default().trim_end_matches(':');
    address.parse::<std::net::IpAddr>().is_err().then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: CTRL-6
    #[test]
    fn a_message_that_differs_in_addresses_alone_is_the_same() {
        let refused = |address: &str, network: &str| {
            format!("vmNetworkCIDR 10.244.0.0/16 contains {address}, of {network}: choose another")
        };
        let first = refused("10.244.1.7", "\"fd00::7/64\"");
        assert!(is_same_but_for_addresses(&first, &refused("10.244.1.9", "\"fd00::9/64\"")));
        assert!(!is_same_but_for_addresses(&first, &first.replace("choose", "name")));
        assert!(!is_same_but_for_addresses(&first, &refused("eth0", "\"fd00::7/64\"")));
        assert!(!is_same_but_for_addresses("a", "a b"));
    }

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
