//! `vmm-boot`: boots a kernel in our machine, its console on standard output; the lab's cases execute it.
//!
//! `vmm-boot KERNEL INITRD COMMAND-LINE PROCESSORS MEBIBYTES [TEXT COMMAND]...`: once TEXT has appeared on the console,
//! COMMAND follows: power-button, reset, kill, pause, which is resumed after a second, link-down, link-up, report, `await FILE`
//! until there is one, `type WORDS` on the console, `balloon MEBIBYTES`, or `save FOLDER`, which pauses, writes a snapshot to two files there and
//! kills. With VMM_SNAPSHOT=FOLDER the guest goes on from there. The last line says how it ended. VMM_NICS gives the guest
//! network devices, see [`networks`], VMM_BALLOON a memory balloon; with VMM_REBOOT it boots again after a reset. VMM_CPU names
//! the processor's model, VMM_HUGEPAGES the size of huge pages for its memory, in MiB.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use vmm::{Command, Controller, Identity, Kernel, Nic, NicReport, Parts, Resets, Snapshot, Vm};

/// What the guest reads as its machine's.
const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |name: &str| arguments.next().ok_or_else(|| format!("{name} is missing"));
    let image = File::open(next("KERNEL")?)?;
    let initrd = Some(File::open(next("INITRD")?)?);
    let command_line = next("COMMAND-LINE")?;
    let cpu = machine::Cpu { sockets: 1, cores: next("PROCESSORS")?.parse()?, threads: 1, model: model()? };
    let memory_bytes = next("MEBIBYTES")?.parse::<u64>()? << 20;
    let mut reactions = Vec::new();
    while let Ok(text) = next("TEXT") {
        reactions.push((text, next("COMMAND")?));
    }
    let nics = std::env::var("VMM_NICS").map_or(Ok(Vec::new()), |text| networks(&text))?;
    let reports: Vec<_> = nics.iter().map(|nic| Arc::clone(&nic.report)).collect();
    let (near, far) = UnixStream::pair()?;
    let kernel = Kernel { image, initrd, command_line };
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?.into();
    let random = Some(File::open("/dev/urandom")?);
    let resets = if std::env::var_os("VMM_REBOOT").is_some() { Resets::Boot } else { Resets::End };
    let console = near.into();
    let identity = Identity { uuid: UUID.to_owned(), serial_number: Some("vmm-boot".to_owned()) };
    let balloon = std::env::var_os("VMM_BALLOON").is_some();
    let snapshot = std::env::var("VMM_SNAPSHOT").ok();
    let snapshot = snapshot.map(|folder| files(&folder, File::options().read(true))).transpose()?;
    let hugepage_bytes = std::env::var("VMM_HUGEPAGES").ok().map(|mebibytes| mebibytes.parse::<u64>()).transpose()?;
    let hugepage_bytes = hugepage_bytes.map(|mebibytes| mebibytes << 20);
    let parts = Parts {
        kvm,
        cpu,
        memory_bytes,
        hugepage_bytes,
        identity,
        kernel,
        console,
        nics,
        random,
        balloon,
        resets,
        snapshot,
    };
    let vm = Vm::new(parts)?;
    let controller = vm.controller();
    let console = std::thread::spawn(move || follow(far, &reactions, &controller, &reports));
    let ending = vm.run(false, &mut |event| print(format!("vmm-boot: {event:?}\n").as_bytes()))?;
    // The machine's end of the console is closed with the machine.
    drop(console.join());
    print(format!("\nvmm-boot: ended {ending:?}\n").as_bytes());
    Ok(())
}

/// The processor's model, by the name in VMM_CPU.
fn model() -> Result<machine::CpuModel, String> {
    let Ok(name) = std::env::var("VMM_CPU") else { return Ok(machine::CpuModel::default()) };
    let model = machine::CpuModel::NAMES.iter().find(|(of, _)| *of == name);
    model.map(|(_, model)| *model).ok_or_else(|| format!("no processor is called {name}"))
}

