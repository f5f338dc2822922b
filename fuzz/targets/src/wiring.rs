//! Target `wiring`: a wiring request as the pod's annotation carries it, and the alias of a tap as its mark.

use std::collections::BTreeSet;

use terms::IfName;
use wiring::{Binding, GuestSubnet, Mark, NicKey, Request};

/// Longest refusal: a path and a rule, with the value shortened.
const LONGEST_REFUSAL_BYTES: usize = 1024;

/// Reads an input and panics when a promise is broken.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Request::parse(text) {
        Ok(request) => verify(&request),
        Err(error) => crate::assert_short(&error.to_string(), LONGEST_REFUSAL_BYTES),
    }
    if let Ok(mark) = text.parse::<Mark>() {
        let again: Mark = mark.to_string().parse().expect("a mark that was written can be read");
        assert_eq!(again, mark);
        assert!(again.to_string().len() <= text.len());
    }
}

/// What holds for every request that is accepted.
pub(crate) fn verify(request: &Request) {
    let interfaces = request.interfaces();
    assert!(interfaces.len() <= Request::MAX_INTERFACES);
    assert!(interfaces.iter().map(|interface| interface.ports.len()).sum::<usize>() <= Request::MAX_PORTS);
    assert!(request.owner().uid != u32::MAX && request.owner().gid != u32::MAX);
    let text = serde_json::to_string(request).expect("a request is JSON");
    let again = Request::parse(&text).expect("a request that was written can be read");
    assert_eq!(&again, request);
    assert_eq!(again.digest(), request.digest());
    assert_ne!(request.digest().to_string(), "0".repeat(16), "the digest of a wiring that is not finished");
    Mark::new(request.digest(), [].into()).expect("a digest fits an alias");
    devices_differ(request);
    for interface in interfaces.iter().filter(|interface| interface.binding == Binding::Masquerade) {
        assert!(GuestSubnet::v4(interface.subnet()).is_some() && GuestSubnet::v6(interface.subnet6()).is_some());
        assert!(interface.ports.iter().all(|port| port.port != 0));
    }
}

/// No two devices of one namespace share a name.
fn devices_differ(request: &Request) {
    let mut names: BTreeSet<IfName> = BTreeSet::new();
    for interface in request.interfaces() {
        let key = NicKey::of(&interface.pod_interface).expect("an accepted name can be derived from");
        let tap = match interface.binding {
            Binding::Masquerade => Some(key.masquerade_tap()),
            Binding::Bridge => Some(key.bridge_tap()),
            Binding::Sriov => None,
        };
        let devices = [Some(interface.pod_interface.clone()), tap, Some(key.service_tap())];
        for name in devices.into_iter().flatten() {
            assert!(names.insert(name.clone()), "{name} is the name of two devices");
        }
    }
}
