//! The files of an image as a container would see them: layers laid over one another (OCI image specification, layer.md).
//!
//! *Guarantees.* Links are followed inside the image alone. Names, depth and steps are bounded: whatever the layers say, memory
//! and time are.

use std::collections::BTreeMap;

/// Names of all layers together, with folders that no entry of its own makes.
const MAX_NAMES: usize = 500_000;
/// Bytes of all names together.
const MAX_NAME_BYTES: usize = 64 << 20;
const MAX_DEPTH: u16 = 1024;
/// Links followed for one path, as Linux has it.
const MAX_LINKS: usize = 40;
/// Names looked at for all entries together: a few seconds.
const MAX_STEPS: usize = 20_000_000;
const ROOT: Id = Id(0);

/// Where a file's content lies: in which layer, and as which of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) layer: usize,
    pub(super) entry: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Id(usize);

/// What a layer puts under a name.
#[derive(Debug)]
pub(super) enum Item {
    Folder,
    File(Place),
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    Other,
}

/// What is under a name in the end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Folder(Id),
    File(Place),
    /// A device or a pipe.
    Other,
}

#[derive(Debug, Clone)]
enum Content {
    Folder(BTreeMap<Box<[u8]>, Id>),
    File(Place),
    Link(Box<[u8]>),
    Other,
}

#[derive(Debug)]
struct Node {
    content: Content,
    parent: Id,
    depth: u16,
    /// The last layer that has an entry for it.
    layer: usize,
}

/// The files and folders of the layers read so far.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    name_bytes: usize,
    steps: usize,
}

