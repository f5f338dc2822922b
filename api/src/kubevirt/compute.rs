//! Processors, memory and what a scheduler is told of them.

use crate::quantity::Quantity;
use crate::reader::{Fields, Node, Scope};
use machine::{Cpu, CpuModel};

/// What a scheduler reserves and enforces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// At least this much.
    pub requests: ResourceAmounts,
    /// At most this much.
    pub limits: ResourceAmounts,
}

/// Amounts of the two resources a machine is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResourceAmounts {
    /// Processors.
    pub cpu: Option<Quantity>,
    /// Bytes.
    pub memory: Option<Quantity>,
}

/// A guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) bytes: u64,
    /// Size of the huge pages that it is made of.
    pub(super) hugepage_bytes: Option<u64>,
}

/// Huge pages of x86, by their sizes.
const HUGE_PAGES: [u64; 2] = [2 << 20, 1 << 30];
/// One more would not fit the eight bits of an APIC identifier.
const MAX_CPUS: u32 = 255;
const MEBIBYTE: u64 = 1 << 20;
/// What the physical addresses of a guest reach.
const MAX_BYTES: u64 = 1 << 46;

/// Reads `cpu`, `memory` and `resources` of a domain.
pub(super) fn read(domain: &Fields<'_>) -> Option<(Cpu, Memory, Resources)> {
    let resources = domain.field("resources").and_then(|node| node.fields(read_resources)).unwrap_or_default();
    let cpu = read_cpu(domain, &resources);
    let memory = read_memory(domain, &resources);
    warn_of_limits(domain, &resources);
    Some((cpu?, memory?, resources))
}

fn read_resources(resources: &Fields<'_>) -> Resources {
    let why = "memory overhead is reserved by a scheduler";
    resources.ignored(Scope::Local, why, &["overcommitGuestOverhead"]);
    let (requests, limits) = (read_amounts(resources, "requests"), read_amounts(resources, "limits"));
    let pairs = [("cpu", &requests.cpu, &limits.cpu), ("memory", &requests.memory, &limits.memory)];
    for (name, request, limit) in pairs {
        if let (Some(request), Some(limit)) = (request, limit)
            && request > limit
        {
            resources
                .node()
                .named("requests")
                .named(name)
                .refuse(format!("{request} is more than the limit of {limit}"));
        }
    }
    Resources { requests, limits }
}

fn read_amounts(resources: &Fields<'_>, name: &'static str) -> ResourceAmounts {
    let mut amounts = ResourceAmounts::default();
    for (resource, node) in resources.field(name).map(|node| node.entries()).unwrap_or_default() {
        let amount = Quantity::read(&node);
        match resource {
            "cpu" => amounts.cpu = amount,
            "memory" => amounts.memory = amount,
            _ => node.warn(Scope::Local, "only a scheduler knows this resource"),
        }
    }
    amounts
}

/// A limit that does not size the machine bounds its container, and here is none.
fn warn_of_limits(domain: &Fields<'_>, resources: &Resources) {
    let is_sized = |by: &'static str, fields: &[&str]| {
        domain.field(by).is_some_and(|node| fields.iter().any(|field| node.value().get(field).is_some()))
    };
    let Resources { requests, limits } = resources;
    let has_no_effect = [
        ("cpu", limits.cpu.is_some() && is_sized("cpu", &["cores", "sockets", "threads"])),
        ("memory", limits.memory.is_some() && (requests.memory.is_some() || is_sized("memory", &["guest"]))),
    ];
    for (name, _) in has_no_effect.iter().filter(|(_, is_so)| *is_so) {
        let limit = domain.node().named("resources").named("limits").named(name);
        limit.warn(Scope::Local, "it bounds a pod's container, and there is none");
    }
}

fn read_cpu(domain: &Fields<'_>, resources: &Resources) -> Option<Cpu> {
    let topology = domain.field("cpu").map(|node| (node.fields(read_topology), node));
    let (topology, node) = match topology {
        Some((topology, node)) => (topology?, node),
        None => (([None; 3], CpuModel::default()), domain.node().named("cpu")),
    };
    let (counts, model) = topology;
    let [cores, sockets, threads] = counts.map(|count| count.filter(|count| *count > 0));
    // KubeVirt: without any topology the processors of limits, else of requests, become sockets.
    let limited = resources.limits.cpu.as_ref().map(|amount| (amount, "limits"));
    let amount = limited.or(resources.requests.cpu.as_ref().map(|amount| (amount, "requests")));
    let from_resources = match (cores, sockets, threads, amount) {
        (None, None, None, Some((amount, list))) => {
            let count = amount.rounded_up().and_then(|count| u32::try_from(count).ok()).unwrap_or(u32::MAX);
            if count > MAX_CPUS {
                warn_of_most(domain, (list, "cpu"), amount, &MAX_CPUS.to_string());
            }
            Some(count.min(MAX_CPUS))
        }
        _ => None,
    };
    let sockets = sockets.or(from_resources).unwrap_or(1).max(1);
    let cpu = Cpu { sockets, cores: cores.unwrap_or(1), threads: threads.unwrap_or(1), model };
    if cpu.count() > MAX_CPUS {
        node.refuse(format!("{} virtual CPUs, at most {MAX_CPUS} are possible", cpu.count()));
        return None;
    }
    Some(cpu)
}

