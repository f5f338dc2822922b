//! A guest without a machine: a namespace whose `eth0` is joined to a VM tap by shuttling frames between two taps.
//!
//! Both ends carry virtio-net headers, so checksum and segmentation offload cross as they do with a real guest.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::tap::{FRAME_BYTES, Tap};
use crate::{Ns, World};

/// A guest made of a namespace. Ends, with its frames, when dropped.
#[derive(Debug)]
pub struct FakeGuest<'w> {
    ns: Ns<'w>,
    stop: Option<OwnedFd>,
    shuttle: Option<JoinHandle<()>>,
}

impl<'w> FakeGuest<'w> {
    /// Plugs a guest called `name` into the VM tap `tap` of `pod`, as a VM process would: one queue, offloads on.
    ///
    /// The guest's `eth0` has the Ethernet address `mac`, the MTU of the tap, no addresses, and is up.
    #[must_use]
    pub fn plug(world: &'w World, name: &str, pod: &Ns<'_>, tap: &str, mac: &str) -> Self {
        Self::plug_queue(world, name, pod, tap, mac, false)
    }

    /// The same on a tap that was made for several queues.
    #[must_use]
    pub fn plug_multi_queue(world: &'w World, name: &str, pod: &Ns<'_>, tap: &str, mac: &str) -> Self {
        Self::plug_queue(world, name, pod, tap, mac, true)
    }

    fn plug_queue(world: &'w World, name: &str, pod: &Ns<'_>, tap: &str, mac: &str, multi_queue: bool) -> Self {
        let ns = world.ns(name);
        let mtu = pod.run(&["ip", "-j", "link", "show", tap]).json()[0]["mtu"].to_string();
        let outer = pod.enter(|| Tap::attach(tap, multi_queue));
        let inner = ns.enter(|| Tap::attach("eth0", false));
        let addresses = format!("ip link set eth0 address {mac} mtu {mtu}; ip link set eth0 up");
        ns.sh(&addresses).assert_ok();
        let (stopped, stop) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe can be made");
        let shuttle = std::thread::spawn(move || shuttle(&outer, &inner, &stopped));
        let guest = Self { ns, stop: Some(stop), shuttle: Some(shuttle) };
        pod.wait_carrier(tap);
        guest
    }

    /// The guest's namespace, to run DHCP clients, servers and probes in.
    #[must_use]
    pub fn ns(&self) -> &Ns<'w> {
        &self.ns
    }
}

impl Drop for FakeGuest<'_> {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(shuttle) = self.shuttle.take() {
            let _ = shuttle.join();
        }
        let _ = self.ns.world().run(&["ip", "netns", "delete", self.ns.name()]);
    }
}

/// Carries frames both ways until the other end of `stopped` closes or a tap vanishes.
fn shuttle(outer: &Tap, inner: &Tap, stopped: &OwnedFd) {
    let mut buffer = vec![0; FRAME_BYTES];
    loop {
        let mut waits = [
            PollFd::new(outer.as_fd(), PollFlags::POLLIN),
            PollFd::new(inner.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        if poll(&mut waits, PollTimeout::NONE).is_err() {
            continue;
        }
        let happened = waits.map(|wait| wait.revents().unwrap_or(PollFlags::empty()));
        if !happened[2].is_empty() || happened[..2].iter().any(|tap| tap.contains(PollFlags::POLLERR)) {
            return;
        }
        for (from, to) in [(outer, inner), (inner, outer)] {
            while let Some(length) = from.read_raw(&mut buffer) {
                to.write_raw(&buffer[..length]);
            }
        }
    }
}
