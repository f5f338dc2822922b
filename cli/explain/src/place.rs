//! The commands that remedies name: those of the place that keeps the VM.

use crate::record::{Kind, Place, VmStatus};

impl VmStatus {
    /// The node of a VM in a cluster.
    pub(crate) fn node(&self) -> Option<&str> {
        match &self.place {
            Place::Machine { .. } => None,
            Place::Cluster { node, .. } => Some(node),
        }
    }

    /// The commands that remove the wiring and make it again.
    pub(crate) fn rewire(&self) -> String {
        match (&self.place, self.kind) {
            (Place::Machine { argument, .. }, Kind::VirtualMachine) => {
                format!("`tapvisor stop {argument}` and `tapvisor start {argument}` wire it again.")
            }
            (Place::Cluster { .. }, Kind::VirtualMachine) => format!("{} wires it again.", self.restart()),
            (_, Kind::VirtualMachineInstance) => format!("{}; that wires it again.", self.run_again()),
        }
    }

    /// The commands that restart the guest; on one machine a VirtualMachine keeps its wiring, an instance is created again.
    pub(crate) fn restart(&self) -> String {
        match (&self.place, self.kind) {
            (Place::Machine { argument, .. }, Kind::VirtualMachine) => format!("`tapvisor restart {argument}`"),
            (Place::Cluster { .. }, Kind::VirtualMachine) => self.virtctl("restart"),
            (_, Kind::VirtualMachineInstance) => self.run_again(),
        }
    }

    /// How a VM that has ended is started.
    pub(crate) fn start(&self) -> String {
        match (&self.place, self.kind) {
            (Place::Machine { argument, .. }, Kind::VirtualMachine) => format!("`tapvisor start {argument}`"),
            // One that has ended makes room for the next of its name.
            (Place::Machine { .. }, Kind::VirtualMachineInstance) => "`tapvisor run` it again".to_owned(),
            (Place::Cluster { .. }, Kind::VirtualMachine) => self.virtctl("start"),
            (Place::Cluster { .. }, Kind::VirtualMachineInstance) => self.run_again(),
        }
    }

    pub(crate) fn unpause(&self) -> String {
        match &self.place {
            Place::Machine { argument, .. } => format!("`tapvisor unpause {argument}`"),
            Place::Cluster { .. } => format!("`virtctl unpause vmi {} -n {}`", self.name, self.namespace),
        }
    }

    /// How to read what the guest has written on its console, and why it ended.
    pub(crate) fn logs(&self) -> String {
        match &self.place {
            Place::Machine { argument, .. } => format!("`tapvisor logs {argument}`"),
            Place::Cluster { .. } => self.launcher_log(),
        }
    }

    /// How to watch the guest's console.
    pub(crate) fn console(&self) -> String {
        match &self.place {
            Place::Machine { argument, .. } => format!("`tapvisor logs -f {argument}`"),
            Place::Cluster { .. } => self.virtctl("console"),
        }
    }

    /// Where the launcher says why it does not answer.
    pub(crate) fn launcher_log(&self) -> String {
        match &self.place {
            Place::Machine { log, .. } => log.display().to_string(),
            Place::Cluster { pod, .. } => format!("`kubectl logs {pod} -n {}`", self.namespace),
        }
    }

    fn virtctl(&self, verb: &str) -> String {
        format!("`virtctl {verb} {} -n {}`", self.name, self.namespace)
    }

    /// An instance runs once: nothing starts it again but a new one.
    fn run_again(&self) -> String {
        match &self.place {
            Place::Machine { argument, .. } => format!("`tapvisor rm {argument}`, then `tapvisor run` it again"),
            Place::Cluster { .. } => {
                format!("`kubectl delete vmi {} -n {}`, then create it again", self.name, self.namespace)
            }
        }
    }
}
