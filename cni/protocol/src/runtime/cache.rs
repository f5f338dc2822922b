//! The cache: one file per attachment, in libcni's own format (`kind: cniCacheV1`), so that either can read the other's.
//!
//! A file is written before the first plugin runs, without a result, and again with it. It appears whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use terms::{ContainerId, IfName, NetworkName};

use super::{Attachment, ConfigError, ConfigList};
use crate::spec::{CniResult, ResultError};

const KIND: &str = "cniCacheV1";

/// Files begun by this process: each has a name of its own, so that threads do not write into one another's.
static WRITES: AtomicU64 = AtomicU64::new(0);

/// An attachment that was made, or at least begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Cached {
    /// The network as it was configured then.
    pub list: ConfigList,
    /// The attachment whose ADD began.
    pub attachment: Attachment,
    /// The result document of ADD; `None` when ADD never finished.
    pub result: Option<Value>,
    /// How many plugins answered ADD with a result, where ADD failed and undoing it failed too. Without the number, all may have.
    pub added: Option<usize>,
}

/// Why a cache file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the message says what each field is")]
pub enum CacheError {
    /// A cache file or folder could not be made, read, written or removed.
    #[error("CNI cache {path}")]
    Io {
        /// The file or folder that was accessed.
        path: PathBuf,
        /// The error of the system call.
        source: std::io::Error,
    },
    /// The file is not a cache entry that libcni or this program writes.
    #[error("CNI cache {path}: {reason}")]
    Shape {
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration in it is refused.
    #[error("CNI cache {path}")]
    Config { path: PathBuf, source: ConfigError },
}

impl Cached {
    /// The result of ADD.
    ///
    /// # Errors
    /// When the document is no result.
    pub fn result(&self) -> Result<Option<CniResult>, ResultError> {
        let version = self.list.version();
        self.result.as_ref().map(|document| CniResult::from_document(document, version)).transpose()
    }
}

/// libcni's `cachedInfo`, and keys of our own for what libcni has no field for.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    kind: String,
    container_id: ContainerId,
    #[serde(with = "base64")]
    config: Vec<u8>,
    if_name: IfName,
    network_name: NetworkName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cni_args: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    capability_args: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, rename = "tapvisor.io/cni-args", skip_serializing_if = "Map::is_empty")]
    args_cni: Map<String, Value>,
    #[serde(default, rename = "tapvisor.io/added", skip_serializing_if = "Option::is_none")]
    added: Option<usize>,
}

/// The folder of the files.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    results: PathBuf,
}

impl Cache {
    pub(super) fn new(dir: &Path) -> Self {
        Self { results: dir.join("results") }
    }

    fn path(&self, network: &NetworkName, container_id: &ContainerId, if_name: &IfName) -> PathBuf {
        self.results.join(format!("{network}-{container_id}-{if_name}"))
    }

    fn path_of(&self, network: &NetworkName, attachment: &Attachment) -> PathBuf {
        self.path(network, &attachment.container_id, &attachment.if_name)
    }

    /// Writes a temporary file and renames it, never in place: a reader sees the old file or the new one.
    pub(super) fn write(&self, cached: &Cached) -> Result<(), CacheError> {
        let path = self.path_of(cached.list.name(), &cached.attachment);
        let text = serde_json::to_vec(&Entry::of(cached))
            .map_err(|error| CacheError::Shape { path: path.clone(), reason: error.to_string() })?;
        let temporary =
            temporary_path(&path, &format!("{}-{}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&self.results)
            .and_then(|()| write_new(&temporary, &text))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|source| {
                // The failure is the news; what cannot be removed now goes with the attachment.
                drop(std::fs::remove_file(&temporary));
                CacheError::Io { path, source }
            })
    }

    pub(super) fn read(
        &self,
        network: &NetworkName,
        container_id: &ContainerId,
        if_name: &IfName,
    ) -> Result<Option<Cached>, CacheError> {
        let path = self.path(network, container_id, if_name);
        match std::fs::read(&path) {
            Ok(text) => parse(&path, &text).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CacheError::Io { path, source }),
        }
    }

    pub(super) fn read_all(&self) -> Result<Vec<Result<Cached, CacheError>>, CacheError> {
        let failed = |source| CacheError::Io { path: self.results.clone(), source };
        let entries = match std::fs::read_dir(&self.results) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut paths = paths.map_err(failed)?;
        paths.retain(|path| !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")));
        paths.sort();
        let read = |path: PathBuf| match std::fs::read(&path) {
            Ok(text) => parse(&path, &text),
            Err(source) => Err(CacheError::Io { path, source }),
        };
        Ok(paths.into_iter().map(read).collect())
    }

    pub(super) fn remove(&self, network: &NetworkName, attachment: &Attachment) -> Result<(), CacheError> {
        let path = self.path_of(network, attachment);
        self.remove_unfinished(&path);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CacheError::Io { path, source: error }),
            _ => Ok(()),
        }
    }
}

impl Cache {
    /// What a runtime that was killed while it wrote has left.
    fn remove_unfinished(&self, path: &Path) {
        let begun = temporary_path(path, "");
        let begun = begun.file_name().unwrap_or_default().as_encoded_bytes();
        for entry in std::fs::read_dir(&self.results).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let rest = name.as_encoded_bytes().strip_prefix(begun);
            if rest.is_some_and(|rest| rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-')) {
                // A file that stays does no harm: the attachment is gone all the same.
                drop(std::fs::remove_file(entry.path()));
            }
        }
    }
}

