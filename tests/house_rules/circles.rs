//! No circle of modules inside a crate: modules of one folder use each other one way.
//!
//! What a parent and its children take from each other is not looked at: a parent puts its children together. A name that a
//! parent re-exports counts as the child's that it comes from. Tests are not looked at, nor the insides of macro calls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree};
use tests::workspace;

/// A module's name, from the crate's root.
type Name = Vec<String>;

/// What a module imports or re-exports, by its name there.
type Imports = BTreeMap<Name, BTreeMap<String, Name>>;

/// Circles that are still to be undone, by crate and the module above them.
const OWED: [(&str, &str); 2] = [("tests", ""), ("tests", "conformance")];

/// One module's own items.
struct Module {
    items: Vec<Item>,
    /// Every path that they name, imports among them.
    paths: Vec<Name>,
}

// spec: LAUNCH-3
#[test]
fn modules_of_a_folder_use_each_other_one_way() {
    let mut broken = Vec::new();
    let mut owed: BTreeSet<_> = OWED.into();
    for manifest in super::tracked().iter().filter(|name| name.ends_with("Cargo.toml")) {
        let folder = Path::new(manifest).parent().unwrap();
        let modules = load(&workspace().join(folder).join("src"));
        for (above, circle) in circles(&modules) {
            let name = folder.display().to_string();
            let is_owed = OWED.contains(&(name.as_str(), above.as_str()));
            owed.retain(|place| *place != (name.as_str(), above.as_str()));
            if !is_owed {
                broken.push(format!("{name}: in {above:?} these use each other in a circle: {}", circle.join(", ")));
            }
        }
    }
    broken.extend(owed.iter().map(|place| format!("{place:?} has no circle any more: take it out of OWED")));
    super::none(&broken);
}

#[test]
fn a_circle_is_seen_through_imports_paths_and_re_exports() {
    let modules = |files: &[(&str, &str)]| {
        let module = |(name, text): &(&str, &str)| {
            let name: Name = name.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
            (name, module(syn::parse_file(text).unwrap().items))
        };
        files.iter().map(module).collect::<BTreeMap<_, _>>()
    };
    let root = ("", "mod a; mod b; mod c; pub use a::Thing;");
    let by_import = modules(&[root, ("a", "use super::b::Other;"), ("b", "use crate::a::Thing;"), ("c", "")]);
    assert_eq!(circles(&by_import), [(String::new(), vec!["a".to_owned(), "b".to_owned()])]);
    let by_path =
        modules(&[root, ("a", "fn f() { super::b::g() }"), ("b", "fn g() { crate::Thing::new() }"), ("c", "")]);
    assert_eq!(circles(&by_path).len(), 1);
    let tested = "#[cfg(test)] mod tests { use crate::b::g; }";
    let one_way = modules(&[root, ("a", tested), ("b", "use super::a; fn g() { a::h() }"), ("c", "use crate::b::g;")]);
    assert_eq!(circles(&one_way), []);
}

/// The modules of a crate by their files, without those of tests.
fn load(source: &Path) -> BTreeMap<Name, Module> {
    let mut modules = BTreeMap::new();
    for root in ["lib.rs", "main.rs"].map(|name| source.join(name)).into_iter().filter(|root| root.is_file()).take(1) {
        walk(&root, source, Name::new(), &mut modules);
    }
    modules
}

fn walk(file: &Path, folder: &Path, name: Name, modules: &mut BTreeMap<Name, Module>) {
    let text = std::fs::read_to_string(file).unwrap();
    let items = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())).items;
    for item in &items {
        let Item::Mod(child) = item else { continue };
        if child.content.is_some() || is_for_tests(&child.attrs) {
            continue;
        }
        let own = child.ident.to_string();
        let inside = [name.clone(), vec![own.clone()]].concat();
        if let Some(path) = path_of(&child.attrs) {
            // As the compiler does: in the folder of the file that names it, its own modules next to it.
            let file = file.with_file_name(path);
            walk(&file, file.parent().unwrap(), inside, modules);
            continue;
        }
        let files = [folder.join(format!("{own}.rs")), folder.join(&own).join("mod.rs")];
        let file = files.iter().find(|file| file.is_file()).unwrap_or_else(|| panic!("no file of {own} in {name:?}"));
        walk(file, &folder.join(&own), inside, modules);
    }
    modules.insert(name, module(items));
}

fn module(items: Vec<Item>) -> Module {
    let mut paths = Paths::default();
    items.iter().for_each(|item| paths.visit_item(item));
    Module { items, paths: paths.0 }
}

/// The value of the attribute `path`.
fn path_of(attributes: &[Attribute]) -> Option<String> {
    let mut values = attributes.iter().filter(|attribute| attribute.path().is_ident("path")).filter_map(|attribute| {
        let syn::Expr::Lit(value) = &attribute.meta.require_name_value().ok()?.value else { return None };
        let syn::Lit::Str(text) = &value.lit else { return None };
        Some(text.value())
    });
    values.next_back()
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|word| word == "test")
    })
}

