//! Huge pages that the machine's author asks for: whether the host has them free, before an engine maps them.
//!
//! An engine that maps more than there are fails as well, later and without a number.

use std::path::Path;

use machine::Machine;

/// A folder for each size, with what is free of it (Linux, Documentation/admin-guide/mm/hugetlbpage.rst).
const FOLDER: &str = "/sys/kernel/mm/hugepages";

/// Why the machine's memory cannot be made of huge pages; `None` where it can, or need not.
pub(crate) fn missing(machine: &Machine) -> Option<String> {
    missing_in(Path::new(FOLDER), machine)
}

fn missing_in(folder: &Path, machine: &Machine) -> Option<String> {
    let size = machine.hugepage_bytes?;
    let refused = |reason: String| Some(format!("machine.hugepageBytes: {reason}"));
    if size == 0 || !machine.memory_bytes.is_multiple_of(size) {
        return refused(format!("{} bytes of memory are no whole number of pages of {size}", machine.memory_bytes));
    }
    let file = folder.join(format!("hugepages-{}kB", size >> 10)).join("free_hugepages");
    let Ok(text) = std::fs::read_to_string(&file) else {
        return refused(format!("the host's kernel has no huge pages of {size} bytes ({})", file.display()));
    };
    let (needed, free) = (machine.memory_bytes / size, text.trim().parse::<u64>().unwrap_or_default());
    if free >= needed {
        return None;
    }
    refused(format!("the machine needs {needed} huge pages of {size} bytes, and the host has {free} free"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::machine_for_tests;

    // spec: LAB-36
    #[test]
    fn pages_that_the_host_has_not_are_refused_with_their_number() {
        let folder = tempfile::tempdir().unwrap();
        let of_size = folder.path().join("hugepages-2048kB");
        std::fs::create_dir(&of_size).unwrap();
        std::fs::write(of_size.join("free_hugepages"), "64\n").unwrap();
        let with = |memory_bytes, hugepage_bytes| {
            let machine = Machine { memory_bytes, hugepage_bytes, ..machine_for_tests() };
            missing_in(folder.path(), &machine)
        };
        assert_eq!(with(256 << 20, None), None);
        assert_eq!(with(128 << 20, Some(2 << 20)), None);
        for (memory, size, expected) in [
            (130 << 20, 2 << 20, "the machine needs 65 huge pages of 2097152 bytes, and the host has 64 free"),
            (1 << 30, 1 << 30, "the host's kernel has no huge pages of 1073741824 bytes"),
            (3 << 20, 2 << 20, "3145728 bytes of memory are no whole number of pages of 2097152"),
            (3 << 20, 0, "3145728 bytes of memory are no whole number of pages of 0"),
        ] {
            let found = with(memory, Some(size)).unwrap();
            assert!(found.starts_with("machine.hugepageBytes: ") && found.contains(expected), "{found}");
        }
    }
}
