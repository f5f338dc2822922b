//! Layouts made here in all shapes, honest and not, imported and opened.

use std::io::Read;

use sha2::{Digest as _, Sha256};

use super::*;

#[path = "store_limits_tests.rs"]
mod limits;

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
        Self::with_config(name, layers, b"{}")
    }

    fn with_config(name: &str, layers: &[Vec<u8>], config: &[u8]) -> Self {
        let layout = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(layout.path().join("blobs/sha256")).unwrap();
        fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let config = layout.blob(config, "application/vnd.oci.image.config.v1+json");
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
    let store = Store::open(folder.path().join("images"), Locks::new(folder.path().join("locks"))).unwrap();
    (folder, store)
}

const NAME: &str = "registry.example/disks/tiny:1";

#[test]
fn a_disk_comes_out_of_plain_gzip_and_zstd_layers() {
    let plain = layer(&[Item::File("disk/root.img", b"the disk")]);
    for packed in [plain.clone(), gzip(&plain), zstd(&plain)] {
        let (_folder, store) = store();
        store.import(Layout::new(NAME, &[packed]).path(), None, None).unwrap();
        let path = store.resolve(NAME, None, Reader::Root).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"the disk");
        assert_eq!(
            store.resolve(NAME, Some("/disk/root.img"), Reader::Root).map(|path| fs::read(path).unwrap()).unwrap(),
            b"the disk"
        );
        // Taken out once.
        let first = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(fs::metadata(store.resolve(NAME, None, Reader::Root).unwrap()).unwrap().modified().unwrap(), first);
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
        let images = store.import(&path, None, None).unwrap();
        assert_eq!(images[0].names, BTreeSet::from([NAME.to_owned()]));
        assert_eq!(store.list().unwrap(), images);
        assert!(
            store.resolve(&format!("registry.example/disks/tiny@{}", images[0].digest), None, Reader::Root).is_ok()
        );
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
    store.import(Layout::new(NAME, &[below, above]).path(), None, None).unwrap();
    assert_eq!(fs::read(store.resolve(NAME, None, Reader::Root).unwrap()).unwrap(), b"new");
    assert_eq!(fs::read(store.resolve(NAME, Some("boot/vmlinuz"), Reader::Root).unwrap()).unwrap(), b"kernel 1");
    let gone = store.resolve(NAME, Some("/disk/old.img"), Reader::Root).unwrap_err().to_string();
    assert_eq!(gone, format!("image {NAME:?}: holds no file /disk/old.img"));
}

#[test]
fn a_name_moves_to_the_newest_import_and_can_be_given() {
    let (_folder, store) = store();
    for content in [&b"one"[..], b"two"] {
        store.import(Layout::new(NAME, &[layer(&[Item::File("disk/a", content)])]).path(), None, None).unwrap();
    }
    assert_eq!(fs::read(store.resolve(NAME, None, Reader::Root).unwrap()).unwrap(), b"two");
    let unnamed = Layout::new("latest", &[layer(&[Item::File("disk/a", b"three")])]);
    store.import(unnamed.path(), Some("mine"), None).unwrap();
    assert_eq!(fs::read(store.resolve("mine:latest", None, Reader::Root).unwrap()).unwrap(), b"three");
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
    let error = store.import(one.path(), Some("mine"), None).unwrap_err().to_string();
    assert!(error.ends_with("holds 2 images: \"mine\" can be the name of one alone"), "{error}");
    assert_eq!(store.list().unwrap(), []);
    // An archive of an image with two tags lists it twice.
    write(&[manifests[0].clone(), manifests[0].clone()]);
    store.import(one.path(), Some("mine"), None).unwrap();
    assert_eq!(fs::read(store.resolve("mine", None, Reader::Root).unwrap()).unwrap(), b"one");
}

#[test]
fn a_short_name_is_enough_until_it_is_ambiguous() {
    let (_folder, store) = store();
    store.import(Layout::new(NAME, &[layer(&[Item::File("disk/a", b"one")])]).path(), None, None).unwrap();
    assert_eq!(fs::read(store.resolve("disks/tiny:1", None, Reader::Root).unwrap()).unwrap(), b"one");
    let other = Layout::new("other.example/disks/tiny:1", &[layer(&[Item::File("disk/a", b"two")])]);
    store.import(other.path(), None, None).unwrap();
    let error = store.resolve("disks/tiny:1", None, Reader::Root).unwrap_err().to_string();
    assert!(error.contains("registry.example/disks/tiny:1, other.example/disks/tiny:1"), "{error}");
}

