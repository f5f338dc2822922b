//! The specification of a VirtualMachineInstance.

use terms::ObjectKey;

use super::boot_order::BootOrders;
use super::compute::Memory;
use super::{
    Access, Disk, DnsConfig, Firmware, Nic, Probe, Resources, access, compute, disk, dns, firmware, nic, pci, probe,
};
use crate::reader::{Fields, Node, Scope};
use machine::{Cpu, EngineDemand, RebootPolicy, WatchdogAction};

/// What a VirtualMachineInstance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Processor topology.
    pub cpu: Cpu,
    /// Guest memory.
    pub memory_bytes: u64,
    /// Size of the huge pages that it is made of.
    pub hugepage_bytes: Option<u64>,
    /// What a scheduler reserves and enforces.
    pub resources: Resources,
    /// Firmware, identity and direct kernel boot.
    pub firmware: Firmware,
    /// Disks with their volumes: those listed, then the volumes that no disk names.
    pub disks: Vec<Disk>,
    /// NICs with their networks, in the order of interfaces.
    pub nics: Vec<Nic>,
    /// Whether virtio NICs have a queue pair for each virtual CPU.
    pub multiqueue: bool,
    /// Whether there is a serial console.
    pub serial_console: bool,
    /// Whether there is a VGA adapter.
    pub graphics: bool,
    /// Whether there is an entropy source.
    pub rng: bool,
    /// What a watchdog does, if there is one.
    pub watchdog: Option<WatchdogAction>,
    /// What a reset by the guest does.
    pub reboot_policy: RebootPolicy,
    /// Whether the guest waits for `resume` before its first instruction.
    pub start_paused: bool,
    /// Which engine the instance's annotation demands.
    pub engine: EngineDemand,
    /// Time between the power button and the end by force.
    pub grace_period_seconds: u64,
    /// What a drained node does with it.
    pub eviction_strategy: Option<EvictionStrategy>,
    /// SSH keys and passwords for the guest.
    pub access: Access,
    /// Host name, if it is not to be the object's.
    pub hostname: Option<String>,
    /// Name of the headless Service that gives it a full name.
    pub subdomain: Option<String>,
    /// Where names are resolved.
    pub dns: DnsConfig,
    /// When it may receive traffic.
    pub readiness_probe: Option<Probe>,
    /// When it must be started again.
    pub liveness_probe: Option<Probe>,
}

/// What a drained node does with a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionStrategy {
    /// Stops it.
    None,
    /// Moves it.
    LiveMigrate,
    /// Moves it if it can be moved.
    LiveMigrateIfPossible,
    /// Leaves it to another controller.
    External,
}

const EVICTION_STRATEGIES: &[(&str, EvictionStrategy)] = &[
    ("None", EvictionStrategy::None),
    ("LiveMigrate", EvictionStrategy::LiveMigrate),
    ("LiveMigrateIfPossible", EvictionStrategy::LiveMigrateIfPossible),
    ("External", EvictionStrategy::External),
];

const SCHEDULING: &[&str] = &[
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "schedulerName",
    "priorityClassName",
    "evictionStrategy",
];

const DEFAULT_GRACE_PERIOD_SECONDS: u64 = 30;

/// Reads the fields of `spec`.
pub(super) fn read(spec: &Fields<'_>) -> Option<Spec> {
    spec.ignored(Scope::Local, "there is one machine and no scheduler", SCHEDULING);
    spec.unsupported(&["resourceClaims", "serviceAccountName", "utilityVolumes"]);
    spec.one_of("architecture", &[("amd64", ())], &["arm64", "s390x", "ppc64le"]);
    let (volumes, networks) = (spec.items("volumes"), spec.items("networks"));
    let domain =
        spec.required("domain").and_then(|node| node.fields(|domain| Domain::read(domain, &volumes, &networks)));
    let nics = domain.as_ref().and_then(Option::as_ref).map_or(&[][..], |domain| &domain.devices.nics);
    let readiness_probe = spec.field("readinessProbe").map(|node| probe::read(&node, nics));
    let liveness_probe = spec.field("livenessProbe").map(|node| probe::read_liveness(&node, nics));
    let start_paused = spec.one_of("startStrategy", &[("Paused", true)], &[]).unwrap_or(false);
    let grace = spec.integer("terminationGracePeriodSeconds", 0..=86_400_u64 * 365);
    let (hostname, subdomain) = (dns_name(spec, "hostname", 63), dns_name(spec, "subdomain", 253));
    let dns = dns::read(spec);
    let eviction_strategy = spec.one_of("evictionStrategy", EVICTION_STRATEGIES, &[]);
    let disks = domain.as_ref().and_then(Option::as_ref).map(|domain| &*domain.devices.disks);
    let access = access::read(spec, disks);
    let domain = domain??;
    let devices = domain.devices;
    Some(Spec {
        cpu: domain.cpu,
        memory_bytes: domain.memory.bytes,
        hugepage_bytes: domain.memory.hugepage_bytes,
        resources: domain.resources,
        firmware: domain.firmware,
        disks: devices.disks,
        nics: devices.nics,
        multiqueue: devices.multiqueue,
        serial_console: devices.serial_console,
        graphics: devices.graphics,
        rng: devices.rng,
        watchdog: devices.watchdog,
        reboot_policy: domain.reboot_policy,
        start_paused,
        // Annotations are outside of the specification.
        engine: EngineDemand::Auto,
        grace_period_seconds: grace.unwrap_or(DEFAULT_GRACE_PERIOD_SECONDS),
        eviction_strategy,
        access,
        hostname,
        subdomain,
        dns,
        readiness_probe: readiness_probe.flatten(),
        liveness_probe: liveness_probe.flatten(),
    })
}

