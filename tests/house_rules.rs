//! The rules of the house that a compiler does not hold: what may depend on what, where `unsafe` may stand, how files
//! begin and how long they get, what must not be in the repository.

#[path = "house_rules/circles.rs"]
mod circles;
#[path = "house_rules/shares.rs"]
mod shares;
#[path = "house_rules/specification.rs"]
mod specification;
#[path = "house_rules/words.rs"]
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::workspace;

/// Which of our packages a package may use. Tests may use all.
const EDGES: [(&str, &[&str]); 29] = [
    ("terms", &[]),
    ("wiring", &["terms"]),
    ("locks", &[]),
    ("hostnet", &["locks", "terms"]),
    ("dhcp", &["terms"]),
    ("dhcp-server", &["dhcp", "terms"]),
    ("cni-protocol", &["hostnet", "terms"]),
    ("binding", &["cni-protocol", "hostnet", "terms", "wiring"]),
    ("bridge", &["cni-protocol", "hostnet", "terms"]),
    ("cni", &["binding", "bridge", "cni-protocol"]),
    ("machine", &["terms"]),
    ("protocol", &["machine", "terms", "wiring"]),
    ("node-protocol", &["protocol", "terms"]),
    ("node", &["explain", "node-protocol", "protocol", "terms", "wiring"]),
    ("block", &["machine", "terms"]),
    ("vmm", &["block", "machine"]),
    ("copier", &[]),
    ("launcher", &["block", "dhcp", "hostnet", "machine", "protocol", "terms", "vmm", "wiring"]),
    ("api", &["machine", "terms", "wiring"]),
    ("images", &["locks", "terms"]),
    ("services", &["api", "hostnet", "terms", "wiring"]),
    (
        "runner",
        &[
            "api",
            "block",
            "bridge",
            "cni-protocol",
            "hostnet",
            "images",
            "locks",
            "machine",
            "protocol",
            "services",
            "terms",
            "wiring",
        ],
    ),
    ("explain", &["binding", "hostnet", "protocol", "terms", "wiring"]),
    (
        "cli",
        &[
            "api",
            "block",
            "bridge",
            "cni-protocol",
            "explain",
            "hostnet",
            "images",
            "locks",
            "machine",
            "protocol",
            "runner",
            "services",
            "terms",
            "wiring",
        ],
    ),
    ("controller", &["api", "machine", "node-protocol", "protocol", "terms", "wiring"]),
    ("meter", &[]),
    ("replay", &[]),
    (
        "fuzz-targets",
        &[
            "api",
            "binding",
            "cni-protocol",
            "dhcp",
            "images",
            "launcher",
            "locks",
            "machine",
            "protocol",
            "terms",
            "vmm",
            "wiring",
        ],
    ),
    ("tests", &["api", "cni-protocol", "dhcp", "hostnet", "launcher", "machine", "services", "terms", "wiring"]),
];

/// Crates that a package must never link, however far down its tree they are.
const NEVER: [(&str, &[&str]); 18] = [
    ("terms", &["tokio", "nix", "libc", "kube"]),
    ("locks", &["tokio", "nix", "libc", "kube"]),
    ("hostnet", &["tokio", "rtnetlink", "kube"]),
    ("dhcp", &["tokio", "nix", "libc", "netlink-sys", "kube"]),
    ("dhcp-server", &["kube", "api", "runner", "launcher"]),
    ("cni-protocol", &["tokio", "rtnetlink", "clap", "kube"]),
    ("bridge", &["tokio", "rtnetlink", "clap", "kube"]),
    ("cni", &["tokio", "rtnetlink", "clap", "kube"]),
    ("api", &["tokio", "nix", "kube"]),
    ("machine", &["nix", "serde-saphyr"]),
    ("protocol", &["tokio", "clap"]),
    ("node-protocol", &["tokio", "clap", "kube"]),
    ("node", &["api", "runner"]),
    (
        "launcher",
        &["tokio", "clap", "serde-saphyr", "oci-spec", "regex", "regex-automata", "indicatif", "kube", "flate2", "tar"],
    ),
    ("vmm", &["hostnet", "wiring", "dhcp", "tokio", "clap", "kube"]),
    ("runner", &["launcher", "clap", "kube"]),
    ("controller", &["hostnet", "cni-protocol", "binding", "launcher", "runner", "openssl", "aws-lc-rs"]),
    ("explain", &["runner", "tokio", "clap", "kube", "serde-saphyr"]),
];

