//! What a request asks for, read from its path.

use super::status::{Failure, Kind};

/// The API group.
pub(super) const GROUP: &str = "subresources.kubevirt.io";
/// Its versions; clients use the first, discovery knows both.
pub(super) const VERSIONS: [&str; 2] = ["v1", "v1alpha3"];

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// A document that everyone may read.
    Open(Document),
    /// A subresource of one object.
    Object(Target),
    /// `PUT /namespaces/NAMESPACE/expand-vm-spec`.
    ExpandSpec {
        /// The version in the path.
        version: &'static str,
        /// The namespace.
        namespace: String,
    },
}

/// Documents without an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Document {
    /// `/`
    Root,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group,
    /// `/apis/GROUP/VERSION`
    Resources(&'static str),
    /// `/openapi/v2`
    OpenApi2,
    /// `/openapi/v3`
    OpenApi3,
    /// `/openapi/v3/apis/GROUP/VERSION`
    OpenApi3Of(&'static str),
    /// `/apis/GROUP/VERSION/version`, and `/version`
    Version,
    /// `/healthz`, also below a version
    Healthz,
    /// `/apis/GROUP/VERSION/guestfs`
    Guestfs,
}

/// A subresource of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The version in the path.
    pub(super) version: &'static str,
    /// The object's namespace.
    pub(super) namespace: String,
    /// Which kind of object.
    pub(super) kind: Kind,
    /// The object's name.
    pub(super) name: String,
    /// The subresource and what follows it: `portforward`, `80`, `tcp`.
    pub(super) parts: Vec<String>,
}

impl Target {
    /// The plural resource name, as access rules name it.
    pub(super) fn resource(&self) -> &'static str {
        match self.kind {
            Kind::Machine => "virtualmachines",
            Kind::Instance => "virtualmachineinstances",
        }
    }

    /// The subresource as access rules name it: without the port of a port-forward.
    pub(super) fn subresource(&self) -> String {
        match self.parts.first().map(String::as_str) {
            Some("portforward") => "portforward".to_owned(),
            _ => self.parts.join("/"),
        }
    }
}

/// Reads a path. Names in it are those of Kubernetes objects, which need no escapes.
///
/// # Errors
/// The path leads to nothing.
pub(super) fn route(path: &str) -> Result<Route, Failure> {
    let nothing = || Failure::no_such_path(path);
    let parts: Vec<_> = path.trim_matches('/').split('/').filter(|part| !part.is_empty()).collect();
    let below = match parts.as_slice() {
        [] => return Ok(Route::Open(Document::Root)),
        ["healthz"] => return Ok(Route::Open(Document::Healthz)),
        ["version"] => return Ok(Route::Open(Document::Version)),
        ["openapi", "v2"] => return Ok(Route::Open(Document::OpenApi2)),
        ["openapi", "v3"] => return Ok(Route::Open(Document::OpenApi3)),
        ["openapi", "v3", "apis", GROUP, version] => {
            let version = VERSIONS.into_iter().find(|known| known == version).ok_or_else(nothing)?;
            return Ok(Route::Open(Document::OpenApi3Of(version)));
        }
        ["apis"] => return Ok(Route::Open(Document::Groups)),
        ["apis", GROUP] => return Ok(Route::Open(Document::Group)),
        ["apis", GROUP, below @ ..] => below,
        _ => return Err(nothing()),
    };
    let Some((version, below)) = below.split_first() else { return Err(nothing()) };
    let version = VERSIONS.into_iter().find(|known| known == version).ok_or_else(nothing)?;
    match below {
        [] => Ok(Route::Open(Document::Resources(version))),
        ["version"] => Ok(Route::Open(Document::Version)),
        ["healthz"] => Ok(Route::Open(Document::Healthz)),
        ["guestfs"] => Ok(Route::Open(Document::Guestfs)),
        ["namespaces", namespace, "expand-vm-spec"] => {
            Ok(Route::ExpandSpec { version, namespace: (*namespace).to_owned() })
        }
        ["namespaces", namespace, resource, name, parts @ ..] if !parts.is_empty() => {
            let kind = match *resource {
                "virtualmachines" => Kind::Machine,
                "virtualmachineinstances" => Kind::Instance,
                _ => return Err(nothing()),
            };
            let parts = parts.iter().map(|part| (*part).to_owned()).collect();
            Ok(Route::Object(Target {
                version,
                namespace: (*namespace).to_owned(),
                kind,
                name: (*name).to_owned(),
                parts,
            }))
        }
        _ => Err(nothing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "/apis/subresources.kubevirt.io/v1/namespaces/vms/virtualmachineinstances/web";

    // spec: SUB-1
    #[test]
    fn documents_are_found_at_their_paths() {
        let found = |path: &str| route(path).unwrap();
        assert_eq!(found("/"), Route::Open(Document::Root));
        assert_eq!(found("/apis/subresources.kubevirt.io/"), Route::Open(Document::Group));
        assert_eq!(found("/apis/subresources.kubevirt.io/v1alpha3"), Route::Open(Document::Resources("v1alpha3")));
        assert_eq!(found("/openapi/v3"), Route::Open(Document::OpenApi3));
        let one = found("/openapi/v3/apis/subresources.kubevirt.io/v1");
        assert_eq!(
            (one, found("/openapi/v2")),
            (Route::Open(Document::OpenApi3Of("v1")), Route::Open(Document::OpenApi2))
        );
        assert_eq!(found("/apis/subresources.kubevirt.io/v1/version"), Route::Open(Document::Version));
        assert_eq!(found("/apis/subresources.kubevirt.io/v1/healthz"), Route::Open(Document::Healthz));
        for path in ["/metrics", "/apis/kubevirt.io/v1", "/apis/subresources.kubevirt.io/v2", ONE, "/openapi/v4"] {
            assert_eq!(route(path).unwrap_err().code, 404, "{path}");
        }
    }

    // spec: SUB-2
    #[test]
    fn a_subresource_is_authorized_by_its_path_without_a_port() {
        let target = |rest: &str| match route(&format!("{ONE}/{rest}")) {
            Ok(Route::Object(target)) => target,
            other => panic!("{other:?}"),
        };
        let console = target("console");
        assert_eq!((console.resource(), console.name.as_str()), ("virtualmachineinstances", "web"));
        assert_eq!((console.namespace.as_str(), console.subresource().as_str()), ("vms", "console"));
        assert_eq!(target("portforward/80/tcp").subresource(), "portforward");
        assert_eq!(target("vnc/screenshot").subresource(), "vnc/screenshot");
        let machine = ONE.replace("virtualmachineinstances", "virtualmachines") + "/start";
        assert!(matches!(route(&machine), Ok(Route::Object(Target { kind: Kind::Machine, .. }))));
        assert!(route(&ONE.replace("virtualmachineinstances", "pods")).is_err());
    }
}
