//! Looking: the host's namespace, the VM's, the launcher, and the guest's ports.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hostnet::facts::{Link, NeighbourState};
use hostnet::sysctl::Sysctl;
use hostnet::{Ask, Facts, Kernel as _, KernelError, Linux, Netns, NetnsError};
use terms::{IfName, Protocol};
use wiring::{Binding, Request};

use super::case::{Case, NicView};
use super::evidence::{AskedRoute, Evidence, From, Probe};
use super::launcher;
use super::reach::{self, Question};
use super::{firewall, ways};
use crate::record::{Launcher, VmRecord};
use protocol::chain::chain;

/// How long a neighbour may take to answer for its address.
const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(25);

/// What to gather beyond facts, and at what time.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Ports to probe in addition to the declared ones.
    pub ports: &'a [u16],
    /// Whether to send no packets: ports are not probed.
    pub is_passive: bool,
    /// The time in seconds since 1970.
    pub now_unix_seconds: u64,
}

/// Why it cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatherError {
    /// The facts of the host's network cannot be read.
    #[error("the host's network cannot be read")]
    Host(#[from] KernelError),
    /// A thread in a namespace cannot be started.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// Looks at everything.
///
/// # Errors
/// When the host's network cannot be read; what of the VM cannot be read is evidence.
pub fn gather(record: VmRecord, asking: Asking<'_>) -> Result<Evidence, GatherError> {
    let VmRecord { status, request, networks, launcher } = record;
    let opened = match status.is_on_host {
        true => Netns::open(&status.netns).map_err(|error| chain(&error)),
        false => Err("it has been taken back".to_owned()),
    };
    let wired_unix_seconds = modified_unix_seconds(&status.netns);
    let mut evidence = Evidence {
        status,
        request,
        networks,
        has_older_nat: firewall::older_tables().contains("nat"),
        host: Facts::default(),
        pod: Err(String::new()),
        pod_reverse_path_drops: 0,
        host_reverse_path_drops: 0,
        wired_unix_seconds,
        launcher: Err(String::new()),
        probes: Vec::new(),
        ways: Vec::new(),
        wanted_ports: asking.ports.to_vec(),
        now_unix_seconds: asking.now_unix_seconds,
    };
    let host = Netns::current()?;
    read_state(&mut evidence, &host, opened.as_ref(), &launcher)?;
    if !asking.is_passive && evidence.pod.is_ok() && evidence.launcher.is_ok() {
        if let Ok(pod) = &opened {
            evidence.probes = probe(&evidence, &host, pod)?;
        }
        // Once more: what was sent has moved neighbours and counters.
        read_state(&mut evidence, &host, opened.as_ref(), &launcher)?;
    }
    Ok(evidence)
}

/// Reads both namespaces and asks the launcher for its status.
fn read_state(
    evidence: &mut Evidence,
    host: &Netns,
    pod: Result<&Netns, &String>,
    asked: &Launcher,
) -> Result<(), GatherError> {
    let request = &evidence.request;
    let (seen, drops) = match pod {
        Ok(pod) => match pod.run(|| read_pod(request).map(|facts| (facts, reverse_path_drops()))) {
            Ok(Ok((facts, drops))) => (Ok(facts), drops),
            Ok(Err(why)) => (Err(why), 0),
            Err(error) => (Err(chain(&error)), 0),
        },
        Err(why) => (Err(why.clone()), 0),
    };
    (evidence.pod, evidence.pod_reverse_path_drops) = (seen, drops);
    // After the rules' counters: what they have led to the launcher has reached it by now, or never will.
    evidence.launcher = launcher::status(asked);
    let (facts, drops) = host.run(|| look_at_host().map(|facts| (facts, reverse_path_drops())))??;
    (evidence.host, evidence.host_reverse_path_drops) = (facts, drops);
    let links = host_links(evidence).into_iter().map(|link| Sysctl::ipv4_conf(&link, "rp_filter"));
    let ask = Ask::default().with_sysctls(links);
    let settings = host.run(|| Linux::here().gather(&ask))??.sysctls;
    evidence.host.sysctls.extend(settings);
    evidence.ways = ways(evidence, host, pod.ok())?;
    Ok(())
}

fn ways(evidence: &Evidence, host: &Netns, pod: Option<&Netns>) -> Result<Vec<AskedRoute>, NetnsError> {
    let case = Case::of(evidence);
    let mut found = host.run(|| ways::ask(&case, From::Host))?;
    if let Some(pod) = pod.filter(|_| case.pod.is_some()) {
        found.extend(pod.run(|| ways::ask(&case, From::Pod))?);
    }
    Ok(found)
}

fn host_links(evidence: &Evidence) -> Vec<IfName> {
    let case = Case::of(evidence);
    let links = case.nics.iter().flat_map(|nic| [nic.host_end, nic.bridge]);
    links.flatten().map(|link: &Link| link.name.clone()).collect()
}

fn read_pod(request: &Request) -> Result<Facts, String> {
    let mut kernel = Linux::here();
    let mut facts = binding::read(&mut kernel, request).map_err(|error| chain(&error))?;
    let links = facts.links.iter().map(|link| Sysctl::ipv4_conf(&link.name, "rp_filter"));
    let settings: Vec<_> = links.chain([Sysctl::net("ipv4/conf/all/rp_filter")]).collect();
    let ask = Ask { links: true, statistics: true, neighbours: true, ..Ask::default() }.with_sysctls(settings);
    let more = kernel.gather(&ask).map_err(|error| chain(&error))?;
    (facts.links, facts.neighbours) = (more.links, more.neighbours);
    facts.sysctls.extend(more.sysctls);
    Ok(facts)
}

fn look_at_host() -> Result<Facts, KernelError> {
    let mut kernel = Linux::here();
    let settings = [
        "ipv4/ip_forward",
        "ipv6/conf/all/forwarding",
        "ipv4/conf/all/rp_filter",
        "bridge/bridge-nf-call-iptables",
        "bridge/bridge-nf-call-ip6tables",
    ];
    let settings = settings.map(Sysctl::net);
    let firewalls = firewall::tables(&mut kernel)?;
    let ask = Ask { statistics: true, neighbours: true, ..Ask::network() };
    kernel.gather(&ask.with_sysctls(settings).with_tables(firewalls))
}

/// Sends what is to be sent, and waits until neighbours have answered or will not.
fn probe(evidence: &Evidence, host: &Netns, pod: &Netns) -> Result<Vec<Probe>, GatherError> {
    let case = Case::of(evidence);
    // The namespace of a bridge-bound guest has no way to it, and a macvlan's children none to the host.
    let inside: Vec<_> = case.nics.iter().filter(|nic| nic.interface.binding == Binding::Masquerade).collect();
    let from_host: Vec<_> = case.nics.iter().filter(|nic| nic.host_end.is_some() && !nic.is_macvlan).collect();
    // A datagram to a masqueraded pod's address would be counted among those to ports that are not declared.
    let bridged = from_host.iter().filter(|nic| nic.interface.binding == Binding::Bridge);
    let outside: Vec<IpAddr> = bridged.flat_map(|nic| nic.addresses.clone()).collect();
    let guests: Vec<IpAddr> = inside.iter().flat_map(|nic| nic.guest_addresses()).collect();
    // The next hops of what the guest sends must answer, too.
    let gateways = inside.iter().flat_map(|nic| nic.gateways(case.pod));
    let touched: Vec<IpAddr> = guests.into_iter().chain(gateways).collect();
    let ask_from_host: Vec<_> =
        from_host.iter().flat_map(|nic| questions(nic, &nic.addresses, &evidence.wanted_ports)).collect();
    let ask_from_pod: Vec<_> =
        inside.iter().flat_map(|nic| questions(nic, &nic.guest_addresses(), &evidence.wanted_ports)).collect();
    let mut probes = pod.run(|| {
        reach::touch(&touched);
        let probes = reach::ask(From::Pod, &ask_from_pod);
        await_neighbours();
        probes
    })?;
    probes.extend(host.run(|| {
        reach::touch(&outside);
        let probes = reach::ask(From::Host, &ask_from_host);
        await_neighbours();
        probes
    })?);
    Ok(probes)
}

fn questions(nic: &NicView<'_>, addresses: &[IpAddr], wanted: &[u16]) -> Vec<Question> {
    let declared = nic.interface.ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.port);
    let mut ports: Vec<_> = declared.chain(wanted.iter().copied()).collect();
    ports.sort_unstable();
    ports.dedup();
    let pod_interface = &nic.interface.pod_interface;
    let all = addresses.iter().flat_map(|address| ports.iter().map(move |port| (*address, *port)));
    all.map(|(address, port)| Question { pod_interface: pod_interface.clone(), address, port }).collect()
}

