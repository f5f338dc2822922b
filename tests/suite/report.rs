//! The suite's report, kept in a table: one row for each spec, whose last result counts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::Value;

const HEAD: &str = "\
# KubeVirt's end-to-end suite, v1.7.0, unmodified

Written by `make kubevirt-suite FILTER='…'` (a label filter of Ginkgo) or `FOCUS='…'` (a regular expression for names). Each spec has the
result of its last run; a spec without a row was never run. The suite runs with the image `launcher-tools`, guests are emulated.

| spec | result | seconds | date | why |
|---|---|---|---|---|
";

/// How many specs of a run had which end.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped by the suite", self.passed, self.failed, self.skipped)
    }
}

/// Adds the results of a report in JSON (Ginkgo's `types.Report`) to the table in a file.
///
/// # Errors
/// A report that is missing or has no spec that ran, and a table that cannot be read or written, as text.
pub(crate) fn keep(report: &Path, table: &Path) -> Result<Counts, String> {
    let text = std::fs::read(report).map_err(|error| format!("the suite has left no report: {error}"))?;
    let reports: Value = serde_json::from_slice(&text).map_err(|error| format!("the suite's report: {error}"))?;
    let old = std::fs::read_to_string(table).unwrap_or_default();
    let mut rows: BTreeMap<String, String> = old
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| spec |"))
        .filter_map(|line| Some((line.split(" | ").next()?.to_owned(), line.to_owned())))
        .collect();
    let mut counts = Counts::default();
    for report in reports.as_array().into_iter().flatten() {
        let date = report["StartTime"].as_str().unwrap_or_default().get(..10).unwrap_or_default();
        for spec in report["SpecReports"].as_array().into_iter().flatten() {
            let Some((key, row)) = row(spec, date, &mut counts) else { continue };
            rows.insert(key, row);
        }
    }
    if counts.passed + counts.failed == 0 {
        return Err("no spec ran".to_owned());
    }
    let lines: String = rows.values().map(|row| format!("{row}\n")).collect();
    std::fs::write(table, format!("{HEAD}{lines}")).map_err(|error| format!("{}: {error}", table.display()))?;
    Ok(counts)
}

/// A spec's row and what it is found by; nothing for set-up steps and for specs that the selection left out.
fn row(spec: &Value, date: &str, counts: &mut Counts) -> Option<(String, String)> {
    if spec["LeafNodeType"] != "It" {
        return None;
    }
    let message = spec["Failure"]["Message"].as_str().unwrap_or_default();
    let state = spec["State"].as_str()?;
    let (count, result, why) = match state {
        "passed" => (&mut counts.passed, "passed", ""),
        // Without a message it was not selected.
        "skipped" if message.is_empty() => return None,
        "pending" => return None,
        "skipped" => (&mut counts.skipped, "skipped", message),
        _ => (&mut counts.failed, state, message),
    };
    *count += 1;
    let containers = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let words: Vec<&str> = containers.chain(spec["LeafNodeText"].as_str()).collect();
    let key = format!("| {}", cell(&words.join(" "), 300));
    let seconds = spec["RunTime"].as_u64().unwrap_or_default() / 1_000_000_000;
    Some((key.clone(), format!("{key} | {result} | {seconds} | {date} | {} |", cell(why, 200))))
}

/// Text for a cell of a table, at most so many characters.
fn cell(text: &str, most: usize) -> String {
    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/");
    plain.chars().take(most).collect()
}
