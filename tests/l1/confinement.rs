//! What the launcher and QEMU are refused once they are confined: each rule by trying what it forbids, in a thread.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use launcher::confine::landlock::{self, Access};
use launcher::confine::seccomp;
use libtest_mimic::Trial;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tests::{Skip, needs, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: ISO-5
        needs("Landlock refuses every file that no rule names, and TCP", has_landlock, files),
        // spec: ISO-5
        needs("Landlock refuses an engine signals and abstract sockets of others", has_landlock, scopes),
        // spec: ISO-6
        trial("seccomp refuses programs, processes, namespaces, tracing and sockets", calls),
    ]
}

/// Does something in a thread of its own: rules bind a thread and what it starts.
fn in_a_thread(act: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(act).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn has_landlock() -> Result<(), Skip> {
    let mut has = Ok(());
    in_a_thread(|| {
        if let Err(why) = landlock::restrict_thread(&Access::default()) {
            has = Err(Skip(format!("Landlock: {why}")));
        }
    });
    has
}

fn refused<T>(result: std::io::Result<T>, what: &str) {
    let error = result.err().unwrap_or_else(|| panic!("{what} is allowed"));
    let errno = error.raw_os_error().map(Errno::from_raw);
    assert!(matches!(errno, Some(Errno::EACCES | Errno::EPERM | Errno::EXDEV)), "{what}: {error}");
}

fn files() {
    let folder = tempfile::tempdir().unwrap();
    let [own, other] = ["own", "other"].map(|name| folder.path().join(name));
    [&own, &other].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let secret = other.join("secret");
    fs::write(&secret, "secret").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap();
    let mut kept = File::open(&secret).unwrap();
    in_a_thread(|| {
        let access =
            Access { write: vec![&own], execute: landlock::programs(Path::new("/bin/true")), ..Access::default() };
        landlock::restrict_thread(&access).unwrap();
        // What it is for goes on: its own folder, programs of the system, what is open.
        fs::write(own.join("outcome.json.new"), "{}").unwrap();
        fs::rename(own.join("outcome.json.new"), own.join("outcome.json")).unwrap();
        drop(UnixListener::bind(own.join("control.sock")).unwrap());
        fs::read("/usr/bin/env").unwrap();
        assert_eq!(std::io::read_to_string(&mut kept).unwrap(), "secret");
        // Everything else is refused.
        refused(fs::read(&secret), "reading another's file");
        refused(fs::read("/etc/passwd"), "reading a file of the host");
        refused(File::open("/proc/self/mem"), "opening /proc");
        refused(fs::write(other.join("new"), "x"), "making a file elsewhere");
        refused(fs::remove_file(&secret), "removing another's file");
        refused(fs::rename(own.join("outcome.json"), other.join("moved")), "moving a file elsewhere");
        refused(fs::hard_link(own.join("outcome.json"), other.join("linked")), "linking a file elsewhere");
        refused(fs::read_dir("/"), "listing the root");
        refused(File::options().write(true).open("/dev/null"), "opening a device that no rule names");
        fs::copy("/bin/true", own.join("program")).unwrap();
        refused(Command::new(own.join("program")).status(), "executing what it wrote");
        refused(TcpStream::connect(port), "connecting by TCP");
        refused(TcpListener::bind("127.0.0.1:0"), "listening by TCP");
    });
}

fn scopes() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;
    let name = format!("tapvisor-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = nix::unistd::Pid::from_raw(other.id().cast_signed());
    in_a_thread(|| {
        landlock::restrict_thread(&Access::default()).unwrap();
        refused(UnixStream::connect_addr(&address), "connecting to an abstract socket");
        let signalled = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        refused(signalled.map_err(std::io::Error::from), "signalling another process");
    });
    in_a_thread(|| {
        // The launcher ends its engine, which has rules of its own.
        landlock::restrict_thread(&Access { may_signal: true, ..Access::default() }).unwrap();
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    });
    other.wait().unwrap();
}

fn calls() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("console.log");
    let file = &file;
    in_a_thread(move || {
        seccomp::restrict_thread().unwrap();
        // What a launcher does goes on: files, sockets, threads, memory.
        fs::write(file, "x").unwrap();
        fs::rename(file, file.with_extension("1")).unwrap();
        let (mut one, mut two) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut one, b"x").unwrap();
        std::io::Read::read_exact(&mut two, &mut [0]).unwrap();
        drop(UnixListener::bind(file.with_extension("sock")).unwrap());
        std::thread::Builder::new().name("thread".into()).spawn(|| vec![0_u8; 64 << 20].len()).unwrap().join().unwrap();
        // Everything else is refused.
        refused(Command::new("/bin/true").spawn(), "starting a program");
        let errno = |result: nix::Result<()>, what: &str| refused(result.map_err(std::io::Error::from), what);
        use nix::sched::{CloneFlags, unshare};
        errno(unshare(CloneFlags::CLONE_NEWUSER), "a user namespace");
        errno(unshare(CloneFlags::CLONE_NEWNET), "a network namespace");
        errno(nix::sys::ptrace::traceme(), "tracing");
        for family in [AddressFamily::Inet, AddressFamily::Inet6, AddressFamily::Netlink, AddressFamily::Packet] {
            let made = socket(family, SockType::Datagram, SockFlag::empty(), None);
            errno(made.map(drop), &format!("a socket of {family:?}"));
        }
        errno(nix::unistd::chroot("/"), "another root");
        errno(nix::mount::umount("/proc"), "unmounting");
        errno(nix::sys::prctl::set_dumpable(true), "another option of prctl");
        let core = nix::sys::resource::Resource::RLIMIT_CORE;
        errno(nix::sys::resource::setrlimit(core, 0, 0), "setting a limit");
        errno(nix::unistd::setsid().map(drop), "a session");
    });
}
