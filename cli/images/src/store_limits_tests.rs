//! Images that ask for more time or memory than they should get.

use super::*;

// spec: IMG-1
#[test]
#[expect(clippy::disallowed_methods, reason = "the test is about time")]
fn fifteen_thousand_names_are_taken_in_within_seconds() {
    let layout = Layout::new(NAME, &[layer(&[Item::File("disk/a", b"x")])]);
    let path = layout.path().join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let one = index["manifests"][0].clone();
    let named = (0..15_000).map(|n| {
        let mut one = one.clone();
        one["annotations"] = serde_json::json!({ REF_NAME: format!("localhost/i{n}:1") });
        one
    });
    index["manifests"] = named.collect();
    fs::write(&path, index.to_string()).unwrap();
    let (_folder, store) = store();
    for _ in 0..2 {
        let begun = std::time::Instant::now();
        assert_eq!(store.import(layout.path(), None, None).unwrap().len(), 15_000);
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    store.resolve("localhost/i14999:1", None, Reader::Root).unwrap();
}

/// Runs the rest of the calling test in a process of its own whose memory is limited; `false` in the parent.
fn is_limited(mebibytes: u64) -> bool {
    const LIMITED: &str = "TAPVISOR_TEST_LIMITED";
    if std::env::var_os(LIMITED).is_some() {
        return true;
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let mut child = std::process::Command::new("sh");
    child
        .arg("-c")
        .arg(format!("ulimit -v {}; exec \"$0\" \"$@\"", mebibytes << 10))
        .arg(std::env::current_exe().unwrap());
    let output = child.args(["--exact", &name, "--test-threads=1"]).env(LIMITED, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    false
}

// spec: IMG-1
#[test]
fn hostile_images_are_read_in_little_memory() {
    if !is_limited(320) {
        return;
    }
    let (_folder, store) = store();
    let long = |kind: tar::EntryType| {
        let mut header = tar::Header::new_gnu();
        header.set_path("././@LongLink").unwrap();
        header.set_entry_type(kind);
        header.set_size(500 << 20);
        header.set_cksum();
        // The rest is what gzip makes small; that it is declared is enough to be read by who has no bound.
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(4 << 20, b'x');
        bytes
    };
    for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
        let error = import_and_resolve(&store, &[long(kind)]).unwrap_err().to_string();
        assert!(error.contains("of more than"), "{error}");
    }
    // An index that is larger than any honest one: a sparse file of a gibibyte.
    let layout = Layout::new(NAME, &[]);
    File::options().write(true).open(layout.path().join("index.json")).unwrap().set_len(1 << 30).unwrap();
    let error = store.import(layout.path(), None, None).unwrap_err().to_string();
    assert!(error.contains("index.json") && error.contains("has more than 8388608 bytes"), "{error}");
}
