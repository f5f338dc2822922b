//! What a runtime sees of a call, with a plugin that notes which verb reached it.

use std::cell::RefCell;

use super::*;

#[derive(Default)]
struct Noting {
    calls: RefCell<Vec<String>>,
}

impl Noting {
    fn note(&self, call: &str) {
        self.calls.borrow_mut().push(call.to_owned());
    }
}

impl Plugin for Noting {
    fn about(&self) -> String {
        "a plugin for tests".to_owned()
    }

    fn add(&self, call: &Add) -> Result<Added, Error> {
        self.note("add");
        Ok(match call.conf.name().as_str() {
            "changes" => Added::Previous(serde_json::from_str(call.conf.prev_text().unwrap()).unwrap()),
            _ => Added::Unchanged,
        })
    }

    fn del(&self, call: &Del) -> Result<(), Error> {
        self.note(if call.netns.is_some() { "del" } else { "del without namespace" });
        Ok(())
    }

    fn check(&self, _: &Check) -> Result<(), Error> {
        self.note("check");
        Err(Error::new(Code::INTERNAL, "broken"))
    }

    fn gc(&self, call: &Collect) -> Result<(), Error> {
        self.note(&format!("gc {:?}", call.conf.valid_attachments().map(<[_]>::len)));
        Ok(())
    }

    fn status(&self, _: &Status) -> Result<(), Error> {
        self.note("status");
        Ok(())
    }
}

struct Seen {
    exit: u8,
    stdout: String,
    calls: Vec<String>,
}

