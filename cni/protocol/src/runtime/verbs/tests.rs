//! The verbs with plugins made of shell: each notes what it was asked and answers with its previous result.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::*;

/// Notes `<plugin> <verb>`, keeps what it was given, fails when a file `<plugin>.<verb>` is there.
const SCRIPT: &str = r#"#!/bin/sh
dir=$(dirname "$0"); me=$(basename "$0")
echo "$me $CNI_COMMAND" >>"$dir/calls"
cat >"$dir/$me.conf"
env >"$dir/$me.env"
echo "$me says hello" >&2
[ -e "$dir/$me.$CNI_COMMAND" ] && { cat "$dir/$me.$CNI_COMMAND"; exit 1; }
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/24"}],"by":"'"$me"'"}'
exit 0
"#;

struct Bench {
    dir: tempfile::TempDir,
    runtime: Runtime,
    list: ConfigList,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for plugin in ["one", "two"] {
            let path = dir.path().join(plugin);
            std::fs::write(&path, SCRIPT).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let runtime = Runtime::new(&dir.path().join("cache"), vec![dir.path().to_owned()]).with_log(|_, _| ());
        let list = json!({"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "one"}, {"type": "two"}]});
        Self { dir, runtime, list: ConfigList::from_value(list).unwrap() }
    }

    fn fail(&self, plugin_and_verb: &str, answer: &str) {
        std::fs::write(self.dir.path().join(plugin_and_verb), answer).unwrap();
    }

    /// What was asked since the last look.
    fn calls(&self) -> Vec<String> {
        let path = self.dir.path().join("calls");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        drop(std::fs::remove_file(path));
        text.lines().map(str::to_owned).collect()
    }

    fn given(&self, plugin: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.dir.path().join(format!("{plugin}.conf"))).unwrap()).unwrap()
    }

    fn known(&self) -> usize {
        self.runtime.cached().unwrap().len()
    }
}

fn attachment() -> Attachment {
    let mut attachment = Attachment::new("c1".parse().unwrap(), Some("/run/netns/a".into()), "eth0".parse().unwrap());
    attachment.args = vec![("K8S_POD_NAME".to_owned(), "vm".to_owned())];
    attachment
}

#[test]
fn add_goes_forward_and_del_back_with_the_last_result() {
    let bench = Bench::new();
    let result = bench.runtime.add(&bench.list, &attachment()).unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.0.0.5/24");
    assert_eq!(bench.calls(), ["one ADD", "two ADD"]);
    assert_eq!((bench.given("one").get("prevResult"), &bench.given("two")["prevResult"]["by"]), (None, &json!("one")));
    assert_eq!(bench.known(), 1);

    bench.runtime.check(&bench.list, &attachment()).unwrap();
    assert_eq!(bench.calls(), ["one CHECK", "two CHECK"]);
    assert_eq!(bench.given("one")["prevResult"]["by"], "two");

    bench.runtime.del(&bench.list, &attachment()).unwrap();
    assert_eq!(bench.calls(), ["two DEL", "one DEL"]);
    assert_eq!(bench.given("one")["prevResult"]["by"], "two");
    assert_eq!(bench.known(), 0);
    bench.runtime.del(&bench.list, &attachment()).unwrap();
}

#[test]
fn a_plugin_sees_the_protocol_and_little_else() {
    let bench = Bench::new();
    bench.runtime.add(&bench.list, &attachment()).unwrap();
    let env = std::fs::read_to_string(bench.dir.path().join("one.env")).unwrap();
    assert!(env.contains("CNI_ARGS=K8S_POD_NAME=vm\n") && env.contains("CNI_NETNS=/run/netns/a\n"), "{env}");
    assert!(!env.contains("CARGO"), "{env}");
}

