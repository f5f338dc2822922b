//! A chain of plugins executed as a runtime would, in a world: environment, stdin, results handed on.

use serde_json::{Value, json};
use tests::{Counts, Ns, Program, Ran, World, count, dist_file};

/// Where the world keeps the plugin under test, and the distribution's.
const OURS: &str = "/opt/cni/bin";
const DISTRIBUTION: &str = "/usr/lib/cni";

/// A world that forwards, with the plugin under test installed. Its IPv6 default route came from a router advertisement, and
/// the distribution's plugins turn on forwarding, which deletes it where `accept_ra` is not 2. Links of the world take their
/// IPv6 addresses without waiting for duplicates: a gateway answers at once.
pub(crate) fn world() -> World {
    let world = World::new();
    let forwarding = "net.ipv6.conf.uplink0.accept_ra=2 net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1 \
                      net.ipv6.conf.default.accept_dad=0";
    world.sh(&format!("sysctl -qw {forwarding}")).assert_ok();
    for (name, file) in [("tapvisor", "tapvisor-cni"), ("tapvisor-bridge", "tapvisor-bridge")] {
        world.install(&dist_file(file), &format!("{OURS}/{name}"));
    }
    world
}

/// A pod and the plugins that make its network.
#[derive(Debug)]
pub(crate) struct Chain<'w> {
    world: &'w World,
    pod: Ns<'w>,
    pub(crate) plugins: Vec<Value>,
    pub(crate) if_name: String,
    /// Where the plugins of others are.
    pub(crate) folder: String,
    /// What the last plugin of ADD answered.
    pub(crate) result: Option<Value>,
}

impl<'w> Chain<'w> {
    /// A pod of its own that has no network yet.
    pub(crate) fn new(world: &'w World, pod: &str, plugins: &[Value]) -> Self {
        let pod = world.ns(pod);
        Self {
            world,
            pod,
            plugins: plugins.to_vec(),
            if_name: "eth0".to_owned(),
            folder: DISTRIBUTION.to_owned(),
            result: None,
        }
    }

    /// Another network of the same pod.
    pub(crate) fn second_attachment(&self, if_name: &str, plugins: &[Value]) -> Self {
        let pod = self.world.named(self.pod.name());
        Self {
            world: self.world,
            pod,
            plugins: plugins.to_vec(),
            if_name: if_name.to_owned(),
            folder: self.folder.clone(),
            result: None,
        }
    }

