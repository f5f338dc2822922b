//! Disks, each with its volume.

use std::collections::BTreeMap;

use super::boot_order::BootOrders;
use super::pci::read_pci;
use super::volume::{self, NamedVolume};
use super::{FileSource, Volume};
use crate::metadata::Labels;
use crate::reader::{Fields, Node, Scope};
use machine::{Bus, Cache, DiskFormat, PciAddress};

/// A disk the guest sees and the volume in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Name of disk and volume.
    pub name: String,
    /// What the guest sees it as.
    pub device: DiskDevice,
    /// Controller it hangs on.
    pub bus: Bus,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Serial number the guest reads.
    pub serial: Option<String>,
    /// Place in the firmware's order over disks and NICs.
    pub boot_order: Option<u32>,
    /// The place of a virtio disk on the PCI buses.
    pub pci: Option<PciAddress>,
    /// How writes reach the host's storage.
    pub cache: Cache,
    /// Where its content comes from.
    pub volume: Volume,
}

/// What the guest sees a disk as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskDevice {
    /// A disk.
    Disk,
    /// A CD-ROM drive with a medium.
    Cdrom,
}

/// KubeVirt's default on amd64.
const DEFAULT_BUS: Bus = Bus::Sata;
const MAX_DISKS: usize = 256;
/// Ports of the machine's AHCI controller.
const SATA_PORTS: usize = 6;
/// Ports of the machine's xHCI controller.
const USB_PORTS: usize = 15;
/// PCI functions that are left for disks.
const MAX_VIRTIO_DISKS: usize = 176;
/// Annotation that says how the file of a hostDisk holds the disk; the volume's name follows.
const FORMAT: &str = "tapvisor.io/disk-format.";

struct Device {
    name: Option<String>,
    device: DiskDevice,
    bus: Bus,
    read_only: bool,
    serial: Option<String>,
    boot_order: Option<u32>,
    pci: Option<PciAddress>,
    cache: Cache,
}

/// Joins disks and volumes by name; a volume without a disk gets one, as KubeVirt gives it.
pub(super) fn read(volumes: &[Node<'_>], disks: &[Node<'_>], boot_orders: &mut BootOrders) -> Vec<Disk> {
    let mut by_name = read_volumes(volumes);
    let (mut joined, mut ports) = (Vec::new(), Ports::default());
    let mut names = BTreeMap::new();
    for node in disks.iter().take(MAX_DISKS) {
        let Some(device) = node.fields(|disk| read_device(disk, boot_orders)) else { continue };
        let Some(name) = device.name.clone() else { continue };
        if let Some(earlier) = names.insert(name.clone(), node.path().to_owned()) {
            node.named("name").refuse(format!("{name:?} is the name of {earlier} too"));
            continue;
        }
        match by_name.remove(&name) {
            Some(named) => {
                ports.take(device.bus, node);
                joined.extend(named.volume.map(|volume| join(name, device, volume)));
            }
            None => node.named("name").refuse(format!("there is no volume {name:?}")),
        }
    }
    if let Some(node) = disks.get(MAX_DISKS) {
        node.refuse(format!("there can be at most {MAX_DISKS} disks"));
    }
    // Those left, in the order they were given.
    let rest = volumes.iter().filter_map(|node| {
        let name = by_name.iter().find(|(_, named)| named.node.path() == node.path())?.0.clone();
        ports.take(DEFAULT_BUS, node);
        let volume = by_name.remove(&name)?.volume?;
        Some(join(name, Device::default(), volume))
    });
    joined.extend(rest);
    joined
}

/// How many disks a bus has so far.
#[derive(Default)]
struct Ports {
    sata: usize,
    usb: usize,
    virtio: usize,
}

