//! What remedies name: the commands of the place that keeps a VM, as far as its kind allows.

use protocol::control::State;

use super::{broken, link, pod, remove_link};
use crate::diagnose::diagnose;
use crate::diagnose::fixtures::masquerade;
use crate::evidence::Evidence;
use crate::explanation::Explanation;
use crate::record::{Kind, Phase, Place};

#[test] // spec: EXPL-4
fn remedies_for_an_instance_are_those_that_its_kind_allows() {
    let remedy = |kind: Kind, fault: fn(&mut Evidence)| {
        let vm = broken(masquerade, |vm| {
            vm.status.kind = kind;
            fault(vm);
        });
        diagnose(&vm).findings[0].remedy.clone()
    };
    let faults: [fn(&mut Evidence); 3] = [
        |vm| vm.status.phase = Phase::Failed,
        |vm| remove_link(pod(vm), "k6t-eth0"),
        |vm| link(pod(vm), "k6t-eth0").carrier = false,
    ];
    let verbs = ["tapvisor start", "tapvisor stop", "tapvisor restart"];
    for (fault, verb) in faults.into_iter().zip(verbs) {
        assert!(remedy(Kind::VirtualMachine, fault).contains(verb));
        let instance = remedy(Kind::VirtualMachineInstance, fault);
        assert!(instance.contains("`tapvisor run` it again"), "{instance}");
        assert!(!verbs.iter().any(|verb| instance.contains(verb)), "{instance}");
    }
}

// spec: EXPL-4
#[test]
fn remedies_in_a_cluster_name_kubectl_and_virtctl_alone() {
    let faults: [fn(&mut Evidence); 5] = [
        |vm| vm.status.phase = Phase::Failed,
        |vm| remove_link(pod(vm), "k6t-eth0"),
        |vm| link(pod(vm), "k6t-eth0").carrier = false,
        |vm| vm.launcher = Err("no answer".to_owned()),
        |vm| vm.launcher.as_mut().unwrap().state = State::Paused,
    ];
    for kind in [Kind::VirtualMachine, Kind::VirtualMachineInstance] {
        let remedies = faults.map(|fault| {
            let vm = broken(masquerade, |vm| {
                vm.status.kind = kind;
                vm.status.place = Place::Cluster { node: "node1".to_owned(), pod: "virt-launcher-web".to_owned() };
                fault(vm);
            });
            let explanation = diagnose(&vm);
            assert_eq!(explanation.node.as_deref(), Some("node1"));
            explanation.findings[0].remedy.clone()
        });
        for remedy in &remedies {
            assert!(remedy.contains("kubectl ") || remedy.contains("virtctl "), "{remedy}");
            assert!(!remedy.contains("tapvisor "), "{remedy}");
        }
        assert_eq!(remedies[0].contains("virtctl start"), kind == Kind::VirtualMachine, "{}", remedies[0]);
    }
}

#[test]
fn an_explanation_is_read_back_as_it_was_written() {
    let vm = broken(masquerade, |vm| link(pod(vm), "k6t-eth0").carrier = false);
    let explanation = diagnose(&vm);
    let text = serde_json::to_string(&explanation).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), explanation);
}
