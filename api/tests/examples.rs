//! The examples that users start from obey every rule, and say nothing that has no effect.

use std::fs;
use std::path::Path;

#[test]
fn every_example_is_read_without_complaint_or_warning() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut examples = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let objects = api::manifest::parse(&fs::read_to_string(&path).unwrap(), &path.display().to_string());
        let objects = objects.unwrap_or_else(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            panic!("{}", errors.join("\n"))
        });
        let warnings: Vec<_> = objects.iter().flat_map(|object| &object.warnings).collect();
        assert!(warnings.is_empty(), "{}: {warnings:?}", path.display());
        examples += 1;
    }
    assert!(examples > 0, "there is no example");
}
