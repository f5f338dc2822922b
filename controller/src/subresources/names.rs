//! The subresources that there are, for discovery and OpenAPI.

/// Of an instance.
pub(super) const INSTANCE: [&str; 14] = [
    "vnc",
    "vnc/screenshot",
    "console",
    "portforward",
    "pause",
    "unpause",
    "freeze",
    "unfreeze",
    "reset",
    "softreboot",
    "guestosinfo",
    "userlist",
    "filesystemlist",
    "explain",
];

/// Of a machine.
pub(super) const MACHINE: [&str; 6] = ["start", "stop", "restart", "migrate", "expand-spec", "portforward"];

/// Whether a subresource is read, by GET; the others are changes, by PUT.
pub(super) fn is_read(name: &str) -> bool {
    ["vnc", "vnc/screenshot", "console", "portforward", "expand-spec"].contains(&name)
        || ["guestosinfo", "userlist", "filesystemlist", "explain"].contains(&name)
}
