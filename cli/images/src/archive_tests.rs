//! Archives that ask a reader for more than it should give.

use std::io::Cursor;

use super::*;

fn header(kind: EntryType, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_path("name").unwrap();
    header.set_entry_type(kind);
    header.set_size(bytes);
    header.set_cksum();
    header
}

/// A record of a pax header, with the length that it begins with.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (1..=rest.len() + 9).rev().find(|n| n.to_string().len() + rest.len() == *n).unwrap();
    format!("{length}{rest}")
}

fn flaw_of(archive: impl Read) -> String {
    let mut archive = Archive::new(archive);
    loop {
        match archive.next() {
            Ok(Some(_)) => {}
            Ok(None) => return "none".to_owned(),
            Err(error) => return error.to_string(),
        }
    }
}

// spec: IMG-1
#[test]
fn names_and_headers_without_end_are_refused_by_their_length() {
    for (kind, flaw) in [
        (EntryType::GNULongName, "name of more than 4096 bytes"),
        (EntryType::GNULongLink, "name of more than 4096 bytes"),
        (EntryType::XHeader, "pax header of more than 1 MiB"),
    ] {
        let header = header(kind, 6 << 30);
        let archive = header.as_bytes().as_slice().chain(io::repeat(b'x'));
        assert!(flaw_of(archive).contains(flaw), "{kind:?}");
    }
    // One for all entries is of no use to us and passed over, however long.
    let global = header(EntryType::XGlobalHeader, 1 << 20);
    let archive = global.as_bytes().as_slice().chain(io::repeat(b'x').take(1 << 20));
    assert_eq!(flaw_of(archive), "none");
}

#[test]
fn what_is_cut_off_or_damaged_says_so() {
    let mut whole = tar::Builder::new(Vec::new());
    whole.append(&header(EntryType::Regular, 1000), &[1; 1000][..]).unwrap();
    let whole = whole.into_inner().unwrap();
    assert_eq!(flaw_of(&whole[..]), "none");
    assert!(flaw_of(&whole[..900]).contains("cut off in the middle"));
    assert!(flaw_of(&whole[..300]).contains("is no tar archive"));
    assert!(flaw_of(&[1; 2000][..]).contains("is no tar archive"));
    let mut second = whole[..1536].to_vec();
    second.extend([b'x'; 512]);
    assert!(flaw_of(&second[..]).contains("wrong checksum"));
    assert_eq!(flaw_of(&[][..]), "none");
}

#[test]
fn pax_headers_name_what_a_header_cannot() {
    let path = format!("{}/disk.img", "d".repeat(300));
    let text = record("path", &path) + &record("size", "5") + &record("mtime", "1.5");
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header(EntryType::XHeader, text.len() as u64), text.as_bytes()).unwrap();
    let mut bytes = archive.into_inner().unwrap();
    bytes.truncate(1024);
    // The size in the header is another.
    bytes.extend(header(EntryType::Regular, 0).as_bytes());
    bytes.extend(b"hello");
    bytes.resize(bytes.len() + 507, 0);
    let mut archive = Archive::new(Cursor::new(bytes));
    let entry = archive.next().unwrap().unwrap();
    assert_eq!((entry.path, entry.bytes), (path.into_bytes(), 5));
    assert!(archive.next().unwrap().is_none());
    let broken = |text: &str| {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header(EntryType::XHeader, text.len() as u64), text.as_bytes()).unwrap();
        flaw_of(&archive.into_inner().unwrap()[..])
    };
    for text in ["x", "99 path=a\n", "9 path=ab", "0 a=b\n", "18446744073709551616 a=b\n"] {
        assert!(broken(text).contains("pax header that is damaged"), "{text}: {}", broken(text));
    }
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let sparse = |map: &str| {
        let text = map.to_owned();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header(EntryType::XHeader, text.len() as u64), text.as_bytes()).unwrap();
        let mut bytes = archive.into_inner().unwrap();
        bytes.truncate(1024);
        bytes.extend(header(EntryType::Regular, 512).as_bytes());
        bytes.extend([b'9'; 512]);
        flaw_of(&bytes[..])
    };
    let one = record("GNU.sparse.major", "1") + &record("GNU.sparse.minor", "0");
    assert!(sparse(&one).contains("damaged map"), "{}", sparse(&one));
    assert!(sparse(&record("GNU.sparse.major", "7")).contains("neither 0.0, 0.1 nor 1.0"));
    let sized = |map: &str| sparse(&(record("GNU.sparse.size", "100000") + &record("GNU.sparse.map", map)));
    for (map, flaw) in [
        ("0,512,0", "damaged map"),
        ("600,12,0,500", "overlap or lie outside"),
        ("0,256,99900,256", "overlap or lie outside"),
        ("0,256", "not what its content holds"),
        ("0,x", "no number"),
    ] {
        assert!(
            sized(map).contains(flaw) || flaw == "no number" && sized(map).contains("damaged"),
            "{map}: {}",
            sized(map)
        );
    }
    assert!(sparse(&record("GNU.sparse.map", "0,512")).contains("without its size"));
}
