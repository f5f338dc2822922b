//! The options of `tapvisor-launcher launch`, written by a starter and read by the launcher.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::path::PathBuf;

/// The help text of `launch`, one option per line.
pub const USAGE: &str = "\
Usage: tapvisor-launcher launch --machine FILE --dir DIR [OPTION]…

Runs one virtual machine on a network that is already wired. Started by `tapvisor run` and by launcher pods.

  --machine FILE         machine and wiring request (JSON)
  --dir DIR              folder for control.sock, the console's sockets and log, and outcome.json
  --scratch DIR          folder for overlays, empty disks and cloud-init volumes; --dir if absent
  --tun-fds N,…          unattached tun descriptors: for each NIC one per queue and one for its service tap;
                         without them /dev/net/tun is opened
  --kvm-fd N             an open /dev/kvm
  --vhost-net-fds N,…    open /dev/vhost-net descriptors, one for each queue of each virtio NIC
  --disk-fd NAME=N       an open image for the disk NAME: read-only for read-only disks and overlays, else read-write
  --resolv-conf FILE     name servers and search list for the guest; /etc/resolv.conf if absent
  --nic-resolv-conf NAME=FILE
                         name servers and search list that the network of the NIC NAME gives, for a NIC without default route
  --console-stdio        make standard input and output the guest's serial console
  --incoming             wait for a guest that another launcher runs: no disk is opened for writing and no guest starts
  --termination-log FILE an existing file that gets the outcome as well, in at most 4096 bytes: /dev/termination-log in a pod
";

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Options of `launch`, as read from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchOptions {
    /// Machine and wiring request (JSON).
    pub machine: PathBuf,
    /// Folder for sockets, log and outcome.
    pub dir: PathBuf,
    /// Folder for overlays, empty disks and cloud-init volumes; `dir` if absent.
    pub scratch: Option<PathBuf>,
    /// Unattached tun descriptors: for each NIC one per queue and one for its service tap.
    pub tun_fds: Vec<RawFd>,
    /// An open descriptor of /dev/kvm; `None` lets the launcher open the node.
    pub kvm_fd: Option<RawFd>,
    /// Open /dev/vhost-net descriptors, one for each queue of each virtio NIC.
    pub vhost_net_fds: Vec<RawFd>,
    /// Open images by the names of their disks.
    pub disk_fds: Vec<(String, RawFd)>,
    /// Name servers and search list for the guest.
    pub resolv_conf: PathBuf,
    /// Name servers and search lists that the networks of single NICs give, by the NICs' names.
    pub nic_resolv_conf: Vec<(String, PathBuf)>,
    /// Whether standard input and output are the guest's serial console.
    pub console_stdio: bool,
    /// Whether the guest is to come from another launcher: none is started.
    pub incoming: bool,
    /// An existing file that gets the outcome as well: a container's termination message.
    pub termination_log: Option<PathBuf>,
}

