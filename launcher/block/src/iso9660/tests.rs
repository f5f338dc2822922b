//! Images, read back by Linux's rules for Rock Ridge and Joliet, and their labels by blkid.

use std::process::Command;

use super::*;

fn image(label: &str, files: &Files) -> Vec<u8> {
    let mut image = Vec::new();
    write(&mut image, label, files).unwrap();
    image
}

fn files(given: &[(&str, &[u8])]) -> Files {
    given.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect()
}

fn little(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize
}

/// A record and what its Rock Ridge entries say.
struct Found {
    name: String,
    is_folder: bool,
    extent: (usize, usize),
}

/// The records of a folder but for the first two.
fn list(image: &[u8], (sector, bytes): (usize, usize), is_joliet: bool) -> Vec<Found> {
    let (folder, mut found, mut at) = (&image[sector * SECTOR..sector * SECTOR + bytes], Vec::new(), 0);
    while at < folder.len() {
        let length = usize::from(folder[at]);
        if length == 0 {
            at = (at + 1).next_multiple_of(SECTOR);
            continue;
        }
        let record = &folder[at..at + length];
        at += length;
        let identifier = &record[33..33 + usize::from(record[32])];
        let mut name = Vec::new();
        rock_ridge(image, &record[(33 + identifier.len()).next_multiple_of(2)..], &mut name);
        let units: Vec<_> = identifier.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]])).collect();
        let name = if is_joliet { String::from_utf16(&units).unwrap() } else { String::from_utf8(name).unwrap() };
        let extent = (little(&record[2..]), little(&record[10..]));
        assert!(extent.0 * SECTOR + extent.1 <= image.len());
        found.push(Found { name, is_folder: record[25] & 2 != 0, extent });
    }
    found.split_off(2)
}

fn rock_ridge(image: &[u8], mut entries: &[u8], name: &mut Vec<u8>) {
    while entries.len() >= 4 && entries[2] >= 4 {
        let (entry, rest) = entries.split_at(usize::from(entries[2]));
        match &entry[..2] {
            b"NM" => name.extend(&entry[5..]),
            b"CE" => {
                let at = little(&entry[4..]) * SECTOR + little(&entry[12..]);
                rock_ridge(image, &image[at..at + little(&entry[20..])], name);
            }
            _ => {}
        }
        entries = rest;
    }
}

/// All files by path, below a descriptor's root.
fn read(image: &[u8], is_joliet: bool) -> Files {
    let descriptor = &image[(16 + usize::from(is_joliet)) * SECTOR..][..SECTOR];
    assert_eq!(&descriptor[1..6], b"CD001");
    assert_eq!(little(&descriptor[80..]) * SECTOR, image.len());
    assert_eq!(image.len() % 4096, 0);
    let root = (little(&descriptor[158..]), little(&descriptor[166..]));
    let (mut files, mut folders) = (Files::new(), vec![(String::new(), root)]);
    while let Some((prefix, extent)) = folders.pop() {
        for Found { name, is_folder, extent } in list(image, extent, is_joliet) {
            let path = format!("{prefix}{}", name.trim_end_matches(";1"));
            match is_folder {
                true => folders.push((format!("{path}/"), extent)),
                false => drop(files.insert(path, image[extent.0 * SECTOR..][..extent.1].to_vec())),
            }
        }
    }
    files
}

// spec: VOL-6
#[test]
fn every_file_is_read_back_by_both_kinds_of_names() {
    let given = files(&[
        ("key", b"value"),
        ("empty", b""),
        ("openstack/latest/meta_data.json", &[7; 5000]),
        ("openstack/content", b"x"),
        ("Größe.txt", b"utf-8"),
    ]);
    let image = image("cfgdata", &given);
    assert_eq!(read(&image, false), given);
    assert_eq!(read(&image, true), given);
    assert_eq!(super::tests::image("cfgdata", &given), image, "the same files give the same bytes");
}

// spec: VOL-6
#[test]
fn the_longest_keys_and_more_than_a_sector_of_them_are_read_back() {
    let keys = (0..300).map(|n| format!("{n:03}{}", "k".repeat(250)));
    let given: Files = keys.map(|key| (key.clone(), key.into_bytes())).collect();
    let image = image("cfgdata", &given);
    assert_eq!(read(&image, false), given);
    let joliet = read(&image, true);
    assert_eq!(joliet.len(), given.len());
    assert!(joliet.keys().all(|name| name.len() == 64));
}

#[test]
fn joliet_names_that_would_be_the_same_differ() {
    let long = |end: &str| format!("{}{end}", "k".repeat(64));
    let given: Files = ["a:b", "a*b", &long("1"), &long("2")].map(|name| (name.to_owned(), name.into())).into();
    let image = image("cfgdata", &given);
    assert_eq!(read(&image, false), given);
    let names: Vec<_> = read(&image, true).into_keys().collect();
    assert_eq!(names, ["a_b", "a_b~1", &"k".repeat(64), &format!("{}~1", "k".repeat(62))]);
}

// spec: VOL-6
#[test]
fn what_no_disk_holds_is_refused() {
    let refused = |given: &[(&str, &[u8])]| write(&mut Vec::new(), "x", &files(given)).unwrap_err().to_string();
    for name in ["", ".", "a/../b", "a//b", "a\0", &"k".repeat(254)] {
        assert!(refused(&[(name, b"")]).contains("is no name of a file"), "{name:?}");
    }
    assert!(refused(&[("a", b""), ("a/b", b"")]).contains("\"a\" is a file and a folder"));
    assert!(refused(&[("a", &vec![0; 17 << 20])]).contains("at most 16777216 are made"));
}

#[test]
fn blkid_finds_the_label() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.iso");
    std::fs::write(&path, image("config-2", &files(&[("key", b"value")]))).unwrap();
    let output = Command::new("/sbin/blkid").args(["-p", "-o", "export"]).arg(&path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("LABEL=config-2\n") && text.contains("TYPE=iso9660\n"), "{text}");
}
