//! Disks opened and made, and every way they cannot be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use machine::{Bus, CloudInit, FileSet};

use super::*;
use crate::fixtures::machine_for_tests;

fn disk(name: &str, source: DiskSource) -> Disk {
    Disk {
        name: name.into(),
        bus: Bus::Virtio,
        cdrom: false,
        read_only: false,
        serial: None,
        boot_order: None,
        pci: None,
        cache: Cache::None,
        source,
    }
}

fn open(scratch: &Path, disk: Disk) -> Result<OpenDisk, DiskError> {
    let mut machine = machine_for_tests();
    machine.disks = vec![disk];
    open_all(&machine, scratch, Given::new()).map(|mut disks| disks.remove(0))
}

fn refusal(scratch: &Path, path: &Path) -> String {
    open(scratch, disk("root", DiskSource::File { path: path.into(), format: Format::Raw })).unwrap_err().to_string()
}

fn qemu_img(arguments: &[&str], path: &Path) -> String {
    let output = Command::new("qemu-img").args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn file(path: &Path, format: Format) -> Disk {
    disk("root", DiskSource::File { path: path.into(), format })
}

fn empty_qcow2(path: &Path) {
    let create = ["create", "-q", "-f", "qcow2"];
    assert!(Command::new("qemu-img").args(create).arg(path).arg("1T").status().unwrap().success());
}

#[test]
fn a_file_of_odd_size_is_written_through_the_page_cache() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let of = |bytes: u64, read_only: bool| {
        let path = folder.path().join(format!("disk-{bytes}-{read_only}.img"));
        File::create(&path).unwrap().set_len(bytes).unwrap();
        let disk = Disk { read_only, ..file(&path, Format::Raw) };
        open(folder.path(), disk).unwrap().top.direct
    };
    // A file system without direct access says no to all.
    let possible = of(1 << 20, false);
    assert_eq!((of((1 << 20) + 512, false), of((1 << 20) + 512, true)), (false, possible));
}

// spec: DISK-2
#[test]
fn what_a_guest_writes_never_changes_its_disks_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    // The guest's raw disk of 16 MiB begins as a qcow2 image of a tebibyte.
    empty_qcow2(&path);
    File::options().write(true).open(&path).unwrap().set_len(16 << 20).unwrap();
    let opened = open(folder.path(), file(&path, Format::Raw)).unwrap();
    assert_eq!(opened.top.format, Format::Raw);
    let expected = Expected { own: &[], is_format_given: false };
    let warning = examine(&file(&path, Format::Raw), &expected).unwrap().unwrap();
    assert!(warning.contains("begins as a qcow2 image and is used as a raw disk"), "{warning}");
    let given = Expected { is_format_given: true, ..expected };
    assert_eq!(examine(&file(&path, Format::Raw), &given).unwrap(), None);
    assert_eq!(examine(&file(&path, Format::Qcow2), &expected).unwrap(), None);
    assert_eq!(open(folder.path(), file(&path, Format::Qcow2)).unwrap().top.format, Format::Qcow2);
}

// spec: DISK-2
#[test]
fn a_qcow2_disk_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    fs::write(&path, [0; 1024]).unwrap();
    let error = open(folder.path(), file(&path, Format::Qcow2)).unwrap_err().to_string();
    assert!(error.contains("is no qcow2 image") && error.contains("disk-format.root: raw"), "{error}");
}

// spec: DISK-3
#[test]
fn other_formats_and_compressed_files_are_refused_by_their_magic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let expected = Expected { own: &[], is_format_given: false };
    let refused = |what: &str| {
        let error = probe(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("is a {what} image, raw and qcow2 are supported")), "{what}: {error}");
        let error = examine(&file(&path, Format::Raw), &expected).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("disk-format.root: raw says so"), "{what}: {error}");
        fs::remove_file(&path).unwrap();
    };
    for (format, options) in
        [("vmdk", ""), ("vhdx", ""), ("vpc", ""), ("vpc", "subformat=fixed"), ("vdi", ""), ("qed", "")]
    {
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", format]);
        if !options.is_empty() {
            create.args(["-o", options]);
        }
        assert!(create.arg(&path).arg("8M").status().unwrap().success(), "{format}");
        refused(format);
    }
    for (program, magic) in
        [("gzip", &b"\x1f\x8b\x08\0"[..]), ("xz", b"\xfd7zXZ\0"), ("zstd", b"\x28\xb5\x2f\xfd"), ("bzip2", b"BZh9")]
    {
        let mut content = vec![0; 512];
        content[..magic.len()].copy_from_slice(magic);
        fs::write(&path, content).unwrap();
        let error = probe(&path).unwrap_err().to_string();
        assert!(error.ends_with(&format!("is compressed with {program}: unpack it first")), "{error}");
    }
}