type Flaw = &'static str;

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node { content: Content::Folder(BTreeMap::new()), parent: ROOT, depth: 0, layer: 0 };
        Self { nodes: vec![root], name_bytes: 0, steps: 0 }
    }

    /// Lays an entry of `layer` over what is there, as an unpacking container runtime does: links in the path before its last
    /// name are followed, and what is in the way is replaced.
    ///
    /// # Errors
    /// What is wrong with the layer, as the end of a sentence.
    pub(super) fn add(&mut self, layer: usize, path: &[u8], item: Item) -> Result<(), Flaw> {
        let names = clean(path);
        let Some((name, folders)) = names.split_last() else { return Ok(()) };
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.white_out(layer, folders, hidden);
        }
        let Some(folder) = self.walk(ROOT, folders, Some(layer))? else { return Err("has an entry below a file") };
        let content = match item {
            Item::Folder => Content::Folder(BTreeMap::new()),
            Item::File(place) => Content::File(place),
            Item::Symlink(to) => Content::Link(to.into()),
            Item::HardLink(to) => self.link_target(&to)?,
            Item::Other => Content::Other,
        };
        match self.child(folder, name) {
            Some(id) => {
                let node = self.node_mut(id).ok_or(LOST)?;
                node.layer = layer;
                if !matches!((&node.content, &content), (Content::Folder(_), Content::Folder(_))) {
                    node.content = content;
                }
                Ok(())
            }
            None => self.insert(folder, name, content, layer).map(drop),
        }
    }

    /// What a path leads to from a folder, all links followed.
    pub(super) fn find(&mut self, folder: Option<Id>, path: &[u8]) -> Result<Found, Flaw> {
        let names: Vec<_> = path.split(|byte| *byte == b'/').collect();
        let found = self.walk(folder.unwrap_or(ROOT), &names, None)?;
        Ok(match found.and_then(|id| Some((id, &self.nodes.get(id.0)?.content))) {
            None | Some((_, Content::Link(_))) => Found::Nothing,
            Some((id, Content::Folder(_))) => Found::Folder(id),
            Some((_, Content::File(place))) => Found::File(*place),
            Some((_, Content::Other)) => Found::Other,
        })
    }

    /// The names in a folder.
    pub(super) fn names(&self, folder: Id) -> Vec<Vec<u8>> {
        self.children(folder).into_iter().flat_map(BTreeMap::keys).map(|name| name.to_vec()).collect()
    }

    /// `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all that they have in its folder; wherever they stand in their
    /// own layer, they hide nothing of it.
    fn white_out(&mut self, layer: usize, folders: &[&[u8]], hidden: &[u8]) -> Result<(), Flaw> {
        let Some(folder) = self.walk(ROOT, folders, None)?.filter(|id| self.children(*id).is_some()) else {
            return Ok(());
        };
        if hidden == b".wh..opq" {
            self.hide(folder, layer)?;
        } else if let Some(id) = self.child(folder, hidden)
            && !self.hide(id, layer)?
            && let Some(children) = self.children_mut(folder)
        {
            children.remove(hidden);
        }
        Ok(())
    }

    /// Hides what lower layers have here and below. Returns whether this layer has something of its own.
    fn hide(&mut self, id: Id, layer: usize) -> Result<bool, Flaw> {
        self.step()?;
        let mut has_own = self.nodes.get(id.0).is_some_and(|node| node.layer == layer);
        for (name, child) in self.children(id).cloned().unwrap_or_default() {
            if self.hide(child, layer)? {
                has_own = true;
            } else if let Some(children) = self.children_mut(id) {
                children.remove(&name);
            }
        }
        Ok(has_own)
    }

    /// A hard link is another name of a file, or of a symbolic link, that is there already.
    fn link_target(&mut self, to: &[u8]) -> Result<Content, Flaw> {
        const NOWHERE: Flaw = "has a hard link to what is not there";
        let names = clean(to);
        let (name, folders) = names.split_last().ok_or(NOWHERE)?;
        let folder = self.walk(ROOT, folders, None)?.ok_or(NOWHERE)?;
        let target = self.child(folder, name).and_then(|id| self.nodes.get(id.0)).ok_or(NOWHERE)?;
        match &target.content {
            Content::Folder(_) => Err("has a hard link to a folder"),
            content => Ok(content.clone()),
        }
    }

    /// Follows a path and all links in it. Folders that are not there are made for `layer`; a file in the way of them is
    /// `None`, as is what is not there without a layer.
    fn walk(&mut self, from: Id, path: &[&[u8]], make: Option<usize>) -> Result<Option<Id>, Flaw> {
        let mut pending: Vec<Vec<u8>> = path.iter().rev().map(|name| name.to_vec()).collect();
        let (mut at, mut links) = (from, 0);
        while let Some(name) = pending.pop() {
            self.step()?;
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at = self.nodes.get(at.0).map_or(ROOT, |node| node.parent);
                    continue;
                }
                _ => {}
            }
            let Some(id) = self.child(at, &name) else {
                let Some(layer) = make else { return Ok(None) };
                at = self.insert(at, &name, Content::Folder(BTreeMap::new()), layer)?;
                continue;
            };
            match self.nodes.get(id.0).map(|node| &node.content) {
                Some(Content::Folder(_)) => at = id,
                Some(Content::Link(to)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("has a chain of more than 40 links");
                    }
                    if to.starts_with(b"/") {
                        at = ROOT;
                    }
                    pending.extend(to.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                }
                _ => return Ok(Some(id).filter(|_| pending.is_empty() && make.is_none())),
            }
        }
        Ok(Some(at))
    }

    fn insert(&mut self, folder: Id, name: &[u8], content: Content, layer: usize) -> Result<Id, Flaw> {
        let depth = self.nodes.get(folder.0).map_or(0, |node| node.depth) + 1;
        let more = name.len() + if let Content::Link(to) = &content { to.len() } else { 0 };
        self.name_bytes += more;
        if self.nodes.len() >= MAX_NAMES || self.name_bytes > MAX_NAME_BYTES {
            return Err("brings the image to more than 500000 names or 64 MiB of them");
        }
        if depth > MAX_DEPTH {
            return Err("has folders more than 1024 deep");
        }
        let id = Id(self.nodes.len());
        self.nodes.push(Node { content, parent: folder, depth, layer });
        self.children_mut(folder).ok_or(LOST)?.insert(name.into(), id);
        Ok(id)
    }

    fn step(&mut self) -> Result<(), Flaw> {
        self.steps += 1;
        if self.steps > MAX_STEPS { Err("has names that take too many steps to follow") } else { Ok(()) }
    }

    fn node_mut(&mut self, id: Id) -> Option<&mut Node> {
        self.nodes.get_mut(id.0)
    }

    fn child(&self, folder: Id, name: &[u8]) -> Option<Id> {
        self.children(folder)?.get(name).copied()
    }

    fn children(&self, folder: Id) -> Option<&BTreeMap<Box<[u8]>, Id>> {
        match &self.nodes.get(folder.0)?.content {
            Content::Folder(children) => Some(children),
            _ => None,
        }
    }

    fn children_mut(&mut self, folder: Id) -> Option<&mut BTreeMap<Box<[u8]>, Id>> {
        match &mut self.node_mut(folder)?.content {
            Content::Folder(children) => Some(children),
            _ => None,
        }
    }
}

