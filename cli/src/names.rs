//! How a VM is named on the command line.

use terms::ObjectKey;

use super::failure::{Exit, Failure};

/// What a name on the command line is the name of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    /// A VM: `NAME` or `NAMESPACE/NAME`.
    Vm(ObjectKey),
    /// A Service: `svc/` before the name.
    Service(ObjectKey),
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vm(key) => write!(f, "{key}"),
            Self::Service(key) => write!(f, "svc/{key}"),
        }
    }
}

/// A VM, or with `svc/` before it a Service.
pub(crate) fn any(text: &str) -> Result<Named, Failure> {
    match text.strip_prefix("svc/") {
        Some(service) => vm(service).map(Named::Service),
        None => vm(text).map(Named::Vm),
    }
}

/// `NAME`, `NAMESPACE/NAME`, either with `vm/` before it. Without a namespace it is `default`.
pub(crate) fn vm(text: &str) -> Result<ObjectKey, Failure> {
    let named = text.strip_prefix("vm/").unwrap_or(text);
    let (namespace, name) = named.split_once('/').unwrap_or((api::metadata::DEFAULT_NAMESPACE, named));
    if text.starts_with("svc/") {
        return Err(Failure::new(Exit::Usage, format!("{text:?} names a Service, not a VM")));
    }
    ObjectKey::new(namespace, name).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

/// A VM as [`vm`] takes it, in the fewest words.
pub(crate) fn argument(key: &ObjectKey) -> String {
    match key.namespace() {
        api::metadata::DEFAULT_NAMESPACE => key.name().to_owned(),
        _ => key.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_a_vm_of_the_default_namespace() {
        let name = |text| vm(text).map(|key| key.to_string());
        assert_eq!(name("web").unwrap(), "default/web");
        assert_eq!(name("vm/web").unwrap(), "default/web");
        assert_eq!(name("lab/web.1").unwrap(), "lab/web.1");
        assert_eq!(name("vm/lab/web").unwrap(), "lab/web");
        for text in ["", "Web", "a/b/c", "../x", "svc/web"] {
            assert_eq!(name(text).unwrap_err().code, 2, "{text:?}");
        }
    }
}
