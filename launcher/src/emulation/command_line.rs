//! QEMU's command line, from a machine and the numbers of the descriptors QEMU inherits.
//!
//! Everything a manifest's author chose goes into JSON arguments, where it is data; the rest is numbers and our own words.
//! PCI layout: the VGA adapter at slot 1, root ports at slots 2 and 3 ([`super::pci`]), fixed devices at slots 4 to 7 and 30, the USB controller next
//! to the panic device; virtio disks from slot 8, eight functions a slot. Without addresses disks never move a NIC, nor NICs a disk.

use std::os::fd::RawFd;

use machine::{Boot, Bus, Cache, CpuModel, Disk, FREE_SLOTS, Machine, Nic, NicModel, RebootPolicy, WatchdogAction};
use protocol::control::Accelerator;
use serde_json::{Map, Value, json};
use terms::{MacAddr, Mtu};

use super::pci::{FUNCTIONS, Layout, Place};
use crate::engine::EngineError;
use block::Format;

/// Translated code QEMU may keep; its default is a gigabyte, more than most guests have memory.
const TRANSLATION_CACHE_MIB: u32 = 128;
const VGA_SLOT: &str = "1.0";
const RNG_SLOT: &str = "4.0";
const WATCHDOG_SLOT: &str = "5.0";
const SCSI_SLOT: &str = "6.0";
const PANIC_SLOT: &str = "7.0";
const USB_SLOT: &str = "7.1";
const SERIAL_SLOT: &str = "1e.0";
/// How a guest's agent finds its channel.
const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";
/// How the monitor's events name the agent's channel.
pub(crate) const AGENT_PORT: &str = "agent0";
const MAX_NICS: usize = 16;
/// Ports of the xHCI controller, of either speed: the most that it can have.
const USB_PORTS: usize = 15;
/// Ports of the AHCI controller that is part of q35.
const SATA_PORTS: usize = 6;

/// Numbers of inherited descriptors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Descriptors {
    pub(crate) monitor: RawFd,
    pub(crate) console: RawFd,
    pub(crate) agent: Option<RawFd>,
    pub(crate) nics: Vec<NicDescriptors>,
    pub(crate) disks: Vec<DiskDescriptors>,
}

/// A NIC's descriptors and what only the wiring knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NicDescriptors {
    pub(crate) mac: MacAddr,
    pub(crate) mtu: Option<Mtu>,
    pub(crate) queues: Vec<RawFd>,
    pub(crate) vhost: Vec<RawFd>,
}

/// A disk's layers, the one that takes writes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiskDescriptors {
    pub(crate) top: LayerDescriptor,
    pub(crate) base: Option<LayerDescriptor>,
}

/// One image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerDescriptor {
    pub(crate) fd: RawFd,
    pub(crate) format: Format,
    pub(crate) read_only: bool,
    pub(crate) is_device: bool,
    pub(crate) direct: bool,
}

/// Puts the command line together, without the program's name.
///
/// # Errors
/// When the machine has more devices than the layout holds.
pub(crate) fn arguments(
    machine: &Machine,
    accelerator: Accelerator,
    descriptors: &Descriptors,
) -> Result<Vec<String>, EngineError> {
    check_limits(machine)?;
    let mut line = Line::default();
    platform(&mut line, machine, accelerator);
    boot(&mut line, &machine.boot);
    line.option("-chardev", format!("socket,id=monitor,fd={}", descriptors.monitor));
    line.option("-mon", "chardev=monitor,mode=control".to_owned());
    line.option("-chardev", format!("socket,id=console,fd={}", descriptors.console));
    if machine.serial_console {
        line.device(json!({"driver": "isa-serial", "id": "serial0", "chardev": "console", "index": 0}));
    }
    let order = BootOrder::of(machine);
    let layout = Layout::of(machine)?;
    layout.bridges.iter().for_each(|bridge| line.device(bridge.clone()));
    for (index, (nic, with)) in machine.nics.iter().zip(&descriptors.nics).enumerate() {
        let place = layout.nics.get(index);
        network(&mut line, index, (nic, place), with, order.nic(nic));
    }
    fixed_devices(&mut line, machine);
    if let Some(agent) = descriptors.agent {
        agent_channel(&mut line, agent);
    }
    let mut places = Places::around(&layout);
    for (index, (disk, with)) in machine.disks.iter().zip(&descriptors.disks).enumerate() {
        storage(&mut line, index, disk, with);
        let mut device = drive(index, disk, order.disk(index, disk), &mut places)?;
        if let Some(place) = layout.disks.get(&index) {
            place.give(&mut device);
        }
        line.device(device);
    }
    Ok(line.0)
}