/// Cannot be: an id that is handed out stays.
const LOST: Flaw = "has lost a name";

/// The names of a path, with `..` stopping at the root as it does in a container.
fn clean(path: &[u8]) -> Vec<&[u8]> {
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(layer: usize, entry: usize) -> Place {
        Place { layer, entry }
    }

    fn file(tree: &mut Tree, layer: usize, path: &str) {
        tree.add(layer, path.as_bytes(), Item::File(place(layer, path.len()))).unwrap();
    }

    fn is_there(tree: &mut Tree, path: &str) -> bool {
        tree.find(None, path.as_bytes()).unwrap() != Found::Nothing
    }

    // spec: IMG-2
    #[test]
    fn an_opaque_folder_keeps_what_its_own_layer_has() {
        let mut tree = Tree::new();
        file(&mut tree, 0, "a/old");
        file(&mut tree, 0, "a/b/old");
        file(&mut tree, 1, "a/b/new");
        tree.add(1, b"a/.wh..wh..opq", Item::File(place(1, 0))).unwrap();
        file(&mut tree, 1, "a/late");
        assert!(!is_there(&mut tree, "a/old") && !is_there(&mut tree, "a/b/old"));
        assert!(is_there(&mut tree, "a/b/new") && is_there(&mut tree, "a/late"));
    }

    #[test]
    fn a_file_replaces_a_folder_and_a_folder_a_file() {
        let mut tree = Tree::new();
        file(&mut tree, 0, "a/b");
        file(&mut tree, 1, "a");
        assert!(!is_there(&mut tree, "a/b"));
        tree.add(2, b"a", Item::Folder).unwrap();
        file(&mut tree, 2, "a/c");
        assert!(is_there(&mut tree, "a/c") && !is_there(&mut tree, "a/b"));
        assert_eq!(tree.add(3, b"a/c/d", Item::Other), Err("has an entry below a file"));
    }

    // spec: IMG-2
    #[test]
    fn links_are_followed_inside_the_image() {
        let mut tree = Tree::new();
        tree.add(0, b"disk", Item::Symlink(b"/data/../data/./images".to_vec())).unwrap();
        // Through the link, which leads to what is only made now.
        file(&mut tree, 1, "disk/root.img");
        assert!(is_there(&mut tree, "data/images/root.img"));
        tree.add(1, b"up", Item::Symlink(b"../../../../data/images/root.img".to_vec())).unwrap();
        assert_eq!(tree.find(None, b"up").unwrap(), tree.find(None, b"disk/root.img").unwrap());
        tree.add(1, b"again", Item::HardLink(b"data/images/root.img".to_vec())).unwrap();
        tree.add(1, b"data/images/.wh.root.img", Item::Other).unwrap();
        assert!(is_there(&mut tree, "again"));
        tree.add(2, b"loop", Item::Symlink(b"loop".to_vec())).unwrap();
        assert!(tree.find(None, b"loop/x").unwrap_err().contains("40 links"));
        assert!(tree.add(2, b"gone", Item::HardLink(b"nowhere".to_vec())).unwrap_err().contains("not there"));
    }

    // spec: IMG-1
    #[test]
    fn depth_names_and_steps_have_an_end() {
        let mut tree = Tree::new();
        assert!(tree.add(0, "d/".repeat(2000).as_bytes(), Item::Folder).unwrap_err().contains("1024 deep"));
        let mut tree = Tree::new();
        let mut many = (0..=MAX_NAMES).map(|number| tree.add(0, format!("f{number}").as_bytes(), Item::Other));
        assert!(many.find_map(Result::err).unwrap().contains("500000 names"));
        let mut tree = Tree::new();
        let deep = "d/".repeat(1000);
        tree.add(0, deep.as_bytes(), Item::Folder).unwrap();
        let mut again = (0..30_000).map(|_| tree.add(1, format!("{deep}.wh.x").as_bytes(), Item::Other));
        assert!(again.find_map(Result::err).unwrap().contains("too many steps"));
    }
}
