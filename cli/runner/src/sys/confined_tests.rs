//! Real processes in the isolation that the kernel allows to the user who runs the tests.

use std::os::unix::fs::OpenOptionsExt as _;

use super::*;

/// `sh -c script`, as we are, in our own network namespace.
fn shell(script: &str, output: OwnedFd) -> Start {
    let open = |path: &str| File::open(path).unwrap().into();
    let program = File::options().read(true).custom_flags(libc::O_PATH).open("/bin/sh").unwrap();
    let text = |text: &str| CString::new(text).unwrap();
    Start {
        program: program.into(),
        arguments: ["sh", "-c", script].map(text).into(),
        environment: vec![text("PATH=/usr/bin:/bin")],
        input: open("/dev/null"),
        output,
        netns: open("/proc/self/ns/net"),
        owner: Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() },
        group: None,
        descriptors: Vec::new(),
    }
}

// spec: ISO-3
#[test]
fn what_the_kernel_refuses_is_named_and_no_process_is_left() {
    let null = || OwnedFd::from(File::options().write(true).open("/dev/null").unwrap());
    let missing = Step::Folder(c"/nowhere/at/all".to_owned());
    let refused = super::start(&shell("exit 0", null()), &Walls::All(vec![missing])).unwrap_err();
    // Without the right to make namespaces it is that which is named.
    let words = refused.to_string();
    assert!(words == "making folder /nowhere/at/all" || words == "no namespace for processes", "{words}");
    assert!(refused.is_a_wall);
    let program = File::open("/etc/passwd").unwrap().into();
    let refused = super::start(&Start { program, ..shell("", null()) }, &Walls::None).unwrap_err();
    assert!(!refused.is_a_wall);
    let named = ["cannot be executed", "cannot enter the network namespace"];
    assert!(named.contains(&refused.to_string().as_str()), "{refused}");
    let mut children = std::process::Command::new("ps");
    let children = children.args(["--ppid", &std::process::id().to_string(), "-o", "args="]);
    let listed = String::from_utf8(children.output().unwrap().stdout).unwrap();
    assert!(!listed.contains("sh -c exit 0") && !listed.contains("defunct"), "{listed}");
}