fn check_limits(machine: &Machine) -> Result<(), EngineError> {
    let over = |what: &str, count: usize, most: usize| {
        Err(EngineError::Unsupported(format!("the machine has {count} {what}, at most {most} are supported")))
    };
    let on = |bus| machine.disks.iter().filter(|disk| disk.bus == bus).count();
    if machine.nics.len() > MAX_NICS {
        return over("NICs", machine.nics.len(), MAX_NICS);
    }
    if on(Bus::Sata) > SATA_PORTS {
        return over("SATA disks", on(Bus::Sata), SATA_PORTS);
    }
    if on(Bus::Usb) > USB_PORTS {
        return over("USB disks", on(Bus::Usb), USB_PORTS);
    }
    Ok(())
}

/// A command line in the making.
#[derive(Debug, Default)]
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn option(&mut self, option: &str, value: String) {
        self.0.extend([option.to_owned(), value]);
    }

    fn device(&mut self, device: Value) {
        self.option("-device", device.to_string());
    }
}

/// QEMU's name of a model on KVM. It has no processors of the x86-64 psABI's levels: these are the oldest that have all of one.
fn kvm_model(model: CpuModel) -> &'static str {
    match model {
        CpuModel::HostModel | CpuModel::HostPassthrough => "host",
        CpuModel::X86V2 => "Nehalem,enforce",
        CpuModel::X86V3 => "Haswell-noTSX,enforce",
    }
}

fn platform(line: &mut Line, machine: &Machine, accelerator: Accelerator) {
    line.option(
        "-name",
        format!("{},debug-threads=on", comma_doubled(&format!("{}/{}", machine.namespace, machine.name))),
    );
    ["-nodefaults", "-no-user-config", "-S"].into_iter().for_each(|flag| line.flag(flag));
    line.option("-display", "none".to_owned());
    // No second program, no privileges: what takes QEMU over stays inside it.
    line.option("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny".to_owned());
    line.option("-msg", "timestamp=off".to_owned());
    // `graphics=off` sends the firmware's messages to the serial port.
    let graphics = if machine.graphics { "on" } else { "off" };
    let acpi = if machine.acpi { "" } else { ",acpi=off" };
    let memory = machine.hugepage_bytes.map_or("", |_| ",memory-backend=memory");
    line.option(
        "-machine",
        format!("q35,usb=off,vmport=off,smm=off,graphics={graphics},dump-guest-core=off{acpi}{memory}"),
    );
    match accelerator {
        Accelerator::Tcg => {
            // Two processors, each in a thread of its own, now and then stay for good in the handler of a breakpoint while the
            // guest's kernel patches its own code (seen with QEMU 7.2 and Linux 6.1): they take turns in one thread.
            let threads = if machine.cpu.count() > 1 { "thread=single," } else { "" };
            line.option("-accel", format!("tcg,{threads}tb-size={TRANSLATION_CACHE_MIB}"));
            line.option("-cpu", "max".to_owned());
        }
        Accelerator::Kvm => {
            line.option("-accel", "kvm".to_owned());
            line.option("-cpu", kvm_model(machine.cpu.model).to_owned());
        }
    }
    let cpu = machine.cpu;
    let count = cpu.count();
    line.option("-smp", format!("cpus={count},sockets={},cores={},threads={}", cpu.sockets, cpu.cores, cpu.threads));
    line.option("-m", format!("size={}B", machine.memory_bytes));
    if let Some(page) = machine.hugepage_bytes {
        let size = machine.memory_bytes;
        let huge = format!("hugetlb=on,hugetlbsize={page}");
        line.option("-object", format!("memory-backend-memfd,id=memory,size={size},share=off,{huge}"));
    }
    line.option("-uuid", machine.uuid.clone());
    let serial = machine.serial_number.iter().map(|serial| format!(",serial={}", comma_doubled(serial)));
    line.option("-smbios", ["type=1,manufacturer=Tapvisor,product=VM".to_owned()].into_iter().chain(serial).collect());
    line.option("-rtc", "base=utc,driftfix=slew".to_owned());
    let watchdog = machine.watchdog.map_or("none", |action| match action {
        WatchdogAction::Poweroff => "poweroff",
        WatchdogAction::Reset => "reset",
        WatchdogAction::Shutdown => "shutdown",
    });
    let reboot = match machine.reboot_policy {
        RebootPolicy::Reboot => "reset",
        RebootPolicy::Terminate => "shutdown",
    };
    line.option("-action", format!("panic=shutdown,reboot={reboot},watchdog={watchdog}"));
}

