//! A cloud-init NoCloud volume: a small vfat file system labelled CIDATA (cloud-init reads the label in either case).

use std::borrow::Cow;
use std::io::{self, Read, Seek, Write};

use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use machine::{Content, Machine, NoCloud};
use serde_json::json;

const LABEL: [u8; 11] = *b"CIDATA     ";
/// Room for the tables of the file system and the clusters' last parts.
const SLACK_BYTES: u64 = 512 << 10;
const GRANULE_BYTES: u64 = 1 << 20;

/// Largest file that is read: a Secret holds less (1 MiB).
const MAX_FILE_BYTES: u64 = 4 << 20;

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
pub fn write_volume(volume: &mut impl Volume, machine: &Machine, content: &NoCloud) -> io::Result<()> {
    let meta = json!({
        "instance-id": format!("{}.{}", machine.name, machine.namespace),
        "local-hostname": machine.hostname,
    });
    let meta = meta.to_string();
    let mut files = vec![("user-data", bytes_of(&content.user_data)?), ("meta-data", meta.as_bytes().into())];
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

/// The bytes of a file's content.
fn bytes_of(content: &Content) -> io::Result<Cow<'_, [u8]>> {
    let paths = match content {
        Content::Bytes(bytes) => return Ok(bytes.into()),
        Content::FirstOf(paths) => paths,
    };
    for path in paths {
        let mut bytes = Vec::new();
        match std::fs::File::open(path) {
            Ok(file) => file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        };
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display())));
        }
        return Ok(bytes.into());
    }
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    Err(io::Error::new(io::ErrorKind::NotFound, format!("cloud-init data: none of {} exists", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::*;
    use crate::fixtures::machine_for_tests;

    fn written(content: &NoCloud) -> (tempfile::TempDir, std::path::PathBuf) {
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
        let content = NoCloud { user_data: "#cloud-config\n".into(), network_data: Some(network.as_str().into()) };
        let (_folder, path) = written(&content);
        assert_eq!(read(&path, "user-data").unwrap(), "#cloud-config\n");
        assert_eq!(read(&path, "network-config").unwrap(), network);
        let meta: serde_json::Value = serde_json::from_str(&read(&path, "meta-data").unwrap()).unwrap();
        assert_eq!(meta, json!({"instance-id": "web.default", "local-hostname": "web"}));
    }

    #[test]
    fn there_is_no_network_config_unless_given_and_large_user_data_fits() {
        let user_data = "#!/bin/sh\n".repeat(400_000);
        let (_folder, path) = written(&NoCloud { user_data: user_data.as_str().into(), network_data: None });
        assert_eq!(read(&path, "user-data").unwrap().len(), user_data.len());
        assert_eq!(read(&path, "network-config"), None);
    }

    // spec: DISK-7
    #[test]
    fn user_data_of_any_bytes_goes_onto_the_volume_unchanged() {
        let packed = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff\0".to_vec();
        let (_folder, path) = written(&NoCloud { user_data: Content::Bytes(packed.clone()), network_data: None });
        let file_system =
            FileSystem::new(File::options().read(true).write(true).open(&path).unwrap(), FsOptions::new());
        let mut found = Vec::new();
        file_system.unwrap().root_dir().open_file("user-data").unwrap().read_to_end(&mut found).unwrap();
        assert_eq!(found, packed);
    }

    // spec: DISK-12
    #[test]
    fn user_data_of_a_mounted_secret_is_the_first_key_that_exists() {
        let secret = tempfile::tempdir().unwrap();
        let keys = ["userdata", "userData"].map(|key| secret.path().join(key));
        let content = NoCloud { user_data: Content::FirstOf(keys.to_vec()), network_data: None };
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
        let (_folder, path) = written(&NoCloud { user_data: "".into(), network_data: None });
        let output = Command::new("/sbin/blkid").args(["-p", "-o", "export"]).arg(&path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("LABEL=CIDATA\n") && text.contains("TYPE=vfat\n"), "{text}");
    }
}