#[test]
fn a_failed_add_is_undone_and_forgotten() {
    let bench = Bench::new();
    bench.fail("two.ADD", r#"{"cniVersion":"1.1.0","code":11,"msg":"busy"}"#);
    let error = bench.runtime.add(&bench.list, &attachment()).unwrap_err();
    assert_eq!(chain(&error), "plugin two: ADD failed: busy (code 11)");
    assert_eq!(bench.calls(), ["one ADD", "two ADD", "two DEL", "one DEL"]);
    assert_eq!(bench.known(), 0);
}

#[test]
fn del_goes_on_past_a_failure_and_stays_known() {
    let bench = Bench::new();
    bench.runtime.add(&bench.list, &attachment()).unwrap();
    bench.calls();
    bench.fail("two.DEL", "not json");
    let error = bench.runtime.del(&bench.list, &attachment()).unwrap_err().to_string();
    assert!(error.contains("plugin two: DEL") && error.contains("not json"), "{error}");
    assert_eq!((bench.calls().len(), bench.known()), (2, 1));
}

#[test]
fn del_uses_the_configuration_of_add() {
    let bench = Bench::new();
    bench.runtime.add(&bench.list, &attachment()).unwrap();
    bench.calls();
    let changed = json!({"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "gone"}]});
    bench.runtime.del(&ConfigList::from_value(changed).unwrap(), &attachment()).unwrap();
    assert_eq!(bench.calls(), ["two DEL", "one DEL"]);
}

#[test]
fn gc_detaches_what_is_not_listed_then_asks_the_plugins() {
    let bench = Bench::new();
    let mut other = attachment();
    other.container_id = "c2".parse().unwrap();
    bench.runtime.add(&bench.list, &attachment()).unwrap();
    bench.runtime.add(&bench.list, &other).unwrap();
    bench.calls();
    bench.runtime.gc(&bench.list, &[other.key()]).unwrap();
    assert_eq!(bench.calls(), ["two DEL", "one DEL", "one GC", "two GC"]);
    assert_eq!(bench.given("two")["cni.dev/valid-attachments"], json!([{"containerID": "c2", "ifname": "eth0"}]));
    assert_eq!(bench.known(), 1);
}

#[test]
fn status_stops_at_the_first_plugin_that_is_not_ready() {
    let bench = Bench::new();
    bench.fail("one.STATUS", r#"{"code":50,"msg":"no uplink"}"#);
    let error = bench.runtime.status(&bench.list).unwrap_err();
    assert_eq!(chain(&error), "plugin one: STATUS failed: no uplink (code 50)");
    assert_eq!(bench.calls(), ["one STATUS"]);
}

#[test]
fn older_networks_have_fewer_verbs() {
    let bench = Bench::new();
    let old = json!({"cniVersion": "0.3.1", "name": "net", "plugins": [{"type": "one"}]});
    let old = ConfigList::from_value(old).unwrap();
    assert!(matches!(bench.runtime.check(&old, &attachment()), Err(RuntimeError::NoVerb { .. })));
    bench.runtime.status(&old).unwrap();
    bench.runtime.gc(&old, &[]).unwrap();
    assert!(bench.calls().is_empty());
}

#[test]
fn a_network_can_forbid_check_and_gc() {
    let bench = Bench::new();
    let quiet = ConfigList { disable_check: true, disable_gc: true, ..bench.list.clone() };
    bench.runtime.check(&quiet, &attachment()).unwrap();
    bench.runtime.gc(&quiet, &[]).unwrap();
    assert!(bench.calls().is_empty());
}

#[test]
fn a_missing_plugin_is_named_with_the_folders() {
    let bench = Bench::new();
    let list = json!({"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "one"}, {"type": "absent"}]});
    let error = bench.runtime.add(&ConfigList::from_value(list).unwrap(), &attachment()).unwrap_err();
    let message = chain(&error);
    assert!(message.contains("plugin absent: not found in "), "{message}");
    assert_eq!((bench.calls().len(), bench.known()), (0, 0));
}

#[test]
fn a_long_configuration_does_not_stop_a_plugin_that_does_not_read_it() {
    let bench = Bench::new();
    std::fs::write(bench.dir.path().join("one"), "#!/bin/sh\necho '{}'\n").unwrap();
    let list = json!({"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "one", "x": "y".repeat(1 << 20)}]});
    bench.runtime.add(&ConfigList::from_value(list).unwrap(), &attachment()).unwrap();
}

#[test]
fn an_attachment_without_namespace_is_refused_before_any_plugin_runs() {
    let bench = Bench::new();
    let error = bench.runtime.add(&bench.list, &Attachment { netns: None, ..attachment() }).unwrap_err();
    assert_eq!(error.to_string(), "attachment c1/eth0: no network namespace is given");
    assert_eq!((bench.calls().len(), bench.known()), (0, 0));
}

/// Replaces `plugin` by one that starts a child process which hangs with it, and does this for a verb.
fn hang(bench: &Bench, plugin: &str, verb: &str, how: &str) {
    let script = format!(
        "#!/bin/sh\ndir=$(dirname \"$0\"); echo \"{plugin} $CNI_COMMAND\" >>\"$dir/calls\"\n\
         [ \"$CNI_COMMAND\" = {verb} ] || exit 0\nsleep 1000 & echo $! >\"$dir/child\"\necho waiting >&2\n{how}\n"
    );
    std::fs::write(bench.dir.path().join(plugin), script).unwrap();
}

/// Whether the process that a hanging plugin started is there and no corpse.
fn its_child_lives(bench: &Bench) -> bool {
    let pid = std::fs::read_to_string(bench.dir.path().join("child")).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

// spec: NET-5
#[test]
fn a_plugin_that_hangs_is_killed_with_all_it_started_and_undone() {
    let mut bench = Bench::new();
    bench.runtime = bench.runtime.with_patience(Duration::from_millis(700));
    hang(&bench, "two", "ADD", "wait");
    let error = bench.runtime.add(&bench.list, &attachment()).unwrap_err();
    let expected = "plugin two: ADD did not end within 700ms and was killed";
    assert!(chain(&error).starts_with(expected), "{}", chain(&error));
    assert_eq!(bench.calls(), ["one ADD", "two ADD", "two DEL", "one DEL"]);
    assert_eq!(bench.known(), 0);
    // A kill is carried out a moment after it is sent.
    let dies = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        !its_child_lives(&bench)
    });
    assert!(dies, "what the plugin started lives on");
}

#[test]
fn a_plugin_that_leaves_its_answer_open_is_not_waited_for_without_end() {
    let mut bench = Bench::new();
    bench.runtime = bench.runtime.with_patience(Duration::from_millis(700));
    let list = json!({"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "two"}]});
    let list = ConfigList::from_value(list).unwrap();
    bench.runtime.add(&list, &attachment()).unwrap();
    hang(&bench, "two", "CHECK", "exit 0");
    let error = chain(&bench.runtime.check(&list, &attachment()).unwrap_err());
    assert!(error.starts_with("plugin two: CHECK did not end within 700ms"), "{error}");
}

// spec: NET-5
#[test]
fn del_that_hangs_is_reported_and_the_other_plugins_are_still_asked() {
    let mut bench = Bench::new();
    bench.runtime.add(&bench.list, &attachment()).unwrap();
    bench.calls();
    bench.runtime = bench.runtime.with_patience(Duration::from_millis(700));
    hang(&bench, "two", "DEL", "wait");
    let error = chain(&bench.runtime.del(&bench.list, &attachment()).unwrap_err());
    assert!(error.starts_with("plugin two: DEL did not end within 700ms"), "{error}");
    assert_eq!((bench.calls(), bench.known()), (vec!["two DEL".to_owned(), "one DEL".to_owned()], 1));
}

#[test]
fn an_answer_without_end_is_cut_and_refused() {
    let bench = Bench::new();
    std::fs::write(bench.dir.path().join("one"), "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\nyes\n").unwrap();
    let error = chain(&bench.runtime.add(&bench.list, &attachment()).unwrap_err());
    assert!(error.starts_with("plugin one: ADD "), "{error}");
    assert_eq!(bench.known(), 0);
}

// spec: NET-2
#[test]
fn del_may_fail_for_the_plugin_whose_add_failed_but_not_for_earlier_ones() {
    let bench = Bench::new();
    bench.fail("two.ADD", r#"{"cniVersion":"1.1.0","code":7,"msg":"no master"}"#);
    bench.fail("two.DEL", r#"{"cniVersion":"1.1.0","code":7,"msg":"no master"}"#);
    let error = bench.runtime.add(&bench.list, &attachment()).unwrap_err();
    assert_eq!(chain(&error), "plugin two: ADD failed: no master (code 7)");
    assert_eq!((bench.calls().len(), bench.known()), (4, 0));

    bench.fail("one.DEL", r#"{"cniVersion":"1.1.0","code":11,"msg":"busy"}"#);
    let error = bench.runtime.add(&bench.list, &attachment()).unwrap_err();
    assert!(chain(&error).ends_with("and undoing it: plugin one: DEL failed: busy (code 11)"), "{error}");
    assert_eq!(bench.known(), 1);
    let error = bench.runtime.del(&bench.list, &attachment()).unwrap_err();
    assert_eq!(chain(&error), "plugin one: DEL failed: busy (code 11)", "which of them came to ADD is on file");
    std::fs::remove_file(bench.dir.path().join("one.DEL")).unwrap();
    bench.runtime.del(&bench.list, &attachment()).unwrap();
    assert_eq!(bench.known(), 0);
}

#[test]
fn a_plugin_says_which_versions_it_speaks() {
    let bench = Bench::new();
    assert_eq!(
        bench.runtime.versions("one").unwrap_err().to_string(),
        "plugin one: VERSION answered with something else than JSON"
    );
    let path = bench.dir.path().join("three");
    let script = r#"echo '{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0"]}'"#;
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(bench.runtime.versions("three").unwrap(), ["0.4.0", "1.0.0"]);
}
