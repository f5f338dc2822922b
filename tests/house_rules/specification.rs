//! SPECIFICATION.md and the tests name each other.
//!
//! A row is `| ID | promise | tests |`. Each test that it names carries the id in a comment above, `// spec: ID, ID`,
//! and each id in such a comment is a row that names the test below.

use std::collections::{BTreeMap, BTreeSet};

use super::{none, read, rust_files};

/// The mark of a comment with ids.
const MARK: &str = "// spec: ";

/// A row of a table: its id, and what holds its promise.
struct Row {
    id: String,
    line: usize,
    held_by: String,
}

impl Row {
    /// The names in backticks.
    fn names(&self) -> Vec<&str> {
        self.held_by.split('`').skip(1).step_by(2).collect()
    }
}

/// The rows of all tables, and what is wrong with their form.
fn rows(text: &str) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut broken, mut ids) = (Vec::<Row>::new(), Vec::new(), BTreeSet::new());
    let is_row = |line: &str| line.starts_with('|') && !line.starts_with("|-") && !line.starts_with("| id |");
    for (index, line) in text.lines().enumerate().filter(|(_, line)| is_row(line)) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, .., held_by] = cells.as_slice() else {
            broken.push(format!("SPECIFICATION.md:{}: expected `| ID | promise | tests |`, found {line}", index + 1));
            continue;
        };
        let is_id = |id: &str| {
            id.contains('-') && id.chars().all(|one| one.is_ascii_uppercase() || one.is_ascii_digit() || one == '-')
        };
        if cells.len() != 3 || !is_id(id) {
            let hint =
                "the first of three cells is an id as in CNI-ADD-3, which the test carries as `// spec: CNI-ADD-3`";
            broken.push(format!("SPECIFICATION.md:{}: {hint}: {line}", index + 1));
            continue;
        }
        if !ids.insert((*id).to_owned()) {
            broken.push(format!("SPECIFICATION.md:{}: {id} is the id of two rows", index + 1));
        }
        rows.push(Row { id: (*id).to_owned(), line: index + 1, held_by: (*held_by).to_owned() });
    }
    (rows, broken)
}

/// The ids that comments of a file carry, each with its line and the line of code that names the test below.
fn carried(text: &str) -> Vec<(String, usize, String)> {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(ids) = line.strip_prefix("#[test] ").unwrap_or(line).strip_prefix(MARK) else { continue };
        let names_a_test = |line: &&&str| !line.starts_with(['#', '/']) && (line.contains('"') || line.contains("fn "));
        let below = lines[index + 1..].iter().find(names_a_test).map_or(String::new(), |line| (*line).to_owned());
        found.extend(ids.split(", ").map(|id| (id.to_owned(), index + 1, below.clone())));
    }
    found
}

/// Whether a line of code gives a test this name: as a function, as a text, or as an argument of a macro.
fn is_named(line: &str, name: &str) -> bool {
    let forms = [format!("\"{name}\""), format!("fn {name}("), format!("{name}: \"")];
    forms.iter().any(|form| line.contains(form))
}

fn compare(specification: &str, sources: &[(String, String)]) -> Vec<String> {
    let (rows, mut broken) = rows(specification);
    let by_id: BTreeMap<_, _> = rows.iter().map(|row| (row.id.as_str(), row)).collect();
    let mut held = BTreeSet::new();
    for (file, text) in sources {
        for (id, line, test) in carried(text) {
            let names = by_id.get(id.as_str()).map(|row| row.names()).unwrap_or_default();
            let named: Vec<_> = names.iter().filter(|name| is_named(&test, name)).collect();
            match (by_id.contains_key(id.as_str()), named.is_empty()) {
                (false, _) => broken.push(format!("{file}:{line}: SPECIFICATION.md has no row {id}")),
                (true, true) => broken.push(format!("{file}:{line}: the row {id} does not name this test: {test}")),
                (true, false) => held.extend(named.into_iter().map(|name| (id.clone(), (*name).to_owned()))),
            }
        }
    }
    for row in &rows {
        let names = row.names();
        if names.is_empty() && !row.held_by.contains("no test yet") {
            broken.push(format!("SPECIFICATION.md:{}: {} names neither a test nor \"no test yet\"", row.line, row.id));
        }
        let missing = names.into_iter().filter(|name| !held.contains(&(row.id.clone(), (*name).to_owned())));
        let complaint = |name| format!("SPECIFICATION.md:{}: no test `{name}` carries `{MARK}{}`", row.line, row.id);
        broken.extend(missing.map(complaint));
    }
    broken
}

#[test]
fn every_promise_has_an_id_that_its_tests_carry() {
    let sources: Vec<_> =
        rust_files().into_iter().filter(|(name, _)| !name.ends_with("house_rules/specification.rs")).collect();
    none(&compare(&read("SPECIFICATION.md"), &sources));
}

#[test]
fn the_rule_about_promises_works_in_both_directions() {
    let check = |rows: &str, source: &str| {
        let table = format!("| id | promise | held by |\n|---|---|---|\n{rows}");
        compare(&table, &[("a.rs".to_owned(), source.to_owned())])
    };
    let (row, test) = (
        "| A-1 | it works | `is_one`, `two words` |",
        "// spec: A-1\n#[test]\nfn is_one() {}\n// spec: A-1\ntrial(\n\"two words\",",
    );
    assert_eq!(check(row, test), Vec::<String>::new());
    assert_eq!(check("| A-2 | it works | no test yet |", ""), Vec::<String>::new());
    for (rows, source, wrong) in [
        (row, "// spec: A-1\nfn is_one() {}", "no test `two words` carries"),
        ("| A-1 | it works | `is_one` |", "fn is_one() {}", "no test `is_one` carries"),
        ("| A-2 | it works | no test yet |", "// spec: A-1\nfn is_one() {}", "has no row A-1"),
        ("| A-1 | it works | `is_one` |", "// spec: A-1\nfn is_two() {}\nfn is_one() {}", "does not name this test"),
        ("| A-1 | it works | |", "", "names neither"),
        ("| it works | `is_one` |", "fn is_one() {}", "the first of three cells"),
        ("| A-1 | one | no test yet |\n| A-1 | two | no test yet |", "", "two rows"),
    ] {
        let broken = check(rows, source);
        assert!(broken.iter().any(|line| line.contains(wrong)), "{rows}: {broken:?}");
    }
}