fn dns_name(spec: &Fields<'_>, name: &'static str, longest: usize) -> Option<String> {
    let node = spec.set(name)?;
    let text = node.text()?;
    let is_label = !text.contains('.') || longest > 63;
    if text.len() > longest || !is_label || ObjectKey::new(crate::metadata::DEFAULT_NAMESPACE, text).is_err() {
        let shape = if longest > 63 { "labels joined by '.'" } else { "one label without '.'" };
        node.expected(format_args!("a DNS name of lower-case letters, digits and '-', {shape}"));
        return None;
    }
    Some(text.to_owned())
}

struct Domain {
    cpu: Cpu,
    memory: Memory,
    resources: Resources,
    firmware: Firmware,
    reboot_policy: RebootPolicy,
    devices: Devices,
}

impl Domain {
    fn read(domain: &Fields<'_>, volumes: &[Node<'_>], networks: &[Node<'_>]) -> Option<Self> {
        domain.unsupported(&["chassis", "launchSecurity"]);
        domain.ignored(Scope::Everywhere, "the engine chooses its own threads", &["ioThreadsPolicy", "ioThreads"]);
        let compute = compute::read(domain);
        let firmware = firmware::read(domain);
        let words = &[("Reboot", RebootPolicy::Reboot), ("Terminate", RebootPolicy::Terminate)];
        let reboot_policy = domain.one_of("rebootPolicy", words, &[]).unwrap_or_default();
        let devices = domain.required("devices")?.fields(|devices| Devices::read(devices, volumes, networks));
        let (cpu, memory, resources) = compute?;
        Some(Self { cpu, memory, resources, firmware, reboot_policy, devices: devices? })
    }
}

struct Devices {
    disks: Vec<Disk>,
    nics: Vec<Nic>,
    multiqueue: bool,
    serial_console: bool,
    graphics: bool,
    rng: bool,
    watchdog: Option<WatchdogAction>,
}

const UNSUPPORTED_DEVICES: &[&str] = &[
    "autoattachVSOCK",
    "clientPassthrough",
    "downwardMetrics",
    "filesystems",
    "gpus",
    "hostDevices",
    "panicDevices",
    "sound",
    "tpm",
    "useVirtioTransitional",
];

impl Devices {
    fn read(devices: &Fields<'_>, volumes: &[Node<'_>], networks: &[Node<'_>]) -> Self {
        devices.unsupported(UNSUPPORTED_DEVICES);
        let graphics = ["autoattachInputDevice", "inputs", "video"];
        devices.ignored(Scope::Everywhere, "the graphics device is a VGA adapter with keyboard and mouse", &graphics);
        devices.ignored(
            Scope::Everywhere,
            "engine kvm always has a memory balloon, QEMU has none",
            &["autoattachMemBalloon"],
        );
        devices.ignored(Scope::Everywhere, "each disk has one queue", &["blockMultiQueue"]);
        devices.boolean("disableHotplug");
        if let Some(node) = devices.field("logSerialConsole")
            && node.boolean() == Some(false)
        {
            node.warn(Scope::Everywhere, "the end of what the console says is always kept, for `tapvisor logs`");
        }
        let mut boot_orders = BootOrders::default();
        let disks = disk::read(volumes, &devices.items("disks"), &mut boot_orders);
        let attach = devices.boolean("autoattachPodInterface").unwrap_or(true);
        let nics = nic::read(networks, devices, attach, &mut boot_orders);
        let mut addresses = disk::pci_addresses(devices, &disks);
        addresses.extend(nic::pci_addresses(devices, &nics));
        pci::check(&addresses);
        Self {
            disks,
            nics,
            multiqueue: devices.boolean("networkInterfaceMultiqueue").unwrap_or(false),
            serial_console: devices.boolean("autoattachSerialConsole").unwrap_or(true),
            // KubeVirt attaches one unless it is told not to. It costs memory and the time of the firmware.
            graphics: devices.boolean("autoattachGraphicsDevice").unwrap_or(false),
            rng: devices.field("rng").is_some_and(|node| node.fields(|_| ()).is_some()),
            watchdog: devices.field("watchdog").and_then(|node| node.fields(read_watchdog)?),
        }
    }
}

fn read_watchdog(watchdog: &Fields<'_>) -> Option<WatchdogAction> {
    watchdog.required("name").and_then(|node| node.text());
    watchdog.unsupported(&["diag288"]);
    let words = &[
        ("reset", WatchdogAction::Reset),
        ("poweroff", WatchdogAction::Poweroff),
        ("shutdown", WatchdogAction::Shutdown),
    ];
    let action = watchdog.required("i6300esb")?.fields(|device| device.one_of("action", words, &[]));
    action.map(|action| action.unwrap_or(WatchdogAction::Reset))
}
