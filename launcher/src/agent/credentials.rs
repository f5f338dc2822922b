//! Access credentials: read from where they are, passed to the guest when they are new or the agent is.

use std::collections::BTreeMap;
use std::time::Instant;

use machine::{AgentUse, FileSet};
use protocol::agent::CredentialsStatus;
use protocol::chain::chain;

use super::channel::AgentError;
use super::guest::Guest;

/// Bytes of all keys of a user, or of a password: what an agent reads in one request, and more than a file of keys has.
const MAX_BYTES: usize = 64 << 10;

/// The credentials of a machine and those that its guest has.
#[derive(Debug)]
pub(super) struct Credentials {
    used: AgentUse,
    passed: Option<Found>,
}

/// SSH keys and passwords by user, as read from the sources.
#[derive(Clone, Default, PartialEq, Eq)]
struct Found {
    keys: BTreeMap<String, Vec<String>>,
    passwords: BTreeMap<String, String>,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (keys, passwords) = (self.keys.keys(), self.passwords.keys());
        f.debug_struct("Found").field("keys", &keys).field("passwords", &passwords).finish()
    }
}

impl Credentials {
    pub(super) fn new(used: AgentUse) -> Self {
        Self { used, passed: None }
    }

    /// Whether there are SSH keys, and passwords.
    pub(super) fn kinds(&self) -> (bool, bool) {
        (!self.used.ssh_keys.is_empty(), !self.used.passwords.is_empty())
    }

    /// Forgets what the guest has: another agent has come.
    pub(super) fn forget(&mut self) {
        self.passed = None;
    }

    /// Passes to the guest what it does not have; `None` when that is nothing.
    ///
    /// # Errors
    /// The agent does not answer. What it refuses is in the status.
    pub(super) fn synchronize(
        &mut self,
        guest: &mut Guest,
        mut deadline: impl FnMut() -> Instant,
    ) -> Result<Option<CredentialsStatus>, AgentError> {
        if self.kinds() == (false, false) {
            return Ok(None);
        }
        let found = match self.read() {
            Ok(found) if self.passed.as_ref() == Some(&found) => return Ok(None),
            Ok(found) => found,
            Err(message) => return Ok(Some(CredentialsStatus { synchronized: false, message })),
        };
        let mut refused = Vec::new();
        for (user, keys) in &found.keys {
            note(user, guest.set_keys(user, keys, deadline()), &mut refused)?;
        }
        for (user, password) in &found.passwords {
            note(user, guest.set_password(user, password.as_bytes(), deadline()), &mut refused)?;
        }
        let synchronized = refused.is_empty();
        self.passed = synchronized.then_some(found);
        Ok(Some(CredentialsStatus { synchronized, message: refused.join("; ") }))
    }

    fn read(&self) -> Result<Found, String> {
        let mut found = Found::default();
        for keys in &self.used.ssh_keys {
            let values = values(&keys.files)?;
            let bytes: usize = values.values().map(String::len).sum();
            if bytes > MAX_BYTES {
                return Err(format!("SSH keys: {bytes} bytes, at most {MAX_BYTES} are passed to a user"));
            }
            let lines: Vec<_> = values.values().flat_map(|value| value.lines()).map(str::trim).collect();
            for user in &keys.users {
                let of_user = found.keys.entry(user.clone()).or_default();
                of_user.extend(lines.iter().filter(|line| !line.is_empty()).map(|line| (*line).to_owned()));
            }
        }
        for source in &self.used.passwords {
            found.passwords.extend(values(source)?);
        }
        Ok(found)
    }
}

/// What an agent refuses is kept, with the user; that it does not answer ends the pass.
fn note(user: &str, passed: Result<(), AgentError>, refused: &mut Vec<String>) -> Result<(), AgentError> {
    match passed {
        Err(error @ AgentError::Refused { .. }) => refused.push(format!("user {user}: {error}")),
        other => other?,
    }
    Ok(())
}