/// Where `unsafe` may stand: what no safe crate offers.
const UNSAFE: [&str; 10] = [
    "cli/runner/src/sys/",
    "cni/src/sys.rs",
    "hostnet/src/sys/",
    "hostnet/src/sys.rs",
    "launcher/protocol/src/sys/",
    "launcher/src/sys/",
    "launcher/vmm/src/sys/",
    "tests/bench/replay/",
    "tests/conformance/stepper/",
    "tests/src/tap.rs",
];

/// At this length a file is asked what it does that is not one thing.
const MOST_LINES: usize = 600;

fn tracked() -> Vec<String> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(workspace()).output().unwrap();
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    let existing = |name: &&str| !name.is_empty() && workspace().join(name).is_file();
    names.split('\0').filter(existing).map(str::to_owned).collect()
}

fn rust_files() -> Vec<(String, String)> {
    let is_rust = |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "rs");
    tracked().into_iter().filter(is_rust).map(|name| (name.clone(), read(&name))).collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(workspace().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Fails with every broken rule at once.
fn none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// What each of our packages depends on when built for users, by name.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(workspace())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let used = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|dependency| dependency["kind"] != "dev").map(name).collect()
    };
    metadata["packages"].as_array().unwrap().iter().map(|package| (name(package), used(package))).collect()
}

#[test]
fn arrows_between_packages_point_one_way() {
    let dependencies = dependencies();
    let allowed = BTreeMap::from(EDGES);
    let mut broken = Vec::new();
    for (package, used) in &dependencies {
        let Some(may) = allowed.get(package.as_str()) else {
            broken.push(format!("{package} is not in EDGES: say what it may use"));
            continue;
        };
        let ours = used.iter().filter(|name| dependencies.contains_key(*name));
        broken.extend(ours.filter(|name| !may.contains(&name.as_str())).map(|name| format!("{package} uses {name}")));
    }
    none(&broken);
}

/// Everything that is linked into a package when it is built by itself for users, by name.
fn linked(package: &str) -> BTreeSet<String> {
    let words = ["tree", "--edges=normal,build", "--prefix=none", "--format={p}", "--offline", "--package", package];
    let output = Command::new(env!("CARGO")).args(words).current_dir(workspace()).output().unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

// spec: LAUNCH-3
#[test]
fn packages_keep_away_from_what_their_room_forbids() {
    let mut broken = Vec::new();
    for (package, never) in NEVER {
        let linked = linked(package);
        assert!(linked.contains(package), "cargo tree does not know {package}");
        let found = never.iter().filter(|name| linked.contains(**name));
        broken.extend(found.map(|name| format!("{package} must never link {name}: cargo tree -p {package} -i {name}")));
    }
    none(&broken);
}

#[test]
fn versions_of_dependencies_are_named_once() {
    let manifests = tracked().into_iter().filter(|name| name.ends_with("/Cargo.toml"));
    let own_version = |line: &&str| {
        let value = line.split_once('=').map_or("", |(_, value)| value.trim());
        value.starts_with('"') && value.trim_matches('"').starts_with(|c: char| c.is_ascii_digit() || "=^~".contains(c))
            || value.contains("version =")
    };
    let broken: Vec<_> = manifests
        .flat_map(|name| {
            let text = read(&name);
            // Where a workspace begins is where it names them.
            let is_root = text.lines().any(|line| line == "[workspace]");
            let lines = if is_root { "" } else { text.as_str() };
            lines.lines().filter(own_version).map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
        })
        .collect();
    none(&broken);
}

#[test]
fn unsafe_is_used_only_in_listed_modules() {
    let keyword = ["unsafe", " "].concat();
    let opens = ["expect(", "unsafe_code"].concat();
    let mut broken = Vec::new();
    for (name, text) in rust_files() {
        let code = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
        let uses = code.clone().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            !code.contains('"') && (code.contains(&format!("{keyword}{{")) || code.contains(&format!("{keyword}fn")))
        });
        let listed = UNSAFE.iter().any(|place| name.starts_with(place));
        match (uses || text.contains(&opens), listed) {
            (true, false) if name != "tests/house_rules.rs" => broken.push(format!("{name} holds unsafe code")),
            _ => {}
        }
    }
    none(&broken);
}

