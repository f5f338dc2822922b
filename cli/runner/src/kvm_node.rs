//! Whether the launcher's user may open `/dev/kvm`, and as a member of which group.
//!
//! QEMU opens the node itself, and distributions give it to a group: Debian has root:kvm with mode 0660. KubeVirt's pods get
//! that group, and so do our launchers. Access control lists are not looked at: they can only give more.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use wiring::Owner;

/// Path of the device node that KVM is used by.
pub const KVM: &str = "/dev/kvm";

/// Who owns a node, and what they and others may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    uid: u32,
    gid: u32,
    mode: u32,
}

/// How a user can open a node for reading and writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// As it is, without a further group.
    Open,
    /// As a member of this group.
    Group(u32),
    /// Not at all: no group that a launcher may have opens it.
    Closed,
}

impl Node {
    /// The node of KVM as it is now.
    ///
    /// # Errors
    /// The system's, `NotFound` when there is none.
    pub fn kvm() -> io::Result<Self> {
        let found = std::fs::metadata(KVM)?;
        Ok(Self { uid: found.uid(), gid: found.gid(), mode: found.mode() })
    }

    /// The access of a user with one group. The kernel uses the first of owner, group and others that applies, and no other.
    pub fn access(self, user: Owner) -> Access {
        const READ_AND_WRITE: u32 = 0o6;
        let may = |shift: u32| (self.mode >> shift) & READ_AND_WRITE == READ_AND_WRITE;
        let is_open = match () {
            () if self.uid == user.uid => may(6),
            () if self.gid == user.gid => may(3),
            // No launcher becomes a member of root's group.
            () if !may(0) && may(3) && self.gid != 0 => return Access::Group(self.gid),
            () => may(0),
        };
        if is_open { Access::Open } else { Access::Closed }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is user {}'s and group {}'s, mode {:04o}", self.uid, self.gid, self.mode & 0o7777)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: LAUNCH-6
    #[test]
    fn a_node_is_opened_as_it_is_or_by_its_group_but_never_by_roots() {
        let access =
            |uid, gid, mode: u32| Node { uid, gid, mode: 0o020_000 | mode }.access(Owner { uid: 107, gid: 107 });
        assert_eq!(access(0, 104, 0o660), Access::Group(104), "Debian");
        assert_eq!(access(0, 36, 0o666), Access::Open, "Fedora");
        assert_eq!(
            (access(0, 0, 0o600), access(0, 0, 0o660)),
            (Access::Closed, Access::Closed),
            "no launcher joins root's group"
        );
        assert_eq!(
            (access(0, 107, 0o660), access(0, 107, 0o606)),
            (Access::Open, Access::Closed),
            "its group is our own"
        );
        assert_eq!((access(107, 104, 0o600), access(107, 104, 0o066)), (Access::Open, Access::Closed), "it is our own");
        assert_eq!(
            (access(0, 104, 0o640), access(0, 104, 0o646)),
            (Access::Closed, Access::Open),
            "reading alone is no use"
        );
        let debian = Node { uid: 0, gid: 104, mode: 0o020_660 };
        assert_eq!(debian.to_string(), "it is user 0's and group 104's, mode 0660");
    }
}
