//! VMs that boot from the network, from our boot server on the segment, to a running kernel.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;
use tests::{BootServer, cache_file, dist_file, trial, wait_for_or, workspace};

use crate::manifest::{Vm, definition};
use crate::vm::Host;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        // spec: BOOT-12
        trial("two VMs boot from our server to a running kernel, by TFTP and HTTP", to_a_kernel),
        // spec: BOOT-13
        trial("a VM whose boot file is missing says so, and the server does", missing),
        // spec: BOOT-14
        trial("example netboot: a VM boots from the folder that netboot serves", example),
    ]
}

const CONFIGURATION: &str = "
interface: eth0
subnets:
- network: 10.9.0.0/24
  pools: [10.9.0.100-10.9.0.199]
  router: 10.9.0.1
  reservations:
  - {mac: '02:00:00:00:00:17', address: 10.9.0.17, hostname: by-tftp}
  - {mac: '02:00:00:00:00:18', address: 10.9.0.18, hostname: by-http}
boot:
- {architectures: [bios], file: undionly.kpxe}
- {ipxe: true, file: boot.ipxe}
tftp: {root: /run/served}
http: {root: /run/served}
";
/// Each VM goes on with the script of its name.
const SCRIPT: &str = "#!ipxe\nchain ${hostname}.ipxe\n";
/// Kernel and initial file system come by what this script came by.
const KERNEL: &str = "#!ipxe
kernel vmlinuz console=ttyS0 quiet panic=-1 no_timer_check boot.by=${hostname} initrd=initrd.img
initrd initrd.img
boot
";

/// A VM with a second NIC on the segment, which it boots from.
fn vm(name: &str, mac: &str) -> Vm {
    Vm::new(name, "masquerade")
        .set("/domain", "firmware", json!({}))
        .set("/domain/memory", "guest", json!("256Mi"))
        .set("", "terminationGracePeriodSeconds", json!(0))
        .on("segment", json!({"bridge": {}, "bootOrder": 1, "macAddress": mac}))
}

/// The segment's bridge and, on a host of its own, its server.
fn serve(host: &Host) -> BootServer<'_> {
    let pxe = host.world.ns("pxe");
    let bridge = "ip link add br-boot type bridge; ip link set br-boot up
        ip link add to-pxe type veth peer name eth0 netns pxe; ip link set to-pxe master br-boot; ip link set to-pxe up";
    host.world.sh(bridge).assert_ok();
    pxe.sh("ip addr add 10.9.0.1/24 dev eth0; ip link set eth0 up").assert_ok();
    BootServer::start(&pxe, CONFIGURATION)
}

fn run(host: &Host, vms: &[Vm]) {
    let cable = json!({"cniVersion": "1.0.0", "name": "segment", "type": "bridge", "bridge": "br-boot", "ipam": {}});
    let vms: String = vms.iter().map(Vm::yaml).collect();
    host.world.write("/run/vms.yaml", definition("segment", &cable) + &vms);
    host.world.tapvisor(&["run", "--detach", "-f", "/run/vms.yaml"]).assert_ok();
}

/// Ends all and demands that the host is as it was.
fn end(host: Host, names: &[&str]) {
    host.remove(names).assert_ok();
    host.world.sh("ip link delete to-pxe; ip link delete br-boot; ip netns delete pxe").assert_ok();
    host.assert_nothing_left();
}

fn write_guest(host: &Host, folder: &str) {
    for file in ["vmlinuz", "initrd.img"] {
        let content = std::fs::read(cache_file(&format!("guest/{file}"))).expect("the guest was prepared");
        host.world.write(&format!("{folder}/{file}"), content);
    }
}

