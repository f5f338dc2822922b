//! Image references as people write them, made comparable.

/// Completes a reference: without a tag it means `latest`, and a digest makes the tag superfluous.
pub(super) fn normalised(reference: &str) -> String {
    let (name, digest) = reference.split_once('@').map_or((reference, None), |(name, digest)| (name, Some(digest)));
    let tag = name.rfind(':').filter(|at| !name.get(*at..).is_some_and(|rest| rest.contains('/')));
    match (digest, tag) {
        (Some(digest), Some(tag)) => format!("{}@{digest}", name.get(..tag).unwrap_or_default()),
        (Some(digest), None) => format!("{name}@{digest}"),
        (None, Some(_)) => name.to_owned(),
        (None, None) => format!("{name}:latest"),
    }
}

/// Whether `name` is what `short` means when it leaves the registry away, as `debian` means `…/library/debian:latest`.
/// Both are normalised.
pub(super) fn is_short_for(short: &str, name: &str) -> bool {
    let rest = match (registry(short), registry(name)) {
        (None, Some(registry)) => name.get(registry.len() + 1..).unwrap_or_default(),
        _ => return false,
    };
    rest == short || rest.strip_prefix("library/") == Some(short)
}

/// The registry of a name: a first part with a dot or a port, or `localhost`. Any other first part is a folder.
fn registry(name: &str) -> Option<&str> {
    let (first, _) = name.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

/// Whether a name can be shown and written: annotations may hold anything.
pub(super) fn is_printable(name: &str) -> bool {
    name.len() <= 1024 && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// The digest part of a reference that has one.
pub(super) fn digest(reference: &str) -> Option<&str> {
    reference.split_once('@').map(|(_, digest)| digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_completed() {
        for (given, full) in [
            ("debian", "debian:latest"),
            ("disks/fedora:40", "disks/fedora:40"),
            ("registry.example:5000/a/b", "registry.example:5000/a/b:latest"),
            ("registry.example/a:1@sha256:ab", "registry.example/a@sha256:ab"),
            ("registry.example:5000/a@sha256:ab", "registry.example:5000/a@sha256:ab"),
        ] {
            assert_eq!(normalised(given), full);
        }
        assert_eq!(digest("registry.example/a:1@sha256:ab"), Some("sha256:ab"));
    }

    #[test]
    fn a_short_name_means_an_image_of_any_registry() {
        assert!(is_short_for("debian:latest", "registry.example/library/debian:latest"));
        assert!(is_short_for("disks/a:1", "localhost/disks/a:1"));
        assert!(!is_short_for("a:1", "registry.example/disks/a:1"));
        assert!(!is_short_for("other.example/a:1", "registry.example/a:1"));
    }
}
