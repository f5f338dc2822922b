//! `tapvisor launch` from its arguments to its exit code.

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use hostnet::kernel::Kernel;
use hostnet::linux::Linux;
use hostnet::{Ask, KernelError};
use machine::{AgentUse, Boot, FileSet, Machine};
use nix::sys::signal::{SigSet, Signal};
use wiring::{Binding, Owner};

use super::agent::Agent;
use super::choice::{self, Choice, ChoiceError};
use super::confine::{self, Confinement};
use super::console::{Console, Door};
use super::control::{self, Control};
use super::counters::{Account, Meter};
use super::engine::{Confine, Engine, EngineError, OpenNic, Parts, Running};
use super::huge_pages;
use super::incoming::Incoming;
use super::network::{self, AttachError, Lease, ResolvConf, Resolvers, Service, VerifyError, WiredNic};
use super::orphans;

use super::run::{self, EventLoop, Input};
use super::screen;
use block::{DiskError, Given};
use protocol::chain::chain;
use protocol::control::{ConfinementStatus, NicStatus, State, Status};
use protocol::descriptors::{DescriptorError, Inherited};
use protocol::launch_file::LaunchFile;
use protocol::options::LaunchOptions;
use protocol::outcome::Outcome;
use protocol::socket::VNC_SOCKET;

/// The largest machine file that is read; user data of a cloud-init volume is in it.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Runs the machine and leaves `outcome.json`; the exit code says the same in a number.
#[must_use]
pub fn launch(args: &LaunchOptions) -> ExitCode {
    // Every line of the log names the VM, once its launch file was read.
    let span = tracing::info_span!("vm", name = tracing::field::Empty);
    let _vm = span.enter();
    // Open from the start: a confined process opens nothing outside its folder.
    let (mut termination_log, result) = match open_termination_log(args) {
        Ok(file) => (file, run(args)),
        Err(error) => (None, Err(error)),
    };
    let (outcome, code) = match result {
        Ok(outcome) => (outcome.clone(), outcome.exit_code()),
        Err(error) if error.is_not_wired() => (Outcome::not_wired(chain(&error)), error.exit_code()),
        Err(error) => (Outcome::failed(chain(&error)), error.exit_code()),
    };
    match code {
        0 => tracing::info!(reason = outcome.reason, "ended"),
        _ => tracing::error!(reason = outcome.reason, "ended"),
    }
    if let Err(error) = outcome.write(&args.dir) {
        tracing::error!(dir = %args.dir.display(), %error, "the outcome could not be written");
    }
    if let Some(file) = &mut termination_log
        && let Err(error) = outcome.to_termination_message().and_then(|message| file.write_all(&message))
    {
        tracing::error!(%error, "the outcome could not be written to --termination-log");
    }
    ExitCode::from(code)
}

/// Truncates it and does not create it: kubelet made the file, and mounted it where it is.
fn open_termination_log(args: &LaunchOptions) -> Result<Option<fs::File>, LaunchError> {
    let Some(path) = &args.termination_log else { return Ok(None) };
    let file = fs::File::options().write(true).truncate(true).open(path);
    file.map(Some).map_err(system("open --termination-log"))
}

