//! Files and folders of an image, numbered as its tables list them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::content::Files;

/// The longest name that Linux reads from Rock Ridge.
const MAX_NAME_BYTES: usize = 253;
/// Joliet's longest name, in UTF-16 units.
const MAX_JOLIET_UNITS: usize = 64;
/// The path table has 16 bits for the number of a folder; each folder and file takes a sector or more.
const MAX_FOLDERS: usize = 8192;

#[derive(Debug)]
pub(super) struct Tree<'a> {
    /// The root first; each level after the one above it, as the path table lists them.
    pub(super) folders: Vec<Folder>,
    /// Contents of the files; [`Node::File`] holds the index.
    pub(super) files: Vec<&'a [u8]>,
}

#[derive(Debug, Default)]
pub(super) struct Folder {
    /// Place of the folder that it lies in; the root's own.
    pub(super) parent: usize,
    /// What lies in it, in the order of Joliet names.
    pub(super) children: Vec<Child>,
}

/// What lies in a folder.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) name: String,
    /// Its name as Joliet writes it: UTF-16, big-endian, unique in the folder.
    pub(super) joliet: Vec<u8>,
    pub(super) node: Node,
}

/// A child's place among the folders or files.
#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    Folder(usize),
    File(usize),
}

/// A folder on the way to its place.
#[derive(Default)]
struct Nested<'a> {
    folders: BTreeMap<&'a str, Nested<'a>>,
    files: BTreeMap<&'a str, &'a [u8]>,
}

impl<'a> Tree<'a> {
    /// Sorts files into folders.
    ///
    /// # Errors
    /// A part of a path that is no name, or that names a file and a folder.
    pub(super) fn new(files: &'a Files) -> io::Result<Self> {
        let mut root = Nested::default();
        for (path, content) in files {
            root.add(path, path, content)?;
        }
        let mut tree = Self { folders: vec![Folder::default()], files: Vec::new() };
        let mut level = vec![(0, root)];
        while !level.is_empty() {
            let mut below = Vec::new();
            for (place, nested) in level {
                tree.place(place, nested, &mut below);
            }
            if tree.folders.len() > MAX_FOLDERS {
                return Err(io::Error::other(format!("there are more than {MAX_FOLDERS} folders")));
            }
            level = below;
        }
        Ok(tree)
    }

    fn place(&mut self, place: usize, nested: Nested<'a>, below: &mut Vec<(usize, Nested<'a>)>) {
        let mut taken = BTreeSet::new();
        let mut names: Vec<_> = nested.folders.keys().chain(nested.files.keys()).copied().collect();
        names.sort_unstable();
        let mut named: Vec<_> = names.into_iter().map(|name| (joliet(name, &mut taken), name)).collect();
        named.sort_unstable();
        let (mut folders, files) = (nested.folders, nested.files);
        for (joliet, name) in named {
            let node = match (folders.remove(name), files.get(name)) {
                (Some(folder), _) => {
                    self.folders.push(Folder { parent: place, children: Vec::new() });
                    below.push((self.folders.len() - 1, folder));
                    Node::Folder(self.folders.len() - 1)
                }
                (None, content) => {
                    self.files.push(content.copied().unwrap_or_default());
                    Node::File(self.files.len() - 1)
                }
            };
            self.folders[place].children.push(Child { name: name.to_owned(), joliet, node });
        }
    }
}

impl<'a> Nested<'a> {
    fn add(&mut self, path: &str, rest: &'a str, content: &'a [u8]) -> io::Result<()> {
        let bad = |what: String| Err(io::Error::other(format!("file {path:?}: {what}")));
        let (name, below) = rest.split_once('/').map_or((rest, None), |(name, below)| (name, Some(below)));
        if name.is_empty() || name == "." || name == ".." || name.contains('\0') || name.len() > MAX_NAME_BYTES {
            return bad(format!("{name:?} is no name of a file, of at most {MAX_NAME_BYTES} bytes"));
        }
        let is_taken = match below {
            Some(_) => self.files.contains_key(name),
            None => self.folders.contains_key(name),
        };
        match below {
            _ if is_taken => bad(format!("{name:?} is a file and a folder")),
            Some(below) => self.folders.entry(name).or_default().add(path, below, content),
            None => {
                self.files.insert(name, content);
                Ok(())
            }
        }
    }
}

/// A name as Joliet allows it, another one for each name of a folder.
fn joliet(name: &str, taken: &mut BTreeSet<Vec<u16>>) -> Vec<u8> {
    let allowed = |c: char| if c < ' ' || "*/:;?\\".contains(c) { '_' } else { c };
    let units: Vec<u16> = name.chars().map(allowed).collect::<String>().encode_utf16().collect();
    let mut unique = units[..units.len().min(MAX_JOLIET_UNITS)].to_vec();
    let mut number = 1;
    while !taken.insert(unique.clone()) {
        let tail: Vec<u16> = format!("~{number}").encode_utf16().collect();
        unique = units[..units.len().min(MAX_JOLIET_UNITS - tail.len())].to_vec();
        unique.extend(tail);
        number += 1;
    }
    unique.iter().flat_map(|unit| unit.to_be_bytes()).collect()
}