/// Network devices: `NODE [mtu=N] [pairs=N] [vhost] [down]`, separated by commas. The node of a macvtap is an attached queue
/// of a tap once it is open; `tap:NAME` is a tap.
fn networks(text: &str) -> Result<Vec<Nic>, Box<dyn Error>> {
    let open = |path: &str| File::options().read(true).write(true).open(path).map(OwnedFd::from);
    let nic = |(index, text): (u8, &str)| {
        let mut words = text.split_whitespace();
        let node = words.next().ok_or("a network device needs the node of a macvtap, or tap:NAME")?;
        let (mut mtu, mut pairs, mut vhost, mut link_down) = (None, 1, false, false);
        for word in words {
            match word.split_once('=') {
                Some(("mtu", value)) => mtu = Some(value.parse()?),
                Some(("pairs", value)) => pairs = value.parse()?,
                None if word == "vhost" => vhost = true,
                None if word == "down" => link_down = true,
                _ => return Err(format!("a network device has no {word}").into()),
            }
        }
        let queue = || node.strip_prefix("tap:").map_or_else(|| open(node), |name| vmm::open_tap(name, pairs > 1));
        let taps = (0..pairs).map(|_| queue()).collect::<Result<_, _>>()?;
        let vhost = (0..if vhost { pairs } else { 0 }).map(|_| open("/dev/vhost-net")).collect::<Result<_, _>>()?;
        let (mac, report) = ([0x02, 0, 0, 0, 0, 0x17 + index], Arc::new(NicReport::new(pairs)));
        Ok(Nic { mac, mtu, link_down, taps, vhost, report })
    };
    (0..).zip(text.split(',')).map(nic).collect()
}

/// The files of a snapshot in a folder.
fn files(folder: &str, how: &OpenOptions) -> std::io::Result<Snapshot> {
    let open = |name: &str| how.open(std::path::Path::new(folder).join(name));
    Ok(Snapshot { state: open("state")?, memory: open("memory")? })
}

/// Pauses and saves, or says why not.
fn save(folder: &str, controller: &Controller) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let snapshot = files(folder, File::options().write(true).create_new(true)).map_err(|error| error.to_string())?;
    controller.send(Command::Pause);
    let (tell, told) = std::sync::mpsc::channel();
    controller.save(snapshot, move |saved| drop(tell.send(saved)));
    told.recv().unwrap_or_else(|_| Err("the machine has ended".to_owned()))
}

fn print(bytes: &[u8]) {
    // At once, also a part of a line: scripts wait for it.
    let mut out = std::io::stdout();
    drop(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Copies the console to standard output and reacts to what appears on it.
fn follow(
    mut console: UnixStream,
    reactions: &[(String, String)],
    controller: &Controller,
    reports: &[Arc<NicReport>],
) {
    let (mut seen, mut reactions) = (String::new(), reactions.iter());
    let mut awaited = reactions.next();
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = console.read(&mut bytes) {
        let new = bytes.get(..read).unwrap_or_default();
        print(new);
        seen.push_str(&String::from_utf8_lossy(new));
        while let Some((text, command)) = awaited
            && let Some(at) = seen.find(text)
        {
            seen.drain(..at + text.len());
            react(command, controller, &mut console, reports);
            awaited = reactions.next();
        }
    }
}

fn react(command: &str, controller: &Controller, console: &mut UnixStream, reports: &[Arc<NicReport>]) {
    if let Some(words) = command.strip_prefix("type ") {
        return drop(console.write_all(format!("{words}\n").as_bytes()));
    }
    if let Some(file) = command.strip_prefix("await ") {
        while !std::path::Path::new(file).exists() {
            std::thread::sleep(Duration::from_millis(100));
        }
        return;
    }
    if let Some(mebibytes) = command.strip_prefix("balloon ") {
        let bytes = mebibytes.parse::<u64>().unwrap_or_default() << 20;
        return controller.send(Command::Balloon { bytes });
    }
    if let Some(folder) = command.strip_prefix("save ") {
        print(format!("vmm-boot: saved {:?}\n", save(folder, controller)).as_bytes());
        return controller.send(Command::Kill);
    }
    match command {
        "power-button" => controller.send(Command::PowerButton),
        "report" => {
            for report in reports {
                print(
                    format!("vmm-boot: frames are moved by {:?}: {:?}\n", report.data_path(), report.queues())
                        .as_bytes(),
                );
            }
        }
        "link-down" => controller.send(Command::Link { nic: 0, up: false }),
        "link-up" => controller.send(Command::Link { nic: 0, up: true }),
        "reset" => controller.send(Command::Reset),
        "kill" => controller.send(Command::Kill),
        "pause" => {
            controller.send(Command::Pause);
            std::thread::sleep(Duration::from_secs(1));
            controller.send(Command::Resume);
        }
        other => print(format!("vmm-boot: no command {other}\n").as_bytes()),
    }
}
