//! Layouts made here in all shapes, honest and not, imported and opened.

use std::io::Read;

use sha2::{Digest as _, Sha256};

use super::*;

/// One entry of a layer.
enum Item<'a> {
    File(&'a str, &'a [u8]),
    Symlink(&'a str, &'a str),
}

fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o440);
        match item {
            Item::File(name, content) => {
                // Straight into the header: the builder refuses names that an attacker would not.
                header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_size(content.len() as u64);
                header.set_cksum();
                archive.append(&header, *content).unwrap();
            }
            Item::Symlink(name, to) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                archive.append_link(&mut header, name, to).unwrap();
            }
        }
    }
    archive.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
    let mut packed = Vec::new();
    encoder.read_to_end(&mut packed).unwrap();
    packed
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

struct Layout {
    folder: tempfile::TempDir,
}

impl Layout {
    fn new(name: &str, layers: &[Vec<u8>]) -> Self {
        let layout = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(layout.path().join("blobs/sha256")).unwrap();
        fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let config = layout.blob(b"{}", "application/vnd.oci.image.config.v1+json");
        let layers: Vec<_> =
            layers.iter().map(|bytes| layout.blob(bytes, "application/vnd.oci.image.layer.v1.tar")).collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers,
            "mediaType": "application/vnd.oci.image.manifest.v1+json"});
        let mut descriptor = layout.blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
        descriptor["annotations"] = serde_json::json!({ REF_NAME: name });
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor]});
        fs::write(layout.path().join("index.json"), index.to_string()).unwrap();
        layout
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn blob(&self, bytes: &[u8], media_type: &str) -> serde_json::Value {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(self.path().join("blobs/sha256").join(&hex), bytes).unwrap();
        serde_json::json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    }

    fn archive(&self) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir_all(".", self.path()).unwrap();
        archive.into_inner().unwrap()
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("images")).unwrap();
    (folder, store)
}

const NAME: &str = "registry.example/disks/tiny:1";

#[test]
fn a_disk_comes_out_of_plain_gzip_and_zstd_layers() {
    let plain = layer(&[Item::File("disk/root.img", b"the disk")]);
    for packed in [plain.clone(), gzip(&plain), zstd(&plain)] {
        let (_folder, store) = store();
        store.import(Layout::new(NAME, &[packed]).path(), None).unwrap();
        let path = store.resolve(NAME, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"the disk");
        assert_eq!(
            store.resolve(NAME, Some("/disk/root.img")).map(|path| fs::read(path).unwrap()).unwrap(),
            b"the disk"
        );
        // Taken out once.
        let first = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(fs::metadata(store.resolve(NAME, None).unwrap()).unwrap().modified().unwrap(), first);
    }
}

#[test]
fn archives_are_read_as_folders_are() {
    let layout = Layout::new(NAME, &[layer(&[Item::File("disk/root.img", b"x")])]);
    let folder = tempfile::tempdir().unwrap();
    for bytes in [layout.archive(), gzip(&layout.archive())] {
        let path = folder.path().join("image.tar");
        fs::write(&path, bytes).unwrap();
        let (_folder, store) = store();
        let images = store.import(&path, None).unwrap();
        assert_eq!(images[0].names, BTreeSet::from([NAME.to_owned()]));
        assert_eq!(store.list().unwrap(), images);
        assert!(store.resolve(&format!("registry.example/disks/tiny@{}", images[0].digest), None).is_ok());
    }
}

#[test]
fn upper_layers_hide_and_replace_what_is_below() {
    let below = layer(&[Item::File("disk/old.img", b"old"), Item::File("boot/vmlinuz-1", b"kernel 1")]);
    let above = layer(&[
        Item::File("disk/.wh.old.img", b""),
        Item::File("disk/new.img", b"new"),
        Item::Symlink("boot/vmlinuz", "../boot/vmlinuz-1"),
    ]);
    let (_folder, store) = store();
    store.import(Layout::new(NAME, &[below, above]).path(), None).unwrap();
    assert_eq!(fs::read(store.resolve(NAME, None).unwrap()).unwrap(), b"new");
    assert_eq!(fs::read(store.resolve(NAME, Some("boot/vmlinuz")).unwrap()).unwrap(), b"kernel 1");
    let gone = store.resolve(NAME, Some("/disk/old.img")).unwrap_err().to_string();
    assert_eq!(gone, format!("image {NAME:?}: holds no file /disk/old.img"));
}

#[test]
fn a_name_moves_to_the_newest_import_and_can_be_given() {
    let (_folder, store) = store();
    for content in [&b"one"[..], b"two"] {
        store.import(Layout::new(NAME, &[layer(&[Item::File("disk/a", content)])]).path(), None).unwrap();
    }
    assert_eq!(fs::read(store.resolve(NAME, None).unwrap()).unwrap(), b"two");
    let unnamed = Layout::new("latest", &[layer(&[Item::File("disk/a", b"three")])]);
    store.import(unnamed.path(), Some("mine")).unwrap();
    assert_eq!(fs::read(store.resolve("mine:latest", None).unwrap()).unwrap(), b"three");
}

