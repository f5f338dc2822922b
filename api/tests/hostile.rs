//! Texts that are no manifests: no panic, no endless run, no complaint that echoes the text at length.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files has failed")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

/// Longest complaint in bytes: paths and names are the user's own, the rest is cut.
const LONGEST_COMPLAINT: usize = 4096;

fn manifests() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn survives(text: &str) {
    for error in api::manifest::parse(text, "a").err().into_iter().flatten() {
        assert!(error.to_string().len() < LONGEST_COMPLAINT, "{error}");
    }
}

#[test]
fn a_complaint_is_short_whatever_the_document_holds() {
    let long = "a".repeat(50_000);
    let spec = json!({
        "networks": [{"name": long, "pod": {}}],
        "volumes": [{"name": long, "emptyDisk": {"capacity": "0".repeat(50_000)}}],
        "domain": {"memory": {"guest": long}, "devices": {
            &long: 1,
            "interfaces": [{"name": long, "model": long}],
            "disks": [{"name": long, "cache": long}],
        }},
        &long: {},
    });
    let object = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": long}, "spec": spec,
    });
    let text = object.to_string();
    let errors = api::manifest::parse(&text, "a").unwrap_err();
    assert!(errors.len() > 8, "{errors:?}");
    survives(&text);
}

#[test]
fn complaints_are_counted_beyond_a_hundred() {
    let fields: String = (0..1000).fold(String::new(), |text, n| format!("{text}, f{n}: 1"));
    let errors = api::manifest::parse(&format!("{{apiVersion: v1, kind: Secret, metadata: {{name: a}}{fields}}}"), "a");
    let errors = errors.unwrap_err();
    assert_eq!((errors.len(), errors[100].to_string()), (101, "a, document 1: 900 more complaints".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edited_manifests_are_read_or_refused(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, "[\\PC\n\t{}\\[\\]:,&*!|>'\"-]{0,12}"), 1..6),
    ) {
        let all = manifests();
        let mut text: Vec<char> = all[which.index(all.len())].chars().collect();
        for (place, length, replacement) in edits {
            let start = place.index(text.len() + 1);
            let end = (start + length).min(text.len());
            text.splice(start..end, replacement.chars());
        }
        survives(&text.into_iter().collect::<String>());
    }

    #[test]
    fn noise_is_refused(text in "[\\PC\n\t{}\\[\\]:,&*!|>'\"-]{0,400}") {
        survives(&text);
    }
}