#[test]
fn what_is_not_there_is_named() {
    let (_folder, store) = store();
    assert!(store.resolve("none", None, Reader::Root).unwrap_err().to_string().starts_with("image \"none\" is not in"));
    let two = layer(&[Item::File("disk/a", b"1"), Item::File("disk/b", b"2")]);
    store.import(Layout::new(NAME, &[two]).path(), None, None).unwrap();
    let error = store.resolve(NAME, None, Reader::Root).unwrap_err().to_string();
    assert!(error.ends_with("/disk should hold one file and holds disk/a, disk/b"), "{error}");
    let error = store.import(tempfile::tempdir().unwrap().path(), None, None).unwrap_err().to_string();
    assert!(error.contains("is no OCI layout"), "{error}");
}

#[test]
fn a_changed_blob_is_refused_coming_in_and_going_out() {
    let content = layer(&[Item::File("disk/a", b"good")]);
    let layout = Layout::new(NAME, std::slice::from_ref(&content));
    let hex: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let (_folder, store) = store();
    store.import(layout.path(), None, None).unwrap();
    let evil = layer(&[Item::File("disk/a", b"evil")]);
    fs::write(store.folder.join("blobs/sha256").join(&hex), &evil).unwrap();
    assert!(matches!(store.resolve(NAME, None, Reader::Root), Err(ImageError::Digest { .. })));
    let (_other, fresh) = self::store();
    fs::write(layout.path().join("blobs/sha256").join(&hex), &evil).unwrap();
    assert!(matches!(fresh.import(layout.path(), None, None), Err(ImageError::Digest { .. })));
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
    assert!(store.import(layout.path(), None, None).unwrap_err().to_string().starts_with("cannot find layer"));
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
    store.import(Layout::new(NAME, &[sly]).path(), None, None).unwrap();
    assert_eq!(fs::read(store.resolve(NAME, Some("disk/a"), Reader::Root).unwrap()).unwrap(), b"sly");
    // A link leads to the image's own file.
    assert_eq!(fs::read(store.resolve(NAME, Some("disk/link"), Reader::Root).unwrap()).unwrap(), b"no");
    let outside: BTreeSet<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside, BTreeSet::from(["images".into(), "locks".into()]));
}

#[test]
fn zeroes_become_holes() {
    use std::os::unix::fs::MetadataExt;
    let mut content = vec![0; 8 << 20];
    content.extend(b"end");
    let (_folder, store) = store();
    store.import(Layout::new(NAME, &[gzip(&layer(&[Item::File("disk/a", &content)]))]).path(), None, None).unwrap();
    let path = store.resolve(NAME, None, Reader::Root).unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);
    assert!(fs::metadata(path).unwrap().blocks() * 512 < 1 << 20);
}

/// A file of GNU tar's own sparse format, all hole, of a size as its base-256 numbers write it: 4 EiB.
fn four_exbibytes_of_hole() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("disk/disk.img").unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(0);
    let sparse = header.as_gnu_mut().unwrap();
    sparse.realsize = [0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0];
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, &[][..]).unwrap();
    archive.into_inner().unwrap()
}

#[test]
fn a_sparse_entry_of_impossible_size_is_refused() {
    let (_folder, store) = store();
    store.import(Layout::new("localhost/sparse:1", &[four_exbibytes_of_hole()]).path(), None, None).unwrap();
    let error = store.resolve("localhost/sparse:1", None, Reader::Root).unwrap_err().to_string();
    assert!(error.contains("has a sparse entry of more than 16 TiB"), "{error}");
}

