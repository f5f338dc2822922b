//! Where NICs, and devices with an address, are on the guest's PCI buses.
//!
//! Root ports are functions of slots 2 and 3, in the order of their buses' numbers, because the firmware numbers buses one after
//! the other as it finds them. A NIC without an address gets the lowest bus that is free, so that the first is `enp1s0` as under
//! KubeVirt.

use std::collections::{BTreeMap, BTreeSet};

use machine::{Machine, NicModel, PCI_PORTS, PciAddress};
use serde_json::{Value, json};

use crate::engine::EngineError;

/// Functions of a slot.
pub(super) const FUNCTIONS: usize = 8;
const FIRST_PORT_SLOT: usize = 2;
/// Ports and roots of their own in slots 2 and 3.
const MOST_PORTS: usize = 2 * FUNCTIONS;

/// The bridges of a machine, and where its devices are on them.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Ports, roots and bridges, each before what is behind it.
    pub(super) bridges: Vec<Value>,
    /// Bus and slot of each NIC.
    pub(super) nics: Vec<Place>,
    /// The same for disks that have an address.
    pub(super) disks: BTreeMap<usize, Place>,
    /// Slots of bus 0 that devices asked for.
    pub(super) taken: BTreeSet<usize>,
}

/// Where a device is: properties of its own.
#[derive(Debug, Clone)]
pub(super) struct Place {
    bus: String,
    slot: Option<u8>,
}

impl Place {
    /// Puts a device there.
    pub(super) fn give(&self, device: &mut Value) {
        device["bus"] = json!(self.bus);
        if let Some(slot) = self.slot {
            device["addr"] = json!(format!("{slot:x}.0"));
        }
    }
}

impl Layout {
    /// # Errors
    /// When the machine has more bridges than there is room for.
    pub(super) fn of(machine: &Machine) -> Result<Self, EngineError> {
        let nics: Vec<_> = addresses(machine)?;
        let disks = machine.disks.iter().enumerate();
        let disks: BTreeMap<_, _> = disks.filter_map(|(index, disk)| Some((index, disk.pci?))).collect();
        let asked: Vec<PciAddress> = nics.iter().chain(disks.values()).copied().collect();
        // The ports of slow devices alone need I/O ports, and sixteen bridges would use them all up.
        let needs_io = |bus: u8| {
            let of_nics = nics.iter().zip(&machine.nics);
            of_nics.filter(|(at, _)| at.bus == bus).any(|(_, nic)| nic.model != NicModel::Virtio)
        };
        let mut layout = Self::default();
        let last = asked.iter().map(|at| at.bus).filter(|bus| *bus <= PCI_PORTS).max().unwrap_or_default();
        let mut bus = 1;
        while bus <= last {
            let is_above = asked.iter().any(|at| at.bus == bus + 1 && at.is_conventional());
            let conventional = bus + 1;
            layout.port(bus, "pcie.0", needs_io(if is_above { conventional } else { bus }))?;
            if is_above {
                let bridge = json!({"driver": "pcie-pci-bridge", "id": bus_of(conventional), "bus": bus_of(bus)});
                layout.bridges.push(bridge);
                bus += 1;
            }
            bus += 1;
        }
        let high: BTreeSet<_> = asked.iter().map(|at| at.bus).filter(|bus| *bus > PCI_PORTS).collect();
        for bus in high {
            // Numbers of buses behind ports are the firmware's; behind a root of its own the port's bus is the next.
            let root = format!("root{bus:02x}");
            let addr = layout.next_function()?;
            layout.bridges.push(json!({"driver": "pxb-pcie", "id": root, "bus": "pcie.0", "addr": addr,
                "bus_nr": bus - 1, "multifunction": true}));
            layout.port(bus, &root, needs_io(bus))?;
        }
        layout.taken = asked.iter().filter(|at| at.bus == 0).map(|at| usize::from(at.slot)).collect();
        layout.nics = nics.into_iter().map(place).collect();
        layout.disks = disks.into_iter().map(|(index, at)| (index, place(at))).collect();
        Ok(layout)
    }

    fn port(&mut self, bus: u8, above: &str, needs_io: bool) -> Result<(), EngineError> {
        let addr = if above == "pcie.0" { self.next_function()? } else { "0.0".to_owned() };
        let mut port = json!({"driver": "pcie-root-port", "id": bus_of(bus), "bus": above, "addr": addr,
            "chassis": bus, "multifunction": true});
        if !needs_io {
            port["io-reserve"] = json!(0);
        }
        self.bridges.push(port);
        Ok(())
    }

