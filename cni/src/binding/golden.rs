//! Plans pinned as files: `tests/golden/<case>/{conf,facts,plan}.json`. A new case is a folder with the first two;
//! `TAPVISOR_REWRITE_GOLDEN=1` writes the third, and review reads the difference.

use std::path::{Path, PathBuf};

use hostnet::{Facts, Plan};
use serde::Deserialize;
use serde_json::{Value, json};
use wiring::Request;

use super::desired::{Desired, Refusal};
use super::standing::{self, Standing};
use super::{del, plan};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conf {
    verb: String,
    group: u32,
    request: Option<Value>,
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

fn add(request: &Request, group: u32, facts: &Facts) -> Result<Plan, Refusal> {
    let desired = Desired::of(request, group, facts)?;
    match standing::of(&desired, facts)? {
        Standing::Wired => Ok(Plan::default()),
        Standing::Fresh => plan::plan(&desired, facts),
        Standing::LeftOver => Ok(del::plan(group, Some(request), facts)),
    }
}

fn planned(case: &Path) -> Value {
    let conf: Conf = read(&case.join("conf.json"));
    let facts: Facts = read(&case.join("facts.json"));
    let request = conf.request.map(|request| Request::from_value(&request).unwrap());
    match (conf.verb.as_str(), request) {
        ("ADD", Some(request)) => match add(&request, conf.group, &facts) {
            Ok(plan) => json!(plan),
            Err(refusal) => json!({"refusal": refusal.to_string()}),
        },
        ("DEL", request) => json!(del::plan(conf.group, request.as_ref(), &facts)),
        (verb, _) => panic!("{}: no verb {verb} with that", case.display()),
    }
}

#[test]
fn plans_are_as_written() {
    let rewrite = std::env::var_os("TAPVISOR_REWRITE_GOLDEN").is_some_and(|value| value == "1");
    let cases = cases();
    assert!(cases.len() >= 15, "only {} cases found", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let file = case.join("plan.json");
        let text = serde_json::to_string_pretty(&planned(&case)).unwrap() + "\n";
        if rewrite {
            std::fs::write(&file, &text).unwrap();
        } else if std::fs::read_to_string(&file).ok().as_deref() != Some(&text) {
            wrong.push(case.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    assert!(wrong.is_empty(), "plans differ from {wrong:?}; TAPVISOR_REWRITE_GOLDEN=1 writes them anew for review");
}
