//! Plain words: which words no name, comment, message, document or test name may have, which names were replaced, and how
//! long the name of a test may be.
//!
//! Words are compared, not letters: a name in `snake_case` or `CamelCase` is taken apart, and an expression of several words
//! is found across the end of a line. `words.allowed` lists the exact lines where a word is right, such as text quoted from
//! another program; an entry that no line needs any more is an error.

use std::collections::BTreeSet;

use super::{none, read, tracked};

/// What no reader may check: lists that package managers write, inputs that a fuzzer invented, other projects' go files.
const GENERATED: &[&str] = &["Cargo.lock", "fuzz/Cargo.lock", "fuzz/corpus/", "fuzz/findings/", "tests/cluster/go/"];

/// This rule and its list of exceptions.
const RULE: &str = "tests/house_rules/words.";

/// Expressions that a reader new to the project would stumble over.
const BANNED: &[&str] = &[
    "amid",
    "anew",
    "beside",
    "comes to",
    "its own words",
    "nobody",
    "the only hands",
    "puts up with",
    "somebody",
    "stand still",
    "stands",
    "stood still",
    "told from",
    "to be had",
    "what is none",
    "whoever",
    "wish",
    "wished",
    "wishes",
    "wishing",
];

/// Items that were renamed: what they were called, and what they are called now. A new one gets no such name either.
const RENAMED: &[(&str, &str)] = &[
    ("Aside", "OfflineCompiler"),
    ("Asked", "SupervisorInput"),
    ("Beat", "AdvertisementTimer"),
    ("Before", "Baseline"),
    ("Budget", "RateLimit"),
    ("Catalogue", "ServiceStore"),
    ("Ears", "Inputs"),
    ("Forget", "DeleteConntrack"),
    ("Happenings", "QemuEvents"),
    ("Journey", "RouteQuery"),
    ("LeftOver", "Partial"),
    ("Ours", "OurChanges"),
    ("Remember", "UpdateSet"),
    ("Said", "LauncherEvent"),
    ("Shape", "Encoding"),
    ("Standing", "WiringState"),
    ("Supervision", "EventLoop"),
    ("Surroundings", "TranslateContext"),
    ("Told", "OutcomeFile"),
    ("Way", "RouteAnswer"),
    ("hear", "on_request"),
    ("judge", "diagnose"),
    ("look", "gather"),
    ("served", "service_store"),
    ("standing", "existing"),
    ("strangers", "not_our_client"),
    ("unusable", "malformed"),
];

/// The longest name of a test, in characters.
const LONGEST_NAME: usize = 70;

/// A word of a text, in lower case, with the line it is on and what separates it from the word before.
struct Word {
    line: usize,
    text: String,
    joined: bool,
}

/// Takes a text apart: at everything that is no letter, and in `CamelCase` before each capital.
fn words(text: &str) -> Vec<Word> {
    let mut found: Vec<Word> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (mut previous, mut between) = (' ', String::new());
        for letter in line.chars() {
            let continues =
                previous.is_ascii_alphabetic() && !(previous.is_ascii_lowercase() && letter.is_ascii_uppercase());
            match found.last_mut() {
                _ if !letter.is_ascii_alphabetic() => between.push(letter),
                Some(word) if continues => word.text.push(letter.to_ascii_lowercase()),
                _ => {
                    let joined = between.chars().all(|one| " _/!#|>`*\t".contains(one));
                    found.push(Word { line: index + 1, text: letter.to_ascii_lowercase().to_string(), joined });
                    between.clear();
                }
            }
            previous = letter;
        }
    }
    found
}

/// The banned expressions of a text, each with the number of its line.
fn banned(text: &str) -> Vec<(usize, &'static str)> {
    let words = words(text);
    let is_at = |at: usize, expression: &str| {
        let mut expected = expression.split(' ').enumerate();
        expected.all(|(offset, word)| {
            words.get(at + offset).is_some_and(|found| found.text == word && (offset == 0 || found.joined))
        })
    };
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        found.extend(
            BANNED.iter().filter(|expression| is_at(at, expression)).map(|expression| (word.line, *expression)),
        );
    }
    found
}

/// The old names that a Rust file gives to an item, each with its line and the new name.
fn old_names(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut tokens = line.split(|one: char| !one.is_alphanumeric() && one != '_').filter(|token| !token.is_empty());
        let item = tokens.by_ref().find(|token| !["pub", "crate", "super", "const", "in"].contains(token));
        let is_item = item.is_some_and(|item| ["struct", "enum", "trait", "type", "mod", "fn"].contains(&item));
        let (true, Some(name)) = (is_item, tokens.next()) else { continue };
        found.extend(RENAMED.iter().filter(|(old, _)| *old == name).map(|(old, new)| (index + 1, *old, *new)));
    }
    found
}

