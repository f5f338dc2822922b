//! `vmm-boot`: boots a kernel in our machine, its console on standard output; the lab's cases execute it.
//!
//! `vmm-boot KERNEL INITRD COMMAND-LINE PROCESSORS MEBIBYTES [TEXT COMMAND]...`: once TEXT has appeared on the console,
//! COMMAND follows: power-button, reset, kill, pause, which is resumed after a second, or `type WORDS` on the console. The
//! last line says how it ended. With VMM_TAP, the node of a macvtap, the guest has a network device.

use std::error::Error;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vmm::{Command, Controller, Kernel, Nic, Parts, Vm};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |name: &str| arguments.next().ok_or_else(|| format!("{name} is missing"));
    let image = File::open(next("KERNEL")?)?;
    let initrd = Some(File::open(next("INITRD")?)?);
    let command_line = next("COMMAND-LINE")?;
    let cpu = machine::Cpu { sockets: 1, cores: next("PROCESSORS")?.parse()?, threads: 1 };
    let memory_bytes = next("MEBIBYTES")?.parse::<u64>()? << 20;
    let mut reactions = Vec::new();
    while let Ok(text) = next("TEXT") {
        reactions.push((text, next("COMMAND")?));
    }
    let nics = std::env::var_os("VMM_TAP").map(network).transpose()?.into_iter().collect();
    let (near, far) = UnixStream::pair()?;
    let kernel = Kernel { image, initrd, command_line };
    let vm = Vm::new(Parts { cpu, memory_bytes, kernel, console: near.into(), nics, devices: None, rng: true })?;
    let controller = vm.controller();
    let console = std::thread::spawn(move || follow(far, &reactions, &controller));
    let ending = vm.run(false, &mut |event| print(format!("vmm-boot: {event:?}\n").as_bytes()))?;
    // The machine's end of the console is closed with the machine.
    drop(console.join());
    print(format!("\nvmm-boot: ended {ending:?}\n").as_bytes());
    Ok(())
}

/// A network device on a macvtap's device node, which is an attached tap once it is open.
fn network(node: std::ffi::OsString) -> std::io::Result<Nic> {
    let tap = File::options().read(true).write(true).open(node)?.into();
    let mac = [0x02, 0, 0, 0, 0, 0x17];
    Ok(Nic { mac, mtu: None, tap })
}

fn print(bytes: &[u8]) {
    drop(std::io::stdout().write_all(bytes));
}

/// Copies the console to standard output and reacts to what appears on it.
fn follow(mut console: UnixStream, reactions: &[(String, String)], controller: &Controller) {
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
            react(command, controller, &mut console);
            awaited = reactions.next();
        }
    }
}

fn react(command: &str, controller: &Controller, console: &mut UnixStream) {
    if let Some(words) = command.strip_prefix("type ") {
        return drop(console.write_all(format!("{words}\n").as_bytes()));
    }
    match command {
        "power-button" => controller.send(Command::PowerButton),
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
