//! What a machine asks for that ours does not have, by the field of the launch file.

use machine::{Boot, Machine, NicModel};
use wiring::{Binding, Interface};

pub(super) const FIRMWARE: &str = "machine.boot: engine kvm boots a kernel directly and has no firmware";

/// Slots of PCI bus 0 without those of the host bridge, the entropy source and the balloon.
const MOST_NICS: usize = 29;
/// Processors whose APIC ids have 8 bits, as far as tried.
const MOST_PROCESSORS: u32 = 64;

/// The first thing that is missing; `None` when the machine can be run. `nics` are the machine's, each with its wiring.
pub(crate) fn lacks<'a>(
    machine: &Machine,
    nics: impl Iterator<Item = (&'a machine::Nic, &'a Interface)>,
) -> Option<String> {
    if machine.boot == Boot::Bios {
        return Some(FIRMWARE.to_owned());
    }
    if let Some(disk) = machine.disks.first() {
        return Some(format!("machine.disks[0]: engine kvm has no disks, found {:?}", disk.name));
    }
    if machine.graphics {
        return Some("machine.graphics: engine kvm has no VGA adapter".to_owned());
    }
    if machine.watchdog.is_some() {
        return Some("machine.watchdog: engine kvm has no watchdog".to_owned());
    }
    if !machine.acpi {
        return Some("machine.acpi: engine kvm always has ACPI, found false".to_owned());
    }
    if !machine.agent.is_none() {
        return Some("machine.agent: engine kvm has no channel for an agent in the guest".to_owned());
    }
    if !machine.serial_console {
        return Some("machine.serialConsole: engine kvm always has a serial console, found false".to_owned());
    }
    if machine.cpu.count() > MOST_PROCESSORS {
        let count = machine.cpu.count();
        return Some(format!("machine.cpu: engine kvm has at most {MOST_PROCESSORS} processors, found {count}"));
    }
    if machine.nics.len() > MOST_NICS {
        return Some(format!("machine.nics: engine kvm has at most {MOST_NICS} NICs, found {}", machine.nics.len()));
    }
    nics.enumerate().find_map(|(index, (nic, interface))| {
        lacks_of_nic(nic, interface).map(|(field, what)| format!("machine.nics[{index}].{field}: engine kvm {what}"))
    })
}

fn lacks_of_nic(nic: &machine::Nic, interface: &Interface) -> Option<(&'static str, String)> {
    if nic.model != NicModel::Virtio {
        return Some(("model", format!("has virtio alone, found {:?}", nic.model)));
    }
    if nic.acpi_index.is_some() {
        return Some(("acpiIndex", "gives its NICs no index".to_owned()));
    }
    if nic.pci.is_some() {
        return Some(("pci", "gives its NICs no places of their own".to_owned()));
    }
    if interface.binding == Binding::Sriov {
        return Some(("name", format!("has no passthrough devices, and {:?} has binding sriov", nic.name)));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    type Case = (fn(&mut Value), &'static str);

    fn lacks_with(change: impl FnOnce(&mut Value)) -> Option<String> {
        let mut file: Value = serde_json::from_str(include_str!("../../protocol/tests/golden/launch.json")).unwrap();
        let machine = &mut file["machine"];
        machine["boot"] = json!({"kernel": {"kernel": "/vmlinuz"}});
        machine["disks"] = json!([]);
        machine["watchdog"] = Value::Null;
        change(&mut file);
        let file = protocol::launch_file::LaunchFile::parse(file.to_string().as_bytes()).unwrap();
        lacks(&file.machine, file.nics())
    }

    // spec: ENGINE-2
    #[test]
    fn what_our_machine_lacks_is_named_by_its_field() {
        assert_eq!(lacks_with(|_| {}), None);
        let cases: [Case; 10] = [
            (|file| file["machine"]["graphics"] = json!(true), "machine.graphics: "),
            (|file| file["machine"]["boot"] = json!("bios"), "machine.boot: "),
            (|file| file["machine"]["watchdog"] = json!("reset"), "machine.watchdog: "),
            (|file| file["machine"]["acpi"] = json!(false), "machine.acpi: "),
            (|file| file["machine"]["agent"] = json!({"probes": true}), "machine.agent: "),
            (|file| file["machine"]["serialConsole"] = json!(false), "machine.serialConsole: "),
            (|file| file["machine"]["cpu"]["cores"] = json!(65), "machine.cpu: "),
            (|file| file["machine"]["nics"][0]["model"] = json!("e1000"), "machine.nics[0].model: "),
            (|file| file["machine"]["nics"][0]["acpiIndex"] = json!(3), "machine.nics[0].acpiIndex: "),
            (|file| file["machine"]["nics"][0]["pci"] = json!("0000:81:00.0"), "machine.nics[0].pci: "),
        ];
        for (change, path) in cases {
            let found = lacks_with(change).unwrap_or_else(|| panic!("{path} is not refused"));
            assert!(found.starts_with(path), "{found}");
        }
        let disk = lacks_with(|file| {
            let empty = json!({"name": "data", "bus": "virtio", "source": {"empty": {"capacityBytes": 4096}}});
            file["machine"]["disks"] = json!([empty]);
        });
        assert_eq!(disk.as_deref(), Some("machine.disks[0]: engine kvm has no disks, found \"data\""));
    }
}