// spec: IMG-2
#[test]
fn sparse_files_as_tar_writes_them_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = vec![0; 1 << 20];
    disk[..6].copy_from_slice(b"sparse");
    disk[700_000..700_003].copy_from_slice(b"end");
    fs::create_dir(folder.path().join("disk")).unwrap();
    let file = File::create(folder.path().join("disk/disk.img")).unwrap();
    file.set_len(1 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"sparse", 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 700_000).unwrap();
    drop(file);
    for format in ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"] {
        let archive = folder.path().join("layer.tar");
        let mut tar = std::process::Command::new("tar");
        tar.args(["-S", "-c", "-f"]).arg(&archive).args(["-C".as_ref(), folder.path().as_os_str()]);
        tar.args(if format == "--format=gnu" { vec![format] } else { vec!["--format=posix", format] });
        assert!(tar.arg("disk").status().unwrap().success());
        let content = fs::read(&archive).unwrap();
        assert!(content.len() < 200_000, "{format}: tar kept {} bytes", content.len());
        let (_folder, store) = store();
        store.import(Layout::new(NAME, &[content]).path(), None, None).unwrap();
        assert!(fs::read(store.resolve(NAME, None, Reader::Root).unwrap()).unwrap() == disk, "{format}");
    }
}

// spec: IMG-2
#[test]
fn layers_mean_what_they_mean_to_a_container_runtime() {
    let below =
        layer(&[Item::File("data/old.img", b"old"), Item::Symlink("disk", "/data"), Item::File("boot", b"file")]);
    let above = layer(&[
        Item::File("disk/new.img", b"new"),
        Item::File("data/.wh..wh..opq", b""),
        Item::File("boot/vmlinuz", b"below a file"),
    ]);
    let (_folder, store) = store();
    let error = import_and_resolve(&store, &[below.clone(), above]).unwrap_err().to_string();
    assert!(error.contains("has an entry below a file"), "{error}");
    let above =
        layer(&[Item::File("disk/new.img", b"new"), Item::File("data/.wh..wh..opq", b""), Item::File("boot", b"x")]);
    assert_eq!(import_and_resolve(&store, &[below.clone(), above]).unwrap(), b"new");
    // The only file of the folder is a link to one elsewhere in the image.
    let linked = layer(&[Item::Symlink("data/disk.img", "../images/real.img"), Item::File("images/real.img", b"real")]);
    let hidden = layer(&[Item::File("data/.wh.old.img", b"")]);
    assert_eq!(import_and_resolve(&store, &[below.clone(), hidden, linked]).unwrap(), b"real");
    // A file in the place of the folder.
    let error = import_and_resolve(&store, &[below, layer(&[Item::File("data", b"file")])]).unwrap_err().to_string();
    assert!(error.ends_with("holds no file in /disk"), "{error}");
}

fn import_and_resolve(store: &Store, layers: &[Vec<u8>]) -> Result<Vec<u8>, ImageError> {
    store.import(Layout::new(NAME, layers).path(), None, None)?;
    store.resolve(NAME, None, Reader::Root).map(|path| fs::read(path).unwrap())
}

#[test]
fn a_layer_that_is_no_archive_says_so_without_its_bytes() {
    let (_folder, store) = store();
    let error = import_and_resolve(&store, &[b"QFI\xfb\0\0\0\x03".repeat(200)]).unwrap_err().to_string();
    assert!(error.ends_with("is no tar archive") && error.chars().all(|c| !c.is_control()), "{error:?}");
}

// spec: IMG-3
#[test]
fn an_image_for_another_machine_is_refused_when_it_comes_in() {
    let (_folder, store) = store();
    let content = [layer(&[Item::File("disk/a", b"x")])];
    let other = if std::env::consts::ARCH == "x86_64" { "arm64" } else { "amd64" };
    let config = serde_json::json!({"architecture": other, "os": "linux"}).to_string();
    let layout = Layout::with_config(NAME, &content, config.as_bytes());
    let error = store.import(layout.path(), None, None).unwrap_err().to_string();
    assert!(error.contains(&format!("is for linux/{other}, this machine runs linux/")), "{error}");
    assert_eq!(store.list().unwrap(), []);
    let config = serde_json::json!({"architecture": blob::architecture(), "os": "linux"}).to_string();
    store.import(Layout::with_config(NAME, &content, config.as_bytes()).path(), None, None).unwrap();
}