#[test]
fn images_that_no_guest_wrote_to_are_probed() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, qcow2) = (folder.path().join("raw.qcow2"), folder.path().join("disk.img"));
    fs::write(&raw, [0; 1024]).unwrap();
    empty_qcow2(&qcow2);
    assert_eq!((probe(&raw).unwrap(), probe(&qcow2).unwrap()), (Format::Raw, Format::Qcow2));
}

#[test]
fn an_empty_disk_of_either_format_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.qcow2");
    make(&mut File::create(&path).unwrap(), 1 << 30, Format::Qcow2).unwrap();
    let info: serde_json::Value = serde_json::from_str(&qemu_img(&["info", "--output=json"], &path)).unwrap();
    assert_eq!((info["virtual-size"].as_u64(), info["format"].as_str()), (Some(1 << 30), Some("qcow2")));
    assert!(qemu_img(&["check"], &path).contains("No errors"));
}

#[test]
fn what_is_no_disk_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("short"), [0; 700]).unwrap();
    fs::write(at("empty"), []).unwrap();
    fs::write(at("cut"), b"QFI\xfb").unwrap();
    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let refused = |name: &str| refusal(folder.path(), &at(name));
    assert!(refused("none").ends_with("none\" does not exist"), "{}", refused("none"));
    assert!(refused("short").contains("700 bytes"), "{}", refused("short"));
    assert!(refused("empty").ends_with("is empty"), "{}", refused("empty"));
    let cut = open(folder.path(), file(&at("cut"), Format::Qcow2)).unwrap_err().to_string();
    assert!(cut.contains("header is cut off"), "{cut}");
    assert!(refused("pipe").contains("neither a regular file"), "{}", refused("pipe"));
    assert!(refusal(folder.path(), folder.path()).contains("is a folder with"));
}

#[test]
fn a_backing_file_made_by_others_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sly.qcow2");
    let create = ["create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw"];
    assert!(Command::new("qemu-img").args(create).arg(&path).arg("1M").status().unwrap().success());
    let error = open(folder.path(), file(&path, Format::Qcow2)).unwrap_err().to_string();
    assert!(error.contains("backing file, which is refused"), "{error}");
}

#[test]
fn an_overlay_is_what_others_make_and_leaves_the_base_alone() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.img");
    fs::File::create(&base).unwrap().set_len(5 << 30).unwrap();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o440)).unwrap();
    let opened =
        open(folder.path(), disk("root", DiskSource::Overlay { path: base.clone(), format: Some(Format::Raw) }))
            .unwrap();
    assert_eq!(opened.top.format, Format::Qcow2);
    assert!(opened.base.unwrap().read_only);
    let overlay = folder.path().join("disk-0.qcow2");
    let info: serde_json::Value = serde_json::from_str(&qemu_img(&["info", "--output=json"], &overlay)).unwrap();
    assert_eq!(info["virtual-size"], 5_u64 << 30);
    assert_eq!(info["backing-filename"], base.to_str().unwrap());
    assert_eq!(info["backing-filename-format"], "raw");
    assert!(qemu_img(&["check"], &overlay).contains("No errors"));
}

#[test]
fn an_overlay_of_sixteen_tebibytes_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("huge.qcow2");
    let mut file = File::create(&path).unwrap();
    qcow2::write_overlay(&mut file, 16 << 40, b"", b"raw").unwrap();
    assert!(qemu_img(&["check"], &path).contains("No errors"));
}

#[test]
fn an_empty_disk_is_sparse_and_new_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk-0.img");
    fs::write(&path, "left by an earlier run").unwrap();
    let opened = open(folder.path(), disk("scratch", DiskSource::Empty { capacity_bytes: 1 << 30 })).unwrap();
    assert_eq!(opened.top.file.metadata().unwrap().len(), 1 << 30);
    let mut first = [1; 32];
    std::io::Read::read_exact(&mut &opened.top.file, &mut first).unwrap();
    assert_eq!(first, [0; 32]);
}

