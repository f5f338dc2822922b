//! Compares pictures with the reviewed ones in `tests/golden`; TAPVISOR_REWRITE_GOLDEN=1 writes them again.

use std::path::PathBuf;

use super::*;
use crate::diagnose;
use crate::diagnose::fixtures::{bridge, masquerade, name};
use crate::evidence::Evidence;

const PLAIN: Style = Style { width: 100, has_colour: false, has_unicode: false };
const FINE: Style = Style { width: 80, has_colour: false, has_unicode: true };

fn same(case: &str, evidence: &Evidence, style: Style) {
    let drawn = picture(&diagnose(evidence), style);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/explain").join(case);
    if std::env::var_os("TAPVISOR_REWRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &drawn).unwrap();
    }
    assert_eq!(drawn, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
    assert!(drawn.lines().all(|line| line.chars().count() <= style.width), "{drawn}");
}

fn broken() -> Evidence {
    let mut evidence = masquerade();
    let tap = name("k6t-eth0");
    let pod = evidence.pod.as_mut().unwrap();
    pod.links.iter_mut().find(|link| link.name == tap).unwrap().up = false;
    pod.tables.clear();
    evidence
}

#[test]
fn a_healthy_vm_is_drawn_from_host_to_guest() {
    same("healthy.txt", &masquerade(), PLAIN);
    same("bridge.txt", &bridge(), FINE);
}

// spec: EXPL-9
#[test]
fn what_is_broken_is_crossed_in_place_and_explained_below() {
    same("broken.txt", &broken(), FINE);
    same("broken-plain.txt", &broken(), PLAIN);
}

#[test]
fn colours_are_only_added_around_lines() {
    let plain = picture(&diagnose(&broken()), FINE);
    let coloured = picture(&diagnose(&broken()), Style { has_colour: true, ..FINE });
    assert!(coloured.contains("\u{1b}[31m"));
    assert_eq!(coloured.replace("\u{1b}[31m", "").replace("\u{1b}[33m", "").replace("\u{1b}[0m", ""), plain);
}

// spec: EXPL-9
#[test]
fn a_narrow_terminal_breaks_lines_and_no_width_is_too_small() {
    let drawn = picture(&diagnose(&broken()), Style { width: 0, ..FINE });
    // A single word may be longer than the narrowest terminal.
    assert!(
        drawn.lines().filter(|line| line.chars().count() > LEAST_WIDTH).all(|line| line.trim().split(' ').count() <= 4),
        "{drawn}"
    );
}

#[test]
fn sizes_have_one_decimal() {
    let sizes = [0, 999, 1000, 1234, 999_999, 1_000_000, 12_345_678_901, u64::MAX].map(size);
    assert_eq!(sizes[..6], ["0 B", "999 B", "1.0 kB", "1.2 kB", "999.9 kB", "1.0 MB"]);
    assert_eq!(sizes[6], "12.3 GB");
    assert!(sizes[7].ends_with(" TB"));
}