// spec: IMG-3
#[test]
fn an_image_without_a_name_is_refused_and_takes_none() {
    let (_folder, store) = store();
    store.import(Layout::new(NAME, &[layer(&[Item::File("disk/a", b"one")])]).path(), None, None).unwrap();
    let unnamed = Layout::new("latest", &[layer(&[Item::File("disk/a", b"two")])]);
    let error = store.import(unnamed.path(), None, None).unwrap_err().to_string();
    assert!(error.contains("1 image without a name: `tapvisor image import") && error.contains(" NAME`"), "{error}");
    let names: Vec<_> = store.list().unwrap().into_iter().flat_map(|image| image.names).collect();
    assert_eq!(names, [NAME]);
}

fn blobs(store: &Store) -> usize {
    fs::read_dir(store.folder.join("blobs/sha256")).unwrap().count()
}

// spec: IMG-4
#[test]
fn a_new_import_frees_the_old_image_but_not_what_a_vm_uses() {
    let (_folder, store) = store();
    let import = |content: &[u8], in_use: &InUse| {
        store.import(Layout::new(NAME, &[layer(&[Item::File("disk/a", content)])]).path(), None, Some(in_use)).unwrap();
        store.resolve(NAME, None, Reader::Root).unwrap()
    };
    let one = import(b"one", &InUse::new());
    let count = blobs(&store);
    let two = import(b"two", &InUse::new());
    assert!(!one.exists() && blobs(&store) == count);
    let in_use = InUse::from([(two.clone(), "default/web".to_owned())]);
    let three = import(b"three", &in_use);
    assert!(two.exists() && three.exists() && blobs(&store) == count);
    store.prune(false, &InUse::new()).unwrap();
    assert!(!two.exists() && three.exists());
}

// spec: IMG-4
#[test]
fn images_are_removed_by_name_and_not_while_a_vm_uses_them() {
    let (_folder, store) = store();
    let layout = Layout::new(NAME, &[layer(&[Item::File("disk/a", b"one")])]);
    store.import(layout.path(), None, None).unwrap();
    store.import(layout.path(), Some("mine"), None).unwrap();
    let path = store.resolve(NAME, None, Reader::Root).unwrap();
    let in_use = InUse::from([(path.clone(), "default/web".to_owned())]);
    assert_eq!(store.remove(NAME, &in_use).unwrap().images, [NAME]);
    let error = store.remove("mine", &in_use).unwrap_err().to_string();
    assert_eq!(error, "image \"mine\" is used by default/web: remove that first");
    assert_eq!(store.prune(true, &in_use).unwrap().images, [""; 0]);
    let removed = store.remove("mine", &InUse::new()).unwrap();
    assert_eq!(removed.images, ["mine:latest"]);
    assert!(removed.bytes > 0 && !path.exists() && blobs(&store) == 0);
    assert!(store.remove("mine", &InUse::new()).unwrap_err().to_string().contains("is not in"));
}

// spec: IMG-4
#[test]
fn interrupted_imports_are_swept_and_running_ones_are_not() {
    let (_folder, store) = store();
    let killed = store.folder.join("incoming/0123456789abcdef/blobs/sha256");
    fs::create_dir_all(&killed).unwrap();
    fs::write(killed.join("half"), "x").unwrap();
    let running = Staging::new(&store.folder, &store.locks).unwrap();
    assert!(!killed.exists());
    store.import(Layout::new(NAME, &[layer(&[Item::File("disk/a", b"x")])]).path(), None, None).unwrap();
    store.prune(false, &InUse::new()).unwrap();
    assert!(running.path().exists());
    drop(running);
    assert_eq!(fs::read_dir(store.folder.join("incoming")).unwrap().count(), 0);
}

// spec: IMG-4
#[test]
fn two_imports_at_once_do_not_meet() {
    let (_folder, store) = store();
    let content = vec![7; 4 << 20];
    let layouts: Vec<_> = (0..4)
        .map(|n| Layout::new(&format!("localhost/i{n}:1"), &[layer(&[Item::File("disk/a", &content)])]))
        .collect();
    std::thread::scope(|scope| {
        for layout in &layouts {
            scope.spawn(|| store.import(layout.path(), None, Some(&InUse::new())).unwrap());
        }
    });
    for n in 0..4 {
        store.resolve(&format!("localhost/i{n}:1"), None, Reader::Root).unwrap();
    }
}