#[test]
fn one_name_is_given_to_one_image_alone() {
    let (_folder, store) = store();
    let [one, two] = [&b"one"[..], b"two"].map(|content| Layout::new(NAME, &[layer(&[Item::File("disk/a", content)])]));
    let mut manifests = Vec::new();
    for layout in [&one, &two] {
        let index: ImageIndex = serde_json::from_slice(&fs::read(layout.path().join("index.json")).unwrap()).unwrap();
        manifests.extend(index.manifests().clone());
    }
    for entry in fs::read_dir(two.path().join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), one.path().join("blobs/sha256").join(entry.file_name())).unwrap();
    }
    let write = |manifests: &[Descriptor]| {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(one.path().join("index.json"), index.to_string()).unwrap();
    };
    write(&manifests);
    let error = store.import(one.path(), Some("mine")).unwrap_err().to_string();
    assert!(error.ends_with("holds 2 images: \"mine\" can be the name of one alone"), "{error}");
    assert_eq!(store.list().unwrap(), []);
    // An archive of an image with two tags lists it twice.
    write(&[manifests[0].clone(), manifests[0].clone()]);
    store.import(one.path(), Some("mine")).unwrap();
    assert_eq!(fs::read(store.resolve("mine", None).unwrap()).unwrap(), b"one");
}

#[test]
fn a_short_name_is_enough_until_it_is_ambiguous() {
    let (_folder, store) = store();
    store.import(Layout::new(NAME, &[layer(&[Item::File("disk/a", b"one")])]).path(), None).unwrap();
    assert_eq!(fs::read(store.resolve("disks/tiny:1", None).unwrap()).unwrap(), b"one");
    let other = Layout::new("other.example/disks/tiny:1", &[layer(&[Item::File("disk/a", b"two")])]);
    store.import(other.path(), None).unwrap();
    let error = store.resolve("disks/tiny:1", None).unwrap_err().to_string();
    assert!(error.contains("registry.example/disks/tiny:1, other.example/disks/tiny:1"), "{error}");
}

#[test]
fn what_is_not_there_is_named() {
    let (_folder, store) = store();
    assert!(store.resolve("none", None).unwrap_err().to_string().starts_with("image \"none\" is not in"));
    let two = layer(&[Item::File("disk/a", b"1"), Item::File("disk/b", b"2")]);
    store.import(Layout::new(NAME, &[two]).path(), None).unwrap();
    let error = store.resolve(NAME, None).unwrap_err().to_string();
    assert!(error.ends_with("/disk should hold one file and holds disk/a, disk/b"), "{error}");
    let error = store.import(tempfile::tempdir().unwrap().path(), None).unwrap_err().to_string();
    assert!(error.contains("is no OCI layout"), "{error}");
}

#[test]
fn a_changed_blob_is_refused_coming_in_and_going_out() {
    let content = layer(&[Item::File("disk/a", b"good")]);
    let layout = Layout::new(NAME, std::slice::from_ref(&content));
    let hex: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let (_folder, store) = store();
    store.import(layout.path(), None).unwrap();
    let evil = layer(&[Item::File("disk/a", b"evil")]);
    fs::write(store.folder.join("blobs/sha256").join(&hex), &evil).unwrap();
    assert!(matches!(store.resolve(NAME, None), Err(ImageError::Digest { .. })));
    let (_other, fresh) = self::store();
    fs::write(layout.path().join("blobs/sha256").join(&hex), &evil).unwrap();
    assert!(matches!(fresh.import(layout.path(), None), Err(ImageError::Digest { .. })));
    assert!(!fresh.folder.join("blobs/sha256").join(&hex).exists());
    assert!(fresh.list().unwrap().is_empty());
}

#[test]
fn a_missing_layer_is_found_at_import() {
    let content = layer(&[Item::File("disk/a", b"x")]);
    let layout = Layout::new(NAME, std::slice::from_ref(&content));
    let hex: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::remove_file(layout.path().join("blobs/sha256").join(hex)).unwrap();
    let (_folder, store) = store();
    assert!(store.import(layout.path(), None).unwrap_err().to_string().starts_with("cannot find layer"));
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn names_of_an_archive_never_leave_the_store() {
    let sly = layer(&[
        Item::File("../../../disk/a", b"sly"),
        Item::File("disk/../../etc/passwd", b"no"),
        Item::Symlink("disk/link", "/etc/passwd"),
    ]);
    let (folder, store) = store();
    store.import(Layout::new(NAME, &[sly]).path(), None).unwrap();
    assert_eq!(fs::read(store.resolve(NAME, Some("disk/a")).unwrap()).unwrap(), b"sly");
    // A link leads to the image's own file.
    assert_eq!(fs::read(store.resolve(NAME, Some("disk/link")).unwrap()).unwrap(), b"no");
    let outside: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside, ["images"]);
}

#[test]
fn zeroes_become_holes() {
    use std::os::unix::fs::MetadataExt;
    let mut content = vec![0; 8 << 20];
    content.extend(b"end");
    let (_folder, store) = store();
    store.import(Layout::new(NAME, &[gzip(&layer(&[Item::File("disk/a", &content)]))]).path(), None).unwrap();
    let path = store.resolve(NAME, None).unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);
    assert!(fs::metadata(path).unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn a_sparse_entry_is_refused_before_its_zeroes_are_read() {
    let mut header = tar::Header::new_gnu();
    header.set_path("disk/disk.img").unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(0);
    let sparse = header.as_gnu_mut().unwrap();
    // A size as the base-256 numbers of GNU tar write it: 4 EiB of hole.
    sparse.realsize = [0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0];
    sparse.sparse[0].offset = sparse.realsize;
    sparse.sparse[0].numbytes = *b"00000000000\0";
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, &[][..]).unwrap();
    let layout = Layout::new("localhost/sparse:1", &[archive.into_inner().unwrap()]);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.import(layout.path(), None).unwrap();
    let error = store.resolve("localhost/sparse:1", None).unwrap_err().to_string();
    assert!(error.contains("/disk/disk.img is a sparse entry of an archive"), "{error}");
}
