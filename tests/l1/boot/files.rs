//! TFTP and HTTP.

use libtest_mimic::Trial;
use tests::{BootServer, Ns, World, trial};

use super::{client, segment};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        // spec: BOOT-7, BOOT-8
        trial("busybox reads files by TFTP, and none outside of the folder", tftp),
        // spec: BOOT-7, BOOT-9
        trial("HTTP serves ranges on a connection that is kept, and no file outside", http),
        // spec: BOOT-10, BOOT-18
        trial("a confined boot server outlives malformed packets", hostile),
    ]
}

const CONFIGURATION: &str = "
interface: br0
subnets: [{network: 10.9.0.0/24, pools: [10.9.0.100-10.9.0.103]}]
tftp: {root: /run/served}
http: {root: /run/served}
";
/// Not a multiple of any block.
const LARGE: usize = 1_000_003;

/// A server with some files, and a client with an address.
fn scene(world: &World) -> (BootServer<'_>, Ns<'_>) {
    let large: Vec<u8> = (0..LARGE).map(|at| u8::try_from(at % 251).unwrap()).collect();
    world.write("/run/served/large", &large);
    world.write("/run/served/cfg/small", "small");
    world.write("/run/served/blocks", vec![7; 1024]);
    world.write("/run/secret", "secret");
    world
        .sh("cd /run/served; touch empty; ln -s ../secret up; ln -s /run/secret absolute; ln -s cfg/small inside")
        .assert_ok();
    let server = BootServer::start(&segment(world), CONFIGURATION);
    let one = client(world, 7);
    one.sh("ip addr add 10.9.0.7/24 dev eth0").assert_ok();
    (server, one)
}

fn tftp() {
    let world = World::bare();
    let (server, one) = scene(&world);
    let fetch = |name: &str, block: &str| {
        let ran = one.run(&["busybox", "tftp", "-g", "-b", block, "-r", name, "-l", "/run/got", "10.9.0.1"]);
        (ran.is_ok().then(|| std::fs::read(world.path("/run/got")).unwrap()), ran)
    };
    let same = |name: &str, path: &str, block: &str| {
        let (got, ran) = fetch(name, block);
        assert_eq!(got, Some(std::fs::read(world.path(path)).unwrap()), "{}", ran.account());
    };
    same("large", "/run/served/large", "1468");
    same("/cfg/small", "/run/served/cfg/small", "512");
    same("inside", "/run/served/cfg/small", "64");
    same("blocks", "/run/served/blocks", "512");
    same("empty", "/run/served/empty", "512");
    server.wait_line(&["TFTP: sent", "large", "bytes=1000003"]);
    for name in ["../secret", "/run/secret", "up", "absolute", "cfg/../../secret", "none", "cfg"] {
        let (got, ran) = fetch(name, "512");
        assert_eq!(got, None, "{}", ran.account());
        server.wait_line(&["TFTP: refused", &format!("file=\"{name}\"")]);
    }
    let (_, ran) = fetch("none", "512");
    assert!(ran.stderr().contains("none: no such file"), "{}", ran.account());
}

/// Prints a line for each answer; the sockets that were used are counted.
const HTTP: &str = r#"
import http.client, hashlib
c = http.client.HTTPConnection("10.9.0.1", 80, timeout=30)
sockets = set()
def ask(method, path, **headers):
    c.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    a = c.getresponse()
    body = a.read()
    sockets.add(c.sock.getsockname() if c.sock else None)
    print(method, path, a.status, a.getheader("Content-Length"), a.getheader("Content-Range"), hashlib.md5(body).hexdigest()[:8] if len(body) > 60 else body)
ask("GET", "/large")
ask("GET", "/cfg/small")
ask("HEAD", "/large")
ask("GET", "/large", Range="bytes=1000000-")
ask("GET", "/large", Range="bytes=-3")
ask("GET", "/large", Range="bytes=0-1")
ask("GET", "/large", Range="bytes=1000003-")
ask("GET", "/empty")
ask("GET", "/ins%69de?x=1")
for path in ["/../secret", "/%2e%2e/secret", "/up", "/absolute", "/none", "/cfg", "/cfg/..%2f../secret"]:
    ask("GET", path)
ask("POST", "/large")
print("sockets", len(sockets))
"#;

fn http() {
    let world = World::bare();
    let (server, one) = scene(&world);
    world.write("/run/ask.py", HTTP);
    let told = one.run(&["python3", "/run/ask.py"]).text();
    let sum = world.sh("md5sum </run/served/large | cut -c1-8").text();
    let expected = [
        format!("GET /large 200 1000003 None {}", sum.trim()),
        "GET /cfg/small 200 5 None b'small'".to_owned(),
        "HEAD /large 200 1000003 None b''".to_owned(),
        format!("GET /large 206 3 bytes 1000000-1000002/1000003 {:?}", Bytes(&[16, 17, 18])),
        format!("GET /large 206 3 bytes 1000000-1000002/1000003 {:?}", Bytes(&[16, 17, 18])),
        "GET /large 206 2 bytes 0-1/1000003 b'\\x00\\x01'".to_owned(),
        "GET /large 416 27 bytes */1000003 b'the file has no such bytes\\n'".to_owned(),
        "GET /empty 200 0 None b''".to_owned(),
        "GET /ins%69de?x=1 200 5 None b'small'".to_owned(),
    ];
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(&lines[..expected.len()], expected, "{told}");
    let codes: Vec<_> = lines[expected.len()..].iter().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(codes, ["403", "403", "403", "403", "404", "403", "403", "405"], "{told}");
    assert_eq!(lines.last(), Some(&"sockets 1"), "{told}");
    server.wait_line(&["HTTP: refused", "path=\"/none\"", "status=404"]);
}

/// Bytes as Python writes them.
struct Bytes<'a>(&'a [u8]);

impl std::fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text: String = self.0.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        write!(f, "b'{text}'")
    }
}

fn hostile() {
    let world = World::bare();
    let (server, one) = scene(&world);
    let socket = one.enter(|| std::net::UdpSocket::bind("10.9.0.7:0").unwrap());
    let mut state = 1_u32;
    for round in 0..2000_usize {
        let bytes: Vec<u8> = (0..round % 600)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .collect();
        let tftp = [&[0, u8::try_from(round % 8).unwrap()][..], &bytes].concat();
        let dhcp = [&[1, 1, 6, 0][..], &vec![0; 232], &[99, 130, 83, 99, 53, 1, 1], &bytes].concat();
        let _ = socket.send_to(&tftp, "10.9.0.1:69");
        let _ = socket.send_to(if round % 2 == 0 { &bytes } else { &dhcp }, "10.9.0.1:67");
    }
    one.run(&["udhcpc", "-i", "eth0", "-n", "-q"]).assert_ok();
    one.run(&["busybox", "tftp", "-g", "-r", "cfg/small", "-l", "/run/got", "10.9.0.1"]).assert_ok();
    // What it needs no more it cannot do: capabilities are those of the start, files are not.
    let status = one.sh("cat /proc/$(pidof tapvisor-dhcp)/status").text();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    assert_eq!((field("CapEff:"), field("NoNewPrivs:")), ("0".repeat(16), "1".to_owned()), "{status}");
    // In filter mode.
    assert_eq!(field("Seccomp:"), "2", "{status}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
