//! Plans pinned as files: `tests/golden/<case>/{conf.json,facts.json,plan.txt}`, the plan in the syntax of `ip` and `nft`. A new
//! case is a folder with the first two; `TAPVISOR_REWRITE_GOLDEN=1` writes the third, and review reads the difference.
//!
//! `tests/generation.json` holds what launchers of the present generation rely on in these plans, as digests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hostnet::fake::Fake;
use hostnet::{Facts, Kernel, Plan};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use wiring::{GENERATION, Request};

use super::desired::Desired;
use super::existing::{self, WiringState};
use super::{check, del, inspect, plan};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conf {
    verb: String,
    group: u32,
    request: Option<Value>,
}

/// What a generation's plans came to when they were written down.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pinned {
    generation: u32,
    plans: BTreeMap<String, String>,
}

fn rewrite() -> bool {
    std::env::var_os("TAPVISOR_REWRITE_GOLDEN").is_some_and(|value| value == "1")
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The plan of a case, or the words of its refusal.
fn planned(case: &Path) -> Result<Plan, String> {
    let conf: Conf = read(&case.join("conf.json"));
    let facts: Facts = read(&case.join("facts.json"));
    let request = conf.request.map(|request| Request::from_value(&request).unwrap());
    match (conf.verb.as_str(), request) {
        ("ADD", Some(request)) => {
            inspect::plan(&request, conf.group, &facts).map_err(|refusal| format!("refused: {refusal}\n"))
        }
        ("DEL", request) => Ok(del::plan(conf.group, request.as_ref(), &facts)),
        (verb, _) => panic!("{}: no verb {verb} with that", case.display()),
    }
}
pub(crate) fn plans() -> impl Iterator<Item = Plan> {
    cases().into_iter().filter_map(|case| planned(&case).ok())
}

// spec: CNI-DEL-1, CNI-DEL-2
#[test]
fn plans_are_as_written() {
    let cases = cases();
    assert!(cases.len() >= 15, "only {} cases found", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let file = case.join("plan.txt");
        let text = planned(&case).map_or_else(|refusal| refusal, |plan| plan.to_string());
        if rewrite() {
            std::fs::write(&file, &text).unwrap();
        } else if std::fs::read_to_string(&file).ok().as_deref() != Some(&text) {
            wrong.push(case.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    assert!(wrong.is_empty(), "plans differ from {wrong:?}; TAPVISOR_REWRITE_GOLDEN=1 writes them again for review");
}

// spec: CNI-MASQ-4
#[test]
fn every_plan_can_be_carried_out_and_del_puts_back_what_was() {
    for case in cases() {
        let (conf, before): (Conf, Facts) = (read(&case.join("conf.json")), read(&case.join("facts.json")));
        let Some(request) = conf.request.map(|request| Request::from_value(&request).unwrap()) else { continue };
        let Ok(desired) = Desired::of(&request, conf.group, &before) else { continue };
        if conf.verb != "ADD" || existing::of(&desired, &before) != Ok(WiringState::None) {
            continue;
        }
        let mut kernel = Fake::new(before.clone());
        kernel
            .execute(&plan::plan(desired.clone(), &[], &before).unwrap().ops)
            .unwrap_or_else(|failure| panic!("{}: {}: {}", case.display(), failure.what, failure.error));
        assert_eq!(check::differences(&desired, kernel.facts()), Vec::new(), "{}", case.display());
        let undo = del::plan(conf.group, Some(&request), kernel.facts());
        kernel.execute(&undo.ops).unwrap();
        assert_eq!(*kernel.facts(), before, "{}", case.display());
    }
}

/// The digest of what plugin and launcher must agree on: devices, addresses on them, rules. Marks and comments may change.
/// None of a plan that makes none of it.
fn relied_on(plan: &Value) -> Option<String> {
    fn keep(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let kept = map.iter().filter(|(key, _)| !["alias", "comment"].contains(&key.as_str()));
                kept.map(|(key, value)| (key.clone(), keep(value))).collect()
            }
            Value::Array(items) => items.iter().map(keep).collect(),
            other => other.clone(),
        }
    }
    let steps = plan["ops"].as_array().into_iter().flatten();
    let shared = steps.filter(|step| ["createTap", "addAddress", "nft"].iter().any(|kind| !step[kind].is_null()));
    let text = shared.map(|step| keep(step).to_string()).collect::<Vec<_>>().join("\n");
    (!text.is_empty()).then(|| Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

// spec: NIC-2
#[test]
fn what_launchers_rely_on_changes_only_with_the_generation() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/generation.json");
    let now: BTreeMap<String, String> = cases()
        .iter()
        .filter(|case| read::<Conf>(&case.join("conf.json")).verb == "ADD")
        .filter_map(|case| {
            Some((case.file_name()?.to_string_lossy().into_owned(), relied_on(&json!(planned(case).ok()?))?))
        })
        .collect();
    let pinned: Pinned = read(&file);
    if pinned.generation == GENERATION {
        let changed = |(case, digest): &(&String, &String)| now.get(*case).is_some_and(|now| now != *digest);
        let changed: Vec<_> = pinned.plans.iter().filter(changed).map(|(case, _)| case).collect();
        assert!(changed.is_empty(), "raise wiring::GENERATION: devices, addresses or rules changed in {changed:?}");
    }
    if rewrite() {
        let text = serde_json::to_string_pretty(&Pinned { generation: GENERATION, plans: now }).unwrap() + "\n";
        std::fs::write(&file, text).unwrap();
        return;
    }
    assert_eq!((pinned.generation, pinned.plans), (GENERATION, now), "TAPVISOR_REWRITE_GOLDEN=1 writes it again");
}
