//! `explain --watch` while things break.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::asking::assert_healthy;
use super::wait_leases;
use crate::manifest::Vm;
use crate::vm::Host;

/// A program whose lines are read as they come.
struct Lines {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Lines {
    fn of(mut command: std::process::Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (tell, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, lines }
    }

    /// Waits for a line that holds all words.
    fn expect(&self, words: &[&str]) -> String {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(90)) {
            if words.iter().all(|word| line.contains(word)) {
                return line;
            }
            seen.push(line);
        }
        panic!("no line with {words:?} in:\n{}", seen.join("\n"));
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn watch() {
    let host = Host::new();
    host.run(&[Vm::new("web", "masquerade")], None).assert_ok();
    let web = host.guest("web");
    wait_leases(&web);
    assert_healthy(&host, "web");
    let start = |arguments: &[&str]| {
        let mut command = host.world.command(tests::dist_file("tapvisor"));
        command.args(["explain", "--watch", "web"]).args(arguments);
        Lines::of(command)
    };
    let (lines, documents) = (start(&[]), start(&["-o", "json"]));
    let _ = lines.expect(&["Nothing is wrong."]);
    let _ = documents.expect(&[r#""kind":"Explanation""#, r#""findings":[]"#]);
    let pod = web.pod();
    pod.run(&["ip", "link", "set", "k6t-eth0", "mtu", "1400"]).assert_ok();
    let _ = lines.expect(&[pod.name(), "link k6t-eth0 is up, MTU 1400"]);
    let _ = lines.expect(&["wrong: wrongMtu at k6t-eth0"]);
    let document: Value = serde_json::from_str(&documents.expect(&["wrongMtu"])).unwrap();
    assert_eq!(document["items"][0]["findings"][0]["hop"], "k6t-eth0");
    pod.run(&["ip", "link", "set", "k6t-eth0", "mtu", "1500"]).assert_ok();
    let _ = lines.expect(&["mended: wrongMtu at k6t-eth0"]);
    pod.run(&["ip", "link", "set", "svc-eth0", "down"]).assert_ok();
    let _ = lines.expect(&["link svc-eth0 is down"]);
    let _ = lines.expect(&["wrong: tapDown at svc-eth0"]);
    // No rule of nft is announced: found by looking.
    pod.run(&["nft", "flush", "chain", "inet", "tapvisor", "guard"]).assert_ok();
    let _ = lines.expect(&["wrong: ruleGone at rules"]);
    host.remove(&["--force", "web"]).assert_ok();
    let _ = lines.expect(&["default/web was removed"]);
    host.assert_nothing_left();
}
