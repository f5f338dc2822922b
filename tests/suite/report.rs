//! The suite's report, kept in a table: one row for each spec of the labels that count, whose last result counts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_json::Value;

const HEAD: &str = "\
# KubeVirt's end-to-end suite, v1.7.0, unmodified

Written by `make kubevirt-suite FILTER='…'` (a label filter of Ginkgo) or `FOCUS='…'`, `SKIP='…'` (regular expressions for
names). Each spec of the labels `conformance` and `sig-network` has the result of its last run. The suite runs with the image `launcher-tools`, guests are emulated.
The kernel has no VLANs on bridges: the reference plugin `bridge` is given a bridge for each VLAN (`tests/suite/bridge-per-vlan`).

| spec | result | seconds | date | why |
|---|---|---|---|---|
";

/// The result of a spec that never ran.
const NOT_RUN: &str = " | not run | ";

/// The labels of Ginkgo whose specs all have a row.
const LABELS: [&str; 2] = ["conformance", "sig-network"];

const SIDE_CAR: &str = "a program of the binding plugin changes libvirt's domain";
const NAMES: &str = "demands KubeVirt's names of interfaces in the pod: wiring is by redirect";

/// Words in the names of specs that cannot pass here, and why.
const NOT_POSSIBLE: [(&str, &str); 19] = [
    ("Networkpolicy", "no NetworkPolicy engine runs in the test cluster"),
    ("Istio", "Istio does not run in the test cluster"),
    ("SRIOV", "no node of the test cluster has an SR-IOV device"),
    ("Slirp", SIDE_CAR),
    ("passt network binding plugin", SIDE_CAR),
    ("CNI and Sidecar", SIDE_CAR),
    ("macvtap", "no plugin of the test cluster makes macvtap devices"),
    ("bridge nic-hot", "NICs are not attached to running guests"),
    ("DataVolume", "CDI does not run in the test cluster"),
    ("[storage-req]", "CDI does not run in the test cluster"),
    ("[test_id:676]", NAMES),
    ("Duplicate Address Detection", NAMES),
    ("[sig-network]with bridge networking", NAMES),
    ("[test_id:1777]", NAMES),
    ("[test_id:1781]", NAMES),
    ("MTU verification should have the correct MTU", NAMES),
    ("[test_id:1539]", NAMES),
    ("[test_id:1541]", NAMES),
    ("[test_id:1542]", NAMES),
];

/// How many specs of a run had which end.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    passed: usize,
    failed: usize,
    not_possible: usize,
    skipped: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, not_possible, skipped } = self;
        write!(
            formatter,
            "{passed} passed, {failed} failed, {not_possible} not possible, {skipped} skipped by the suite"
        )
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
            if spec["LeafNodeType"] != "It" {
                continue;
            }
            let key = format!("| {}", cell(&name(spec), 300));
            match result(spec, &mut counts) {
                Some(result) => rows.insert(key.clone(), row(&key, spec, date, result)),
                None if counts_always(spec) && rows.get(&key).is_none_or(|row| row.contains(NOT_RUN)) => {
                    let why = why_not_possible(spec);
                    let result = if why.is_some() { "not possible" } else { "not run" };
                    rows.insert(key.clone(), format!("{key} | {result} | | | {} |", why.unwrap_or_default()))
                }
                None => None,
            };
        }
    }
    if counts.passed + counts.failed + counts.not_possible == 0 {
        return Err("no spec ran".to_owned());
    }
    let lines: String = rows.values().map(|row| format!("{row}\n")).collect();
    std::fs::write(table, format!("{HEAD}{lines}")).map_err(|error| format!("{}: {error}", table.display()))?;
    Ok(counts)
}

/// A spec's words, from the outermost container to its own.
fn name(spec: &Value) -> String {
    let containers = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten().filter_map(Value::as_str);
    containers.chain(spec["LeafNodeText"].as_str()).collect::<Vec<_>>().join(" ")
}

/// Whether a spec has a row also when it was never run.
fn counts_always(spec: &Value) -> bool {
    let containers = spec["ContainerHierarchyLabels"].as_array().into_iter().flatten();
    let mut labels = containers.chain([&spec["LeafNodeLabels"]]).filter_map(Value::as_array).flatten();
    labels.any(|label| LABELS.iter().any(|counting| label == counting))
}

fn why_not_possible(spec: &Value) -> Option<&'static str> {
    let name = name(spec);
    NOT_POSSIBLE.iter().find(|(words, _)| name.contains(words)).map(|(_, why)| *why)
}

/// How a spec ended, and why; nothing where the selection left it out.
fn result<'s>(spec: &'s Value, counts: &mut Counts) -> Option<(&'s str, &'s str)> {
    let message = spec["Failure"]["Message"].as_str().unwrap_or_default();
    let state = spec["State"].as_str()?;
    let (count, result, why) = match (state, why_not_possible(spec)) {
        ("passed", _) => (&mut counts.passed, "passed", ""),
        // Without a message it was not selected.
        ("skipped", _) if message.is_empty() => return None,
        ("pending", _) => return None,
        ("skipped", _) => (&mut counts.skipped, "skipped", message),
        (_, Some(why)) => (&mut counts.not_possible, "not possible", why),
        (_, None) => (&mut counts.failed, state, message),
    };
    *count += 1;
    Some((result, why))
}

fn row(key: &str, spec: &Value, date: &str, (result, why): (&str, &str)) -> String {
    let seconds = spec["RunTime"].as_u64().unwrap_or_default() / 1_000_000_000;
    format!("{key} | {result} | {seconds} | {date} | {} |", cell(why, 200))
}

/// Text for a cell of a table, at most so many characters.
fn cell(text: &str, most: usize) -> String {
    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/");
    plain.chars().take(most).collect()
}
