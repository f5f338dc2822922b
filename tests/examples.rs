//! Every example is a manifest without a complaint or a warning.

use tests::workspace;

#[test]
fn examples_are_read_without_a_complaint() {
    let mut seen = 0;
    let folders = ["examples", "examples/cluster"].map(|folder| std::fs::read_dir(workspace().join(folder)).unwrap());
    for entry in folders.into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("# "), "{} does not begin with what it shows", path.display());
        let name = path.display().to_string();
        let read = api::manifest::parse(&text, &name).unwrap_or_else(|complaints| panic!("{name}:\n{complaints:?}"));
        let warnings: Vec<_> = read.iter().flat_map(|object| &object.warnings).collect();
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
        seen += 1;
    }
    assert!(seen >= 5, "{seen} examples");
}