#[test]
fn a_full_file_system_says_so() {
    // Every write to /dev/full is ENOSPC, and its folder takes no new files: so it is used as the file itself.
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    let error = qcow2::write_overlay(&mut full, 1 << 20, b"", b"raw").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let folder = tempfile::tempdir().unwrap();
    let root = disk("root", DiskSource::Empty { capacity_bytes: 1 });
    let of = Of { disk: &root, given: None, scratch: folder.path().join("disk-0"), own: &[] };
    let error = of.made("img", |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err().to_string();
    assert!(error.starts_with("disk \"root\": no space left for"), "{error}");
}

#[test]
fn a_given_descriptor_replaces_the_path_and_must_have_the_access_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, [0; 512]).unwrap();
    let mut machine = machine_for_tests();
    machine.disks = vec![disk("root", DiskSource::File { path: "/nowhere/disk.img".into(), format: Format::Raw })];
    let both = OwnedFd::from(File::options().read(true).write(true).open(&path).unwrap());
    assert!(open_all(&machine, folder.path(), Given::from([("root".into(), both)])).is_ok());
    let reading = OwnedFd::from(File::open(&path).unwrap());
    let error = open_all(&machine, folder.path(), Given::from([("root".into(), reading)])).unwrap_err().to_string();
    assert!(error.contains("may not be opened for reading and writing"), "{error}");
}

// spec: CTRL-51
#[test]
fn a_cloud_init_volume_is_a_raw_disk() {
    let folder = tempfile::tempdir().unwrap();
    let content = CloudInit { user_data: "#cloud-config\n".into(), ..CloudInit::default() };
    let opened = open(folder.path(), disk("cloudinit", DiskSource::NoCloud(content))).unwrap();
    assert_eq!((opened.top.format, opened.base.is_none()), (Format::Raw, true));
    let size = folder.path().join("cloud-init-data/default/web/noCloud.iso").metadata().unwrap().len();
    assert!(size > 0 && size.is_multiple_of(4096), "{size}");
}

