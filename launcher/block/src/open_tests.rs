//! Disks opened and made, and every way they cannot be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use machine::{Bus, NoCloud};

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
    open(scratch, disk("root", DiskSource::File { path: path.into() })).unwrap_err().to_string()
}

fn qemu_img(arguments: &[&str], path: &Path) -> String {
    let output = Command::new("qemu-img").args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn formats_are_told_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("raw.qcow2");
    fs::write(&raw, [0; 1024]).unwrap();
    let qcow2 = folder.path().join("disk.img");
    assert!(
        Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&qcow2)
            .arg("1G")
            .status()
            .unwrap()
            .success()
    );
    let format =
        |path: &Path| open(folder.path(), disk("a", DiskSource::File { path: path.into() })).unwrap().top.format;
    assert_eq!((format(&raw), format(&qcow2)), (Format::Raw, Format::Qcow2));
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
    assert!(refused("cut").contains("header is cut off"), "{}", refused("cut"));
    assert!(refused("pipe").contains("neither a regular file"), "{}", refused("pipe"));
    assert!(refusal(folder.path(), folder.path()).contains("neither a regular file"));
}

#[test]
fn a_backing_file_made_by_others_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sly.qcow2");
    let create = ["create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw"];
    assert!(Command::new("qemu-img").args(create).arg(&path).arg("1M").status().unwrap().success());
    assert!(refusal(folder.path(), &path).contains("backing file, which is refused"));
}

#[test]
fn an_overlay_is_what_others_make_and_leaves_the_base_alone() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.img");
    fs::File::create(&base).unwrap().set_len(5 << 30).unwrap();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o440)).unwrap();
    let opened = open(folder.path(), disk("root", DiskSource::Overlay { path: base.clone() })).unwrap();
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
    (&opened.top.file).read_exact(&mut first).unwrap();
    assert_eq!(first, [0; 32]);
}

#[test]
fn a_full_file_system_says_so() {
    // Every write to /dev/full is ENOSPC, and its folder takes no new files: so it stands in as the file itself.
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    let error = qcow2::write_overlay(&mut full, 1 << 20, b"", b"raw").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    let folder = tempfile::tempdir().unwrap();
    let root = disk("root", DiskSource::Empty { capacity_bytes: 1 });
    let of = Of { disk: &root, given: None, scratch: folder.path().join("disk-0") };
    let error = of.made("img", |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err().to_string();
    assert!(error.starts_with("disk \"root\": no space left for"), "{error}");
}

#[test]
fn a_given_descriptor_replaces_the_path_and_must_have_the_access_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, [0; 512]).unwrap();
    let mut machine = machine_for_tests();
    machine.disks = vec![disk("root", DiskSource::File { path: "/nowhere/disk.img".into() })];
    let both = OwnedFd::from(File::options().read(true).write(true).open(&path).unwrap());
    assert!(open_all(&machine, folder.path(), Given::from([("root".into(), both)])).is_ok());
    let reading = OwnedFd::from(File::open(&path).unwrap());
    let error = open_all(&machine, folder.path(), Given::from([("root".into(), reading)])).unwrap_err().to_string();
    assert!(error.contains("may not be opened for reading and writing"), "{error}");
}

#[test]
fn a_cloud_init_volume_is_a_raw_disk() {
    let folder = tempfile::tempdir().unwrap();
    let content = NoCloud { user_data: "#cloud-config\n".into(), network_data: None };
    let opened = open(folder.path(), disk("cloudinit", DiskSource::NoCloud(content))).unwrap();
    assert_eq!((opened.top.format, opened.base.is_none()), (Format::Raw, true));
}