impl Ports {
    fn take(&mut self, bus: Bus, node: &Node<'_>) {
        const OTHERS: &str = "; a disk without a bus is on sata, others are virtio and scsi";
        let (used, most, name, hint) = match bus {
            Bus::Sata => (&mut self.sata, SATA_PORTS, "sata", OTHERS),
            Bus::Virtio => (&mut self.virtio, MAX_VIRTIO_DISKS, "virtio", ""),
            Bus::Usb => (&mut self.usb, USB_PORTS, "usb", ""),
            Bus::Scsi => return,
        };
        *used += 1;
        if *used == most + 1 {
            node.refuse(format!("is disk {used} on bus {name}, which has room for {most}{hint}"));
        }
    }
}

/// Applies the annotations that say how hostDisks hold their disks. `object` has the metadata.
pub(super) fn read_formats(object: &Fields<'_>, annotations: &Labels, disks: &mut [Disk]) {
    for (key, value) in annotations {
        let Some(volume) = key.strip_prefix(FORMAT) else { continue };
        let node = object.node().named("metadata").named("annotations").named(key);
        let format = match value.as_str() {
            "raw" => DiskFormat::Raw,
            "qcow2" => DiskFormat::Qcow2,
            other => {
                let other: String = other.chars().take(40).collect();
                node.refuse(format!("must be raw or qcow2, found {other:?}"));
                continue;
            }
        };
        match disks.iter_mut().find(|disk| disk.name == volume).map(|disk| &mut disk.volume) {
            Some(Volume::HostDisk { format: of_disk, is_format_given, .. }) => {
                (*of_disk, *is_format_given) = (format, true);
            }
            Some(_) => node.refuse(format!("volume {volume:?} is no hostDisk: others are never written in place")),
            None => node.refuse(format!("there is no volume {volume:?}")),
        }
    }
}

/// Annotations of a VirtualMachine do not reach its instances.
pub(super) fn warn_of_formats(object: &Fields<'_>, annotations: &Labels) {
    for key in annotations.keys().filter(|key| key.starts_with(FORMAT)) {
        let node = object.node().named("metadata").named("annotations").named(key);
        node.warn(Scope::Everywhere, "annotations of instances stand in spec.template.metadata");
    }
}

fn read_volumes<'a>(volumes: &[Node<'a>]) -> BTreeMap<String, NamedVolume<'a>> {
    let mut by_name: BTreeMap<String, NamedVolume<'a>> = BTreeMap::new();
    let (mut cloud_init, mut account): (Option<String>, Option<String>) = (None, None);
    for named in volumes.iter().take(MAX_DISKS).filter_map(volume::read) {
        if matches!(named.volume, Some(Volume::CloudInitNoCloud(_) | Volume::CloudInitConfigDrive(_))) {
            match &cloud_init {
                Some(earlier) => {
                    named.node.refuse(format!("is a second cloud-init volume after {earlier}, there can be one"))
                }
                None => cloud_init = Some(named.node.path().to_owned()),
            }
        }
        if matches!(named.volume, Some(Volume::Files { source: FileSource::ServiceAccount { .. }, .. })) {
            match &account {
                Some(earlier) => {
                    named.node.refuse(format!("is a second service account after {earlier}: a pod has one"));
                }
                None => account = Some(named.node.path().to_owned()),
            }
        }
        match by_name.get(&named.name) {
            Some(earlier) => {
                let complaint = format!("{:?} is the name of {} too", named.name, earlier.node.path());
                named.node.named("name").refuse(complaint);
            }
            None => {
                by_name.insert(named.name.clone(), named);
            }
        }
    }
    if let Some(node) = volumes.get(MAX_DISKS) {
        node.refuse(format!("there can be at most {MAX_DISKS} volumes"));
    }
    by_name
}

fn join(name: String, device: Device, volume: Volume) -> Disk {
    let Device { device, bus, read_only, serial, boot_order, pci, cache, .. } = device;
    Disk { name, device, bus, read_only, serial, boot_order, pci, cache, volume }
}

impl Default for Device {
    fn default() -> Self {
        let (name, device, bus, read_only, serial, boot_order, pci) =
            (None, DiskDevice::Disk, DEFAULT_BUS, false, None, None, None);
        Self { name, device, bus, read_only, serial, boot_order, pci, cache: Cache::default() }
    }
}

