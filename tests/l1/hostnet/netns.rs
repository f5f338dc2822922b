//! Namespaces made, entered and removed; descriptors attached to taps.

use std::time::Duration;

use hostnet::netns::{Netns, NetnsError};
use hostnet::op::{LinkChange, NewTap};
use hostnet::tap::{self, Offload};
use hostnet::{Kernel, Linux, LockError, Locks, Op};
use libtest_mimic::Trial;
use tests::World;

use super::{execute, name, trial};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("a namespace is made, seen by ip, entered and removed", made_and_removed),
        trial("a panic inside a namespace is an error and the thread is gone", panics),
        // spec: CNI-LOCK-1
        trial("one process at a time locks a namespace, by any path", locked),
        trial("a descriptor attaches to the tap it asks for and to no other", attaching),
    ]
}

/// A folder of our own: the machine's `/run/netns` is not ours to write to.
fn made_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/tv-hostnet");
    let here = Netns::current().unwrap();
    let made = Netns::create(&path).unwrap();
    assert!(made != here && made == Netns::open(&path).unwrap());
    assert!(matches!(Netns::create(&path), Err(NetnsError::Exists(_))));
    let inside = made.run(|| Netns::current().unwrap() == made).unwrap();
    assert!(inside && Netns::current().unwrap() == here);
    let links = made.run(|| Linux::here().gather(&hostnet::Ask::network()).unwrap().links).unwrap();
    assert_eq!(links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["lo"]);
    // By the whole path: trials that run at the same time have their own mounts.
    let mounted = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(path.to_str().unwrap());
    assert!(mounted());
    Netns::remove(&path).unwrap();
    assert!(!mounted() && !path.exists());
    Netns::remove(&path).unwrap();
    // What a creation leaves behind that was killed before the mount is an empty file.
    std::fs::write(&path, "").unwrap();
    assert!(matches!(Netns::open(&path), Err(NetnsError::Foreign { .. })));
    Netns::remove(&path).unwrap();
    assert!(!path.exists());
}

fn panics() {
    let here = Netns::current().unwrap();
    let error = here.run(|| panic!("inside")).map(|(): ()| ()).unwrap_err();
    assert!(error.to_string().ends_with(": inside"), "{error}");
}

fn locked() {
    let folder = tempfile::tempdir().unwrap();
    let (path, locks) = (folder.path().join("tv-hostnet"), Locks::new(folder.path().join("locks")));
    let made = Netns::create(&path).unwrap();
    let from_inside = made.run(|| Netns::open("/proc/thread-self/ns/net").unwrap()).unwrap();
    let lock = made.lock(&locks, Duration::ZERO).unwrap();
    let error = from_inside.lock(&locks, Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, NetnsError::Locked { source: LockError::Busy { .. }, .. }), "{error}");
    drop(Netns::current().unwrap().lock(&locks, Duration::ZERO).unwrap());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| from_inside.lock(&locks, Duration::from_secs(60)).map(drop));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(lock);
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(std::fs::read_dir(folder.path().join("locks")).unwrap().count(), 0);
    // A lock on the namespace's own file, which any user can take, blocks no call.
    std::fs::File::open(&path).unwrap().lock().unwrap();
    drop(made.lock(&locks, Duration::ZERO).unwrap());
    Netns::remove(&path).unwrap();
}

fn attaching() {
    let world = World::bare();
    let ns = world.ns("pod");
    let tap = |own: &str, multi_queue| {
        let set = LinkChange::up();
        Op::CreateTap(NewTap { name: name(own), owner: 107, group: None, multi_queue, set })
    };
    execute(&ns, &[tap("one", false), tap("many", true)]).unwrap();
    ns.enter(|| {
        let open = || tap::open().unwrap();
        let held = open();
        tap::attach(&held, &name("one"), false).unwrap();
        tap::set_offload(&held, Offload { checksum: true, tso4: true, tso6: true, ..Offload::default() }).unwrap();
        let says = |multi_queue, own: &str, words: &str| {
            let error = tap::attach(&open(), &name(own), multi_queue).unwrap_err().to_string();
            assert!(error.contains(own) && error.contains(words), "{error}");
        };
        says(false, "one", "another process is attached");
        says(true, "one", "one descriptor where several");
        says(false, "many", "one descriptor where several");
        let queues = [open(), open()];
        queues.iter().for_each(|queue| tap::attach(queue, &name("many"), true).unwrap());
    });
    let link = &ns.run(&["ip", "-j", "-d", "link", "show", "one"]).json()[0];
    assert_eq!(link["linkinfo"]["info_data"]["vnet_hdr"], true);
}