fn boot(line: &mut Line, boot: &Boot) {
    // `strict`: the firmware tries the devices with a boot index and no others.
    line.option("-boot", "strict=on".to_owned());
    let Boot::Kernel { kernel, initrd, command_line } = boot else { return };
    line.option("-kernel", kernel.display().to_string());
    if let Some(initrd) = initrd {
        line.option("-initrd", initrd.display().to_string());
    }
    if !command_line.is_empty() {
        line.option("-append", command_line.clone());
    }
}

fn fixed_devices(line: &mut Line, machine: &Machine) {
    let at = |driver: &str, id: &str, slot: &str| json!({"driver": driver, "id": id, "bus": "pcie.0", "addr": slot});
    if machine.rng {
        line.option(
            "-object",
            json!({"qom-type": "rng-random", "id": "entropy", "filename": "/dev/urandom"}).to_string(),
        );
        let mut device = at("virtio-rng-pci", "rng0", RNG_SLOT);
        device["rng"] = json!("entropy");
        device["disable-legacy"] = json!("on");
        line.device(device);
    }
    if machine.graphics {
        line.device(at("VGA", "vga0", VGA_SLOT));
        // Clients come by `add_client`.
        line.option("-vnc", "none".to_owned());
    }
    if machine.watchdog.is_some() {
        line.device(at("i6300esb", "watchdog0", WATCHDOG_SLOT));
    }
    if machine.disks.iter().any(|disk| disk.bus == Bus::Scsi) {
        let mut device = at("virtio-scsi-pci", "scsi0", SCSI_SLOT);
        device["disable-legacy"] = json!("on");
        line.device(device);
    }
    let mut panic = at("pvpanic-pci", "panic0", PANIC_SLOT);
    if machine.disks.iter().any(|disk| disk.bus == Bus::Usb) {
        let mut device = at("qemu-xhci", "usb0", USB_SLOT);
        (device["p2"], device["p3"]) = (json!(USB_PORTS), json!(USB_PORTS));
        panic["multifunction"] = json!(true);
        line.device(panic);
        line.device(device);
    } else {
        line.device(panic);
    }
}

/// The port alone: no guest program is needed for the machine to run.
fn agent_channel(line: &mut Line, agent: RawFd) {
    line.option("-chardev", format!("socket,id=agent,fd={agent}"));
    line.device(json!({"driver": "virtio-serial-pci", "id": "serial1", "bus": "pcie.0", "addr": SERIAL_SLOT,
        "disable-legacy": "on", "max_ports": 2}));
    line.device(json!({"driver": "virtserialport", "id": AGENT_PORT, "bus": "serial1.0", "nr": 1,
        "chardev": "agent", "name": AGENT_CHANNEL}));
}