/// What is wrong with a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// An option that does not exist.
    #[error("{0:?} is an unknown option of `launch`")]
    Unknown(OsString),
    /// An option without its value.
    #[error("{0} needs a value")]
    NoValue(&'static str),
    /// A value where none belongs.
    #[error("{0} takes no value")]
    Value(&'static str),
    /// An option that is there twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// An option that must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value of another shape than a descriptor or a named descriptor or file.
    #[error("{option}: {value:?} is invalid, expected {shape}")]
    Descriptor {
        /// The option, with its dashes.
        option: &'static str,
        /// The value on the command line.
        value: OsString,
        /// The form that the option expects.
        shape: &'static str,
    },
}

const OPTIONS: [&str; 12] = [
    "--machine",
    "--dir",
    "--scratch",
    "--tun-fds",
    "--kvm-fd",
    "--vhost-net-fds",
    "--disk-fd",
    "--resolv-conf",
    "--nic-resolv-conf",
    "--console-stdio",
    "--incoming",
    "--termination-log",
];

impl LaunchOptions {
    /// The options of a machine whose files lie in a folder; descriptors and the rest as if not given.
    #[must_use]
    pub fn new(machine: PathBuf, dir: PathBuf) -> Self {
        Self {
            machine,
            dir,
            scratch: None,
            tun_fds: Vec::new(),
            kvm_fd: None,
            vhost_net_fds: Vec::new(),
            disk_fds: Vec::new(),
            resolv_conf: RESOLV_CONF.into(),
            nic_resolv_conf: Vec::new(),
            console_stdio: false,
            incoming: false,
            termination_log: None,
        }
    }

    /// Reads what follows the word `launch`; a value follows its option, or is joined to it by `=`.
    ///
    /// # Errors
    /// The first argument that is wrong.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionError> {
        let mut options = Self::new(PathBuf::new(), PathBuf::new());
        let mut seen = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let (option, joined) = split(&argument)?;
            if !["--disk-fd", "--nic-resolv-conf"].contains(&option) && seen.contains(&option) {
                return Err(OptionError::Twice(option));
            }
            seen.push(option);
            if ["--console-stdio", "--incoming"].contains(&option) {
                if joined.is_some() {
                    return Err(OptionError::Value(option));
                }
                let is_on = if option == "--incoming" { &mut options.incoming } else { &mut options.console_stdio };
                *is_on = true;
                continue;
            }
            let value = joined.or_else(|| arguments.next()).ok_or(OptionError::NoValue(option))?;
            options.set(option, value)?;
        }
        let missing = ["--machine", "--dir"].into_iter().find(|option| !seen.contains(option));
        missing.map_or(Ok(options), |option| Err(OptionError::Missing(option)))
    }

    fn set(&mut self, option: &'static str, value: OsString) -> Result<(), OptionError> {
        match option {
            "--machine" => self.machine = value.into(),
            "--dir" => self.dir = value.into(),
            "--scratch" => self.scratch = Some(value.into()),
            "--termination-log" => self.termination_log = Some(value.into()),
            "--resolv-conf" => self.resolv_conf = value.into(),
            "--kvm-fd" => self.kvm_fd = Some(number(option, &value, value.to_str(), "a descriptor's number")?),
            "--tun-fds" => self.tun_fds = numbers(option, &value)?,
            "--vhost-net-fds" => self.vhost_net_fds = numbers(option, &value)?,
            "--nic-resolv-conf" => {
                let shape = "NAME=FILE";
                let named = value.to_str().and_then(|text| text.split_once('='));
                let (nic, file) = named.ok_or(OptionError::Descriptor { option, value: value.clone(), shape })?;
                self.nic_resolv_conf.push((nic.to_owned(), file.into()));
            }
            _ => {
                const SHAPE: &str = "NAME=N";
                let (name, digits) = value.to_str().and_then(|text| text.rsplit_once('=')).unzip();
                let digits = number(option, &value, digits, SHAPE)?;
                self.disk_fds.push((name.unwrap_or_default().to_owned(), digits));
            }
        }
        Ok(())
    }

    /// What [`Self::parse`] reads as these options.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut say = |option: &str, value: &OsStr| arguments.extend([option.into(), value.to_owned()]);
        let joined = |numbers: &[RawFd]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        say("--machine", self.machine.as_os_str());
        say("--dir", self.dir.as_os_str());
        if let Some(scratch) = &self.scratch {
            say("--scratch", scratch.as_os_str());
        }
        say("--resolv-conf", self.resolv_conf.as_os_str());
        if !self.tun_fds.is_empty() {
            say("--tun-fds", joined(&self.tun_fds).as_ref());
        }
        if let Some(kvm) = self.kvm_fd {
            say("--kvm-fd", kvm.to_string().as_ref());
        }
        if !self.vhost_net_fds.is_empty() {
            say("--vhost-net-fds", joined(&self.vhost_net_fds).as_ref());
        }
        for (name, fd) in &self.disk_fds {
            say("--disk-fd", format!("{name}={fd}").as_ref());
        }
        for (nic, file) in &self.nic_resolv_conf {
            let mut named = OsString::from(format!("{nic}="));
            named.push(file);
            say("--nic-resolv-conf", &named);
        }
        if self.console_stdio {
            arguments.push("--console-stdio".into());
        }
        if self.incoming {
            arguments.push("--incoming".into());
        }
        if let Some(file) = &self.termination_log {
            arguments.extend(["--termination-log".into(), file.as_os_str().to_owned()]);
        }
        arguments
    }
}

