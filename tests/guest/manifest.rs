//! Manifests for tests: the masquerade example with other words in it.

/// A VM that boots the guest of the examples.
#[derive(Debug, Clone)]
pub(crate) struct Vm {
    name: String,
    binding: &'static str,
    queues: bool,
}

impl Vm {
    /// A VM with one NIC on the pod network.
    pub(crate) fn new(name: &str, binding: &'static str) -> Self {
        Self { name: name.to_owned(), binding, queues: false }
    }

    /// With two processors and a queue for each.
    pub(crate) fn two_queues(mut self) -> Self {
        self.queues = true;
        self
    }

    /// The manifest.
    pub(crate) fn yaml(&self) -> String {
        let queues = if self.queues { "networkInterfaceMultiqueue: true" } else { "networkInterfaceMultiqueue: false" };
        let cores = if self.queues { 2 } else { 1 };
        format!(
            "apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata: {{name: {name}}}
spec:
  runStrategy: Always
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 15
      domain:
        cpu: {{cores: {cores}}}
        memory: {{guest: 128Mi}}
        firmware:
          kernelBoot:
            kernelArgs: console=ttyS0 quiet panic=-1
            container: {{image: 'tapvisor/guest-kernel:1', kernelPath: /boot/vmlinuz, initrdPath: /boot/initrd.img}}
        devices:
          rng: {{}}
          {queues}
          interfaces: [{{name: default, {binding}: {{}}}}]
      networks: [{{name: default, pod: {{}}}}]
---
",
            name = self.name,
            binding = self.binding,
        )
    }
}
