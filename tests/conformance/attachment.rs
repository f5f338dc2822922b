//! One attachment of one container: the plugins before the subject, the subject's calls, what they answered.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::facts::{Snapshot, settled};
use super::groups::Case;
use super::node::{Pod, shell};
use super::subject::{Build, Disturbance, Place, Role, RuntimeOption};
use super::trouble::Trouble;

/// Prepares pods with the distribution's plugins.
const PREPARING: &str = "/usr/lib/cni";
/// The newest version that the preparing plugins know.
const PREPARED_AT_MOST: &str = "1.0.0";
/// The network's name unless a check is about another network.
pub(crate) const NETWORK: &str = "suite-net";

/// An attachment in the making; its pod lasts as long as the node.
#[derive(Debug, Clone)]
pub(crate) struct Attachment<'a> {
    pub(crate) case: &'a Case<'a>,
    pub(crate) pod: Pod,
    pub(crate) container: String,
    pub(crate) network: String,
    /// Merged into the configuration.
    pub(crate) extra: Value,
    /// `CNI_ARGS`.
    pub(crate) args: String,
    /// The last result of the plugins before.
    pub(crate) previous: Option<Value>,
    /// The subject's own result, once it has one.
    pub(crate) result: Option<Value>,
}

/// What a runtime may know when it calls DEL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// Everything.
    Full,
    /// The ADD was never recorded.
    WithoutResult,
    /// The namespace is gone, and so is its path: `CNI_NETNS` is empty.
    WithoutNetns,
    /// The namespace is gone, its path still told.
    NetnsVanished,
}

impl Farewell {
    pub(crate) const ALL: [Self; 4] = [Self::Full, Self::WithoutResult, Self::WithoutNetns, Self::NetnsVanished];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Full => "with prevResult",
            Self::WithoutResult => "without prevResult",
            Self::WithoutNetns => "with empty CNI_NETNS",
            Self::NetnsVanished => "with the namespace gone",
        }
    }

    /// Whether the plugin can reach what is inside the pod.
    pub(crate) fn reaches_the_pod(self) -> bool {
        matches!(self, Self::Full | Self::WithoutResult)
    }
}

impl<'a> Attachment<'a> {
    /// A pod, with the plugins before the subject already run.
    pub(crate) fn prepare(case: &'a Case<'a>, number: usize) -> Result<Self, Trouble> {
        let mut attachment = Self::bare(case, number)?;
        attachment.run_before("ADD", &case.subject.before)?;
        attachment.await_carriers()?;
        Ok(attachment)
    }

    /// Waits until the kernel has noted the carriers of what was made: only then it gives links their own addresses.
    fn await_carriers(&self) -> Result<(), Trouble> {
        let unnoted = "ip -j link | jq -r '.[] | select((.flags | index(\"LOWER_UP\")) and (.operstate | test(\"DOWN\"))) | .ifname'";
        let of = |place| self.sh(place, unnoted).map(|names| (!names.is_empty()).then_some(names));
        settled(self.case.effort.patience, || Ok(of(Place::Node)?.or(of(Place::Pod)?))).map(drop)
    }

    /// A pod with nothing in it.
    pub(crate) fn bare(case: &'a Case<'a>, number: usize) -> Result<Self, Trouble> {
        Ok(Self {
            case,
            pod: case.node.pod()?,
            container: format!("{number:064x}"),
            network: NETWORK.to_owned(),
            extra: json!({}),
            args: String::new(),
            previous: None,
            result: None,
        })
    }

    /// Runs preparing plugins, forward for ADD and backward for DEL.
    pub(crate) fn run_before(&mut self, verb: &str, plugins: &[Value]) -> Result<(), Trouble> {
        let version = self.case.version.min(PREPARED_AT_MOST);
        let ordered: Vec<&Value> =
            if verb == "ADD" { plugins.iter().collect() } else { plugins.iter().rev().collect() };
        for plugin in ordered {
            let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
            let mut conf = plugin.clone();
            merge(&mut conf, &json!({"cniVersion": version, "name": "suite-before"}));
            if let Some(result) = &self.previous {
                merge(&mut conf, &json!({"prevResult": relabelled(result, version)}));
            }
            let call = self.environment(Call::new(&PathBuf::from(PREPARING).join(kind), verb), "eth0");
            let answer = call.env("CNI_PATH", PREPARING).input(conf.to_string()).run()?;
            if !answer.succeeded() {
                return Err(Trouble::Program { program: format!("{kind} {verb}"), output: answer.shown() });
            }
            if verb == "ADD" {
                let result = parsed(kind, &answer.stdout)?;
                self.previous = Some(relabelled(&result, self.case.version));
            }
        }
        Ok(())
    }

