//! `explain --watch`: the whole picture once, then a line for everything that changes.
//!
//! *Flow.* Wait for rtnetlink's announcements from the host's and the VM's namespace, a second at most → gather again → report
//! the announcements about devices on the VM's way, those during the gathering included, then the differences: what
//! happened is told before what it led to. Ports are asked again every tenth time.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use hostnet::facts::NeighbourState;
use hostnet::{Event, Events, Netns};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use terms::{IfName, ObjectKey};

use super::{asking, record, show};
use crate::arguments::{Explain, Output};
use crate::failure::{Exit, Failure};
use crate::terminal;
use explain::{Explanation, Probe, changes, diagnose, gather};
use protocol::chain::chain;
use runner::clock::unix_seconds;
use runner::store::Store;

/// Longest time between two looks, with or without announcements.
const PERIOD_MILLISECONDS: u16 = 1000;
/// Announcements come in bursts: how long to wait for the rest of one.
const BURST: Duration = Duration::from_millis(100);
/// How often the ports are tested: each time of so many.
const PROBE_EVERY: u32 = 10;

/// Tells what changes until it is interrupted or the VM is removed.
pub(super) fn watch(store: &Store, key: &ObjectKey, arguments: &Explain) -> Result<ExitCode, Failure> {
    let mut inputs = Inputs::default();
    inputs.listen(store, key)?;
    let mut looks = Looks { store, key, arguments, count: 0, probes: Vec::new() };
    let mut before = looks.gather()?;
    tell(&before, arguments.output, None);
    loop {
        if terminal::is_lost() {
            return Ok(ExitCode::SUCCESS);
        }
        inputs.wait()?;
        let mut events = inputs.take(&before)?;
        inputs.listen(store, key)?;
        let after = match looks.gather() {
            Ok(after) => after,
            // It may go while it is looked at, whatever of it is missed first.
            Err(_) if !store.exists(key) => {
                say(arguments.output, &format!("{key} was removed"));
                return Ok(ExitCode::from(Exit::NotFound as u8));
            }
            Err(failure) => return Err(failure),
        };
        events.extend(inputs.take(&before)?);
        let lines: Vec<_> = events.into_iter().chain(changes(&before, &after)).collect();
        if !lines.is_empty() {
            tell(&after, arguments.output, Some(&lines));
        }
        before = after;
    }
}

/// Looks one after the other, those between two probes with the last one's answers.
struct Looks<'a> {
    store: &'a Store,
    key: &'a ObjectKey,
    arguments: &'a Explain,
    count: u32,
    probes: Vec<Probe>,
}

impl Looks<'_> {
    fn gather(&mut self) -> Result<Explanation, Failure> {
        let is_passive = self.arguments.passive || !self.count.is_multiple_of(PROBE_EVERY);
        self.count = self.count.wrapping_add(1);
        let mut evidence = gather(record::read(self.store, self.key)?, asking(self.arguments, is_passive))?;
        if is_passive {
            evidence.probes.clone_from(&self.probes);
        } else {
            self.probes.clone_from(&evidence.probes);
        }
        Ok(diagnose(&evidence))
    }
}

/// The first time all of it; then for people the lines, for programs the whole on one line.
pub(super) fn tell(explanation: &Explanation, output: Output, lines: Option<&[String]>) {
    match (output, lines) {
        (Output::Json, _) => {
            let document = json!({"apiVersion": "tapvisor.io/v1", "kind": "Explanation", "items": [explanation]});
            terminal::json_line(&document.to_string());
        }
        (Output::Table, None) => show(explanation, output),
        (Output::Table, Some(lines)) => lines.iter().for_each(|line| say(output, line)),
    }
}

pub(super) fn say(output: Output, line: &str) {
    if output == Output::Table {
        let seconds = unix_seconds() % 86_400;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        terminal::line(&format!("{hour:02}:{minute:02}:{second:02} {line}"));
    }
}

/// Listeners to both namespaces; the VM's is replaced when the VM gets a new namespace.
#[derive(Debug, Default)]
struct Inputs {
    host: Option<Events>,
    pod: Option<(Netns, Events)>,
    /// The last report of each link: the kernel repeats announcements.
    said: BTreeMap<IfName, String>,
}

impl Inputs {
    fn listen(&mut self, store: &Store, key: &ObjectKey) -> Result<(), Failure> {
        let failed = |error: &dyn std::error::Error| Failure::new(Exit::Failed, chain(error));
        let host = Netns::current().map_err(|error| failed(&error))?;
        let pod = Netns::open(store.layout().netns(key)).ok();
        if self.host.is_none() {
            self.host = Some(begin(&host)?);
        }
        let is_known = |pod: &Netns| self.pod.as_ref().is_some_and(|(known, _)| known == pod);
        match pod {
            Some(pod) if is_known(&pod) => {}
            Some(pod) => {
                let events = begin(&pod)?;
                self.pod = Some((pod, events));
            }
            None => self.pod = None,
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), Failure> {
        let all = self.host.iter().chain(self.pod.iter().map(|(_, events)| events));
        let mut fds: Vec<_> = all.map(|events| PollFd::new(events.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::from(PERIOD_MILLISECONDS)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => std::thread::sleep(BURST),
            Err(errno) => return Err(std::io::Error::from(errno).into()),
        }
        Ok(())
    }

    /// The announcements worth a line, about devices on the VM's way and default routes.
    fn take(&mut self, known: &Explanation) -> Result<Vec<String>, Failure> {
        let mut lines = Vec::new();
        let (mut host, mut pod) = (self.host.take(), self.pod.take());
        let of_host = [(host.as_mut(), "host"), (pod.as_mut().map(|(_, events)| events), known.netns.as_str())];
        for (events, place) in of_host {
            let Some(events) = events else { continue };
            let taken = events.take().map_err(|error| Failure::new(Exit::Failed, chain(&error)))?;
            let worth = taken.into_iter().filter(|event| is_on_the_way(event, known) && self.is_new(event));
            lines.extend(worth.map(|event| format!("{place}: {event}")).collect::<Vec<_>>());
        }
        (self.host, self.pod) = (host, pod);
        Ok(lines)
    }

    fn is_new(&mut self, event: &Event) -> bool {
        let Event::Link(link) = event else { return true };
        let words = event.to_string();
        self.said.insert(link.name.clone(), words.clone()).as_ref() != Some(&words)
    }
}

fn begin(netns: &Netns) -> Result<Events, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Failed, chain(error));
    netns.run(Events::here).map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

fn is_on_the_way(event: &Event, known: &Explanation) -> bool {
    let has = |link: &IfName| known.nics.iter().flat_map(|nic| &nic.hops).any(|hop| hop.name == link.as_str());
    match event {
        Event::Link(link) | Event::LinkGone(link) => has(&link.name),
        Event::Address(held) | Event::AddressGone(held) => has(&held.link),
        Event::Route(route) | Event::RouteGone(route) => route.is_default() || route.link.as_ref().is_some_and(has),
        // Entries come and go and are confirmed all the time.
        Event::Neighbour(other) => other.state == NeighbourState::Failed && has(&other.link),
        Event::NeighbourGone(_) => false,
        Event::Missed => true,
    }
}
