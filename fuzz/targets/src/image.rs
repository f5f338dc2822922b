//! Target `image`: an image that a user hands to `tapvisor image import`, and the file that a VM takes out of it. An
//! input's first byte says which part of an OCI layout the rest is: everything around it is then right.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use images::{ImageError, Reader, Store};
use locks::Locks;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const NAME: &str = "localhost/fuzz:1";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// What the input is: a whole layout as an archive, layers, a manifest (any other number), the layout's index.
const ARCHIVE: u8 = 0;
const LAYERS: u8 = 1;
const INDEX: u8 = 3;
/// Separates two layers; an archive is a multiple of 512 bytes, so it may stand anywhere.
const BETWEEN: &[u8] = b"=next layer=";
/// Longest refusal: names of files are cut where they are an archive's.
const LONGEST_REFUSAL_BYTES: usize = 4096;

/// Reads an input and panics when a promise is broken.
pub fn check(input: &[u8]) {
    let Some((part, rest)) = input.split_first() else { return };
    let sandbox =
        tempfile::Builder::new().prefix("tapvisor-image-").tempdir_in(memory()).expect("a folder can be made");
    let from = sandbox.path().join("from");
    lay_out(*part, rest, &from).expect("a layout can be written");
    let store = Store::open(sandbox.path().join("store"), Locks::new(sandbox.path().join("locks")))
        .expect("an empty store can be made");
    let imported = store.import(&from, Some(NAME), None);
    match &imported {
        Ok(images) => {
            let listed = store.list().expect("what was imported can be listed");
            assert!(images.iter().all(|image| listed.iter().any(|other| other.digest == image.digest)));
        }
        Err(error) => verify_refusal(error),
    }
    for path in [None, Some("boot/vmlinuz"), Some("/disk/../disk/disk.img")] {
        match store.resolve(NAME, path, Reader::Root) {
            Ok(file) => verify_file(&file, sandbox.path()),
            Err(error) => verify_refusal(&error),
        }
    }
    only_the_store_is_written(sandbox.path());
}

/// In memory: thousands of stores a second are made and removed.
fn memory() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() }
}

fn lay_out(part: u8, rest: &[u8], to: &Path) -> std::io::Result<()> {
    let part = part % 4;
    if part == ARCHIVE {
        return fs::write(to, rest);
    }
    fs::create_dir_all(to.join("blobs/sha256"))?;
    if part == INDEX {
        return fs::write(to.join("index.json"), rest);
    }
    let blob = |bytes: &[u8], media_type: &str| -> std::io::Result<Value> {
        let hex = Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        fs::write(to.join("blobs/sha256").join(&hex), bytes)?;
        Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()}))
    };
    let manifest = if part == LAYERS {
        let layers = split(rest).map(|layer| blob(layer, LAYER)).collect::<Result<Vec<_>, _>>()?;
        let config = blob(b"{}", "application/vnd.oci.image.config.v1+json")?;
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).to_string().into_bytes()
    } else {
        rest.to_vec()
    };
    let descriptor = blob(&manifest, MANIFEST)?;
    fs::write(to.join("index.json"), json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string())
}

fn split(layers: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(layers);
    std::iter::from_fn(move || {
        let now = rest?;
        let at = now.windows(BETWEEN.len()).position(|bytes| bytes == BETWEEN);
        rest = at.map(|at| &now[at + BETWEEN.len()..]);
        Some(at.map_or(now, |at| &now[..at]))
    })
    .take(8)
}

fn verify_refusal(error: &ImageError) {
    crate::assert_short(&error.to_string(), LONGEST_REFUSAL_BYTES);
}

/// A file that was taken out is a plain file of the store's own, whatever the archive called it.
fn verify_file(file: &Path, sandbox: &Path) {
    assert!(file.starts_with(sandbox.join("store/files")), "{}", file.display());
    let kind = fs::symlink_metadata(file).expect("a file that was taken out is there");
    assert!(kind.is_file(), "{} is no plain file", file.display());
}

/// Nothing was written but where the store writes, and nothing half-done is left.
fn only_the_store_is_written(sandbox: &Path) {
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names(sandbox), ["from", "locks", "store"].map(str::to_owned).into());
    let own = ["blobs", "files", "incoming", "index.json", "oci-layout"].map(str::to_owned).into();
    let unexpected: Vec<_> = names(&sandbox.join("store")).difference(&own).cloned().collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    assert!(names(&sandbox.join("store/incoming")).is_empty() && names(&sandbox.join("locks")).is_empty());
    for name in names(&sandbox.join("store/blobs/sha256")) {
        assert!(name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name} is left");
    }
}

/// Honest layers, plain and with links and whiteouts.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let disk = archive(&[("disk/disk.img", tar::EntryType::Regular, "", b"0123456789")]);
    let kernel = archive(&[
        ("boot/vmlinuz", tar::EntryType::Symlink, "kernel", b""),
        ("boot/kernel", tar::EntryType::Regular, "", b"kernel"),
        ("boot/.wh.old", tar::EntryType::Regular, "", b""),
    ]);
    let layers = |parts: &[&[u8]]| [&[1][..], &parts.join(BETWEEN)].concat();
    let index = br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":2}]}"#;
    let manifest = br#"{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:00","size":2},"layers":[]}"#;
    vec![
        layers(&[&disk]),
        layers(&[&kernel, &disk]),
        [&[2][..], manifest].concat(),
        [&[3][..], index].concat(),
        [&[0][..], &archive(&[("index.json", tar::EntryType::Regular, "", index)])].concat(),
    ]
}

fn archive(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).expect("a short name fits");
        }
        header.set_path(name).expect("a short name fits");
        header.set_cksum();
        archive.append(&header, *content).expect("a buffer can be written");
    }
    let mut bytes = archive.into_inner().expect("a buffer can be written");
    bytes.flush().expect("a buffer can be flushed");
    bytes
}
