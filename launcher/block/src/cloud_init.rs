//! cloud-init volumes. NoCloud: a small vfat file system labelled CIDATA (cloud-init reads the label in either case).
//! ConfigDrive: the files of an ISO 9660 image labelled config-2.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use machine::{CloudInit, Machine};
use serde_json::json;

use crate::content::{Files, bytes_of, files_of};

const LABEL: [u8; 11] = *b"CIDATA     ";
/// Label of a ConfigDrive volume.
pub(crate) const CONFIG_DRIVE_LABEL: &str = "config-2";
/// Room for the tables of the file system and the clusters' last parts.
const SLACK_BYTES: u64 = 512 << 10;
const GRANULE_BYTES: u64 = 1 << 20;

/// Something that can be a volume.
pub trait Volume: Read + Write + Seek {
    /// Sets its size.
    ///
    /// # Errors
    /// The system's.
    fn resize(&mut self, bytes: u64) -> io::Result<()>;
}

impl Volume for std::fs::File {
    fn resize(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// Formats `volume` and writes `user-data`, `meta-data` and, when there is one, `network-config` into it.
///
/// The instance id is the VM's name and namespace, as KubeVirt's is: cloud-init does not set up a disk again that moves between the two.
///
/// # Errors
/// The volume's, and those of files that hold the content.
pub fn write_volume(volume: &mut impl Volume, machine: &Machine, content: &CloudInit) -> io::Result<()> {
    let mut meta = json!({"instance-id": instance_id(machine), "local-hostname": machine.hostname});
    let keys = public_keys(content)?;
    if !keys.is_empty() {
        meta["public-keys"] = json!(keys);
    }
    let meta = meta.to_string();
    let mut files = vec![("user-data", bytes_of(&content.user_data)?), ("meta-data", Cow::from(meta.as_bytes()))];
    if let Some(data) = &content.network_data {
        files.push(("network-config", bytes_of(data)?));
    }
    let bytes: u64 = files.iter().map(|(_, content)| content.len() as u64).sum();
    volume.resize((bytes + SLACK_BYTES).next_multiple_of(GRANULE_BYTES))?;
    // The same content gives the same bytes.
    let options = FormatVolumeOptions::new().volume_label(LABEL).volume_id(0x7461_7076);
    fatfs::format_volume(&mut *volume, options)?;
    let file_system = FileSystem::new(volume, FsOptions::new())?;
    for (name, content) in files {
        let mut file = file_system.root_dir().create_file(name)?;
        file.write_all(&content)?;
        file.flush()?;
    }
    file_system.unmount()
}

/// The files of a ConfigDrive volume.
///
/// cloud-init takes `uuid` for the instance id: the firmware's, which stays the same over restarts.
///
/// # Errors
/// Those of files that hold the content.
pub(crate) fn config_drive(machine: &Machine, content: &CloudInit) -> io::Result<Files> {
    let mut meta = json!({
        "instance_id": instance_id(machine),
        "uuid": machine.uuid,
        "hostname": machine.hostname,
        "local_hostname": machine.hostname,
    });
    let keys = public_keys(content)?;
    if !keys.is_empty() {
        meta["public_keys"] = json!(keys);
    }
    let mut files = Files::new();
    let mut add = |name: &str, bytes: Cow<'_, [u8]>| files.insert(format!("openstack/latest/{name}"), bytes.into());
    add("meta_data.json", meta.to_string().into_bytes().into());
    add("user_data", bytes_of(&content.user_data)?);
    if let Some(data) = &content.network_data {
        add("network_data.json", bytes_of(data)?);
    }
    Ok(files)
}

fn instance_id(machine: &Machine) -> String {
    format!("{}.{}", machine.name, machine.namespace)
}

/// Each file's keys under a number, as KubeVirt lists them.
fn public_keys(content: &CloudInit) -> io::Result<BTreeMap<String, String>> {
    let mut keys = BTreeMap::new();
    for set in &content.public_keys {
        for (name, bytes) in files_of(set)? {
            let text = String::from_utf8(bytes);
            let text = text.map_err(|_| io::Error::other(format!("the SSH key {name:?} is not UTF-8")))?;
            if !text.trim().is_empty() {
                keys.insert(keys.len().to_string(), text);
            }
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use machine::{Content, FileSet};

    use super::*;
    use crate::fixtures::machine_for_tests;

    fn written(content: &CloudInit) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cidata.img");
        let mut options = File::options();
        let mut file = options.read(true).write(true).create_new(true).open(&path).unwrap();
        write_volume(&mut file, &machine_for_tests(), content).unwrap();
        (folder, path)
    }

    fn read(path: &std::path::Path, name: &str) -> Option<String> {
        let file_system =
            FileSystem::new(File::options().read(true).write(true).open(path).unwrap(), FsOptions::new()).unwrap();
        let mut text = String::new();
        file_system.root_dir().open_file(name).ok()?.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn all_three_files_are_read_back() {
        let network = "version: 2\nethernets: {}\n".to_owned();
        let content = CloudInit {
            user_data: "#cloud-config\n".into(),
            network_data: Some(network.as_str().into()),
            public_keys: Vec::new(),
        };
        let (_folder, path) = written(&content);
        assert_eq!(read(&path, "user-data").unwrap(), "#cloud-config\n");
        assert_eq!(read(&path, "network-config").unwrap(), network);
        let meta: serde_json::Value = serde_json::from_str(&read(&path, "meta-data").unwrap()).unwrap();
        assert_eq!(meta, json!({"instance-id": "web.default", "local-hostname": "web"}));
    }

    #[test]
    fn there_is_no_network_config_unless_given_and_large_user_data_fits() {
        let user_data = "#!/bin/sh\n".repeat(400_000);
        let (_folder, path) = written(&CloudInit { user_data: user_data.as_str().into(), ..CloudInit::default() });
        assert_eq!(read(&path, "user-data").unwrap().len(), user_data.len());
        assert_eq!(read(&path, "network-config"), None);
    }

    // spec: DISK-7
    #[test]
    fn user_data_of_any_bytes_goes_onto_the_volume_unchanged() {
        let packed = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff\0".to_vec();
        let (_folder, path) = written(&CloudInit { user_data: Content::Bytes(packed.clone()), ..CloudInit::default() });
        let file_system =
            FileSystem::new(File::options().read(true).write(true).open(&path).unwrap(), FsOptions::new());
        let mut found = Vec::new();
        file_system.unwrap().root_dir().open_file("user-data").unwrap().read_to_end(&mut found).unwrap();
        assert_eq!(found, packed);
    }

    /// Two Secrets: one in the launch file, one mounted in the pod.
    fn with_keys(secret: &std::path::Path) -> CloudInit {
        std::fs::write(secret.join("key1"), "ssh-ed25519 AAAA a@example\n").unwrap();
        std::fs::write(secret.join("empty"), "\n").unwrap();
        let inline = FileSet::Listed([("key".to_owned(), "ssh-rsa BBBB".into())].into());
        let public_keys = vec![FileSet::Folder(secret.into()), inline];
        CloudInit { user_data: "#cloud-config\n".into(), network_data: None, public_keys }
    }

    // spec: VOL-7
    #[test]
    fn ssh_keys_are_in_the_metadata_of_both_data_sources() {
        let secret = tempfile::tempdir().unwrap();
        let content = with_keys(secret.path());
        let keys = json!({"0": "ssh-ed25519 AAAA a@example\n", "1": "ssh-rsa BBBB"});
        let (_folder, path) = written(&content);
        let meta: serde_json::Value = serde_json::from_str(&read(&path, "meta-data").unwrap()).unwrap();
        assert_eq!(meta["public-keys"], keys);
        let files = config_drive(&machine_for_tests(), &content).unwrap();
        let meta: serde_json::Value = serde_json::from_slice(&files["openstack/latest/meta_data.json"]).unwrap();
        assert_eq!(meta["public_keys"], keys);
        std::fs::write(secret.path().join("key1"), [0xff]).unwrap();
        let error = config_drive(&machine_for_tests(), &content).unwrap_err();
        assert_eq!(error.to_string(), "the SSH key \"key1\" is not UTF-8");
    }

    // spec: VOL-6
    #[test]
    fn a_config_drive_has_the_files_that_cloud_init_looks_for() {
        let content =
            CloudInit { user_data: "#!/bin/sh\n".into(), network_data: Some("{}".into()), public_keys: Vec::new() };
        let files = config_drive(&machine_for_tests(), &content).unwrap();
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        let latest =
            ["meta_data.json", "network_data.json", "user_data"].map(|name| format!("openstack/latest/{name}"));
        assert_eq!(names, latest);
        assert_eq!(files["openstack/latest/user_data"], b"#!/bin/sh\n");
        let meta: serde_json::Value = serde_json::from_slice(&files["openstack/latest/meta_data.json"]).unwrap();
        let expected = json!({
            "instance_id": "web.default", "uuid": "5d1f1c2e-1e0b-4b7c-9d1a-0c5b6a7d8e9f", "hostname": "web", "local_hostname": "web",
        });
        assert_eq!(meta, expected);
    }

    // spec: DISK-12
    #[test]
    fn user_data_of_a_mounted_secret_is_the_first_key_that_exists() {
        let secret = tempfile::tempdir().unwrap();
        let keys = ["userdata", "userData"].map(|key| secret.path().join(key));
        let content = CloudInit { user_data: Content::FirstOf(keys.to_vec()), ..CloudInit::default() };
        let error = write_volume(&mut tempfile::tempfile().unwrap(), &machine_for_tests(), &content).unwrap_err();
        assert!(error.to_string().contains("userData exists"), "{error}");
        std::fs::write(&keys[1], "second").unwrap();
        let (_folder, path) = written(&content);
        assert_eq!(read(&path, "user-data").unwrap(), "second");
        std::fs::write(&keys[0], "first").unwrap();
        let (_folder, path) = written(&content);
        assert_eq!(read(&path, "user-data").unwrap(), "first");
    }

    #[test]
    fn blkid_finds_the_label() {
        let (_folder, path) = written(&CloudInit::default());
        let output = Command::new("/sbin/blkid").args(["-p", "-o", "export"]).arg(&path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("LABEL=CIDATA\n") && text.contains("TYPE=vfat\n"), "{text}");
    }
}
