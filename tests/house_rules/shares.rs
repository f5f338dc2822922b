//! How much of the product each package is: no room may become the house again.
//!
//! Counted are the lines of Rust under a package's `src`, without tests: files and modules called `tests`. What only tests,
//! benchmarks and fuzzers link is no product.

use std::collections::BTreeMap;

use super::{none, read, tracked};

/// The largest share of one package, in percent of the product's lines; of `hostnet`, all that talks to the kernel, and of others.
const MOST_HOSTNET_PERCENT: usize = 20;
const MOST_PERCENT: usize = 15;

/// Folders of packages that are no part of the product.
const NO_PRODUCT: [&str; 2] = ["tests", "fuzz"];

/// Lines of each package of the product, by its folder.
fn lines() -> BTreeMap<String, usize> {
    let names = tracked();
    let folders: Vec<_> = names.iter().filter_map(|name| name.strip_suffix("/Cargo.toml")).collect();
    let is_test = |name: &str| name.contains("/tests/") || name.ends_with("tests.rs") || name.ends_with("/test.rs");
    let mut lines = BTreeMap::new();
    for name in names.iter().filter(|name| name.ends_with(".rs") && !is_test(name)) {
        let holds = |folder: &&&str| name.strip_prefix(**folder).is_some_and(|rest| rest.starts_with("/src/"));
        let Some(folder) = folders.iter().filter(holds).max_by_key(|folder| folder.len()) else { continue };
        if NO_PRODUCT.iter().any(|top| folder.split('/').next() == Some(top)) {
            continue;
        }
        let text = read(name);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        *lines.entry((*folder).to_owned()).or_default() += code.lines().count();
    }
    lines
}

#[test]
fn no_package_is_most_of_the_product() {
    let lines = lines();
    let all: usize = lines.values().sum();
    let mut broken = Vec::new();
    for (folder, lines) in &lines {
        let most = if folder == "hostnet" { MOST_HOSTNET_PERCENT } else { MOST_PERCENT };
        println!("{folder}: {lines} lines, {}.{} %", lines * 100 / all, lines * 1000 / all % 10);
        if lines * 100 > all * most {
            broken
                .push(format!("{folder} has {lines} of {all} lines, more than {most} %: give a part of it a package"));
        }
    }
    assert!(lines.len() > 10, "packages are found: {lines:?}");
    none(&broken);
}
