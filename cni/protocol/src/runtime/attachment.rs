//! What is attached: a container's interface, and what the runtime wants to tell the plugins about it.

use std::path::PathBuf;

use serde_json::{Map, Value};
use terms::{ContainerId, IfName};

use crate::plugin::AttachmentKey;

/// One interface of one container.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachment {
    /// CNI_CONTAINERID, the same for every plugin of every network of the container.
    pub container_id: ContainerId,
    /// Its network namespace; only DEL can do without.
    pub netns: Option<PathBuf>,
    /// CNI_IFNAME: the interface to be made in the namespace.
    pub if_name: IfName,
    /// The pairs of `CNI_ARGS`, in order.
    pub args: Vec<(String, String)>,
    /// By capability; each plugin is given those that it declares, as `runtimeConfig`.
    pub capability_args: Map<String, Value>,
    /// Merged into `args.cni` of every plugin, as Multus does with `cni-args`.
    pub cni_args: Map<String, Value>,
}

impl Attachment {
    /// An attachment with nothing to tell.
    #[must_use]
    pub fn new(container_id: ContainerId, netns: Option<PathBuf>, if_name: IfName) -> Self {
        let (capability_args, cni_args) = (Map::new(), Map::new());
        Self { container_id, netns, if_name, args: Vec::new(), capability_args, cni_args }
    }

    /// Container and interface, as GC lists them.
    #[must_use]
    pub fn key(&self) -> AttachmentKey {
        AttachmentKey { container_id: self.container_id.clone(), if_name: self.if_name.clone() }
    }

    /// The text of `CNI_ARGS`, or the pair that cannot be written there.
    pub(super) fn args_text(&self) -> Result<String, &(String, String)> {
        let writable = |(key, value): &&(String, String)| {
            !key.is_empty()
                && !key.contains([';', '='])
                && !value.contains(';')
                && !(key.clone() + value).contains('\0')
        };
        match self.args.iter().find(|pair| !writable(pair)) {
            Some(pair) => Err(pair),
            None => Ok(self.args.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_args(pairs: &[(&str, &str)]) -> Attachment {
        let mut attachment = Attachment::new("c1".parse().unwrap(), None, "eth0".parse().unwrap());
        attachment.args = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        attachment
    }

    #[test]
    fn pairs_are_joined_and_what_would_break_out_is_refused() {
        assert_eq!(with_args(&[("A", "1"), ("B", "x=y")]).args_text().unwrap(), "A=1;B=x=y");
        for pair in [("A", "1;B=2"), ("A;", "1"), ("A=", "1"), ("", "1"), ("A", "\0")] {
            assert!(with_args(&[pair]).args_text().is_err(), "{pair:?}");
        }
    }
}