impl Seen {
    fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// The test's own namespace serves as a container's; a real one needs privilege and is tested by the L1 rung.
const ATTACHED: [(&str, &str); 4] = [
    ("CNI_CONTAINERID", "c1"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_NETNS", "/proc/self/ns/net"),
    ("CNI_NETNS_OVERRIDE", "1"),
];

fn call(verb: &str, env: &[(&str, &str)], mut stdin: &[u8]) -> Seen {
    let plugin = Noting::default();
    let env = env.iter().copied().chain([("CNI_COMMAND", verb)]).collect();
    let mut stdout = Vec::new();
    let exit = serve(&plugin, &env, &mut stdin, &mut stdout).unwrap();
    Seen { exit, stdout: String::from_utf8(stdout).unwrap(), calls: plugin.calls.into_inner() }
}

fn conf(version: &str, more: &str) -> Vec<u8> {
    format!(r#"{{"cniVersion":"{version}","name":"net","type":"t"{more}}}"#).into_bytes()
}

#[test]
fn without_a_verb_it_says_what_it_is() {
    let seen = call("", &[], b"");
    assert_eq!((seen.exit, seen.stdout.as_str()), (0, "a plugin for tests\n"));
}

// spec: CNI-VER
#[test]
fn version_reads_no_stdin() {
    struct Open;
    impl Read for Open {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("stdin was read")
        }
    }
    let env = [("CNI_COMMAND", "VERSION")].into_iter().collect();
    let mut stdout = Vec::new();
    assert_eq!(serve(&Noting::default(), &env, &mut Open, &mut stdout).unwrap(), 0);
    let document: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(document["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
}

#[test]
fn a_previous_result_keeps_every_field() {
    let previous = r#","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/8"}],"other":7}"#;
    let seen = call("ADD", &ATTACHED, &conf("1.0.0", previous));
    assert_eq!(seen.document(), json!({"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/8"}],"other":7}));
}

// spec: CNI-PREV
#[test]
fn unknown_parts_of_a_previous_result_go_through() {
    let previous = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "mac": null, "x": [1]}], "dns": null,
        "ips": [{"address": "10.0.0.1/8", "gateway": "", "y": {"z": 1}}], "routes": [{"dst": "::/0", "mtu": 9}]});
    let seen = call("ADD", &ATTACHED, &conf("1.0.0", &format!(r#","prevResult":{previous}"#)));
    assert_eq!(seen.document(), previous);
}

// spec: CNI-PREV
#[test]
fn a_previous_result_that_is_none_never_reaches_the_plugin() {
    let cases = [
        ("5", 6),
        ("[]", 6),
        (r#"{"ips":"x"}"#, 6),
        (r#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"x"}]}"#, 6),
        (r#"{"cniVersion":"1.2.0"}"#, 1),
    ];
    for (previous, code) in cases {
        let conf = conf("1.0.0", &format!(r#","prevResult":{previous}"#));
        for verb in ["ADD", "CHECK"] {
            let seen = call(verb, &ATTACHED, &conf);
            assert_eq!((seen.exit, seen.document()["code"].as_u64()), (1, Some(code)), "{verb} {previous}");
            assert_eq!((&seen.document()["details"], seen.calls.len()), (&json!("in prevResult"), 0));
        }
        assert_eq!(call("DEL", &ATTACHED, &conf).calls, ["del"], "{previous}");
    }
}

#[test]
fn a_previous_result_of_another_version_is_converted() {
    let previous = r#","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/8"}]}"#;
    let seen = call("ADD", &ATTACHED, &conf("0.4.0", previous));
    assert_eq!(seen.document(), json!({"cniVersion":"0.4.0","ips":[{"address":"10.0.0.1/8","version":"4"}]}));
}

#[test]
fn the_answer_has_the_version_of_the_question() {
    for version in Version::ALL.map(Version::as_str) {
        assert_eq!(call("ADD", &ATTACHED, &conf(version, "")).document(), json!({"cniVersion": version}));
    }
}

// spec: CNI-ERR-1
#[test]
fn a_refusal_has_the_version_of_the_question_too() {
    let refused = [
        conf("0.4.0", r#","prevResult":5"#),
        br#"{"cniVersion":"0.4.0","name":"a b"}"#.to_vec(),
        br#"{"name":5,"cniVersion":"0.4.0"}"#.to_vec(),
    ];
    for conf in refused {
        assert_eq!(call("ADD", &ATTACHED, &conf).document()["cniVersion"], "0.4.0");
    }
    for conf in [conf("9.9.9", ""), b"{".to_vec()] {
        assert_eq!(call("ADD", &ATTACHED, &conf).document()["cniVersion"], "1.1.0");
    }
}

#[test]
fn our_own_namespace_never_reaches_the_plugin() {
    for verb in ["ADD", "DEL", "CHECK"] {
        let seen = call(verb, &ATTACHED[..3], &conf("1.0.0", r#","prevResult":{}"#));
        assert_eq!((seen.exit, seen.document()["code"].as_u64(), seen.calls.len()), (1, Some(8), 0), "{verb}");
    }
}

#[test]
fn a_vanished_namespace_is_an_error_for_add_and_none_for_del() {
    let gone = [("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/nonexistent")];
    let seen = call("ADD", &gone, &conf("1.0.0", ""));
    assert!(seen.document()["msg"].as_str().unwrap().contains("/nonexistent"), "{}", seen.stdout);
    for env in [&gone[..], &gone[..2]] {
        let seen = call("DEL", env, &conf("1.0.0", ""));
        assert_eq!(
            (seen.exit, seen.stdout.as_str(), &seen.calls[..]),
            (0, "", &["del without namespace".to_owned()][..])
        );
    }
}

#[test]
fn verbs_younger_than_the_configuration_are_refused() {
    for (verb, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
        let seen = call(verb, &ATTACHED, &conf(version, ""));
        assert_eq!((seen.document()["code"].as_u64(), seen.calls.len()), (Some(1), 0), "{verb}");
        assert_eq!(seen.document()["cniVersion"], version);
    }
}

#[test]
fn every_other_verb_reaches_the_plugin() {
    let newest = conf("1.1.0", r#","prevResult":{},"cni.dev/valid-attachments":[]"#);
    assert_eq!(call("GC", &[], &newest).calls, ["gc Some(0)"]);
    assert_eq!(call("STATUS", &[], &newest).calls, ["status"]);
    let checked = call("CHECK", &ATTACHED, &conf("1.1.0", r#","prevResult":{"cniVersion":"1.1.0"}"#));
    assert_eq!((checked.exit, checked.document()["code"].as_u64()), (1, Some(999)));
    assert_eq!(call("DEL", &ATTACHED, &newest).calls, ["del"]);
}

#[test]
fn a_check_without_the_result_of_add_is_refused() {
    let seen = call("CHECK", &ATTACHED, &conf("1.0.0", ""));
    assert_eq!((seen.document()["code"].as_u64(), seen.calls.len()), (Some(7), 0));
}

#[test]
fn missing_variables_are_all_named_before_stdin_is_looked_at() {
    let seen = call("ADD", &[], b"not json");
    let message = seen.document()["msg"].as_str().unwrap().to_owned();
    assert!(["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"].iter().all(|name| message.contains(name)), "{message}");
}