/// The names of tests in a Rust file, each with its line: functions below `#[test]`, first arguments of `trial` and `needs`.
fn test_names(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if line.trim() == "#[test]" {
            let below = lines[index..].iter().position(|line| line.trim_start().starts_with("fn ")).unwrap_or_default();
            let name =
                lines[index + below].trim_start().trim_start_matches("fn ").split('(').next().unwrap_or_default();
            found.push((index + below + 1, name.to_owned()));
        }
        for call in ["trial(", "needs("] {
            let Some((_, rest)) = line.split_once(call) else { continue };
            let (at, rest) = if rest.is_empty() {
                (index + 1, lines.get(index + 1).copied().unwrap_or_default())
            } else {
                (index, rest)
            };
            let Some(name) = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
                continue;
            };
            found.push((at + 1, name.to_owned()));
        }
    }
    found
}

/// The files under the rule, with their texts.
fn under_the_rule() -> Vec<(String, String)> {
    let is_under_the_rule =
        |name: &String| !GENERATED.iter().any(|place| name.starts_with(place)) && !name.starts_with(RULE);
    tracked().into_iter().filter(is_under_the_rule).map(|name| (name.clone(), read(&name))).collect()
}

#[test]
fn no_banned_word_is_used() {
    let list = read("tests/house_rules/words.allowed");
    let allowed: BTreeSet<_> = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let (mut used, mut broken) = (BTreeSet::new(), Vec::new());
    for (name, text) in under_the_rule() {
        broken.extend(banned(&name).into_iter().map(|(_, word)| format!("{name}: the name has \"{word}\"")));
        for (number, word) in banned(&text) {
            let entry = format!("{name}: {}", text.lines().nth(number - 1).unwrap_or_default().trim());
            match allowed.get(entry.as_str()) {
                Some(entry) => drop(used.insert(*entry)),
                None => broken.push(format!("{name}:{number}: \"{word}\" is banned: write plain technical English")),
            }
        }
    }
    broken
        .extend(allowed.difference(&used).map(|entry| format!("words.allowed: no line needs this any more: {entry}")));
    none(&broken);
}

#[test]
fn no_item_has_a_name_that_was_replaced() {
    let rust = under_the_rule().into_iter().filter(|(name, _)| name.ends_with(".rs"));
    let shown =
        |name: &str, (line, old, new)| format!("{name}:{line}: `{old}` was renamed, say what it is, as in `{new}`");
    none(
        &rust
            .flat_map(|(name, text)| old_names(&text).into_iter().map(|found| shown(&name, found)).collect::<Vec<_>>())
            .collect::<Vec<_>>(),
    );
}

#[test]
fn names_of_tests_are_short_sentences() {
    let rust = under_the_rule().into_iter().filter(|(name, _)| name.ends_with(".rs"));
    let mut broken = Vec::new();
    for (file, text) in rust {
        for (line, name) in test_names(&text) {
            let length = name.chars().count();
            if length > LONGEST_NAME {
                broken.push(format!(
                    "{file}:{line}: the test's name has {length} characters, more than {LONGEST_NAME}: {name}"
                ));
            }
            if name.starts_with("test_") {
                broken.push(format!("{file}:{line}: the test's name begins with a prefix: {name}"));
            }
        }
    }
    none(&broken);
}

#[test]
fn the_rule_about_words_finds_each_form() {
    let found = |text| banned(text).into_iter().map(|(line, word)| format!("{line} {word}")).collect::<Vec<_>>();
    assert_eq!(found("ask nobody_else\nNobodyElse\nNOBODY"), ["1 nobody", "2 nobody", "3 nobody"]);
    assert_eq!(found("/// is told\n/// from that"), ["1 told from"]);
    assert_eq!(found("told. From standstill, besides wishful bystanders"), Vec::<String>::new());
    let items = "pub(crate) struct Before;\nlet x = Before;\nconst fn look() {}\nfn looks() {}";
    assert_eq!(old_names(items), [(1, "Before", "Baseline"), (3, "look", "gather")]);
    let tests = "#[test]\n#[ignore]\nfn is_one() {}\ntrial(\"two\", run)\nneeds(\n    \"three\",\n";
    let expected = [(3, "is_one"), (4, "two"), (6, "three")].map(|(line, name)| (line, name.to_owned()));
    assert_eq!(test_names(tests), expected);
}