/// The name under which a file is written before it appears under its own.
fn temporary_path(path: &Path, writer: &str) -> PathBuf {
    path.with_file_name(format!(".{}.{writer}", path.file_name().unwrap_or_default().to_string_lossy()))
}

impl Entry {
    fn of(cached: &Cached) -> Self {
        let Cached { list, attachment, result, added } = cached;
        Self {
            kind: KIND.to_owned(),
            container_id: attachment.container_id.clone(),
            config: list.to_document().to_string().into_bytes(),
            if_name: attachment.if_name.clone(),
            network_name: list.name().clone(),
            netns: attachment.netns.clone(),
            cni_args: attachment.args.clone(),
            capability_args: attachment.capability_args.clone(),
            result: result.clone(),
            args_cni: attachment.cni_args.clone(),
            added: *added,
        }
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Cached, CacheError> {
    let shape = |reason: String| CacheError::Shape { path: path.to_owned(), reason };
    let entry: Entry = serde_json::from_slice(text).map_err(|error| shape(error.to_string()))?;
    if entry.kind != KIND {
        return Err(shape(format!("kind {:?} is not {KIND}", entry.kind)));
    }
    let config = serde_json::from_slice(&entry.config).map_err(|error| shape(format!("config: {error}")))?;
    let list = ConfigList::from_value(config).map_err(|source| CacheError::Config { path: path.to_owned(), source })?;
    let attachment = Attachment {
        container_id: entry.container_id,
        netns: entry.netns,
        if_name: entry.if_name,
        args: entry.cni_args,
        capability_args: entry.capability_args,
        cni_args: entry.args_cni,
    };
    Ok(Cached { list, attachment, result: entry.result.filter(|result| !result.is_null()), added: entry.added })
}

fn write_new(path: &Path, text: &[u8]) -> std::io::Result<()> {
    drop(std::fs::remove_file(path));
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)
}

/// Go writes bytes as RFC 4648 §4 base64 with padding.
mod base64 {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        decode(&text).ok_or_else(|| D::Error::custom("is not base64"))
    }

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for digit in 0..4 {
                let index = (word >> (18 - 6 * digit) & 63) as usize;
                text.push(if digit <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
            }
        }
        text
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let digits = text.trim_end_matches('=');
        if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
            return None;
        }
        let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
        let (mut word, mut bits) = (0_u32, 0_u32);
        for digit in digits.bytes() {
            let value = u32::try_from(ALPHABET.iter().position(|known| *known == digit)?).ok()?;
            word = word << 6 | value;
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                bytes.push(u8::try_from(word >> bits & 0xff).ok()?);
            }
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    fn cached() -> Cached {
        let list =
            json!({"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "a", "capabilities": {"mac": true}}]});
        let mut attachment =
            Attachment::new("c1".parse().unwrap(), Some("/run/netns/a".into()), "eth0".parse().unwrap());
        attachment.args = vec![("A".to_owned(), "1".to_owned())];
        attachment.capability_args = serde_json::from_str(r#"{"mac":"m"}"#).unwrap();
        attachment.cni_args = serde_json::from_str(r#"{"wiring":{}}"#).unwrap();
        Cached {
            list: ConfigList::from_value(list).unwrap(),
            attachment,
            result: Some(json!({"ips": []})),
            added: None,
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        cache.write(&cached()).unwrap();
        let mode = std::fs::metadata(dir.path().join("results/net-c1-eth0")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(cache.read_all().unwrap().remove(0).unwrap(), cached());
        cache.remove(cached().list.name(), &cached().attachment).unwrap();
        cache.remove(cached().list.name(), &cached().attachment).unwrap();
        assert!(cache.read_all().unwrap().is_empty());
    }

    #[test]
    fn a_file_of_libcni_is_read() {
        let path = Path::new("net-c1-eth0");
        let text = format!(
            r#"{{"kind":"cniCacheV1","containerId":"c1","config":"{}","ifName":"eth0","networkName":"net",
                "netns":"/run/netns/a","cniArgs":[["A","1"]],"capabilityArgs":{{"mac":"m"}},"result":{{"ips":[]}}}}"#,
            base64::encode(br#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"a"}]}"#)
        );
        let read = parse(path, text.as_bytes()).unwrap();
        assert_eq!((read.attachment.args, read.result), (cached().attachment.args, cached().result));
    }

    #[test]
    fn a_corrupt_file_is_one_error_among_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        cache.write(&cached()).unwrap();
        std::fs::write(dir.path().join("results/broken"), "{").unwrap();
        let all = cache.read_all().unwrap();
        assert_eq!((all.len(), all.iter().filter(|entry| entry.is_err()).count()), (2, 1));
    }

    #[test]
    fn base64_follows_the_vectors_of_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, coded) in vectors {
            assert_eq!(base64::encode(plain.as_bytes()), coded);
            assert_eq!(base64::decode(coded).unwrap(), plain.as_bytes());
        }
        for bad in ["Zg", "Zg=", "Z===", "Zm9v!A==", "Zg==Zg=="] {
            assert_eq!(base64::decode(bad), None, "{bad}");
        }
    }
}
