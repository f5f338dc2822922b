//! Where each part of an image lies, and the parts that name those places.

use super::record::{Extent, append, attributes, byte, count, of_child, of_root, record, sectors};
use super::tree::{Node, Tree};
use super::{BLOCK_SECTORS, SECTOR};

/// The first sector after the descriptors.
const FIRST: u32 = 19;
/// The names of folders themselves and of those they lie in.
const SELF: &[u8] = b"\0";
const PARENT: &[u8] = b"\x01";

/// The two ways in which an image names its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    RockRidge,
    Joliet,
}

const BOTH: [Names; 2] = [Names::RockRidge, Names::Joliet];

/// Places of everything in an image.
#[derive(Debug)]
pub(super) struct Layout {
    /// Of the path tables: two byte orders for each way of naming.
    tables: [Extent; 4],
    /// Of folders, for each way of naming.
    folders: [Vec<Extent>; 2],
    /// First sector of the area for long names.
    continuation: u32,
    files: Vec<Extent>,
    /// All sectors of the image.
    pub(super) sectors: u32,
}

impl Layout {
    pub(super) fn new(tree: &Tree<'_>) -> Self {
        let nowhere = vec![Extent::default(); tree.folders.len()];
        let mut layout = Self {
            tables: [Extent::default(); 4],
            folders: [nowhere.clone(), nowhere],
            continuation: 0,
            files: vec![Extent::default(); tree.files.len()],
            sectors: FIRST,
        };
        // Sizes do not depend on places.
        let tables = layout.path_tables(tree).map(|table| table.len());
        let (folders, continuation) = layout.folders(tree);
        layout.tables = tables.map(|bytes| layout.place(bytes));
        layout.folders = folders.map(|folders| folders.iter().map(|folder| layout.place(folder.len())).collect());
        layout.continuation = layout.place(continuation.len()).sector;
        layout.files = tree.files.iter().map(|file| layout.place(file.len())).collect();
        layout.sectors = layout.sectors.next_multiple_of(BLOCK_SECTORS);
        layout
    }

    fn place(&mut self, bytes: usize) -> Extent {
        let extent = Extent { sector: self.sectors, bytes: count(bytes) };
        self.sectors = self.sectors.saturating_add(sectors(bytes));
        extent
    }

    /// Bytes of a path table and the sectors of its two byte orders.
    pub(super) fn path_table(&self, names: Names) -> (u32, [u32; 2]) {
        let [little, big] = match names {
            Names::RockRidge => [self.tables[0], self.tables[1]],
            Names::Joliet => [self.tables[2], self.tables[3]],
        };
        (little.bytes, [little.sector, big.sector])
    }

    /// The record of the root.
    pub(super) fn root(&self, names: Names) -> Vec<u8> {
        record(SELF, true, self.of_names(names).first().copied().unwrap_or_default(), &[])
    }

    fn of_names(&self, names: Names) -> &[Extent] {
        &self.folders[usize::from(names == Names::Joliet)]
    }

    /// The path tables: every folder with its place and its parent's number (ECMA-119 §9.4).
    pub(super) fn path_tables(&self, tree: &Tree<'_>) -> [Vec<u8>; 4] {
        let table = |names: Names, is_big: bool| {
            let mut table = Vec::new();
            for (place, identifier) in identifiers(tree, names).iter().enumerate() {
                let sector = self.of_names(names)[place].sector;
                let parent = u16::try_from(tree.folders[place].parent + 1).unwrap_or(u16::MAX);
                table.extend([byte(identifier.len()), 0]);
                table.extend(if is_big { sector.to_be_bytes() } else { sector.to_le_bytes() });
                table.extend(if is_big { parent.to_be_bytes() } else { parent.to_le_bytes() });
                table.extend(identifier);
                table.resize(table.len().next_multiple_of(2), 0);
            }
            table
        };
        let [rock_ridge, joliet] = BOTH;
        [table(rock_ridge, false), table(rock_ridge, true), table(joliet, false), table(joliet, true)]
    }

    /// The folders, for each way of naming, and the area for long names.
    pub(super) fn folders(&self, tree: &Tree<'_>) -> ([Vec<Vec<u8>>; 2], Vec<u8>) {
        let mut continuation = Vec::new();
        let places = 0..tree.folders.len();
        let folders =
            BOTH.map(|names| places.clone().map(|place| self.folder(tree, place, names, &mut continuation)).collect());
        (folders, continuation)
    }

    fn folder(&self, tree: &Tree<'_>, place: usize, names: Names, continuation: &mut Vec<u8>) -> Vec<u8> {
        let (folder, extents, mut content) = (&tree.folders[place], self.of_names(names), Vec::new());
        let of_itself = match (names, place) {
            (Names::Joliet, _) => Vec::new(),
            (Names::RockRidge, 0) => of_root(),
            (Names::RockRidge, _) => attributes(true),
        };
        let of_parent = if names == Names::Joliet { Vec::new() } else { attributes(true) };
        append(&mut content, &record(SELF, true, extents[place], &of_itself));
        append(&mut content, &record(PARENT, true, extents[folder.parent], &of_parent));
        for child in &folder.children {
            let (is_folder, extent) = match child.node {
                Node::Folder(place) => (true, extents[place]),
                Node::File(place) => (false, self.files[place]),
            };
            let identifier = match names {
                Names::RockRidge => short(child.node),
                Names::Joliet if is_folder => child.joliet.clone(),
                Names::Joliet => [&child.joliet, &b"\0;\x001"[..]].concat(),
            };
            let system_use = match names {
                Names::RockRidge => of_child(&child.name, is_folder, identifier.len(), self.continuation, continuation),
                Names::Joliet => Vec::new(),
            };
            append(&mut content, &record(&identifier, is_folder, extent, &system_use));
        }
        // A folder has whole sectors.
        content.resize(content.len().next_multiple_of(SECTOR), 0);
        content
    }
}

/// The identifiers of all folders.
fn identifiers(tree: &Tree<'_>, names: Names) -> Vec<Vec<u8>> {
    let mut identifiers = vec![SELF.to_vec(); tree.folders.len()];
    for child in tree.folders.iter().flat_map(|folder| &folder.children) {
        if let Node::Folder(place) = child.node {
            identifiers[place] = match names {
                Names::RockRidge => short(child.node),
                Names::Joliet => child.joliet.clone(),
            };
        }
    }
    identifiers
}

/// The name below Rock Ridge's: a number, in the order of a folder's records.
fn short(node: Node) -> Vec<u8> {
    match node {
        Node::Folder(place) => format!("D{place:07}").into_bytes(),
        Node::File(place) => format!("F{place:07}.;1").into_bytes(),
    }
}
