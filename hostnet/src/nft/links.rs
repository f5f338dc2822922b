//! The links that rules name by number.

use terms::IfName;

/// The links of a namespace: nft names a device that a frame is sent to by its index.
pub trait LinkIndices {
    /// The index of a link; `None` if there is no link of that name.
    fn index_of(&self, link: &IfName) -> Option<u32>;

    /// The name of the link with an index; `None` if there is no such link.
    fn link_at(&self, index: u32) -> Option<&IfName>;
}
