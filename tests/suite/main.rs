//! `kubevirt-suite`: runs KubeVirt's own end-to-end suite, unmodified, against the product in a cluster of two nodes, and keeps
//! its results in `tests/cluster/SUITE.md`.
//!
//! *Flow*: cluster, product, guests → what the suite looks up by name ([`fixtures`]) → the suite's program with a report in
//! JSON → [`report`].

mod fixtures;
mod report;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use tests::cluster::Cluster;
use tests::{cache_file, workspace};

const NAME: &str = "suite";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(selection) = selection(&arguments) else {
        eprintln!(
            "kubevirt-suite: says what to run in pairs of words: `label-filter EXPRESSION`, `focus REGULAR-EXPRESSION`"
        );
        eprintln!("or `skip REGULAR-EXPRESSION`, as Ginkgo understands them; not {arguments:?}");
        return ExitCode::from(2);
    };
    let cluster = Cluster::start(NAME);
    cluster.install_product();
    fixtures::install(&cluster);
    let folder = tempfile::tempdir().expect("a folder can be made");
    let report = run(&cluster, folder.path(), &selection);
    // Also specs that failed are results: the suite's exit code says nothing more.
    let kept = report::keep(&report, &workspace().join("tests/cluster/SUITE.md"));
    cluster.end();
    match kept {
        Ok(counts) => {
            println!("kubevirt-suite: {counts}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("kubevirt-suite: {problem}; logs are in {}", tests::cluster::logs(NAME).display());
            ExitCode::FAILURE
        }
    }
}

/// Pairs of words as Ginkgo's options; nothing where one of them is none.
fn selection(arguments: &[String]) -> Option<Vec<String>> {
    let pairs = arguments.chunks(2).map(|pair| match pair {
        [how, value] if ["label-filter", "focus", "skip"].contains(&how.as_str()) => {
            Some(format!("-ginkgo.{how}={value}"))
        }
        _ => None,
    });
    pairs.collect::<Option<Vec<_>>>().filter(|options| !options.is_empty())
}

/// Runs the suite's program; returns the path of its report.
fn run(cluster: &Cluster, folder: &Path, selection: &[String]) -> std::path::PathBuf {
    let report = folder.join("report.json");
    let configuration = folder.join("config.json");
    std::fs::write(&configuration, r#"{"storageRWOFileSystem": "local"}"#).expect("the folder was just made");
    let environment = cluster.environment();
    let [_, (_, kubeconfig)] = &environment;
    let mut command: Command = cluster.world().command_without_limit("env");
    command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
    command.arg("REPORTER_MAX_FAILS=-1").arg(cache_file("cluster/suite/kubevirt-tests"));
    command.args(["-kubeconfig", kubeconfig, "-config"]).arg(&configuration);
    command.arg("-artifacts").arg(folder.join("artifacts"));
    command.args(["-container-prefix", "localhost/kubevirt", "-container-tag", "devel", "-kubectl-path", "kubectl"]);
    command.args(fixtures::OUTSIDE);
    command.args(["-ginkgo.no-color", "-ginkgo.v", "-ginkgo.timeout=6h", "-ginkgo.seed=1"]).args(selection);
    command.arg(format!("-ginkgo.json-report={}", report.display()));
    command.current_dir(folder).stdin(Stdio::null());
    if let Err(error) = command.status() {
        eprintln!("kubevirt-suite: the suite cannot be started: {error}");
    }
    report
}