    pub(crate) fn pod(&self) -> &Ns<'w> {
        &self.pod
    }

    /// ADD of all plugins; the first that fails ends it.
    pub(crate) fn add(&mut self) {
        for index in 0..self.plugins.len() {
            let ran = self.call("ADD", index, self.result.as_ref());
            self.result = Some(ran.json());
        }
    }

    /// Waits until no address of the pod is being checked for duplicates: when that ends, the kernel adds a route.
    pub(crate) fn settle(&self) {
        self.pod.settle();
    }

    /// CHECK of all plugins; each must be content.
    pub(crate) fn check(&self) {
        for index in 0..self.plugins.len() {
            self.call("CHECK", index, self.result.as_ref()).assert_ok();
        }
    }

    /// CHECK of the last plugin, which must fail; gives its message.
    pub(crate) fn check_fails(&self) -> String {
        let ran = self.call("CHECK", self.plugins.len() - 1, self.result.as_ref());
        assert_eq!(ran.code(), Some(1), "{}", ran.account());
        serde_json::from_str::<Value>(&ran.stdout()).expect("an error document")["msg"].to_string()
    }

    /// DEL of all plugins in reverse.
    pub(crate) fn del(&self) {
        for index in (0..self.plugins.len()).rev() {
            self.call("DEL", index, self.result.as_ref()).assert_ok();
        }
    }

    /// The address of the pod, by IP version.
    pub(crate) fn address(&self, version: u8) -> Option<std::net::IpAddr> {
        let ips = self.result.as_ref().expect("ADD came before")["ips"].as_array().cloned().unwrap_or_default();
        let addresses = ips.iter().map(|ip| {
            let text = ip["address"].as_str().expect("an address");
            text.split('/').next().expect("split gives one").parse::<std::net::IpAddr>().expect("an IP address")
        });
        addresses.into_iter().find(|address| address.is_ipv4() == (version == 4))
    }

    /// One verb of one plugin.
    pub(crate) fn call(&self, verb: &str, index: usize, previous: Option<&Value>) -> Ran {
        self.call_in(verb, index, previous, &self.pod.path())
    }

    /// The same with another CNI_NETNS.
    pub(crate) fn call_in(&self, verb: &str, index: usize, previous: Option<&Value>, netns: &str) -> Ran {
        self.call_with(verb, index, previous, netns, &[])
    }

    /// The same with command-line arguments.
    pub(crate) fn call_with(
        &self,
        verb: &str,
        index: usize,
        previous: Option<&Value>,
        netns: &str,
        arguments: &[&str],
    ) -> Ran {
        let (program, conf) = self.program_and_conf(index, previous);
        let mut command = self.world.command(program);
        command.args(arguments).envs(self.attachment(verb, netns));
        Ran::with_input(&mut command, conf.to_string().as_bytes())
    }

    /// The same executed by another program, whose command line comes first.
    pub(crate) fn call_under(&self, wrapper: &[&str], verb: &str, index: usize) -> Ran {
        let (program, conf) = self.program_and_conf(index, self.result.as_ref());
        let mut command = self.world.command(wrapper[0]);
        command.args(&wrapper[1..]).arg(program).envs(self.attachment(verb, &self.pod.path()));
        Ran::with_input(&mut command, conf.to_string().as_bytes())
    }

    /// Runs one verb of the last plugin and counts what it takes.
    pub(crate) fn counts(&self, verb: &str) -> Counts {
        let (program, conf) = self.program_and_conf(self.plugins.len() - 1, self.result.as_ref());
        let mut program = Program::new(program, &[]);
        program.environment = self.attachment(verb, &self.pod.path()).into();
        program.input = conf.to_string().into_bytes();
        count(self.world, &program)
    }

    fn program_and_conf(&self, index: usize, previous: Option<&Value>) -> (String, Value) {
        let mut conf = self.plugins[index].clone();
        if conf.get("cniVersion").is_none() {
            conf["cniVersion"] = "1.0.0".into();
        }
        conf["name"] = format!("net-{}", self.if_name).into();
        if let Some(previous) = previous {
            conf["prevResult"] = previous.clone();
        }
        let kind = conf["type"].as_str().expect("a type").to_owned();
        let folder = if kind.starts_with("tapvisor") { OURS } else { self.folder.as_str() };
        (format!("{folder}/{kind}"), conf)
    }

    fn attachment(&self, verb: &str, netns: &str) -> [(&'static str, String); 5] {
        [
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_CONTAINERID", format!("cid-{}", self.pod.name())),
            ("CNI_NETNS", netns.to_owned()),
            ("CNI_IFNAME", self.if_name.clone()),
            ("CNI_PATH", format!("{OURS}:{}", self.folder)),
        ]
    }
}

/// The plugin under test with a request for these interfaces.
pub(crate) fn tapvisor(interfaces: &Value) -> Value {
    json!({"type": "tapvisor", "wiring": {"version": 1, "owner": {"uid": 107, "gid": 107}, "interfaces": interfaces}})
}

/// IP versions that a network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    Dual,
    V4,
    V6,
}

impl Stack {
    pub(crate) fn versions(self) -> &'static [u8] {
        match self {
            Self::Dual => &[4, 6],
            Self::V4 => &[4],
            Self::V6 => &[6],
        }
    }

    fn ranges(self, v4: &Value, v6: &Value) -> Value {
        match self {
            Self::Dual => json!([[v4], [v6]]),
            Self::V4 => json!([[v4]]),
            Self::V6 => json!([[v6]]),
        }
    }

    fn routes(self) -> Value {
        let all = [(4, "0.0.0.0/0"), (6, "::/0")];
        let ours = all.iter().filter(|(version, _)| self.versions().contains(version));
        ours.map(|(_, dst)| json!({"dst": dst})).collect()
    }
}

/// A network of the distribution's plugins, with host-local addresses.
pub(crate) fn network(kind: &str, stack: Stack) -> Value {
    let (v4, v6) = if kind == "macvlan" {
        // On the uplink's own network.
        (
            json!({"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.50", "gateway": "192.0.2.1"}),
            json!({"subnet": "2001:db8:1::/64", "rangeStart": "2001:db8:1::50", "gateway": "2001:db8:1::1"}),
        )
    } else {
        (json!({"subnet": "10.244.1.0/24"}), json!({"subnet": "fd00:10:244:1::/64"}))
    };
    let ipam = json!({"type": "host-local", "ranges": stack.ranges(&v4, &v6), "routes": stack.routes()});
    let mut conf = json!({"type": kind, "ipam": ipam});
    match kind {
        "bridge" => conf["isGateway"] = true.into(),
        "macvlan" => conf["master"] = "uplink0".into(),
        _ => {}
    }
    conf
}