#[test]
fn every_file_begins_with_what_it_is_for_and_stays_short() {
    let mut broken = Vec::new();
    for (name, text) in rust_files() {
        if !text.starts_with("//! ") {
            broken.push(format!("{name} does not begin with //! and what it is for"));
        }
        let lines = text.lines().count();
        if lines > MOST_LINES {
            broken.push(format!("{name} has {lines} lines, more than {MOST_LINES}"));
        }
    }
    none(&broken);
}

#[test]
fn no_doc_comment_holds_code_that_rung_l0_would_not_run() {
    let is_code = |line: &str| line.trim_start().trim_start_matches("//!").trim_start_matches("///").trim() == "```";
    let comments = |text: &str| text.lines().filter(|line| line.trim_start().starts_with("//")).any(is_code);
    let broken: Vec<_> = rust_files().into_iter().filter(|(_, text)| comments(text)).map(|(path, _)| path).collect();
    none(&broken);
}

#[test]
fn every_folder_at_the_top_has_a_short_readme() {
    let folders: BTreeSet<_> = tracked()
        .iter()
        .filter_map(|name| name.split_once('/').map(|(folder, _)| folder.to_owned()))
        .filter(|folder| !folder.starts_with('.'))
        .collect();
    let complaint = |folder: String| match std::fs::read_to_string(workspace().join(&folder).join("README.md")) {
        Err(_) => Some(format!("{folder}/README.md is missing")),
        Ok(text) if text.lines().count() > 20 => Some(format!("{folder}/README.md has more than 20 lines")),
        Ok(_) => None,
    };
    none(&folders.into_iter().filter_map(complaint).collect::<Vec<_>>());
}

