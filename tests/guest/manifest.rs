//! Manifests for tests: the masquerade example with other words in it.

use serde_json::{Value, json};
use tests::KERNEL_ARGUMENTS;

/// A VM that boots the guest of the examples.
#[derive(Debug, Clone)]
pub(crate) struct Vm {
    name: String,
    strategy: &'static str,
    spec: Value,
}

impl Vm {
    /// A VM with one NIC on the pod network.
    pub(crate) fn new(name: &str, binding: &'static str) -> Self {
        let kernel = json!({"image": "tapvisor/guest-kernel:1", "kernelPath": "/boot/vmlinuz",
            "initrdPath": "/boot/initrd.img"});
        let firmware = json!({"kernelBoot": {"kernelArgs": KERNEL_ARGUMENTS, "container": kernel}});
        let domain = json!({"cpu": {"cores": 1}, "memory": {"guest": "128Mi"}, "firmware": firmware,
            "devices": {"rng": {}, "interfaces": [], "disks": []}});
        let spec = json!({"terminationGracePeriodSeconds": 15, "domain": domain, "networks": [], "volumes": []});
        let vm = Self { name: name.to_owned(), strategy: "Always", spec };
        vm.nic(json!({"name": "default", binding: {}}), json!({"pod": {}}))
    }

    /// With two processors and a queue for each.
    pub(crate) fn two_queues(mut self) -> Self {
        self.spec["domain"]["cpu"]["cores"] = json!(2);
        self.spec["domain"]["devices"]["networkInterfaceMultiqueue"] = json!(true);
        self
    }

    /// With another NIC, on a network that takes the NIC's name.
    pub(crate) fn nic(mut self, interface: Value, mut network: Value) -> Self {
        network["name"] = interface["name"].clone();
        push(&mut self.spec["domain"]["devices"]["interfaces"], interface);
        push(&mut self.spec["networks"], network);
        self
    }

    /// With a NIC on a NetworkAttachmentDefinition called like the NIC.
    pub(crate) fn on(self, definition: &str, interface: Value) -> Self {
        let mut interface = interface;
        interface["name"] = json!(definition);
        self.nic(interface, json!({"multus": {"networkName": definition}}))
    }

    /// With a disk on virtio, of the volume that `source` says.
    pub(crate) fn disk(mut self, name: &str, mut source: Value) -> Self {
        source["name"] = json!(name);
        push(&mut self.spec["domain"]["devices"]["disks"], json!({"name": name, "disk": {"bus": "virtio"}}));
        push(&mut self.spec["volumes"], source);
        self
    }

    /// With a field of the instance's specification, by its JSON pointer's last parent: `/domain/devices`, `watchdog`.
    pub(crate) fn set(mut self, parent: &str, field: &str, value: Value) -> Self {
        self.spec.pointer_mut(parent).expect("the parent is part of every VM")[field] = value;
        self
    }

    /// With another run strategy.
    pub(crate) fn strategy(mut self, strategy: &'static str) -> Self {
        self.strategy = strategy;
        self
    }

    /// The manifest.
    pub(crate) fn yaml(&self) -> String {
        let template = json!({"metadata": {"labels": {"app": self.name}}, "spec": self.spec});
        let object = json!({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": self.name},
            "spec": {"runStrategy": self.strategy, "template": template}});
        document(&object)
    }
}

/// A NetworkAttachmentDefinition.
pub(crate) fn definition(name: &str, config: &Value) -> String {
    document(&json!({"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name}, "spec": {"config": config.to_string()}}))
}

/// One document of a manifest: JSON is YAML.
pub(crate) fn document(object: &Value) -> String {
    format!("{object}\n---\n")
}

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().expect("a list of the specification").push(item);
}
