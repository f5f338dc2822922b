//! OpenAPI documents of the subresource API. The API server merges them into its own and logs an error for an API without any.

use serde_json::{Map, Value, json};

use super::names::{INSTANCE, MACHINE, is_read};
use super::path::{GROUP, VERSIONS};

/// OpenAPI 2: every version in one document.
pub(super) fn v2() -> Value {
    let paths: Map<_, _> = VERSIONS.iter().flat_map(|version| paths(version, v2_parameter)).collect();
    json!({"swagger": "2.0", "info": info(), "paths": paths})
}

/// OpenAPI 3: where the document of each version is. It changes with the release alone.
pub(super) fn v3() -> Value {
    let place = |version: &&str| {
        let path = format!("apis/{GROUP}/{version}");
        let url = format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"));
        (path, json!({"serverRelativeURL": url}))
    };
    let paths: Map<_, _> = VERSIONS.iter().map(place).collect();
    json!({"paths": paths})
}

/// OpenAPI 3 of one version.
pub(super) fn v3_of(version: &str) -> Value {
    let paths: Map<_, _> = paths(version, v3_parameter).collect();
    json!({"openapi": "3.0.0", "info": info(), "paths": paths})
}

fn info() -> Value {
    json!({"title": GROUP, "version": env!("CARGO_PKG_VERSION")})
}

fn v2_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "type": "string"})
}

fn v3_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
}

fn paths(version: &str, parameter: fn(&str) -> Value) -> impl Iterator<Item = (String, Value)> {
    let prefix = format!("/apis/{GROUP}/{version}/namespaces/{{namespace}}");
    let instance = INSTANCE.iter().map(|name| ("virtualmachineinstances", *name));
    let machine = MACHINE.iter().map(|name| ("virtualmachines", *name));
    let of_version = version.to_owned();
    let of_objects = instance.chain(machine).map({
        let prefix = prefix.clone();
        move |(resource, name)| {
            let verb = if is_read(name) { "get" } else { "put" };
            let parameters = [parameter("namespace"), parameter("name")];
            let item = json!({"parameters": parameters, verb: operation(verb, &of_version, resource, name)});
            (format!("{prefix}/{resource}/{{name}}/{name}"), item)
        }
    });
    let expand = operation("put", version, "", "expand-vm-spec");
    let expand = json!({"parameters": [parameter("namespace")], "put": expand});
    of_objects.chain([(format!("{prefix}/expand-vm-spec"), expand)])
}

fn operation(verb: &str, version: &str, resource: &str, name: &str) -> Value {
    json!({
        "operationId": format!("{verb}-{version}-{resource}-{}", name.replace('/', "-")),
        "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    // spec: SUB-20
    #[test]
    fn openapi_of_both_versions_names_each_subresource_of_discovery() {
        let path =
            "/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances/{name}/vnc/screenshot";
        let both = v2();
        assert_eq!(
            (&both["swagger"], &both["paths"][path]["parameters"][1]["type"]),
            (&json!("2.0"), &json!("string"))
        );
        for version in VERSIONS {
            let place = &v3()["paths"][format!("apis/subresources.kubevirt.io/{version}")]["serverRelativeURL"];
            let url = format!("/openapi/v3/apis/subresources.kubevirt.io/{version}?hash=");
            assert!(place.as_str().unwrap().starts_with(&url), "{place}");
            let document = v3_of(version);
            let paths = document["paths"].as_object().unwrap();
            assert_eq!(paths.len(), INSTANCE.len() + MACHINE.len() + 1);
            assert!(paths.keys().all(|path| path.starts_with(&format!("/apis/{GROUP}/{version}/"))));
        }
        let ids = both["paths"].as_object().unwrap().values().flat_map(|item| [&item["get"], &item["put"]]);
        let ids: Vec<_> = ids.filter_map(|operation| operation["operationId"].as_str()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 2 * (INSTANCE.len() + MACHINE.len() + 1), "{ids:?}");
    }
}