#[test]
fn files_are_named_for_what_they_hold() {
    let banned = ["util", "utils", "common", "helper", "helpers", "manager", "base", "misc"];
    let words = |name: &str| {
        let path = Path::new(name).with_extension("");
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        parts.iter().flat_map(|part| part.split(['_', '-']).map(str::to_owned).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let is_rust = |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "rs");
    let names = tracked().into_iter().filter(is_rust);
    none(&names.filter(|name| words(name).iter().any(|word| banned.contains(&word.as_str()))).collect::<Vec<_>>());
}

#[test]
fn nothing_names_this_machine_or_a_registry() {
    // In pieces, so that this file does not break its own rule.
    let machine = ["/wo rk/", "/ro ot/", "/ho me/", "/Us ers/"].map(|word| word.replace(' ', ""));
    let hosts = ["crates .io", "docker .io", "quay .io", "gcr .io", "ghcr .io", "registry.k8s .io", "deb.debian .org"];
    let hosts = hosts.map(|word| word.replace(' ', ""));
    // What package managers write for themselves.
    let generated = |name: &String| name.ends_with("Cargo.lock") || name.ends_with("go.sum");
    let mut broken = Vec::new();
    for name in tracked().into_iter().filter(|name| !generated(name)) {
        let Ok(text) = std::fs::read_to_string(workspace().join(&name)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let mut words = machine.iter().chain(&hosts);
            if let Some(word) = words.find(|word| line.contains(word.as_str())) {
                broken.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    none(&broken);
}

#[test]
fn no_binaries_and_no_leftovers_are_kept() {
    let leftovers = ["TO DO", "FIX ME", "to do!(", "unimple mented!("].map(|word| word.replace(' ', ""));
    let mut broken = Vec::new();
    for name in tracked() {
        let bytes = std::fs::read(workspace().join(&name)).unwrap();
        if bytes.len() > 400_000 {
            broken.push(format!("{name} has {} bytes", bytes.len()));
        }
        if bytes.contains(&0) {
            broken.push(format!("{name} is not text"));
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Some(word) = leftovers.iter().find(|word| text.contains(word.as_str())) {
            broken.push(format!("{name} says {word}"));
        }
    }
    none(&broken);
}

#[test]
fn the_changelog_keeps_its_shape() {
    let text = read("CHANGELOG.md");
    assert!(text.starts_with("# Changelog\n"));
    assert!(text.contains("\n## Unreleased\n"));
    let kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    let wrong = text.lines().filter_map(|line| line.strip_prefix("### ")).filter(|kind| !kinds.contains(kind));
    none(&wrong.map(|kind| format!("### {kind} is none of {kinds:?}")).collect::<Vec<_>>());
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for name in tracked().into_iter().filter(|name| name.ends_with(".md")) {
        let folder = workspace().join(&name).parent().unwrap().to_owned();
        for rest in read(&name).split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            if !target.contains("://") && !folder.join(target).exists() {
                broken.push(format!("{name} leads to {target}, which is not there"));
            }
        }
    }
    none(&broken);
}

#[test]
fn architecture_names_paths_that_exist() {
    let text = read("ARCHITECTURE.md");
    let is_path = |word: &&str| word.contains('/') && !word.starts_with('/') && !word.contains([' ', '<', ':', '*']);
    let named = text.split('`').skip(1).step_by(2).filter(is_path);
    let missing = named.filter(|path| !workspace().join(path).exists());
    none(&missing.map(|path| format!("ARCHITECTURE.md names {path}, which is not there")).collect::<Vec<_>>());
}

/// The words that a shell makes of one with braces, `a{,-b}`.
fn expanded(word: &str) -> Vec<String> {
    let Some((start, rest)) = word.split_once('{') else { return vec![word.to_owned()] };
    let (inner, end) = rest.split_once('}').unwrap_or((rest, ""));
    inner.split(',').map(|part| format!("{start}{part}{end}")).collect()
}

#[test]
fn the_removal_names_every_file_of_an_installation() {
    let makefile = read("Makefile");
    let installed = makefile.lines().filter_map(|line| line.strip_prefix("\tinstall -D ")?.rsplit_once("$(DESTDIR)"));
    let installed = installed.map(|(_, path)| path.trim_end_matches('"').replace("$(PREFIX)", "/usr/local"));
    let installed: Vec<_> = installed.map(|path| path.replace("$(CNI_BIN)", "/opt/cni/bin")).collect();
    assert!(installed.len() >= 5, "{installed:?}");
    let page = read("cli/RUNNING.md");
    let removal = page.lines().find_map(|line| line.strip_prefix("sudo rm -r ")).expect("the page removes files");
    let removed: Vec<_> = removal.split_whitespace().flat_map(expanded).collect();
    let missing = installed.iter().filter(|path| !removed.contains(path));
    none(&missing.map(|path| format!("cli/RUNNING.md leaves {path}, which `make install` makes")).collect::<Vec<_>>());
}

#[test]
fn make_test_climbs_every_rung_and_each_has_a_minimum_and_a_ceiling() {
    let rungs = read("tests/rungs");
    let makefile = read("Makefile");
    let recipe = makefile.lines().skip_while(|line| !line.starts_with("test:"));
    let climbs = recipe.skip(1).find_map(|line| line.strip_prefix("\t@tests/ladder ")).unwrap_or_default();
    let climbed: Vec<_> = climbs.split_whitespace().collect();
    let listed: Vec<_> = rungs.lines().filter_map(|line| line.split_once(' ')).map(|(rung, _)| rung).collect();
    assert_eq!(climbed, listed);
    let mut minutes = 0;
    for line in rungs.lines() {
        let fields: Vec<_> = line.split(' ').collect();
        let [rung, least, most] = fields[..] else { panic!("{line:?} is not a name and two numbers") };
        assert!(least.parse::<u32>().unwrap() > 0, "{line}");
        minutes += most.parse::<u32>().unwrap();
        assert!(read("tests/ladder").contains(&format!("\n    {rung})")), "the ladder has no rung {rung}");
    }
    assert!(minutes <= 66, "all rungs together may take {minutes} minutes");
}