fn to_a_kernel() {
    let host = Host::new();
    write_guest(&host, "/run/served");
    host.world.write("/run/served/boot.ipxe", SCRIPT);
    host.world.write("/run/served/by-tftp.ipxe", "#!ipxe\nchain kernel.ipxe\n");
    host.world.write("/run/served/by-http.ipxe", "#!ipxe\nchain http://10.9.0.1/kernel.ipxe\n");
    host.world.write("/run/served/kernel.ipxe", KERNEL);
    let server = serve(&host);
    let vms = [("by-tftp", "02:00:00:00:00:17", "10.9.0.17"), ("by-http", "02:00:00:00:00:18", "10.9.0.18")];
    run(&host, &vms.map(|(name, mac, _)| vm(name, mac)));
    for (name, mac, address) in vms {
        let guest = host.guest(name);
        let _ = guest.wait_told("ready", 1);
        let arguments = guest.ok("cat /proc/cmdline");
        assert!(arguments.contains(&format!("boot.by={name}")), "{arguments}");
        // The kernel's own client gets the firmware's address.
        assert_eq!(guest.lease4("eth1").address, format!("{address}/24"));
        server.wait_line(&["DHCP: leased", address, mac, "boot.ipxe"]);
    }
    server.wait_line(&["TFTP: sent", "initrd.img", "client=10.9.0.17"]);
    server.wait_line(&["HTTP: answered", "initrd.img", "client=10.9.0.18"]);
    assert!(!server.log().contains("TFTP: refused"), "{}", server.log());
    drop(server);
    end(host, &["by-tftp", "by-http"]);
}

fn missing() {
    let host = Host::new();
    host.world.write("/run/served/other.ipxe", SCRIPT);
    let server = serve(&host);
    run(&host, &[vm("by-tftp", "02:00:00:00:00:17")]);
    server.wait_line(&["TFTP: refused", "client=10.9.0.17", "boot.ipxe: no such file"]);
    let guest = host.guest("by-tftp");
    let told = || {
        let console = guest.console();
        (console.contains("tftp://10.9.0.1/boot.ipxe") && console.contains("No such file or directory")).then_some(())
    };
    wait_for_or("the reason on the console", Duration::from_secs(120), told, || guest.console());
    drop(server);
    end(host, &["by-tftp"]);
}

/// The block of this kind on the page, without its indentation.
fn block(page: &str, kind: &str) -> String {
    let (_, rest) = page.split_once(&format!("```{kind}\n")).expect("the page has such a block");
    let block = rest.split("```").next().unwrap_or_default();
    block.lines().map(|line| format!("{}\n", line.trim_start())).collect()
}

/// What the page says, in its order.
fn example() {
    const COMMANDS: [&str; 2] = ["netboot --network boot --root /opt/boot", "run -f examples/netboot.yaml"];
    let page = std::fs::read_to_string(workspace().join("dhcp/server/NETBOOT.md")).unwrap();
    COMMANDS.into_iter().for_each(|command| assert!(page.contains(&format!("sudo tapvisor {command}\n")), "{command}"));
    let host = Host::new();
    host.world.write("/etc/tapvisor/net.d/boot.conflist", block(&page, "json"));
    host.world.write("/opt/boot/boot.ipxe", block(&page, "text"));
    write_guest(&host, "/opt/boot");
    let log = std::fs::File::create(host.world.path("/run/netboot.log")).unwrap();
    let mut command = host.world.command(dist_file("tapvisor"));
    let mut netboot = command.args(COMMANDS[0].split(' ')).stderr(log).spawn().expect("the world starts programs");
    let log = || std::fs::read_to_string(host.world.path("/run/netboot.log")).unwrap_or_default();
    let logged = |word: &str| {
        wait_for_or(word, Duration::from_secs(60), || log().contains(word).then_some(()), log);
    };
    logged("ready");
    let manifest = workspace().join("examples/netboot.yaml").display().to_string();
    host.world.tapvisor(&["run", "--detach", "-f", &manifest]).assert_ok();
    let pxe = host.guest("pxe");
    let _ = pxe.wait_told("ready", 1);
    assert!(pxe.lease4("eth1").address.starts_with("10.77.0."), "{}", log());
    logged("TFTP: sent");
    host.remove(&["pxe"]).assert_ok();
    host.world.sh("pkill -TERM -f '[t]apvisor netboot'").assert_ok();
    assert!(netboot.wait().unwrap().success(), "{}", log());
    host.assert_nothing_left();
}
