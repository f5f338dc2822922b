//! Follows the links of a VM's namespace: a pod NIC that goes away is said at once, not found out by a silent guest.

use std::collections::BTreeSet;
use std::io;

use futures_util::{Stream, StreamExt as _};
use hostnet::netns::Netns;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use terms::IfName;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The links to follow, with what messages call each: the interface in the manifest.
pub(crate) type PodLinks = Vec<(IfName, String)>;

/// What happened to a link, by what messages call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is not there any more.
    Gone(String),
    /// It lost its carrier, or was set down.
    Down(String),
    /// It is up and has a carrier again.
    Up(String),
}

impl LinkEvent {
    /// A line in the supervisor's log.
    pub(crate) fn log(&self) {
        match self {
            Self::Gone(link) => {
                tracing::warn!(interface = link, "a pod interface is gone: the guest has no network there any more")
            }
            Self::Down(link) => tracing::warn!(interface = link, "a pod interface is down"),
            Self::Up(link) => tracing::info!(interface = link, "a pod interface is up again"),
        }
    }
}

/// Follows links until it is dropped; then its socket is closed.
#[derive(Debug)]
pub struct LinkWatch {
    events: mpsc::Receiver<LinkEvent>,
    following: JoinHandle<()>,
}

impl LinkWatch {
    /// The next change; `None` when links cannot be followed any more. May be cancelled and called again.
    pub(crate) async fn next(&mut self) -> Option<LinkEvent> {
        self.events.recv().await
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// Begins to follow `links` in a namespace.
///
/// # Errors
/// When the namespace cannot be entered or the socket not be opened.
pub(crate) fn follow(netns: &Netns, links: PodLinks) -> io::Result<LinkWatch> {
    let runtime = tokio::runtime::Handle::current();
    // A netlink socket belongs to the namespace of the thread that opens it, and to the reactor it is registered with.
    let opened = netns.run(|| {
        let _reactor = runtime.enter();
        rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
    });
    let (connection, handle, messages) = opened.map_err(io::Error::other)??;
    Ok(watch(connection, handle, messages, links))
}

/// Follows `links` in the namespace of this thread, for tests.
#[cfg(test)]
pub(crate) fn follow_here(links: PodLinks) -> io::Result<LinkWatch> {
    let (connection, handle, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
    Ok(watch(connection, handle, messages, links))
}

fn watch<A: Send + 'static>(
    connection: impl Future<Output = ()> + Send + 'static,
    handle: rtnetlink::Handle,
    mut messages: impl Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, A)> + Unpin + Send + 'static,
    links: PodLinks,
) -> LinkWatch {
    let (tell, events) = mpsc::channel(16);
    let mut changes = Changes { links, not_up: BTreeSet::new() };
    let report = async move {
        while let Some((message, _)) = messages.next().await {
            if let NetlinkPayload::InnerMessage(message) = message.payload
                && let Some(event) = understand(&message).and_then(|event| changes.note(event))
                && tell.send(event).await.is_err()
            {
                break;
            }
        }
    };
    // One task, so that its end closes the socket: a connection of its own would outlive it until the next event.
    let following = tokio::spawn(async move {
        // The connection lives as long as its handle, though nothing is requested through it.
        let _handle = handle;
        tokio::select! {
            () = connection => {}
            () = report => {}
        }
    });
    LinkWatch { events, following }
}

/// Tells changes from repetitions: the kernel reports a link whenever anything about it was set.
struct Changes {
    links: PodLinks,
    not_up: BTreeSet<String>,
}

impl Changes {
    fn note(&mut self, event: LinkEvent) -> Option<LinkEvent> {
        let (LinkEvent::Gone(name) | LinkEvent::Down(name) | LinkEvent::Up(name)) = &event;
        let (_, called) = self.links.iter().find(|(link, _)| link.as_str() == name)?;
        let (is_new, event) = match event {
            LinkEvent::Gone(_) => (true, LinkEvent::Gone(called.clone())),
            LinkEvent::Down(name) => (self.not_up.insert(name), LinkEvent::Down(called.clone())),
            LinkEvent::Up(name) => (self.not_up.remove(&name), LinkEvent::Up(called.clone())),
        };
        is_new.then_some(event)
    }
}

fn understand(message: &RouteNetlinkMessage) -> Option<LinkEvent> {
    match message {
        RouteNetlinkMessage::DelLink(link) => name_of(link).map(LinkEvent::Gone),
        RouteNetlinkMessage::NewLink(link) => {
            let works = link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
            name_of(link).map(if works { LinkEvent::Up } else { LinkEvent::Down })
        }
        _ => None,
    }
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_of_pod_interfaces_are_told_by_their_names_in_the_manifest() {
        let links = vec![("eth0".parse().unwrap(), "default".to_owned())];
        let mut changes = Changes { links, not_up: BTreeSet::new() };
        let (up, down) = (|name: &str| LinkEvent::Up(name.to_owned()), |name: &str| LinkEvent::Down(name.to_owned()));
        let told = [up("eth0"), down("eth0"), down("eth0"), down("tap0"), up("eth0"), up("eth0")]
            .map(|event| changes.note(event));
        assert_eq!(told, [None, Some(down("default")), None, None, Some(up("default")), None]);
        assert_eq!(changes.note(LinkEvent::Gone("eth0".to_owned())), Some(LinkEvent::Gone("default".to_owned())));
    }
}