    fn next_function(&self) -> Result<String, EngineError> {
        let used = self.bridges.iter().filter(|bridge| bridge["bus"] == "pcie.0").count();
        if used == MOST_PORTS {
            return Err(EngineError::Unsupported(format!(
                "the PCI addresses of the machine need more than {MOST_PORTS} ports"
            )));
        }
        Ok(format!("{:x}.{:x}", FIRST_PORT_SLOT + used / FUNCTIONS, used % FUNCTIONS))
    }
}

/// The addresses of all NICs: their own, or the lowest bus that is free.
fn addresses(machine: &Machine) -> Result<Vec<PciAddress>, EngineError> {
    let of_disks = machine.disks.iter().filter_map(|disk| disk.pci);
    let mut asked: Vec<_> = machine.nics.iter().filter_map(|nic| nic.pci).chain(of_disks).collect();
    let mut addresses = Vec::new();
    for nic in &machine.nics {
        let address = match nic.pci {
            Some(address) => address,
            None => {
                let free = (1..=PCI_PORTS).map(|bus| PciAddress { bus, slot: 0 });
                let is_free = |at: &PciAddress| asked.iter().all(|asked| asked.conflict(at).is_none());
                let full = || EngineError::Unsupported(format!("no PCI bus up to {PCI_PORTS} is left for a NIC"));
                free.into_iter().find(is_free).ok_or_else(full)?
            }
        };
        asked.push(address);
        addresses.push(address);
    }
    Ok(addresses)
}

fn place(at: PciAddress) -> Place {
    let bus = if at.bus == 0 { "pcie.0".to_owned() } else { bus_of(at.bus) };
    Place { bus, slot: (at.bus == 0 || at.is_conventional()).then_some(at.slot) }
}

/// Name of the bridge whose bus has this number in the guest.
fn bus_of(bus: u8) -> String {
    format!("bus{bus:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::machine_for_tests;

    fn layout(nics: &[Option<&str>]) -> Result<Layout, EngineError> {
        let mut machine = machine_for_tests();
        let nic = machine.nics[0].clone();
        let nic = |at: &Option<&str>| machine::Nic { pci: at.map(|at| at.parse().unwrap()), ..nic.clone() };
        machine.nics = nics.iter().map(nic).collect();
        Layout::of(&machine)
    }

    fn buses(layout: &Layout) -> Vec<&str> {
        layout.nics.iter().map(|place| place.bus.as_str()).collect()
    }

    // spec: NIC-8
    #[test]
    fn nics_without_an_address_get_free_buses_and_numbers_have_no_gap() {
        let plain = layout(&[None, Some("0000:01:00.0"), None, Some("0000:05:01.0")]).unwrap();
        assert_eq!(buses(&plain), ["bus02", "bus01", "bus03", "bus05"]);
        let made: Vec<_> = plain.bridges.iter().map(|bridge| bridge["id"].as_str().unwrap()).collect();
        assert_eq!(made, ["bus01", "bus02", "bus03", "bus04", "bus05"]);
        assert_eq!(
            (&plain.bridges[4]["driver"], &plain.bridges[4]["bus"]),
            (&json!("pcie-pci-bridge"), &json!("bus04"))
        );
        assert_eq!(plain.bridges[3]["addr"], "2.3");
        let gap = layout(&[Some("0000:03:00.0")]).unwrap();
        assert_eq!((gap.bridges.len(), buses(&gap)), (3, vec!["bus03"]));
        let root = layout(&[Some("0000:00:0b.0"), Some("0000:81:00.0")]).unwrap();
        assert_eq!((buses(&root), &root.taken), (vec!["pcie.0", "bus81"], &[0x0b].into()));
    }

    // spec: NIC-8
    #[test]
    fn more_ports_than_there_is_room_for_are_refused() {
        let full = layout(&[Some("0000:10:00.0"), Some("0000:21:00.0")]).unwrap_err().to_string();
        assert_eq!(full, "the PCI addresses of the machine need more than 16 ports");
        let mut nics = vec![None; 15];
        nics.push(Some("0000:10:01.0"));
        assert!(layout(&nics).unwrap_err().to_string().starts_with("no PCI bus up to 16 is left"));
        assert_eq!(layout(&[None; 16]).unwrap().bridges.len(), 16);
    }
}