/// What is asked of a scheduler can be more than a machine can have: no node has it, and the instance waits for one.
fn warn_of_most(domain: &Fields<'_>, (list, name): (&'static str, &'static str), amount: &Quantity, most: &str) {
    let node = domain.node().named("resources").named(list).named(name);
    let why = format!("the machine gets {most}, the most that it can have; a scheduler is asked for {amount}");
    node.warn(Scope::Everywhere, why);
}

fn read_topology(cpu: &Fields<'_>) -> ([Option<u32>; 3], CpuModel) {
    cpu.unsupported(&["features", "dedicatedCpuPlacement", "isolateEmulatorThread", "numa", "realtime"]);
    cpu.ignored(Scope::Everywhere, "processors cannot be added while it runs", &["maxSockets"]);
    let named = cpu.set("model").and_then(|node| Some((node.text()?, node)));
    let model = named.and_then(|(name, node)| {
        let known = CpuModel::NAMES.iter().find(|(of, _)| *of == name).map(|(_, model)| *model);
        if known.is_none() {
            node.warn(Scope::Everywhere, "the guest sees host-model; x86-64-v2 and x86-64-v3 are models as well");
        }
        known
    });
    (["cores", "sockets", "threads"].map(|name| cpu.integer(name, 0..=u32::MAX)), model.unwrap_or_default())
}

fn read_memory(domain: &Fields<'_>, resources: &Resources) -> Option<Memory> {
    let memory = domain.field("memory");
    let (guest, hugepages) = memory.as_ref().and_then(|node| node.fields(read_guest)).unwrap_or_default();
    if let Some((guest, node)) = &guest
        && let Some(limit) = &resources.limits.memory
        && guest > limit
    {
        node.refuse(format!("{guest} is more than the limit of {limit}"));
    }
    let amount = |amount: &Option<Quantity>| amount.clone().filter(|amount| !amount.is_zero());
    let requested = amount(&resources.requests.memory).map(|amount| (amount, "requests"));
    let limited = amount(&resources.limits.memory).map(|amount| (amount, "limits"));
    let given = guest.map(|(amount, node)| (amount, node, None)).or_else(|| {
        let (amount, list) = requested.or(limited)?;
        Some((amount, domain.node().named("resources").named(list).named("memory"), Some(list)))
    });
    let Some((quantity, node, list)) = given else {
        // A guest size that could not be read has had its complaint.
        if memory.is_none_or(|node| node.value().get("guest").is_none()) {
            let place = domain.node().named("memory").named("guest");
            place.refuse("is required, or a memory request or limit in resources");
        }
        return None;
    };
    let mut bytes = quantity.rounded_up().filter(|bytes| (MEBIBYTE..MAX_BYTES).contains(bytes));
    if let Some(list) = list
        && quantity.rounded_up().is_none_or(|bytes| bytes >= MAX_BYTES)
    {
        warn_of_most(domain, (list, "memory"), &quantity, "64Ti");
        bytes = Some(MAX_BYTES);
    }
    if bytes.is_none() {
        node.refuse(format!("{quantity} is not between 1Mi and 64Ti"));
    }
    // Engines take whole mebibytes; part of one would be lost.
    let bytes = bytes?.next_multiple_of(MEBIBYTE);
    let hugepage_bytes = hugepages.map(|(size, node)| {
        if !bytes.is_multiple_of(size) {
            node.refuse(format!("the memory of {quantity} is no whole number of these pages"));
        }
        size
    });
    Some(Memory { bytes, hugepage_bytes })
}

type Sized<'a, T> = Option<(T, Node<'a>)>;

/// Size of the memory, and of its huge pages, each with its place.
fn read_guest<'a>(memory: &Fields<'a>) -> (Sized<'a, Quantity>, Sized<'a, u64>) {
    let hugepages = memory.field("hugepages").and_then(|node| node.fields(|pages| pages.required("pageSize"))?);
    let hugepages = hugepages.and_then(|node| {
        let size = Quantity::read(&node)?.rounded_up().filter(|size| HUGE_PAGES.contains(size));
        if size.is_none() {
            node.expected("2Mi or 1Gi");
        }
        Some((size?, node))
    });
    memory.ignored(Scope::Everywhere, "memory cannot be added while it runs", &["maxGuest"]);
    memory.ignored(Scope::Local, "memory overhead is reserved by a scheduler", &["reservedOverhead"]);
    let guest = memory.field("guest").and_then(|node| Some((Quantity::read(&node)?, node)));
    (guest, hugepages)
}