/// An option by its name, and the value that is joined to it.
fn split(argument: &OsStr) -> Result<(&'static str, Option<OsString>), OptionError> {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = argument.as_bytes();
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned())),
        None => (bytes, None),
    };
    let known = OPTIONS.into_iter().find(|option| option.as_bytes() == name);
    known.map(|option| (option, value)).ok_or_else(|| OptionError::Unknown(argument.to_owned()))
}

fn numbers(option: &'static str, value: &OsStr) -> Result<Vec<RawFd>, OptionError> {
    const SHAPE: &str = "descriptors' numbers with commas between";
    let text = value.to_str().unwrap_or_default();
    text.split(',').map(|digits| number(option, value, Some(digits), SHAPE)).collect()
}

fn number(
    option: &'static str,
    value: &OsStr,
    digits: Option<&str>,
    shape: &'static str,
) -> Result<RawFd, OptionError> {
    let number = digits.and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| OptionError::Descriptor { option, value: value.to_owned(), shape })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<LaunchOptions, OptionError> {
        LaunchOptions::parse(line.split(' ').map(OsString::from))
    }

    fn all() -> LaunchOptions {
        LaunchOptions {
            scratch: Some("/s".into()),
            tun_fds: vec![3, 4],
            kvm_fd: Some(5),
            vhost_net_fds: vec![6],
            disk_fds: vec![("root".into(), 7), ("a=b".into(), 8)],
            resolv_conf: "/r".into(),
            nic_resolv_conf: vec![("blue".into(), "/r=1".into())],
            console_stdio: true,
            incoming: true,
            termination_log: Some("/t".into()),
            ..LaunchOptions::new("/m".into(), "/d".into())
        }
    }

    // spec: LAUNCH-2
    #[test]
    fn what_was_written_is_read_and_has_the_documented_words() {
        let line = "--machine /m --dir /d --scratch /s --resolv-conf /r --tun-fds 3,4 --kvm-fd 5 --vhost-net-fds 6 \
                    --disk-fd root=7 --disk-fd a=b=8 --nic-resolv-conf blue=/r=1 --console-stdio --incoming --termination-log /t";
        let written: Vec<_> = all().to_arguments().into_iter().map(|word| word.into_string().unwrap()).collect();
        assert_eq!(written.join(" "), line);
        assert_eq!(parse(line), Ok(all()));
        assert_eq!(parse("--dir=/d --machine=/m"), Ok(LaunchOptions::new("/m".into(), "/d".into())));
        OPTIONS.iter().for_each(|option| assert!(USAGE.contains(&format!("\n  {option} ")), "{option}"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |line: &str| parse(&format!("--machine /m {line}")).unwrap_err().to_string();
        assert_eq!(wrong("--console-stdio"), "--dir is missing");
        assert_eq!(wrong("--dir"), "--dir needs a value");
        assert_eq!(wrong("--machine /n"), "--machine is given twice");
        assert_eq!(wrong("--console-stdio=1"), "--console-stdio takes no value");
        assert_eq!(wrong("web"), "\"web\" is an unknown option of `launch`");
        assert_eq!(wrong("--kvm-fd x"), "--kvm-fd: \"x\" is invalid, expected a descriptor's number");
        assert_eq!(
            wrong("--tun-fds 3,"),
            "--tun-fds: \"3,\" is invalid, expected descriptors' numbers with commas between"
        );
        assert_eq!(wrong("--nic-resolv-conf blue"), "--nic-resolv-conf: \"blue\" is invalid, expected NAME=FILE");
        assert_eq!(wrong("--disk-fd root"), "--disk-fd: \"root\" is invalid, expected NAME=N");
    }
}
