//! DSDT (ACPI 6.5 §5.2.11.1): the devices that cannot be found by looking, in AML.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Device, EISAName, Field, FieldAccessType, FieldEntry, FieldLockRule,
    FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method, Name, Notify, ONE, OpRegion, OpRegionSpace,
    Package, Path, ResourceTemplate, Scope, Store, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::sdt;
use crate::devices::{EVENTS, POWER_BUTTON, S5_TYPE};
use crate::layout::{
    ECAM, ECAM_SIZE, EVENT_INTERRUPT, PCI_ADDRESS, PCI_WINDOW, POWER, PVPANIC, RTC, SERIAL, SERIAL_INTERRUPT,
    SERIAL_PORTS,
};

/// The table.
pub(super) fn table(processors: usize) -> Sdt {
    let mut body = Vec::new();
    // §7.4.2: what sleep control takes for S5.
    Name::new("_S5_".into(), &Package::new(vec![&S5_TYPE, &S5_TYPE, &ZERO, &ZERO])).to_aml_bytes(&mut body);
    processor_devices(processors, &mut body);
    pci(&mut body);
    events(&mut body);
    legacy(&mut body);
    let mut dsdt = sdt(*b"DSDT", 36, 6);
    dsdt.append_slice(&body);
    dsdt
}

/// A device of the system bus.
fn device(path: &str, fields: &[Name], body: &mut Vec<u8>) {
    device_of(path, fields.iter().map(|field| field as &dyn Aml).collect(), body);
}

fn device_of(path: &str, fields: Vec<&dyn Aml>, body: &mut Vec<u8>) {
    Scope::new("_SB_".into(), vec![&Device::new(path.into(), fields)]).to_aml_bytes(body);
}

fn field(name: &str, value: &dyn Aml) -> Name {
    Name::new(name.into(), value)
}

fn resources(list: Vec<&dyn Aml>) -> Name {
    field("_CRS", &ResourceTemplate::new(list))
}

/// ACPI0007 devices, §8.4.1: their `_UID` is that of the MADT's entries.
fn processor_devices(processors: usize, body: &mut Vec<u8>) {
    for processor in (0_u32..).take(processors) {
        device(&format!("C{processor:03X}"), &[field("_HID", &"ACPI0007"), field("_UID", &processor)], body);
    }
}

/// The root bridge: one bus, its ports and its window of memory.
fn pci(body: &mut Vec<u8>) {
    let (ecam, ecam_size) = (as_u32(ECAM), as_u32(ECAM_SIZE));
    let configuration = Memory32Fixed::new(true, ecam, ecam_size);
    // What is reserved for the board, so that Linux trusts the configuration space (PCI Firmware 3.3 §4.1.2).
    let board = [field("_HID", &EISAName::new("PNP0C02")), field("_UID", &ZERO), resources(vec![&configuration])];
    device("MBRD", &board, body);
    let buses = AddressSpace::new_bus_number(0_u16, 0_u16);
    let mechanism_1 = IO::new(PCI_ADDRESS, PCI_ADDRESS, 1, 8);
    let ports_below = AddressSpace::new_io(0_u16, PCI_ADDRESS - 1, None);
    let ports_above = AddressSpace::new_io(PCI_ADDRESS + 8, u16::MAX, None);
    let window = AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, PCI_WINDOW, ecam - 1, None);
    let bridge = [
        field("_HID", &EISAName::new("PNP0A08")),
        field("_CID", &EISAName::new("PNP0A03")),
        field("_UID", &ZERO),
        field("_SEG", &ZERO),
        field("_BBN", &ZERO),
        field("_CCA", &ONE),
        resources(vec![&buses, &mechanism_1, &ports_below, &ports_above, &window]),
    ];
    device("PCI0", &bridge, body);
}

/// The power button (§4.8.2.2.1.2), and the event device (§5.6.9), whose interrupt says that there is something to report and
/// whose method takes what it is and reports it.
fn events(body: &mut Vec<u8>) {
    device("PWRB", &[field("_HID", &EISAName::new("PNP0C0C")), field("_UID", &ZERO)], body);
    let (hid, uid) = (field("_HID", &"ACPI0013"), field("_UID", &ZERO));
    let interrupt = Interrupt::new(true, false, false, false, EVENT_INTERRUPT.into());
    let interrupt = resources(vec![&interrupt]);
    let (port, one) = (POWER + u16::from(EVENTS), 1_u8);
    let region = OpRegion::new("EREG".into(), OpRegionSpace::SystemIO, &port, &one);
    let register = vec![FieldEntry::Named(*b"EVTS", 8)];
    let (access, update) = (FieldAccessType::Byte, FieldUpdateRule::WriteAsZeroes);
    let register = Field::new("EREG".into(), access, FieldLockRule::NoLock, update, register);
    let (events, seen, button) = (Path::new("EVTS"), Local(0), Local(1));
    let (take, clear) = (Store::new(&seen, &events), Store::new(&events, &seen));
    let is_button = And::new(&button, &seen, &POWER_BUTTON);
    let (path, pressed) = (Path::new("\\_SB_.PWRB"), 0x80_u8);
    let notify = Notify::new(&path, &pressed);
    let report = If::new(&button, vec![&notify]);
    let method = Method::new("_EVT".into(), 1, true, vec![&take, &clear, &is_button, &report]);
    device_of("GED_", vec![&hid, &uid, &interrupt, &region, &register, &method], body);
}

/// Serial port, clock, and the port where a kernel reports that it gave up.
fn legacy(body: &mut Vec<u8>) {
    let ports = |first: u16, count: u8| IO::new(first, first, 1, count);
    let [serial_ports, _] = SERIAL_PORTS.to_le_bytes();
    let interrupt = Interrupt::new(true, true, false, false, SERIAL_INTERRUPT);
    let serial = resources(vec![&interrupt, &ports(SERIAL, serial_ports)]);
    device("COM1", &[field("_HID", &EISAName::new("PNP0501")), field("_UID", &ZERO), serial], body);
    device("RTC_", &[field("_HID", &EISAName::new("PNP0B00")), resources(vec![&ports(RTC, 2)])], body);
    // QEMU, docs/specs/pvpanic.rst. Status: present, enabled, shown, working (§6.3.7).
    let status = field("_STA", &0x0f_u8);
    device("PEVT", &[field("_HID", &"QEMU0001"), status, resources(vec![&ports(PVPANIC, 1)])], body);
}

/// Addresses below the hole's end.
fn as_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