// spec: IMG-4
#[test]
fn a_damaged_blob_is_replaced_by_the_next_import() {
    let content = layer(&[Item::File("disk/a", b"good")]);
    let layout = Layout::new(NAME, std::slice::from_ref(&content));
    let (_folder, store) = store();
    store.import(layout.path(), None, None).unwrap();
    for entry in fs::read_dir(store.folder.join("blobs/sha256")).unwrap() {
        fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    assert!(store.list().unwrap()[0].flaw.is_some());
    store.import(layout.path(), None, None).unwrap();
    assert_eq!(fs::read(store.resolve(NAME, None, Reader::Root).unwrap()).unwrap(), b"good");
}

// spec: IMG-5
#[test]
fn a_disk_is_taken_in_as_an_image() {
    let (folder, store) = store();
    let mut content = vec![0; 3 << 20];
    content[1 << 20..][..3].copy_from_slice(b"mid");
    let path = folder.path().join("disk.img");
    fs::write(&path, &content).unwrap();
    assert!(!Store::is_archive(&path).unwrap());
    let image = store.import_disk(&path, "img", "mine", None).unwrap();
    assert_eq!(image.names, BTreeSet::from(["mine:latest".to_owned()]));
    assert!(fs::read(store.resolve("mine", None, Reader::Root).unwrap()).unwrap() == content);
    assert!(fs::read(store.resolve("mine", Some("/disk/disk.img"), Reader::Root).unwrap()).unwrap() == content);
}

// spec: IMG-3
#[test]
fn archives_and_references_of_docker_get_the_hint_that_helps() {
    let (folder, store) = store();
    let archive = layer(&[Item::File("manifest.json", b"[]"), Item::File("0123/layer.tar", b"x")]);
    let path = folder.path().join("saved.tar");
    fs::write(&path, archive).unwrap();
    let error = store.import(&path, None, None).unwrap_err().to_string();
    assert!(error.contains("skopeo copy docker-archive:") && error.contains("oci-archive:"), "{error}");
    let error = store.import(Path::new("docker://debian:12"), None, None).unwrap_err().to_string();
    assert!(error.contains("not pulled: `skopeo copy docker://debian:12 oci-archive:"), "{error}");
    let error = store.resolve("docker://debian:12", None, Reader::Root).unwrap_err().to_string();
    assert!(error.contains("skopeo copy docker://debian:12") && error.contains("image.tar debian:12`"), "{error}");
}

// spec: IMG-4
#[test]
fn links_and_pipes_in_a_layout_are_not_followed() {
    let content = layer(&[Item::File("disk/a", b"x")]);
    let layout = Layout::new(NAME, std::slice::from_ref(&content));
    let (folder, store) = store();
    let secret = folder.path().join("secret");
    fs::write(&secret, "{}").unwrap();
    let index = layout.path().join("index.json");
    let kept = fs::read(&index).unwrap();
    let refused = |what: &str| {
        let error = store.import(layout.path(), None, None).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    fs::remove_file(&index).unwrap();
    std::os::unix::fs::symlink(&secret, &index).unwrap();
    refused("is a link");
    fs::remove_file(&index).unwrap();
    nix::unistd::mkfifo(&index, nix::sys::stat::Mode::S_IRUSR).unwrap();
    refused("is no regular file");
    fs::remove_file(&index).unwrap();
    fs::write(&index, kept).unwrap();
    let all = layout.path().join("blobs");
    fs::rename(&all, folder.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &all).unwrap();
    refused("is a link");
}

// spec: IMG-4
#[test]
fn what_the_store_holds_is_for_those_who_need_it() {
    use std::os::unix::fs::MetadataExt;
    let (_folder, store) = store();
    store.import(Layout::new(NAME, &[layer(&[Item::File("disk/a", b"x")])]).path(), None, None).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let disk = store.resolve(NAME, None, Reader::Root).unwrap();
    let kernel = store.resolve(NAME, Some("disk/a"), Reader::Engine).unwrap();
    assert_eq!((mode(&disk), mode(&kernel)), (0o400, 0o444));
    for (folder, expected) in
        [("", 0o711), ("files", 0o711), ("blobs", 0o700), ("incoming", 0o700), ("index.json", 0o600)]
    {
        assert_eq!(mode(&store.folder.join(folder)), expected, "{folder}");
    }
}
