//! Command lines as golden text: `tests/golden/command_line/<case>.{json,txt}`, a machine with what
//! the wiring says of its NICs, and its line.
//! A new case needs no Rust; `TAPVISOR_REWRITE_GOLDEN=1` rewrites the texts for review.

use std::fs;
use std::path::{Path, PathBuf};

use machine::{CpuModel, DiskSource};

use super::*;
use crate::fixtures::machine_for_tests;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/command_line")
}

/// What a golden case holds.
#[derive(serde::Deserialize)]
struct Case {
    machine: Machine,
    nics: Vec<PluggedIn>,
}

/// What the wiring says of a NIC.
#[derive(Clone, serde::Deserialize)]
struct PluggedIn {
    mac: MacAddr,
    queues: i32,
}

/// A machine whose NICs have one queue each.
fn descriptors(machine: &Machine) -> Descriptors {
    let nic = PluggedIn { mac: "02:11:22:33:44:55".parse().unwrap(), queues: 1 };
    numbered(machine, &vec![nic; machine.nics.len()])
}

/// Descriptors as numbers that tell what they are: NIC i has 100 + 10·i and on, disk i has 200 + 10·i and on.
fn numbered(machine: &Machine, nics: &[PluggedIn]) -> Descriptors {
    let number = |index: usize| i32::try_from(index).unwrap();
    let nics = nics.iter().enumerate().map(|(index, nic)| NicDescriptors {
        mac: nic.mac,
        mtu: Mtu::try_from(1450).ok(),
        queues: (0..nic.queues).map(|queue| 100 + 10 * number(index) + queue).collect(),
        vhost: Vec::new(),
    });
    let disks = machine.disks.iter().enumerate().map(|(index, disk)| {
        let overlay = matches!(disk.source, DiskSource::Overlay { .. });
        let layer = |fd, format, read_only| LayerDescriptor {
            fd,
            format,
            read_only,
            is_device: disk.name == "device",
            direct: disk.cache == Cache::None,
        };
        let fd = 200 + 10 * number(index);
        let format = if overlay { Format::Qcow2 } else { Format::Raw };
        let base = overlay.then(|| layer(fd + 1, Format::Raw, true));
        DiskDescriptors { top: layer(fd, format, disk.read_only), base }
    });
    Descriptors { monitor: 10, console: 11, agent: Some(12), nics: nics.collect(), disks: disks.collect() }
}

// spec: DISK-10
#[test]
fn machines_give_their_golden_command_lines() {
    let mut cases = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        cases += 1;
        let Case { machine, nics } = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let line = arguments(&machine, Accelerator::Tcg, &numbered(&machine, &nics)).unwrap();
        // One option and its value a line.
        let mut text = line.join("\n").replace("\n-", "\u{0}-").replace('\n', " ").replace('\u{0}', "\n");
        text.push('\n');
        let golden = path.with_extension("txt");
        if std::env::var_os("TAPVISOR_REWRITE_GOLDEN").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        assert_eq!(text, fs::read_to_string(&golden).unwrap(), "{}", golden.display());
    }
    assert!(cases >= 3, "only {cases} golden cases found");
}

#[test]
fn what_a_manifest_names_stays_one_argument() {
    let mut machine = machine_for_tests();
    machine.name = "web,file=/etc/shadow".into();
    machine.serial_number = Some("1,2".into());
    let line = arguments(&machine, Accelerator::Tcg, &descriptors(&machine)).unwrap();
    assert!(line.contains(&"default/web,,file=/etc/shadow,debug-threads=on".to_owned()));
    assert!(line.contains(&"type=1,manufacturer=Tapvisor,product=VM,serial=1,,2".to_owned()));
    assert!(line.contains(&"console=ttyS0 a,b".to_owned()));
}

#[test]
fn a_layout_that_is_full_is_refused_with_the_number() {
    let mut machine = machine_for_tests();
    machine.nics = vec![machine.nics[0].clone(); 17];
    let error = arguments(&machine, Accelerator::Tcg, &descriptors(&machine)).unwrap_err().to_string();
    assert_eq!(error, "the machine has 17 NICs, at most 16 are supported");
    let mut machine = machine_for_tests();
    let disk = json!({"name": "data", "bus": "usb", "cdrom": true, "source": {"empty": {"capacityBytes": 4096}}});
    machine.disks = vec![serde_json::from_value(disk).unwrap()];
    let error = arguments(&machine, Accelerator::Tcg, &descriptors(&machine)).unwrap_err().to_string();
    assert!(error.ends_with("a CD-ROM cannot be on usb"), "{error}");
    let disk = Disk { cdrom: false, ..machine.disks[0].clone() };
    machine.disks = vec![disk; 16];
    let error = arguments(&machine, Accelerator::Tcg, &descriptors(&machine)).unwrap_err().to_string();
    assert_eq!(error, "the machine has 16 USB disks, at most 15 are supported");
}

#[test]
fn vhost_and_kvm_are_asked_for_together() {
    let machine = machine_for_tests();
    let mut with = descriptors(&machine);
    with.nics[0].vhost = vec![42];
    let line = arguments(&machine, Accelerator::Kvm, &with).unwrap().join(" ");
    assert!(line.contains("-accel kvm -cpu host"));
    assert!(line.contains("tap,id=net0,fd=100,vhost=on,vhostfd=42"));
}

// spec: LAB-35, LAB-36
#[test]
fn model_and_huge_pages_are_asked_for_as_the_machine_says() {
    let mut machine = machine_for_tests();
    machine.cpu.model = CpuModel::X86V3;
    (machine.memory_bytes, machine.hugepage_bytes) = (1 << 30, Some(2 << 20));
    let line = arguments(&machine, Accelerator::Kvm, &descriptors(&machine)).unwrap().join(" ");
    assert!(line.contains(" -cpu Haswell-noTSX,enforce "), "{line}");
    assert!(line.contains("dump-guest-core=off,memory-backend=memory "), "{line}");
    let memory = "-object memory-backend-memfd,id=memory,size=1073741824,share=off,hugetlb=on,hugetlbsize=2097152";
    assert!(line.contains(memory), "{line}");
}

// spec: VOL-5
#[test]
fn a_block_device_has_the_driver_for_devices() {
    let mut machine = machine_for_tests();
    let disk = |name: &str| {
        let source = json!({"file": {"path": "/dev/claim", "format": "raw"}});
        serde_json::from_value::<Disk>(json!({"name": name, "bus": "virtio", "source": source})).unwrap()
    };
    machine.disks = vec![disk("device"), disk("image")];
    let line = arguments(&machine, Accelerator::Tcg, &descriptors(&machine)).unwrap();
    let drivers = |driver: &str| line.iter().filter(|word| word.contains(&format!("\"driver\":\"{driver}\""))).count();
    assert_eq!((drivers("host_device"), drivers("file")), (1, 1), "{line:?}");
}