    /// The pod interface this attachment is about.
    pub(crate) fn ifname(&self) -> &'static str {
        if self.case.subject.role == Role::Trailing { "net1" } else { "eth0" }
    }

    /// The configuration for a verb, as a runtime writes it.
    pub(crate) fn conf(&self, verb: &str) -> Value {
        let mut conf = self.case.subject.conf.clone();
        merge(&mut conf, &json!({"cniVersion": self.case.version, "name": self.network}));
        merge(&mut conf, &self.extra);
        let is_chained = self.case.subject.role == Role::Chained;
        let previous = match verb {
            "ADD" => self.previous.clone().filter(|_| is_chained),
            "CHECK" | "DEL" => self.result.clone(),
            _ => None,
        };
        if let Some(previous) = previous {
            merge(&mut conf, &json!({"prevResult": previous}));
        }
        conf
    }

    /// A call of the subject with everything a runtime gives for that verb.
    pub(crate) fn call(&self, verb: &str) -> Call {
        let call = Call::new(&self.case.program, verb).env("CNI_PATH", self.case.plugin_path());
        match verb {
            // spec: CNI-STATUS
            "STATUS" | "GC" => call.env("PATH", std::env::var("PATH").unwrap_or_default()),
            _ => self.environment(call, self.ifname()),
        }
        .input(self.conf(verb).to_string())
    }

    fn environment(&self, call: Call, ifname: &str) -> Call {
        call.env("CNI_CONTAINERID", &self.container)
            .env("CNI_NETNS", self.pod.path().display().to_string())
            .env("CNI_IFNAME", ifname)
            .env("CNI_ARGS", &self.args)
            .env("PATH", std::env::var("PATH").unwrap_or_default())
    }

    /// ADD; a success's result is kept for the calls after it.
    pub(crate) fn add(&mut self) -> Result<Answer, Trouble> {
        let answer = self.call("ADD").run()?;
        self.result = serde_json::from_str(&answer.stdout).ok().filter(|_| answer.succeeded());
        Ok(answer)
    }

    /// ADD that a check needs to have worked before it can look at anything else.
    pub(crate) fn added(mut self) -> Result<Self, Trouble> {
        let answer = self.add()?;
        if answer.succeeded() { Ok(self) } else { Err(Trouble::Words(format!("ADD failed: {}", answer.shown()))) }
    }

    pub(crate) fn check(&self) -> Result<Answer, Trouble> {
        self.call("CHECK").run()
    }

    pub(crate) fn del(&self) -> Result<Answer, Trouble> {
        self.call("DEL").run()
    }

    /// DEL with what the runtime still knows; makes the namespace vanish if that is the case.
    pub(crate) fn del_as(&self, farewell: Farewell) -> Result<Answer, Trouble> {
        let mut known = self.clone();
        if farewell == Farewell::WithoutResult {
            known.result = None;
        }
        if !farewell.reaches_the_pod() {
            self.pod.vanish()?;
        }
        let call = known.call("DEL");
        if farewell == Farewell::WithoutNetns { call.env("CNI_NETNS", "") } else { call }.run()
    }

    /// What is left compared to before, as far as that farewell lets a plugin reach.
    pub(crate) fn residue(&self, before: &Snapshot, farewell: Farewell) -> Result<Option<String>, Trouble> {
        if farewell.reaches_the_pod() { before.difference(&self.pod) } else { before.node_additions() }
    }

    /// Does something behind the plugin's back.
    pub(crate) fn disturb(&self, disturbance: &Disturbance) -> Result<(), Trouble> {
        self.sh(disturbance.place, disturbance.line).map(drop)
    }

    /// A shell line in the pod or on the node.
    pub(crate) fn sh(&self, place: Place, line: &str) -> Result<String, Trouble> {
        let host_end = self.host_end().unwrap_or_default();
        let tap = self.case.subject.occupied.unwrap_or_default();
        let env = [
            ("IFNAME", self.ifname()),
            ("HOSTIF", host_end.as_str()),
            ("NETWORK", self.network.as_str()),
            ("TAP", tap),
        ];
        match place {
            Place::Node => shell(line, &env),
            Place::Pod => self.pod.enter(|| shell(line, &env)),
        }
    }

    /// This attachment with a runtime's option in its configuration.
    pub(crate) fn with_option(mut self, option: &RuntimeOption) -> Self {
        self.extra = option.conf.clone();
        self.args = option.args.to_owned();
        self
    }

    /// Waits until the node's end of a vanished pod's interface is gone too, which takes the kernel a while.
    pub(crate) fn await_its_end(&self) -> Result<(), Trouble> {
        let Some(name) = self.host_end() else { return Ok(()) };
        let is_there = || Ok(shell(&format!("ip link show {name}"), &[]).ok());
        settled(self.case.effort.patience, is_there).map(drop)
    }

    /// The last interface of the result that is on the node: a veth's other end, not the bridge listed before it.
    fn host_end(&self) -> Option<String> {
        let result = self.result.as_ref().or(self.previous.as_ref())?;
        let on_the_node =
            |interface: &&Value| interface.get("sandbox").and_then(Value::as_str).unwrap_or_default().is_empty();
        let interface = result.get("interfaces")?.as_array()?.iter().rfind(on_the_node)?;
        Some(interface.get("name")?.as_str()?.to_owned())
    }
}

impl Case<'_> {
    /// Where the subject finds its delegates.
    pub(crate) fn plugin_path(&self) -> String {
        match self.subject.build {
            // Of the releases, only the newer one speaks our newest version.
            Build::Ours if self.subject.role == Role::Main => {
                crate::dist::cache_path("go/plugins").unwrap_or_default().display().to_string()
            }
            Build::Ours => PREPARING.to_owned(),
            _ => {
                let program = self.subject.program().unwrap_or_default();
                program.parent().map(|folder| folder.display().to_string()).unwrap_or_default()
            }
        }
    }
}

/// Merges objects key by key; anything else is replaced.
pub(crate) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from.clone(),
    }
}

fn relabelled(result: &Value, version: &str) -> Value {
    let mut result = result.clone();
    merge(&mut result, &json!({"cniVersion": version}));
    result
}

fn parsed(program: &str, text: &str) -> Result<Value, Trouble> {
    serde_json::from_str(text).map_err(|source| Trouble::Json { what: program.to_owned(), source })
}