/// The texts of a set, by the names of their files.
fn values(files: &FileSet) -> Result<BTreeMap<String, String>, String> {
    let texts = block::files_of(files).map_err(|error| chain(&error))?.into_iter().map(|(name, bytes)| {
        if bytes.len() > MAX_BYTES {
            return Err(format!("{name}: {} bytes, at most {MAX_BYTES} are passed to a guest", bytes.len()));
        }
        let text = String::from_utf8(bytes).map_err(|_| format!("{name}: no text in UTF-8"))?;
        Ok((name, text))
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use machine::{Content, SshKeys};
    use serde_json::json;

    use super::super::channel::{Channel, now};
    use super::super::fake::honest;
    use super::*;

    fn soon() -> Instant {
        now() + Duration::from_secs(10)
    }

    // spec: AGENT-6
    #[test]
    fn credentials_are_passed_again_when_they_change_or_the_agent_does() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key1"), "ssh-ed25519 A a\n\nssh-ed25519 B b\n").unwrap();
        std::fs::create_dir(folder.path().join("..2026")).unwrap();
        let (seen, calls) = mpsc::channel();
        let (stream, _agent) = honest(move |command, arguments| {
            seen.send(format!("{command} {arguments}")).unwrap();
            json!({"return": {}})
        });
        let passwords = FileSet::Listed([("fedora".to_owned(), Content::Bytes(b"secret".to_vec()))].into());
        let files = FileSet::Folder(folder.path().to_owned());
        let keys = SshKeys { users: vec!["fedora".to_owned()], files };
        let used = AgentUse { probes: false, ssh_keys: vec![keys], passwords: vec![passwords] };
        let (mut credentials, mut guest) = (Credentials::new(used), Guest::new(Channel::new(stream)));
        let done = CredentialsStatus { synchronized: true, message: String::new() };
        assert_eq!(credentials.synchronize(&mut guest, soon), Ok(Some(done.clone())));
        let first: Vec<_> = calls.try_iter().collect();
        assert_eq!(
            first,
            [
                r#"guest-ssh-add-authorized-keys {"keys":["ssh-ed25519 A a","ssh-ed25519 B b"],"reset":true,"username":"fedora"}"#,
                r#"guest-set-user-password {"crypted":false,"password":"c2VjcmV0","username":"fedora"}"#,
            ]
        );
        assert_eq!(credentials.synchronize(&mut guest, soon), Ok(None));
        std::fs::write(folder.path().join("key1"), "ssh-ed25519 C c\n").unwrap();
        assert_eq!(credentials.synchronize(&mut guest, soon), Ok(Some(done.clone())));
        credentials.forget();
        assert_eq!(credentials.synchronize(&mut guest, soon), Ok(Some(done)));
        assert_eq!(calls.try_iter().filter(|call| call.contains("ssh-ed25519 C c")).count(), 2);
    }

    // spec: AGENT-6
    #[test]
    fn what_the_guest_refuses_or_a_folder_lacks_is_in_the_message() {
        let (stream, _agent) = honest(|_, _| json!({"error": {"desc": "user ghost does not exist"}}));
        let mut guest = Guest::new(Channel::new(stream));
        let values = FileSet::Listed([("ghost".to_owned(), Content::Bytes(b"x".to_vec()))].into());
        let with = |source| AgentUse { passwords: vec![source], ..AgentUse::default() };
        let refused = Credentials::new(with(values)).synchronize(&mut guest, soon).unwrap().unwrap();
        assert!(!refused.synchronized && refused.message.contains("user ghost does not exist"), "{refused:?}");
        let none = FileSet::Folder("/nowhere".into());
        let missing = Credentials::new(with(none)).synchronize(&mut guest, soon).unwrap().unwrap();
        assert!(missing.message.starts_with("/nowhere: "), "{missing:?}");
    }
}
