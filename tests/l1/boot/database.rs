//! The lease database on a disk that is full, and after damage.

use libtest_mimic::Trial;
use tests::{BootServer, Ns, World, trial};

use super::{client, segment, wait_address};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        // spec: BOOT-3
        trial("a full disk grants no lease, and later ones are granted again", full),
        // spec: BOOT-3
        trial("a server with a damaged database names the file it keeps aside", damaged),
    ]
}

const POOL: &str = "
interface: br0
subnets: [{network: 10.9.0.0/24, pools: [10.9.0.100-10.9.0.103]}]
";
const DATABASE: &str = "/run/boot/leases/leases.log";

fn lease(client: &Ns<'_>, address: &str) {
    client.run(&["udhcpc", "-i", "eth0", "-n", "-q"]).assert_ok();
    wait_address(client, address);
}

fn full() {
    let world = World::bare();
    world.sh("mkdir -p /run/boot/leases; mount -t tmpfs -o size=64k none /run/boot/leases").assert_ok();
    let mut server = BootServer::start(&segment(&world), &format!("probeMilliseconds: 0{POOL}"));
    let one = client(&world, 7);
    // Until there is no room for one byte more.
    assert!(!world.sh("dd if=/dev/zero of=/run/boot/leases/filler bs=4k").is_ok());
    assert!(!one.run(&["udhcpc", "-i", "eth0", "-n", "-q", "-t", "1", "-T", "1"]).is_ok(), "{}", server.log());
    server.wait_line(&["1 leases are not granted", "No space left on device"]);
    assert!(!server.log().contains("DHCP: leased"), "{}", server.log());
    world.sh("rm /run/boot/leases/filler").assert_ok();
    lease(&one, "10.9.0.100");
    server.kill();
    server.start_again();
    lease(&client(&world, 8), "10.9.0.101");
    assert!(!server.log().contains("damaged"), "{}", server.log());
}

fn damaged() {
    let world = World::bare();
    let mut server = BootServer::start(&segment(&world), POOL);
    let [one, two, three] = [7, 8, 9].map(|number| client(&world, number));
    lease(&one, "10.9.0.100");
    lease(&two, "10.9.0.101");
    server.kill();
    let mut bytes = std::fs::read(world.path(DATABASE)).unwrap();
    bytes[20] ^= 1;
    world.write(DATABASE, &bytes);
    server.start_again();
    let kept = format!("{DATABASE}.damaged-1");
    server.wait_line(&["the lease database is damaged", &kept, "damaged_lines=1", "leases=1"]);
    assert_eq!(std::fs::read(world.path(&kept)).unwrap(), bytes);
    // What was whole is known; what was not is found on the link where its host answers.
    lease(&three, "10.9.0.102");
    server.wait_line(&["another host uses the address", "10.9.0.100", "02:00:00:00:00:07"]);
    lease(&two, "10.9.0.101");
}