fn network(
    line: &mut Line,
    index: usize,
    (nic, place): (&Nic, Option<&Place>),
    with: &NicDescriptors,
    boot_index: Option<usize>,
) {
    let numbers = |fds: &[RawFd]| fds.iter().map(ToString::to_string).collect::<Vec<_>>().join(":");
    let mut backend = match with.queues.as_slice() {
        [only] => format!("tap,id=net{index},fd={only}"),
        several => format!("tap,id=net{index},fds={}", numbers(several)),
    };
    match with.vhost.as_slice() {
        [] => {}
        [only] => backend.push_str(&format!(",vhost=on,vhostfd={only}")),
        several => backend.push_str(&format!(",vhost=on,vhostfds={}", numbers(several))),
    }
    line.option("-netdev", backend);
    let mut device = network_device(index, nic, with, boot_index);
    if let Some(place) = place {
        place.give(&mut device);
    }
    line.device(device);
}

/// How the monitor knows the guest's side of a NIC.
pub(crate) fn nic_id(index: usize) -> String {
    format!("nic{index}")
}

fn network_device(index: usize, nic: &Nic, with: &NicDescriptors, boot_index: Option<usize>) -> Value {
    let driver = match nic.model {
        NicModel::Virtio => "virtio-net-pci",
        NicModel::E1000 => "e1000",
        NicModel::E1000e => "e1000e",
        NicModel::Rtl8139 => "rtl8139",
    };
    let mut device = json!({"driver": driver, "id": nic_id(index), "netdev": format!("net{index}"),
        "mac": with.mac.to_string()});
    if nic.model == NicModel::Virtio {
        if let Some(mtu) = with.mtu {
            device["host_mtu"] = json!(mtu);
        }
        if with.queues.len() > 1 {
            device["mq"] = json!(true);
            // One for each receive and transmit queue, one for configuration, one for control.
            device["vectors"] = json!(2 * with.queues.len() + 2);
        }
    }
    if let Some(acpi_index) = nic.acpi_index {
        device["acpi-index"] = json!(acpi_index);
    }
    match boot_index {
        Some(boot_index) => device["bootindex"] = json!(boot_index),
        // Without its ROM the firmware does not try to boot from it.
        None => device["romfile"] = json!(""),
    }
    device
}

fn storage(line: &mut Line, index: usize, disk: &Disk, with: &DiskDescriptors) {
    if let Some(base) = &with.base {
        layer(line, &format!("disk{index}-base"), 2 * index + 1, *base, None);
    }
    let below = with.base.map(|_| format!("disk{index}-base"));
    layer(line, &format!("disk{index}"), 2 * index, with.top, below.as_deref());
    tracing::debug!(disk = disk.name, index, "disk");
}

/// Two block nodes, file and format; the format is pinned and the layer below named here, whatever the image's header says.
fn layer(line: &mut Line, node: &str, set: usize, layer: LayerDescriptor, below: Option<&str>) {
    line.option("-add-fd", format!("fd={},set={set}", layer.fd));
    let cache = json!({"direct": layer.direct, "no-flush": false});
    let discard = if layer.read_only { "ignore" } else { "unmap" };
    // QEMU refuses a device by its driver for files.
    let driver = if layer.is_device { "host_device" } else { "file" };
    let file = json!({"driver": driver, "node-name": format!("{node}-file"), "filename": format!("/dev/fdset/{set}"),
        "read-only": layer.read_only, "auto-read-only": false, "discard": discard, "cache": cache});
    line.option("-blockdev", file.to_string());
    let mut format = Map::new();
    let driver = match layer.format {
        Format::Raw => "raw",
        Format::Qcow2 => {
            format.insert("backing".into(), below.map_or(Value::Null, |below| json!(below)));
            "qcow2"
        }
    };
    format.insert("driver".into(), json!(driver));
    format.insert("node-name".into(), json!(node));
    format.insert("file".into(), json!(format!("{node}-file")));
    format.insert("read-only".into(), json!(layer.read_only));
    format.insert("discard".into(), json!(discard));
    format.insert("cache".into(), cache);
    line.option("-blockdev", Value::Object(format).to_string());
}

/// What each bus has given out.
#[derive(Debug)]
struct Places {
    /// Slots of bus 0 for virtio disks, and how many disks are in them.
    slots: Vec<usize>,
    virtio: usize,
    sata: usize,
    scsi: usize,
    usb: usize,
}