/// Why a machine could not be run.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("machine file {path:?}")]
    ReadFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("machine file {path:?}: {flaw}")]
    BadFile { path: PathBuf, flaw: String },
    #[error("boot: {what} {path:?}")]
    BootFile {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    #[error("the pod's network cannot be read")]
    Facts(#[from] KernelError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error("NIC {nic:?}")]
    Answers {
        nic: String,
        #[source]
        source: dhcp::ConfigError,
    },
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error("cannot {what}")]
    System {
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
}

impl LaunchError {
    fn is_not_wired(&self) -> bool {
        matches!(self, Self::Verify(VerifyError::NotWired { .. } | VerifyError::AnotherRequest { .. }))
    }

    /// 3 invalid machine file, 6 the host lacks something, 8 the network is not wired, 1 otherwise.
    fn exit_code(&self) -> u8 {
        match self {
            _ if self.is_not_wired() => 8,
            Self::ReadFile { .. } | Self::BadFile { .. } | Self::Verify(VerifyError::Machine { .. }) => 3,
            Self::Answers { .. } | Self::Engine(EngineError::Unsupported(_)) => 3,
            Self::Disk(DiskError::Missing { .. } | DiskError::Refused { .. } | DiskError::Unfit { .. }) => 3,
            Self::Choice(ChoiceError::Lacks(_) | ChoiceError::Contradiction) => 3,
            Self::Choice(_) | Self::Engine(EngineError::Missing { .. }) => 6,
            Self::Attach(AttachError::Tap(hostnet::tap::TapError::Node(_))) => 6,
            _ => 1,
        }
    }
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> LaunchError {
    move |source| LaunchError::System { what, source }
}

/// Descriptors as they were handed down.
struct HandedDown {
    taps: network::Descriptors,
    kvm: Option<OwnedFd>,
    vhost: Vec<OwnedFd>,
    disks: Given,
}

fn run(args: &LaunchOptions) -> Result<Outcome, LaunchError> {
    // First of all: later on their numbers could be anything's.
    let mut handed_down = take_over(args)?;
    Outcome::clear(&args.dir).map_err(system("use --dir"))?;
    let (input, inputs) = mpsc::channel();
    let signals = hold_signals().map_err(system("hold signals"))?;
    let file = read_file(&args.machine)?;
    let name = format!("{}/{}", file.machine.namespace, file.machine.name);
    tracing::Span::current().record("name", name);
    check_boot(&file.machine.boot)?;
    let choice = choice::choose(&file, handed_down.kvm.take())?;
    check_bindings(&file, &*choice.engine())?;
    huge_pages::missing(&file.machine).map_or(Ok(()), |why| Err(EngineError::Unsupported(why)))?;
    let LaunchFile { machine, wiring, .. } = file;
    let mut kernel = Linux::here();
    let facts = kernel.gather(&Ask::network())?;
    let of_nics = args.nic_resolv_conf.iter().map(|(nic, path)| (nic.clone(), read_resolv(path)));
    let resolvers = Resolvers { of_pod: read_resolv(&args.resolv_conf), of_nics: of_nics.collect() };
    let wired = network::verify(&machine, &wiring, &facts, me(), &resolvers)?;
    for nic in &wired {
        nic.not_told
            .iter()
            .for_each(|what| tracing::warn!(nic = nic.name, what, "the guest cannot be given a part of its network"));
    }
    let (nics, services) = connect(&wired, handed_down.taps, handed_down.vhost, choice.wants_vhost())?;
    let scratch = args.scratch.as_deref().unwrap_or(&args.dir);
    let disks = match args.incoming {
        true => look_at_disks(&machine)?,
        false => block::open_all(&machine, scratch, handed_down.disks)?,
    };
    let (doors, far_end) = Doors::open(args, machine.graphics)?;
    let grace = Duration::from_secs(machine.grace_period_seconds);
    let channel = choice.engine().has_agent_channel() && !args.incoming;
    let channel = channel.then(UnixStream::pair).transpose();
    let (channel, agent) = channel.map_err(system("make a socket pair for the guest's agent"))?.unzip();
    let agent = agent.map(OwnedFd::from);
    // From this thread, which lives as long as the process: the engine is told to die with it. Until it runs there is no
    // other thread, and each that is made afterwards is confined as this one is.
    let events = run::events(input.clone());
    let mut confinement = Confinement::default();
    let mut confine = |what| confinement = confine::confine(&args.dir, credential_folders(&machine), what);
    let own = Account::own();
    let mut running: Box<dyn Running> = if args.incoming {
        confine(Confine::AllThreads);
        Box::new(Incoming::new(events, far_end))
    } else {
        let parts = Parts { machine: machine.clone(), nics, disks, console: far_end, agent };
        choice.engine().start(parts, events, &mut confine)?
    };
    forward_signals(signals, input.clone()).map_err(system("start a thread for signals"))?;
    // Until the guest is here, its addresses are given by the other launcher.
    let services = services.into_iter().map(|service| service.filter(|_| !args.incoming));
    let services = services.map(|service| service.map(|service| service.start(&input)).transpose());
    let services = services.collect::<Result<_, _>>()?;
    let agent = channel.map(|channel| start_agent(channel, &machine, &input)).transpose()?;
    let nics = wired.iter().map(|nic| (nic.name.clone(), nic.tap.clone())).collect();
    let account = running.take_account().or(own);
    let queues = running.take_queues();
    let meter = Meter { kernel, account, memory_bytes: machine.memory_bytes, nics, queues }.start();
    let meter = meter.map_err(system("start a thread for counters"))?;
    let (console, control) = doors.serve(args, input)?;
    let description = Description { incoming: args.incoming, machine, choice, wired, services, confinement };
    let describe = || Status { agent: agent.as_ref().map(Agent::status), ..description.status() };
    let count = |call| meter.answer(call);
    let agent = agent.as_ref();
    let outcome = EventLoop { machine: running, grace, agent, describe: &describe, count: &count }.run(&inputs);
    console.finish();
    control.finish();
    Ok(outcome)
}

/// The folders with credentials for the guest, which change while the machine runs.
fn credential_folders(machine: &Machine) -> Vec<&Path> {
    let AgentUse { ssh_keys, passwords, .. } = &machine.agent;
    let sets = ssh_keys.iter().map(|keys| &keys.files).chain(passwords);
    let folders = sets.filter_map(|files| match files {
        FileSet::Folder(folder) => Some(folder.as_path()),
        FileSet::Listed(_) => None,
    });
    folders.collect()
}

fn start_agent(channel: UnixStream, machine: &Machine, input: &Sender<Input>) -> Result<Agent, LaunchError> {
    let input = input.clone();
    let tell = move |news| input.send(Input::Agent(news)).is_ok();
    Agent::start(channel, machine.agent.clone(), tell).map_err(system("start a thread for the guest's agent"))
}

/// Whether every disk of a guest that is to come is there; each is opened for reading alone, and closed.
fn look_at_disks(machine: &Machine) -> Result<Vec<block::OpenDisk>, DiskError> {
    let expected = block::Expected { own: &[], is_format_given: true };
    machine.disks.iter().try_for_each(|disk| block::examine(disk, &expected).map(drop))?;
    Ok(Vec::new())
}

fn take_over(args: &LaunchOptions) -> Result<HandedDown, DescriptorError> {
    let mut inherited = Inherited::default();
    let mut take_all = |option, numbers: &[i32]| {
        numbers.iter().map(|number| inherited.take(option, *number)).collect::<Result<Vec<_>, _>>()
    };
    let taps = network::Descriptors::given(take_all("--tun-fds", &args.tun_fds)?);
    let vhost = take_all("--vhost-net-fds", &args.vhost_net_fds)?;
    let kvm = args.kvm_fd.map(|number| inherited.take("--kvm-fd", number)).transpose()?;
    let disks = args.disk_fds.iter().map(|(name, number)| Ok((name.clone(), inherited.take("--disk-fd", *number)?)));
    Ok(HandedDown { taps, kvm, vhost, disks: disks.collect::<Result<_, _>>()? })
}

/// SIGTERM, SIGINT and SIGCHLD wait from here on, in every thread.
fn hold_signals() -> std::io::Result<SigSet> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().collect();
    signals.thread_block()?;
    Ok(signals)
}

/// SIGTERM and SIGINT become inputs. SIGCHLD may be an orphan's, which the first process of a namespace has to reap.
fn forward_signals(signals: SigSet, input: Sender<Input>) -> std::io::Result<()> {
    let wait = move || {
        while let Ok(signal) = signals.wait() {
            if signal == Signal::SIGCHLD {
                orphans::reap();
            } else if input.send(Input::Terminate).is_err() {
                return;
            }
        }
    };
    crate::threads::spawn("signals", wait).map(drop)
}

fn read_file(path: &Path) -> Result<LaunchFile, LaunchError> {
    let bad = |flaw| LaunchError::BadFile { path: path.to_owned(), flaw };
    let read = |source| LaunchError::ReadFile { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(read)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(bad(format!("{bytes} bytes, at most {MAX_FILE_BYTES} are read")));
    }
    LaunchFile::parse(&fs::read(path).map_err(read)?).map_err(|error| bad(error.to_string()))
}

fn check_boot(boot: &Boot) -> Result<(), LaunchError> {
    let Boot::Kernel { kernel, initrd, .. } = boot else { return Ok(()) };
    let files = [("kernel", Some(kernel)), ("initrd", initrd.as_ref())];
    for (what, path) in files.into_iter().filter_map(|(what, path)| Some((what, path?))) {
        fs::File::open(path).map_err(|source| LaunchError::BootFile { what, path: path.clone(), source })?;
    }
    Ok(())
}

/// A passthrough device needs an engine that has them.
fn check_bindings(file: &LaunchFile, engine: &dyn Engine) -> Result<(), EngineError> {
    let passed = file.nics().find(|(_, interface)| interface.binding == Binding::Sriov);
    let Some((nic, _)) = passed.filter(|_| !engine.has_passthrough()) else { return Ok(()) };
    let (name, engine) = (&nic.name, engine.kind());
    Err(EngineError::Unsupported(format!("NIC {name:?}: binding sriov: engine {engine} has no passthrough devices")))
}

fn me() -> Owner {
    Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
}

fn read_resolv(path: &Path) -> ResolvConf {
    match fs::read_to_string(path) {
        Ok(text) => ResolvConf::parse(&text),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the guest is told of no name server");
            ResolvConf::default()
        }
    }
}

