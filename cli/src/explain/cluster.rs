//! A VM in a cluster: the cluster's API has the agent of the VM's node explain, and this reads the answer.
//!
//! kubectl sends the request: it knows contexts and every way to log in to a cluster, and users who name a context have it.

use std::io;
use std::process::{Command, ExitCode};
use std::time::Duration;

use explain::{Explanation, changes};
use terms::ObjectKey;

use super::follow::{say, tell};
use crate::arguments::Explain;
use crate::failure::{Exit, Failure};
use crate::{names, terminal};

/// The agent ends an explanation sooner.
const PATIENCE: &str = "--request-timeout=30s";
/// Between two questions of `--watch`.
const PERIOD: Duration = Duration::from_secs(2);
const NAMESPACE: &str = "jsonpath={.contexts[0].context.namespace}";

/// Asks the cluster.
///
/// # Errors
/// The name is not one, kubectl is missing, or the cluster refuses, with kubectl's text.
pub(super) fn explain(arguments: &Explain) -> Result<Explanation, Failure> {
    let key = key(arguments, || kubectl(arguments, &["config", "view", "--minify", "--output", NAMESPACE]))?;
    let answer = kubectl(arguments, &["get", PATIENCE, "--raw", &path(&key)])?;
    let unfit = |error| Failure::new(Exit::Failed, format!("the cluster's answer is no explanation: {error}"));
    serde_json::from_str(&answer).map_err(unfit)
}

/// The whole picture once, then what changes, until it is interrupted or the VM is removed.
///
/// # Errors
/// The first answer is none.
pub(super) fn watch(arguments: &Explain) -> Result<ExitCode, Failure> {
    let mut before = explain(arguments)?;
    tell(&before, arguments.output, None);
    let mut told = Vec::new();
    loop {
        std::thread::sleep(PERIOD);
        if terminal::is_lost() {
            return Ok(ExitCode::SUCCESS);
        }
        match explain(arguments) {
            Ok(after) => {
                let lines = changes(&before, &after);
                if !lines.is_empty() {
                    tell(&after, arguments.output, Some(&lines));
                }
                (before, told) = (after, Vec::new());
            }
            Err(failure) if failure.code == Exit::NotFound as u8 => {
                say(arguments.output, &format!("{}/{} was removed", before.namespace, before.name));
                return Ok(ExitCode::from(Exit::NotFound as u8));
            }
            // The VM may start again, and a controller or an agent be replaced.
            Err(failure) if failure.messages == told => {}
            Err(failure) => {
                failure.messages.iter().for_each(|message| say(arguments.output, message));
                told = failure.messages;
            }
        }
    }
}

/// The VM's namespace is the name's, the option's, or the context's.
fn key(arguments: &Explain, of_context: impl FnOnce() -> Result<String, Failure>) -> Result<ObjectKey, Failure> {
    let name = arguments.name.strip_prefix("vm/").unwrap_or(&arguments.name);
    match (name.contains('/'), &arguments.namespace) {
        (true, None) => names::vm(name),
        (true, Some(namespace)) => {
            Err(Failure::new(Exit::Usage, format!("{name:?} names a namespace, and --namespace names {namespace:?}")))
        }
        (false, Some(namespace)) => names::vm(&format!("{namespace}/{name}")),
        (false, None) => match of_context()?.trim() {
            "" => names::vm(name),
            namespace => names::vm(&format!("{namespace}/{name}")),
        },
    }
}

fn path(key: &ObjectKey) -> String {
    let (namespace, name) = (key.namespace(), key.name());
    format!("/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{name}/explain")
}

fn kubectl(arguments: &Explain, words: &[&str]) -> Result<String, Failure> {
    let mut command = Command::new("kubectl");
    if let Some(context) = &arguments.context {
        command.arg("--context").arg(context);
    }
    if let Some(file) = &arguments.kubeconfig {
        command.arg("--kubeconfig").arg(file);
    }
    let output = command.args(words).output().map_err(|error| missing(&error))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(refused(&String::from_utf8_lossy(&output.stderr))),
    }
}

fn missing(error: &io::Error) -> Failure {
    Failure::new(Exit::HostLacks, format!("cannot execute kubectl, which sends requests to clusters: {error}"))
}

fn refused(text: &str) -> Failure {
    let exit = if text.contains("(NotFound)") { Exit::NotFound } else { Exit::Failed };
    Failure::new(exit, text.trim())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command as Parsed};

    fn parse(words: &[&str]) -> Result<Explain, clap::Error> {
        let parsed = Arguments::try_parse_from([&["tapvisor", "explain"], words].concat())?;
        let Parsed::Explain(explain) = parsed.command else { panic!("{words:?}") };
        Ok(explain)
    }

    // spec: EXPL-22
    #[test]
    fn a_vm_of_a_cluster_is_named_by_option_name_or_context() {
        for (words, of_the_context, expected) in [
            (&["--context", "lab", "web"][..], "", "default/web"),
            (&["--context", "lab", "web"], "vms", "vms/web"),
            (&["--context", "lab", "-n", "other", "web"], "vms", "other/web"),
            (&["--kubeconfig", "file", "other/web"], "vms", "other/web"),
        ] {
            let key = key(&parse(words).unwrap(), || Ok(of_the_context.to_owned())).unwrap();
            assert_eq!(key.to_string(), expected, "{words:?}");
            assert!(path(&key).ends_with("/virtualmachineinstances/web/explain"));
        }
        let twice = parse(&["--context", "lab", "-n", "a", "b/web"]).unwrap();
        assert_eq!(key(&twice, || Ok(String::new())).unwrap_err().code, 2);
        for words in [&["-n", "vms", "web"][..], &["--context", "c", "-p1", "web"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    // spec: EXPL-22
    #[test]
    fn a_vm_that_the_cluster_does_not_have_ends_with_4() {
        let text = "Error from server (NotFound): virtualmachineinstance.kubevirt.io \"web\" not found\n";
        assert_eq!((refused(text).code, refused("Error from server (Forbidden): no").code), (4, 1));
        assert!(refused(text).messages[0].ends_with("not found"));
    }
}
