//! What comes next when the KubeVirt object is deleted: a pure decision from what is left in the cluster.

/// What is left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Whether the installation's own namespace is being deleted: then everything goes at once.
    pub(super) is_namespace_deleted: bool,
    /// Whether another KubeVirt object stays.
    pub(super) has_another: bool,
    /// Whether the object is gone, because a person took its finalizer away: nothing is deleted for it any more.
    pub(super) is_gone: bool,
    /// VirtualMachines, instances and sets of instances that are not being deleted.
    pub(super) workloads: usize,
    /// Instances.
    pub(super) instances: usize,
    /// Launcher pods: each is there until its network has been taken down by DEL.
    pub(super) pods: usize,
    /// The agents' DaemonSet.
    pub(super) agents: Option<AgentSet>,
    /// The nodes whose agent has not ended.
    pub(super) nodes: Vec<String>,
}

/// The agents' DaemonSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AgentSet {
    /// It keeps an agent on each node.
    Live,
    /// Deleted, and waits for its agents: each puts its node back before it ends.
    Deleted,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Delete every object that makes or is a VM.
    DeleteWorkloads,
    /// Delete the agents' DaemonSet.
    DeleteAgents,
    /// Nothing can be done; the text says what is waited for.
    Wait(String),
    /// Let the KubeVirt object go.
    LetGo,
}

/// Workloads first, then what their removal needs. No agent ends while a pod is there whose DEL needs the plugin.
pub(super) fn plan(left: &Left) -> Step {
    if left.is_namespace_deleted || left.has_another || left.is_gone {
        return Step::LetGo;
    }
    if left.workloads > 0 {
        return Step::DeleteWorkloads;
    }
    if left.instances > 0 || left.pods > 0 {
        let (instances, pods) = (left.instances, left.pods);
        return Step::Wait(format!("{instances} VirtualMachineInstances and {pods} launcher pods are left"));
    }
    match left.agents {
        Some(AgentSet::Live) => Step::DeleteAgents,
        _ if !left.nodes.is_empty() => {
            Step::Wait(format!("the node agents of {} have not put their nodes back", left.nodes.join(", ")))
        }
        Some(AgentSet::Deleted) => Step::Wait("the agents' DaemonSet is left".to_owned()),
        None => Step::LetGo,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: OPS-4
    #[test]
    fn vms_go_first_then_the_agents_then_the_object() {
        let live = Some(AgentSet::Live);
        let nodes = vec!["node1".to_owned(), "node2".to_owned()];
        let mut left =
            Left { workloads: 3, instances: 2, pods: 2, agents: live, nodes: nodes.clone(), ..Left::default() };
        assert_eq!(plan(&left), Step::DeleteWorkloads);
        left.workloads = 0;
        assert_eq!(plan(&left), Step::Wait("2 VirtualMachineInstances and 2 launcher pods are left".to_owned()));
        left.instances = 0;
        assert!(matches!(plan(&left), Step::Wait(text) if text.contains("2 launcher pods")));
        left.pods = 0;
        assert_eq!(plan(&left), Step::DeleteAgents);
        left.agents = Some(AgentSet::Deleted);
        assert!(matches!(plan(&left), Step::Wait(text) if text.contains("node1, node2")));
        left.agents = None;
        assert!(matches!(plan(&left), Step::Wait(_)), "an agent without its set may still put its node back");
        left.nodes.clear();
        assert_eq!(plan(&left), Step::LetGo);
    }

    // spec: OPS-4
    #[test]
    fn a_vm_that_is_made_meanwhile_is_deleted_too() {
        let left = Left { workloads: 1, agents: Some(AgentSet::Deleted), ..Left::default() };
        assert_eq!(plan(&left), Step::DeleteWorkloads);
    }

    #[test]
    fn nothing_is_held_when_everything_goes_or_the_object_is_not_the_last() {
        let all = Left { workloads: 1, instances: 1, pods: 1, agents: Some(AgentSet::Live), ..Left::default() };
        assert_eq!(plan(&Left { is_namespace_deleted: true, ..all.clone() }), Step::LetGo);
        assert_eq!(plan(&Left { has_another: true, ..all.clone() }), Step::LetGo);
        assert_eq!(plan(&Left { is_gone: true, ..all }), Step::LetGo);
    }
}