/// A service tap, before anything is answered on it.
struct Prepared {
    nic: String,
    service: Service,
    tap: OwnedFd,
}

impl Prepared {
    fn start(self, input: &Sender<Input>) -> Result<Service, LaunchError> {
        let input = input.clone();
        // A loop that has ended asks for no leases.
        let on_lease = move |lease: Lease| drop(input.send(Input::Lease(lease)));
        self.service.start(self.nic, self.tap, on_lease).map_err(system("start a thread for DHCP"))?;
        Ok(self.service)
    }
}

/// Attaches the taps of all NICs and prepares their DHCP services, in the machine's order of NICs.
fn connect(
    wired: &[WiredNic],
    mut taps: network::Descriptors,
    vhost: Vec<OwnedFd>,
    wants_vhost: bool,
) -> Result<(Vec<OpenNic>, Vec<Option<Prepared>>), LaunchError> {
    let mut vhost = vhost.into_iter();
    let mut nics = Vec::new();
    let mut services = Vec::new();
    for nic in wired {
        let attached = network::attach(nic, &mut taps)?;
        let vhost: Vec<_> = vhost.by_ref().take(usize::from(nic.queues)).collect();
        let vhost = if wants_vhost && vhost.len() == usize::from(nic.queues) { vhost } else { Vec::new() };
        nics.push(OpenNic { mac: nic.mac, mtu: Some(nic.mtu), queues: attached.queues, vhost });
        let Some((wired_service, tap)) = nic.service.as_ref().zip(attached.service) else {
            services.push(None);
            continue;
        };
        let service = Service::new(wired_service.answers.clone())
            .map_err(|source| LaunchError::Answers { nic: nic.name.clone(), source })?;
        services.push(Some(Prepared { nic: nic.name.clone(), service, tap }));
    }
    Ok((nics, services))
}

