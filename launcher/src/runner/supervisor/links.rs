//! Follows the links of a VM's namespace: a pod NIC that goes away is said at once, not found out by a silent guest.

use std::io;

use futures_util::StreamExt as _;
use hostnet::netns::Netns;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use tokio::sync::mpsc;

/// What happened to a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is not there any more.
    Gone(String),
    /// It lost its carrier, or was set down.
    Down(String),
    /// It is up and has a carrier again.
    Up(String),
}

/// Begins to follow; events come until the receiver is dropped.
///
/// # Errors
/// When the namespace cannot be entered or the socket not be opened.
pub(crate) fn follow(netns: &Netns) -> io::Result<mpsc::Receiver<LinkEvent>> {
    let (tell, told) = mpsc::channel(16);
    let runtime = tokio::runtime::Handle::current();
    // A netlink socket belongs to the namespace of the thread that opens it, and to the reactor it is registered with.
    let opened = netns.run(|| {
        let _reactor = runtime.enter();
        rtnetlink::new_multicast_connection(&[rtnetlink::MulticastGroup::Link])
    });
    let (connection, handle, mut messages) = opened.map_err(io::Error::other)??;
    tokio::spawn(async move {
        // The connection lives as long as its handle, though nothing is asked through it.
        let following = tokio::spawn(connection);
        while let Some((message, _)) = messages.next().await {
            if let NetlinkPayload::InnerMessage(message) = message.payload
                && let Some(event) = understand(&message)
                && tell.send(event).await.is_err()
            {
                break;
            }
        }
        drop(handle);
        following.abort();
    });
    Ok(told)
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
