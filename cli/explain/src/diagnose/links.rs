//! Devices: there or not, up or not, marked as ours, of one MTU.

use hostnet::facts::{Link, LinkKind};
use serde_json::Value;
use terms::IfName;
use wiring::Mark;

use super::{Case, Findings, NicView, Words};
use crate::explanation::{Code, Severity};

pub(super) fn diagnose(case: &Case<'_>, findings: &mut Findings) {
    for nic in &case.nics {
        At { case, nic, findings }.diagnose();
    }
}

/// The bridge of a configuration list of the reference plugin `bridge` or of `tapvisor-bridge`.
fn bridge_of(config: &Value) -> Option<&str> {
    /// What the plugin takes where nothing is said.
    const DEFAULT: &str = "cni0";
    let bridge = config.get("plugins")?.as_array()?.iter().find(|plugin| {
        plugin["type"] == "bridge" || (plugin["type"] == "tapvisor-bridge" && plugin["pointToPoint"] != true)
    })?;
    Some(bridge.get("bridge").and_then(Value::as_str).filter(|name| !name.is_empty()).unwrap_or(DEFAULT))
}

struct At<'a, 'b> {
    case: &'a Case<'a>,
    nic: &'a NicView<'a>,
    findings: &'b mut Findings,
}

impl At<'_, '_> {
    fn diagnose(&mut self) {
        let (case, nic) = (self.case, self.nic);
        self.pod_interface();
        self.host_side();
        let tap = case.pod.and_then(|pod| pod.link(&nic.tap));
        self.tap(&nic.tap, tap, "What the guest sends and is sent is lost.");
        if let Some(tap) = tap {
            self.mark(tap);
            self.mtu(tap);
        }
        if nic.launcher.is_none_or(|nic| nic.service.is_some()) && (nic.is_masqueraded() || !nic.addresses.is_empty()) {
            let service = case.pod.and_then(|pod| pod.link(&nic.service_tap));
            self.tap(&nic.service_tap, service, "The guest's DHCP and router solicitations reach no server.");
        }
    }

    fn error(&mut self, code: Code, hop: &IfName, words: Words) {
        self.findings.add(Severity::Error, code, Some(&self.nic.interface.name), hop, words);
    }

    fn pod_interface(&mut self) {
        let name = &self.nic.interface.pod_interface;
        let Some(link) = self.nic.pod_link else {
            let words = Words::new(
                format!("{name} is not in {}", self.case.netns()),
                "The VM is cut off from its network on this NIC.",
                self.case.status().rewire(),
            );
            return self.error(Code::LinkMissing, name, words);
        };
        let enter = self.case.enter();
        // With the host's end down there is no carrier either: that end is reported, once.
        if !link.up {
            let words = Words::new(
                format!("{name} is down"),
                "Nothing reaches or leaves the VM on this NIC.",
                format!(
                    "`{enter} ip link set {name} up`; routes that were lost with it return when the VM is wired again."
                ),
            );
            self.error(Code::LinkDown, name, words);
        } else if !link.carrier && self.nic.host_end.is_none_or(|end| end.up) {
            let words = Words::new(
                format!("{name} has no carrier"),
                "Nothing reaches or leaves the VM on this NIC.",
                "Check the link below it and its cable or peer.",
            );
            self.error(Code::NoCarrier, name, words);
        }
        self.lost_addresses();
    }

    /// The runner remembers the addresses of the primary network.
    fn lost_addresses(&mut self) {
        let is_primary = self.case.nics.first().is_some_and(|first| std::ptr::eq(first, self.nic));
        let Some(pod) = self.case.pod.filter(|_| is_primary) else { return };
        for address in &self.case.seen.status.addresses {
            if pod.addresses.iter().any(|held| held.address.ip() == *address) {
                continue;
            }
            let name = &self.nic.interface.pod_interface;
            let words = Words::new(
                format!("{name} has lost the pod's address {address}"),
                "No host answers for that address any more.",
                self.case.status().rewire(),
            );
            self.error(Code::AddressGone, name, words);
        }
    }