/// The console and control sockets, listened at and not served yet.
struct Doors {
    console: Door,
    control: UnixListener,
    /// `None` for machines without graphics.
    screen: Option<UnixListener>,
    guest: UnixStream,
}

impl Doors {
    /// Opens them; the console's far end is for the engine.
    fn open(args: &LaunchOptions, graphics: bool) -> Result<(Self, OwnedFd), LaunchError> {
        let (guest, far_end) = UnixStream::pair().map_err(system("make a socket pair for the console"))?;
        let console = Door::open(&args.dir).map_err(system("serve the console in --dir"))?;
        let control = protocol::socket::listen(&args.dir.join("control.sock"));
        let control = control.map_err(system("serve control.sock in --dir"))?;
        let screen = graphics.then(|| protocol::socket::listen(&args.dir.join(VNC_SOCKET))).transpose();
        let screen = screen.map_err(system("serve vnc.sock in --dir"))?;
        Ok((Self { console, control, screen, guest }, far_end.into()))
    }

    fn serve(self, args: &LaunchOptions, input: Sender<Input>) -> Result<(Console, Control), LaunchError> {
        let console =
            Console::serve(self.guest, self.console, args.console_stdio).map_err(system("serve the console"))?;
        if let Some(screen) = self.screen {
            let input = input.clone();
            let on_viewer = move |viewer| input.send(Input::Viewer(viewer)).is_ok();
            screen::serve(screen, on_viewer).map_err(system("serve vnc.sock"))?;
        }
        let on_call = move |call| input.send(Input::Call(call)).is_ok();
        let control = control::serve(self.control, on_call).map_err(system("serve control.sock"))?;
        Ok((console, control))
    }
}

/// What `status` tells that does not change, and the leases.
struct Description {
    incoming: bool,
    machine: Machine,
    choice: Choice,
    wired: Vec<WiredNic>,
    services: Vec<Option<Service>>,
    confinement: Confinement,
}

impl Description {
    fn status(&self) -> Status {
        let nics = self.wired.iter().zip(&self.services).zip(&self.machine.nics).map(|((nic, service), asked)| {
            let of_service = service.as_ref().map(Service::not_told).unwrap_or_default();
            NicStatus {
                tap: Some(nic.tap.clone()),
                mtu_bytes: nic.mtu.value(),
                queues: nic.queues,
                link_down: asked.link_down,
                not_told: nic.not_told.iter().cloned().chain(of_service).collect(),
                service: service.as_ref().map(Service::status),
                ..NicStatus::new(&nic.name, nic.mac)
            }
        });
        Status {
            incoming: self.incoming,
            namespace: self.machine.namespace.clone(),
            name: self.machine.name.clone(),
            uuid: self.machine.uuid.clone(),
            engine: Some(self.choice.kind()),
            engine_reason: self.choice.reason().to_owned(),
            kvm: self.choice.kvm().to_owned(),
            nics: nics.collect(),
            confinement: Some(ConfinementStatus {
                landlock: self.confinement.landlock,
                seccomp: self.confinement.seccomp,
            }),
            ..Status::new(State::Starting)
        }
    }
}