fn read_device(disk: &Fields<'_>, boot_orders: &mut BootOrders) -> Device {
    disk.unsupported(&["blockSize", "changedBlockTracking", "errorPolicy", "lun", "shareable", "tag"]);
    disk.ignored(Scope::Everywhere, "the engine chooses its own threads", &["dedicatedIOThread", "io"]);
    let as_disk = disk.field("disk").map(|node| node.fields(read_target));
    let as_cdrom = disk.field("cdrom").map(|node| node.fields(read_cdrom));
    if as_disk.is_some() && as_cdrom.is_some() {
        disk.node().refuse("is either a disk or a cdrom");
    }
    let device = if as_cdrom.is_some() { DiskDevice::Cdrom } else { DiskDevice::Disk };
    let pci = as_disk.flatten().and_then(|(_, _, pci)| pci);
    let as_disk = as_disk.map(|target| target.map(|(bus, read_only, _)| (bus, read_only)));
    let (bus, read_only) = as_cdrom.or(as_disk).flatten().unwrap_or((DEFAULT_BUS, false));
    let caches = &[("none", Cache::None), ("writethrough", Cache::Writethrough), ("writeback", Cache::Writeback)];
    Device {
        name: volume::read_name(disk),
        device,
        bus,
        read_only,
        serial: read_serial(disk, bus),
        boot_order: boot_orders.read(disk),
        pci,
        cache: disk.one_of("cache", caches, &[]).unwrap_or_default(),
    }
}

fn read_target(target: &Fields<'_>) -> (Bus, bool, Option<PciAddress>) {
    let buses = &[("virtio", Bus::Virtio), ("sata", Bus::Sata), ("scsi", Bus::Scsi), ("usb", Bus::Usb)];
    let bus = target.one_of("bus", buses, &[]).unwrap_or(DEFAULT_BUS);
    let pci = target.set("pciAddress").and_then(|node| {
        if bus == Bus::Virtio {
            return read_pci(&node);
        }
        node.refuse("only a disk on bus virtio is a PCI device of its own");
        None
    });
    (bus, target.boolean("readonly").unwrap_or(false), pci)
}

/// The fields with the addresses of disks.
pub(super) fn pci_addresses<'a>(devices: &Fields<'a>, disks: &[Disk]) -> Vec<(Node<'a>, PciAddress)> {
    let given = devices.items("disks").into_iter().filter_map(|node| {
        let of_node = |disk: &&Disk| node.value().get("name") == Some(&disk.name.as_str().into());
        let address = disks.iter().find(of_node)?.pci?;
        Some((node.named("disk").named("pciAddress"), address))
    });
    given.collect()
}

fn read_cdrom(target: &Fields<'_>) -> (Bus, bool) {
    if let Some(node) = target.set("bus")
        && node.value() == "virtio"
    {
        node.refuse("a CD-ROM drive has bus sata or scsi");
    }
    let buses = &[("sata", Bus::Sata), ("scsi", Bus::Scsi), ("virtio", Bus::Virtio)];
    let bus = target.one_of("bus", buses, &["usb"]).unwrap_or(DEFAULT_BUS);
    target.one_of("tray", &[("closed", ())], &["open"]);
    if let Some(node) = target.field("readonly")
        && node.boolean() == Some(false)
    {
        node.refuse_unsupported("a CD-ROM is read-only");
    }
    (bus, true)
}

fn read_serial(disk: &Fields<'_>, bus: Bus) -> Option<String> {
    // VIRTIO_BLK_ID_BYTES.
    const VIRTIO_BYTES: usize = 20;
    let node = disk.set("serial")?;
    let text = node.text()?;
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'+' | b'-');
    if text.len() > 256 || !text.bytes().all(good) {
        node.expected("at most 256 letters, digits, '_', '.', '+' and '-'");
        return None;
    }
    if bus == Bus::Virtio && text.len() > VIRTIO_BYTES {
        node.warn(Scope::Everywhere, format!("beyond {VIRTIO_BYTES} characters, a virtio disk shows no more"));
    }
    Some(text.to_owned())
}