// spec: VOL-6
#[test]
fn files_and_a_config_drive_are_raw_disks_with_their_labels() {
    let folder = tempfile::tempdir().unwrap();
    let label = |source, name: &str| {
        let opened = open(folder.path(), disk("data", source)).unwrap();
        assert_eq!((opened.top.format, opened.base.is_none()), (Format::Raw, true));
        let mut blkid = Command::new("/sbin/blkid");
        blkid.args(["-p", "-s", "LABEL", "-o", "value"]);
        let output = blkid.arg(folder.path().join(name)).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let files = FileSet::Listed([("key".to_owned(), "value".into())].into());
    assert_eq!(label(DiskSource::Files { label: "cfgdata".into(), files }, "disk-0.iso"), "cfgdata");
    let at = "cloud-init-data/default/web/configdrive.iso";
    assert_eq!(label(DiskSource::ConfigDrive(CloudInit::default()), at), "config-2");
    let files = FileSet::Folder("/nowhere".into());
    let missing = open(folder.path(), disk("data", DiskSource::Files { label: "x".into(), files })).unwrap_err();
    assert!(std::error::Error::source(&missing).unwrap().to_string().starts_with("/nowhere: "), "{missing}");
}

// spec: IMG-1
#[test]
fn tables_of_a_hostile_disk_are_read_in_little_memory() {
    const LIMITED: &str = "TAPVISOR_TEST_LIMITED";
    if std::env::var_os(LIMITED).is_none() {
        // The same test in a process of its own with 200 MiB.
        let mut child = Command::new("sh");
        child.args(["-c", "ulimit -v 204800; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        let name = std::thread::current().name().unwrap().to_owned();
        let output = child.args(["--exact", &name, "--test-threads=1"]).env(LIMITED, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let mut image = File::create(&path).unwrap();
    qcow2::write_overlay(&mut image, 1 << 30, b"", b"").unwrap();
    // An L1 table of 512 MiB in a sparse file.
    std::os::unix::fs::FileExt::write_all_at(&image, &(64_u32 << 20).to_be_bytes(), 36).unwrap();
    image.set_len(1 << 30).unwrap();
    let error = probe(&path).unwrap_err().to_string();
    assert!(error.contains("has an L1 table of 536870912 bytes"), "{error}");
}

// spec: DISK-9
#[test]
fn a_folder_means_the_only_file_in_it() {
    let root = tempfile::tempdir().unwrap();
    let (folder, scratch) = (root.path().join("disk"), root.path().join("scratch"));
    for folder in [&folder, &scratch, &folder.join("lost+found")] {
        fs::create_dir(folder).unwrap();
    }
    let overlay = || disk("root", DiskSource::Overlay { path: folder.clone(), format: Some(Format::Raw) });
    let refused = open(&scratch, overlay()).unwrap_err().to_string();
    assert!(refused.contains("is a folder with 0 files, expected exactly one"), "{refused}");
    fs::write(folder.join("disk.img"), [0; 1024]).unwrap();
    let opened = open(&scratch, overlay()).unwrap();
    assert_eq!((opened.base.unwrap().format, opened.top.format), (Format::Raw, Format::Qcow2));
    assert_eq!(open(&scratch, file(&folder, Format::Raw)).unwrap().top.format, Format::Raw);
    // A part of an image, which no guest has written to, says what it is. A disk that guests write to does not.
    fs::remove_file(folder.join("disk.img")).unwrap();
    empty_qcow2(&folder.join("system.qcow2"));
    assert_eq!(open(&scratch, overlay()).unwrap().base.unwrap().format, Format::Qcow2);
    fs::write(folder.join("other.img"), [0; 1024]).unwrap();
    let refused = open(&scratch, overlay()).unwrap_err().to_string();
    assert!(refused.contains("is a folder with 2 files, expected exactly one"), "{refused}");
}

// spec: DISK-11
#[test]
fn an_image_without_a_format_is_what_it_begins_with() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("disk.img");
    let overlay = |format| disk("root", DiskSource::Overlay { path: path.clone(), format });
    let base = |format| open(root.path(), overlay(format)).map(|opened| opened.base.unwrap().format);
    let expected = Expected { own: &[], is_format_given: false };
    empty_qcow2(&path);
    assert_eq!(base(None).unwrap(), Format::Qcow2);
    assert!(examine(&overlay(None), &expected).unwrap().is_none());
    // A format that was given counts, whatever the file looks like.
    assert_eq!(base(Some(Format::Raw)).unwrap(), Format::Raw);
    fs::write(&path, [0; 1024]).unwrap();
    assert_eq!(base(None).unwrap(), Format::Raw);
    fs::write(&path, [&b"\x1f\x8b\x08"[..], &[0; 1021]].concat()).unwrap();
    assert!(base(None).unwrap_err().to_string().contains("compressed with gzip"));
    assert!(examine(&overlay(None), &expected).unwrap_err().to_string().contains("compressed with gzip"));
}

// spec: DISK-9
#[test]
fn a_link_in_a_folder_is_followed_no_further_than_in_any_path() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let (folder, secret) = (root.path().join("disk"), root.path().join("secret"));
    fs::create_dir(&folder).unwrap();
    fs::write(&secret, [0; 1024]).unwrap();
    std::os::unix::fs::symlink(&secret, folder.join("disk.img")).unwrap();
    std::os::unix::fs::lchown(folder.join("disk.img"), Some(65534), None).unwrap();
    let overlay = disk("root", DiskSource::Overlay { path: folder, format: Some(Format::Raw) });
    let refused = open(root.path(), overlay).unwrap_err().to_string();
    assert!(refused.contains("goes through the link"), "{refused}");
}

fn folder_disk(folder: &Path, capacity_bytes: u64) -> Disk {
    disk("root", DiskSource::Folder { path: folder.into(), capacity_bytes })
}

// spec: VOL-3
#[test]
fn the_disk_in_a_folder_is_made_once_and_keeps_what_is_written() {
    let (scratch, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().join("disk.img");
    // A start that was killed left a part; what it may link to is not touched.
    let other = scratch.path().join("other");
    fs::write(&other, "other").unwrap();
    std::os::unix::fs::symlink(&other, folder.path().join("disk.img.unfinished")).unwrap();
    let made = open(scratch.path(), folder_disk(folder.path(), (3 << 20) + 5)).unwrap();
    assert_eq!(
        (made.top.format, made.top.read_only, fs::metadata(&path).unwrap().len()),
        (Format::Raw, false, 3 << 20)
    );
    assert_eq!(fs::read_to_string(other).unwrap(), "other");
    assert!(!folder.path().join("disk.img.unfinished").exists());
    drop(made);
    fs::write(&path, vec![7; 1 << 20]).unwrap();
    open(scratch.path(), folder_disk(folder.path(), 3 << 20)).unwrap();
    assert_eq!(fs::read(&path).unwrap(), vec![7; 1 << 20]);
}

// spec: VOL-3
#[test]
fn the_disk_in_a_folder_is_no_larger_than_its_file_system_has_room() {
    let (scratch, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(scratch.path(), folder_disk(folder.path(), u64::MAX)).unwrap();
    let made = fs::metadata(folder.path().join("disk.img")).unwrap().len();
    assert!(made > 1 << 20 && made < 1 << 60, "{made}");
    let without_size = open(scratch.path(), folder_disk(scratch.path(), 0)).unwrap_err();
    assert!(matches!(without_size, DiskError::NoSpace { .. }), "{without_size}");
    let mut read_only = folder_disk(scratch.path(), 1 << 20);
    read_only.read_only = true;
    assert!(matches!(open(scratch.path(), read_only).unwrap_err(), DiskError::Missing { .. }));
}