/// Collects the paths of items.
#[derive(Default)]
struct Paths(Vec<Name>);

impl<'a> Visit<'a> for Paths {
    fn visit_item_mod(&mut self, item: &'a ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        self.0.extend(imported(item).into_iter().map(|(_, path)| path));
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.segments.len() > 1 {
            self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }
}

/// The names that an import brings in, with their paths.
fn imported(item: &ItemUse) -> Vec<(String, Name)> {
    fn follow(tree: &UseTree, path: &Name, found: &mut Vec<(String, Name)>) {
        let with = |part: &syn::Ident| [path.clone(), vec![part.to_string()]].concat();
        match tree {
            UseTree::Path(tree) => follow(&tree.tree, &with(&tree.ident), found),
            UseTree::Name(tree) if tree.ident == "self" => {
                found.push((path.last().cloned().unwrap_or_default(), path.clone()));
            }
            UseTree::Name(tree) => found.push((tree.ident.to_string(), with(&tree.ident))),
            UseTree::Rename(tree) => found.push((tree.rename.to_string(), with(&tree.ident))),
            UseTree::Glob(_) => found.push((String::new(), path.clone())),
            UseTree::Group(group) => group.items.iter().for_each(|tree| follow(tree, path, found)),
        }
    }
    let mut found = Vec::new();
    follow(&item.tree, &Name::new(), &mut found);
    found
}

/// Circles among modules of one folder: the module above them, and their names.
fn circles(modules: &BTreeMap<Name, Module>) -> Vec<(String, Vec<String>)> {
    let mut imports = Imports::new();
    // Twice: what is imported may itself be a re-export.
    for _ in 0..2 {
        for (name, module) in modules {
            let uses =
                module.items.iter().filter_map(|item| if let Item::Use(item) = item { Some(item) } else { None });
            let others: Imports = imports.iter().filter(|(other, _)| *other != name).map(clone_pair).collect();
            let known =
                uses.flat_map(imported).filter_map(|(own, path)| Some((own, resolve(name, &path, modules, &others)?)));
            imports.insert(name.clone(), known.collect());
        }
    }
    let mut edges: BTreeMap<Name, BTreeMap<&String, BTreeSet<String>>> = BTreeMap::new();
    for (name, module) in modules {
        for target in module.paths.iter().filter_map(|path| resolve(name, path, modules, &imports)) {
            let shared = name.iter().zip(&target).take_while(|(one, other)| one == other).count();
            if let (Some(from), Some(to)) = (name.get(shared), target.get(shared)) {
                edges.entry(name[..shared].to_vec()).or_default().entry(from).or_default().insert(to.clone());
            }
        }
    }
    edges
        .iter()
        .flat_map(|(above, edges)| components(edges).into_iter().map(|circle| (above.join("::"), circle)))
        .collect()
}

fn clone_pair<A: Clone, B: Clone>((one, other): (&A, &B)) -> (A, B) {
    (one.clone(), other.clone())
}

/// The module of this crate that a path in `from` leads to; `None` for others' and for plain names.
fn resolve(from: &Name, path: &[String], modules: &BTreeMap<Name, Module>, imports: &Imports) -> Option<Name> {
    let is_module = |base: &Name, part: &String| modules.contains_key(&[base.clone(), vec![part.clone()]].concat());
    let imported = |base: &Name, part: &String| imports.get(base)?.get(part).cloned();
    let first = path.first()?;
    let ups = path.iter().take_while(|part| *part == "super").count();
    let (mut base, mut rest) = match first.as_str() {
        "crate" => (Name::new(), &path[1..]),
        "super" => (from[..from.len().saturating_sub(ups)].to_vec(), &path[ups..]),
        "self" => (from.clone(), &path[1..]),
        _ if is_module(from, first) => (from.clone(), path),
        _ => (imported(from, first)?, &path[1..]),
    };
    while let Some((part, further)) = rest.split_first() {
        base = match imported(&base, part) {
            _ if is_module(&base, part) => [base, vec![part.clone()]].concat(),
            Some(target) if target != base => target,
            _ => break,
        };
        rest = further;
    }
    Some(base)
}

/// Sets of names that all reach each other.
fn components(edges: &BTreeMap<&String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reached = |from: &String| {
        let (mut seen, mut ahead) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(name) = ahead.pop() {
            let next = edges.get(&name).into_iter().flatten();
            ahead.extend(next.filter(|name| seen.insert((*name).clone())).cloned());
        }
        seen
    };
    let all: BTreeMap<&String, BTreeSet<String>> = edges.keys().map(|name| (*name, reached(name))).collect();
    let circle = |name: &&String| -> Vec<String> {
        let others = all[name].iter().filter(|other| all.get(other).is_some_and(|back| back.contains(*name)));
        others.cloned().collect()
    };
    let found: BTreeSet<_> = all.keys().map(circle).filter(|circle| circle.len() > 1).collect();
    found.into_iter().collect()
}