impl Places {
    fn around(layout: &Layout) -> Self {
        let slots = FREE_SLOTS.map(usize::from).filter(|slot| !layout.taken.contains(slot));
        Self { slots: slots.collect(), virtio: 0, sata: 0, scsi: 0, usb: 0 }
    }

    /// The next function for a virtio disk.
    fn virtio(&mut self) -> Result<String, EngineError> {
        let place = self.virtio;
        self.virtio += 1;
        let most = self.slots.len() * FUNCTIONS;
        let full = || EngineError::Unsupported(format!("there is room for {most} virtio disks without an address"));
        let slot = self.slots.get(place / FUNCTIONS).ok_or_else(full)?;
        Ok(format!("{slot:x}.{:x}", place % FUNCTIONS))
    }
}

fn drive(index: usize, disk: &Disk, boot_index: Option<usize>, places: &mut Places) -> Result<Value, EngineError> {
    let take = |counter: &mut usize| std::mem::replace(counter, *counter + 1);
    let mut device = match (disk.bus, disk.cdrom) {
        (Bus::Virtio, true) => {
            return Err(EngineError::Unsupported(format!("disk {:?}: a CD-ROM cannot be on virtio", disk.name)));
        }
        (Bus::Virtio, false) if disk.pci.is_some() => json!({"driver": "virtio-blk-pci", "disable-legacy": "on"}),
        (Bus::Virtio, false) => {
            json!({"driver": "virtio-blk-pci", "bus": "pcie.0", "addr": places.virtio()?, "multifunction": true,
                "disable-legacy": "on"})
        }
        (Bus::Sata, cdrom) => {
            let driver = if cdrom { "ide-cd" } else { "ide-hd" };
            json!({"driver": driver, "bus": format!("ide.{}", take(&mut places.sata))})
        }
        (Bus::Usb, true) => {
            return Err(EngineError::Unsupported(format!("disk {:?}: a CD-ROM cannot be on usb", disk.name)));
        }
        (Bus::Usb, false) => {
            json!({"driver": "usb-storage", "bus": "usb0.0", "port": (take(&mut places.usb) + 1).to_string()})
        }
        (Bus::Scsi, cdrom) => {
            let driver = if cdrom { "scsi-cd" } else { "scsi-hd" };
            json!({"driver": driver, "bus": "scsi0.0", "scsi-id": 0, "lun": take(&mut places.scsi)})
        }
    };
    device["id"] = json!(format!("drive{index}"));
    device["drive"] = json!(format!("disk{index}"));
    if !disk.cdrom {
        device["write-cache"] = json!(if disk.cache == Cache::Writethrough { "off" } else { "on" });
    }
    if let Some(serial) = &disk.serial {
        device["serial"] = json!(serial);
    }
    if let Some(boot_index) = boot_index {
        device["bootindex"] = json!(boot_index);
    }
    Ok(device)
}

/// The firmware's order: as given, or all disks in their own order when nothing is.
struct BootOrder {
    is_given: bool,
}

impl BootOrder {
    fn of(machine: &Machine) -> Self {
        let disks = machine.disks.iter().filter_map(|disk| disk.boot_order);
        let nics = machine.nics.iter().filter_map(|nic| nic.boot_order);
        Self { is_given: disks.chain(nics).next().is_some() }
    }

    fn disk(&self, index: usize, disk: &Disk) -> Option<usize> {
        match disk.boot_order {
            Some(order) => usize::try_from(order).ok(),
            None => (!self.is_given).then_some(index + 1),
        }
    }

    #[expect(clippy::unused_self, reason = "used together with `disk`: both give the same order")]
    fn nic(&self, nic: &Nic) -> Option<usize> {
        nic.boot_order.and_then(|order| usize::try_from(order).ok())
    }
}

/// A value in QEMU's `key=value,…` form, where a comma is written twice.
fn comma_doubled(text: &str) -> String {
    text.replace(',', ",,")
}

#[cfg(test)]
#[path = "command_line_tests.rs"]
mod tests;
