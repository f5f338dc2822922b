//! Names that CNI and Kubernetes give to containers, networks and objects.

use std::fmt;
use std::str::FromStr;

use crate::Invalid;

const CNI_RULE: &str = "must start with a letter or digit and hold only letters, digits, '_', '.' and '-'";

/// Whether `text` matches `[A-Za-z0-9][A-Za-z0-9_.-]*`, the CNI specification's rule for ids and network names.
fn is_cni_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

macro_rules! cni_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as the CNI documents and variables write it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                if is_cni_name(text) { Ok(Self(text.to_owned())) } else { Err(Invalid::new($what, text, CNI_RULE)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        crate::serde_as_text!($name);
    };
}

cni_name!(
    /// A container id as CNI passes it in CNI_CONTAINERID.
    ContainerId,
    "container ID"
);
cni_name!(
    /// The name of a CNI network.
    NetworkName,
    "network name"
);

/// Namespace and name of a Kubernetes object; both are DNS labels or subdomains (RFC 1123).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    namespace: String,
    name: String,
}

impl ObjectKey {
    /// Checks and joins the two parts.
    ///
    /// # Errors
    /// When the namespace is no RFC 1123 label or the name no RFC 1123 subdomain.
    pub fn new(namespace: &str, name: &str) -> Result<Self, Invalid> {
        if namespace.len() > 63 || !is_dns_part(namespace) {
            return Err(Invalid::new(
                "namespace",
                namespace,
                "must be an RFC 1123 label: at most 63 lower-case letters, digits and '-'",
            ));
        }
        if name.len() > 253 || !name.split('.').all(is_dns_part) {
            return Err(Invalid::new(
                "name",
                name,
                "must be an RFC 1123 subdomain: lower-case letters, digits, '-' and '.'",
            ));
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The part before the slash.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One part of a name between dots. Kubernetes bounds a subdomain as a whole, not its parts.
fn is_dns_part(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cni_names_follow_the_specification() {
        assert!("cbr0_a.b-c".parse::<NetworkName>().is_ok());
        for text in ["", "-a", ".a", "a/b", "a b", "ä"] {
            assert!(text.parse::<ContainerId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn object_keys_are_dns_names() {
        assert_eq!(ObjectKey::new("default", "web.1").unwrap().to_string(), "default/web.1");
        for (namespace, name) in
            [("", "a"), ("a.b", "a"), ("default", "A"), ("default", "a..b"), ("default", "../x"), ("default", "-a")]
        {
            assert!(ObjectKey::new(namespace, name).is_err(), "{namespace}/{name}");
        }
        assert!(ObjectKey::new("default", &"a".repeat(253)).is_ok());
        assert!(ObjectKey::new("default", &"a".repeat(254)).is_err());
        assert!(ObjectKey::new(&"a".repeat(64), "a").is_err());
    }
}
