//! Lists from files, drop-ins, versions and refusals.

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn load(&self, path: &str) -> Result<ConfigList, ConfigError> {
        ConfigList::load(&self.0.path().join(path))
    }
}

const LIST: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"}]}"#;

fn types(list: &ConfigList) -> Vec<&str> {
    list.types().collect()
}

fn refusal(text: &str) -> String {
    ConfigList::from_value(serde_json::from_str(text).unwrap()).unwrap_err().to_string()
}

#[test]
fn drop_ins_are_appended_in_order() {
    let folder = Folder::new()
        .with("10.conflist", LIST)
        .with("net/20.conf", r#"{"type":"tapvisor"}"#)
        .with("net/10.conf", r#"{"type":"tuning"}"#)
        .with("net/notes.txt", "no configuration")
        .with("other/10.conf", r#"{"type":"portmap"}"#);
    assert_eq!(types(&folder.load("10.conflist").unwrap()), ["bridge", "tuning", "tapvisor"]);
}

#[test]
fn a_list_can_refuse_drop_ins_and_can_consist_of_them() {
    let refusing = LIST.replace("\"name\"", "\"loadOnlyInlinedPlugins\":true,\"name\"");
    let folder = Folder::new()
        .with("10.conflist", &refusing)
        .with("20.conflist", r#"{"cniVersion":"1.0.0","name":"net"}"#)
        .with("net/10.conf", r#"{"type":"tuning"}"#);
    assert_eq!(types(&folder.load("10.conflist").unwrap()), ["bridge"]);
    assert_eq!(types(&folder.load("20.conflist").unwrap()), ["tuning"]);
}

#[test]
fn a_single_plugin_is_a_list_of_one() {
    let folder = Folder::new().with("10.conf", r#"{"cniVersion":"0.3.1","name":"net","type":"ptp","mtu":1400}"#);
    let list = folder.load("10.conf").unwrap();
    assert_eq!((types(&list), list.version()), (vec!["ptp"], Version::V0_3_1));
}

#[test]
fn the_newest_common_version_is_spoken() {
    let version = |versions: &str| {
        let text = format!(r#"{{"name":"net",{versions},"plugins":[{{"type":"a"}}]}}"#);
        ConfigList::from_value(serde_json::from_str(&text).unwrap()).map(|list| list.version())
    };
    assert_eq!(version(r#""cniVersion":"0.4.0","cniVersions":["0.4.0","1.0.0","9.0.0"]"#).unwrap(), Version::V1_0_0);
    assert_eq!(version(r#""cniVersion":"1.1.0","cniVersions":[]"#).unwrap(), Version::V1_1_0);
    assert!(version(r#""cniVersions":["9.0.0","8.0.0"]"#).unwrap_err().to_string().contains("9.0.0, 8.0.0"));
}

#[test]
fn a_network_is_found_by_name_past_unreadable_files() {
    let folder = Folder::new().with("00.conf", "not json").with("10.conflist", LIST);
    let find = |name: &str| ConfigList::find(folder.0.path(), &name.parse().unwrap());
    assert_eq!(types(&find("net").unwrap()), ["bridge"]);
    let error = find("absent").unwrap_err().to_string();
    assert!(error.contains("\"absent\"") && error.contains("00.conf"), "{error}");
}

#[test]
fn truth_values_may_be_words() {
    let text = LIST.replace("\"name\"", "\"disableCheck\":\"True\",\"disableGC\":true,\"name\"");
    let list = ConfigList::from_value(serde_json::from_str(&text).unwrap()).unwrap();
    assert!(list.disable_check && list.disable_gc);
}

#[test]
fn refusals_name_the_field() {
    let cases = [
        (r#"[]"#, "(all): must be an object, not a list"),
        (r#"{"cniVersion":"1.0.0","plugins":[]}"#, "name: is missing"),
        (r#"{"cniVersion":"1.0.0","name":"../x","plugins":[]}"#, "name: network name"),
        (r#"{"name":"n","plugins":[{"type":"a"}]}"#, "cniVersion: is missing"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#, "plugins: is empty"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":{}}"#, "plugins: must be a list, not an object"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[1]}"#, "plugins[0]: must be an object, not a number"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"},{}]}"#, "plugins[1].type: is missing"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"../a"}]}"#, "plugins[0].type: must be the name"),
        (
            r#"{"cniVersion":"1.0.0","name":"n","disableGC":1,"plugins":[{"type":"a"}]}"#,
            "disableGC: must be true or false",
        ),
    ];
    for (text, expected) in cases {
        let error = refusal(text);
        assert!(error.starts_with(&format!("network configuration: {expected}")), "{error}");
    }
}

#[test]
fn a_list_survives_being_written() {
    let list = ConfigList::from_value(serde_json::from_str(LIST).unwrap()).unwrap();
    assert_eq!(ConfigList::from_value(list.to_document()).unwrap(), list);
}