/// Waits while any neighbour is being looked for.
fn await_neighbours() {
    let ask = Ask { neighbours: true, ..Ask::default() };
    let mut waited = Duration::ZERO;
    while waited < NEIGHBOUR_PATIENCE {
        let is_looking = |facts: &Facts| facts.neighbours.iter().any(|one| one.state == NeighbourState::Incomplete);
        if !Linux::here().gather(&ask).is_ok_and(|facts| is_looking(&facts)) {
            return;
        }
        std::thread::sleep(STEP);
        waited += STEP;
    }
}

/// LINUX_MIB_IPRPFILTER of the calling thread's namespace, as `/proc/net/netstat` names it.
fn reverse_path_drops() -> u64 {
    fs::read_to_string("/proc/thread-self/net/netstat").ok().and_then(|text| counter(&text)).unwrap_or(0)
}

fn counter(netstat: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let (_, value) = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "IPReversePathFilter")?;
    value.parse().ok()
}

fn modified_unix_seconds(path: &Path) -> u64 {
    let modified = fs::metadata(path).and_then(|file| file.modified()).ok();
    modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_of_reverse_path_drops_is_found_by_its_name() {
        let text = "TcpExt: SyncookiesSent IPReversePathFilter X\nTcpExt: 0 7 1\nIpExt: InNoRoutes\nIpExt: 0\n";
        assert_eq!(counter(text), Some(7));
        assert_eq!(counter("IpExt: InNoRoutes\nIpExt: 0\n"), None);
        assert_eq!(counter("TcpExt: A IPReversePathFilter\nTcpExt: 1\n"), None);
    }
}
