//! Documents by which the API server and clients find out what there is.

use serde_json::{Value, json};

use super::names::{INSTANCE, MACHINE, is_read};
use super::openapi;
use super::path::{Document, GROUP, VERSIONS};

/// The KubeVirt release whose API this is: virtctl compares it with its own.
const KUBEVIRT: &str = "v1.7.0";

/// A document's content; `None` for one that is no JSON.
pub(super) fn document(document: Document) -> Value {
    match document {
        Document::Root => {
            let paths: Vec<_> = VERSIONS.iter().map(|version| format!("/apis/{GROUP}/{version}")).collect();
            let all = [vec!["/apis".to_owned(), format!("/apis/{GROUP}")], paths].concat();
            json!({"paths": all})
        }
        Document::Groups => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}),
        Document::Group => {
            let mut group = group();
            (group["kind"], group["apiVersion"]) = ("APIGroup".into(), "v1".into());
            group
        }
        Document::Resources(version) => resources(version),
        Document::Version => json!({
            "gitVersion": KUBEVIRT,
            "gitCommit": "tapvisor",
            "gitTreeState": "clean",
            "buildDate": "",
            "goVersion": "",
            "compiler": concat!("tapvisor ", env!("CARGO_PKG_VERSION")),
            "platform": "linux/amd64",
        }),
        Document::OpenApi2 => openapi::v2(),
        Document::OpenApi3 => openapi::v3(),
        Document::OpenApi3Of(version) => openapi::v3_of(version),
        Document::Healthz => json!({"apiserver": {"connectivity": "ok"}}),
        // There is no image with libguestfs: virtctl guestfs needs --image.
        Document::Guestfs => json!({"registry": "", "tag": "", "digest": ""}),
    }
}

fn group() -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{GROUP}/{version}"), "version": version});
    let versions: Vec<_> = VERSIONS.iter().map(|name| version(name)).collect();
    json!({"name": GROUP, "versions": versions, "preferredVersion": version(VERSIONS[0])})
}

fn resources(version: &str) -> Value {
    let subresource = |resource: &str, name: &str| {
        json!({
            "name": format!("{resource}/{name}"), "singularName": "", "namespaced": true, "kind": "",
            "verbs": [if is_read(name) { "get" } else { "update" }],
        })
    };
    let instance = INSTANCE.iter().map(|name| subresource("virtualmachineinstances", name));
    let machine = MACHINE.iter().map(|name| subresource("virtualmachines", name));
    let expand =
        json!({"name": "expand-vm-spec", "singularName": "", "namespaced": true, "kind": "", "verbs": ["update"]});
    let resources: Vec<_> = std::iter::once(expand).chain(instance).chain(machine).collect();
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{version}"), "resources": resources,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: SUB-1
    #[test]
    fn clients_find_group_versions_and_subresources() {
        let group = document(Document::Group);
        assert_eq!((&group["kind"], &group["preferredVersion"]["version"]), (&json!("APIGroup"), &json!("v1")));
        let list = document(Document::Resources("v1alpha3"));
        assert_eq!(list["groupVersion"], "subresources.kubevirt.io/v1alpha3");
        let names: Vec<_> = list["resources"].as_array().unwrap().iter().map(|found| &found["name"]).collect();
        for name in ["virtualmachineinstances/vnc", "virtualmachines/start", "expand-vm-spec"] {
            assert!(names.contains(&&json!(name)), "{name}");
        }
        assert_eq!(document(Document::Version)["gitVersion"], "v1.7.0");
    }
}