    fn host_side(&mut self) {
        let nic = self.nic;
        let Some(pod_link) = nic.pod_link else { return };
        let Some(end) = nic.host_end else {
            if pod_link.kind == LinkKind::Veth {
                let words = Words::new(
                    format!("the other end of {} is not on the host", pod_link.name),
                    "The VM is cut off from the host on this NIC.",
                    self.case.status().rewire(),
                );
                self.error(Code::LinkMissing, &pod_link.name, words);
            }
            return;
        };
        for link in [Some(end), nic.bridge].into_iter().flatten().filter(|link| !link.up) {
            let words = Words::new(
                format!("{} on the host is down", link.name),
                "Nothing reaches or leaves the VM on this NIC.",
                format!(
                    "`ip link set {} up`; routes that were lost with it return when the VM is wired again.",
                    link.name
                ),
            );
            self.error(Code::LinkDown, &link.name, words);
        }
        self.bridge(end);
        // A macvlan may have a smaller MTU than its parent, never a larger one.
        let differs =
            if nic.is_macvlan { end.mtu_bytes < pod_link.mtu_bytes } else { end.mtu_bytes != pod_link.mtu_bytes };
        if differs {
            let words = Words::new(
                format!(
                    "{} on the host has MTU {}, {} in the pod {}",
                    end.name, end.mtu_bytes, pod_link.name, pod_link.mtu_bytes
                ),
                "Packets larger than the smaller of the two are dropped in silence: small answers come, large ones hang.",
                format!("`ip link set {} mtu {}`", end.name, pod_link.mtu_bytes),
            );
            self.error(Code::WrongMtu, &end.name, words);
        }
    }

    /// The bridge that the network's configuration names; other plugins' ways are their own.
    fn bridge(&mut self, end: &Link) {
        let nic = self.nic;
        let network = self.case.seen.networks.iter().find(|network| network.ifname == nic.interface.pod_interface);
        let Some(wanted) = network.and_then(|network| bridge_of(&network.config)) else { return };
        if nic.is_macvlan || nic.bridge.is_some_and(|bridge| bridge.name.as_str() == wanted) {
            return;
        }
        let found = nic.bridge.map_or_else(|| "no bridge".to_owned(), |bridge| bridge.name.to_string());
        let words = Words::new(
            format!("{} on the host is a port of {found}, its network's bridge is {wanted}", end.name),
            "The VM is cut off from its network on this NIC.",
            format!("`ip link set {} master {wanted}`", end.name),
        );
        self.error(Code::WrongBridge, &end.name, words);
    }

    fn tap(&mut self, name: &IfName, link: Option<&Link>, consequence: &str) {
        let Some(link) = link else {
            let words =
                Words::new(format!("{name} is not in {}", self.case.netns()), consequence, self.case.status().rewire());
            return self.error(Code::LinkMissing, name, words);
        };
        if !link.up {
            let remedy = format!("`{} ip link set {name} up`", self.case.enter());
            self.error(Code::TapDown, name, Words::new(format!("{name} is down"), consequence, remedy));
        } else if !link.carrier && self.case.runs() {
            let words = Words::new(
                format!("{name} has no carrier: no process is attached to it"),
                consequence,
                self.case.status().restart(),
            );
            self.error(Code::NoCarrier, name, words);
        }
    }

    fn mark(&mut self, tap: &Link) {
        let asked = self.case.seen.request.digest();
        let found = tap.alias.as_deref().map(str::parse::<Mark>);
        let seen = match found {
            Some(Ok(mark)) if mark.digest() == asked => return,
            Some(Ok(mark)) if mark.is_committed() => {
                format!("{} carries the mark of request {}, this VM's is {asked}", tap.name, mark.digest())
            }
            Some(Ok(_)) => format!("{} carries a provisional mark: its wiring was never finished", tap.name),
            Some(Err(_)) | None => format!("{} carries no commit mark", tap.name),
        };
        let consequence =
            "A guest that runs is not touched; none starts on this wiring, and what DEL is to restore is forgotten.";
        self.error(Code::MarkMissing, &tap.name, Words::new(seen, consequence, self.case.status().rewire()));
    }

    fn mtu(&mut self, tap: &Link) {
        let mark = tap.alias.as_deref().and_then(|alias| alias.parse::<Mark>().ok());
        let wired = mark.and_then(|mark| mark.mtu_bytes());
        let enter = self.case.enter();
        let is_wrong = |mtu: &u32| *mtu != tap.mtu_bytes;
        if let Some(wired) = wired.filter(is_wrong) {
            let words = Words::new(
                format!("{} has MTU {}, it was made with {wired}", tap.name, tap.mtu_bytes),
                "The guest was told the one it was made with: larger packets are dropped on one of the two sides.",
                format!("`{enter} ip link set {} mtu {wired}`", tap.name),
            );
            return self.error(Code::WrongMtu, &tap.name, words);
        }
        if let Some(pod) = self.nic.pod_link.filter(|pod| pod.mtu_bytes < tap.mtu_bytes) {
            let words = Words::new(
                format!("{} has MTU {}, the tap behind it {}", pod.name, pod.mtu_bytes, tap.mtu_bytes),
                "The guest sends packets that do not fit: without path MTU discovery they hang.",
                format!("`{enter} ip link set {} mtu {}`", pod.name, tap.mtu_bytes),
            );
            self.error(Code::WrongMtu, &pod.name, words);
        }
    }
}
