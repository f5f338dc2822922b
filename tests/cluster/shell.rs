//! `cluster shell`: a shell in a cluster, which is started unless it runs and stays afterwards; `cluster down` ends it.
//!
//! *Flow*: the cluster belongs to a process of its own, `cluster hold`, whose socket answers each client with the number of the
//! world's first process and the command that opens a shell. `down` kills the process that the kernel names as the
//! socket's owner, and removes what is left; that also works when the owner was killed.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;
use tests::cluster::{Cluster, address, clean};
use tests::{cache_file, wait_for, workspace};

const NAME: &str = "shell";
const MOMENT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("hold") => hold(),
        Some("shell") => shell(),
        Some("down") => down(),
        _ => {
            eprintln!("cluster: the first argument must be shell or down");
            ExitCode::from(2)
        }
    }
}

fn hold() -> ExitCode {
    let cluster = Cluster::start(NAME);
    cluster.install_product();
    // What the examples boot.
    cluster.import(&cache_file("guest/images"));
    let shell = cluster.shell();
    let words: Vec<_> = shell.get_args().map(|word| word.to_string_lossy()).collect();
    cluster.answer(&format!("{}\n{}\n{}", cluster.world().pid(), shell.get_program().display(), words.join("\n")))
}

fn shell() -> ExitCode {
    let stream = connect().unwrap_or_else(start);
    let Some(answer) = ask(stream) else {
        eprintln!("cluster: it did not start; {} says why", log().display());
        return ExitCode::FAILURE;
    };
    let mut words: Vec<_> = answer.lines().skip(1).map(str::to_owned).collect();
    // Who enters a mount namespace is at its root: the shell is where it was asked for.
    if let (Some(env), Ok(folder)) = (words.iter().position(|word| word == "env"), std::env::current_dir()) {
        words.insert(env + 1, format!("--chdir={}", folder.display()));
    }
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    println!(
        "cluster: kubectl, virtctl and KUBECONFIG are set. It stays after this shell; `make cluster-down` ends it."
    );
    let error = command.args(words).exec();
    eprintln!("cluster: cannot start a shell: {error}");
    ExitCode::FAILURE
}

fn down() -> ExitCode {
    if let Some(stream) = connect() {
        let owner = getsockopt(&stream, PeerCredentials).expect("the kernel knows a socket's owner").pid();
        let world = ask_at_once(&stream);
        kill(Pid::from_raw(owner), Signal::SIGKILL).expect("root may end it");
        wait_for("the cluster's owner to end", MOMENT, || connect().is_none().then_some(()));
        let first = world.map(|pid| Path::new("/proc").join(pid));
        wait_for("the cluster to end", MOMENT, || first.as_ref().is_none_or(|first| !first.exists()).then_some(()));
    }
    clean(NAME);
    ExitCode::SUCCESS
}

fn connect() -> Option<UnixStream> {
    UnixStream::connect_addr(&address(NAME)).ok()
}

/// Starts the owner in a session of its own: it survives this terminal.
fn start() -> UnixStream {
    println!("cluster: starting Kubernetes on two nodes; logs are in {}", log().parent().expect("a folder").display());
    std::fs::create_dir_all(log().parent().expect("a folder")).expect("folders can be made");
    let log = File::create(log()).expect("a file can be made");
    let mut owner = Command::new("setsid")
        .arg(std::env::current_exe().expect("a program knows its file"))
        .arg("hold")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor can be copied"))
        .stderr(log)
        .spawn()
        .expect("setsid (package util-linux) starts");
    let connected = || {
        assert!(owner.try_wait().expect("a child can be waited for").is_none(), "the cluster did not start");
        connect()
    };
    wait_for("the cluster's socket", MOMENT, connected).0
}

/// What the owner answers once the cluster is ready; `None` when it ends before.
fn ask(mut stream: UnixStream) -> Option<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok().filter(|size| *size > 0)?;
    Some(answer)
}

/// The number of the world's first process, unless the cluster is still starting.
fn ask_at_once(stream: &UnixStream) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("the time is not zero");
    let answer = ask(stream.try_clone().expect("a descriptor can be copied"))?;
    answer.lines().next().map(str::to_owned)
}

fn log() -> std::path::PathBuf {
    workspace().join("target/cluster/owner.log")
}
