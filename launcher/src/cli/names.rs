//! How a VM is named on the command line.

use terms::ObjectKey;

use super::failure::{Exit, Failure};

/// `NAME`, `NAMESPACE/NAME`, either with `vm/` before it. Without a namespace it is `default`.
pub(crate) fn vm(text: &str) -> Result<ObjectKey, Failure> {
    let named = text.strip_prefix("vm/").unwrap_or(text);
    let (namespace, name) = named.split_once('/').unwrap_or((api::metadata::DEFAULT_NAMESPACE, named));
    if text.starts_with("svc/") {
        return Err(Failure::new(Exit::Usage, format!("{text:?} names a Service, not a VM")));
    }
    ObjectKey::new(namespace, name).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
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
